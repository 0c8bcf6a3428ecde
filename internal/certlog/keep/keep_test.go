package keep

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"custode/internal/certlog"
	"custode/internal/certlog/certlogtest"
	"custode/internal/certlog/folder/foldertest"
	"custode/internal/certlog/notary"
	"custode/internal/fault"
	"custode/simulators/tsasim"
)

// kept is a log with two sealed segments and its keeper, whose clock can be moved.
func kept(t *testing.T, changes ...func(*notary.Notary, *tsasim.TSA)) (k *Keeper, dir string, ahead *time.Duration, told *[]string) {
	t.Helper()
	authority, err := tsasim.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { authority.Close() })
	n := certlogtest.Notary(t, authority)
	for _, change := range changes {
		change(n, authority)
	}
	dir, ahead, told = t.TempDir(), new(time.Duration), new([]string)
	l, err := certlog.Open(t.Context(), certlog.Config{Name: "test", FS: certlog.Dir(dir), Keys: certlogtest.Keys{}, Sealer: n, Age: time.Hour, Size: 1 << 20,
		Now: time.Now, Random: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	k = New(Config{Name: "test", Log: l, Dir: dir, Judge: n, Age: time.Hour, Retention: 100 * time.Hour, Patience: time.Hour, Hour: 3,
		Now: func() time.Time { return time.Now().Add(*ahead) }, Slog: slog.New(slog.DiscardHandler),
		Tell: func(_ context.Context, what, detail string) error { *told = append(*told, what); return nil }})
	if err := k.Holds.Begin(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = l.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	for range 2 {
		if _, err := l.Append(ctx, certlog.Record{Tag: "a", Data: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		if err := l.Seal(ctx); err != nil {
			t.Fatal(err)
		}
	}
	return k, dir, ahead, told
}

func TestNight(t *testing.T) {
	k, dir, ahead, told := kept(t)
	if n := k.Night(t.Context()); !n.Verified || n.Records != 2 || n.Destroyed != 0 || n.Problem != "" {
		t.Errorf("first night: %+v", n)
	}
	if _, err := k.Destroy(t.Context(), "early", k.Now()); !fault.Is(err, fault.Denied) {
		t.Errorf("before its time: %v", err)
	}
	*ahead = 200 * time.Hour
	from := time.Now().Add(-time.Hour)
	h, err := k.Holds.Add(Hold{From: from, To: from.Add(2 * time.Hour), Case: "1", Reason: "r", By: "b"})
	if err != nil {
		t.Fatal(err)
	}
	if n := k.Night(t.Context()); n.Destroyed != 0 || !n.Verified {
		t.Errorf("under a hold: %+v", n)
	}
	if _, err := k.Holds.Release(h.Number, "b", time.Now()); err != nil {
		t.Fatal(err)
	}
	holds := filepath.Join(dir, holdsName)
	if err := os.Rename(holds, holds+".away"); err != nil {
		t.Fatal(err)
	}
	if n := k.Night(t.Context()); n.Destroyed != 0 || !strings.Contains(n.Problem, holdsName) {
		t.Errorf("without the list of holds: %+v", n)
	}
	if err := os.Rename(holds+".away", holds); err != nil {
		t.Fatal(err)
	}
	tell := k.Tell
	k.Tell = func(context.Context, string, string) error { return errors.New("security log away") }
	if n := k.Night(t.Context()); n.Destroyed != 0 || n.Problem == "" {
		t.Errorf("not told, yet: %+v", n)
	}
	k.Tell = tell
	if n := k.Night(t.Context()); n.Destroyed != 2 || n.Problem != "" || k.Last() != n {
		t.Errorf("last night: %+v", n)
	}
	if !slices.Contains(*told, "log-destroy") {
		t.Errorf("told %v", *told)
	}
	if _, err := os.Stat(filepath.Join(dir, "000000000001.key")); err == nil {
		t.Error("a key is still there")
	}
	if n := k.Night(t.Context()); !n.Verified || n.Destroyed != 0 {
		t.Errorf("afterwards: %+v", n)
	}
}

// TestDivergence: what does not verify is told, and nothing of it is destroyed.
func TestDivergence(t *testing.T) {
	k, dir, ahead, told := kept(t)
	*ahead = 200 * time.Hour
	path := filepath.Join(dir, "000000000002.seg")
	octets, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	octets[len(octets)-10] ^= 1
	if err := os.WriteFile(path, octets, 0o600); err != nil {
		t.Fatal(err)
	}
	if n := k.Night(t.Context()); n.Verified || n.Destroyed != 0 || !strings.Contains(n.Problem, "segment 2") {
		t.Errorf("%+v", n)
	}
	if !slices.Equal(*told, []string{"log-diverges"}) {
		t.Errorf("told %v", *told)
	}
}

// TestEndRemoved: a running log knows what it sealed, without any witness.
func TestEndRemoved(t *testing.T) {
	k, dir, _, told := kept(t)
	for _, suffix := range []string{"seg", "key", "idx", "hsh", "p7m"} {
		if err := os.Remove(filepath.Join(dir, "000000000002."+suffix)); err != nil {
			t.Fatal(err)
		}
	}
	if n := k.Night(t.Context()); n.Verified || !strings.Contains(n.Problem, "segment 2: 1 sealed records are here, 2 are known") {
		t.Errorf("%+v", n)
	}
	if !slices.Equal(*told, []string{"log-diverges"}) {
		t.Errorf("told %v", *told)
	}
}

func TestNext(t *testing.T) {
	day := time.Date(2026, 11, 22, 2, 59, 0, 0, time.UTC)
	for after, want := range map[time.Duration]time.Duration{0: time.Minute, time.Minute: 24*time.Hour + time.Minute, 2 * time.Minute: 24*time.Hour + time.Minute} {
		if got := next(day.Add(after), 3); !got.Equal(day.Add(want)) {
			t.Errorf("after %v: %v", after, got)
		}
	}
}

func TestHoldsRefuse(t *testing.T) {
	dir := t.TempDir()
	h := NewHolds(certlog.Dir(dir))
	if _, err := h.List(); !fault.Is(err, fault.Fatal) {
		t.Errorf("no file: %v", err)
	}
	if err := errors.Join(h.Begin(), h.Begin()); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if _, err := h.Add(Hold{From: now, To: now, Case: "1", Reason: "r", By: "b"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("empty interval: %v", err)
	}
	if _, err := h.Release(1, "b", now); !fault.Is(err, fault.NotFound) {
		t.Errorf("no hold: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, holdsName), []byte(`[{"number":2}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Held(); !fault.Is(err, fault.Fatal) {
		t.Errorf("a hold was taken out: %v", err)
	}
}

// TestHoldsSurvive cuts the power at, and lets fail, each call of writing holds: the
// list is always whole, and what was promised is in it.
func TestHoldsSurvive(t *testing.T) {
	now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	for _, cut := range []bool{true, false} {
		for at := 1; ; at++ {
			d := foldertest.NewDisk(uint64(at))
			if cut {
				d.CrashAt = at
			} else {
				d.FailAt[at] = true
			}
			h := NewHolds(d)
			begun := h.Begin() == nil
			added, released := 0, 0
			for range 3 {
				if one, err := h.Add(Hold{From: now, To: now.Add(time.Hour), Case: "1", Reason: "r", By: "b"}); err == nil {
					added = one.Number
				}
			}
			if _, err := h.Release(1, "b", now); err == nil {
				released = 1
			}
			over := d.Calls < at
			all, err := NewHolds(d.Reboot()).List()
			if begun && err != nil {
				t.Fatalf("call %d, cut %t: %v", at, cut, err)
			}
			if len(all) < added || released == 1 && all[0].Released.IsZero() {
				t.Fatalf("call %d, cut %t: %d of %d holds, released %d: %+v", at, cut, len(all), added, released, all)
			}
			if over {
				t.Logf("%d calls", at)
				break
			}
		}
	}
}
