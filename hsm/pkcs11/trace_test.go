package pkcs11_test

import (
	"crypto"
	"crypto/sha256"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"custode/hsm"
	"custode/hsm/pkcs11"
)

var tracedCall = regexp.MustCompile(`(?m)^[0-9]+: (C_\w+)$`)

// pkcs11-spy stands between us and SoftHSM and writes down every call, so this
// counts what a real token would be asked, not what we believe we ask.
func TestHotPathAsksNothingElse(t *testing.T) {
	spies, err := filepath.Glob("/usr/lib/*/pkcs11-spy.so")
	if err != nil || len(spies) == 0 {
		t.Fatal("pkcs11-spy.so is not installed (Debian package opensc)")
	}
	sim := newSim(t)
	// The spy stays loaded and opens its file once in a process: no directory
	// that ends with this test.
	trace := filepath.Join(master.dir, "trace")
	earlier, err := os.ReadFile(trace)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	t.Setenv("PKCS11SPY", sim.Module)
	t.Setenv("PKCS11SPY_OUTPUT", trace)
	tok := open(t, sim, func(c *pkcs11.Config) {
		c.MaxSessions = 1
		c.URI = strings.Replace(sim.URI(), url.PathEscape(sim.Module), url.PathEscape(spies[0]), 1)
	})
	m, w := keys(t, tok)
	s, err := tok.Signer(signLabel)
	if err != nil {
		t.Fatal(err)
	}
	calls := func() []string {
		t.Helper()
		text, err := os.ReadFile(trace)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, m := range tracedCall.FindAllStringSubmatch(string(text[len(earlier):]), -1) {
			names = append(names, m[1])
		}
		return names
	}
	before := len(calls())
	if before == 0 {
		t.Fatal("the trace is empty")
	}
	digest := sha256.Sum256([]byte("x"))
	for range 10 {
		if _, err := s.Sign(nil, digest[:], crypto.SHA256); err != nil {
			t.Fatal(err)
		}
		if _, err := m.MAC(t.Context(), []byte("x")); err != nil {
			t.Fatal(err)
		}
		blob, err := w.Wrap(t.Context(), []byte("x"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Unwrap(t.Context(), blob, nil); err != nil {
			t.Fatal(err)
		}
	}
	codes := hsm.CodeQuery{
		KEK: seedLabel, Wrap: hsm.MechanismAESKeyWrap, KeyType: hsm.KeyTypeGeneric, MAC: hsm.MechanismSHA1, Binder: macLabel,
		Digits: 6, Counters: []uint64{0, 1, 2}, Code: "287082",
	}
	hotEnd := len(calls())
	if err := tok.OpenSeed(seedLabel); err != nil {
		t.Fatal(err)
	}
	opened := len(calls())
	for range 3 {
		codes.Wrapped = must1(t)(tok.WrapSecret(t.Context(), seedLabel, codes.Wrap, codes.KeyType, rfcSecret()))
		codes.Binding, codes.BindingMAC = codes.Wrapped, must1(t)(m.MAC(t.Context(), codes.Wrapped))
		if got, err := tok.MatchCodes(t.Context(), codes); err != nil || len(got) != 1 {
			t.Errorf("%v %v", got, err)
		}
	}
	secrets := " C_CreateObject C_WrapKey C_UnwrapKey C_DestroyObject C_SignInit C_Sign "
	for _, name := range calls()[opened:] {
		if !strings.Contains(secrets, " "+name+" ") {
			t.Errorf("an OATH secret's way calls %s", name)
		}
	}
	allowed := " C_SignInit C_Sign C_GenerateRandom C_EncryptInit C_Encrypt C_DecryptInit C_Decrypt "
	hot := calls()[before:hotEnd]
	for _, name := range hot {
		if !strings.Contains(allowed, " "+name+" ") {
			t.Errorf("the hot path calls %s", name)
		}
	}
	if len(hot) < 100 {
		t.Errorf("only %d calls seen", len(hot))
	}
	logins := 0
	for _, name := range calls() {
		if name == "C_Login" {
			logins++
		}
	}
	if logins != 1 {
		t.Errorf("%d logins, want 1", logins)
	}
}
