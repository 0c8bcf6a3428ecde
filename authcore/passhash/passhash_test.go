package passhash

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"custode/internal/fault"
	"custode/internal/id"
)

// pepper is HMAC in software.
type pepper struct {
	calls atomic.Int64
	fail  error
}

func (p *pepper) MAC(_ context.Context, data []byte) ([]byte, error) {
	p.calls.Add(1)
	if p.fail != nil {
		return nil, p.fail
	}
	m := hmac.New(sha256.New, []byte("test pepper"))
	m.Write(data)
	return m.Sum(nil), nil
}

var cheap = Cost{Memory: 8, Time: 1, Threads: 1}

const rightPassword = "Tr0ub4dor&zwölf"

func must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func newHasher(t testing.TB, c Config) *Hasher {
	t.Helper()
	if c.Pepper == nil {
		c.Pepper = &pepper{}
	}
	if c.Random == nil {
		c.Random = rand.Reader
	}
	if c.Cost == (Cost{}) {
		c.Cost = cheap
	}
	p, err := New(c)
	return must(t, p, err)
}

func newSubject(t testing.TB) id.Subject {
	t.Helper()
	s, err := id.NewSubject(rand.Reader)
	return must(t, s, err)
}

func TestPasswordRoundTrip(t *testing.T) {
	p := newHasher(t, Config{})
	s := newSubject(t)
	stored, err := p.Hash(t.Context(), s, "Perché#1è")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(stored, "$custode$1$argon2id$m=8,t=1,p=1$") || strings.Contains(stored, "Perch") {
		t.Errorf("encoding %q", stored)
	}
	again, err := p.Hash(t.Context(), s, "Perché#1è")
	if must(t, again, err) == stored {
		t.Error("the salt repeats")
	}
	for _, c := range []struct {
		name     string
		subject  id.Subject
		stored   string
		password string
		want     error
	}{
		{"right", s, stored, "Perché#1è", nil},
		{"right, decomposed", s, stored, "Perche\u0301#1e\u0300", nil},
		{"wrong", s, stored, "Perche#1e", errors.New("")},
		{"letter case", s, stored, "perché#1è", errors.New("")},
		{"longer", s, stored, "Perché#1è ", errors.New("")},
		{"empty", s, stored, "", errors.New("")},
		{"not UTF-8", s, stored, "Perch\xe9#1", errors.New("")},
		{"endless", s, stored, strings.Repeat("a", 1<<20), errors.New("")},
		{"another subject's row", newSubject(t), stored, "Perché#1è", errors.New("")},
		{"no subject", id.Subject{}, stored, "Perché#1è", errors.New("")},
		{"no stored password", s, "", "Perché#1è", errors.New("")},
	} {
		err := p.Check(t.Context(), c.subject, c.stored, c.password)
		if (err == nil) != (c.want == nil) || (err != nil && !fault.Is(err, fault.Denied)) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestPepperIsNeeded(t *testing.T) {
	s := newSubject(t)
	p := newHasher(t, Config{})
	stored, err := p.Hash(t.Context(), s, rightPassword)
	must(t, stored, err)
	down := newHasher(t, Config{Pepper: &pepper{fail: fault.Newf(fault.Unavailable, "mac", "token gone")}})
	for name, err := range map[string]error{
		"check":         down.Check(t.Context(), s, stored, rightPassword),
		"check unknown": down.Check(t.Context(), id.Subject{}, "", rightPassword),
	} {
		if !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s without a token: %v", name, err)
		}
	}
	if _, err := down.Hash(t.Context(), s, rightPassword); !fault.Is(err, fault.Unavailable) {
		t.Errorf("hash without a token: %v", err)
	}
	short := newHasher(t, Config{Pepper: shortPepper{}})
	if _, err := short.Hash(t.Context(), s, rightPassword); !fault.Is(err, fault.Internal) {
		t.Errorf("hash with a short MAC: %v", err)
	}
}

type shortPepper struct{}

func (shortPepper) MAC(context.Context, []byte) ([]byte, error) { return make([]byte, 31), nil }

// TestHostileRow: a row cannot ask for work or memory beyond the bounds, and
// only one text encodes a hash.
func TestHostileRow(t *testing.T) {
	p := newHasher(t, Config{})
	p.kdf = func([]byte, []byte, uint32, uint32, uint8, uint32) []byte {
		t.Error("a hostile row was worked on")
		return make([]byte, hashSize)
	}
	const salt, tag = "AAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	for _, row := range []string{
		"x", "$custode$1$argon2id$", "$argon2id$v=19$m=8,t=1,p=1$" + salt + "$" + tag,
		"$custode$2$argon2id$m=8,t=1,p=1$" + salt + "$" + tag,
		"$custode$1$argon2id$m=4194304,t=1,p=1$" + salt + "$" + tag,
		"$custode$1$argon2id$m=131072,t=16,p=1$" + salt + "$" + tag,
		"$custode$1$argon2id$m=8,t=4294967295,p=1$" + salt + "$" + tag,
		"$custode$1$argon2id$m=99999999999999999999,t=1,p=1$" + salt + "$" + tag,
		"$custode$1$argon2id$m=8,t=0,p=1$" + salt + "$" + tag,
		"$custode$1$argon2id$m=8,t=1,p=0$" + salt + "$" + tag,
		"$custode$1$argon2id$m=8,t=1,p=2$" + salt + "$" + tag,
		"$custode$1$argon2id$m=-8,t=1,p=1$" + salt + "$" + tag,
		"$custode$1$argon2id$m=08,t=1,p=1$" + salt + "$" + tag,
		"$custode$1$argon2id$m=8,t=1,p=1,x=1$" + salt + "$" + tag,
		"$custode$1$argon2id$m=8,t=1,p=1$" + salt + "=$" + tag,
		"$custode$1$argon2id$m=8,t=1,p=1$" + salt + "$" + tag + "=",
		"$custode$1$argon2id$m=8,t=1,p=1$" + salt + "$" + tag[:20],
		"$custode$1$argon2id$m=8,t=1,p=1$" + salt[:8] + "$" + tag,
		"$custode$1$argon2id$m=8,t=1,p=1$" + salt[:21] + "B$" + tag,
		"$custode$1$argon2id$m=8,t=1,p=1$" + salt + "$" + tag + "$",
		"$custode$1$argon2id$m=8,t=1,p=1$" + salt + "$" + strings.Repeat("A", 1<<20),
	} {
		if err := p.Check(t.Context(), newSubject(t), row, rightPassword); !fault.Is(err, fault.Internal) {
			t.Errorf("%.80s: %v", row, err)
		}
	}
}

