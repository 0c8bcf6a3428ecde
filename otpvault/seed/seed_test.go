package seed

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/otpvault/oath"
)

// fakeHSM wraps as RFC 3394 does and computes HMACs as a token does, and keeps
// the buffers it was handed.
type fakeHSM struct {
	key       byte
	err       error
	short     bool
	got       [][]byte // secrets to wrap, the caller's memory
	bound     [][]byte
	lately    []uint32 // the last mechanisms
	unwrapped int
}

func (h *fakeHSM) cipher() cipher.Block {
	b, err := aes.NewCipher(bytes.Repeat([]byte{h.key}, 32))
	if err != nil {
		panic(err)
	}
	return b
}

func (h *fakeHSM) WrapSecret(_ context.Context, _ id.KeyLabel, wrap, keyType uint32, secret []byte) ([]byte, error) {
	h.got, h.lately = append(h.got, secret), []uint32{wrap, keyType}
	if h.err != nil {
		return nil, h.err
	}
	a, r := []byte{0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6}, append([]byte(nil), secret...)
	n := len(r) / 8
	for j := range 6 {
		for i := range n {
			b := append(append([]byte(nil), a...), r[8*i:8*i+8]...)
			h.cipher().Encrypt(b, b)
			binary.BigEndian.PutUint64(a, binary.BigEndian.Uint64(b)^uint64(n*j+i+1))
			copy(r[8*i:], b[8:])
		}
	}
	return append(a, r...), nil
}

func (h *fakeHSM) unwrap(wrapped []byte) ([]byte, error) {
	a, r := append([]byte(nil), wrapped[:8]...), append([]byte(nil), wrapped[8:]...)
	n := len(r) / 8
	for j := 5; j >= 0; j-- {
		for i := n - 1; i >= 0; i-- {
			b := binary.BigEndian.AppendUint64(nil, binary.BigEndian.Uint64(a)^uint64(n*j+i+1))
			b = append(b, r[8*i:8*i+8]...)
			h.cipher().Decrypt(b, b)
			copy(a, b)
			copy(r[8*i:], b[8:])
		}
	}
	if !bytes.Equal(a, []byte{0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6}) {
		return nil, fault.New(fault.Invalid, "unwrap", nil)
	}
	return r, nil
}

// Match answers as a token does: binding first, then the secret.
func (h *fakeHSM) Match(_ context.Context, q Question) (out []int, _ error) {
	h.lately = []uint32{q.MAC, q.KeyType}
	if h.err != nil {
		return nil, h.err
	}
	bound := hmac.New(sha256.New, []byte{h.key})
	bound.Write(q.Binding)
	if !hmac.Equal(bound.Sum(nil), q.BindingMAC) || !bytes.HasSuffix(q.Binding, q.Wrapped) {
		return nil, fault.New(fault.Denied, "match", nil)
	}
	h.unwrapped++
	secret, err := h.unwrap(q.Wrapped)
	if err != nil {
		return nil, err
	}
	for i, c := range q.Counters {
		m := hmac.New(map[uint32]func() hash.Hash{0x221: sha1.New, 0x251: sha256.New, 0x271: sha512.New}[q.MAC], secret)
		_ = binary.Write(m, binary.BigEndian, c)
		sum := m.Sum(nil)
		shown := fmt.Sprintf("%010d", binary.BigEndian.Uint32(sum[sum[len(sum)-1]&15:])&0x7fffffff)
		if shown[10-q.Digits:] == q.Code {
			out = append(out, i)
		}
	}
	return out, nil
}

