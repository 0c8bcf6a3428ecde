package certified

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"custode/internal/admin"
	"custode/internal/certlog"
	"custode/internal/certlog/certlogtest"
	"custode/internal/certlog/notary"
	"custode/internal/config"
	"custode/internal/fault"
	"custode/internal/journal"
)

// TestVerifyNamesTampering is `custode log verify` on whatever somebody did to the folder.
func TestVerifyNamesTampering(t *testing.T) {
	for name, c := range certlogtest.Tamperings() {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			h := certlogtest.NewHouse(t)
			h.Fill()
			a := logVerifyCmd{Folder: h.Dir, Patience: time.Hour}
			for file, raw := range map[string][]byte{"seal.pem": h.Notary.Cert.Raw, "tsa.pem": h.TSA.Root.Raw} {
				path := filepath.Join(t.TempDir(), file)
				if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), 0o600); err != nil {
					t.Fatal(err)
				}
				if file == "seal.pem" {
					a.Seal = []string{path}
				} else {
					a.TSA = []string{path}
				}
			}
			if c.Witness {
				a.Witness = []string{h.WitnessDir()}
			}
			if err := a.Run(nil); err != nil {
				t.Fatalf("before: %v", err)
			}
			c.Do(h)
			if err := a.Run(nil); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), fmt.Sprintf("segment %d: ", c.Segment)) || !strings.Contains(err.Error(), c.Want) {
				t.Errorf("got %v, want segment %d and %q", err, c.Segment, c.Want)
			}
		})
	}
}

// memory is a log in memory that can be down.
type memory struct {
	mu     sync.Mutex
	events []journal.Event
	down   error
}

func (m *memory) Append(_ context.Context, r certlog.Record) (certlog.Appended, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		return certlog.Appended{}, m.down
	}
	var e journal.Event
	err := json.Unmarshal(r.Data, &e)
	m.events = append(m.events, e)
	return certlog.Appended{}, err
}

func (m *memory) Status() certlog.Status { return certlog.Status{} }

func (m *memory) whats() (out []string) {
	for _, e := range m.events {
		out = append(out, e.What+" by "+e.Actor)
	}
	return out
}

func registers(log *memory) *Registers {
	quiet := slog.New(slog.DiscardHandler)
	return &Registers{Journals: &journal.Journals{Security: journal.NewSecurity(log, time.Now, quiet)}, Config: Config{Policy: &config.Policy{}, Log: quiet}}
}

