// Package hsmtest is the one conformance suite for everything that claims to be
// a hsm.Token: only the function that opens the token differs between SoftHSM, a
// real module and whatever comes later. It is not a test of a policy that only
// one backend has; those live beside the backend.
//
// A backend says through hooks which misfortunes it can be put through; a nil
// hook leaves that part out, visibly, as a skipped subtest. Only tests import
// this package.
package hsmtest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"custode/hsm"
	"custode/internal/fault"
	"custode/internal/id"
)

// Backend is an opened token with one key of each role, made by the ceremony.
type Backend struct {
	Token           hsm.Token
	Sign, MAC, Wrap id.KeyLabel
	Seed            id.KeyLabel // of role seed, or of role wrap when Sealing is hsm.MechanismAESGCM
	Sealing         uint32      // how OATH secrets are wrapped; 0: hsm.MechanismAESKeyWrap
	// Octets returns new octets that the sign key may sign, for a token that judges them: its signer is
	// a crypto.MessageSigner and refuses digests. nil: the signer takes digests.
	Octets func() []byte
	// Refused lists keys that break the policy and what the refusal must name.
	Refused []Refused

	// Hooks; nil when the backend cannot do it. They are called while no
	// operation is in progress.
	DropSessions func() error // close every session behind the Token's back
	Logout       func() error // end the login behind its back
	Remove       func() error // take the token away
	Restore      func() error // bring it back
}

// Refused is a key that must not open.
type Refused struct {
	Label id.KeyLabel
	Role  hsm.Role
	Names string // the error's text must hold it
}

// Run runs the suite. open is called for each part with its own t, and closes
// the token through t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) Backend) {
	for _, part := range []struct {
		name string
		run  func(*testing.T, Backend)
	}{
		{"signer", signer}, {"certificate", certificate}, {"mac", mac}, {"wrapper", wrapper}, {"random", random},
		{"missing", missing}, {"refused", refused}, {"deadline", deadline}, {"concurrency", concurrency}, {"recovery", recovery},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(t, open(t)) })
	}
	RunSeeds(t, open)
}

// signed has s sign something new and verifies the signature.
func (b Backend) signed(s crypto.Signer) error {
	var octets []byte
	if b.Octets == nil {
		octets = []byte(rand.Text())
	} else {
		octets = b.Octets()
	}
	sig, err := crypto.SignMessage(s, nil, octets, crypto.SHA256)
	if err != nil {
		return err
	}
	digest := sha256.Sum256(octets)
	return rsa.VerifyPKCS1v15(s.Public().(*rsa.PublicKey), crypto.SHA256, digest[:], sig)
}

// judging is the part signer for tokens that judge what they sign.
func judging(t *testing.T, b Backend, s crypto.MessageSigner) {
	if err := b.signed(s); err != nil {
		t.Error(err)
	}
	octets := b.Octets()
	digest := sha512.Sum512(octets)
	for name, bad := range map[string]func() ([]byte, error){
		"a digest":       func() ([]byte, error) { return s.Sign(nil, digest[:32], crypto.SHA256) },
		"other octets":   func() ([]byte, error) { return s.SignMessage(nil, []byte("other octets"), crypto.SHA256) },
		"one octet less": func() ([]byte, error) { return s.SignMessage(nil, octets[:len(octets)-1], crypto.SHA256) },
		"nothing":        func() ([]byte, error) { return s.SignMessage(nil, nil, crypto.SHA256) },
	} {
		if sig, err := bad(); !fault.Is(err, fault.Denied) || sig != nil {
			t.Errorf("%s: %v, want denied", name, err)
		}
	}
	for name, opts := range map[string]crypto.SignerOpts{"SHA-512": crypto.SHA512, "PSS": &rsa.PSSOptions{Hash: crypto.SHA256}} {
		if sig, err := s.SignMessage(nil, octets, opts); !fault.Is(err, fault.Invalid) || sig != nil {
			t.Errorf("%s: %v, want invalid", name, err)
		}
	}
}