func (h *fakeHSM) MAC(_ context.Context, data []byte) ([]byte, error) {
	h.bound = append(h.bound, data)
	if h.err != nil {
		return nil, h.err
	}
	m := hmac.New(sha256.New, []byte{h.key})
	m.Write(data)
	if h.short {
		return m.Sum(nil)[:16], nil
	}
	return m.Sum(nil), nil
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var (
	kek    = must(id.ParseKeyLabel("custode/otp-wrap/2026-1"))
	recipe = Recipe{KEK: kek, Mechanism: MechanismAESKeyWrap, KeyType: KeyTypeGenericSecret}
	texts  = cmp.Comparer(func(a, b id.KeyLabel) bool { return a == b })
)

func binding(h oath.Hash) Binding {
	return Binding{
		Subject: must(id.ParseSubject("s_0123456789abcdef0123456789abcdef")), Serial: must(id.ParseSerial("FT-1")),
		Parameters: oath.Parameters{Kind: oath.Time, Hash: h, Digits: 8, Period: 30 * time.Second},
	}
}

// TestRFC6238ThroughTheSeal computes the RFC's codes with seeds that were padded,
// wrapped, bound, opened and unwrapped.
func TestRFC6238ThroughTheSeal(t *testing.T) {
	long := "1234567890123456789012345678901234567890123456789012345678901234"
	for h, want := range map[oath.Hash]struct{ secret, code string }{
		oath.SHA1: {long[:20], "89005924"}, oath.SHA256: {long[:32], "91819424"}, oath.SHA512: {long, "93441116"},
	} {
		hsm := &fakeHSM{key: 1}
		secret := []byte(want.secret)
		sealed, mac, err := Seal(t.Context(), hsm, hsm, recipe, binding(h), secret)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(secret, make([]byte, len(secret))) || !bytes.Equal(hsm.got[0], make([]byte, h.Block())) {
			t.Errorf("%v: the seed or its padded copy was not wiped", h)
		}
		blob := must(sealed.Encode())
		stored, err := Read(binding(h), blob, mac)
		if err != nil {
			t.Fatal(err)
		}
		r := oath.NewRules()
		v, _, err := r.Check(t.Context(), stored.With(hsm), binding(h).Parameters, oath.Begin(0), want.code, time.Unix(1234567890, 0))
		if err != nil || v != oath.Accepted {
			t.Errorf("%v: %v %v", h, v, err)
		}
	}
}

// TestPadIsHMACs compares HMACs by padded and by plain seeds.
func TestPadIsHMACs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.SliceOfN(rapid.Byte(), MinSeed, MaxSeed).Draw(t, "secret")
		message := rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(t, "message")
		for h, f := range map[oath.Hash]func() hash.Hash{oath.SHA1: sha1.New, oath.SHA256: sha256.New, oath.SHA512: sha512.New} {
			padded, err := Pad(secret, h)
			if err != nil || len(padded) != h.Block() {
				t.Fatal(len(padded), err)
			}
			a, b := hmac.New(f, secret), hmac.New(f, padded)
			a.Write(message)
			b.Write(message)
			if !bytes.Equal(a.Sum(nil), b.Sum(nil)) {
				t.Fatalf("%v: another HMAC after padding", h)
			}
		}
	})
	for _, n := range []int{0, MinSeed - 1, MaxSeed + 1} {
		if _, err := Pad(make([]byte, n), oath.SHA1); !fault.Is(err, fault.Invalid) {
			t.Errorf("%d octets: %v", n, err)
		}
	}
	if _, err := Pad(make([]byte, 20), 9); !fault.Is(err, fault.Invalid) {
		t.Errorf("unknown hash: %v", err)
	}
}

// TestGolden keeps the formats: rows of today are read in years.
func TestGolden(t *testing.T) {
	s := Sealed{Mechanism: MechanismAESKeyWrap, KeyType: KeyTypeGenericSecret, Hash: oath.SHA1, KEK: must(id.ParseKeyLabel("ab")), Wrapped: bytes.Repeat([]byte{7}, 72)}
	blob := must(s.Encode())
	want := "\x01\x02ab\x00\x00\x21\x09\x00\x00\x00\x10\x01\x00\x40" + strings.Repeat("\x07", 72)
	if string(blob) != want {
		t.Errorf("%q", blob)
	}
	input := must(binding(oath.SHA1).input(s))
	wantInput := ""
	for _, f := range []string{"custode otp seed 1", "s_0123456789abcdef0123456789abcdef", "FT-1", "totp", "SHA1", "8", "30", "ab", want} {
		wantInput += string(binary.BigEndian.AppendUint32(nil, uint32(len(f)))) + f
	}
	if string(input) != wantInput {
		t.Errorf("%q", input)
	}
}

// ask has the HSM look at a row as a login does, and reports how.
func ask(t *testing.T, hsm *fakeHSM, b Binding, blob, mac []byte) error {
	t.Helper()
	s, err := Read(b, blob, mac)
	if err != nil {
		return err
	}
	before := hsm.unwrapped
	_, err = s.With(hsm).Match(t.Context(), []uint64{1}, b.Parameters.Digits, "12345678"[:b.Parameters.Digits])
	if err != nil && hsm.unwrapped != before {
		t.Error("unwrapped, and refused")
	}
	if _, e := s.Rebind(t.Context(), hsm, b.Subject); fault.Is(err, fault.Denied) != fault.Is(e, fault.Denied) {
		t.Errorf("the HSM says %v, and a new binding %v", err, e)
	}
	return err
}

