package ceremony_test

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"custode/hsm/pkcs11/ceremony"
	"custode/internal/fault"
	"custode/simulators/hsmsim"
)

// TestMain is the ceremony's own process when planEnv names a plan file.
const planEnv, uriEnv, dirEnv, interruptEnv = "CUSTODE_TEST_PLAN", "CUSTODE_TEST_URI", "CUSTODE_TEST_DIR", "CUSTODE_TEST_INTERRUPT"

func begun() time.Time { return time.Date(2026, 11, 21, 10, 30, 0, 5, time.FixedZone("CET", 3600)) }

func TestMain(m *testing.M) {
	file := os.Getenv(planEnv)
	if file == "" {
		os.Exit(m.Run())
	}
	plan, err := os.ReadFile(file)
	if err == nil {
		var ctx context.Context = context.Background()
		if tokens := os.Getenv(interruptEnv); tokens != "" {
			ctx = interrupted{ctx, tokens}
		}
		_, err = ceremony.Run(ctx, plan, os.Getenv(uriEnv), os.Getenv(dirEnv), begun)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%v|%v", fault.KindOf(err), err)
		os.Exit(1)
	}
}

// interrupted is a context that ends when the first key is in the token.
type interrupted struct {
	context.Context
	tokens string
}

func (c interrupted) Err() error {
	// A key pair and its certificate are three objects.
	if found, _ := filepath.Glob(filepath.Join(c.tokens, "*", "*.object")); len(found) > 3 {
		return context.Canceled
	}
	return nil
}

const plan = `ceremony: prova-1
token:
  label: simulator
keys:
  - label: custode/sign/2026-1
    role: sign
    bits: 3072
    certificate:
      validity-days: 1095
      non-repudiation: true
      subject:
        common-name: Custode – prova
        organization: Esempio S.p.A.
        organization-identifier: VATIT-12345678903
        uri: https://idp.example.it
        country: IT
        locality: Roma
  - label: custode/mac/2026-1
    role: mac
    bits: 256
  - label: custode/wrap/2026-1
    role: wrap
    bits: 256
`

// hold runs a ceremony; a refusal is returned as its kind and text.
func hold(t *testing.T, sim *hsmsim.Sim, text, dir string) (kind, message string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "plan.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(append(os.Environ(), sim.Env()...), planEnv+"="+file, uriEnv+"="+sim.URI(), dirEnv+"="+dir)
	out, err := cmd.CombinedOutput()
	if err == nil {
		return "", ""
	}
	if exit := new(exec.ExitError); !errors.As(err, &exit) {
		t.Fatal(err)
	}
	kind, message, ok := strings.Cut(string(out), "|")
	if !ok {
		t.Fatalf("the ceremony died: %v: %s", err, out)
	}
	return kind, message
}

func newSim(t *testing.T) *hsmsim.Sim {
	t.Helper()
	sim, err := hsmsim.New(filepath.Join(t.TempDir(), "sim"))
	if err != nil {
		t.Fatal(err)
	}
	return sim
}

// objects lists what the token holds, as an independent tool sees it (Debian
// package opensc).
func objects(t *testing.T, sim *hsmsim.Sim) string {
	t.Helper()
	pin, err := os.ReadFile(sim.PINFile)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("pkcs11-tool", "--module", sim.Module, "--token-label", hsmsim.Label, "--login", "--pin", "env:TEST_PIN", "--list-objects")
	cmd.Env = append(append(os.Environ(), sim.Env()...), "TEST_PIN="+strings.TrimSpace(string(pin)))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("pkcs11-tool (Debian package opensc): %v: %s", err, out)
	}
	return string(out)
}

