package worker

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"custode/hsm"
	"custode/hsm/worker/judge"
	"custode/hsm/worker/socket"
	"custode/internal/fault"
	"custode/internal/id"
)

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func query() hsm.CodeQuery {
	wrapped := bytes.Repeat([]byte("wrapped."), 9)
	return hsm.CodeQuery{KEK: seedLabel, Wrap: hsm.MechanismAESKeyWrap, KeyType: hsm.KeyTypeGeneric, MAC: hsm.MechanismSHA1, Wrapped: wrapped, Binder: bindLabel, Binding: append([]byte("b "), wrapped...),
		BindingMAC: make([]byte, 32), Digits: 6, Counters: []uint64{7, 123456, 9, 123456}, Code: "123456"}
}

// TestOperations asks everything once.
func TestOperations(t *testing.T) {
	w := newFake(t, 1)
	c := open(t, Config{Primary: w})
	ctx := t.Context()
	s, err := c.Signer(sealLabel)
	if err != nil {
		t.Fatal(err)
	}
	octets := attributes()
	sig, err := crypto.SignMessage(s, nil, octets, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(octets)
	if err := rsa.VerifyPKCS1v15(s.Public().(*rsa.PublicKey), crypto.SHA256, digest[:], sig); err != nil {
		t.Error(err)
	}
	if cert, err := c.Certificate(oldLabel); err != nil || cert.Subject.CommonName != oldLabel.String() {
		t.Errorf("certificate: %v", err)
	}
	m, err := c.MAC(macLabel)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := fakeKey{f: w.token, label: macLabel}.MAC(ctx, []byte("x"))
	if got, err := m.MAC(ctx, []byte("x")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("MAC: %x, %v", got, err)
	}
	k, err := c.Wrapper(wrapLabel)
	if err != nil {
		t.Fatal(err)
	}
	for _, plain := range []string{"", "secret", strings.Repeat("x", hsm.MaxPlaintext)} {
		blob, err := k.Wrap(ctx, []byte(plain), []byte("aad"))
		if err != nil {
			t.Fatal(err)
		}
		if back, err := k.Unwrap(ctx, blob, []byte("aad")); err != nil || string(back) != plain {
			t.Errorf("unwrapped %d of %d octets: %v", len(back), len(plain), err)
		}
		if _, err := k.Unwrap(ctx, blob, nil); !fault.Is(err, fault.Invalid) {
			t.Errorf("other aad: %v", err)
		}
	}
	random := make([]byte, 3000)
	if _, err := io.ReadFull(c.Random(), random); err != nil || bytes.Equal(random[:1000], random[1000:2000]) {
		t.Errorf("random: %v", err)
	}
	wrapped, err := c.WrapSecret(ctx, seedLabel, 0x2109, 0x10, []byte("seed"))
	direct, _ := w.token.WrapSecret(ctx, seedLabel, 0x2109, 0x10, []byte("seed"))
	if err != nil || !bytes.Equal(wrapped, direct) {
		t.Errorf("wrap secret: %x, %v", wrapped, err)
	}
	if found, err := c.MatchCodes(ctx, query()); err != nil || !cmp.Equal(found, []int{1, 3}) {
		t.Errorf("match codes: %v, %v", found, err)
	}
	q := query()
	q.Code = "000001"
	if found, err := c.MatchCodes(ctx, q); err != nil || len(found) != 0 {
		t.Errorf("no match: %v, %v", found, err)
	}
	eventually(t, "well", func() bool { return c.Health() == nil })
	keys := c.Keys()
	if len(keys) != 4 {
		t.Errorf("keys in use: %+v", keys)
	}
	eventually(t, "a report", func() bool { r := c.Status()[0].Worker; return r != nil && r.PID == os.Getpid() && r.Unwraps > 0 })
	var calls uint64
	for _, n := range c.Figures().Calls {
		if n.Token != "primary" {
			t.Errorf("%+v", n)
		}
		calls += n.Count
	}
	if calls < 15 {
		t.Errorf("%d calls counted", calls)
	}
}

// TestDenied: what the configuration does not allow is refused by the server, whatever a client asks.
func TestDenied(t *testing.T) {
	w := newFake(t, 1)
	ours, err := w.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	k, err := greet(t.Context(), ours, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	ask := func(m message) error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := k.ask(ctx, m)
		return err
	}
	sign := func(l id.KeyLabel, kind uint64, octets []byte) message {
		m := question(opSign, l.String(), octets, nil)
		m.numbers = []uint64{kind}
		return m
	}
	other := query()
	other.Binder = macLabel
	foreign := query()
	foreign.KEK = wrapLabel
	for name, m := range map[string]message{
		"a key that is not named":                 question(opMAC, "t/other", nil),
		"public part of a secret key":             question(opPublic, macLabel.String()),
		"MAC by a wrap key":                       question(opMAC, wrapLabel.String(), nil),
		"MAC by a key of bindings":                question(opMAC, bindLabel.String(), nil),
		"unwrap by a mac key":                     question(opUnwrap, macLabel.String(), nil, nil),
		"a seal by the key of SAML":               sign(signLabel, 6, attributes()),
		"a seal by a key that is not in use":      sign(oldLabel, 6, attributes()),
		"a seal, said to be an assertion":         sign(sealLabel, 1, attributes()),
		"a digest":                                sign(sealLabel, 6, make([]byte, 32)),
		"a canary of the pool":                    sign(sealLabel, 6, []byte("\x00custode canary")),
		"an OATH secret under a wrap key":         secretQuestion(wrapLabel, 1, 1, nil),
		"codes of a secret under a wrap key":      codeQuestion(foreign),
		"codes bound by a key for something else": codeQuestion(other),
	} {
		if err := ask(m); !fault.Is(err, fault.Denied) {
			t.Errorf("%s: %v, want denied", name, err)
		}
	}
	for name, m := range map[string]message{
		"no such operation":     question(200, macLabel.String()),
		"hello":                 question(opHello, ""),
		"a field too many":      question(opMAC, macLabel.String(), nil, nil),
		"no label":              question(opMAC, "", nil),
		"not a label":           question(opMAC, "no label at all", nil),
		"too much random":       {code: byte(opRandom), numbers: []uint64{maxRandom + 1}},
		"no random":             {code: byte(opRandom), numbers: []uint64{0}},
		"codes without counter": {code: byte(opMatchCodes), label: seedLabel.String(), fields: codeQuestion(query()).fields, numbers: []uint64{1, 1, 1, 6}},
	} {
		if err := ask(m); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, want invalid", name, err)
		}
	}
	if err := ask(sign(sealLabel, 6, attributes())); err != nil {
		t.Errorf("a good question after all that: %v", err)
	}
}

