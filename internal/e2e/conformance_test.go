package e2e

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"custode/internal/conformance"
	"custode/internal/conformance/catalogue"
	"custode/internal/conformance/request"
	"custode/simulators/lab"
)

// auditorEntity is the auditor's service provider. Nothing answers there.
const auditorEntity = "https://verifica.example.it"

// keyPair makes a key and a self-signed certificate for that period.
func keyPair(t *testing.T, from, to time.Time) request.KeyPair {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: auditorEntity}, NotBefore: from, NotAfter: to}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return request.KeyPair{Key: key, Certificate: cert}
}

// auditorSP is registered with the lab, whose daemon is started again to read it.
func auditorSP(t *testing.T, l *lab.Lab) request.SP {
	t.Helper()
	now := time.Now()
	expired := keyPair(t, now.Add(-48*time.Hour), now.Add(-time.Hour))
	sp := request.SP{EntityID: auditorEntity, Main: keyPair(t, now.Add(-time.Hour), now.Add(24*time.Hour)), Expired: &expired}
	metadata, err := sp.Metadata(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.RegisterSP("auditor", metadata); err != nil {
		t.Fatal(err)
	}
	if err := l.StopDaemon(); err != nil {
		t.Fatal(err)
	}
	if err := l.StartDaemon(t.Context()); err != nil {
		t.Fatal(err)
	}
	return sp
}

// audit configures an audit of the lab, with two subjects and their telephone.
func audit(t *testing.T, l *lab.Lab) conformance.Config {
	t.Helper()
	p, gone := enrol(t, l), enrol(t, l)
	if _, err := l.Run(t.Context(), "identity", "suspend", gone.Username, "--reason", "conformance test"); err != nil {
		t.Fatal(err)
	}
	read := 0
	return conformance.Config{
		URL: l.IdP, SP: auditorSP(t, l), OtherEntity: l.SPURL, Now: time.Now,
		Subject:   &conformance.Subject{Username: p.Username, Password: p.Password},
		Suspended: &conformance.Subject{Username: gone.Username, Password: gone.Password},
		Code: func(ctx context.Context) (string, error) {
			ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
			defer cancel()
			all, err := l.Bank.Wait(ctx, p.Phone, read+1)
			if err != nil {
				return "", err
			}
			read = len(all)
			return lab.Code(all[read-1])
		},
	}
}

func auditor(t *testing.T, cfg conformance.Config) *conformance.Auditor {
	t.Helper()
	a, err := conformance.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	return a
}

// peak returns the most memory the daemon ever had, in KiB.
func peak(t *testing.T, l *lab.Lab) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.PID()))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "VmHWM:")
	fields := strings.Fields(rest)
	if !ok || len(fields) == 0 {
		t.Fatal("no VmHWM in the daemon's status")
	}
	n, err := strconv.Atoi(fields[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func passed(t *testing.T, r conformance.Result) {
	t.Helper()
	if r.Verdict != conformance.Pass {
		t.Errorf("%s: %s (%s)\nwant %s\nseen %s\n%s", r.Verdict, r.Title, r.Source, r.Want, r.Seen, strings.Join(r.Faults, "\n"))
	}
}

// ruleOf returns the rule, wanting something else when the instance is broken.
func ruleOf(t *testing.T, id string, want ...catalogue.Expect) catalogue.Rule {
	t.Helper()
	for _, r := range catalogue.All() {
		if r.ID == id {
			for _, w := range want {
				r.Want = w
			}
			return r
		}
	}
	t.Fatalf("no rule %s", id)
	return catalogue.Rule{}
}

// TestConformance runs the catalogue against the daemon: each rule by each of
// its bindings. An attack may not cost the daemon more than growth of its
// memory nor more than the time the auditor grants an answer.
func TestConformance(t *testing.T) {
	const growth = 64 << 10 // KiB, over the whole catalogue
	l := own(t, lab.Config{Modems: 1, LogLevel: "info", Policy: map[string]string{"codes.per_subject": "100", "passwords.memory_kib": "64", "passwords.iterations": "1"}})
	a := auditor(t, audit(t, l))
	before, slowest := 0, conformance.Result{}
	for _, rule := range catalogue.All() {
		t.Run(rule.ID, func(t *testing.T) {
			for _, by := range rule.Bindings {
				t.Run(string(by), func(t *testing.T) {
					r := a.Run(t.Context(), rule, by)
					if r.Elapsed > slowest.Elapsed {
						slowest = r
					}
					if r.Verdict == conformance.Skip && strings.Contains(r.Seen, "--flow-life") {
						t.Log("TestConformanceInTime has the time for it")
						return
					}
					passed(t, r)
				})
			}
		})
		if before == 0 {
			before = peak(t, l)
		}
	}
	if r := a.Reserved(); r.Verdict != conformance.Pass {
		t.Errorf("%s: %v", r.Title, r.Faults)
	}
	after := peak(t, l)
	t.Logf("memory at most %d MiB, %d MiB at the first rule; slowest answer %v (%s, %s)", after>>10, before>>10, slowest.Elapsed.Round(time.Millisecond), slowest.ID, slowest.Binding)
	if after-before > growth {
		t.Errorf("the catalogue made the daemon's memory grow by %d KiB, more than %d", after-before, growth)
	}
}

// TestConformanceInTime runs the rule that needs the life of a login to pass.
func TestConformanceInTime(t *testing.T) {
	t.Parallel()
	l := own(t, lab.Config{Modems: 1, Policy: map[string]string{"flow.lifetime": "1m"}})
	cfg := audit(t, l)
	cfg.FlowLife = time.Minute
	for _, by := range []request.Binding{request.Redirect, request.Post} {
		t.Run(string(by), func(t *testing.T) {
			t.Parallel()
			passed(t, auditor(t, cfg).Run(t.Context(), ruleOf(t, "timed-out"), by))
		})
	}
}

// TestConformanceOfABrokenInstance: rows 2 and 3, which no request causes. The
// token is taken away, then brought back; at last the database loses a table.
func TestConformanceOfABrokenInstance(t *testing.T) {
	t.Parallel()
	l := own(t, lab.Config{Modems: 1})
	cfg := audit(t, l)
	cfg.Pace = 20 * time.Millisecond
	a := auditor(t, cfg)
	bindings := []request.Binding{request.Redirect, request.Post}
	// A refusal is signed, so it needs the token.
	signed := "destination-missing"
	for _, by := range bindings {
		passed(t, a.Run(t.Context(), ruleOf(t, signed), by))
	}
	if err := l.HSM.Remove(); err != nil {
		t.Fatal(err)
	}
	unavailable := catalogue.Expect{Code: 2}
	for _, by := range bindings {
		passed(t, a.Run(t.Context(), ruleOf(t, signed, unavailable), by))
		passed(t, a.Run(t.Context(), ruleOf(t, "context-english", unavailable), by))
	}
	if err := l.HSM.Restore(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); a.Run(t.Context(), ruleOf(t, signed), request.Post).Verdict != conformance.Pass; {
		if time.Now().After(deadline) {
			t.Fatal("the token is back and the instance does not use it")
		}
	}
	// What is not a passing lack but a defect: row 3.
	out, err := exec.Command("sqlite3", filepath.Join(l.Dir, "state", "custode.db"), "PRAGMA busy_timeout=5000; ALTER TABLE flow RENAME TO gone;").CombinedOutput()
	if err != nil {
		t.Fatalf("sqlite3 (Debian package sqlite3): %v %s", err, out)
	}
	broken := catalogue.Expect{Code: 3}
	for _, by := range bindings {
		passed(t, a.Run(t.Context(), ruleOf(t, "valid", broken), by))
	}
}

// TestConformanceCommand: the operator's way, and that it fails when the instance
// does.
func TestConformanceCommand(t *testing.T) {
	l := own(t, lab.Config{Modems: 1, Policy: map[string]string{"request.lenient_force_authn": "true", "passwords.memory_kib": "64", "passwords.iterations": "1"}})
	dir, p := t.TempDir(), enrol(t, l)
	main := keyPair(t, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	key, err := x509.MarshalPKCS8PrivateKey(main.Key)
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	flags := []string{"--sp-entity", auditorEntity,
		"--sp-key", file("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})),
		"--sp-cert", file("cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: main.Certificate.Raw}))}
	run := func(args ...string) (string, int) {
		cmd := exec.Command(custode, append(append([]string{"conformance"}, args...), flags...)...)
		out, err := cmd.CombinedOutput()
		if err == nil {
			return string(out), 0
		}
		return string(out), status(t, err)
	}
	metadata, code := run("sp-metadata")
	if code != 0 {
		t.Fatal(metadata)
	}
	if err := l.RegisterSP("auditor", []byte(metadata)); err != nil {
		t.Fatal(err)
	}
	if err := l.StopDaemon(); err != nil {
		t.Fatal(err)
	}
	if err := l.StartDaemon(t.Context()); err != nil {
		t.Fatal(err)
	}
	report := filepath.Join(dir, "report.json")
	out, code := run("--url", l.IdP, "--only", "version-*", "--only", "level-1", "--only", "level-2", "--json", report, "--pace", "0s",
		"--subject-file", file("subject", []byte(p.Username+" "+p.Password+"\n")))
	if code != 0 || !strings.Contains(out, "PASS  version-missing/post  [table of anomalies, row 9]") || !strings.Contains(out, "SKIP  level-2/post") || !strings.Contains(out, "0 failed, 2 skipped") {
		t.Errorf("exit %d: %s", code, out)
	}
	if strings.Contains(out, p.Password) {
		t.Error("the report tells the password")
	}
	var got conformance.Report
	if text, err := os.ReadFile(report); err != nil || json.Unmarshal(text, &got) != nil || got.Failed != 0 || got.Passed < 10 || got.EntityID != l.IdP {
		t.Errorf("%v: %+v", err, got)
	}
	// This instance does not insist on ForceAuthn, which the rules want.
	if out, code = run("--url", l.IdP, "--only", "force-missing"); code != 1 || strings.Count(out, "FAIL  force-missing") != 2 {
		t.Errorf("exit %d: %s", code, out)
	}
	if out, code = run("--url", l.IdP, "--only", "nothing"); code != 65 {
		t.Errorf("exit %d: %s", code, out)
	}
}
