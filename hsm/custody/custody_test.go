package custody

import (
	"bytes"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"custode/internal/fault"
	"custode/internal/id"
)

const backupID = "00112233445566778899aabbccddeeff"

func sample(t *testing.T) (Backup, *Secret, []Share) {
	t.Helper()
	label, err := id.ParseKeyLabel("custode/pepper/2026-1")
	if err != nil {
		t.Fatal(err)
	}
	var s Secret
	if _, err := rand.Read(s[:]); err != nil {
		t.Fatal(err)
	}
	b := Backup{Format: 1, ID: backupID, Ceremony: "prova", Made: time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC), Holders: 3, Threshold: 2,
		Keys: []Key{{Label: label, Role: "mac", Bits: 256, ID: make([]byte, 20), Mechanism: 0x2109, Wrapped: make([]byte, 40)}}}
	shares, err := Split(&s, b.ID, []string{"anna", "bruno", "carla"}, 2, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return b, &s, shares
}

// TestQuorum: any two of three shares open the backup, one does not, nor do those
// of another backup; and a share read back from its file is the share.
func TestQuorum(t *testing.T) {
	b, s, shares := sample(t)
	file, err := b.Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	_, _, others := sample(t)
	for i := range shares {
		if shares[i], err = ParseShare(shares[i].Encode()); err != nil {
			t.Fatal(err)
		}
	}
	for _, pair := range [][]Share{{shares[0], shares[1]}, {shares[2], shares[0]}, {shares[1], shares[2]}, shares} {
		got, err := Combine(pair)
		if err != nil {
			t.Fatal(err)
		}
		back, err := Open(file, got)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(b, back, cmp.Comparer(func(a, b id.KeyLabel) bool { return a == b })); d != "" {
			t.Error(d)
		}
	}
	for _, few := range [][]Share{nil, shares[:1]} {
		if _, err := Combine(few); !fault.Is(err, fault.Denied) {
			t.Errorf("%d shares: %v", len(few), err)
		}
	}
	// One share cannot be passed off as two, and lowering the number it names does not help.
	if _, err := Combine([]Share{shares[0], shares[0]}); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
	lied := shares[0]
	lied.Needed = 1
	if _, err := Combine([]Share{lied}); err == nil {
		t.Error("one share gave a secret")
	}
	mixed, err := Combine([]Share{shares[0], others[1]})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file, mixed); !fault.Is(err, fault.Denied) {
		t.Errorf("shares of two secrets: %v", err)
	}
}

// TestDamage: no octet of either file can be changed unnoticed.
func TestDamage(t *testing.T) {
	b, s, shares := sample(t)
	file, err := b.Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	for i := range file {
		bad := bytes.Clone(file)
		bad[i] ^= 1
		if _, err := Open(bad, s); err == nil {
			t.Errorf("octet %d of the backup", i)
		}
	}
	share := shares[0].Encode()
	for i := range share {
		bad := bytes.Clone(share)
		bad[i] ^= 1
		if got, err := ParseShare(bad); err == nil {
			t.Errorf("octet %d of the share: %+v", i, got)
		}
	}
}

// TestNothingInClear: the file holds neither the secret nor what it derives.
func TestNothingInClear(t *testing.T) {
	b, s, _ := sample(t)
	file, err := b.Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range [][]byte{s[:], s.TransportKey(), s.derive("authenticate")} {
		if bytes.Contains(file, secret) || strings.Contains(string(file), string(secret)) {
			t.Error("a secret is in the file")
		}
	}
	s.Clear()
	if *s != (Secret{}) {
		t.Error("not cleared")
	}
}

func FuzzPeek(f *testing.F) {
	f.Add([]byte("custode backup 1 " + strings.Repeat("0", 64) + "\n{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if b, err := Peek(data); err == nil && (b.Threshold < 2 || len(b.Keys) == 0) {
			t.Error("accepted")
		}
	})
}

func FuzzParseShare(f *testing.F) {
	f.Add(Share{Backup: backupID, Number: 1, Of: 3, Needed: 2, Custodian: "anna"}.Encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseShare(data)
		if err == nil && !bytes.Equal(s.Encode(), data) {
			t.Errorf("%q is another share than it says", data)
		}
	})
}