// TestRereadTakesNothing: a configuration that is read again while the daemon still runs by the
// former one allows what it adds, at once, and takes nothing away that is in use.
func TestRereadTakesNothing(t *testing.T) {
	w := newFake(t, 1)
	files := make(chan map[id.KeyLabel]Use, 1)
	w.cfg.Keys = map[id.KeyLabel]Use{macLabel: UseMAC, sealLabel: Signs(judge.CMS), wrapLabel: UsePublic}
	w.cfg.Reread = func() (map[id.KeyLabel]Use, error) {
		select {
		case f := <-files:
			return f, nil
		default:
			return nil, fault.Newf(fault.Invalid, "read", "broken")
		}
	}
	ours, err := w.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	k, err := greet(t.Context(), ours, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	seal := question(opSign, sealLabel.String(), attributes(), nil)
	seal.numbers = []uint64{6}
	bind := question(opWrap, wrapLabel.String(), []byte("x"), nil)
	ask := func(what string, m message, kind fault.Kind) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := k.ask(ctx, m)
		if kind == 0 && err != nil || kind != 0 && !fault.Is(err, kind) {
			t.Errorf("%s: %v", what, err)
		}
	}
	ask("a broken file", bind, fault.Denied)
	ask("after a broken file", seal, 0)
	time.Sleep(2 * rereadPause)
	files <- map[id.KeyLabel]Use{sealLabel: UsePublic, wrapLabel: UseWrap} // mac is forgotten, seal only published
	ask("what the new file allows", bind, 0)
	ask("what signs until the daemon takes the file", seal, 0)
	ask("what it forgot", question(opMAC, macLabel.String(), []byte("x")), 0)
}

