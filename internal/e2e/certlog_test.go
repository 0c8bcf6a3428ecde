package e2e

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"custode/simulators/browsersim"
	"custode/simulators/lab"
	"custode/simulators/spsim"
	"custode/simulators/tsasim"
)

// today and tomorrow as the command line takes them.
func interval() (from, to string) {
	now := time.Now().UTC()
	return now.Format(time.DateOnly), now.AddDate(0, 0, 1).Format(time.DateOnly)
}

// run runs a subcommand that must succeed.
func run(t *testing.T, l *lab.Lab, args ...string) string {
	t.Helper()
	out, err := l.Run(t.Context(), args...)
	if err != nil {
		t.Fatal(err, out)
	}
	return out
}

// refused runs a subcommand that must end with the status; it returns all that was printed.
func refused(t *testing.T, l *lab.Lab, status int, args ...string) string {
	t.Helper()
	out, err := l.Run(t.Context(), args...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != status {
		t.Errorf("%v: %v, want status %d", args, err, status)
		return out
	}
	return out + err.Error()
}

// command runs a program and returns its output.
func command(t *testing.T, dir, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

var verifierOnce = sync.OnceValues(func() (string, error) {
	path := filepath.Join(filepath.Dir(custode), "custode-verify")
	out, err := exec.Command("go", "build", "-o", path, "custode/cmd/custode-verify").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

// verifier is the stand-alone program.
func verifier(t *testing.T) string {
	t.Helper()
	path, err := verifierOnce()
	if err != nil {
		t.Fatal("build custode-verify: ", err)
	}
	return path
}

// plain returns the records of a log in clear, as JSON lines.
func plain(t *testing.T, l *lab.Lab, log string) string {
	t.Helper()
	run(t, l, "log", "seal", "--log", log)
	out := filepath.Join(t.TempDir(), log+".jsonl")
	run(t, l, "log", "export", "--log", log, "--plain", out)
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(out); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("export: %v, %v", st.Mode(), err)
	}
	return string(text)
}

// recorded returns the Responses in the register of transactions.
func recorded(t *testing.T, l *lab.Lab) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for line := range strings.Lines(plain(t, l, "transactions")) {
		var one struct{ RequestXML, ResponseXML string }
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatal(err)
		}
		out[one.ResponseXML] = true
	}
	return out
}

// response is the document that the browser carries.
func (v *visit) response() string {
	v.t.Helper()
	xml, err := base64.StdEncoding.DecodeString(v.p.Field("SAMLResponse"))
	if err != nil || len(xml) == 0 {
		v.t.Fatalf("no Response on the page (HTTP %d): %v", v.p.Status, err)
	}
	return string(xml)
}

// TestAttestation: what a login leaves can be shown to anybody, with our
// stand-alone program and with openssl.
func TestAttestation(t *testing.T) {
	l := own(t, lab.Config{})
	p := enrol(t, l)
	v, _ := login(t, l, post, 2, p)
	granted := v.response()
	v = arrive(t, l, redirect, spsim.Request{Level: 1})
	v.password(p)
	v.submit("cancel", nil)
	cancelled := v.response()
	v = arrive(t, l, redirect, spsim.Request{Level: 1})
	v.submit("cancel", nil)
	nobody := v.response()
	all := recorded(t, l)
	for name, xml := range map[string]string{"granted": granted, "cancelled": cancelled, "cancelled by nobody": nobody} {
		if !all[xml] {
			t.Errorf("the Response %s is not in the register", name)
		}
	}
	from, to := interval()
	dir := t.TempDir()
	file := filepath.Join(dir, "a.zip")
	out := run(t, l, "log", "attest", "--subject", p.Attributes["spidCode"], "--name", "Ada Lovati", "--from", from, "--to", to, "--out", file)
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("attestation: %v, %v", st, err)
	}
	var said struct{ Records []uint64 }
	if err := json.Unmarshal([]byte(out), &said); err != nil || len(said.Records) != 2 {
		t.Fatalf("%v: %s", err, out)
	}
	refused(t, l, 73, "log", "attest", "--subject", p.Attributes["spidCode"], "--from", from, "--to", to, "--out", file) // it exists
	inbox, err := l.Bank.Wait(t.Context(), p.Phone, 2)                                                                   // the code of the login, and the notice
	if err != nil {
		t.Fatal(err)
	}
	if text := inbox[1].Text; !strings.Contains(text, "un'attestazione dei tuoi accessi") || strings.Contains(text, "Lovati") || strings.Contains(text, p.Attributes["spidCode"]) {
		t.Errorf("the subject is told %q", text)
	}
	trust := []string{"--seal", l.SealCertificate(), "--tsa", l.TSACertificates()}
	if out, err := command(t, dir, verifier(t), append(trust, file)...); err != nil || !strings.Contains(out, "2 accesses") {
		t.Errorf("custode-verify: %v\n%s", err, out)
	}
	inside := unzip(t, file, dir)
	if got := inside[fmt.Sprintf("records/%d.response.xml", said.Records[0])]; got != granted {
		t.Error("the Response in the attestation is not the one the browser carried")
	}
	openssl(t, dir, l, "attestation")
	if out, err := command(t, dir, "openssl", "cms", "-verify", "-cades", "-binary", "-inform", "DER", "-in", "report.pdf.p7s", "-content", "report.pdf",
		"-CAfile", l.SealCertificate(), "-purpose", "any", "-out", "/dev/null"); err != nil {
		t.Errorf("openssl cms of the PDF: %v\n%s", err, out)
	}
	for name := range inside {
		if stem, ok := strings.CutSuffix(name, ".p7m"); ok && strings.HasPrefix(name, "checkpoints/") {
			openssl(t, dir, l, stem)
		}
	}
	// One octet of the Response, and it is found.
	forged := bytes.Replace([]byte(inside["report.html"]), []byte(p.Attributes["spidCode"]), []byte("LABX9999999999"), 1)
	rezip(t, file, filepath.Join(dir, "forged.zip"), map[string][]byte{"report.html": forged})
	if out, err := command(t, dir, verifier(t), append(trust, filepath.Join(dir, "forged.zip"))...); err == nil || !strings.Contains(out, "report.html") {
		t.Errorf("forged: %v\n%s", err, out)
	}
	// Nobody's accesses: a sealed none.
	none := filepath.Join(dir, "none.zip")
	run(t, l, "log", "attest", "--subject", "LABX7777777777", "--from", from, "--to", to, "--out", none)
	if out, err := command(t, dir, verifier(t), append(trust, none)...); err != nil || !strings.Contains(out, "0 accesses, none left out") {
		t.Errorf("negative attestation: %v\n%s", err, out)
	}
	nothingReadable(t, l, p)
	events := plain(t, l, "security")
	for _, want := range []string{`"log/attest"`, `"attestation-notified"`, `"attestation-not-notified"`, `"login-failed"`, `"identity/add"`, `"start"`, p.Attributes["spidCode"], "127.0.0.1"} {
		if !strings.Contains(events, want) {
			t.Errorf("the security log does not hold %s", want)
		}
	}
	if strings.Contains(events, p.Password) {
		t.Error("the security log holds a password")
	}
}

