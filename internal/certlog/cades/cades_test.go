package cades_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"custode/internal/certlog/cades"
	"custode/internal/certlog/tsa"
	"custode/internal/fault"
	"custode/simulators/tsasim"
)

type signer struct {
	key  *rsa.PrivateKey
	cert *x509.Certificate
}

func newSigner(t testing.TB, name string, from time.Time) signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(from.UnixNano()), Subject: pkix.Name{CommonName: name, Country: []string{"IT"}},
		NotBefore: from, NotAfter: from.AddDate(3, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment,
	}
	raw, err := x509.CreateCertificate(rand.Reader, tpl, tpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return signer{key, cert}
}

func TestSealPassesOpenSSL(t *testing.T) {
	who := newSigner(t, "log seal", time.Now().Add(-time.Hour))
	payload := []byte(`{"checkpoint":1}`)
	sealed, err := cades.Sign(payload, who.key, who.cert)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := tsasim.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer authority.Close()
	roots := x509.NewCertPool()
	roots.AddCert(authority.Root)
	c := tsa.Client{Services: []tsa.Service{{URL: authority.URL}}, Roots: roots, HTTP: http.DefaultClient, Skew: time.Minute, Now: time.Now}
	s, err := cades.Open(sealed, who.cert)
	if err != nil || s.Token != nil {
		t.Fatalf("open: %+v, %v", s, err)
	}
	token, err := c.Stamp(t.Context(), sha256.Sum256(s.Signature))
	if err != nil {
		t.Fatal(err)
	}
	stamped, err := cades.Attach(sealed, token)
	if err != nil {
		t.Fatal(err)
	}
	for name, octets := range map[string][]byte{"B-B": sealed, "B-T": stamped} {
		got, err := cades.Open(octets, who.cert)
		if err != nil || !bytes.Equal(got.Payload, payload) || time.Since(got.SignedAt).Abs() > time.Minute {
			t.Fatalf("%s: %+v, %v", name, got, err)
		}
		dir := t.TempDir()
		write := func(file string, octets []byte) {
			if err := os.WriteFile(filepath.Join(dir, file), octets, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("sealed", octets)
		write("cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: who.cert.Raw}))
		write("root.pem", authority.RootPEM())
		write("token", got.Token)
		write("signature", got.Signature)
		verify := strings.Fields("cms -verify -cades -binary -inform DER -in sealed -CAfile cert.pem -purpose any -out payload")
		run(t, dir, verify...)
		if out, err := os.ReadFile(filepath.Join(dir, "payload")); err != nil || !bytes.Equal(out, payload) {
			t.Errorf("%s: openssl read %q, %v", name, out, err)
		}
		if name == "B-T" {
			run(t, dir, strings.Fields("ts -verify -token_in -in token -data signature -CAfile root.pem")...)
			if out := run(t, dir, strings.Fields("cms -cmsout -print -inform DER -in sealed")...); !strings.Contains(out, "id-smime-aa-timeStampToken") || !strings.Contains(out, "signingCertificateV2") {
				t.Errorf("attributes are missing:\n%s", out)
			}
		}
	}
	if _, err := cades.Attach(stamped, token); !fault.Is(err, fault.Invalid) {
		t.Errorf("a second time-stamp: %v", err)
	}
}

func run(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %s (Debian package openssl): %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestOpenRefuses(t *testing.T) {
	now := time.Now()
	who, other := newSigner(t, "log seal", now.Add(-time.Hour)), newSigner(t, "log seal", now.Add(-time.Hour))
	over := newSigner(t, "log seal", now.AddDate(-4, 0, 0))
	sign := func(s signer, key *rsa.PrivateKey) []byte {
		b, err := cades.Sign([]byte("payload"), key, s.cert)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := sign(who, who.key)
	for name, c := range map[string]struct {
		sealed []byte
		pinned []*x509.Certificate
		want   string
	}{
		"nobody pinned":      {good, nil, "not a trusted seal"},
		"another signer":     {sign(other, other.key), []*x509.Certificate{who.cert}, "not a trusted seal"},
		"another key":        {sign(who, other.key), []*x509.Certificate{who.cert}, "verification error"},
		"certificate over":   {sign(over, over.key), []*x509.Certificate{over.cert}, "outside of certificate validity"},
		"changed payload":    {bytes.Replace(good, []byte("payload"), []byte("Payload"), 1), []*x509.Certificate{who.cert}, "digest"},
		"cut":                {good[:len(good)-1], []*x509.Certificate{who.cert}, ""},
		"empty":              {nil, []*x509.Certificate{who.cert}, ""},
		"longer than a seal": {make([]byte, cades.MaxSealed+1), []*x509.Certificate{who.cert}, "longer"},
	} {
		if _, err := cades.Open(c.sealed, c.pinned...); !fault.Is(err, fault.Invalid) || !strings.Contains(strings.ToLower(err.Error()), c.want) {
			t.Errorf("%s: %v, want something about %q", name, err, c.want)
		}
	}
	if got, err := cades.Open(good, other.cert, who.cert); err != nil || got.Certificate != who.cert {
		t.Errorf("one of two pinned: %v", err)
	}
	// No single flipped bit lets other octets pass as payload.
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		if got, err := cades.Open(bad, who.cert); err == nil && string(got.Payload) != "payload" {
			t.Errorf("octet %d flipped: payload %q", i, got.Payload)
		}
	}
}

func FuzzOpen(f *testing.F) {
	who := newSigner(f, "log seal", time.Now().Add(-time.Hour))
	good, err := cades.Sign([]byte("payload"), who.key, who.cert)
	if err != nil {
		f.Fatal(err)
	}
	stamped, err := cades.Attach(good, []byte{0x30, 0})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(stamped)
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := cades.Open(b, who.cert); err == nil && string(s.Payload) != "payload" {
			t.Errorf("forged %q", s.Payload)
		}
		if out, err := cades.Attach(b, []byte{0x30, 0}); err == nil && len(out) < len(b) {
			t.Error("attaching made it shorter")
		}
	})
}