// TestActsAreKept: every method that is not known to look only is in the security log
// before it takes effect, and what came to nothing is said to have.
func TestActsAreKept(t *testing.T) {
	log := &memory{}
	called := map[string]int{}
	methods := map[string]admin.Method{}
	for _, name := range []string{"identity/show", "registry/status", "modem/inbox", "identity/suspend", "registry/refresh", "otp/assign", "something/new"} {
		methods[name] = func(context.Context, []byte) (any, error) { called[name]++; return nil, nil }
	}
	methods["identity/restore"] = func(context.Context, []byte) (any, error) {
		return nil, fault.Newf(fault.NotFound, "find", "no such name")
	}
	r := registers(log)
	methods = r.Methods(methods)
	call := func(name string) error {
		_, err := methods[name](t.Context(), []byte(`{"actor":"root","username":"ada","password":"AAAA","reason":"why"}`))
		return err
	}
	for _, name := range []string{"identity/show", "registry/status", "modem/inbox"} {
		if err := call(name); err != nil || called[name] != 1 || len(log.events) != 0 {
			t.Errorf("%s: %v, %v", name, err, log.whats())
		}
	}
	for _, name := range []string{"identity/suspend", "registry/refresh", "otp/assign", "something/new"} {
		if err := call(name); err != nil || called[name] != 1 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := call("identity/restore"); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	want := []string{"identity/suspend by root", "registry/refresh by root", "otp/assign by root", "something/new by root", "identity/restore by root", "identity/restore-failed by root"}
	if diff := cmp.Diff(want, log.whats()); diff != "" {
		t.Error(diff)
	}
	for _, e := range log.events {
		if strings.Contains(fmt.Sprint(e), "AAAA") {
			t.Errorf("a secret is kept: %+v", e)
		}
	}
	log.down = errors.New("disk")
	for _, name := range []string{"identity/suspend", "something/new", "log/seal", "log/attest", "log/hold", "log/destroy"} {
		if err := call(name); err == nil || called[name] > 1 {
			t.Errorf("%s was done without being kept: %v", name, err)
		}
	}
}

// TestReaderSeesAll: what shows less than this process sealed is no source for attestations.
func TestReaderSeesAll(t *testing.T) {
	h := certlogtest.NewHouse(t)
	h.Open()
	defer h.Stop()
	for range 2 {
		h.Append(3)
		h.Seal()
	}
	r := registers(&memory{})
	r.notary = &notary.Notary{Pinned: h.Notary.Pinned, Roots: h.Notary.Roots}
	k := &journal.Kept{Log: h.Log, Dir: h.Dir}
	if reader, err := r.reader(k); err != nil || len(reader.Checkpoints()) != 2 {
		t.Fatalf("%v", err)
	}
	for _, s := range []string{"seg", "key", "idx", "hsh", "p7m"} {
		h.Remove(h.Path(2, s))
	}
	if _, err := r.reader(k); !fault.Is(err, fault.Fatal) || !strings.Contains(err.Error(), "does not show all 6 records") {
		t.Errorf("the end was removed: %v", err)
	}
}

// TestNotice: whatever hinders the message, the attestation stands and the log says so.
func TestNotice(t *testing.T) {
	log := &memory{}
	r := registers(log)
	r.Policy.CertifiedLog.SilentAttestation = true
	if said := r.notify(t.Context(), registerArgument{Actor: "root", Subject: "LABX0000000001"}); !strings.Contains(said, "silent_attestation") {
		t.Errorf("%q", said)
	}
	if e := log.events; len(e) != 1 || e[0].What != "attestation-not-notified" || e[0].Subject != "LABX0000000001" || e[0].Actor != "root" {
		t.Errorf("%+v", e)
	}
	if n := len(notice); n > 160 || strings.ContainsFunc(notice, func(c rune) bool { return c > 126 }) {
		t.Errorf("the text is no single SMS: %d octets", n)
	}
}

func TestEscrowPrivate(t *testing.T) {
	dir := t.TempDir()
	openssl := func(args ...string) string {
		t.Helper()
		path := filepath.Join(dir, args[len(args)-1])
		args[len(args)-1] = path
		if out, err := exec.Command("openssl", args...).CombinedOutput(); err != nil {
			t.Fatalf("openssl (Debian package openssl): %v\n%s", err, out)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pkcs8 := openssl("genrsa", "-out", "pkcs8.pem")
	pkcs1 := openssl("rsa", "-in", pkcs8, "-traditional", "-out", "pkcs1.pem")
	curve := openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "ec.pem")
	locked := openssl("pkcs8", "-topk8", "-in", pkcs8, "-passout", "pass:secret", "-out", "locked.pem")
	for _, path := range []string{pkcs8, pkcs1} {
		if k, err := escrowPrivate(path); err != nil || k.N.BitLen() < 2048 {
			t.Errorf("%s: %v", path, err)
		}
	}
	for path, want := range map[string]string{curve: "private key in clear", locked: "openssl pkcs8", filepath.Join(dir, "none.pem"): "no such file"} {
		if _, err := escrowPrivate(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := os.Chmod(pkcs8, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := escrowPrivate(pkcs8); !fault.Is(err, fault.Fatal) {
		t.Errorf("others may read it: %v", err)
	}
}

// TestWritten: an export is there whole, or not at all, and never in another's place.
func TestWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	f, err := newFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(f, "half"); err != nil {
		t.Fatal(err)
	}
	if err := written(f, errors.New("the token went away")); err == nil {
		t.Error("no error")
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half an export stays: %v", err)
	}
	if f, err = newFile(path); err != nil {
		t.Fatal(err)
	}
	if err := written(f, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := newFile(path); !fault.Is(err, fault.Conflict) {
		t.Errorf("over another file: %v", err)
	}
	link := path + ".link"
	if err := os.Symlink(path+".elsewhere", link); err != nil {
		t.Fatal(err)
	}
	if _, err := newFile(link); !fault.Is(err, fault.Conflict) {
		t.Errorf("through a link: %v", err)
	}
}

func TestMailboxes(t *testing.T) {
	if all, err := mailboxes(config.Mail{}); err != nil || len(all) != 0 {
		t.Errorf("none: %v, %v", all, err)
	}
	dir := t.TempDir()
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte("secret\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := config.Mail{Server: "127.0.0.1:25", TLS: "starttls", From: "a@b.it", To: []string{"c@d.it", "e@f.it"}, Username: "u", PasswordFile: password}
	if _, err := mailboxes(c); !fault.Is(err, fault.Fatal) {
		t.Errorf("a password that others may read: %v", err)
	}
	if err := os.Chmod(password, 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := mailboxes(c)
	if err != nil || len(all) != 1 || all[0].To != "mailto:c@d.it,e@f.it" {
		t.Errorf("%+v, %v", all, err)
	}
	c.Certificates = password
	if _, err := mailboxes(c); !fault.Is(err, fault.Fatal) {
		t.Errorf("no certificate in it: %v", err)
	}
}