func signer(t *testing.T, b Backend) {
	s, err := b.Token.Signer(b.Sign)
	if err != nil {
		t.Fatal(err)
	}
	if b.Octets != nil {
		m, ok := s.(crypto.MessageSigner)
		if !ok {
			t.Fatalf("%T takes no octets", s)
		}
		judging(t, b, m)
		return
	}
	public, ok := s.Public().(*rsa.PublicKey)
	if !ok {
		t.Fatalf("public key is %T", s.Public())
	}
	d256, d384, d512 := sha256.Sum256([]byte("x")), sha512.Sum384([]byte("x")), sha512.Sum512([]byte("x"))
	for hash, digest := range map[crypto.Hash][]byte{crypto.SHA256: d256[:], crypto.SHA384: d384[:], crypto.SHA512: d512[:]} {
		sig, err := s.Sign(nil, digest, hash)
		if err != nil {
			t.Fatalf("%v: %v", hash, err)
		}
		if err := rsa.VerifyPKCS1v15(public, hash, digest, sig); err != nil {
			t.Errorf("%v: %v", hash, err)
		}
	}
	for name, bad := range map[string]func() ([]byte, error){
		"short digest": func() ([]byte, error) { return s.Sign(nil, d256[:31], crypto.SHA256) },
		"SHA-1":        func() ([]byte, error) { return s.Sign(nil, d256[:20], crypto.SHA1) },
		"no hash":      func() ([]byte, error) { return s.Sign(nil, d256[:], crypto.Hash(0)) },
		"PSS":          func() ([]byte, error) { return s.Sign(nil, d256[:], &rsa.PSSOptions{Hash: crypto.SHA256}) },
	} {
		if sig, err := bad(); !fault.Is(err, fault.Invalid) || sig != nil {
			t.Errorf("%s: %v, want invalid", name, err)
		}
	}
	if _, ok := s.(hsm.ContextSigner); !ok {
		t.Error("the signer takes no context")
	}
}

func certificate(t *testing.T, b Backend) {
	cert, err := b.Token.Certificate(b.Sign)
	if err != nil {
		t.Fatal(err)
	}
	s, err := b.Token.Signer(b.Sign)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.signed(s); err != nil {
		t.Fatal(err)
	}
	if !s.Public().(*rsa.PublicKey).Equal(cert.PublicKey) {
		t.Error("the certificate is for another key")
	}
}

func mac(t *testing.T, b Backend) {
	m, err := b.Token.MAC(b.MAC)
	if err != nil {
		t.Fatal(err)
	}
	sum := func(data []byte) []byte {
		t.Helper()
		s, err := m.MAC(t.Context(), data)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	one := sum([]byte("one"))
	if len(one) != 32 || !bytes.Equal(one, sum([]byte("one"))) {
		t.Errorf("%x is no stable MAC of 32 octets", one)
	}
	for name, data := range map[string][]byte{"other": []byte("onf"), "empty": nil, "longest": make([]byte, hsm.MaxMACInput)} {
		if bytes.Equal(one, sum(data)) {
			t.Errorf("%s text has the same MAC", name)
		}
	}
	if _, err := m.MAC(t.Context(), make([]byte, hsm.MaxMACInput+1)); !fault.Is(err, fault.Invalid) {
		t.Errorf("too long: %v, want invalid", err)
	}
}

func wrapper(t *testing.T, b Backend) {
	w, err := b.Token.Wrapper(b.Wrap)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	aad := []byte("subject 7")
	var blobs [][]byte
	for _, plain := range [][]byte{nil, []byte("seed"), []byte("seed"), make([]byte, hsm.MaxPlaintext)} {
		blob, err := w.Wrap(ctx, plain, aad)
		if err != nil {
			t.Fatalf("wrap %d octets: %v", len(plain), err)
		}
		back, err := w.Unwrap(ctx, blob, aad)
		if err != nil || !bytes.Equal(back, plain) {
			t.Fatalf("unwrap %d octets: %v", len(plain), err)
		}
		blobs = append(blobs, blob)
	}
	if bytes.Equal(blobs[1], blobs[2]) {
		t.Error("the same secret wrapped twice gives the same blob")
	}
	seed := blobs[1]
	for i := range seed {
		damaged := slices.Clone(seed)
		damaged[i] ^= 1
		if got, err := w.Unwrap(ctx, damaged, aad); !fault.Is(err, fault.Invalid) || got != nil {
			t.Errorf("octet %d damaged: %v, want invalid", i, err)
		}
	}
	for name, bad := range map[string]func() ([]byte, error){
		"other aad":      func() ([]byte, error) { return w.Unwrap(ctx, seed, []byte("subject 8")) },
		"no aad":         func() ([]byte, error) { return w.Unwrap(ctx, seed, nil) },
		"cut short":      func() ([]byte, error) { return w.Unwrap(ctx, seed[:len(seed)-1], aad) },
		"empty":          func() ([]byte, error) { return w.Unwrap(ctx, nil, aad) },
		"long aad":       func() ([]byte, error) { return w.Wrap(ctx, nil, make([]byte, hsm.MaxAAD+1)) },
		"long plaintext": func() ([]byte, error) { return w.Wrap(ctx, make([]byte, hsm.MaxPlaintext+1), nil) },
	} {
		if _, err := bad(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, want invalid", name, err)
		}
	}
	if back, err := w.Unwrap(ctx, seed, aad); err != nil || string(back) != "seed" {
		t.Errorf("after all that: %q %v", back, err)
	}
}

func random(t *testing.T, b Backend) {
	r := b.Token.Random()
	one, two := make([]byte, 3000), make([]byte, 3000)
	if _, err := io.ReadFull(r, one); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, two); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(one, two) || bytes.Equal(one[:1000], one[1000:2000]) {
		t.Error("random repeats itself")
	}
	if n, err := r.Read(nil); n != 0 || err != nil {
		t.Errorf("empty read: %d %v", n, err)
	}
}

