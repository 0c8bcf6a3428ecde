package seed

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"sync"
	"testing"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/otpvault/oath"
)

var recovery = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 3072)) })

func certificate(public, private any, usage x509.KeyUsage) *x509.Certificate {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "recovery"}, KeyUsage: usage,
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1, 0), // long over
	}
	return must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, template, template, public, private))))
}

func device(serial string, hash oath.Hash) Binding {
	return Binding{Serial: must(id.ParseSerial(serial)), Parameters: oath.Parameters{Kind: oath.Time, Hash: hash, Digits: 6, Period: 30 * time.Second}}
}

func TestEscrow(t *testing.T) {
	key := recovery()
	to := certificate(&key.PublicKey, key, x509.KeyUsageKeyEncipherment)
	for _, hash := range []oath.Hash{oath.SHA1, oath.SHA256, oath.SHA512} {
		b := device("AB1234", hash)
		for _, n := range []int{10, 20, 64, 128, 129, 256} {
			secret := bytes.Repeat([]byte{byte(n), 9}, n)[:n]
			before := bytes.Clone(secret)
			copied, err := Escrow(rand.Reader, to, b, secret)
			if err != nil || !bytes.Equal(secret, before) || bytes.Contains(copied, secret) {
				t.Fatal(n, err)
			}
			owned := b // in somebody's hands by then
			owned.Subject = must(id.NewSubject(rand.Reader))
			got, err := OpenEscrow(key, to, owned, copied)
			if err != nil || !bytes.Equal(got, must(Pad(secret, hash))) {
				t.Errorf("%v, %d octets: %v", hash, n, err)
			}
			// What comes back is what Seal takes.
			if again := must(Pad(got, hash)); !bytes.Equal(again, got) {
				t.Errorf("%v, %d octets: padded twice, it is another", hash, n)
			}
		}
	}
}

func TestEscrowRefuses(t *testing.T) {
	key := recovery()
	to := certificate(&key.PublicKey, key, 0)
	b := device("AB1234", oath.SHA1)
	good, err := Escrow(rand.Reader, to, b, bytes.Repeat([]byte{7}, 20))
	if err != nil {
		t.Fatal(err)
	}
	if again := must(Escrow(rand.Reader, to, b, bytes.Repeat([]byte{7}, 20))); bytes.Equal(again, good) {
		t.Error("two copies of one seed are equal")
	}
	other := must(rsa.GenerateKey(rand.Reader, 3072))
	change := func(f func(*Binding)) Binding { c := b; f(&c); return c }
	damaged := bytes.Clone(good)
	damaged[len(damaged)-1] ^= 1
	for name, c := range map[string]struct {
		key  *rsa.PrivateKey
		to   *x509.Certificate
		b    Binding
		in   []byte
		kind fault.Kind
	}{
		"nothing":       {key, to, b, nil, fault.Invalid},
		"cut":           {key, to, b, good[:len(good)-1], fault.Invalid},
		"long":          {key, to, b, append(bytes.Clone(good), make([]byte, 1024)...), fault.Invalid},
		"version":       {key, to, b, append([]byte{2}, good[1:]...), fault.Invalid},
		"another key":   {other, certificate(&other.PublicKey, other, 0), b, good, fault.Conflict},
		"wrong private": {other, to, b, good, fault.Denied},
		"damaged":       {key, to, b, damaged, fault.Denied},
		"serial":        {key, to, device("AB1235", oath.SHA1), good, fault.Denied},
		"hash":          {key, to, device("AB1234", oath.SHA256), good, fault.Denied},
		"digits":        {key, to, change(func(b *Binding) { b.Parameters.Digits = 8 }), good, fault.Denied},
		"period":        {key, to, change(func(b *Binding) { b.Parameters.Period = time.Minute }), good, fault.Denied},
		"no serial":     {key, to, change(func(b *Binding) { b.Serial = id.Serial{} }), good, fault.Invalid},
	} {
		if got, err := OpenEscrow(c.key, c.to, c.b, c.in); !fault.Is(err, c.kind) || got != nil {
			t.Errorf("%s: %v, want %v", name, err, c.kind)
		}
	}
	small := must(rsa.GenerateKey(rand.Reader, 2048))
	curve := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	for name, bad := range map[string]*x509.Certificate{
		"small": certificate(&small.PublicKey, small, 0), "curve": certificate(&curve.PublicKey, curve, 0),
		"for signing": certificate(&key.PublicKey, key, x509.KeyUsageDigitalSignature),
	} {
		if _, err := Escrow(rand.Reader, bad, b, make([]byte, 20)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, want invalid", name, err)
		}
	}
	if _, err := Escrow(rand.Reader, to, b, make([]byte, MinSeed-1)); !fault.Is(err, fault.Invalid) {
		t.Errorf("a short seed: %v", err)
	}
	if _, err := Escrow(rand.Reader, to, Binding{}, make([]byte, 20)); !fault.Is(err, fault.Invalid) {
		t.Errorf("no device: %v", err)
	}
}

// Design (c): the seed is no object, so its blob has no key type of its own.
func TestDecryptedBlob(t *testing.T) {
	s := Sealed{Mechanism: MechanismAESGCM, KeyType: KeyTypeGenericSecret, Hash: oath.SHA512, KEK: kek, Wrapped: make([]byte, 12+128+16)}
	if _, err := s.Encode(); err != nil {
		t.Error(err)
	}
	own, short := s, s
	own.KeyType, short.Wrapped = KeyTypeSHA512HMAC, s.Wrapped[1:]
	for _, bad := range []Sealed{own, short} {
		if _, err := bad.Encode(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	h := &fakeHSM{}
	_, _, err := Seal(t.Context(), h, h, Recipe{KEK: kek, Mechanism: MechanismAESGCM}, device("AB1234", oath.SHA1), bytes.Repeat([]byte{7}, 20))
	if len(h.lately) != 2 || h.lately[0] != MechanismAESGCM || h.lately[1] != KeyTypeGenericSecret {
		t.Errorf("%x, %v", h.lately, err)
	}
}
