package registry

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"custode/internal/fault"
	"custode/simulators/registrysim"
)

// fakeSource counts and answers without a network, which synctest cannot fake.
type fakeSource struct {
	mu    sync.Mutex
	doc   []byte
	err   error
	calls []time.Time
	block chan struct{} // not nil: Aggregate waits for it or for the context
}

func (f *fakeSource) Aggregate(ctx context.Context, known func(string) Mark, take func(Arrival) error) (int, error) {
	f.mu.Lock()
	f.calls = append(f.calls, time.Now())
	doc, err, block := f.doc, f.err, f.block
	f.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return -1, fault.New(fault.Unavailable, "get", ctx.Err())
		}
	}
	if err != nil {
		return -1, err
	}
	return -1, take(Arrival{Name: "fake", Body: bytes.NewReader(doc)})
}

func (f *fakeSource) Listing(context.Context, func(string) Mark, func(Arrival) error) error {
	return nil
}

func (f *fakeSource) String() string { return "fake" }

func (f *fakeSource) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *fakeSource) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.calls)
}

// scheduled is a replica in a bubble of fake time.
func scheduled(t *testing.T, doc []byte, cert *x509.Certificate, rules Rules) (*Federation, *fakeSource, *lockedBuffer) {
	t.Helper()
	src, log := &fakeSource{doc: doc}, &lockedBuffer{}
	f, err := NewFederation(FederationConfig{Source: src, CopyPath: filepath.Join(t.TempDir(), "copy"), Pinned: []*x509.Certificate{cert}, Rules: rules,
		Random: middle{}, Now: time.Now, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f, src, log
}

// timeless returns an aggregate of the year 2000, in which synctest's clock begins.
func timeless(t *testing.T) ([]byte, *x509.Certificate) {
	t.Helper()
	then := func() time.Time { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) }
	sim, err := registrysim.New(registrysim.Config{Entities: 12, Seed: 3, Now: then})
	if err != nil {
		t.Fatal(err)
	}
	answer := httptest.NewRecorder()
	sim.Handler().ServeHTTP(answer, httptest.NewRequest("GET", "/entities?entity_type=SP", nil))
	return answer.Body.Bytes(), sim.Certificate()
}

// middle is the randomness without jitter.
type middle struct{}

func (middle) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(0x80 * (1 - i%2))
	}
	return len(p), nil
}

func TestJitter(t *testing.T) {
	doc, cert := timeless(t)
	f, _, _ := scheduled(t, doc, cert, Rules{})
	if got := f.jitter(time.Hour); got != time.Hour {
		t.Errorf("in the middle: %v", got)
	}
	f.c.Random = rand.Reader
	seen := map[time.Duration]bool{}
	for range 1000 {
		d := f.jitter(time.Hour)
		seen[d] = true
		if d < 54*time.Minute || d > 66*time.Minute {
			t.Fatalf("%v", d)
		}
	}
	if len(seen) < 100 {
		t.Errorf("%d different waits", len(seen))
	}
}

func run(t *testing.T, f *Federation) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
}

func TestSchedule(t *testing.T) {
	doc, cert := timeless(t)
	synctest.Test(t, func(t *testing.T) {
		f, src, log := scheduled(t, doc, cert, Rules{Interval: time.Hour, MaxAge: 3 * time.Hour})
		stop := run(t, f)
		synctest.Wait()
		if src.count() != 1 || f.Usable() != nil {
			t.Fatalf("the first refresh is not at once: %d, %v\n%s", src.count(), f.Usable(), log.String())
		}
		for _, step := range []struct {
			wait time.Duration
			want int
		}{{59 * time.Minute, 1}, {2 * time.Minute, 2}} {
			time.Sleep(step.wait)
			synctest.Wait()
			if src.count() != step.want {
				t.Errorf("%d refreshes, want %d", src.count(), step.want)
			}
		}
		// Failures: again after 30 s, 1, 2, 4 ... minutes, never more than the interval.
		src.set(fault.New(fault.Unavailable, "get", errors.New("down")))
		for _, step := range []struct {
			wait time.Duration
			want int
		}{{58 * time.Minute, 2}, {100 * time.Second, 4}, {time.Minute, 5}, {2 * time.Minute, 6}, {4 * time.Minute, 7}} {
			time.Sleep(step.wait)
			synctest.Wait()
			if src.count() != step.want {
				t.Errorf("%d tries, want %d", src.count(), step.want)
			}
		}
		n := 0
		time.Sleep(5 * time.Hour)
		if st := f.Status(); st.LastError == "" || st.Trouble != "the copy is old" || !st.Usable || st.Live == 0 || st.NextRefresh == nil {
			t.Errorf("status %+v", st)
		}
		if text := log.String(); !strings.Contains(text, "the copy is old") || strings.Count(text, "the copy is old") > 6 {
			t.Errorf("%d alarms", strings.Count(text, "the copy is old"))
		}
		n = src.count()
		time.Sleep(10 * time.Hour)
		if got := src.count() - n; got != 10 {
			t.Errorf("%d tries in 10 hours", got)
		}
		// An operator does not wait, and the next success sets everything right.
		src.set(nil)
		n = f.Status().Attempts
		if attempt, err := f.Refresh(Accept{}); err != nil || attempt != n+1 {
			t.Errorf("refresh: %d %v", attempt, err)
		}
		synctest.Wait()
		if st := f.Status(); st.Attempts != n+1 || st.LastError != "" || st.Trouble != "" {
			t.Errorf("status %+v", st)
		}
		stop()
	})
}

