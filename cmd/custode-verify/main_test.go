package main

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"custode/internal/certlog/certlogtest"
	"custode/simulators/mailsim"
)

// trust writes the certificates of the house to files.
func trust(t *testing.T, h *certlogtest.House) arguments {
	t.Helper()
	dir := t.TempDir()
	a := arguments{Patience: time.Hour, What: h.Dir}
	for name, raw := range map[string][]byte{"seal.pem": h.Notary.Cert.Raw, "tsa.pem": h.TSA.Root.Raw} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a.Seal, a.TSA = []string{filepath.Join(dir, "seal.pem")}, []string{filepath.Join(dir, "tsa.pem")}
	return a
}

func verified(a arguments) (status int, text string) {
	var out, errs bytes.Buffer
	status = run(a, &out, &errs)
	return status, out.String() + errs.String()
}

// TestTampering: whatever somebody did to the folder, the program ends with 1 and names
// segment and divergence.
func TestTampering(t *testing.T) {
	for name, c := range certlogtest.Tamperings() {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			h := certlogtest.NewHouse(t)
			h.Fill()
			a := trust(t, h)
			if c.Witness {
				a.Witness = []string{h.WitnessDir()}
			}
			if status, text := verified(a); status != 0 || !strings.Contains(text, "15 records, 0 of them destroyed") || !strings.HasSuffix(text, "VERIFIED\n") {
				t.Fatalf("before: status %d\n%s", status, text)
			}
			c.Do(h)
			status, text := verified(a)
			if status != 1 || !strings.Contains(text, fmt.Sprintf("DIVERGES: segment %d: ", c.Segment)) || !strings.Contains(text, c.Want) || strings.Contains(text, "VERIFIED") {
				t.Errorf("status %d, want segment %d and %q\n%s", status, c.Segment, c.Want, text)
			}
		})
	}
}

// TestMail: a mailbox is a witness.
func TestMail(t *testing.T) {
	h := certlogtest.NewHouse(t)
	h.Fill()
	a, box := trust(t, h), t.TempDir()
	server, err := mailsim.Start(mailsim.Config{Dir: box})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	certlogtest.Mail(t, server, "000000000003.p7m", h.Read(h.Path(3, "p7m")))
	if err := os.WriteFile(filepath.Join(box, "spam.eml"), []byte("Content-Type: application/pkcs7-mime\n\nbuy"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.Mail = []string{box}
	if status, text := verified(a); status != 0 || !strings.Contains(text, "2 seals, 1 of them not good and ignored") {
		t.Errorf("status %d\n%s", status, text)
	}
	certlogtest.Tamperings()["rolled-back directory"].Do(h)
	if status, text := verified(a); status != 1 || !strings.Contains(text, "segment 3: the witness "+box) {
		t.Errorf("status %d\n%s", status, text)
	}
}

// TestUnreadable: what cannot be read, or trusted, is 2, never 0.
func TestUnreadable(t *testing.T) {
	h := certlogtest.NewHouse(t)
	h.Fill()
	good := trust(t, h)
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	empty := write("empty.pem", "")
	key := write("key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
	broken := write("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	for name, change := range map[string]func(*arguments){
		"no certificate":     func(a *arguments) { a.Seal = []string{empty} },
		"a key":              func(a *arguments) { a.Seal = []string{key} },
		"broken certificate": func(a *arguments) { a.TSA = []string{broken} },
		"nothing there":      func(a *arguments) { a.What = filepath.Join(dir, "nothing") },
		"no letters":         func(a *arguments) { a.Mail = []string{filepath.Join(dir, "nothing")} },
		"no witness":         func(a *arguments) { a.Witness = []string{filepath.Join(dir, "nothing")} },
	} {
		a := good
		change(&a)
		if status, text := verified(a); status != 2 || strings.Contains(text, "VERIFIED") {
			t.Errorf("%s: status %d\n%s", name, status, text)
		}
	}
	// Not a log, not an attestation: nothing is proved.
	for name, what := range map[string]string{"an empty folder": t.TempDir(), "no ZIP": empty} {
		a := good
		a.What = what
		if status, text := verified(a); status != 1 || strings.Contains(strings.ReplaceAll(text, "NOT VERIFIED", ""), "VERIFIED") {
			t.Errorf("%s: status %d\n%s", name, status, text)
		}
	}
}
