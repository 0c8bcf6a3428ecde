package tsa_test

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"custode/internal/certlog/tsa"
	"custode/internal/fault"
	"custode/simulators/tsasim"
)

func start(t *testing.T) *tsasim.TSA {
	t.Helper()
	s, err := tsasim.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func pool(certs ...*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}

func client(s ...*tsasim.TSA) *tsa.Client {
	c := &tsa.Client{Roots: x509.NewCertPool(), HTTP: &http.Client{Timeout: 2 * time.Second}, Skew: time.Minute, Now: time.Now}
	for _, one := range s {
		c.Services = append(c.Services, tsa.Service{URL: one.URL, Policy: tsasim.Policy})
		c.Roots.AddCert(one.Root)
	}
	return c
}

func TestStampIsGoodForOpenSSL(t *testing.T) {
	s := start(t)
	data := []byte("a signature value")
	token, err := client(s).Stamp(t.Context(), sha256.Sum256(data))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, octets := range map[string][]byte{"token": token, "data": data, "root.pem": s.RootPEM()} {
		if err := os.WriteFile(filepath.Join(dir, name), octets, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("openssl", "ts", "-verify", "-token_in", "-in", "token", "-data", "data", "-CAfile", "root.pem")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "Verification: OK") {
		t.Fatalf("openssl ts (Debian package openssl): %v\n%s", err, out)
	}
}

// TestTokenOfOpenSSL: a token by an independent authority is accepted.
func TestTokenOfOpenSSL(t *testing.T) {
	dir := t.TempDir()
	conf := `
[req]
distinguished_name=dn
[dn]
[root]
basicConstraints=critical,CA:true
[tsa]
extendedKeyUsage=critical,timeStamping
[ts]
default_tsa=t
[t]
serial=serial
crypto_device=builtin
signer_digest=sha256
default_policy=1.2.3.4
digests=sha256
ess_cert_id_alg=sha384
`
	if err := os.WriteFile(filepath.Join(dir, "c"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"req -x509 -newkey rsa:2048 -nodes -keyout root.key -out root.pem -subj /CN=root -config c -extensions root -days 2",
		"req -newkey rsa:2048 -nodes -keyout tsa.key -out tsa.csr -subj /CN=tsa -config c",
		"x509 -req -in tsa.csr -CA root.pem -CAkey root.key -CAcreateserial -out tsa.pem -days 1 -extfile c -extensions tsa",
		"ts -query -data c -sha256 -cert -out q",
		"ts -reply -config c -section t -queryfile q -signer tsa.pem -inkey tsa.key -token_out -out token",
	} {
		cmd := exec.Command("openssl", strings.Fields(line)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("openssl %s (Debian package openssl): %v\n%s", line, err, out)
		}
	}
	token, err := os.ReadFile(filepath.Join(dir, "token"))
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(filepath.Join(dir, "root.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	got, err := tsa.Verify(token, sha256.Sum256([]byte(conf)), roots)
	if err != nil || time.Since(got.Time).Abs() > time.Minute || got.Policy.String() != "1.2.3.4" {
		t.Fatalf("got %+v, %v", got, err)
	}
	if _, err := tsa.Verify(token, sha256.Sum256([]byte("else")), roots); !fault.Is(err, fault.Invalid) {
		t.Errorf("a token over something else: %v", err)
	}
}

func TestMisbehaviour(t *testing.T) {
	s := start(t)
	c := client(s)
	c.HTTP.Timeout = 300 * time.Millisecond
	for f, want := range map[tsasim.Fault]string{
		tsasim.Down: "HTTP 503", tsasim.Silent: "Timeout", tsasim.Garbage: "DER", tsasim.Endless: "longer than", tsasim.Rejects: "rejected",
		tsasim.OtherNonce: "nonce", tsasim.OtherImprint: "over something else", tsasim.OtherPolicy: "policy 2.999.9",
		tsasim.OtherRoot: "unknown authority", tsasim.WrongUse: "not one for time-stamping", tsasim.Expired: "validity", tsasim.WrongClock: "clock",
	} {
		s.Misbehave(f)
		_, err := c.Stamp(t.Context(), [32]byte{1})
		if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), want) {
			t.Errorf("fault %d: got %v, want something about %q", f, err, want)
		}
	}
	s.Misbehave(tsasim.Honest)
	if _, err := c.Stamp(t.Context(), [32]byte{1}); err != nil {
		t.Errorf("honest again: %v", err)
	}
}

func TestFailover(t *testing.T) {
	a, b := start(t), start(t)
	c := client(a, b)
	a.Misbehave(tsasim.Down)
	for range 3 {
		if _, err := c.Stamp(t.Context(), [32]byte{2}); err != nil {
			t.Fatal(err)
		}
	}
	if a.Served() != 0 || b.Served() != 3 {
		t.Errorf("served %d and %d", a.Served(), b.Served())
	}
	a.Misbehave(tsasim.Honest)
	b.Misbehave(tsasim.Down)
	if _, err := c.Stamp(t.Context(), [32]byte{2}); err != nil || a.Served() != 1 {
		t.Errorf("back to the first: %v, served %d", err, a.Served())
	}
	a.Misbehave(tsasim.Down)
	if _, err := c.Stamp(context.Background(), [32]byte{2}); err == nil || !strings.Contains(err.Error(), a.URL) || !strings.Contains(err.Error(), b.URL) {
		t.Errorf("both are down: %v", err)
	}
}

func TestForgedToken(t *testing.T) {
	s := start(t)
	token, err := client(s).Stamp(t.Context(), [32]byte{3})
	if err != nil {
		t.Fatal(err)
	}
	good, err := tsa.Verify(token, [32]byte{3}, pool(s.Root))
	if err != nil {
		t.Fatal(err)
	}
	for i := range token {
		bad := append([]byte(nil), token...)
		bad[i] ^= 1
		if got, err := tsa.Verify(bad, [32]byte{3}, pool(s.Root)); err == nil {
			// Octets that no signature covers (the encoding of unused fields)
			// may change, what the token says may not.
			if !got.Time.Equal(good.Time) || !got.Policy.Equal(good.Policy) || !got.Certificate.Equal(good.Certificate) {
				t.Errorf("flipping octet %d changed what the token says", i)
			}
		}
	}
}

func FuzzVerify(f *testing.F) {
	s, err := tsasim.Start()
	if err != nil {
		f.Fatal(err)
	}
	defer s.Close()
	c := client(s)
	for i := range byte(3) {
		token, err := c.Stamp(context.Background(), [32]byte{i})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(token)
	}
	f.Fuzz(func(t *testing.T, token []byte) {
		if _, err := tsa.Verify(token, [32]byte{255}, pool(s.Root)); err == nil {
			t.Error("a token over something that was never stamped")
		}
	})
}
