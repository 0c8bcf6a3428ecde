package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"custode/simulators/browsersim"
	"custode/simulators/hsmsim"
	"custode/simulators/lab"
	"custode/simulators/spsim"
)

// tokenStatus is what these tests read of `custode hsm status`.
type tokenStatus struct {
	Name         string
	InUse, Ready bool
	Well         bool
	Trouble      string
	Starts       int
	Worker       struct{ PID, Sessions, Limit int }
}

func tokens(t *testing.T, l *lab.Lab) (all []tokenStatus) {
	t.Helper()
	out, err := l.Run(t.Context(), "hsm", "status")
	if err == nil {
		err = json.Unmarshal([]byte(out), &all)
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// attempt is one login of the traffic.
type attempt struct {
	begun time.Time
	took  time.Duration
	what  string // "ok", "down" (the person was told to come back), or what was wrong
}

// traffic logs people in, 200 a minute, each in a browser of their own.
type traffic struct {
	l    *lab.Lab
	stop chan struct{}
	all  sync.WaitGroup
	mu   sync.Mutex
	done []attempt
}

func startTraffic(t *testing.T, l *lab.Lab) *traffic {
	t.Helper()
	tr := &traffic{l: l, stop: make(chan struct{})}
	var who []lab.Person
	for range 12 {
		who = append(who, enrol(t, l))
	}
	tr.all.Go(func() {
		tick := time.NewTicker(300 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-tr.stop:
				return
			case <-tick.C:
			}
			p := who[i%len(who)]
			tr.all.Go(func() {
				begun := time.Now()
				what := tr.login(p)
				tr.mu.Lock()
				defer tr.mu.Unlock()
				tr.done = append(tr.done, attempt{begun, time.Since(begun), what})
			})
		}
	})
	t.Cleanup(tr.end)
	return tr
}

func (tr *traffic) end() {
	select {
	case <-tr.stop:
	default:
		close(tr.stop)
	}
	tr.all.Wait()
}

func (tr *traffic) login(p lab.Person) string {
	b := browsersim.New(nil)
	page, _, err := tr.l.Send(context.Background(), b, spsim.Request{Level: 1}, true)
	steps := []func() (*browsersim.Page, error){
		func() (*browsersim.Page, error) {
			return b.Submit(page, "password", map[string]string{"username": p.Username, "password": p.Password})
		},
		func() (*browsersim.Page, error) { return b.Submit(page, "consent", nil) },
	}
	for _, step := range append([]func() (*browsersim.Page, error){nil}, steps...) {
		if step != nil {
			page, err = step()
		}
		switch {
		case err != nil:
			return err.Error()
		case page.Status >= 500:
			return "down"
		}
	}
	if !page.Has("SAMLResponse") {
		return fmt.Sprintf("no Response, HTTP %d: %.200s", page.Status, page.Text)
	}
	got, err := tr.l.SP.Consume(page.Field("SAMLResponse"), page.Field("RelayState"))
	if err != nil {
		return err.Error()
	}
	if got.Level != 1 || got.Attributes["fiscalNumber"] != p.Attributes["fiscalNumber"] {
		return fmt.Sprintf("asserted %+v", got)
	}
	return "ok"
}

// since returns the logins begun at or after at.
func (tr *traffic) since(at time.Time) []attempt {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	var out []attempt
	for _, a := range tr.done {
		if !a.begun.Before(at) {
			out = append(out, a)
		}
	}
	return out
}

func count(all []attempt, what string) int {
	n := 0
	for _, a := range all {
		if a.what == what {
			n++
		}
	}
	return n
}

// served waits until n logins begun after at succeeded, and returns when the first of them was over.
func (tr *traffic) served(t *testing.T, at time.Time, n int) time.Duration {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var first time.Duration
		good := 0
		for _, a := range tr.since(at) {
			if a.what == "ok" {
				if d := a.begun.Add(a.took).Sub(at); good == 0 || d < first {
					first = d
				}
				good++
			}
		}
		if good >= n {
			return first
		}
		if time.Now().After(end) {
			t.Fatalf("no service: %+v", tr.since(at))
		}
	}
}