// TestMalformed: octets that are no frame end their connection and nothing else.
func TestMalformed(t *testing.T) {
	w := newFake(t, 1)
	for name, octets := range map[string][]byte{
		"too long":      {0xff, 0xff, 0xff, 0xff},
		"empty":         {0, 0, 0, 0},
		"other version": append([]byte{0, 0, 0, 14, 9}, make([]byte, 13)...),
	} {
		ours, err := w.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readFrame(ours); err != nil {
			t.Fatal(err)
		}
		if _, err := ours.Write(octets); err != nil {
			t.Fatal(err)
		}
		_ = ours.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := readFrame(ours); !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v, want the end", name, err)
		}
		ours.Close()
	}
}

// TestStrangers: the kernel's word decides who is served.
func TestStrangers(t *testing.T) {
	s := NewServer(ServerConfig{Token: &fakeToken{}})
	ours, theirs := pair(t)
	defer ours.Close()
	if err := s.Serve(t.Context(), theirs, socket.Peer{UID: os.Geteuid(), PID: os.Getpid() + 1}); !fault.Is(err, fault.Denied) {
		t.Errorf("another process: %v", err)
	}
	if _, err := readFrame(ours); !errors.Is(err, io.EOF) {
		t.Errorf("it was told %v", err)
	}
}

// TestLostWorker: a call under way when the worker dies is answered by the next.
func TestLostWorker(t *testing.T) {
	w := newFake(t, 1)
	c := open(t, Config{Primary: w})
	m, err := c.MAC(macLabel)
	if err != nil {
		t.Fatal(err)
	}
	want, err := m.MAC(t.Context(), []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	first := w.token
	gate := make(chan struct{})
	first.stall.Store(&gate)
	w.change(func() { w.token = &fakeToken{seed: 1} })
	before := first.calls.Load()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if got, err := m.MAC(t.Context(), []byte("x")); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%x, %v", got, err)
			}
		})
	}
	eventually(t, "calls under way", func() bool { return first.calls.Load() >= before+20 })
	w.crash()
	all.Wait()
	close(gate)
	if f := c.Figures(); f.Repeated == 0 || f.Recovery.Count != 1 || f.Tokens[0].Starts != 2 || f.Tokens[0].Recovery == 0 {
		t.Errorf("%+v", f)
	}
}

