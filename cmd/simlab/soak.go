package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"custode/simulators/browsersim"
	"custode/simulators/lab"
	"custode/simulators/modemsim"
	"custode/simulators/spsim"
)

// soakCmd drives the real appliance with logins of level 2 while its modems, the
// network and the numbers misbehave, and writes a report.
type soakCmd struct {
	Duration time.Duration `default:"30m" help:"How long."`
	Rate     float64       `default:"33" help:"Codes per minute, before scaling."`
	Modems   int           `default:"4" help:"Modems."`
	Scale    float64       `default:"1" help:"Factor on the simulated times; 0.1 makes the radio ten times faster and the codes ten times more frequent. Below 1 nothing hangs: a smoke test."`
	Arrivals string        `default:"poisson" enum:"poisson,even" help:"poisson: independent of one another; even: each pause between half and one and a half of the mean."`
	PerMin   float64       `name:"per-minute" default:"20" help:"SMS a minute that each card may send, before scaling."`
	Seed     uint64        `default:"1" help:"Of the simulator."`
	Out      string        `type:"path" default:"docs/soak" help:"Folder of the report."`
	Title    string        `default:"Soak" help:"Title of the report."`
}

// soak is a run.
type soak struct {
	cmd    *soakCmd
	lab    *lab.Lab
	client http.Client
	began  time.Time

	mu      sync.Mutex
	rnd     *rand.Rand
	good    []lab.Person // free ones
	bad     []lab.Person
	logins  map[string]int // outcome -> how many
	errors  []string
	bulk    int
	samples []sample
}

// sample is the appliance at a moment.
type sample struct {
	At                 time.Duration
	Goroutines         int
	Descriptors        int
	RSS                int // kB
	CPU                time.Duration
	Codes, Bulk, Ready int
	Load               float64
}

// Run runs the soak and fails when a promise was broken.
func (s *soakCmd) Run(c *cli) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	custode, err := filepath.Abs(c.Custode)
	if err != nil {
		return err
	}
	if s.Scale <= 0 || s.Rate <= 0 || s.Modems < 1 {
		return errors.New("scale, rate and modems must be positive")
	}
	run := &soak{cmd: s, rnd: rand.New(rand.NewPCG(s.Seed, 7)), logins: map[string]int{}}
	report, err := run.run(ctx, custode)
	if err != nil {
		return err
	}
	if err := report.write(s.Out); err != nil {
		return err
	}
	fmt.Print(report.table())
	return report.verdict()
}

func (s *soakCmd) scaled(d time.Duration) time.Duration {
	return time.Duration(float64(d) * s.Scale)
}

// network is the radio of the soak: service of 1.5 to 6 s, one hang of a minute in a
// hundred, an unplug a minute, storms.
func (s *soakCmd) network() modemsim.Config {
	plan := modemsim.Soak()
	plan.Slow = 0
	if s.Scale < 1 {
		plan.Hang = 0 // the appliance's own waits are not scaled: each hang would cost a modem for the whole run
	}
	for _, d := range []*time.Duration{&plan.HangFor, &plan.UnplugEvery, &plan.UnplugFor, &plan.StormEvery} {
		*d = s.scaled(*d)
	}
	return modemsim.Config{
		Latency: modemsim.Delay{Median: s.scaled(3 * time.Second), Spread: 0.35},
		Transit: modemsim.Delay{Median: s.scaled(700 * time.Millisecond), Spread: 0.5},
		Plan:    plan, Seed: s.Seed,
	}
}

func (r *soak) run(ctx context.Context, custode string) (rep *report, err error) {
	r.lab, err = lab.Start(ctx, lab.Config{
		Custode: custode, Modems: r.cmd.Modems, Network: r.cmd.network(), Log: os.Stderr, LogLevel: "error",
		Policy: map[string]string{"codes.per_subject": "1000", "codes.per_subject_window": "1m", "passwords.memory_kib": "8", "passwords.iterations": "1",
			"sms.per_minute": strconv.FormatFloat(r.cmd.PerMin/r.cmd.Scale, 'f', 2, 64), "sms.burst": "3", "sms.per_day": "-1", "sms.per_month": "-1"},
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.lab.Close()) }()
	if err := r.enrol(ctx); err != nil {
		return nil, err
	}
	fmt.Printf("soak: %v, %.0f codes a minute on %d modems, times scaled by %v\n", r.cmd.Duration, r.cmd.Rate/r.cmd.Scale, r.cmd.Modems, r.cmd.Scale)
	r.began = time.Now()
	work, cancel := context.WithTimeout(ctx, r.cmd.Duration)
	defer cancel()
	var all sync.WaitGroup
	all.Go(func() { r.arrivals(work, ctx) })
	all.Go(func() { r.feedBulk(work) })
	all.Go(func() { r.watch(work) })
	all.Wait()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	r.calm(ctx)
	return r.assess(ctx)
}