// noneWrong insists that every login succeeded or was told to come back.
func (tr *traffic) noneWrong(t *testing.T) {
	t.Helper()
	tr.end()
	all := tr.since(time.Time{})
	for _, a := range all {
		if a.what != "ok" && a.what != "down" {
			t.Errorf("WRONG: %s", a.what)
		}
	}
	t.Logf("%d logins, %d of them told to come back", len(all), count(all, "down"))
}

// p95 is the duration that 95 of 100 logins did not exceed.
func p95(all []attempt) time.Duration {
	var d []time.Duration
	for _, a := range all {
		d = append(d, a.took)
	}
	slices.Sort(d)
	if len(d) == 0 {
		return 0
	}
	return d[(len(d)*95-1)/100]
}

// pinTriedOnce insists that no login of the token was refused.
func pinTriedOnce(t *testing.T, s *hsmsim.Shim) {
	t.Helper()
	all, err := s.Logins()
	if err != nil || len(all) == 0 {
		t.Fatalf("logins: %v, %v", all, err)
	}
	for _, l := range all {
		if l.RV != 0 {
			t.Errorf("process %d: C_Login answered %#x", l.PID, l.RV)
		}
	}
}

// TestTokenTroubleUnderTraffic: the worker crashes, hangs and loses its sessions; the token goes away, comes
// back re-initialised and comes back right. Nobody gets a wrong answer, and service returns by itself.
func TestTokenTroubleUnderTraffic(t *testing.T) {
	l := own(t, lab.Config{Shim: true, HSM: map[string]string{"call_limit": "2s"}})
	tr := startTraffic(t, l)
	tr.served(t, time.Now(), 3)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, trouble := range []struct {
		name string
		do   func()
	}{
		{"worker killed", func() { must(syscall.Kill(tokens(t, l)[0].Worker.PID, syscall.SIGKILL)) }},
		{"crash in C_Sign", func() { must(l.Shim.Add(hsmsim.Fault{Call: "C_Sign", Action: hsmsim.Crash, Count: 1})) }},
		{"all sessions dropped", func() { must(l.Shim.DropSessions()) }},
		{"logged out", func() { must(l.Shim.Logout()) }},
		{"C_Sign hangs", func() { must(l.Shim.Add(hsmsim.Fault{Call: "C_Sign", Hang: true})) }},
	} {
		at := time.Now()
		trouble.do()
		took := tr.served(t, at, 6)
		during := tr.since(at)
		t.Logf("%s: %d logins, first ended after %v, %d told to come back, p95 %v", trouble.name, len(during), took, count(during, "down"), p95(during))
		if n := count(during, "down"); n > 0 {
			t.Errorf("%s: %d logins did not survive", trouble.name, n)
		}
	}
	tokenDir, kept := filepath.Join(l.HSM.Dir, "tokens"), filepath.Join(l.HSM.Dir, "kept")
	must(os.CopyFS(kept, os.DirFS(tokenDir)))
	back := func(what string) {
		t.Helper()
		at := time.Now()
		took := tr.served(t, at, 3)
		t.Logf("%s: the first login begun after the token's return ended after %v", what, took)
		if took > 5*time.Second {
			t.Errorf("%s: service only after %v", what, took)
		}
	}
	must(l.HSM.Remove())
	eventually(t, "the token's absence is seen", func() bool { return !tokens(t, l)[0].Well })
	time.Sleep(4 * time.Second) // long enough for the back-off to grow
	must(l.HSM.Restore())
	back("away and back")
	must(l.HSM.Wipe())
	eventually(t, "a re-initialised token is refused by name", func() bool { return strings.Contains(tokens(t, l)[0].Trouble, "re-initialised") })
	must(errors.Join(os.Rename(tokenDir, kept+"-not"), os.Rename(kept, tokenDir)))
	back("re-initialised, then right again")
	tr.noneWrong(t)
	pinTriedOnce(t, l.Shim)
}

