package hsmtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"custode/hsm"
	"custode/internal/fault"
	"custode/internal/id"
)

// RunSeeds runs the part of the suite about OATH secrets, which a Token may do in two ways:
// Backend.Seed and Backend.Sealing say which.
func RunSeeds(t *testing.T, open func(t *testing.T) Backend) {
	for _, part := range []struct {
		name string
		run  func(*testing.T, Backend, vault)
	}{
		{"published codes", publishedCodes}, {"several counters", severalCounters}, {"binding", binding}, {"foreign blob", foreignBlob},
		{"seed misuse", seedMisuse}, {"seed deadline", seedDeadline}, {"seed concurrency", seedConcurrency},
	} {
		t.Run(part.name, func(t *testing.T) {
			b := open(t)
			part.run(t, b, newVault(t, b))
		})
	}
}

// keeper is what a Token does with OATH secrets.
type keeper interface {
	hsm.SecretKey
	hsm.CodeMatcher
}

// vault makes questions about secrets of its own.
type vault struct {
	keeper
	seed, binder id.KeyLabel
	sealing      uint32
	mac          hsm.MAC
}

func newVault(t *testing.T, b Backend) vault {
	t.Helper()
	k, ok := b.Token.(keeper)
	if !ok {
		t.Fatalf("%T does not keep OATH secrets", b.Token)
	}
	v := vault{keeper: k, seed: b.Seed, binder: b.MAC, sealing: b.Sealing}
	if v.sealing == 0 {
		v.sealing = hsm.MechanismAESKeyWrap
	}
	var err error
	if v.mac, err = b.Token.MAC(b.MAC); err != nil {
		t.Fatal(err)
	}
	return v
}

// block is the block of the hash of an HMAC mechanism, in octets.
func block(mechanism uint32) int {
	if mechanism == hsm.MechanismSHA512 {
		return 128
	}
	return 64
}

// enrol wraps a secret, padded to its hash's block, and binds it to owner.
func (v vault) enrol(t *testing.T, owner, secret string, mechanism uint32) hsm.CodeQuery {
	t.Helper()
	q := hsm.CodeQuery{
		KEK: v.seed, Wrap: v.sealing, KeyType: hsm.KeyTypeGeneric, MAC: mechanism, Binder: v.binder,
		Digits: 6, Counters: []uint64{0}, Code: "000000",
	}
	padded := append([]byte(secret), make([]byte, block(mechanism)-len(secret))...)
	before := bytes.Clone(padded)
	var err error
	if q.Wrapped, err = v.WrapSecret(t.Context(), q.KEK, q.Wrap, q.KeyType, padded); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(padded, before) {
		t.Error("the caller's secret was written to")
	}
	if len(secret) > 0 && bytes.Contains(q.Wrapped, []byte(secret)) {
		t.Error("the secret is in clear")
	}
	v.bind(t, &q, owner)
	return q
}

func (v vault) bind(t *testing.T, q *hsm.CodeQuery, owner string) {
	t.Helper()
	q.Binding = append([]byte("device of "+owner+": "), q.Wrapped...)
	var err error
	if q.BindingMAC, err = v.mac.MAC(t.Context(), q.Binding); err != nil {
		t.Fatal(err)
	}
}

func ask(q hsm.CodeQuery, code string, counters ...uint64) hsm.CodeQuery {
	q.Code, q.Digits, q.Counters = code, len(code), counters
	return q
}

const rfcSecret = "12345678901234567890"

var hotpCodes = strings.Fields("755224 287082 359152 969429 338314 254676 287922 162583 399871 520489")

// RFC 4226, appendix D, and RFC 6238, appendix B.
func publishedCodes(t *testing.T, _ Backend, v vault) {
	hotp := v.enrol(t, "rfc4226", rfcSecret, hsm.MechanismSHA1)
	for counter, code := range hotpCodes {
		if got, err := v.MatchCodes(t.Context(), ask(hotp, code, uint64(counter))); err != nil || !slices.Equal(got, []int{0}) {
			t.Errorf("counter %d, code %s: %v %v", counter, code, got, err)
		}
	}
	times := []int64{59, 1111111109, 1111111111, 1234567890, 2000000000, 20000000000}
	repeat := func(n int) string { return strings.Repeat(rfcSecret, 4)[:n] }
	for _, c := range []struct {
		mechanism uint32
		secret    string
		codes     string
	}{
		{hsm.MechanismSHA1, repeat(20), "94287082 07081804 14050471 89005924 69279037 65353130"},
		{hsm.MechanismSHA256, repeat(32), "46119246 68084774 67062674 91819424 90698825 77737706"},
		{hsm.MechanismSHA512, repeat(64), "90693936 25091201 99943326 93441116 38618901 47863826"},
	} {
		totp := v.enrol(t, "rfc6238", c.secret, c.mechanism)
		for i, code := range strings.Fields(c.codes) {
			step := uint64(times[i] / 30)
			if got, err := v.MatchCodes(t.Context(), ask(totp, code, step-1, step, step+1)); err != nil || !slices.Equal(got, []int{1}) {
				t.Errorf("%#x at %d s, code %s: %v %v", c.mechanism, times[i], code, got, err)
			}
		}
	}
}