// enrol makes the people: one in twenty has a number that the network refuses.
func (r *soak) enrol(ctx context.Context) error {
	codes := []int{38, 1, 27, 38, 28}
	for i := range 60 {
		p := lab.Demo()
		p.Username, p.Phone = fmt.Sprintf("soak.%d", i), fmt.Sprintf("+39348%07d", i)
		p.Attributes["spidCode"] = fmt.Sprintf("LABX%010d", i)
		delete(p.Attributes, "mobilePhone")
		if err := r.lab.Enrol(ctx, p); err != nil {
			return err
		}
		if i%6 == 5 {
			r.lab.Bank.BadNumber(p.Phone, codes[i/6%len(codes)])
			r.bad = append(r.bad, p)
		} else {
			r.good = append(r.good, p)
		}
	}
	return nil
}

// badShare of the codes goes to numbers that the network refuses.
const badShare = 0.05

// arrivals begins logins until work ends, and lets those begun end within whole.
func (r *soak) arrivals(work, whole context.Context) {
	mean := float64(time.Minute) / r.cmd.Rate * r.cmd.Scale
	var all sync.WaitGroup
	defer all.Wait()
	transport := browsersim.Transport()
	for {
		r.mu.Lock()
		pause := time.Duration(r.rnd.ExpFloat64() * mean)
		if r.cmd.Arrivals == "even" {
			pause = time.Duration((0.5 + r.rnd.Float64()) * mean)
		}
		bad := r.rnd.Float64() < badShare
		r.mu.Unlock()
		if !wait(work, pause) {
			return
		}
		p, ok := r.pick(bad)
		if !ok {
			r.count("nobody free", nil)
			continue
		}
		all.Go(func() {
			ctx, cancel := context.WithTimeout(whole, max(r.cmd.scaled(4*time.Minute), 20*time.Second))
			defer cancel()
			r.login(ctx, browsersim.New(transport), p, bad)
			r.mu.Lock()
			if bad {
				r.bad = append(r.bad, p)
			} else {
				r.good = append(r.good, p)
			}
			r.mu.Unlock()
		})
	}
}

func (r *soak) pick(bad bool) (lab.Person, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := &r.good
	if bad {
		list = &r.bad
	}
	if len(*list) == 0 {
		return lab.Person{}, false
	}
	p := (*list)[0]
	*list = (*list)[1:]
	return p, true
}

// login asks for a code and, when one can come, enters it.
func (r *soak) login(ctx context.Context, b *browsersim.Browser, p lab.Person, bad bool) {
	request := spsim.Request{Level: 2, Browser: p.Username}
	if !bad {
		_, err := r.lab.Login(ctx, b, request, true, p)
		if err != nil {
			r.count("failed", err)
			return
		}
		r.count("logged in", nil)
		return
	}
	page, _, err := r.lab.Send(ctx, b, request, true)
	if err == nil {
		page, err = b.Submit(page, "password", map[string]string{"username": p.Username, "password": p.Password})
	}
	if err == nil {
		_, err = b.Submit(page, "method", map[string]string{"method": "sms"})
	}
	if err != nil {
		r.count("failed", err)
		return
	}
	r.count("bad number", nil)
	wait(ctx, r.cmd.scaled(20*time.Second))
}

func (r *soak) count(what string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.logins[what]++
	if err != nil && len(r.errors) < 20 {
		r.errors = append(r.errors, fmt.Sprintf("%s: %.200v", time.Since(r.began).Round(time.Second), err))
	}
}

