package veil

import (
	"bytes"
	"encoding/hex"
	"testing"

	"custode/internal/fault"
)

func ring(t testing.TB, keys map[uint8]byte) *Ring {
	t.Helper()
	all := map[uint8][]byte{}
	for n, b := range keys {
		all[n] = bytes.Repeat([]byte{b}, KeySize)
	}
	r, err := NewRing(all)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestXAES compares with the two examples of the specification (c2sp.org/XAES-256-GCM, test vectors).
func TestXAES(t *testing.T) {
	nonce, plain := []byte("ABCDEFGHIJKLMNOPQRSTUVWX"), []byte("XAES-256-GCM")
	for _, c := range []struct {
		key       byte
		aad, want string
	}{
		{0x01, "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"},
		{0x03, "c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"},
	} {
		d, err := newDeriver(bytes.Repeat([]byte{c.key}, KeySize))
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(d.aead(nonce[:12]).Seal(nil, nonce[12:], plain, []byte(c.aad))); got != c.want {
			t.Errorf("key %#x: %s, want %s", c.key, got, c.want)
		}
	}
}

func TestBox(t *testing.T) {
	r := ring(t, map[uint8]byte{1: 7})
	for _, plain := range []string{"", "Ada", string(bytes.Repeat([]byte("x"), 5000))} {
		box, again := r.Hide("t.c", "row", []byte(plain)), r.Hide("t.c", "row", []byte(plain))
		if len(box) != len(plain)+Overhead || bytes.Equal(box, again) || plain != "" && bytes.Contains(box, []byte(plain)) {
			t.Errorf("%d octets: %x, %x", len(plain), box, again)
		}
		back, err := r.Show("t.c", "row", box)
		if err != nil || string(back) != plain {
			t.Errorf("%q, %v", back, err)
		}
		for name, open := range map[string]func() ([]byte, error){
			"another column": func() ([]byte, error) { return r.Show("t.d", "row", box) },
			"another row":    func() ([]byte, error) { return r.Show("t.c", "rov", box) },
			"moved border":   func() ([]byte, error) { return r.Show("t.c\x00r", "ow", box) },
			"another key":    func() ([]byte, error) { return ring(t, map[uint8]byte{1: 8}).Show("t.c", "row", box) },
			"no such key":    func() ([]byte, error) { return ring(t, map[uint8]byte{2: 7}).Show("t.c", "row", box) },
			"renamed key": func() ([]byte, error) {
				renamed := append([]byte{2}, box[1:]...)
				return ring(t, map[uint8]byte{1: 7, 2: 7}).Show("t.c", "row", renamed)
			},
			"cut": func() ([]byte, error) { return r.Show("t.c", "row", box[:Overhead-1]) },
		} {
			if got, err := open(); !fault.Is(err, fault.Internal) {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
		for i := range min(len(box), 64) {
			box[i] ^= 0x40
			if got, err := r.Show("t.c", "row", box); !fault.Is(err, fault.Internal) {
				t.Errorf("octet %d changed: %q, %v", i, got, err)
			}
			box[i] ^= 0x40
		}
	}
}

// TestFurtherKey: what an earlier key hid is still shown, and names stay.
func TestFurtherKey(t *testing.T) {
	old, both := ring(t, map[uint8]byte{1: 7}), ring(t, map[uint8]byte{1: 7, 2: 9})
	box := old.Hide("t.c", "row", []byte("Ada"))
	if back, err := both.Show("t.c", "row", box); err != nil || string(back) != "Ada" {
		t.Errorf("%q, %v", back, err)
	}
	if box := both.Hide("t.c", "row", nil); box[0] != 2 {
		t.Errorf("hidden with key %d", box[0])
	}
	if !bytes.Equal(old.Blind("t.c", []byte("x")), both.Blind("t.c", []byte("x"))) {
		t.Error("another name")
	}
}

func TestBlind(t *testing.T) {
	r := ring(t, map[uint8]byte{1: 7})
	seen := map[string]string{}
	for _, c := range []struct {
		column Column
		value  string
		by     *Ring
	}{{"t.c", "x", r}, {"t.d", "x", r}, {"t.c", "y", r}, {"t.c", "", r}, {"t.c", "x", ring(t, map[uint8]byte{1: 8})}} {
		name := string(c.by.Blind(c.column, []byte(c.value)))
		if len(name) != 32 || seen[name] != "" {
			t.Errorf("%v: %x, as %s", c, name, seen[name])
		}
		seen[name] = string(c.column) + c.value
	}
	if !bytes.Equal(r.Blind("t.c", []byte("x")), r.Blind("t.c", []byte("x"))) {
		t.Error("two names of one value")
	}
}

func TestNewRingRefuses(t *testing.T) {
	for name, keys := range map[string]map[uint8][]byte{
		"none": {}, "number 0": {0: make([]byte, KeySize)}, "short": {1: make([]byte, 16)}, "one short": {1: make([]byte, KeySize), 2: nil},
	} {
		if _, err := NewRing(keys); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzShow(f *testing.F) {
	r := ring(f, map[uint8]byte{1: 7})
	good := r.Hide("t.c", "row", []byte("Ada"))
	f.Add(good)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, box []byte) {
		if plain, err := r.Show("t.c", "row", box); err == nil && !bytes.Equal(box, good) {
			t.Errorf("forged: %q", plain)
		}
	})
}

func BenchmarkBox1K(b *testing.B) {
	r := ring(b, map[uint8]byte{1: 7})
	plain := make([]byte, 1024)
	for b.Loop() {
		if _, err := r.Show("t.c", "row", r.Hide("t.c", "row", plain)); err != nil {
			b.Fatal(err)
		}
	}
}