func FuzzParseEncoded(f *testing.F) {
	f.Add("$custode$1$argon2id$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Add("$custode$1$argon2id$m=8,t=1,p=1$$")
	f.Fuzz(func(t *testing.T, s string) {
		e, err := parseEncoded(s)
		if err != nil {
			return
		}
		if e.String() != s || e.cost.check() != nil || len(e.salt) != saltSize {
			t.Errorf("%q was read as %+v", s, e)
		}
	})
}

func TestConfig(t *testing.T) {
	for name, c := range map[string]Config{
		"no pepper": {Random: rand.Reader},
		"no random": {Pepper: &pepper{}},
		"memory":    {Pepper: &pepper{}, Random: rand.Reader, Cost: Cost{Memory: 1 << 20}},
		"lanes":     {Pepper: &pepper{}, Random: rand.Reader, Cost: Cost{Memory: 8, Threads: 2}},
		"parallel":  {Pepper: &pepper{}, Random: rand.Reader, Parallel: -1},
		"queue":     {Pepper: &pepper{}, Random: rand.Reader, Queue: -1},
	} {
		if _, err := New(c); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New(Config{Pepper: &pepper{}, Random: bytes.NewReader(nil)}); err == nil {
		t.Error("no error without randomness")
	}
	p := newHasher(t, Config{Cost: Cost{Memory: 8}})
	if p.cost != (Cost{8, 2, 1}) {
		t.Errorf("cost %+v", p.cost)
	}
	dry := newHasher(t, Config{Random: io.LimitReader(rand.Reader, 16+16+32)})
	if _, err := dry.Hash(t.Context(), newSubject(t), rightPassword); !fault.Is(err, fault.Unavailable) {
		t.Errorf("hash without randomness: %v", err)
	}
}

// TestHashesAreBounded: never more than Parallel at a time, the others in the
// order they came, and beyond the queue an answer at once.
func TestHashesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHasher(t, Config{Parallel: 2, Queue: 3})
		s := newSubject(t)
		stored, err := p.Hash(t.Context(), s, rightPassword)
		must(t, stored, err)
		var running, most atomic.Int64
		step := make(chan struct{})
		var order []string
		p.kdf = func(pw, _ []byte, _, _ uint32, _ uint8, _ uint32) []byte {
			most.Store(max(most.Load(), running.Add(1)))
			<-step
			order = append(order, string(pw)) // one at a time: step is unbuffered and awaited
			running.Add(-1)
			return make([]byte, hashSize)
		}
		done := make(chan error, 5)
		for _, pw := range []string{"1", "2", "3", "4", "5"} {
			go func() { done <- p.Check(t.Context(), s, stored, pw) }()
			synctest.Wait()
		}
		if err := p.Check(t.Context(), s, stored, "6"); !fault.Is(err, fault.Busy) {
			t.Errorf("beyond the queue: %v", err)
		}
		if err := p.Check(t.Context(), id.Subject{}, "", "6"); !fault.Is(err, fault.Busy) {
			t.Errorf("beyond the queue, unknown: %v", err)
		}
		for range 5 {
			step <- struct{}{}
			synctest.Wait()
			if err := <-done; !fault.Is(err, fault.Denied) {
				t.Errorf("check: %v", err)
			}
		}
		if most.Load() != 2 {
			t.Errorf("%d hashes at a time, want 2", most.Load())
		}
		// The first two run side by side; behind them the order is kept.
		if got := strings.Join(order[2:], ""); got != "345" {
			t.Errorf("order %v", order)
		}
		if len(p.admit) != 0 {
			t.Errorf("%d places not given back", len(p.admit))
		}
	})
}

func TestHashRespectsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHasher(t, Config{Parallel: 1, Queue: 1})
		hold := make(chan struct{})
		p.kdf = func([]byte, []byte, uint32, uint32, uint8, uint32) []byte { <-hold; return make([]byte, hashSize) }
		first := make(chan error, 1)
		go func() { first <- p.Check(t.Context(), id.Subject{}, "", "x") }()
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		second := make(chan error, 1)
		go func() { second <- p.Check(ctx, id.Subject{}, "", "x") }()
		synctest.Wait()
		cancel()
		if err := <-second; !fault.Is(err, fault.Busy) || !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled while waiting: %v", err)
		}
		close(hold)
		if err := <-first; !fault.Is(err, fault.Denied) {
			t.Errorf("first: %v", err)
		}
	})
}

// TestUnknownCostsTheSame: a check without a stored password hashes once and asks the
// pepper once, as one with a password does.
func TestUnknownCostsTheSame(t *testing.T) {
	pep := &pepper{}
	p := newHasher(t, Config{Pepper: pep})
	s := newSubject(t)
	stored, err := p.Hash(t.Context(), s, rightPassword)
	must(t, stored, err)
	var hashes atomic.Int64
	kdf := p.kdf
	p.kdf = func(pw, salt []byte, time, memory uint32, threads uint8, n uint32) []byte {
		hashes.Add(1)
		return kdf(pw, salt, time, memory, threads, n)
	}
	for name, check := range map[string]func() error{
		"known":   func() error { return p.Check(t.Context(), s, stored, "not it") },
		"unknown": func() error { return p.Check(t.Context(), id.Subject{}, "", "not it") },
	} {
		h, m := hashes.Load(), pep.calls.Load()
		if err := check(); !fault.Is(err, fault.Denied) || hashes.Load() != h+1 || pep.calls.Load() != m+1 {
			t.Errorf("%s: %v, %d hashes and %d MACs", name, err, hashes.Load()-h, pep.calls.Load()-m)
		}
	}
}

func BenchmarkPasswordCheck(b *testing.B) {
	p := newHasher(b, Config{Cost: Cost{Memory: 19456, Time: 2, Threads: 1}})
	s := newSubject(b)
	stored, err := p.Hash(b.Context(), s, rightPassword)
	must(b, stored, err)
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Check(b.Context(), s, stored, rightPassword); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPasswordCheckParallel(b *testing.B) {
	p := newHasher(b, Config{Cost: Cost{Memory: 19456, Time: 2, Threads: 1}})
	s := newSubject(b)
	stored, err := p.Hash(b.Context(), s, rightPassword)
	must(b, stored, err)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := p.Check(b.Context(), s, stored, rightPassword); err != nil {
				b.Error(err)
			}
		}
	})
}