func missing(t *testing.T, b Backend) {
	label, err := id.ParseKeyLabel("no/such/key")
	if err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func() error{
		"signer":      func() error { _, err := b.Token.Signer(label); return err },
		"certificate": func() error { _, err := b.Token.Certificate(label); return err },
		"mac":         func() error { _, err := b.Token.MAC(label); return err },
		"wrapper":     func() error { _, err := b.Token.Wrapper(label); return err },
		"mac as sign": func() error { _, err := b.Token.Signer(b.MAC); return err },
	} {
		if err := open(); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: %v, want not found", name, err)
		}
	}
	for name, open := range map[string]func() error{
		"wrap as mac": func() error { _, err := b.Token.MAC(b.Wrap); return err },
		"mac as wrap": func() error { _, err := b.Token.Wrapper(b.MAC); return err },
	} {
		if err := open(); !fault.Is(err, fault.Fatal) {
			t.Errorf("%s: %v, want fatal", name, err)
		}
	}
	if _, err := b.Token.MAC(id.KeyLabel{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("no label: %v, want invalid", err)
	}
}

func refused(t *testing.T, b Backend) {
	if len(b.Refused) == 0 {
		t.Skip("the backend has no key that breaks the policy")
	}
	for _, r := range b.Refused {
		var err error
		switch r.Role {
		case hsm.RoleSign:
			_, err = b.Token.Signer(r.Label)
		case hsm.RoleMAC:
			_, err = b.Token.MAC(r.Label)
		case hsm.RoleWrap:
			_, err = b.Token.Wrapper(r.Label)
		case hsm.RoleSeed:
			s, ok := b.Token.(interface{ OpenSeed(id.KeyLabel) error })
			if !ok {
				t.Fatalf("%T does not open seed keys", b.Token)
			}
			err = s.OpenSeed(r.Label)
		}
		if !fault.Is(err, fault.Fatal) || !strings.Contains(err.Error(), r.Names) || !strings.Contains(err.Error(), r.Label.String()) {
			t.Errorf("%s key %s: %v, want fatal naming %s", r.Role, r.Label, err, r.Names)
		}
	}
	if _, err := b.Token.MAC(b.MAC); err != nil {
		t.Errorf("a good key after the refusals: %v", err)
	}
}

func deadline(t *testing.T, b Backend) {
	m, err := b.Token.MAC(b.MAC)
	if err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if sum, err := m.MAC(cancelled, []byte("x")); !errors.Is(err, context.Canceled) || sum != nil {
		t.Errorf("cancelled: %v", err)
	}
	late, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	if _, err := m.MAC(late, []byte("x")); !errors.Is(err, context.DeadlineExceeded) || !fault.Is(err, fault.Exhausted) {
		t.Errorf("late: %v", err)
	}
	if _, err := m.MAC(t.Context(), []byte("x")); err != nil {
		t.Errorf("in time: %v", err)
	}
}