func severalCounters(t *testing.T, _ Backend, v vault) {
	q := v.enrol(t, "many", rfcSecret, hsm.MechanismSHA1)
	long := make([]uint64, hsm.MaxCounters)
	for i := range long {
		long[i] = uint64(len(long) - 1 - i)
	}
	for name, c := range map[string]struct {
		q    hsm.CodeQuery
		want []int
	}{
		"none":       {ask(q, "755224", 1, 2, 3), nil},
		"other code": {ask(q, "755225", 0, 1, 2), nil},
		"last":       {ask(q, "755224", 5, 7, 0), []int{2}},
		"repeated":   {ask(q, "755224", 0, 1, 0, 0), []int{0, 2, 3}},
		"most":       {ask(q, "287082", long...), []int{hsm.MaxCounters - 2}},
		"highest":    {ask(q, "755224", ^uint64(0), 0), []int{1}},
		"8 digits":   {ask(q, "84755224", 0), []int{0}},
		"7 digits":   {ask(q, "4755224", 0), []int{0}},
	} {
		if got, err := v.MatchCodes(t.Context(), c.q); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v; want %v", name, got, err, c.want)
		}
	}
}

func binding(t *testing.T, b Backend, v vault) {
	alice, mallory := v.enrol(t, "alice", rfcSecret, hsm.MechanismSHA1), v.enrol(t, "mallory", strings.Repeat("m", 20), hsm.MechanismSHA1)
	moved := ask(alice, hotpCodes[0], 0)
	moved.Wrapped = mallory.Wrapped
	moved.Binding = append(bytes.TrimSuffix(bytes.Clone(alice.Binding), alice.Wrapped), mallory.Wrapped...)
	renamed := ask(alice, hotpCodes[0], 0)
	renamed.Binding = append([]byte("device of mallory: "), renamed.Wrapped...)
	none := ask(alice, hotpCodes[0], 0)
	none.BindingMAC = nil
	short := ask(alice, hotpCodes[0], 0)
	short.BindingMAC = short.BindingMAC[:31]
	wrongRole := ask(alice, hotpCodes[0], 0)
	wrongRole.KEK, wrongRole.BindingMAC = b.MAC, make([]byte, 32)
	strange := ask(alice, hotpCodes[0], 0) // not even looked for in the token
	strange.KEK, strange.BindingMAC = unheardOf(t), make([]byte, 32)
	for name, q := range map[string]hsm.CodeQuery{"moved blob": moved, "renamed": renamed, "no MAC": none, "short MAC": short, "strange key": strange, "key of another role": wrongRole} {
		if got, err := v.MatchCodes(t.Context(), q); !fault.Is(err, fault.Denied) || got != nil {
			t.Errorf("%s: %v %v, want denied", name, got, err)
		}
	}
	for i := range alice.BindingMAC {
		q := ask(alice, hotpCodes[0], 0)
		q.BindingMAC = bytes.Clone(q.BindingMAC)
		q.BindingMAC[i] ^= 1
		if _, err := v.MatchCodes(t.Context(), q); !fault.Is(err, fault.Denied) {
			t.Errorf("octet %d of the MAC: %v, want denied", i, err)
		}
	}
	strange.BindingMAC = alice.BindingMAC
	if _, err := v.MatchCodes(t.Context(), strange); !fault.Is(err, fault.NotFound) {
		t.Errorf("a key that is not there: %v, want not found", err)
	}
	if got, err := v.MatchCodes(t.Context(), ask(alice, hotpCodes[0], 0)); err != nil || !slices.Equal(got, []int{0}) {
		t.Errorf("after all that: %v %v", got, err)
	}
}