// TestMovedRow: a blob fits no other subject, device or parameters, for codes as for a new binding.
func TestMovedRow(t *testing.T) {
	hsm := &fakeHSM{key: 1}
	b := binding(oath.SHA1)
	sealed, mac, err := Seal(t.Context(), hsm, hsm, recipe, b, []byte("12345678901234567890"))
	if err != nil {
		t.Fatal(err)
	}
	blob := must(sealed.Encode())
	changes := map[string]func(b *Binding){
		"subject":  func(b *Binding) { b.Subject = must(id.ParseSubject("s_1123456789abcdef0123456789abcdef")) },
		"drawer":   func(b *Binding) { b.Subject = id.Subject{} },
		"serial":   func(b *Binding) { b.Serial = must(id.ParseSerial("FT-2")) },
		"digits":   func(b *Binding) { b.Parameters.Digits = 6 },
		"period":   func(b *Binding) { b.Parameters.Period = time.Minute },
		"by event": func(b *Binding) { b.Parameters.Kind, b.Parameters.Period = oath.Event, 0 },
	}
	for name, change := range changes {
		moved := b
		change(&moved)
		if err := ask(t, hsm, moved, blob, mac); !fault.Is(err, fault.Denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range blob {
		bad := append([]byte(nil), blob...)
		bad[i] ^= 1
		if err := ask(t, hsm, b, bad, mac); !fault.Is(err, fault.Denied) && !fault.Is(err, fault.Invalid) {
			t.Errorf("octet %d changed: %v", i, err)
		}
	}
	for _, bad := range [][]byte{nil, mac[:31], append(append([]byte(nil), mac...), 0), make([]byte, 32)} {
		if err := ask(t, hsm, b, blob, bad); !fault.Is(err, fault.Denied) && (len(bad) >= 32 || !fault.Is(err, fault.Invalid)) {
			t.Errorf("MAC of %d octets: %v", len(bad), err)
		}
	}
	moved := b
	moved.Parameters.Hash = oath.SHA256
	if err := ask(t, hsm, moved, blob, mac); !fault.Is(err, fault.Invalid) {
		t.Errorf("other hash: %v", err)
	}
}

func TestRebind(t *testing.T) {
	hsm := &fakeHSM{key: 1}
	owner := binding(oath.SHA1)
	drawer := owner
	drawer.Subject = id.Subject{}
	sealed, mac, err := Seal(t.Context(), hsm, hsm, recipe, drawer, []byte("12345678901234567890"))
	if err != nil {
		t.Fatal(err)
	}
	blob := must(sealed.Encode())
	stored, err := Read(drawer, blob, mac)
	if err != nil {
		t.Fatal(err)
	}
	again, err := stored.Rebind(t.Context(), hsm, owner.Subject)
	if err != nil {
		t.Fatal(err)
	}
	if err := ask(t, hsm, owner, blob, again); err != nil {
		t.Error(err)
	}
	if err := ask(t, hsm, owner, blob, mac); !fault.Is(err, fault.Denied) {
		t.Errorf("the old MAC: %v", err)
	}
	if _, err := (Stored{}).Rebind(t.Context(), hsm, owner.Subject); err == nil {
		t.Error("nothing was rebound")
	}
	if _, err := (Stored{}).With(hsm).Match(t.Context(), []uint64{1}, 8, "12345678"); err == nil {
		t.Error("nothing answered")
	}
	for _, digits := range []int{6, 7} {
		if _, err := stored.With(hsm).Match(t.Context(), []uint64{1}, digits, "12345678"[:digits]); !fault.Is(err, fault.Internal) {
			t.Errorf("%d digits of a device of 8: %v", digits, err)
		}
	}
}

func TestTrouble(t *testing.T) {
	good := &fakeHSM{key: 1}
	b := binding(oath.SHA1)
	sealed, mac, err := Seal(t.Context(), good, good, recipe, b, []byte("12345678901234567890"))
	if err != nil {
		t.Fatal(err)
	}
	stored, err := Read(b, must(sealed.Encode()), mac)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		err  error
		want fault.Kind
	}{
		{fault.New(fault.Unavailable, "x", nil), fault.Unavailable}, {fault.New(fault.Denied, "x", nil), fault.Internal},
		{fault.New(fault.Invalid, "x", nil), fault.Internal}, {context.Canceled, fault.Retry}, {errors.New("x"), fault.Internal},
	} {
		hsm := &fakeHSM{key: 1, err: c.err}
		secret := []byte("12345678901234567890")
		if _, _, err := Seal(t.Context(), hsm, good, recipe, b, secret); !fault.Is(err, c.want) {
			t.Errorf("wrap %v: %v", c.err, err)
		}
		if secret[0] != 0 || hsm.got[0][0] != 0 {
			t.Error("a seed was left after a failure")
		}
		if _, _, err := Seal(t.Context(), good, hsm, recipe, b, []byte("12345678901234567890")); !fault.Is(err, c.want) {
			t.Errorf("bind %v: %v", c.err, err)
		}
		if _, err := stored.Rebind(t.Context(), hsm, b.Subject); !fault.Is(err, c.want) {
			t.Errorf("rebind %v: %v", c.err, err)
		}
		want := c.want
		if fault.Is(c.err, fault.Denied) {
			want = fault.Denied // the binding does not fit: that may be told
		}
		if _, err := stored.With(hsm).Match(t.Context(), []uint64{1}, 8, "12345678"); !fault.Is(err, want) {
			t.Errorf("ask %v: %v", c.err, err)
		}
	}
	if _, err := stored.Rebind(t.Context(), &fakeHSM{key: 1, short: true}, b.Subject); !fault.Is(err, fault.Fatal) {
		t.Errorf("short MAC: %v", err)
	}
	if _, err := stored.With(&fakeHSM{key: 2}).Match(t.Context(), []uint64{1}, 8, "12345678"); !fault.Is(err, fault.Denied) {
		t.Errorf("another key: %v", err)
	}
	// Errors name the device and hold nothing of the seed.
	_, _, err = Seal(t.Context(), good, good, recipe, b, []byte("geheim"))
	if err == nil || strings.Contains(fmt.Sprint(err), "geheim") {
		t.Errorf("%v", err)
	}
}

func TestTypePerHash(t *testing.T) {
	for h, want := range map[oath.Hash][2]uint32{oath.SHA1: {0x221, 0x28}, oath.SHA256: {0x251, 0x2b}, oath.SHA512: {0x271, 0x2d}} {
		hsm := &fakeHSM{key: 1}
		r := recipe
		r.KeyType = 0
		sealed, mac, err := Seal(t.Context(), hsm, hsm, r, binding(h), bytes.Repeat([]byte{5}, 200))
		if err != nil {
			t.Fatal(err)
		}
		stored, err := Read(binding(h), must(sealed.Encode()), mac)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stored.With(hsm).Match(t.Context(), []uint64{1, 2}, 8, "12345678"); err != nil || hsm.lately[0] != want[0] || hsm.lately[1] != want[1] {
			t.Errorf("%v: %x %v", h, hsm.lately, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []Sealed{
		{Mechanism: MechanismAESKeyWrap, KeyType: KeyTypeGenericSecret, Hash: oath.SHA1, KEK: kek, Wrapped: make([]byte, 72)},
		{Mechanism: MechanismAESKeyWrap, KeyType: KeyTypeSHA512HMAC, Hash: oath.SHA512, KEK: kek, Wrapped: make([]byte, 136)},
		{Mechanism: MechanismAESGCM, KeyType: KeyTypeGenericSecret, Hash: oath.SHA1, KEK: kek, Wrapped: make([]byte, 92)},
		{Mechanism: MechanismAESCBCPad, KeyType: KeyTypeGenericSecret, Hash: oath.SHA256, KEK: kek, Wrapped: make([]byte, 96)},
		{Mechanism: MechanismAESGCM, KeyType: KeyTypeGenericSecret, Hash: oath.SHA1, KEK: kek, Wrapped: make([]byte, 92)},
	} {
		f.Add(must(s.Encode()))
	}
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{1}, MaxBlob+1))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Decode(b)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatal(err)
			}
			return
		}
		again, err := s.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x became %x, %v", b, again, err)
		}
		twice := must(Decode(again))
		if diff := cmp.Diff(s, twice, texts); diff != "" {
			t.Fatal(diff)
		}
	})
}