// TestFailOverUnderTraffic: the primary token is lost in several ways; the standby serves within two seconds,
// no login fails and few are slow; then the primary serves again.
func TestFailOverUnderTraffic(t *testing.T) {
	l := own(t, lab.Config{Shim: true, Standby: true, HSM: map[string]string{"fail_back": "1s", "call_limit": "2s"}})
	tr := startTraffic(t, l)
	inUse := func() string {
		for _, s := range tokens(t, l) {
			if s.InUse {
				return s.Name
			}
		}
		return ""
	}
	both := func() bool {
		all := tokens(t, l)
		return len(all) == 2 && all[0].Well && all[1].Well && all[0].InUse
	}
	for _, loss := range []struct {
		name string
		do   func(pid int) error
		undo func() error
	}{
		{"slot empty", func(int) error { return l.Shim.Hide() }, func() error { return l.Shim.Show() }},
		{"everything hangs", func(int) error { return l.Shim.Add(hsmsim.Fault{Call: "C_*", Hang: true}) }, func() error { return nil }},
		{"worker stopped", func(pid int) error { return syscall.Kill(pid, syscall.SIGSTOP) }, func() error { return nil }},
	} {
		eventually(t, "both tokens well, the primary in use", both)
		tr.served(t, time.Now(), 3)
		pid := tokens(t, l)[0].Worker.PID
		at := time.Now()
		if err := loss.do(pid); err != nil {
			t.Fatal(err)
		}
		for inUse() != "standby" {
			if time.Since(at) > 2*time.Second {
				t.Fatalf("%s: no fail-over within 2 s: %+v", loss.name, tokens(t, l))
			}
		}
		took := time.Since(at)
		tr.served(t, at, 10)
		during := tr.since(at.Add(-300 * time.Millisecond))
		t.Logf("%s: fail-over after %v; %d logins meanwhile, p95 %v, %d failed", loss.name, took, len(during), p95(during), len(during)-count(during, "ok"))
		if p95(during) > 3*time.Second || count(during, "ok") != len(during) {
			t.Errorf("%s: %+v", loss.name, during)
		}
		if err := loss.undo(); err != nil {
			t.Fatal(err)
		}
		_ = syscall.Kill(pid, syscall.SIGKILL) // a stopped or hanging process; the next one is sound
	}
	eventually(t, "the primary serves again", both)
	if _, err := l.Run(t.Context(), "hsm", "failover", "standby"); err != nil || inUse() != "standby" {
		t.Errorf("an operator's fail-over: %v, in use %s", err, inUse())
	}
	if out := run(t, l, "hsm", "rotate"); !strings.Contains(out, "custode/sign/2026-1") || !strings.Contains(out, "custode/pepper/2026-1") {
		t.Errorf("hsm rotate: %s", out)
	}
	keys, err := l.Run(t.Context(), "hsm", "keys")
	if err != nil || !strings.Contains(keys, "custode/pepper/2026-1") || strings.Count(keys, `"standby"`) != strings.Count(keys, `"label"`) {
		t.Errorf("keys: %v %s", err, keys)
	}
	page, err := browsersim.New(nil).Get(l.Metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`custode_hsm_in_use{token="standby"} 1`, `custode_hsm_calls_total{operation="sign",token="primary",result="ok"}`,
		`custode_hsm_call_seconds_count{operation="mac"}`, "custode_hsm_moves_total", `custode_hsm_sessions_limit{token="standby"} 8`} {
		if !strings.Contains(page.Body, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	tr.noneWrong(t)
	pinTriedOnce(t, l.Shim)
	pinTriedOnce(t, l.Second)
}

// TestStandbyWithOtherKeys: a standby that is no copy is refused by the key's name, and never used.
func TestStandbyWithOtherKeys(t *testing.T) {
	t.Parallel()
	l := own(t, lab.Config{Standby: true})
	if err := l.StopDaemon(); err != nil {
		t.Fatal(err)
	}
	// The same label and serial number over other keys: a copy of the token before its keys were rolled.
	stale, err := hsmsim.New(filepath.Join(t.TempDir(), "other"))
	if err != nil {
		t.Fatal(err)
	}
	machine, err := os.ReadFile(filepath.Join(l.Dir, "machine.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(filepath.Join(l.Dir, "token-2", "softhsm2.conf"), stale.Conf).Replace(string(machine))
	i := strings.Index(text, "  standby:")
	text = text[:i] + strings.NewReplacer(l.HSM.Serial, stale.Serial, url.PathEscape(filepath.Join(l.Dir, "token-2", "pin")), url.PathEscape(stale.PINFile)).Replace(text[i:])
	if err := os.WriteFile(filepath.Join(l.Dir, "machine.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.StartDaemon(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "refused by name", func() bool {
		s := tokens(t, l)[1]
		return !s.Ready && strings.Contains(s.Trouble, "recognise key custode/")
	})
	if _, err := l.Run(t.Context(), "hsm", "failover", "standby"); err == nil || status(t, err) != 73 {
		t.Errorf("an operator's fail-over: %v", err)
	}
	login(t, l, post, 1, enrol(t, l))
}

// TestWorkerRunByOthers: serve uses a worker that it did not start, and waits for it when it is started again.
func TestWorkerRunByOthers(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "hsm.sock")
	l, err := lab.Start(t.Context(), lab.Config{Custode: custode, HSM: map[string]string{"worker_socket": socket}, Prepare: func(l *lab.Lab) error {
		return startWorker(t, l)
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	p := enrol(t, l)
	login(t, l, post, 1, p)
	pid := tokens(t, l)[0].Worker.PID
	if environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); mayTrace(t) && !strings.Contains(string(environ), "GODEBUG=clobberfree=1,asyncpreemptoff=1") {
		t.Errorf("the worker does not wipe what it frees: %v, %q", err, environ)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the worker ends", func() bool { return syscall.Kill(pid, 0) != nil })
	if err := startWorker(t, l); err != nil {
		t.Fatal(err)
	}
	login(t, l, redirect, 1, p)
	if now := tokens(t, l)[0].Worker.PID; now == pid {
		t.Errorf("still process %d", now)
	}
	if err := l.StopDaemon(); err != nil { // before the worker: the last segments want a seal
		t.Error(err)
	}
}

// startWorker runs `custode hsm-worker` until the test is over.
func startWorker(t *testing.T, l *lab.Lab) error {
	t.Helper()
	cmd := exec.Command(custode, "--machine", filepath.Join(l.Dir, "machine.yaml"), "--policy", filepath.Join(l.Dir, "policy.yaml"), "hsm-worker")
	cmd.Env = append(os.Environ(), l.HSM.Env()...)
	if err := cmd.Start(); err != nil {
		return err
	}
	over := make(chan struct{})
	go func() { _ = cmd.Wait(); close(over) }()
	t.Cleanup(func() { _ = cmd.Process.Signal(syscall.SIGTERM); <-over })
	return nil
}

// TestServeHoldsNoPIN: the process that the network reaches has neither the module nor the PIN; the worker cannot be
// traced or dumped, and dies with its parent.
func TestServeHoldsNoPIN(t *testing.T) {
	t.Parallel()
	l := own(t, lab.Config{})
	login(t, l, post, 1, enrol(t, l))
	worker := tokens(t, l)[0].Worker.PID
	for pid, want := range map[int]bool{l.PID(): false, worker: true} {
		maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
		if err != nil {
			t.Fatalf("only root may look: %v", err)
		}
		if got := strings.Contains(string(maps), "libsofthsm2.so"); got != want {
			t.Errorf("process %d: the module is there: %t, want %t", pid, got, want)
		}
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
		if err != nil || !strings.Contains(strings.Join(strings.Fields(string(text)), " "), "Max core file size 0 0") {
			t.Errorf("process %d may dump core: %v", pid, err)
		}
	}
	l.KillDaemon()
	eventually(t, "the worker dies with its parent", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", worker))
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
}
