package hsmsim

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"
)

// bench is a logged-in session behind a shim, with an HMAC key.
type bench struct {
	*Shim
	mod     *p11.Ctx
	pin     string
	slot    uint
	session p11.SessionHandle
	key     p11.ObjectHandle
}

func newBench(t *testing.T) *bench {
	t.Helper()
	sim, err := New(filepath.Join(t.TempDir(), "sim"))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", sim.Conf)
	shim, err := NewShim(filepath.Join(t.TempDir(), "shim"), sim.Module, "")
	if err != nil {
		t.Fatal(err)
	}
	pin, err := os.ReadFile(sim.PINFile)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{Shim: shim, mod: p11.New(shim.Module), pin: strings.TrimSpace(string(pin))}
	if b.mod == nil {
		t.Fatal("the shim cannot be loaded")
	}
	must(t, b.mod.Initialize())
	t.Cleanup(func() {
		must(t, b.Clear())
		if err := b.mod.Finalize(); err != nil && !errors.Is(err, p11.Error(p11.CKR_CRYPTOKI_NOT_INITIALIZED)) {
			t.Error(err)
		}
	})
	slots, err := b.mod.GetSlotList(true)
	must(t, err)
	b.slot = slots[0]
	b.login(t)
	b.key, err = b.mod.GenerateKey(b.session, []*p11.Mechanism{p11.NewMechanism(p11.CKM_GENERIC_SECRET_KEY_GEN, nil)}, []*p11.Attribute{
		p11.NewAttribute(p11.CKA_TOKEN, true), p11.NewAttribute(p11.CKA_SIGN, true), p11.NewAttribute(p11.CKA_VALUE_LEN, 32),
	})
	must(t, err)
	must(t, b.Reset())
	return b
}

