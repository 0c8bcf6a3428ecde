package shamir

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"testing"

	"custode/internal/fault"
)

// TestField compares with the examples of FIPS 197, section 4.2, and with the laws
// of a field.
func TestField(t *testing.T) {
	for _, c := range [][3]byte{{0x57, 0x83, 0xc1}, {0x57, 0x13, 0xfe}, {0x57, 0x02, 0xae}, {0x57, 0x10, 0x07}} {
		if got := mul(c[0], c[1]); got != c[2] {
			t.Errorf("%x * %x = %x, want %x", c[0], c[1], got, c[2])
		}
	}
	for a := range 256 {
		if a > 0 && mul(byte(a), inverse(byte(a))) != 1 {
			t.Errorf("inverse of %x is wrong", a)
		}
		for b := range 256 {
			if mul(byte(a), byte(b)) != mul(byte(b), byte(a)) {
				t.Fatalf("%x * %x does not commute", a, b)
			}
		}
	}
}

// TestVector was computed by hand from the polynomial 0x42 + 0x57 x.
func TestVector(t *testing.T) {
	shares, err := Split([]byte{0x42}, 3, 2, bytes.NewReader([]byte{0x57}))
	if err != nil {
		t.Fatal(err)
	}
	// 0x42^0x57, 0x42^0xae, 0x42^0xae^0x57
	for i, want := range []string{"15", "ec", "bb"} {
		if got := hex.EncodeToString(shares[i].Y); got != want {
			t.Errorf("share %d is %s, want %s", i+1, got, want)
		}
	}
}

// TestEverySubset: all sets of m shares give the secret, all smaller ones and
// altered ones another.
func TestEverySubset(t *testing.T) {
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		t.Fatal(err)
	}
	for n := 2; n <= 6; n++ {
		for m := 2; m <= n; m++ {
			shares, err := Split(secret, n, m, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			for set := range 1 << n {
				var some []Share
				for i, s := range shares {
					if set>>i&1 == 1 {
						some = append(some, s)
					}
				}
				got, err := Combine(some)
				if len(some) < 2 {
					if !fault.Is(err, fault.Invalid) {
						t.Errorf("%d shares: %v", len(some), err)
					}
					continue
				}
				if err != nil || bytes.Equal(got, secret) != (len(some) >= m) {
					t.Errorf("%d of %d with %d needed: %v", len(some), n, m, err)
				}
			}
		}
	}
}

// TestOneShareTellsNothing: for every value of the secret there is a polynomial
// that gives the same share.
func TestOneShareTellsNothing(t *testing.T) {
	seen := map[byte]bool{}
	for c := range 256 {
		shares, err := Split([]byte{7}, 2, 2, bytes.NewReader([]byte{byte(c)}))
		if err != nil {
			t.Fatal(err)
		}
		seen[shares[1].Y[0]] = true
	}
	if len(seen) != 256 {
		t.Errorf("a share takes %d values, want all", len(seen))
	}
}

func TestRefuses(t *testing.T) {
	for _, c := range [][2]int{{1, 1}, {3, 1}, {2, 3}, {256, 2}} {
		if _, err := Split([]byte("s"), c[0], c[1], rand.Reader); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", c, err)
		}
	}
	if _, err := Split(nil, 3, 2, rand.Reader); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
	if _, err := Split([]byte("s"), 3, 2, bytes.NewReader(nil)); !fault.Is(err, fault.Unavailable) {
		t.Error(err)
	}
	for name, shares := range map[string][]Share{
		"twice":   {{1, []byte{1}}, {1, []byte{1}}},
		"zero":    {{0, []byte{1}}, {1, []byte{1}}},
		"lengths": {{1, []byte{1}}, {2, []byte{1, 2}}},
		"empty":   {{1, nil}, {2, nil}},
	} {
		if _, err := Combine(shares); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