// TestAnotherKey: a worker that comes back with another token is refused by the key's name, and one
// that comes back with the right one is used again.
func TestAnotherKey(t *testing.T) {
	for _, use := range []struct {
		what id.KeyLabel
		open func(*Client) error
	}{
		{macLabel, func(c *Client) error { _, err := c.MAC(macLabel); return err }},
		{wrapLabel, func(c *Client) error { _, err := c.Wrapper(wrapLabel); return err }},
		{signLabel, func(c *Client) error { _, err := c.Signer(signLabel); return err }},
		{seedLabel, func(c *Client) error { return c.OpenSeed(seedLabel) }},
		{seedLabel, func(c *Client) error { // whose wrapping is not deterministic
			_, err := c.WrapSecret(context.Background(), seedLabel, hsm.MechanismAESGCM, hsm.KeyTypeGeneric, []byte("x"))
			return err
		}},
	} {
		t.Run(use.what.String(), func(t *testing.T) {
			w := newFake(t, 1)
			c := open(t, Config{Primary: w})
			if err := use.open(c); err != nil {
				t.Fatal(err)
			}
			w.change(func() { w.token = &fakeToken{seed: 2} })
			w.crash()
			eventually(t, "refused by name", func() bool {
				err := c.Health()
				return fault.Is(err, fault.Fatal) && strings.Contains(err.Error(), "recognise key "+use.what.String())
			})
			if err := use.open(c); !fault.Is(err, fault.Fatal) || !strings.Contains(err.Error(), use.what.String()) {
				t.Errorf("used nevertheless: %v", err)
			}
			w.change(func() { w.token = &fakeToken{seed: 1} })
			w.crash()
			eventually(t, "well again", func() bool { return c.Health() == nil })
			if err := use.open(c); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestForGood: after a refused PIN there is no second start.
func TestForGood(t *testing.T) {
	w := newFake(t, 1)
	c := open(t, Config{Primary: w})
	m, err := c.MAC(macLabel)
	if err != nil {
		t.Fatal(err)
	}
	w.change(func() { w.ended = fault.Newf(fault.Fatal, "run", "%w: the PIN", ErrForGood) })
	w.crash()
	if err := c.Run(t.Context()); !errors.Is(err, ErrForGood) {
		t.Errorf("Run: %v", err)
	}
	if _, err := m.MAC(t.Context(), nil); !errors.Is(err, ErrForGood) || !fault.Is(err, fault.Fatal) {
		t.Errorf("a call: %v", err)
	}
	if n := w.opened(); n != 1 {
		t.Errorf("%d starts", n)
	}
	// Crashes before the token is open are not repeated for ever either.
	crashing := newFake(t, 1)
	crashing.refuse, crashing.ended = errors.New("no"), fault.Newf(fault.Unavailable, "run", "%w: signal", ErrUnclear)
	k := &backend{name: "primary", source: crashing, c: c, changed: make(chan struct{})}
	k.keep(t.Context())
	if s := k.state(); !s.forGood || crashing.opened() != maxUnclear || !errors.Is(s.trouble, ErrForGood) {
		t.Errorf("%+v after %d starts", s, crashing.opened())
	}
	refused := newFake(t, 1)
	refused.refuse, refused.ended = errors.New("no"), w.ended
	if _, err := Open(t.Context(), Config{Primary: refused}); !errors.Is(err, ErrForGood) || refused.opened() != 1 {
		t.Errorf("at the start: %v after %d tries", err, refused.opened())
	}
}

// TestTokenErrors: an error of the token is the caller's at once, with its kind and text.
func TestTokenErrors(t *testing.T) {
	w := newFake(t, 1)
	c := open(t, Config{Primary: w})
	m, err := c.MAC(macLabel)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []fault.Kind{fault.Unavailable, fault.Fatal, fault.Invalid, fault.NotFound, fault.Internal} {
		w.token.fail(fault.Newf(kind, "compute in the token", "reason %d", kind))
		if _, err := m.MAC(t.Context(), nil); !fault.Is(err, kind) || !strings.Contains(err.Error(), fmt.Sprintf("compute in the token: %s: reason %d", kind, kind)) {
			t.Errorf("%s: %v", kind, err)
		}
	}
	eventually(t, "ill", func() bool { return c.Health() != nil })
	w.token.fail(nil)
	eventually(t, "well", func() bool { return c.Health() == nil })
	stall := make(chan struct{})
	w.token.stall.Store(&stall)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := m.MAC(ctx, nil); !fault.Is(err, fault.Exhausted) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("late: %v", err)
	}
	w.token.stall.Store(nil)
	close(stall)
}

// TestGrown: a worker that has leaked enough is replaced without a call being lost.
func TestGrown(t *testing.T) {
	w := newFake(t, 1)
	w.cfg.MaxUnwraps = 20
	c := open(t, Config{Primary: w})
	stop := make(chan struct{})
	var watchers sync.WaitGroup
	watchers.Go(func() { // what cmd/custode/hsmcmd does in the worker's process
		for {
			w.mu.Lock()
			s := w.server
			w.mu.Unlock()
			if s != nil && s.unwraps.Load() >= 20 {
				if err := s.Watch(context.WithoutCancel(t.Context())); !errors.Is(err, ErrGrown) {
					t.Errorf("Watch: %v", err)
				}
				s.Drain(5 * time.Second)
			}
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
		}
	})
	for range 50 {
		if _, err := c.MatchCodes(t.Context(), query()); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "replaced", func() bool { return c.Status()[0].Starts > 1 })
	if _, err := c.MatchCodes(t.Context(), query()); err != nil {
		t.Error(err)
	}
	close(stop)
	watchers.Wait()
	s := NewServer(ServerConfig{Token: w.token, Stuck: func() bool { return true }})
	if err := s.Watch(t.Context()); !errors.Is(err, ErrHung) {
		t.Errorf("a hung module: %v", err)
	}
}