func (b *bench) login(t *testing.T) {
	t.Helper()
	var err error
	b.session, err = b.mod.OpenSession(b.slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	must(t, err)
	must(t, b.mod.Login(b.session, p11.CKU_USER, b.pin))
}

func (b *bench) mac() ([]byte, error) {
	if err := b.mod.SignInit(b.session, []*p11.Mechanism{p11.NewMechanism(p11.CKM_SHA256_HMAC, nil)}, b.key); err != nil {
		return nil, err
	}
	return b.mod.Sign(b.session, []byte("x"))
}

// random draws n octets, which takes one call and no operation.
func (b *bench) random(n int) ([]byte, error) { return b.mod.GenerateRandom(b.session, n) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wants(t *testing.T, err error, rv uint) {
	t.Helper()
	if rv == 0 && err != nil || rv != 0 && !errors.Is(err, p11.Error(rv)) {
		t.Errorf("%v, want %v", err, p11.Error(rv))
	}
}

func TestShimForwards(t *testing.T) {
	b := newBench(t)
	one, err := b.mac()
	must(t, err)
	two, err := b.mac()
	must(t, err)
	if len(one) != 32 || !bytes.Equal(one, two) {
		t.Errorf("%x, then %x", one, two)
	}
	c, err := b.Counts()
	must(t, err)
	// The binding asks for the length first.
	if c.Calls["C_SignInit"] != 2 || c.Calls["C_Sign"] != 4 || c.Faults["C_Sign"] != 0 || c.Sessions != 1 || c.Inside != 0 {
		t.Errorf("%+v", c)
	}
	// The whole list, in its order: a function out of place would answer for another.
	for name, call := range map[string]func() error{
		"C_GetInfo":     func() error { _, err := b.mod.GetInfo(); return err },
		"C_GetSlotInfo": func() error { _, err := b.mod.GetSlotInfo(b.slot); return err },
		"C_GetMechanismInfo": func() error {
			_, err := b.mod.GetMechanismInfo(b.slot, []*p11.Mechanism{p11.NewMechanism(p11.CKM_RSA_PKCS, nil)})
			return err
		},
		"C_DigestInit": func() error {
			return b.mod.DigestInit(b.session, []*p11.Mechanism{p11.NewMechanism(p11.CKM_SHA256, nil)})
		},
		"C_SeedRandom": func() error { return b.mod.SeedRandom(b.session, []byte("x")) },
		"C_GenerateKeyPair": func() error {
			_, _, err := b.mod.GenerateKeyPair(b.session, []*p11.Mechanism{p11.NewMechanism(1, nil)}, nil, nil)
			return err
		},
		"C_UnwrapKey": func() error {
			_, err := b.mod.UnwrapKey(b.session, []*p11.Mechanism{p11.NewMechanism(1, nil)}, b.key, []byte("x"), nil)
			return err
		},
		"C_DeriveKey": func() error {
			_, err := b.mod.DeriveKey(b.session, []*p11.Mechanism{p11.NewMechanism(1, nil)}, b.key, nil)
			return err
		},
		"C_SetAttributeValue": func() error {
			return b.mod.SetAttributeValue(b.session, b.key, []*p11.Attribute{p11.NewAttribute(p11.CKA_LABEL, "x")})
		},
		"C_DestroyObject": func() error { return b.mod.DestroyObject(b.session, b.key) },
		"C_Logout":        func() error { return b.mod.Logout(b.session) },
	} {
		err := call()
		if c, cerr := b.Counts(); cerr != nil || c.Calls[name] != 1 {
			t.Errorf("%s was not seen: %v, %v", name, err, cerr)
		}
	}
	for _, bad := range []Fault{{Call: "C_Nothing"}, {Call: ""}, {Call: "C_Sign rv=1"}, {Call: "C_Sign", Rate: 2}, {Call: "C_Sign", After: -1}} {
		if err := b.Add(bad); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

func TestShimSchedule(t *testing.T) {
	b := newBench(t)
	const rv = p11.CKR_DEVICE_ERROR
	// pattern draws 20 times and notes the refusals.
	pattern := func(faults ...Fault) string {
		t.Helper()
		must(t, b.Clear())
		must(t, b.Add(faults...))
		var out strings.Builder
		for range 20 {
			_, err := b.random(8)
			if err == nil {
				out.WriteByte('.')
				continue
			}
			wants(t, err, rv)
			out.WriteByte('x')
		}
		return out.String()
	}
	random := Fault{Call: "C_GenerateRandom", RV: rv}
	with := func(change func(*Fault)) Fault { f := random; change(&f); return f }
	for _, c := range []struct {
		name, want string
		fault      Fault
	}{
		{"for ever", strings.Repeat("x", 20), random},
		{"once", "x" + strings.Repeat(".", 19), with(func(f *Fault) { f.Count = 1 })},
		{"the fourth and fifth", "...xx" + strings.Repeat(".", 15), with(func(f *Fault) { f.After, f.Count = 3, 2 })},
		{"by beginning", strings.Repeat("x", 20), with(func(f *Fault) { f.Call = "C_Gen*" })},
		{"another call", strings.Repeat(".", 20), with(func(f *Fault) { f.Call = "C_Sign" })},
	} {
		if got := pattern(c.fault); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	half := with(func(f *Fault) { f.Rate, f.Seed = 0.5, 7 })
	first := pattern(half)
	if n := strings.Count(first, "x"); n < 4 || n > 16 || pattern(half) != first {
		t.Errorf("by rate: %s, then %s", first, pattern(half))
	}
	if other := pattern(with(func(f *Fault) { f.Rate, f.Seed = 0.5, 8 })); other == first {
		t.Error("another seed gives the same pattern")
	}
	// The question for the length is one call, the answer another.
	must(t, b.Clear())
	must(t, b.Add(Fault{Call: "C_Sign", RV: rv, Filled: true, Count: 1}))
	_, err := b.mac()
	wants(t, err, rv)
	if c, err := b.Counts(); err != nil || c.Calls["C_Sign"] != 2 || c.Faults["C_Sign"] != 1 {
		t.Errorf("%+v %v", c, err)
	}
	must(t, b.Clear())
	_, err = b.mod.Sign(b.session, []byte("x"))
	must(t, err) // a call that was not made leaves the operation
	must(t, b.Add(Fault{Call: "C_Sign", RV: rv, Filled: true, Lost: true, Count: 1}))
	_, err = b.mac()
	wants(t, err, rv)
	_, err = b.mod.Sign(b.session, []byte("x"))
	wants(t, err, p11.CKR_OPERATION_NOT_INITIALIZED) // one whose answer was lost ends it
}

func TestShimOutputs(t *testing.T) {
	b := newBench(t)
	good, err := b.mac()
	must(t, err)
	for output, want := range map[Output][]byte{Zero: make([]byte, 32), Cut: good[:31]} {
		must(t, b.Clear())
		must(t, b.Add(Fault{Call: "C_Sign", Output: output, Filled: true}))
		if got, err := b.mac(); err != nil || !bytes.Equal(got, want) {
			t.Errorf("output %d: %x %v, want %x", output, got, err, want)
		}
	}
	must(t, b.Clear())
	must(t, b.Add(Fault{Call: "C_Sign", Output: Flip, Filled: true}))
	if got, err := b.mac(); err != nil || len(got) != 32 || bytes.Equal(got, good) {
		t.Errorf("flipped: %x %v", got, err)
	}
	must(t, b.Clear())
	must(t, b.Add(Fault{Call: "C_GenerateRandom", Output: Zero}, Fault{Call: "C_FindObjects", Output: Cut}))
	if got, err := b.random(8); err != nil || !bytes.Equal(got, make([]byte, 8)) {
		t.Errorf("random: %x %v", got, err)
	}
	must(t, b.mod.FindObjectsInit(b.session, nil))
	if found, _, err := b.mod.FindObjects(b.session, 9); err != nil || len(found) != 0 {
		t.Errorf("found %v %v", found, err)
	}
}

func TestShimSessionsAndLogin(t *testing.T) {
	b := newBench(t)
	sessions := func() int {
		t.Helper()
		c, err := b.Counts()
		must(t, err)
		return c.Sessions
	}
	must(t, b.Limit(2))
	_, err := b.mod.OpenSession(b.slot, p11.CKF_SERIAL_SESSION)
	must(t, err)
	_, err = b.mod.OpenSession(b.slot, p11.CKF_SERIAL_SESSION)
	wants(t, err, p11.CKR_SESSION_COUNT)
	must(t, b.Limit(0))
	if n := sessions(); n != 2 {
		t.Errorf("%d sessions, want 2", n)
	}
	must(t, b.Logout())
	info, err := b.mod.GetSessionInfo(b.session)
	if err != nil || info.State != p11.CKS_RW_PUBLIC_SESSION {
		t.Errorf("after the logout: %+v %v", info, err)
	}
	must(t, b.DropSessions())
	_, err = b.random(8)
	wants(t, err, p11.CKR_SESSION_HANDLE_INVALID)
	if n := sessions(); n != 0 {
		t.Errorf("%d sessions, want none", n)
	}
	b.login(t)
	must(t, b.Add(Fault{Call: "C_GenerateRandom", Action: CloseSession, Count: 1}))
	_, err = b.random(8)
	wants(t, err, p11.CKR_SESSION_HANDLE_INVALID)
	b.login(t)
	must(t, b.Add(Fault{Call: "C_GenerateRandom", Action: Logout, Count: 1}))
	_, err = b.random(8)
	must(t, err)
	wants(t, b.mod.Login(b.session, p11.CKU_USER, "wrong pin"), p11.CKR_PIN_INCORRECT)
	must(t, b.Add(Fault{Call: "C_Login", RV: p11.CKR_PIN_LOCKED, Count: 1}))
	wants(t, b.mod.Login(b.session, p11.CKU_USER, b.pin), p11.CKR_PIN_LOCKED)
	if c, err := b.Counts(); err != nil || c.PINRefused != 2 {
		t.Errorf("%d refusals of the PIN, want 2: %v", c.PINRefused, err)
	}
	// A session closed by its owner, and all of them by the end of the module.
	must(t, b.mod.CloseSession(b.session))
	b.login(t)
	if n := sessions(); n != 1 {
		t.Errorf("%d sessions, want 1", n)
	}
	must(t, b.mod.Finalize())
	if n := sessions(); n != 0 {
		t.Errorf("%d sessions after the end of the module", n)
	}
}

func TestShimHides(t *testing.T) {
	b := newBench(t)
	must(t, b.Hide())
	if slots, err := b.mod.GetSlotList(true); err != nil || len(slots) != 0 {
		t.Errorf("slots with a token: %v %v", slots, err)
	}
	if info, err := b.mod.GetSlotInfo(b.slot); err != nil || info.Flags&p11.CKF_TOKEN_PRESENT != 0 {
		t.Errorf("slot: %+v %v", info, err)
	}
	_, err := b.mod.GetTokenInfo(b.slot)
	wants(t, err, p11.CKR_TOKEN_NOT_PRESENT)
	_, err = b.mod.OpenSession(b.slot, p11.CKF_SERIAL_SESSION)
	wants(t, err, p11.CKR_TOKEN_NOT_PRESENT)
	_, err = b.mac()
	wants(t, err, p11.CKR_DEVICE_REMOVED)
	must(t, b.Show())
	_, err = b.random(8)
	wants(t, err, p11.CKR_SESSION_HANDLE_INVALID)
	b.login(t)
	_, err = b.random(8)
	must(t, err)
}

func TestShimHangsAndDelays(t *testing.T) {
	b := newBench(t)
	must(t, b.Add(Fault{Call: "C_GenerateRandom", Delay: 30 * time.Millisecond, Count: 1}))
	begun := time.Now()
	_, err := b.random(8)
	must(t, err)
	if d := time.Since(begun); d < 30*time.Millisecond {
		t.Errorf("delayed by %v", d)
	}
	must(t, b.Add(Fault{Call: "C_GenerateRandom", Hang: true, Count: 1}))
	done := make(chan error, 1)
	go func() { _, err := b.random(8); done <- err }()
	hung := func() Counts {
		t.Helper()
		c, err := b.Counts()
		must(t, err)
		return c
	}
	for hung().Hanging == 0 {
		select {
		case err := <-done:
			t.Fatalf("the call does not hang: %v", err)
		default:
		}
	}
	// Another call in the same session is a race, and the end of the module rude.
	_, err = b.random(8)
	must(t, err)
	must(t, b.mod.Finalize())
	if c := hung(); c.Races != 1 || c.Rude != 1 || c.Inside != 1 {
		t.Errorf("%+v, want a race, a rude end, and one inside", c)
	}
	must(t, b.Clear())
	wants(t, <-done, p11.CKR_CRYPTOKI_NOT_INITIALIZED)
}

const crashEnv = "CUSTODE_TEST_CRASH"

// The crash needs a process to kill.
func TestShimCrashes(t *testing.T) {
	if os.Getenv(crashEnv) != "" {
		b := newBench(t)
		must(t, b.Add(Fault{Call: "C_GenerateRandom", Action: Crash}))
		_, _ = b.random(8)
		return
	}
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.Command(exe, "-test.run=^TestShimCrashes$")
	cmd.Env = append(os.Environ(), crashEnv+"=1")
	out, err := cmd.CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("SIGSEGV")) {
		t.Errorf("%v: %.200s", err, out)
	}
}

func TestShimRefuses(t *testing.T) {
	if _, err := NewShim(filepath.Join(t.TempDir(), strings.Repeat("d", 100)), "/x.so", ""); err == nil {
		t.Error("a socket path that is too long was accepted")
	}
	s, err := NewShim(filepath.Join(t.TempDir(), "s"), "/no/module.so", "")
	must(t, err)
	if err := s.Clear(); err == nil {
		t.Error("a shim that is not loaded takes orders")
	}
}

// TestLogins: what is kept of logins outlives their process's counts.
func TestLogins(t *testing.T) {
	b := newBench(t)
	must(t, b.Add(Fault{Call: "C_Login", RV: p11.CKR_PIN_INCORRECT, Count: 1}))
	must(t, b.mod.Logout(b.session))
	if err := b.mod.Login(b.session, p11.CKU_USER, b.pin); err == nil {
		t.Error("the fault did not fire")
	}
	must(t, b.mod.Login(b.session, p11.CKU_USER, b.pin))
	all, err := b.Logins()
	must(t, err)
	if n := len(all); n < 3 || all[n-2] != (Login{os.Getpid(), p11.CKR_PIN_INCORRECT}) || all[n-1] != (Login{os.Getpid(), 0}) {
		t.Errorf("%v", all)
	}
}