// TestOneRefreshAtATime: a second wish is refused while one is under way, the
// time limit ends a source that hangs, and stopping does not wait for it.
func TestOneRefreshAtATime(t *testing.T) {
	doc, cert := timeless(t)
	synctest.Test(t, func(t *testing.T) {
		f, src, _ := scheduled(t, doc, cert, Rules{Timeout: 10 * time.Minute})
		src.block = make(chan struct{})
		stop := run(t, f)
		synctest.Wait()
		if _, err := f.Refresh(Accept{}); !fault.Is(err, fault.Busy) || !f.Status().Refreshing {
			t.Errorf("second refresh: %v", err)
		}
		time.Sleep(10*time.Minute + time.Second)
		if st := f.Status(); st.Refreshing || !strings.Contains(st.LastError, "deadline") {
			t.Errorf("status %+v", st)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		stop() // in the middle of the next one
		if err := f.Usable(); !fault.Is(err, fault.Unavailable) {
			t.Errorf("usable: %v", err)
		}
	})
}

// TestRestartSchedule: a fresh copy is not fetched again at once.
func TestRestartSchedule(t *testing.T) {
	doc, cert := timeless(t)
	synctest.Test(t, func(t *testing.T) {
		f, src, log := scheduled(t, doc, cert, Rules{Interval: time.Hour})
		if _, err := f.refresh(t.Context(), Accept{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Minute)
		again, err := NewFederation(f.c)
		if err != nil {
			t.Fatal(err)
		}
		if err := again.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		stop := run(t, again)
		time.Sleep(20 * time.Minute)
		if n := src.count(); n != 1 {
			t.Errorf("%d refreshes 50 minutes after the first\n%s", n, log.String())
		}
		if st := again.Status(); !st.Inspected || st.Age != "50m0s" {
			t.Errorf("status %+v", st)
		}
		time.Sleep(20 * time.Minute)
		if n := src.count(); n != 2 {
			t.Errorf("%d refreshes 70 minutes after the first", n)
		}
		stop()
	})
}

// TestDirectoryRun: the directory is followed.
func TestDirectoryRun(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a.xml", vector(t, 4201))
	log := &lockedBuffer{}
	synctest.Test(t, func(t *testing.T) {
		r, _, err := Load(dir, Options{Log: slog.New(slog.NewTextHandler(log, nil)), Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		put(t, dir, "b.xml", vector(t, 4202))
		put(t, dir, "c.xml", []byte("<broken"))
		time.Sleep(4 * time.Minute)
		if r.Len() != 1 {
			t.Error("read too early")
		}
		time.Sleep(2 * time.Minute)
		st := r.Status()
		if r.Len() != 2 || st.Live != 2 || st.Broken != 1 || st.BrokenList[0].Entity != "c.xml" || st.Attempts != 2 || r.Usable() != nil {
			t.Errorf("status %+v", st)
		}
		if n, err := r.Refresh(Accept{}); err != nil || n != 3 {
			t.Errorf("refresh: %d %v", n, err)
		}
		if d, err := r.Show(ctx, "http://localhost:4202"); err != nil || d.Standing != "live" {
			t.Errorf("show: %+v %v", d, err)
		}
		if _, err := r.Show(ctx, "http://localhost:4203"); !fault.Is(err, fault.NotFound) {
			t.Errorf("show: %v", err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	if !strings.Contains(log.String(), "file left out") {
		t.Error("nothing in the log")
	}
}
