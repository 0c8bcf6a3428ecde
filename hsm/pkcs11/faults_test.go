package pkcs11_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
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

// rig is a token behind a shim, and what its keys must answer.
type rig struct {
	*hsmsim.Shim
	uri    string
	tok    *pkcs11.Token
	signer hsm.ContextSigner
	mac    hsm.MAC
	wrap   hsm.Wrapper
	sum    []byte
	blob   []byte
	codes  hsm.CodeQuery
}

func newRig(t *testing.T) *rig {
	t.Helper()
	sim := newSim(t)
	shim, err := hsmsim.NewShim(filepath.Join(t.TempDir(), "shim"), sim.Module, "")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Shim: shim, uri: sim.URIThrough(shim.Module)}
	r.open(t)
	r.sum, err = r.mac.MAC(t.Context(), []byte("kept"))
	r.blob = must1(t)(r.wrap.Wrap(t.Context(), []byte("kept"), []byte("aad")))
	if err != nil {
		t.Fatal(err)
	}
	r.codes = hsm.CodeQuery{
		KEK: seedLabel, Wrap: hsm.MechanismAESKeyWrap, KeyType: hsm.KeyTypeGeneric, MAC: hsm.MechanismSHA1, Binder: macLabel,
		Wrapped: must1(t)(r.tok.WrapSecret(t.Context(), seedLabel, hsm.MechanismAESKeyWrap, hsm.KeyTypeGeneric, rfcSecret())),
		Digits:  6, Counters: []uint64{0, 1, 2}, Code: "287082",
	}
	r.codes.Binding = append([]byte("kept "), r.codes.Wrapped...)
	r.codes.BindingMAC = must1(t)(r.mac.MAC(t.Context(), r.codes.Binding))
	t.Cleanup(func() {
		if err := errors.Join(r.Clear(), r.tok.Close()); err != nil {
			t.Error(err)
		}
	})
	return r
}

// rfcSecret is RFC 4226's, as it is wrapped.
func rfcSecret() []byte { return append([]byte("12345678901234567890"), make([]byte, 44)...) }

