// Package e2e tests the whole product from outside: the real binary on a real
// PKCS#11 token (SoftHSM), real ptys, a real database, a real browser, and
// verifiers we did not write (xmlsec1, xmllint, passport-spid). It has no code to
// import.
package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"custode/simulators/browsersim"
	"custode/simulators/lab"
	"custode/simulators/modemsim"
	"custode/simulators/spsim"
)

// custode is the binary under test, built once by TestMain.
var custode string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "custode-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		custode = filepath.Join(dir, "custode")
		if out, err := exec.Command("go", "build", "-o", custode, "custode/cmd/custode").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build custode: %v\n%s", err, out)
			return 1
		}
		code := m.Run()
		if sharedLab != nil {
			pins := []string{sharedLab.HSM.PINFile, sharedLab.HSM.SOFile}
			for _, secret := range append(read(pins), lab.Demo().Password) {
				if secret == "" || strings.Contains(sharedLog.String(), secret) {
					fmt.Fprintln(os.Stderr, "FAIL: the shared lab's log holds a PIN or the password, or a PIN could not be read")
					code = 1
				}
			}
			if found := personal(sharedLog.String()); found != "" {
				fmt.Fprintln(os.Stderr, "FAIL: the shared lab's log holds personal data:", found)
				code = 1
			}
			if err := sharedLab.Close(); err != nil {
				fmt.Fprintln(os.Stderr, "close the shared lab:", err)
				code = 1
			}
		}
		return code
	}())
}

// read returns the trimmed contents of the files, "" for one that fails.
func read(files []string) []string {
	out := make([]string, len(files))
	for i, f := range files {
		text, _ := os.ReadFile(f)
		out[i] = strings.TrimSpace(string(text))
	}
	return out
}

var (
	sharedLab  *lab.Lab
	sharedErr  error
	sharedOnce sync.Once
	sharedLog  journal
)

// journal is a daemon's log, kept for the tests that read it.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

// shared returns the lab that tests without special wishes use. It logs at
// debug level, and TestNoSecretInTheLog reads that log at the end.
func shared(t *testing.T) *lab.Lab {
	t.Helper()
	sharedOnce.Do(func() {
		sharedLab, sharedErr = lab.Start(context.Background(), lab.Config{Custode: custode, Log: &sharedLog, LogLevel: "debug",
			Policy: map[string]string{"codes.per_subject": "50"}})
	})
	if sharedErr != nil {
		t.Fatalf("start the lab: %v\n%s", sharedErr, tail(sharedLog.String()))
	}
	return sharedLab
}

// logs holds the daemon's log of each lab that own started.
var logs sync.Map

func logOf(l *lab.Lab) string {
	log, _ := logs.Load(l)
	return log.(*journal).String()
}

// ofPeople are telephone numbers (folders have random digits in their names, too), user names, SPID codes and what else
// enrol gives people.
var ofPeople = regexp.MustCompile(`(?:39|["'= :(])347\d{7}\b|person\.\d|LABX\d{10}|LVTDAA85T50H501D|ada\.lovati|Lovati|dei Laboratori|CA00000AA`)

// personal returns where a log at any level names a person, "" when it does not.
func personal(log string) string {
	at := ofPeople.FindStringIndex(log)
	if at == nil {
		return ""
	}
	return log[max(0, at[0]-200):min(len(log), at[1]+50)]
}

// own starts a lab for one test.
func own(t *testing.T, cfg lab.Config) *lab.Lab {
	t.Helper()
	var log journal
	cfg.Custode, cfg.Log = custode, &log
	if cfg.LogLevel == "" {
		cfg.LogLevel = "debug"
	}
	l, err := lab.Start(context.Background(), cfg)
	if err != nil {
		t.Fatalf("start the lab: %v\n%s", err, tail(log.String()))
	}
	logs.Store(l, &log)
	t.Cleanup(func() {
		logs.Delete(l)
		if found := personal(log.String()); found != "" {
			t.Errorf("the log holds personal data: %s", found)
		}
		if err := l.Close(); err != nil {
			t.Errorf("close the lab: %v", err)
		}
		if t.Failed() {
			t.Logf("the daemon's log ends with:\n%s", tail(log.String()))
		}
	})
	return l
}

func tail(s string) string {
	if n := len(s) - 8000; n > 0 {
		return s[n:]
	}
	return s
}