func TestCeremony(t *testing.T) {
	sim, dir := newSim(t), t.TempDir()
	if kind, message := hold(t, sim, plan, dir); message != "" {
		t.Fatal(kind, message)
	}
	cert := readCertificate(t, filepath.Join(dir, "custode_sign_2026-1.crt.pem"))
	checkCertificate(t, cert)

	report, err := os.ReadFile(filepath.Join(dir, "prova-1.report.txt"))
	if err != nil {
		t.Fatal(err)
	}
	spki, fingerprint, digest := sha256.Sum256(cert.RawSubjectPublicKeyInfo), sha256.Sum256(cert.Raw), sha256.Sum256([]byte(plan))
	keyID := hex.EncodeToString(spki[:20])
	for _, want := range []string{
		"2026-11-21 09:30:00 UTC", hex.EncodeToString(digest[:]), hex.EncodeToString(spki[:]), hex.EncodeToString(fingerprint[:]), keyID,
		"token serial    " + sim.Serial, "SoftHSM", "KEY custode/mac/2026-1", "KEY custode/wrap/2026-1",
		"CKA_NEVER_EXTRACTABLE=true", "CKA_ALWAYS_SENSITIVE=true", "CKA_LOCAL=true", "CKA_EXTRACTABLE=false", "CKA_DECRYPT=false", "CKA_DECRYPT=true",
		"damaged blob refused",
	} {
		if !strings.Contains(string(report), want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	t.Logf("report:\n%s", report)
	seen := objects(t, sim)
	// Private key, public key and certificate share the identifier.
	if n := strings.Count(seen, keyID); n != 3 {
		t.Errorf("%d objects have CKA_ID %s, want 3:\n%s", n, keyID, seen)
	}
	if n := strings.Count(seen, "custode/"); n < 5 {
		t.Errorf("%d labels, want 5:\n%s", n, seen)
	}

	t.Run("again", func(t *testing.T) {
		kind, message := hold(t, sim, plan, t.TempDir())
		if kind != "conflict" || !strings.Contains(message, "custode/sign/2026-1 already") {
			t.Errorf("%s: %s", kind, message)
		}
		if now := objects(t, sim); now != seen {
			t.Errorf("objects changed:\n%s", cmp.Diff(seen, now))
		}
	})
	t.Run("last key exists", func(t *testing.T) {
		// The new first key must not be made when the last one conflicts.
		kind, message := hold(t, sim, strings.NewReplacer("sign/2026-1", "sign/2026-2", "mac/2026-1", "mac/2026-2").Replace(plan), t.TempDir())
		if kind != "conflict" || !strings.Contains(message, "custode/wrap/2026-1 already") {
			t.Errorf("%s: %s", kind, message)
		}
		if now := objects(t, sim); now != seen {
			t.Errorf("objects changed:\n%s", cmp.Diff(seen, now))
		}
	})
}

func readCertificate(t *testing.T, file string) *x509.Certificate {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" || len(rest) != 0 {
		t.Fatalf("no single certificate: %s", text)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func checkCertificate(t *testing.T, cert *x509.Certificate) {
	t.Helper()
	if err := cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
		t.Error(err)
	}
	var subject []string
	for _, a := range cert.Subject.Names {
		subject = append(subject, fmt.Sprintf("%v=%v", a.Type, a.Value))
	}
	want := []string{"2.5.4.6=IT", "2.5.4.7=Roma", "2.5.4.10=Esempio S.p.A.", "2.5.4.97=VATIT-12345678903", "2.5.4.83=https://idp.example.it", "2.5.4.3=Custode – prova"}
	if d := cmp.Diff(want, subject); d != "" {
		t.Errorf("subject: %s", d)
	}
	if key, ok := cert.PublicKey.(*rsa.PublicKey); !ok || key.N.BitLen() != 3072 || cert.SignatureAlgorithm != x509.SHA256WithRSA {
		t.Errorf("key %T, %v", cert.PublicKey, cert.SignatureAlgorithm)
	}
	if cert.KeyUsage != x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment || cert.IsCA {
		t.Errorf("key usage %b, CA %v", cert.KeyUsage, cert.IsCA)
	}
	from := begun().UTC().Truncate(time.Second)
	if !cert.NotBefore.Equal(from) || !cert.NotAfter.Equal(from.AddDate(0, 0, 1095).Add(-time.Second)) {
		t.Errorf("valid %v to %v", cert.NotBefore, cert.NotAfter)
	}
}

// What was made before a failure must be told, and must not look finished.
func TestCeremonyInterrupted(t *testing.T) {
	sim, dir := newSim(t), t.TempDir()
	t.Setenv(interruptEnv, filepath.Join(sim.Dir, "tokens"))
	kind, message := hold(t, sim, plan, dir)
	if kind != "unavailable" || !strings.Contains(message, "still in the token: custode/sign/2026-1") {
		t.Errorf("%s: %s", kind, message)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("files were written: %v %v", left, err)
	}
	if seen := objects(t, sim); !strings.Contains(seen, "custode/sign/2026-1") || strings.Contains(seen, "custode/wrap") {
		t.Errorf("the token holds\n%s", seen)
	}
}

func TestCeremonyRefuses(t *testing.T) {
	sim := newSim(t)
	empty := objects(t, sim)
	occupied := t.TempDir()
	if err := os.WriteFile(filepath.Join(occupied, "custode_sign_2026-1.crt.pem"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, plan, dir, kind, says string }{
		{"plan", strings.Replace(plan, "bits: 3072", "bitz: 3072", 1), t.TempDir(), "invalid", "bitz"},
		{"other token label", strings.Replace(plan, "label: simulator", "label: custode", 1), t.TempDir(), "invalid", "custode"},
		{"other token serial", strings.Replace(plan, "label: simulator", "label: simulator\n  serial: \"00\"", 1), t.TempDir(), "invalid", sim.Serial},
		{"file exists", plan, occupied, "conflict", "custode_sign_2026-1.crt.pem"},
		{"no directory", plan, filepath.Join(occupied, "none"), "invalid", "not a directory"},
	} {
		kind, message := hold(t, sim, c.plan, c.dir)
		if kind != c.kind || !strings.Contains(message, c.says) {
			t.Errorf("%s: %s: %s", c.name, kind, message)
		}
	}
	// Each wrong PIN is one try, and nothing is made.
	if err := os.Chmod(sim.PINFile, 0o600); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(sim.PINFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(sim.PINFile, []byte("wrong-pin"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	if kind, message := hold(t, sim, plan, out); kind != "fatal" || strings.Contains(message, "wrong-pin") {
		t.Errorf("wrong PIN: %s: %s", kind, message)
	}
	if err := os.WriteFile(sim.PINFile, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if now := objects(t, sim); now != empty {
		t.Errorf("a refused ceremony made something:\n%s", now)
	}
	left, err := os.ReadDir(out)
	if err != nil || len(left) != 0 {
		t.Errorf("a refused ceremony wrote %v %v", left, err)
	}
}
