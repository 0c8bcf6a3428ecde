package pkcs11_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"

	"custode/hsm"
	"custode/hsm/pkcs11"
	"custode/internal/fault"
	"custode/simulators/hsmsim"
)

// keys opens one mac and one wrap key.
func keys(t testing.TB, tok *pkcs11.Token) (hsm.MAC, hsm.Wrapper) {
	t.Helper()
	m, err := tok.MAC(macLabel)
	if err != nil {
		t.Fatal(err)
	}
	w, err := tok.Wrapper(wrapLabel)
	if err != nil {
		t.Fatal(err)
	}
	return m, w
}

// counter counts log lines by message.
type counter struct {
	slog.Handler
	mu sync.Mutex
	n  map[string]int
}

func newCounter() *counter {
	return &counter{Handler: slog.DiscardHandler, n: map[string]int{}}
}
func (c *counter) Enabled(context.Context, slog.Level) bool { return true }
func (c *counter) Handle(_ context.Context, r slog.Record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[r.Message]++
	return nil
}
func (c *counter) count(message string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[message]
}

// The session whose answer was lost keeps its operation; reused, it would fail
// one call in N for ever.
func TestSessionWithAnErrorIsNotReused(t *testing.T) {
	tok := open(t, newSim(t), func(c *pkcs11.Config) { c.MaxSessions = 3 })
	m, _ := keys(t, tok)
	var faults atomic.Pointer[[]p11.Error]
	tok.Inject(func(s p11.SessionHandle) error {
		mod := tok.Module()
		if err := mod.DigestInit(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_SHA256, nil)}); err != nil {
			t.Errorf("a session with an operation on it is used again: %v", err)
		}
		if left := *faults.Load(); len(left) > 0 {
			rest := left[1:]
			faults.Store(&rest)
			return fmt.Errorf("lost answer: %w", left[0])
		}
		_, err := mod.Digest(s, []byte("x"))
		return err
	})
	for name, c := range map[string]struct {
		faults []p11.Error
		want   []fault.Kind // of the calls that fail
	}{
		"device":  {[]p11.Error{p11.CKR_DEVICE_ERROR, p11.CKR_DEVICE_ERROR}, nil},
		"session": {[]p11.Error{p11.CKR_SESSION_CLOSED}, nil},
		// Refused at once, and no repair sweeps up behind it.
		"request": {[]p11.Error{p11.CKR_DATA_LEN_RANGE, p11.CKR_DATA_LEN_RANGE}, []fault.Kind{fault.Invalid, fault.Invalid}},
		// Four tries, four stronger and stronger repairs, and then no.
		"for ever": {[]p11.Error{p11.CKR_DEVICE_ERROR, p11.CKR_DEVICE_ERROR, p11.CKR_DEVICE_ERROR, p11.CKR_DEVICE_ERROR}, []fault.Kind{fault.Unavailable}},
	} {
		faults.Store(&c.faults)
		var got []fault.Kind
		for range 40 {
			if _, err := m.MAC(t.Context(), []byte("x")); err != nil {
				got = append(got, fault.KindOf(err))
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: refusals %v, want %v", name, got, c.want)
		}
	}
}

func TestRandomFaultsPass(t *testing.T) {
	tok := open(t, newSim(t))
	m, _ := keys(t, tok)
	rng := rand.New(rand.NewPCG(1, 2))
	var mu sync.Mutex
	faulty := true
	tok.Inject(func(p11.SessionHandle) error {
		mu.Lock()
		defer mu.Unlock()
		switch p := rng.Float64(); {
		case faulty && p < 0.2:
			return p11.Error(p11.CKR_SESSION_HANDLE_INVALID)
		case faulty && p < 0.3:
			return p11.Error(p11.CKR_DEVICE_ERROR)
		}
		return nil
	})
	good := 0
	for range 200 {
		if _, err := m.MAC(t.Context(), []byte("x")); err == nil {
			good++
		}
	}
	t.Logf("%d of 200 during the faults", good)
	if good < 190 {
		t.Errorf("%d of 200 calls passed", good)
	}
	mu.Lock()
	faulty = false
	mu.Unlock()
	for i := range 200 {
		if _, err := m.MAC(t.Context(), []byte("x")); err != nil {
			t.Fatalf("call %d after the faults: %v", i, err)
		}
	}
}