// use does one operation of each kind and compares the results.
type use struct {
	b    Backend
	s    crypto.Signer
	m    hsm.MAC
	w    hsm.Wrapper
	r    io.Reader
	mac  []byte
	blob []byte
	v    vault
	q    hsm.CodeQuery
}

func prepare(t *testing.T, b Backend) use {
	t.Helper()
	u := use{b: b}
	var err [5]error
	u.s, err[0] = b.Token.Signer(b.Sign)
	u.m, err[1] = b.Token.MAC(b.MAC)
	u.w, err[2] = b.Token.Wrapper(b.Wrap)
	if err := errors.Join(err[:]...); err != nil {
		t.Fatal(err)
	}
	u.r = b.Token.Random()
	u.mac, err[3] = u.m.MAC(t.Context(), []byte("kept"))
	u.blob, err[4] = u.w.Wrap(t.Context(), []byte("kept"), []byte("aad"))
	if err := errors.Join(err[:]...); err != nil {
		t.Fatal(err)
	}
	u.v = newVault(t, b)
	u.q = ask(u.v.enrol(t, "kept", rfcSecret, hsm.MechanismSHA1), hotpCodes[1], 0, 1, 2)
	return u
}

func (u use) once(ctx context.Context) error {
	if err := u.b.signed(u.s); err != nil {
		return err
	}
	if sum, err := u.m.MAC(ctx, []byte("kept")); err != nil {
		return err
	} else if !bytes.Equal(sum, u.mac) {
		return errors.New("the MAC changed")
	}
	if plain, err := u.w.Unwrap(ctx, u.blob, []byte("aad")); err != nil {
		return err
	} else if string(plain) != "kept" {
		return errors.New("the blob changed")
	}
	if got, err := u.v.MatchCodes(ctx, u.q); err != nil {
		return err
	} else if !slices.Equal(got, []int{1}) {
		return fmt.Errorf("the code matches %v", got)
	}
	if wrapped, err := u.v.WrapSecret(ctx, u.v.seed, u.v.sealing, hsm.KeyTypeGeneric, make([]byte, 64)); err != nil {
		return err
	} else if len(wrapped) < 64 {
		return errors.New("a secret was wrapped to nothing")
	}
	_, err := io.ReadFull(u.r, make([]byte, 16))
	return err
}

func concurrency(t *testing.T, b Backend) {
	u := prepare(t, b)
	var wg sync.WaitGroup
	for range 24 {
		wg.Go(func() {
			for range 4 {
				if err := u.once(t.Context()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func recovery(t *testing.T, b Backend) {
	u := prepare(t, b)
	// all has many callers meet the misfortune at once; every one must get
	// its answer.
	all := func(t *testing.T) {
		t.Helper()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 3 {
					if err := u.once(t.Context()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}
	for _, hook := range []struct {
		name string
		do   func() error
	}{{"sessions dropped", b.DropSessions}, {"logged out", b.Logout}} {
		t.Run(hook.name, func(t *testing.T) {
			if hook.do == nil {
				t.Skip("the backend has no hook for it")
			}
			for range 3 {
				all(t)
				if err := hook.do(); err != nil {
					t.Fatal(err)
				}
			}
			all(t)
		})
	}
	t.Run("away and back", func(t *testing.T) {
		if b.Remove == nil || b.Restore == nil {
			t.Skip("the backend has no hook for it")
		}
		if err := b.Remove(); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		for range 200 {
			if err := u.once(t.Context()); err == nil || fault.Is(err, fault.Fatal) {
				t.Fatalf("without token: %v, want an error that is not fatal", err)
			}
		}
		if d := time.Since(begun); d > 10*time.Second {
			t.Errorf("200 refusals took %v", d)
		}
		if err := b.Restore(); err != nil {
			t.Fatal(err)
		}
		back, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for err := u.once(back); err != nil; err = u.once(back) {
			select {
			case <-back.Done():
				t.Fatalf("the token does not come back: %v", err)
			case <-tick.C:
			}
		}
		all(t)
	})
}