var people struct {
	sync.Mutex
	n int
}

// enrol adds a person of their own to the lab, with a phone of their own.
func enrol(t *testing.T, l *lab.Lab, change ...func(*lab.Person)) lab.Person {
	t.Helper()
	people.Lock()
	people.n++
	n := people.n
	people.Unlock()
	p := lab.Demo()
	p.Username = fmt.Sprintf("person.%d", n)
	p.Phone = fmt.Sprintf("+39347%07d", 1000000+n)
	p.Attributes["spidCode"] = fmt.Sprintf("LABX%010d", 1000+n)
	p.Attributes["mobilePhone"] = p.Phone
	for _, c := range change {
		c(&p)
	}
	if err := l.Enrol(context.Background(), p); err != nil {
		t.Fatalf("enrol: %v", err)
	}
	return p
}

// visit is one browser in one login.
type visit struct {
	t    *testing.T
	l    *lab.Lab
	b    *browsersim.Browser
	p    *browsersim.Page
	seen int // messages in the phone's inbox before this login
	who  lab.Person
	id   string // of the AuthnRequest
}

type binding string

const (
	redirect binding = "redirect"
	post     binding = "post"
)

// arrive sends the request by the binding and returns the page reached.
func arrive(t *testing.T, l *lab.Lab, by binding, r spsim.Request) *visit {
	t.Helper()
	v := &visit{t: t, l: l, b: browsersim.New(nil)}
	v.send(by, r)
	return v
}

func (v *visit) send(by binding, r spsim.Request) {
	v.t.Helper()
	page, request, err := v.l.Send(v.t.Context(), v.b, r, by == post)
	v.id = request
	v.to(page, err)
}

func (v *visit) to(p *browsersim.Page, err error) {
	v.t.Helper()
	if err != nil {
		v.t.Fatal(err)
	}
	v.p = p
}

func (v *visit) submit(action string, set map[string]string) {
	v.t.Helper()
	v.to(v.b.Submit(v.p, action, set))
}

func (v *visit) password(p lab.Person) {
	v.t.Helper()
	v.who = p
	v.seen = len(v.l.Bank.Inbox(p.Phone))
	v.submit("password", map[string]string{"username": p.Username, "password": p.Password})
}

func (v *visit) sms() {
	v.t.Helper()
	v.submit("method", map[string]string{"method": "sms"})
}

// inbox waits for the n-th message of this login and returns its code.
func (v *visit) inbox(n int) string {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	all, err := v.l.Bank.Wait(ctx, v.who.Phone, v.seen+n)
	if err != nil {
		v.t.Fatalf("no message on the phone: %v", err)
	}
	return codeIn(v.t, all[v.seen+n-1])
}

func codeIn(t *testing.T, m modemsim.SMS) string {
	t.Helper()
	code, err := lab.Code(m)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

func (v *visit) code(code string) {
	v.t.Helper()
	v.submit("code", map[string]string{"code": code})
}

// arrived reports whether the page is the hand-over to the SP.
func (v *visit) arrived() bool { return v.p.Has("SAMLResponse") }

// consume gives the Response on the page to the SP's judge.
func (v *visit) consume() (*spsim.Login, error) {
	v.t.Helper()
	if !v.arrived() {
		v.t.Fatalf("no Response on the page (HTTP %d): %.300s", v.p.Status, v.p.Text)
	}
	return v.l.SP.Consume(v.p.Field("SAMLResponse"), v.p.Field("RelayState"))
}

// login walks the whole way and returns what the SP verified.
func login(t *testing.T, l *lab.Lab, by binding, level int, p lab.Person) (*visit, *spsim.Login) {
	t.Helper()
	v := arrive(t, l, by, spsim.Request{Level: level, RelayState: "relay \"<&>' è " + string(by)})
	v.password(p)
	if level == 2 {
		v.sms()
		v.code(v.inbox(1))
	}
	v.submit("consent", nil)
	got, err := v.consume()
	if err != nil {
		t.Fatalf("the service provider refuses: %v", err)
	}
	return v, got
}

// wrong returns a well-formed code that is not code.
func wrong(code string) string {
	if code[0] == '9' {
		return "0" + code[1:]
	}
	return string(code[0]+1) + code[1:]
}
