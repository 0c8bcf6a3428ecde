package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"custode/simulators/lab"
	"custode/simulators/registrysim"
)

// The objectives of the registry replica.
const (
	refImport  = 60.0  // s, first import of a federation of 40 000
	refMemory  = 150.0 // MB resident more than without a federation
	refRestart = 10.0  // s until logins are served from the copy
	refLookup  = 1e6   // ns: little beside the rest of a request
)

// benchRegistry measures the replica of a whole federation in the real
// appliance: import, memory, restart, and logins before and during a refresh in which every entity is new.
func benchRegistry(ctx context.Context, custode string, quick bool, f figures) (err error) {
	entities, span := 40_000, 15*time.Second
	if quick {
		entities, span = 3_000, 3*time.Second
	} else {
		for _, b := range []struct{ measure, name string }{{"registry_lookup_recent", "BenchmarkLookupRecent"}, {"registry_lookup_any", "BenchmarkLookupAny"}} {
			one, _, err := primitive(ctx, "custode/authcore/registry", b.name, "2s")
			if err != nil {
				return err
			}
			f.print(b.measure, one*1e9, "ns", refLookup)
		}
	}
	path, err := filepath.Abs(custode)
	if err != nil {
		return err
	}
	without, err := residentWithout(ctx, path)
	if err != nil {
		return err
	}
	l, err := lab.Start(ctx, lab.Config{Custode: path, Modems: 1, Log: os.Stderr, LogLevel: "error", Federation: &lab.Federation{Entities: entities}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	st, err := l.RegistryStatus(ctx)
	if err != nil {
		return err
	}
	took, err := time.ParseDuration(st.LastTook)
	if err != nil {
		return err
	}
	fmt.Printf("%d service providers, copy of %.0f MB, index of %.1f MB, heap %.1f MB\n", st.Live, float64(st.Memory.Copy)/1e6, float64(st.Memory.Index)/1e6, float64(st.Memory.Heap)/1e6)
	f.print("registry_import", took.Seconds(), "s", refImport)
	people, err := enrolLoad(ctx, l)
	if err != nil {
		return err
	}
	if err := refreshUnderLoad(ctx, l, people, entities, span, f); err != nil {
		return err
	}
	with, peak, err := resident(l.PID())
	if err != nil {
		return err
	}
	f.print("registry_resident", with-without, "MB", refMemory)
	f.print("registry_resident_peak", peak-without, "MB", refMemory)
	l.Registry.Misbehave(registrysim.ServerError)
	if err := l.StopDaemon(); err != nil {
		return err
	}
	start := time.Now()
	if err := l.StartDaemon(ctx); err != nil {
		return err
	}
	f.print("registry_restart", time.Since(start).Seconds(), "s", refRestart)
	return nil
}

func enrolLoad(ctx context.Context, l *lab.Lab) ([]lab.Person, error) {
	people := make([]lab.Person, clients)
	for i := range people {
		p := lab.Demo()
		p.Username, p.Phone = fmt.Sprintf("load.%d", i), fmt.Sprintf("+39348%07d", i)
		p.Attributes["spidCode"] = fmt.Sprintf("LABX%010d", i)
		delete(p.Attributes, "mobilePhone")
		if err := l.Enrol(ctx, p); err != nil {
			return nil, err
		}
		people[i] = p
	}
	return people, nil
}

// refreshUnderLoad drives level 1 logins before a refresh and as long as it takes.
func refreshUnderLoad(ctx context.Context, l *lab.Lab, people []lab.Person, entities int, span time.Duration, f figures) error {
	if _, err := drive(ctx, l, people, 1, time.Second); err != nil { // warm up
		return err
	}
	before, err := drive(ctx, l, people, 1, span)
	if err != nil {
		return err
	}
	l.Registry.Publish(func(e *registrysim.Edition) {
		for i := range entities {
			e.Revision[i]++
		}
	})
	refreshed := make(chan error, 1)
	go func() {
		_, err := l.Run(ctx, "registry", "refresh")
		refreshed <- err
	}()
	var during result
	for over := false; !over; {
		r, err := drive(ctx, l, people, 1, 2*time.Second)
		if err != nil {
			return err
		}
		during.logins += r.logins
		during.wall += r.wall
		during.took = append(during.took, r.took...)
		select {
		case err := <-refreshed:
			if err != nil {
				return err
			}
			over = true
		default:
		}
	}
	slices.Sort(during.took)
	during.p95 = during.took[len(during.took)*95/100]
	rate := float64(before.logins) / before.wall.Seconds()
	f.print("registry_refresh", during.wall.Seconds(), "s", refImport)
	f.print("registry_login_l1_rate_before", rate, "logins/s", rate)
	f.print("registry_login_l1_rate_during", float64(during.logins)/during.wall.Seconds(), "logins/s", rate)
	f.print("registry_login_l1_p95_before", before.p95.Seconds()*1e3, "ms", 3000)
	f.print("registry_login_l1_p95_during", during.p95.Seconds()*1e3, "ms", 3000)
	return nil
}

// residentWithout returns the resident memory of an appliance that follows a directory of one, MB.
func residentWithout(ctx context.Context, custode string) (mb float64, err error) {
	l, err := lab.Start(ctx, lab.Config{Custode: custode, Modems: 1, Log: os.Stderr, LogLevel: "error"})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	people, err := enrolLoad(ctx, l)
	if err != nil {
		return 0, err
	}
	if _, err := drive(ctx, l, people, 1, 2*time.Second); err != nil {
		return 0, err
	}
	_, peak, err := resident(l.PID())
	return peak, err
}

// resident returns the resident memory of a process now and at its highest, MB (proc(5), status).
func resident(pid int) (now, peak float64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kb float64
		if n, _ := fmt.Sscanf(line, "VmRSS: %f kB", &kb); n == 1 {
			now = kb / 1e3
		}
		if n, _ := fmt.Sscanf(line, "VmHWM: %f kB", &kb); n == 1 {
			peak = kb / 1e3
		}
	}
	if now == 0 || peak == 0 {
		return 0, 0, errors.New("unreadable /proc status")
	}
	return now, peak, nil
}