// feedBulk keeps bulk messages waiting, each to a number of its own.
func (r *soak) feedBulk(ctx context.Context) {
	text := filepath.Join(r.lab.Dir, "bulk.txt")
	if err := os.WriteFile(text, []byte("Avviso: domenica il servizio sarà sospeso per manutenzione.\n"), 0o600); err != nil {
		r.count("bulk failed", err)
		return
	}
	for {
		if f, err := r.metrics(ctx); err == nil && f[`custode_sms_waiting{class="bulk"}`] < 10 {
			args := []string{"modem", "send", "--class", "bulk", "--life", "24h", "--text-file", text}
			r.mu.Lock()
			for range 20 {
				args = append(args, fmt.Sprintf("+39320%07d", r.bulk))
				r.bulk++
			}
			r.mu.Unlock()
			if _, err := r.lab.Run(ctx, args...); err != nil && ctx.Err() == nil {
				r.count("bulk failed", err)
			}
		}
		if !wait(ctx, max(r.cmd.scaled(2*time.Second), 500*time.Millisecond)) {
			return
		}
	}
}

// watch samples the appliance.
func (r *soak) watch(ctx context.Context) {
	pause := max(r.cmd.Duration/360, 200*time.Millisecond)
	for wait(ctx, pause) {
		s, err := r.sample(ctx)
		if err != nil {
			if ctx.Err() == nil {
				r.count("sample failed", err)
			}
			continue
		}
		r.mu.Lock()
		r.samples = append(r.samples, s)
		r.mu.Unlock()
	}
}

func (r *soak) sample(ctx context.Context) (sample, error) {
	f, err := r.metrics(ctx)
	if err != nil {
		return sample{}, err
	}
	pid := r.lab.PID()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return sample{}, err
	}
	rss, err := residentKB(pid)
	if err != nil {
		return sample{}, err
	}
	cpu, err := cpuTime(pid)
	if err != nil {
		return sample{}, err
	}
	s := sample{At: time.Since(r.began), Goroutines: int(f["custode_goroutines"]), Descriptors: len(fds), RSS: rss, CPU: cpu,
		Codes: int(f[`custode_sms_waiting{class="code"}`]), Bulk: int(f[`custode_sms_waiting{class="bulk"}`]), Load: f["custode_sms_code_load"]}
	for name := range f {
		if strings.HasPrefix(name, "custode_modem_state{") && (strings.Contains(name, `state="ready"`) || strings.Contains(name, `state="sending"`)) {
			s.Ready++
		}
	}
	return s, nil
}

// residentKB reads VmRSS of proc(5).
func residentKB(pid int) (int, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			return strconv.Atoi(f[1])
		}
	}
	return 0, errors.New("no VmRSS")
}

// metrics reads the appliance's figures.
func (r *soak) metrics(ctx context.Context) (map[string]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.lab.Metrics+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	out := map[string]float64{}
	for sc := bufio.NewScanner(io.LimitReader(resp.Body, 4<<20)); sc.Scan(); {
		name, value, ok := strings.Cut(sc.Text(), "} ")
		if ok {
			name += "}"
		} else {
			name, value, _ = strings.Cut(sc.Text(), " ")
		}
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			out[name] = v
		}
	}
	return out, nil
}

// calm waits until no code is under way any more.
func (r *soak) calm(ctx context.Context) {
	limit, cancel := context.WithTimeout(ctx, max(r.cmd.scaled(3*time.Minute), 30*time.Second))
	defer cancel()
	for wait(limit, 300*time.Millisecond) {
		if f, err := r.metrics(limit); err == nil && f[`custode_sms_waiting{class="code"}`] == 0 && f["custode_sms_on_the_air"] == 0 && f[`custode_sms_waiting{class="bulk"}`] == 0 {
			return
		}
	}
}

// step is a line of `custode modem log --json`.
type step struct {
	Message string        `json:"message"`
	To      string        `json:"to"`
	Class   string        `json:"class"`
	State   string        `json:"state"`
	Detail  string        `json:"detail"`
	Handoff time.Duration `json:"handoff"`
	Submit  time.Duration `json:"submit"`
	At      time.Time     `json:"at"`
}

func (r *soak) trail(ctx context.Context) ([]step, error) {
	out, err := r.lab.Run(ctx, "modem", "log", "--json", "--since", (2*time.Hour + 2*r.cmd.Duration).String())
	if err != nil {
		return nil, err
	}
	var list []step
	for d := json.NewDecoder(strings.NewReader(out)); ; {
		var s step
		if err := d.Decode(&s); err == io.EOF {
			return list, nil
		} else if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
}

// wait sleeps; false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