// must1 takes a result that must come without an error.
func must1(t *testing.T) func([]byte, error) []byte {
	return func(b []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}

func (r *rig) open(t *testing.T) {
	t.Helper()
	var err error
	if r.tok, err = pkcs11.Open(t.Context(), pkcs11.Config{URI: r.uri, MaxSessions: 4, Backoff: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	r.mac, r.wrap = keys(t, r.tok)
	s, err := r.tok.Signer(signLabel)
	if err != nil {
		t.Fatal(err)
	}
	r.signer = s.(hsm.ContextSigner)
}

var errWrong = errors.New("wrong result")

// use does one operation of each kind that the product knows, and looks at each
// result. What it returns is one error per operation.
func (r *rig) use(t *testing.T, patience time.Duration) []error {
	digest := sha256.Sum256([]byte("kept"))
	var errs []error
	for _, op := range []func(context.Context) error{
		func(ctx context.Context) error {
			sum, err := r.mac.MAC(ctx, []byte("kept"))
			return judge(err, bytes.Equal(sum, r.sum))
		},
		func(ctx context.Context) error {
			plain, err := r.wrap.Unwrap(ctx, r.blob, []byte("aad"))
			return judge(err, string(plain) == "kept")
		},
		func(ctx context.Context) error {
			blob, err := r.wrap.Wrap(ctx, []byte("new"), nil)
			if err != nil {
				return err
			}
			plain, err := r.wrap.Unwrap(ctx, blob, nil)
			return judge(err, string(plain) == "new")
		},
		func(ctx context.Context) error {
			got, err := r.tok.MatchCodes(ctx, r.codes)
			if fault.Is(err, fault.Denied) {
				return errWrong
			}
			return judge(err, slices.Equal(got, []int{1}))
		},
		func(ctx context.Context) error {
			wrapped, err := r.tok.WrapSecret(ctx, seedLabel, hsm.MechanismAESKeyWrap, hsm.KeyTypeGeneric, rfcSecret())
			return judge(err, bytes.Equal(wrapped, r.codes.Wrapped)) // RFC 3394 is deterministic
		},
		func(ctx context.Context) error {
			sig, err := r.signer.SignContext(ctx, digest[:], crypto.SHA256)
			return judge(err, rsa.VerifyPKCS1v15(r.signer.Public().(*rsa.PublicKey), crypto.SHA256, digest[:], sig) == nil)
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		errs = append(errs, op(ctx))
		cancel()
	}
	return errs
}

func judge(err error, right bool) error {
	if err == nil && !right {
		return errWrong
	}
	return err
}

// path says what has to be done to a token for it to come to a function.
type path int

const (
	hot     path = iota // nothing: each operation calls it
	relogin             // the sessions are dropped
	logout              // the login is ended, and sessions live
	restart             // the slot was empty
)

// The functions that serving uses.
var served = []struct {
	call string
	path path
}{
	{"C_SignInit", hot}, {"C_Sign", hot}, {"C_EncryptInit", hot}, {"C_Encrypt", hot},
	{"C_DecryptInit", hot}, {"C_Decrypt", hot}, {"C_GenerateRandom", hot},
	{"C_CreateObject", hot}, {"C_WrapKey", hot}, {"C_UnwrapKey", hot}, {"C_DestroyObject", hot},
	{"C_OpenSession", relogin}, {"C_GetSessionInfo", relogin}, {"C_GetSlotList", relogin}, {"C_GetTokenInfo", relogin}, {"C_Login", relogin},
	{"C_FindObjectsInit", relogin}, {"C_FindObjects", relogin}, {"C_FindObjectsFinal", relogin}, {"C_GetAttributeValue", relogin},
	{"C_CloseSession", logout}, {"C_Finalize", restart}, {"C_Initialize", restart},
}

// The classes of docs/design/hsm.md, one or two codes each.
var codes = []struct {
	class string
	rv    uint
}{
	{"session", p11.CKR_SESSION_HANDLE_INVALID}, {"session", p11.CKR_OPERATION_ACTIVE},
	{"object", p11.CKR_OBJECT_HANDLE_INVALID}, {"object", p11.CKR_USER_NOT_LOGGED_IN}, {"object", p11.CKR_KEY_TYPE_INCONSISTENT},
	{"device", p11.CKR_DEVICE_ERROR}, {"token", p11.CKR_TOKEN_NOT_PRESENT},
	{"PIN", p11.CKR_PIN_INCORRECT}, {"generic", p11.CKR_GENERAL_ERROR}, {"generic", p11.CKR_FUNCTION_FAILED},
	{"request", p11.CKR_MECHANISM_INVALID}, {"vendor", p11.CKR_VENDOR_DEFINED + 0x777},
}

// dies lists the answers to C_Login after which the PIN is not tried again.
func dies(call, class string) bool {
	return call == "C_Login" && (class == "PIN" || class == "vendor" || class == "request")
}

func TestFaultMatrix(t *testing.T) {
	r := newRig(t)
	slowest, classes := map[string]time.Duration{}, map[string]time.Duration{}
	cases, total := 0, time.Duration(0)
	for _, f := range served {
		for _, c := range codes {
			if f.call == "C_CloseSession" && c.rv == p11.CKR_SESSION_HANDLE_INVALID {
				continue // whoever says that the session is gone is believed
			}
			modes := map[string]hsmsim.Fault{"once": {Count: 1}, "for ever": {}, "answer lost": {Count: 1, Lost: true}}
			switch c.rv {
			case p11.CKR_DEVICE_ERROR:
				modes["thrice"] = hsmsim.Fault{Count: 3}
			case p11.CKR_OBJECT_HANDLE_INVALID:
				modes["late"] = hsmsim.Fault{Count: 1, Delay: 20 * time.Millisecond}
			}
			for name, rule := range modes {
				rule.Call, rule.RV = f.call, c.rv
				took := r.endure(t, fmt.Sprintf("%s %s %v %s", f.call, c.class, p11.Error(c.rv), name), f.path, expect{
					dies:      dies(f.call, c.class),
					unnoticed: f.path == hot && rule.Count == 1 && c.class != "PIN" && c.class != "request",
				}, rule)
				slowest[f.call], classes[c.class] = max(slowest[f.call], took), max(classes[c.class], took)
				total, cases = total+took, cases+1
			}
		}
		if f.path != hot {
			continue
		}
		// Not an error in words but in deed.
		for action, name := range map[hsmsim.Action]string{
			hsmsim.CloseSession: "its session closed", hsmsim.CloseSessions: "all sessions closed", hsmsim.Logout: "logged out",
		} {
			took := r.endure(t, f.call+" "+name, hot, expect{unnoticed: true}, hsmsim.Fault{Call: f.call, Action: action, Count: 1})
			classes[name], total, cases = max(classes[name], took), total+took, cases+1
		}
	}
	t.Logf("%d cases; from the fault's end until one of each operation went well: %v on average", cases, (total / time.Duration(cases)).Round(time.Microsecond))
	for _, table := range []map[string]time.Duration{slowest, classes} {
		var rows []string
		for _, name := range slices.Sorted(maps.Keys(table)) {
			rows = append(rows, fmt.Sprintf("%s %.1f", name, table[name].Seconds()*1000))
		}
		t.Logf("slowest, ms: %s", strings.Join(rows, ", "))
	}
}

// More callers than the token has sessions to spare.
func TestFewSessionsInTheModule(t *testing.T) {
	r := newRig(t)
	if err := errors.Join(r.DropSessions(), r.Reset(), r.Limit(3)); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			for range 5 {
				if err := errors.Join(r.use(t, 10*time.Second)...); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	c, err := r.Counts()
	if err != nil || c.Peak > 3 || c.Sessions != r.tok.Sessions() || c.Races != 0 {
		t.Errorf("%d sessions at a time, %d open, %d known, %d races: %v", c.Peak, c.Sessions, r.tok.Sessions(), c.Races, err)
	}
}

// expect is what a fault may do beside being survived.
type expect struct {
	dies      bool // the Token, for the PIN is not to be tried again
	unnoticed bool // no caller may learn of it
}

// endure puts one fault into force, has the token used, ends the fault, and
// returns the time until everything worked again.
func (r *rig) endure(t *testing.T, name string, way path, want expect, rule hsmsim.Fault) time.Duration {
	t.Helper()
	order := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(name, err)
		}
	}
	order(r.Reset())
	switch way {
	case restart:
		order(r.Hide())
		r.use(t, time.Second)
		order(r.Add(rule))
		order(r.Show())
	case relogin:
		order(r.Add(rule))
		order(r.DropSessions())
	case logout:
		order(r.Add(rule))
		order(r.Logout())
	default:
		order(r.Add(rule))
	}
	end := time.Now().Add(5 * time.Second)
	for seen := (hsmsim.Counts{}); seen.Faults[rule.Call] == 0; {
		for _, err := range r.use(t, 2*time.Second) {
			if errors.Is(err, errWrong) || want.unnoticed && err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		var err error
		seen, err = r.Counts()
		order(err)
		if time.Now().After(end) {
			t.Fatalf("%s: the fault does not happen", name)
		}
	}
	if want.dies {
		r.bury(t, name)
		return 0
	}
	order(r.Clear())
	begun := time.Now()
	for errs := r.use(t, time.Second); slices.ContainsFunc(errs, func(err error) bool { return err != nil }); errs = r.use(t, time.Second) {
		if time.Since(begun) > 5*time.Second {
			t.Errorf("%s: does not recover: %v", name, errs)
			order(r.tok.Close())
			r.open(t)
			return 0
		}
	}
	took := time.Since(begun)
	seen, err := r.Counts()
	order(err)
	if known := r.tok.Sessions(); seen.Sessions != known {
		t.Errorf("%s: %d sessions are open, the pool knows of %d", name, seen.Sessions, known)
	}
	if seen.Objects != 0 {
		t.Errorf("%s: %d session objects are left", name, seen.Objects)
	}
	if seen.PINRefused > 1 || seen.Races != 0 || seen.Rude != 0 || seen.Peak > 2+4 {
		t.Errorf("%s: PIN refused %d times, %d races, %d rude, %d sessions at a time", name, seen.PINRefused, seen.Races, seen.Rude, seen.Peak)
	}
	return took
}

// bury makes sure that the PIN is not tried again, fault or no fault, and opens
// the token anew as a new process would.
func (r *rig) bury(t *testing.T, name string) {
	t.Helper()
	before, err := r.Counts()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Clear(); err != nil {
		t.Fatal(err)
	}
	for _, err := range r.use(t, time.Second) {
		if !fault.Is(err, fault.Fatal) {
			t.Errorf("%s: %v, want fatal", name, err)
		}
	}
	after, err := r.Counts()
	if err != nil || before.Calls["C_Login"] != 1 || after.Calls["C_Login"] != 1 {
		t.Errorf("%s: %d logins, then %d: %v", name, before.Calls["C_Login"], after.Calls["C_Login"], err)
	}
	if err := r.tok.Close(); err != nil {
		t.Errorf("%s: close: %v", name, err)
	}
	r.open(t)
}

// A module may answer a wrong PIN with an error that does not say so. The token
// counts it all the same.
func TestRefusedPINInDisguise(t *testing.T) {
	r := newRig(t)
	loc, err := pkcs11.ParseLocation(r.uri)
	if err != nil {
		t.Fatal(err)
	}
	good := must1(t)(os.ReadFile(loc.PINFile))
	write := func(pin []byte) {
		t.Helper()
		if err := errors.Join(os.Chmod(loc.PINFile, 0o600), os.WriteFile(loc.PINFile, pin, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write([]byte("not-the-pin"))
	if err := errors.Join(r.Reset(), r.Add(hsmsim.Fault{Call: "C_Login", RV: p11.CKR_GENERAL_ERROR, Lost: true}), r.DropSessions()); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		for _, err := range r.use(t, time.Second) {
			if err == nil {
				t.Error("a token without a login works")
			}
		}
	}
	if c, err := r.Counts(); err != nil || c.Calls["C_Login"] != 1 || c.PINRefused != 1 {
		t.Errorf("%d logins, %d refused: %v; want one", c.Calls["C_Login"], c.PINRefused, err)
	}
	write(good)
	r.bury(t, "in disguise")
}

// What the token returns is looked at before it is believed. A MAC and a
// plaintext of the right length cannot be.
func TestGarbledAnswers(t *testing.T) {
	r := newRig(t)
	once := func(call string, o hsmsim.Output) hsmsim.Fault {
		return hsmsim.Fault{Call: call, Output: o, Filled: true, Count: 1}
	}
	for name, faults := range map[string][]hsmsim.Fault{
		"signature or MAC cut": {once("C_Sign", hsmsim.Cut)},
		// In use, a MAC comes first, then a binding's, three codes' and that of a secret just wrapped.
		"binding MAC flipped":      {{Call: "C_Sign", Output: hsmsim.Flip, Filled: true, Count: 1, After: 1}},
		"binding MAC cut":          {{Call: "C_Sign", Output: hsmsim.Cut, Filled: true, Count: 1, After: 1}},
		"a code's HMAC cut":        {{Call: "C_Sign", Output: hsmsim.Cut, Filled: true, Count: 1, After: 3}},
		"new secret's HMAC wrong":  {{Call: "C_Sign", Output: hsmsim.Flip, Filled: true, Count: 1, After: 5}},
		"signature flipped":        {{Call: "C_Sign", Output: hsmsim.Flip, Filled: true, Count: 1, After: 6}},
		"signature of zeros":       {{Call: "C_Sign", Output: hsmsim.Zero, Filled: true, Count: 1, After: 6}},
		"wrapped secret flipped":   {once("C_WrapKey", hsmsim.Flip)},
		"wrapped secret of zeros":  {once("C_WrapKey", hsmsim.Zero)},
		"wrapped secret cut":       {once("C_WrapKey", hsmsim.Cut)},
		"ciphertext flipped":       {once("C_Encrypt", hsmsim.Flip)},
		"ciphertext cut":           {once("C_Encrypt", hsmsim.Cut)},
		"plaintext cut":            {once("C_Decrypt", hsmsim.Cut)},
		"read back wrongly":        {{Call: "C_Decrypt", Output: hsmsim.Flip, Filled: true, Count: 1, After: 1}},
		"a key unseen after login": {{Call: "C_FindObjects", Output: hsmsim.Cut, Count: 1}, {Call: "C_SignInit", Action: hsmsim.CloseSessions, Count: 1}},
	} {
		if err := errors.Join(r.Reset(), r.Add(faults...)); err != nil {
			t.Fatal(err)
		}
		for i, err := range r.use(t, time.Second) {
			// A ciphertext of another length breaks the policy of the wrap role.
			if err != nil && (name != "ciphertext cut" || !fault.Is(err, fault.Fatal)) {
				t.Errorf("%s: operation %d: %v", name, i, err)
			}
		}
		c, err := r.Counts()
		if err != nil || c.Faults[faults[0].Call] != 1 {
			t.Errorf("%s: %d faults: %v", name, c.Faults[faults[0].Call], err)
		}
		if err := r.Clear(); err != nil {
			t.Fatal(err)
		}
	}
}

// Everything at once, from many goroutines: faults by rate on every function,
// sessions dropped, the login ended, the token out and back.
func TestFaultStorm(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan error, 1)
	go func() { watched <- r.tok.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-watched; err != nil {
			t.Error(err)
		}
	}()
	if err := r.Reset(); err != nil {
		t.Fatal(err)
	}
	var faults []hsmsim.Fault
	for i, rv := range []uint{p11.CKR_SESSION_HANDLE_INVALID, p11.CKR_DEVICE_ERROR, p11.CKR_GENERAL_ERROR, p11.CKR_OBJECT_HANDLE_INVALID, p11.CKR_VENDOR_DEFINED + 1} {
		// C_Login is spared: an answer that only the vendor knows ends the Token.
		for call, rate := range map[string]float64{
			"C_Sign*": 0.005, "C_Encrypt*": 0.005, "C_Decrypt*": 0.005, "C_Generate*": 0.005, "C_OpenSession": 0.005, "C_CloseSession": 0.05,
			"C_Find*": 0.0005, "C_Get*": 0.0005, // a login makes a hundred of these, and dozens of the next
			"C_UnwrapKey": 0.001, "C_WrapKey": 0.001, "C_CreateObject": 0.001, "C_DestroyObject": 0.001,
		} {
			// A session that opens without our being told is lost until the
			// module ends, and one that is called closed is believed to be.
			if call == "C_CloseSession" && rv == p11.CKR_SESSION_HANDLE_INVALID {
				continue
			}
			faults = append(faults, hsmsim.Fault{Call: call, RV: rv, Rate: rate, Seed: uint64(i), Lost: i%2 == 1 && call != "C_OpenSession"})
		}
	}
	if err := r.Add(faults...); err != nil {
		t.Fatal(err)
	}
	var good, bad atomic.Int64
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 8 {
		wg.Go(func() {
			for {
				for _, err := range r.use(t, time.Second) {
					switch {
					case errors.Is(err, errWrong):
						t.Error(err)
					case err != nil:
						bad.Add(1)
					default:
						good.Add(1)
					}
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for range 3 {
		for _, step := range []struct {
			order func() error
			wait  *atomic.Int64 // for 100 more of these
		}{{r.DropSessions, &good}, {r.Logout, &good}, {r.Hide, &bad}, {r.Show, &good}} {
			before := step.wait.Load()
			if err := step.order(); err != nil {
				t.Error(err)
			}
			for tick := time.Tick(time.Millisecond); step.wait.Load() < before+100; {
				<-tick
			}
		}
	}
	close(stop)
	wg.Wait()
	if err := r.Clear(); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	for errs := r.use(t, time.Second); slices.ContainsFunc(errs, func(err error) bool { return err != nil }); errs = r.use(t, time.Second) {
		if time.Since(begun) > 5*time.Second {
			t.Fatalf("does not recover: %v", errs)
		}
	}
	took := time.Since(begun)
	for range 64 { // what did not close is swept up by operations
		r.use(t, time.Second)
	}
	c, err := r.Counts()
	if err != nil || c.Sessions != r.tok.Sessions() || c.Races != 0 || c.Rude != 0 || c.PINRefused != 0 {
		t.Errorf("%d sessions open, %d known; %d races, %d rude, PIN refused %d times: %v", c.Sessions, r.tok.Sessions(), c.Races, c.Rude, c.PINRefused, err)
	}
	t.Logf("%d operations right, %d refused, none wrong; %d logins; recovered in %v", good.Load(), bad.Load(), c.Calls["C_Login"], took)
}

// A call that does not return takes one caller's time and no more.
func TestHungInTheModule(t *testing.T) {
	r := newRig(t)
	if err := r.Add(hsmsim.Fault{Call: "C_Sign", Hang: true, Count: 1}); err != nil {
		t.Fatal(err)
	}
	if err := r.Add(hsmsim.Fault{Call: "C_UnwrapKey", Hang: true, Count: 1}, hsmsim.Fault{Call: "C_WrapKey", Hang: true, Count: 1}); err != nil {
		t.Fatal(err)
	}
	for i, do := range []func(context.Context) error{ // in this order: each call hangs once
		func(ctx context.Context) error { _, err := r.mac.MAC(ctx, []byte("kept")); return err },
		func(ctx context.Context) error { _, err := r.tok.MatchCodes(ctx, r.codes); return err },
		func(ctx context.Context) error {
			_, err := r.tok.WrapSecret(ctx, seedLabel, hsm.MechanismAESKeyWrap, hsm.KeyTypeGeneric, rfcSecret())
			return err
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := do(ctx); !fault.Is(err, fault.Exhausted) {
			t.Errorf("operation %d: %v, want exhausted", i, err)
		}
		cancel()
	}
	for _, err := range r.use(t, time.Second) {
		if err != nil {
			t.Errorf("another: %v", err)
		}
	}
	if c, err := r.Counts(); err != nil || c.Hanging != 3 {
		t.Errorf("%d calls hang, want 3: %v", c.Hanging, err)
	}
}