func unheardOf(t *testing.T) id.KeyLabel {
	t.Helper()
	l, err := id.ParseKeyLabel("no/such/key")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// One row that no token can unwrap, vouched for or not, is that row's trouble only.
func foreignBlob(t *testing.T, _ Backend, v vault) {
	good := v.enrol(t, "good", rfcSecret, hsm.MechanismSHA1)
	for name, spoil := range map[string]func(w []byte) []byte{
		"flipped":   func(w []byte) []byte { w[len(w)/2] ^= 1; return w },
		"first":     func(w []byte) []byte { w[0] ^= 0x80; return w },
		"cut":       func(w []byte) []byte { return w[:len(w)-8] },
		"lengthier": func(w []byte) []byte { return append(w, make([]byte, 8)...) },
		"zeros":     func(w []byte) []byte { clear(w); return w },
	} {
		q := ask(good, hotpCodes[0], 0)
		q.Wrapped = spoil(bytes.Clone(good.Wrapped))
		v.bind(t, &q, "good")
		for range 3 {
			if got, err := v.MatchCodes(t.Context(), q); !fault.Is(err, fault.Invalid) || got != nil {
				t.Errorf("%s: %v %v, want invalid", name, got, err)
			}
		}
		if got, err := v.MatchCodes(t.Context(), ask(good, hotpCodes[1], 0, 1)); err != nil || !slices.Equal(got, []int{1}) {
			t.Errorf("a good one after %s: %v %v", name, got, err)
		}
	}
}

func seedMisuse(t *testing.T, b Backend, v vault) {
	good := ask(v.enrol(t, "x", rfcSecret, hsm.MechanismSHA1), hotpCodes[0], 0)
	for name, change := range map[string]func(q *hsm.CodeQuery){
		"no key": func(q *hsm.CodeQuery) { q.KEK = id.KeyLabel{} }, "no binder": func(q *hsm.CodeQuery) { q.Binder = id.KeyLabel{} },
		"other end of the binding": func(q *hsm.CodeQuery) { q.Binding = []byte("x") },
		"wrap mechanism":           func(q *hsm.CodeQuery) { q.Wrap = 0x210A },
		"mac mechanism":            func(q *hsm.CodeQuery) { q.MAC = 0x220 },
		"key type":                 func(q *hsm.CodeQuery) { q.KeyType = 0x1f },
		"another hash's key type":  func(q *hsm.CodeQuery) { q.KeyType = hsm.KeyTypeOf(hsm.MechanismSHA256) },
		"no counters":              func(q *hsm.CodeQuery) { q.Counters = nil },
		"many counters":            func(q *hsm.CodeQuery) { q.Counters = make([]uint64, hsm.MaxCounters+1) },
		"no code":                  func(q *hsm.CodeQuery) { q.Code = "" },
		"short code":               func(q *hsm.CodeQuery) { q.Code, q.Digits = "12345", 5 },
		"long code":                func(q *hsm.CodeQuery) { q.Code, q.Digits = "123456789", 9 },
		"code and digits differ":   func(q *hsm.CodeQuery) { q.Digits = 8 },
		"letters":                  func(q *hsm.CodeQuery) { q.Code = "75522a" },
		"no blob":                  func(q *hsm.CodeQuery) { q.Wrapped, q.Binding = nil, nil },
		"binder is no mac key":     func(q *hsm.CodeQuery) { q.Binder = b.Seed },
		"key is no seed key":       func(q *hsm.CodeQuery) { q.KEK = b.MAC },
	} {
		q := good
		change(&q)
		if got, err := v.MatchCodes(t.Context(), q); !fault.Is(err, fault.Invalid) || got != nil {
			t.Errorf("%s: %v %v, want invalid", name, got, err)
		}
	}
	for name, c := range map[string]struct {
		wrap, keyType uint32
		n             int
	}{
		"empty": {v.sealing, hsm.KeyTypeGeneric, 0}, "short": {v.sealing, hsm.KeyTypeGeneric, hsm.MinSecret - 8}, "long": {v.sealing, hsm.KeyTypeGeneric, hsm.MaxSecret + 8},
		"odd": {v.sealing, hsm.KeyTypeGeneric, 63}, "mechanism": {0x210A, hsm.KeyTypeGeneric, 64}, "key type": {v.sealing, 0x1f, 64},
	} {
		if _, err := v.WrapSecret(t.Context(), v.seed, c.wrap, c.keyType, make([]byte, c.n)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, want invalid", name, err)
		}
	}
	if _, err := v.WrapSecret(t.Context(), unheardOf(t), v.sealing, hsm.KeyTypeGeneric, make([]byte, 64)); !fault.Is(err, fault.NotFound) {
		t.Errorf("no such key: %v, want not found", err)
	}
	if got, err := v.MatchCodes(t.Context(), good); err != nil || !slices.Equal(got, []int{0}) {
		t.Errorf("after all that: %v %v", got, err)
	}
}

func seedDeadline(t *testing.T, _ Backend, v vault) {
	q := ask(v.enrol(t, "x", rfcSecret, hsm.MechanismSHA1), hotpCodes[0], 0)
	late, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	if got, err := v.MatchCodes(late, q); !fault.Is(err, fault.Exhausted) || got != nil {
		t.Errorf("late: %v %v", got, err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.WrapSecret(gone, v.seed, v.sealing, hsm.KeyTypeGeneric, make([]byte, 64)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if got, err := v.MatchCodes(t.Context(), q); err != nil || !slices.Equal(got, []int{0}) {
		t.Errorf("in time: %v %v", got, err)
	}
}

// Nobody gets an answer to another's question.
func seedConcurrency(t *testing.T, _ Backend, v vault) {
	var questions []hsm.CodeQuery
	for i := range 4 {
		questions = append(questions, v.enrol(t, fmt.Sprint(i), rfcSecret, hsm.MechanismSHA1))
	}
	var wg sync.WaitGroup
	for n := range 16 {
		wg.Go(func() {
			for i := range 8 {
				at := (n + i) % len(hotpCodes)
				got, err := v.MatchCodes(t.Context(), ask(questions[n%len(questions)], hotpCodes[at], 0, 1, 2, 3, 4, 5, 6, 7, 8, 9))
				if err != nil || !slices.Equal(got, []int{at}) {
					t.Errorf("code %d: %v %v", at, got, err)
					return
				}
			}
		})
	}
	wg.Wait()
}
