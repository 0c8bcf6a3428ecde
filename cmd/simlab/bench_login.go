package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"custode/simulators/browsersim"
	"custode/simulators/lab"
	"custode/simulators/spsim"
)

// The reference for the work outside hash and signatures, in ms of CPU per
// login: three requests, one POST request verified, one Response built, by
// measurements of the parts alone.
const refOther = 3*0.011 + 0.28 + 0.017

// clients is the closed loop's concurrency.
const clients = 8

// benchLogin measures whole logins at the appliance, next to the ceiling that
// the Argon2id and signature rates of this machine allow in the same run.
func benchLogin(ctx context.Context, custode string, quick bool, f figures) (err error) {
	span, benchtime := 20*time.Second, "3s"
	if quick {
		span, benchtime = 5*time.Second, "1s"
	}
	hash, hashAll, err := primitive(ctx, "custode/authcore", "BenchmarkPasswordCheckParallel", benchtime)
	if err != nil {
		return err
	}
	sign, signAll, err := primitive(ctx, "custode/hsm/pkcs11", "BenchmarkSignRSA2048", benchtime)
	if err != nil {
		return err
	}
	ceiling := 1 / (hashAll + 2*signAll)
	fmt.Printf("argon2id %.1f ms (%.1f/s on all cores), RSA signature in the token %.2f ms (%.0f/s); ceiling %.1f logins/s\n",
		hash*1e3, 1/hashAll, sign*1e3, 1/signAll, ceiling)

	for level := 1; level <= 2; level++ {
		name := fmt.Sprintf("login_l%d", level)
		r, err := measure(ctx, custode, level, span, nil)
		if err != nil {
			return err
		}
		f.print(name+"_rate", float64(r.logins)/r.wall.Seconds(), "logins/s", ceiling)
		f.print(name+"_rate_server_only", float64(runtime.NumCPU())/r.cpuEach().Seconds(), "logins/s", ceiling)
		f.print(name+"_p95", r.p95.Seconds()*1e3, "ms", 3000)
		// With a hash that costs nothing, what is left besides the two
		// signatures is everything else.
		r, err = measure(ctx, custode, level, span/2, map[string]string{"passwords.memory_kib": "8", "passwords.iterations": "1"})
		if err != nil {
			return err
		}
		f.print(name+"_cpu_other", (r.cpuEach().Seconds()-2*sign)*1e3, "ms", refOther)
	}
	return nil
}

// measure starts an appliance and drives it at the level for the span.
func measure(ctx context.Context, custode string, level int, span time.Duration, policy map[string]string) (r result, err error) {
	path, err := filepath.Abs(custode)
	if err != nil {
		return r, err
	}
	cfg := lab.Config{Custode: path, Modems: clients, Log: os.Stderr, LogLevel: "error", Policy: map[string]string{
		"codes.per_subject": "1000", "codes.per_subject_window": "1m",
	}}
	maps.Copy(cfg.Policy, policy)
	l, err := lab.Start(ctx, cfg)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	people := make([]lab.Person, clients)
	for i := range people {
		p := lab.Demo()
		p.Username, p.Phone = fmt.Sprintf("load.%d", i), fmt.Sprintf("+39348%07d", i)
		p.Attributes["spidCode"] = fmt.Sprintf("LABX%010d", i)
		delete(p.Attributes, "mobilePhone")
		if err := l.Enrol(ctx, p); err != nil {
			return r, err
		}
		people[i] = p
	}
	if _, err := drive(ctx, l, people, level, time.Second); err != nil { // warm up
		return r, err
	}
	return drive(ctx, l, people, level, span)
}

type result struct {
	logins    int
	wall, cpu time.Duration
	p95       time.Duration // of one whole login
	took      []time.Duration
}

// cpuEach is the appliance's processor time per login.
func (r result) cpuEach() time.Duration { return r.cpu / time.Duration(r.logins) }

// drive runs one login after another on each client for the span.
func drive(ctx context.Context, l *lab.Lab, people []lab.Person, level int, span time.Duration) (result, error) {
	transport := browsersim.Transport()
	defer transport.CloseIdleConnections()
	cpu0, err := cpuTime(l.PID())
	if err != nil {
		return result{}, err
	}
	start := time.Now()
	var mu sync.Mutex
	var took []time.Duration
	var failure error
	var wg sync.WaitGroup
	for i, p := range people {
		wg.Go(func() {
			for n := 0; time.Since(start) < span; n++ {
				t0 := time.Now()
				r := spsim.Request{Level: level, Browser: p.Username}
				_, err := l.Login(ctx, browsersim.New(transport), r, (i+n)%2 == 0, p)
				mu.Lock()
				took = append(took, time.Since(t0))
				failure = errors.Join(failure, err)
				stop := failure != nil
				mu.Unlock()
				if stop {
					return
				}
			}
		})
	}
	wg.Wait()
	if failure != nil {
		return result{}, failure
	}
	wall := time.Since(start)
	cpu1, err := cpuTime(l.PID())
	if err != nil {
		return result{}, err
	}
	slices.Sort(took)
	return result{logins: len(took), wall: wall, cpu: cpu1 - cpu0, p95: took[len(took)*95/100], took: took}, nil
}

// cpuTime returns user and system time of a process (proc(5), stat fields 14
// and 15, in ticks of 10 ms).
func cpuTime(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, errors.New("unreadable /proc stat")
	}
	var ticks int
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}
