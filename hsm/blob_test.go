package hsm

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"custode/internal/fault"
)

// The layout of the package comment, written out by hand.
func TestBlobLayout(t *testing.T) {
	b := Blob{Key: mustLabel(t, "ab"), IV: [12]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, Wrapped: bytes.Repeat([]byte{0xee}, 17)}
	got, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	want := "01" + "01" + "02" + "6162" + "0102030405060708090a0b0c" + strings.Repeat("ee", 17)
	if hex.EncodeToString(got) != want {
		t.Errorf("%x, want %s", got, want)
	}
	if aad := b.AAD([]byte("z")); hex.EncodeToString(aad) != "01010261627a" {
		t.Errorf("additional data %x", aad)
	}
	back, err := DecodeBlob(got)
	if err != nil || back.Key != b.Key || back.IV != b.IV || !bytes.Equal(back.Wrapped, b.Wrapped) {
		t.Errorf("%+v %v", back, err)
	}
}

func TestBlobRefuses(t *testing.T) {
	good, err := (Blob{Key: mustLabel(t, "custode/wrap/1"), Wrapped: make([]byte, 40)}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	change := func(i int, v byte) []byte { b := slices.Clone(good); b[i] = v; return b }
	for name, b := range map[string][]byte{
		"nil": nil, "version": change(0, 2), "algorithm": change(1, 2), "label length": change(2, 200), "short label": change(2, 1),
		"label": change(3, 'C'), "no tag": good[:3+14+12+15], "long": append(slices.Clone(good), make([]byte, MaxPlaintext)...),
		"longer than any": make([]byte, MaxBlob+1),
	} {
		if _, err := DecodeBlob(b); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, want invalid", name, err)
		}
	}
	for name, b := range map[string]Blob{
		"no label": {Wrapped: make([]byte, 16)}, "no tag": {Key: mustLabel(t, "ab")}, "too long": {Key: mustLabel(t, "ab"), Wrapped: make([]byte, TagLen+MaxPlaintext+1)},
	} {
		if _, err := b.Encode(); !fault.Is(err, fault.Invalid) {
			t.Errorf("encode %s: %v, want invalid", name, err)
		}
	}
	longest, err := (Blob{Key: mustLabel(t, strings.Repeat("a", 64)), Wrapped: make([]byte, TagLen+MaxPlaintext)}).Encode()
	if err != nil || len(longest) != MaxBlob {
		t.Errorf("longest blob: %d octets, %v; want %d", len(longest), err, MaxBlob)
	}
}

func FuzzDecodeBlob(f *testing.F) {
	for _, label := range []string{"ab", "custode/wrap/2026-1"} {
		b := []byte{1, 1, byte(len(label))}
		f.Add(append(append(b, label...), make([]byte, 30)...))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		b, err := DecodeBlob(in)
		if err != nil {
			return
		}
		out, err := b.Encode()
		if err != nil || !bytes.Equal(in, out) {
			t.Errorf("%x encodes to %x, %v", in, out, err)
		}
	})
}

func TestRulesAreComplete(t *testing.T) {
	// Whatever the role, these are not for discussion.
	fixed := map[Attribute]bool{
		AttrToken: true, AttrPrivate: true, AttrSensitive: true, AttrExtractable: false,
		AttrLocal: true, AttrAlwaysSensitive: true, AttrNeverExtractable: true,
		AttrDerive: false,
	}
	// What a role may do; every other usage flag must be ruled out by name,
	// or crypto11's default would decide it.
	may := map[Role][]Attribute{
		RoleSign: {AttrSign}, RoleMAC: {AttrSign, AttrVerify}, RoleWrap: {AttrEncrypt, AttrDecrypt}, RoleSeed: {AttrWrap, AttrUnwrap},
	}
	named := map[Role][]Attribute{
		RoleSign: {AttrSign, AttrDecrypt, AttrUnwrap, AttrDerive, AttrSignRecover},
		RoleMAC:  {AttrSign, AttrVerify, AttrEncrypt, AttrDecrypt, AttrWrap, AttrUnwrap, AttrDerive},
		RoleWrap: {AttrSign, AttrVerify, AttrEncrypt, AttrDecrypt, AttrWrap, AttrUnwrap, AttrDerive},
		RoleSeed: {AttrSign, AttrVerify, AttrEncrypt, AttrDecrypt, AttrWrap, AttrUnwrap, AttrDerive},
	}
	for role, allowed := range may {
		got := map[Attribute]Rule{}
		for _, r := range Rules(role) {
			if _, twice := got[r.Attribute]; twice {
				t.Errorf("%v: %v is ruled twice", role, r.Attribute)
			}
			got[r.Attribute] = r
			if want, ok := fixed[r.Attribute]; ok && r.Want != want {
				t.Errorf("%v: %v is %v", role, r.Attribute, r.Want)
			}
			if r.Absent && r.Want {
				t.Errorf("%v: a token without %v would comply", role, r.Attribute)
			}
		}
		for _, a := range []Attribute{AttrToken, AttrPrivate, AttrSensitive, AttrExtractable, AttrLocal, AttrAlwaysSensitive, AttrNeverExtractable} {
			if _, ok := got[a]; !ok {
				t.Errorf("%v: no rule for %v", role, a)
			}
		}
		for _, a := range named[role] {
			if r, ok := got[a]; !ok || r.Want != slices.Contains(allowed, a) || !r.Set {
				t.Errorf("%v: rule for %v is %+v", role, a, r)
			}
		}
	}
	if Rules(0) != nil {
		t.Error("no role has rules")
	}
	for a := AttrToken; a <= AttrNeverExtractable; a++ {
		if !strings.HasPrefix(a.String(), "CKA_") {
			t.Errorf("attribute %d has no name", a)
		}
	}
}

func TestKeyID(t *testing.T) {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(spki)
	if got, err := KeyID(&k.PublicKey); err != nil || !bytes.Equal(got, sum[:20]) {
		t.Errorf("%x %v", got, err)
	}
	if _, err := KeyID("no key"); !fault.Is(err, fault.Invalid) {
		t.Errorf("%v, want invalid", err)
	}
}
