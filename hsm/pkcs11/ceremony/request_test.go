package ceremony_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"custode/hsm/pkcs11"
	"custode/hsm/pkcs11/ceremony"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/simulators/hsmsim"
)

func label(t *testing.T, s string) id.KeyLabel {
	t.Helper()
	l, err := id.ParseKeyLabel(s)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// keys returns a token in which plan was held, and makes this process see it.
func keys(t *testing.T, text string) (*hsmsim.Sim, ceremony.Access) {
	t.Helper()
	sim := newSim(t)
	if kind, message := hold(t, sim, text, t.TempDir()); message != "" {
		t.Fatal(kind, message)
	}
	t.Setenv("SOFTHSM2_CONF", sim.Conf)
	return sim, ceremony.Access{URI: sim.URI()}
}

func openssl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("openssl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %v (Debian package openssl): %v: %s", args, err, out)
	}
	return string(out)
}

// TestRequestAndImport: openssl accepts the request, issues a certificate for it,
// and the token then serves that certificate; what is not for the key or not from
// a trusted authority is refused.
func TestRequestAndImport(t *testing.T) {
	_, a := keys(t, plan)
	ctx, dir, sign := t.Context(), t.TempDir(), label(t, "custode/sign/2026-1")
	der, err := ceremony.Request(ctx, a, sign)
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, kind string, der []byte) {
		if err := os.WriteFile(in(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("csr.pem", "CERTIFICATE REQUEST", der)
	out := openssl(t, "req", "-in", in("csr.pem"), "-verify", "-noout", "-text", "-nameopt", "RFC2253,utf8,-esc_msb")
	for _, want := range []string{"verify OK", "Custode – prova", "organizationIdentifier=VATIT-12345678903", "Digital Signature, Non Repudiation"} {
		if !strings.Contains(out, want) {
			t.Errorf("the request lacks %q:\n%s", want, out)
		}
	}
	openssl(t, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", in("ca.key"), "-out", in("ca.pem"), "-subj", "/C=IT/CN=Prova CA", "-days", "30")
	openssl(t, "x509", "-req", "-in", in("csr.pem"), "-CA", in("ca.pem"), "-CAkey", in("ca.key"), "-days", "10", "-copy_extensions", "copyall", "-out", in("issued.pem"))
	issued, root := readCertificate(t, in("issued.pem")), readCertificate(t, in("ca.pem"))
	roots := x509.NewCertPool()
	roots.AddCert(root)

	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(5), Subject: pkix.Name{CommonName: "x"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature}
	otherDER, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, stranger.Public(), stranger)
	if err != nil {
		t.Fatal(err)
	}
	other, err := x509.ParseCertificate(otherDER)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		chain []*x509.Certificate
		roots *x509.CertPool
		at    time.Time
		kind  fault.Kind
	}{
		"nothing":         {nil, roots, time.Now(), fault.Invalid},
		"another key":     {[]*x509.Certificate{other}, roots, time.Now(), fault.Invalid},
		"no trusted root": {[]*x509.Certificate{issued}, x509.NewCertPool(), time.Now(), fault.Invalid},
		"expired":         {[]*x509.Certificate{issued}, roots, time.Now().Add(20 * 24 * time.Hour), fault.Invalid},
	} {
		if _, err := ceremony.Import(ctx, a, sign, c.chain, c.roots, c.at); !fault.Is(err, c.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
	former, err := ceremony.Import(ctx, a, sign, []*x509.Certificate{issued}, roots, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(former, "custode/sign/2026-1.was-") {
		t.Errorf("the former certificate is %q", former)
	}
	if _, err := ceremony.Import(ctx, a, sign, []*x509.Certificate{issued}, roots, time.Now()); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second time: %v", err)
	}
	tok, err := pkcs11.Open(ctx, pkcs11.Config{URI: a.URI})
	if err != nil {
		t.Fatal(err)
	}
	defer tok.Close()
	if cert, err := tok.Certificate(sign); err != nil || !cert.Equal(issued) {
		t.Errorf("the token serves %v %v", cert, err)
	}
}