func TestOnlyOneOfManyRepairs(t *testing.T) {
	sim, log := newSim(t), newCounter()
	tok := open(t, sim, func(c *pkcs11.Config) { c.Log = slog.New(log); c.MaxSessions = 16 })
	m, _ := keys(t, tok)
	old := tok.Generation()
	if err := tok.Module().CloseAllSessions(tok.Slot()); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if _, err := m.MAC(t.Context(), []byte("x")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := log.count("token opened again"); n != 1 {
		t.Errorf("%d new logins, want 1", n)
	}
	// One that learns late of the death of a generation long replaced.
	before := tok.Generation()
	tok.LateMend(old)
	if tok.Generation() != before {
		t.Error("a caller with an old complaint had the new login replaced")
	}
}

func TestTokenWithFewSessions(t *testing.T) {
	tok := open(t, newSim(t), func(c *pkcs11.Config) { c.MaxSessions = 16 })
	m, _ := keys(t, tok)
	var mu sync.Mutex
	granted := map[p11.SessionHandle]bool{}
	refusals := 0
	others := make(chan struct{}) // closed when the 12 that are too many were told so
	tok.Inject(func(s p11.SessionHandle) error {
		mu.Lock()
		if !granted[s] && len(granted) == 4 {
			if refusals++; refusals == 12 {
				close(others)
			}
			mu.Unlock()
			return p11.Error(p11.CKR_SESSION_COUNT)
		}
		granted[s] = true
		mu.Unlock()
		<-others
		return nil
	})
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 10 {
				if _, err := m.MAC(t.Context(), []byte("x")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	// Each refusal lowers the limit by one: there is no thirteenth.
	if refusals != 12 || tok.Permits() != 4 {
		t.Errorf("%d sessions were refused and %d operations are permitted, want 12 and 4", refusals, tok.Permits())
	}
	tok.Inject(nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- tok.Run(ctx) }()
	for tick := time.Tick(time.Millisecond); tok.Permits() != 16; {
		<-tick // a probe lets the pool grow again
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestOthersHoldEverySession(t *testing.T) {
	tok := open(t, newSim(t), func(c *pkcs11.Config) { c.MaxSessions = 2 })
	m, _ := keys(t, tok)
	var left atomic.Int64
	tok.Inject(func(p11.SessionHandle) error {
		if left.Add(-1) >= 0 {
			return p11.Error(p11.CKR_SESSION_COUNT)
		}
		return nil
	})
	left.Store(4)
	if _, err := m.MAC(t.Context(), []byte("x")); err != nil {
		t.Errorf("a session came free within the deadline: %v", err)
	}
	left.Store(1 << 40)
	short, cancel := context.WithTimeout(t.Context(), 120*time.Millisecond)
	defer cancel()
	if _, err := m.MAC(short, []byte("x")); !fault.Is(err, fault.Exhausted) {
		t.Errorf("no session came free: %v, want exhausted", err)
	}
	left.Store(0)
	if _, err := m.MAC(t.Context(), []byte("x")); err != nil {
		t.Error(err)
	}
}

func TestHungCall(t *testing.T) {
	var clock atomic.Int64
	tok := open(t, newSim(t), func(c *pkcs11.Config) {
		c.MaxSessions, c.CallLimit = 2, 50*time.Millisecond
		c.Now = func() time.Time { return time.Unix(clock.Load(), 0) }
	})
	m, _ := keys(t, tok)
	release, entered := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	tok.Inject(func(p11.SessionHandle) error {
		if first.CompareAndSwap(false, true) {
			close(entered)
			<-release
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { _, err := m.MAC(ctx, []byte("x")); result <- err }()
	<-entered
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("the caller of the hung call: %v", err)
	}
	if _, err := m.MAC(t.Context(), []byte("x")); err != nil {
		t.Errorf("another call: %v", err)
	}
	if err := tok.Health(); err != nil {
		t.Errorf("health at once: %v", err)
	}
	clock.Store(3600)
	if err := tok.Health(); !fault.Is(err, fault.Fatal) {
		t.Errorf("health after the limit: %v, want fatal", err)
	}
	if err := tok.Close(); !fault.Is(err, fault.Fatal) {
		t.Errorf("close over a call inside the module: %v, want fatal", err)
	}
	close(release)
	if _, err := m.MAC(t.Context(), []byte("x")); !fault.Is(err, fault.Unavailable) {
		t.Errorf("after close: %v", err)
	}
	// For the next test; the product's process would end here. SoftHSM crashes
	// when it is finalised under the call that now goes on.
	for tick := time.Tick(time.Millisecond); tok.Permits() != 2; {
		<-tick
	}
	if err := tok.Module().Finalize(); err != nil {
		t.Error(err)
	}
}

func TestDamagedBlobDisturbsNobody(t *testing.T) {
	log := newCounter()
	tok := open(t, newSim(t), func(c *pkcs11.Config) { c.Log = slog.New(log) })
	m, w := keys(t, tok)
	blob, err := w.Wrap(t.Context(), []byte("seed"), nil)
	if err != nil {
		t.Fatal(err)
	}
	blob[len(blob)-1] ^= 1
	before := tok.Generation()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 10 {
				if i%2 == 0 {
					if _, err := w.Unwrap(t.Context(), blob, nil); !fault.Is(err, fault.Invalid) {
						t.Errorf("damaged: %v", err)
					}
				} else if _, err := m.MAC(t.Context(), []byte("x")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if tok.Generation() != before {
		t.Error("damaged blobs made the token open again")
	}
}

func TestWrongPIN(t *testing.T) {
	sim := newSim(t)
	good, err := os.ReadFile(sim.PINFile)
	if err != nil {
		t.Fatal(err)
	}
	setPIN := func(pin string) {
		t.Helper()
		if err := os.Chmod(sim.PINFile, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(sim.PINFile, []byte(pin), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	setPIN("not-the-pin")
	_, err = pkcs11.Open(t.Context(), pkcs11.Config{URI: sim.URI()})
	if !fault.Is(err, fault.Fatal) || strings.Contains(err.Error(), "not-the-pin") {
		t.Fatalf("open: %v, want fatal without the PIN", err)
	}
	setPIN(string(good))
	log := newCounter()
	tok := open(t, sim, func(c *pkcs11.Config) { c.Log = slog.New(log) })
	m, _ := keys(t, tok)
	setPIN("not-the-pin")
	if err := tok.LogoutBehind(); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := m.MAC(t.Context(), []byte("x")); !fault.Is(err, fault.Fatal) {
				t.Errorf("after the PIN changed: %v, want fatal", err)
			}
		})
	}
	wg.Wait()
	setPIN(string(good))
	if _, err := m.MAC(t.Context(), []byte("x")); !fault.Is(err, fault.Fatal) {
		t.Errorf("a dead token was tried again: %v", err)
	}
	if err := tok.Run(t.Context()); !fault.Is(err, fault.Fatal) {
		t.Errorf("run: %v, want fatal", err)
	}
	if err := tok.Health(); !fault.Is(err, fault.Fatal) {
		t.Errorf("health: %v, want fatal", err)
	}
	if n := log.count("token is lost until the process is restarted"); n != 1 {
		t.Errorf("the PIN was refused %d times, want 1", n)
	}
}

func TestReinitialisedTokenIsRefused(t *testing.T) {
	sim := newSim(t)
	byLabel := strings.Replace(sim.URI(), ";serial="+sim.Serial, "", 1)
	tok := open(t, sim, func(c *pkcs11.Config) { c.URI = byLabel })
	m, _ := keys(t, tok)
	old := sim.Serial
	if err := sim.Wipe(); err != nil {
		t.Fatal(err)
	}
	_, err := m.MAC(t.Context(), []byte("x"))
	if !fault.Is(err, fault.Fatal) || !strings.Contains(err.Error(), old) || !strings.Contains(err.Error(), sim.Serial) {
		t.Errorf("%v, want fatal naming serials %s and %s", err, old, sim.Serial)
	}
}

// destroy deletes objects behind tok's back.
func destroy(t *testing.T, tok *pkcs11.Token, labels ...string) {
	t.Helper()
	mod := tok.Module()
	s, err := mod.OpenSession(tok.Slot(), p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err != nil {
		t.Fatal(err)
	}
	defer mod.CloseSession(s)
	for _, l := range labels {
		if err := mod.FindObjectsInit(s, []*p11.Attribute{p11.NewAttribute(p11.CKA_LABEL, l)}); err != nil {
			t.Fatal(err)
		}
		found, _, err := mod.FindObjects(s, 10)
		if err != nil || len(found) == 0 {
			t.Fatal(l, found, err)
		}
		if err := mod.FindObjectsFinal(s); err != nil {
			t.Fatal(err)
		}
		for _, h := range found {
			if err := mod.DestroyObject(s, h); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestKeyGone(t *testing.T) {
	log := newCounter()
	tok := open(t, newSim(t), func(c *pkcs11.Config) { c.Log = slog.New(log) })
	m, w := keys(t, tok)
	destroy(t, tok, "test/mac")
	for range 10 {
		if _, err := m.MAC(t.Context(), []byte("x")); !fault.Is(err, fault.Fatal) || !strings.Contains(err.Error(), "test/mac") {
			t.Fatalf("%v, want fatal naming the key", err)
		}
	}
	if n := log.count("token opened again"); n != 1 {
		t.Errorf("the token was opened %d times for a key that is gone, want 1", n)
	}
	if _, err := w.Wrap(t.Context(), []byte("x"), nil); err != nil {
		t.Errorf("another key: %v", err)
	}
	if err := tok.Health(); !fault.Is(err, fault.Fatal) || !strings.Contains(err.Error(), "test/mac") {
		t.Errorf("health: %v, want fatal naming the key", err)
	}
	destroy(t, tok, "test/wrap")
	if _, err := w.Wrap(t.Context(), []byte("x"), nil); !fault.Is(err, fault.Fatal) || !strings.Contains(err.Error(), "re-initialised") {
		t.Errorf("no key left: %v, want fatal", err)
	}
}

// Another key under the old name is the worst case: it would work.
func TestKeyReplaced(t *testing.T) {
	tok := open(t, newSim(t))
	m, _ := keys(t, tok)
	destroy(t, tok, "test/mac")
	mod := tok.Module()
	s, err := mod.OpenSession(tok.Slot(), p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err != nil {
		t.Fatal(err)
	}
	_, err = mod.GenerateKey(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_GENERIC_SECRET_KEY_GEN, nil)},
		append(template("test/mac", hsm.RoleMAC), p11.NewAttribute(p11.CKA_VALUE_LEN, 32)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.MAC(t.Context(), []byte("x")); !fault.Is(err, fault.Fatal) || !strings.Contains(err.Error(), "another key than before") {
		t.Errorf("%v, want fatal", err)
	}
	if err := tok.Health(); !fault.Is(err, fault.Fatal) {
		t.Errorf("health: %v, want fatal", err)
	}
}

// Without a login private objects are invisible, which must not be taken for
// their absence.
func TestKeyOpenedWhileLoggedOut(t *testing.T) {
	tok := open(t, newSim(t))
	if err := tok.LogoutBehind(); err != nil {
		t.Fatal(err)
	}
	if _, err := tok.Signer(signLabel); err != nil {
		t.Error(err)
	}
	if err := tok.LogoutBehind(); err != nil {
		t.Fatal(err)
	}
	if there, err := tok.Holds(t.Context(), macLabel); err != nil || !there {
		t.Errorf("holds: %v %v", there, err)
	}
}

func TestFitForLogin(t *testing.T) {
	const fit = p11.CKF_TOKEN_INITIALIZED | p11.CKF_USER_PIN_INITIALIZED
	for flags, ok := range map[uint]bool{
		fit: true, fit | p11.CKF_USER_PIN_COUNT_LOW: true,
		0: false, p11.CKF_TOKEN_INITIALIZED: false, fit | p11.CKF_USER_PIN_LOCKED: false, fit | p11.CKF_USER_PIN_FINAL_TRY: false,
	} {
		if err := pkcs11.FitForLogin(p11.TokenInfo{Flags: flags}); (err == nil) != ok || (err != nil && !fault.Is(err, fault.Fatal)) {
			t.Errorf("flags %#x: %v", flags, err)
		}
	}
}

func TestRunNoticesByItself(t *testing.T) {
	sim := newSim(t)
	tok := open(t, sim, func(c *pkcs11.Config) { c.ProbeInterval = 2 * time.Millisecond })
	m, _ := keys(t, tok)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- tok.Run(ctx) }()
	until := func(what string, ok func(error) bool) {
		t.Helper()
		end := time.Now().Add(20 * time.Second)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for err := tok.Health(); !ok(err); err = tok.Health() {
			if <-tick.C; time.Now().After(end) {
				t.Fatalf("%s: health stays %v", what, err)
			}
		}
	}
	if err := sim.Remove(); err != nil {
		t.Fatal(err)
	}
	until("away", func(err error) bool { return fault.Is(err, fault.Unavailable) })
	if err := sim.Restore(); err != nil {
		t.Fatal(err)
	}
	until("back", func(err error) bool { return err == nil })
	if _, err := m.MAC(t.Context(), []byte("x")); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("run: %v", err)
	}
}

// Restarts of the module under load: C_Finalize below a call crashes SoftHSM, so
// this passes only if the drain holds.
func TestRestartsUnderLoad(t *testing.T) {
	sim, log := newSim(t), newCounter()
	tok := open(t, sim, func(c *pkcs11.Config) { c.Log = slog.New(log) })
	m, w := keys(t, tok)
	blob, err := w.Wrap(t.Context(), []byte("seed"), nil)
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				// Refusals while it is away are right; a wrong kind is not.
				if _, err := m.MAC(t.Context(), []byte("x")); err != nil && !fault.Is(err, fault.Unavailable) {
					t.Error(err)
				}
				if _, err := w.Unwrap(t.Context(), blob, nil); err != nil && !fault.Is(err, fault.Unavailable) {
					t.Error(err)
				}
			}
		})
	}
	tick := time.Tick(2 * time.Millisecond)
	wait := func(ok func(error) bool) {
		for end := time.Now().Add(20 * time.Second); !ok(tok.Health()); {
			if <-tick; time.Now().After(end) {
				t.Fatalf("health stays %v", tok.Health())
			}
		}
	}
	for range 5 {
		if err := sim.Remove(); err != nil {
			t.Fatal(err)
		}
		wait(func(err error) bool { return err != nil })
		if err := sim.Restore(); err != nil {
			t.Fatal(err)
		}
		wait(func(err error) bool { return err == nil })
	}
	close(stop)
	wg.Wait()
	if n := log.count("token opened again"); n < 5 {
		t.Errorf("opened again %d times", n)
	}
	if got, err := w.Unwrap(t.Context(), blob, nil); err != nil || string(got) != "seed" {
		t.Errorf("%q %v", got, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	sim := newSim(t)
	tok := open(t, sim)
	if _, err := pkcs11.Open(t.Context(), pkcs11.Config{URI: sim.URI()}); !fault.Is(err, fault.Conflict) {
		t.Errorf("second owner: %v, want conflict", err)
	}
	m, _ := keys(t, tok)
	if _, err := m.MAC(t.Context(), []byte("x")); err != nil {
		t.Errorf("the first owner: %v", err)
	}
	if err := tok.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.MAC(t.Context(), []byte("x")); !fault.Is(err, fault.Unavailable) {
		t.Errorf("after close: %v", err)
	}
	for name, c := range map[string]struct {
		uri  string
		kind fault.Kind
	}{
		"no such label":  {strings.Replace(sim.URI(), "token="+hsmsim.Label, "token=other", 1), fault.Unavailable},
		"no such serial": {strings.Replace(sim.URI(), "serial="+sim.Serial, "serial=00", 1), fault.Fatal}, // a namesake is there
		"no such module": {strings.Replace(sim.URI(), "libsofthsm2", "nothing", 1), fault.Fatal},
		"no PIN file":    {sim.URI() + ".not", fault.Fatal},
	} {
		if _, err := pkcs11.Open(t.Context(), pkcs11.Config{URI: c.uri}); !fault.Is(err, c.kind) {
			t.Errorf("%s: %v, want %v", name, err, c.kind)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := pkcs11.Open(cancelled, pkcs11.Config{URI: sim.URI()}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
