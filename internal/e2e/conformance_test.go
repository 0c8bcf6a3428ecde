package e2e

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"os"
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

// auditor returns an opened auditor of the lab, with two subjects and their telephone.
func auditor(t *testing.T, l *lab.Lab, change ...func(*conformance.Config)) *conformance.Auditor {
	t.Helper()
	p, gone := enrol(t, l), enrol(t, l)
	if _, err := l.Run(t.Context(), "identity", "suspend", gone.Username, "--reason", "conformance test"); err != nil {
		t.Fatal(err)
	}
	read := 0
	cfg := conformance.Config{
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
	for _, c := range change {
		c(&cfg)
	}
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

// TestConformance runs the catalogue against the daemon: each rule by each of
// its bindings. An attack may not cost the daemon more than growth of its
// memory nor more than the time the auditor grants an answer.
func TestConformance(t *testing.T) {
	const growth = 64 << 10 // KiB, over the whole catalogue
	l := own(t, lab.Config{Modems: 1, LogLevel: "info", Policy: map[string]string{"codes.per_subject": "100", "passwords.memory_kib": "64", "passwords.iterations": "1"}})
	a := auditor(t, l)
	before, slowest := 0, conformance.Result{}
	for _, rule := range catalogue.All() {
		t.Run(rule.ID, func(t *testing.T) {
			for _, by := range rule.Bindings {
				t.Run(string(by), func(t *testing.T) {
					r := a.Run(t.Context(), rule, by)
					if r.Elapsed > slowest.Elapsed {
						slowest = r
					}
					switch {
					case r.Verdict == conformance.Skip && strings.Contains(r.Seen, "--flow-life"):
					case r.Verdict != conformance.Pass:
						t.Errorf("%s (%s)\nwant %s\nseen %s\n%s", r.Title, r.Source, r.Want, r.Seen, strings.Join(r.Faults, "\n"))
					}
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