// openssl verifies a seal and its time-stamp as README.txt says.
func openssl(t *testing.T, dir string, l *lab.Lab, stem string) {
	t.Helper()
	if out, err := command(t, dir, "openssl", "cms", "-verify", "-cades", "-binary", "-inform", "DER", "-in", stem+".p7m", "-CAfile", l.SealCertificate(),
		"-purpose", "any", "-out", "payload.json"); err != nil {
		t.Errorf("openssl cms of %s: %v\n%s", stem, err, out)
	}
	if out, err := command(t, dir, "openssl", "ts", "-verify", "-token_in", "-in", stem+".tst", "-data", stem+".sig", "-CAfile", l.TSACertificates()); err != nil {
		t.Errorf("openssl ts of %s: %v\n%s", stem, err, out)
	}
}

func unzip(t *testing.T, file, dir string) map[string]string {
	t.Helper()
	z, err := zip.OpenReader(file)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	out := map[string]string{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		octets, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		path := filepath.Join(dir, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, octets, 0o600); err != nil {
			t.Fatal(err)
		}
		out[f.Name] = string(octets)
	}
	return out
}

func rezip(t *testing.T, from, to string, change map[string][]byte) {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, octets := range unzip(t, from, t.TempDir()) {
		if changed, ok := change[name]; ok {
			octets = string(changed)
		}
		f, err := w.Create(name)
		if err == nil {
			_, err = io.WriteString(f, octets)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// nothingReadable searches the folders of log and witness for what is known of a subject.
func nothingReadable(t *testing.T, l *lab.Lab, p lab.Person) {
	t.Helper()
	files := 0
	for _, dir := range []string{l.LogDir(), l.WitnessDir()} {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			files++
			octets, err := os.ReadFile(path)
			for name, value := range p.Attributes {
				for _, form := range []string{value, base64.StdEncoding.EncodeToString([]byte(value))} {
					if len(form) >= 6 && bytes.Contains(octets, []byte(form)) {
						t.Errorf("%s holds %s = %q", path, name, form)
					}
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 6 {
		t.Errorf("only %d files", files)
	}
}

// TestLogVerify: the folder verifies off-line, and what was changed is named.
func TestLogVerify(t *testing.T) {
	l := own(t, lab.Config{})
	p := enrol(t, l)
	for range 2 {
		login(t, l, redirect, 1, p)
		run(t, l, "log", "seal")
	}
	trust := []string{"--seal", l.SealCertificate(), "--tsa", l.TSACertificates()}
	verify := func(folder string, more ...string) []string {
		return append(append([]string{"log", "verify", folder}, trust...), more...)
	}
	folder, witness := filepath.Join(l.LogDir(), "transactions"), filepath.Join(l.WitnessDir(), "transactions")
	if out := run(t, l, verify(folder, "--witness", witness)...); !strings.Contains(out, "VERIFIED") || !strings.Contains(out, "2 segments sealed, 2 time-stamped") {
		t.Errorf("verify: %s", out)
	}
	if out, err := command(t, ".", verifier(t), append(append([]string{}, trust...), "--witness", witness, folder)...); err != nil || !strings.Contains(out, "VERIFIED") {
		t.Errorf("custode-verify: %v\n%s", err, out)
	}
	if out := run(t, l, "log", "status"); !strings.Contains(out, `"records": 2`) || !strings.Contains(out, l.WitnessDir()) {
		t.Errorf("status: %s", out)
	}
	copied := filepath.Join(t.TempDir(), "copy")
	run(t, l, "log", "export", copied)
	run(t, l, verify(copied)...)
	seg := filepath.Join(copied, "000000000001.seg")
	octets, err := os.ReadFile(seg)
	if err != nil {
		t.Fatal(err)
	}
	octets[len(octets)/2] ^= 1
	if err := os.WriteFile(seg, octets, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := refused(t, l, 65, verify(copied)...); !strings.Contains(out, "segment 1:") {
		t.Errorf("a flipped bit: %s", out)
	}
	cut := filepath.Join(t.TempDir(), "cut")
	run(t, l, "log", "export", cut)
	for _, suffix := range []string{"seg", "idx", "hsh", "key", "p7m"} {
		if err := os.Remove(filepath.Join(cut, "000000000002."+suffix)); err != nil {
			t.Fatal(err)
		}
	}
	run(t, l, verify(cut)...) // alone, it cannot show it
	if out := refused(t, l, 65, verify(cut, "--witness", witness)...); !strings.Contains(out, "segment 2:") {
		t.Errorf("an end removed: %s", out)
	}
	// The same in the daemon's own folder is found at the next start, by the database.
	if err := l.StopDaemon(); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"seg", "idx", "hsh", "key", "p7m"} {
		if err := os.Rename(filepath.Join(folder, "000000000002."+suffix), filepath.Join(l.Dir, "removed."+suffix)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.StartDaemon(t.Context()); err == nil {
		t.Error("the daemon starts on a log whose end was removed")
	}
	for _, suffix := range []string{"seg", "idx", "hsh", "key", "p7m"} {
		if err := os.Rename(filepath.Join(l.Dir, "removed."+suffix), filepath.Join(folder, "000000000002."+suffix)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.StartDaemon(t.Context()); err != nil {
		t.Fatal(err)
	}
	login(t, l, redirect, 1, p)
}

// TestHoldAndDestroy: the retention cannot be shortened, holds are kept.
func TestHoldAndDestroy(t *testing.T) {
	l := own(t, lab.Config{})
	from, to := interval()
	refused(t, l, 77, "log", "destroy", "--before", to, "--reason", "test")
	if out := run(t, l, "log", "destroy", "--before", "2020-01-01", "--reason", "test"); !strings.Contains(out, "nothing to destroy") {
		t.Error(out)
	}
	run(t, l, "log", "hold", "add", "--from", from, "--to", to, "--case", "RG 12/2026", "--reason", "test")
	if out := run(t, l, "log", "status"); !strings.Contains(out, "RG 12/2026") {
		t.Errorf("status: %s", out)
	}
	run(t, l, "log", "hold", "release", "1", "--reason", "over")
	refused(t, l, 67, "log", "hold", "release", "1", "--reason", "over")
}

// TestTimeStampServices: one that is away is passed over; when both are, segments
// wait and logins go on.
func TestTimeStampServices(t *testing.T) {
	l := own(t, lab.Config{})
	p := enrol(t, l)
	login(t, l, redirect, 1, p)
	l.TSA[0].Misbehave(tsasim.Down)
	run(t, l, "log", "seal")
	l.TSA[1].Misbehave(tsasim.OtherRoot)
	login(t, l, redirect, 1, p)
	refused(t, l, 75, "log", "seal")
	if out := run(t, l, "log", "status"); !strings.Contains(out, `"pending": 1`) {
		t.Errorf("status: %s", out)
	}
	login(t, l, redirect, 1, p)
	l.TSA[1].Misbehave(tsasim.Honest)
	run(t, l, "log", "seal")
	if out := run(t, l, "log", "status"); strings.Contains(out, `"pending": 1`) {
		t.Errorf("status: %s", out)
	}
}

// TestUnwritableLog: without a record no Response, no new login, and no restart needed.
func TestUnwritableLog(t *testing.T) {
	l := own(t, lab.Config{})
	p := enrol(t, l)
	login(t, l, redirect, 1, p)
	v := arrive(t, l, redirect, spsim.Request{Level: 1})
	v.password(p)
	run(t, l, "log", "seal")
	folder := filepath.Join(l.LogDir(), "transactions")
	if err := os.Rename(folder, folder+".away"); err != nil {
		t.Fatal(err)
	}
	// A file in its place: neither root nor anybody can write below it.
	if err := os.WriteFile(folder, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	v.submit("consent", nil)
	v.page(3)
	arrive(t, l, redirect, spsim.Request{Level: 1}).page(3)
	if status := health(t, l); status != http.StatusServiceUnavailable {
		t.Errorf("health %d while the log cannot be written", status)
	}
	if err := os.Remove(folder); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(folder+".away", folder); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); health(t, l) != http.StatusOK; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not healthy 20 s after the folder came back")
		}
	}
	v, _ = login(t, l, redirect, 1, p)
	if !recorded(t, l)[v.response()] {
		t.Error("not recorded after the folder came back")
	}
	if !strings.Contains(plain(t, l, "security"), `"not-recorded"`) {
		t.Error("the security log does not say that a Response did not leave")
	}
}

func health(t *testing.T, l *lab.Lab) int {
	t.Helper()
	p, err := browsersim.New(nil).Get(l.IdP + "/health")
	if err != nil {
		t.Fatal(err)
	}
	return p.Status
}

// TestKilledLog: whatever Response a browser has, the register has.
func TestKilledLog(t *testing.T) {
	l := own(t, lab.Config{})
	const browsers = 4
	people := make([]lab.Person, browsers)
	for i := range people {
		people[i] = enrol(t, l)
	}
	var mu sync.Mutex
	received := map[string]bool{}
	for range 3 {
		var wg sync.WaitGroup
		first := make(chan struct{}, 1000)
		for i := range browsers {
			wg.Go(func() {
				for range 50 {
					xml, err := quickLogin(t, l, people[i])
					if err != nil {
						return // the daemon was killed
					}
					mu.Lock()
					received[xml] = true
					mu.Unlock()
					first <- struct{}{}
				}
			})
		}
		for range browsers {
			select {
			case <-first:
			case <-time.After(60 * time.Second):
				t.Fatal("no login ends")
			}
		}
		l.KillDaemon()
		wg.Wait()
		if err := l.StartDaemon(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	all := recorded(t, l)
	missing := 0
	for xml := range received {
		if !all[xml] {
			missing++
		}
	}
	if missing > 0 || len(received) < 3*browsers {
		t.Errorf("%d of %d received Responses are not in the register", missing, len(received))
	}
	run(t, l, "log", "verify", filepath.Join(l.LogDir(), "transactions"), "--seal", l.SealCertificate(), "--tsa", l.TSACertificates(),
		"--witness", filepath.Join(l.WitnessDir(), "transactions"))
	t.Logf("%d Responses received over three kills, %d recorded", len(received), len(all))
}

// quickLogin is a level 1 login that may fail at any step.
func quickLogin(t *testing.T, l *lab.Lab, p lab.Person) (string, error) {
	b := browsersim.New(nil)
	page, _, err := l.Send(t.Context(), b, spsim.Request{Level: 1}, false)
	if err != nil {
		return "", err
	}
	if page, err = b.Submit(page, "password", map[string]string{"username": p.Username, "password": p.Password}); err != nil {
		return "", err
	}
	if page, err = b.Submit(page, "consent", nil); err != nil {
		return "", err
	}
	xml, err := base64.StdEncoding.DecodeString(page.Field("SAMLResponse"))
	if err == nil && len(xml) == 0 {
		err = errors.New("no Response")
	}
	return string(xml), err
}
