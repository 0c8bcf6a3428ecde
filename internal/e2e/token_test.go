package e2e

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"custode/simulators/appsim"
	"custode/simulators/lab"
	"custode/simulators/spsim"
)

// debian runs a Debian tool and returns its output.
func debian(t *testing.T, pack, stdin, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is missing: install the Debian package %s", name, pack)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, errs.String())
	}
	return strings.TrimSpace(string(out))
}

// otpauth is what a QR code says.
type otpauth struct{ url.Values }

// enrolQR gives the person a virtual device by QR code, as a telephone reads it.
func enrolQR(t *testing.T, l *lab.Lab, p lab.Person) (serial string, uri otpauth) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "qr.png")
	out, err := l.Run(t.Context(), "token", "enrol", p.Username, "--png", file)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(debian(t, "zbar-tools", "", "zbarimg", "--quiet", "--raw", file))
	if err != nil || u.Scheme != "otpauth" || u.Host != "totp" {
		t.Fatalf("QR code: %v %v", u, err)
	}
	return word(t, out, `serial: (\S+)`), otpauth{u.Query()}
}

func word(t *testing.T, text, pattern string) string {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("no %s in %s", pattern, text)
	}
	return m[1]
}

// code is what the authenticator shows some time steps from now.
func (u otpauth) code(t *testing.T, steps int) string {
	t.Helper()
	at := time.Now().Add(time.Duration(steps) * 30 * time.Second)
	return debian(t, "oathtool", u.Get("secret")+"\n", "oathtool", "--base32", "--totp="+u.Get("algorithm"), "--digits="+u.Get("digits"),
		"--time-step-size="+u.Get("period")+"s", fmt.Sprintf("--now=@%d", at.Unix()), "-")
}

// feed runs a subcommand with text on its standard input.
func feed(t *testing.T, l *lab.Lab, text string, args ...string) (string, error) {
	t.Helper()
	return l.Feed(t.Context(), text, args...)
}

// activated is a person with an active app.
func activated(t *testing.T, l *lab.Lab) (lab.Person, string, otpauth) {
	t.Helper()
	p := enrol(t, l)
	serial, uri := enrolQR(t, l, p)
	if out, err := feed(t, l, uri.code(t, -1), "token", "activate", serial); err != nil || !strings.Contains(out, `"state": "active"`) {
		t.Fatalf("activate: %v %s", err, out)
	}
	return p, serial, uri
}

// choose picks a second factor by its kind on the method page.
func (v *visit) choose(kind string) {
	v.t.Helper()
	m := regexp.MustCompile(`value="(` + kind + `(?:-[0-9a-f]+)?)"`).FindStringSubmatch(v.p.Body)
	if m == nil {
		v.t.Fatalf("no %s on the method page: %s", kind, v.p.Text)
	}
	v.submit("method", map[string]string{"method": m[1]})
}

// TestAppLogin: a login with a TOTP app, whose code another program computes from the QR
// code; the next login offers it first; the record names it; the code opens nothing twice.
func TestAppLogin(t *testing.T) {
	l := shared(t)
	p, serial, uri := activated(t, l)
	v := arrive(t, l, redirect, spsim.Request{Level: 2})
	v.password(p)
	if !strings.Contains(v.p.Text, "•••"+serial[len(serial)-4:]) || strings.Contains(v.p.Body, serial) {
		t.Errorf("the method page: %s", v.p.Text)
	}
	v.choose("app")
	if strings.Contains(v.p.Text, "Invia di nuovo") {
		t.Error("a code that nobody sends can be sent again")
	}
	code := uri.code(t, 0)
	v.code(code)
	if !strings.Contains(v.p.Text, "codice dell'app •••"+serial[len(serial)-4:]) {
		t.Errorf("the consent page does not say what was used: %s", v.p.Text)
	}
	v.submit("consent", nil)
	if got, err := v.consume(); err != nil || got.Level != 2 {
		t.Fatalf("%v %v", got, err)
	}
	next := arrive(t, l, redirect, spsim.Request{Level: 2})
	next.password(p)
	if !regexp.MustCompile(`value="app-[0-9a-f]+" checked`).MatchString(next.p.Body) {
		t.Errorf("the choice was not remembered: %s", next.p.Body)
	}
	next.choose("app")
	next.code(code)
	if !next.p.Has("code") || !strings.Contains(next.p.Text, "già stato usato") {
		t.Errorf("a used code: %s", next.p.Text)
	}
	next.submit("other", nil)
	next.sms() // another method of the same login
	next.code(next.inbox(1))
	next.submit("consent", nil)
	if _, err := next.consume(); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(sharedLog.String(), uri.Get("secret")) {
		t.Error("the seed is in the log")
	}
}

// shownDevice is what `custode token show` prints.
type shownDevice struct {
	State   string
	Failed  int `json:"wrongCodesInARow"`
	History []struct{ To, Reason string }
}

func shown(t *testing.T, l *lab.Lab, serial string) (d shownDevice) {
	t.Helper()
	out, err := l.Run(t.Context(), "token", "show", serial)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(out), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// pskcFile is a delivery of one HOTP device, seeds in clear.
func pskcFile(serial string, seed []byte) string {
	return `<?xml version="1.0" encoding="UTF-8"?>
<KeyContainer Version="1.0" Id="c1" xmlns="urn:ietf:params:xml:ns:keyprov:pskc"><KeyPackage>
<DeviceInfo><Manufacturer>oath.Test</Manufacturer><SerialNo>` + serial + `</SerialNo></DeviceInfo>
<Key Id="` + serial + `" Algorithm="urn:ietf:params:xml:ns:keyprov:pskc:hotp"><AlgorithmParameters><ResponseFormat Length="6" Encoding="DECIMAL"/></AlgorithmParameters>
<Data><Secret><PlainValue>` + base64.StdEncoding.EncodeToString(seed) + `</PlainValue></Secret><Counter><PlainValue>0</PlainValue></Counter></Data></Key>
</KeyPackage></KeyContainer>
`
}

// hotp is what a hardware device shows at a counter.
func hotp(t *testing.T, seed string, counter int) string {
	t.Helper()
	return debian(t, "oathtool", seed+"\n", "oathtool", "--hotp", "--digits=6", fmt.Sprintf("--counter=%d", counter), "-")
}

// delivered imports one HOTP device from a file that pskctool has passed, and gives it to the person.
func delivered(t *testing.T, l *lab.Lab, p lab.Person, serial, seed string) {
	t.Helper()
	raw, err := hex.DecodeString(seed)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	draft, file := filepath.Join(dir, "draft.xml"), filepath.Join(dir, "pskc.xml")
	if err := os.WriteFile(draft, []byte(pskcFile(serial, raw)), 0o600); err != nil {
		t.Fatal(err)
	}
	key, cert := filepath.Join(dir, "key.pem"), filepath.Join(dir, "cert.pem")
	debian(t, "openssl", "", "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=vendor", "-keyout", key, "-out", cert)
	signed := debian(t, "pskctool", "", "pskctool", "--sign", "--sign-key="+key, "--sign-crt="+cert, draft)
	if err := os.WriteFile(file, []byte(signed), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Run(t.Context(), "token", "import", file, "--reason", "test"); err == nil {
		t.Error("seeds in clear were imported without being told to")
	}
	if out, err := l.Run(t.Context(), "token", "import", file, "--plain", "--reason", "test"); err != nil || !strings.Contains(out, `"devices":1`) {
		t.Fatalf("import: %v %s", err, out)
	}
	if out, err := l.Run(t.Context(), "token", "assign", serial, p.Username); err != nil || !strings.Contains(out, `"state": "delivered"`) {
		t.Fatalf("assign: %v %s", err, out)
	}
}

// TestHardwareDevice: a delivery through pskctool, assignment, activation with alignment, a
// login, blockage by ten wrong codes over several logins, unblocking, resynchronisation.
func TestHardwareDevice(t *testing.T) {
	l := shared(t)
	const seed = "3132333435363738393031323334353637383930"
	p := enrol(t, l, func(p *lab.Person) { p.Phone = "" })
	serial := "HW-" + p.Attributes["spidCode"]
	delivered(t, l, p, serial, seed)
	if _, err := feed(t, l, "000000", "token", "activate", serial); err == nil {
		t.Fatal("a wrong code activates")
	}
	// The button was pressed forty times in the drawer: one code is not enough, two are.
	if _, err := feed(t, l, hotp(t, seed, 40), "token", "activate", serial); err == nil {
		t.Fatal("one far code activates")
	}
	out, err := feed(t, l, hotp(t, seed, 40)+"\n"+hotp(t, seed, 41)+"\n", "token", "activate", serial)
	if err != nil {
		t.Fatal(err)
	}
	if code := word(t, out, `"emergencyCode": "([A-Z2-7-]+)"`); len(code) != 24 {
		t.Errorf("emergency code %q", code)
	}
	token := func(code string) *visit {
		v := arrive(t, l, post, spsim.Request{Level: 2})
		v.password(p)
		v.choose("token")
		v.code(code)
		return v
	}
	v := token(hotp(t, seed, 45)) // within the look-ahead
	v.submit("consent", nil)
	if _, err := v.consume(); err != nil {
		t.Fatal(err)
	}
	if v = token(hotp(t, seed, 44)); !v.p.Has("code") {
		t.Errorf("a counter before the accepted one: %s", v.p.Text)
	}
	for d := shown(t, l, serial); d.Failed < 9; d = shown(t, l, serial) {
		v = token("000000")
		for v.p.Has("code") && shown(t, l, serial).Failed < 9 {
			v.code("000000")
		}
	}
	v = token("000000") // the tenth
	v.anomaly(23)
	if d := shown(t, l, serial); d.State != "blocked" {
		t.Fatalf("%+v", d)
	}
	v = arrive(t, l, post, spsim.Request{Level: 2})
	v.password(p) // nothing else to log in with
	v.anomaly(23)
	if _, err := l.Run(t.Context(), "token", "unblock", serial, "--reason", "checked by telephone"); err != nil {
		t.Fatal(err)
	}
	if v = token(hotp(t, seed, 90)); !v.p.Has("code") {
		t.Fatalf("a far counter: %s", v.p.Text)
	}
	if _, err := feed(t, l, hotp(t, seed, 90)+"\n"+hotp(t, seed, 91), "token", "resync", serial); err != nil {
		t.Fatal(err)
	}
	v = token(hotp(t, seed, 92))
	v.submit("consent", nil)
	if _, err := v.consume(); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		args  []string
		state string
	}{
		{[]string{"token", "block", serial, "--reason", "lost"}, "suspended"},
		{[]string{"token", "unblock", serial, "--reason", "found"}, "active"},
		{[]string{"token", "revoke", serial, "--reason", "broken"}, "revoked"},
	} {
		if out, err := l.Run(t.Context(), step.args...); err != nil || !strings.Contains(out, `"state": "`+step.state+`"`) {
			t.Errorf("%v: %v %s", step.args, err, out)
		}
	}
	v = arrive(t, l, post, spsim.Request{Level: 2})
	v.password(p)
	v.anomaly(20) // no credential of level 2 any more
}

// app is the reference app, as a subject runs it.
type app struct {
	appsim.App
	t *testing.T
	l *lab.Lab
}

// redeem asks for the seed with an activation code, and returns the HTTP status.
func (a *app) redeem(serial, code string) int {
	a.t.Helper()
	return a.status(a.Activate(a.t.Context(), a.l.IdP, serial, code))
}

func (a *app) status(err error) int {
	a.t.Helper()
	var refused appsim.StatusError
	if err != nil && !errors.As(err, &refused) {
		a.t.Fatal(err)
	}
	return max(int(refused), http.StatusOK)
}

// confirmed activates the app with the code of the time step before: the current one is for a login.
func (a *app) confirmed(serial, code string) (first, emergency string) {
	a.t.Helper()
	if got := a.redeem(serial, code); got != http.StatusOK {
		a.t.Fatalf("activate: %d", got)
	}
	first, err := a.Code(time.Now().Add(-30 * time.Second))
	if err != nil {
		a.t.Fatal(err)
	}
	emergency, err = a.Confirm(a.t.Context(), a.l.IdP, first)
	if err != nil {
		a.t.Fatal(err)
	}
	return first, emergency
}

// invited is a person with an activation code for our app.
func invited(t *testing.T, l *lab.Lab) (p lab.Person, serial, code string) {
	t.Helper()
	p = enrol(t, l)
	out, err := l.Run(t.Context(), "token", "enrol", p.Username, "--code")
	if err != nil {
		t.Fatal(err)
	}
	return p, word(t, out, `serial: (\S+)`), word(t, out, `activation code: (\S+)`)
}

// TestPushLogin: an app activated by code gets a pushed code, bound to the login by the number
// and the service's name; the code opens that login once and no other.
func TestPushLogin(t *testing.T) {
	l := shared(t)
	p, serial, code := invited(t, l)
	a := &app{t: t, l: l}
	if got := a.redeem(serial, "AAAA-AAAA-AAAA-AAAA"); got != http.StatusForbidden {
		t.Errorf("a wrong activation code: %d", got)
	}
	if got := a.redeem("APP-NOTHERE", code); got != http.StatusForbidden {
		t.Errorf("an unknown serial number: %d", got)
	}
	if _, emergency := a.confirmed(serial, strings.ToLower(code)); len(emergency) != 24 {
		t.Errorf("emergency code %q", emergency)
	}
	thief := &app{t: t, l: l}
	if got := thief.redeem(serial, code); got != http.StatusConflict {
		t.Errorf("the activation code was used twice: %d", got)
	}
	pushed := func(n int) (*visit, appsim.Push) {
		v := arrive(t, l, redirect, spsim.Request{Level: 2})
		v.password(p)
		v.choose("push")
		message, err := l.Pushes.Wait(t.Context(), serial, n)
		if err != nil {
			t.Fatal(err)
		}
		got, err := a.Open(message, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(v.p.Text, got.Number) || got.SPName == "" || !strings.Contains(v.p.Text, got.SPName) || !strings.Contains(v.p.URL.Path, got.Flow) {
			t.Errorf("the app says %+v, the page %s", got, v.p.Text)
		}
		return v, got
	}
	v, one := pushed(1)
	other, two := pushed(2)
	if one.Code != two.Code {
		other.code(one.Code) // of another login
		if !other.p.Has("code") {
			t.Errorf("a code of another login opened this one: %s", other.p.Text)
		}
	}
	v.code(one.Code)
	v.submit("consent", nil)
	if _, err := v.consume(); err != nil {
		t.Fatal(err)
	}
	other.submit("resend", nil)
	message, err := l.Pushes.Wait(t.Context(), serial, 3)
	if err != nil {
		t.Fatal(err)
	}
	three, err := a.Open(message, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	other.code(three.Code)
	other.submit("consent", nil)
	if _, err := other.consume(); err != nil {
		t.Fatal(err)
	}
	// The same app shows codes, too.
	w := arrive(t, l, redirect, spsim.Request{Level: 2})
	w.password(p)
	w.choose("app")
	now, err := a.Code(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	w.code(now)
	w.submit("consent", nil)
	if _, err := w.consume(); err != nil {
		t.Fatal(err)
	}
	if text := sharedLog.String(); strings.Contains(text, one.Code+`"`) || strings.Contains(text, code) {
		t.Error("a code is in the log")
	}
}

// TestSMSUnblock: ten wrong SMS codes in a row block them; an operator ends that.
func TestSMSUnblock(t *testing.T) {
	l := shared(t)
	p := enrol(t, l)
	for wrongs := 0; wrongs < 10; {
		v := arrive(t, l, post, spsim.Request{Level: 2})
		v.password(p)
		v.sms()
		bad := wrong(v.inbox(1))
		for i := 0; i < 3 && wrongs < 10; i++ {
			v.code(bad)
			wrongs++
		}
	}
	v := arrive(t, l, post, spsim.Request{Level: 2})
	v.password(p)
	v.anomaly(23)
	if _, err := l.Run(t.Context(), "token", "unblock", "--sms", p.Username, "--reason", "checked by telephone"); err != nil {
		t.Fatal(err)
	}
	if _, got := login(t, l, post, 2, p); got.Level != 2 {
		t.Errorf("%+v", got)
	}
}

// TestEmergencyCode: shown once, used once, for three things.
func TestEmergencyCode(t *testing.T) {
	l := shared(t)
	p, serial, _ := activated(t, l)
	out, err := l.Run(t.Context(), "token", "emergency", "issue", p.Username, "--reason", "the first was lost")
	if err != nil {
		t.Fatal(err)
	}
	code := word(t, out, `"emergencyCode": "([A-Z2-7-]+)"`)
	redeem := func(code string, args ...string) (string, error) {
		return feed(t, l, code, append([]string{"token", "emergency", "redeem", p.Username}, args...)...)
	}
	if _, err := redeem("AAAA-AAAA-AAAA-AAAA-AAAA", "--action", "replace", "--serial", serial); err == nil {
		t.Error("a wrong emergency code was taken")
	}
	out, err = redeem(code, "--action", "replace", "--serial", serial)
	if err != nil {
		t.Fatal(err)
	}
	if fresh := word(t, out, `"serial": "(\S+)"`); fresh == serial || shown(t, l, serial).State != "replaced" {
		t.Errorf("replaced by %s", fresh)
	}
	if _, err := redeem(code, "--action", "suspend"); err == nil {
		t.Error("the emergency code was used twice")
	}
	out, err = l.Run(t.Context(), "token", "emergency", "issue", p.Username, "--reason", "again")
	if err != nil {
		t.Fatal(err)
	}
	if out, err = redeem(word(t, out, `"emergencyCode": "([A-Z2-7-]+)"`), "--action", "suspend"); err != nil || !strings.Contains(out, "suspended") {
		t.Fatal(out, err)
	}
	v := arrive(t, l, post, spsim.Request{Level: 1})
	v.password(p)
	v.anomaly(23)
}

// TestOneCodeManyLogins: forty logins of one person type the same code at once, the expected one and
// one within the look-ahead: the token judges each, and one of them passes.
func TestOneCodeManyLogins(t *testing.T) {
	l := shared(t)
	const seed, logins = "3132333435363738393031323334353637383930", 40
	p := enrol(t, l)
	serial := "RACE-" + p.Attributes["spidCode"]
	delivered(t, l, p, serial, seed)
	if _, err := feed(t, l, hotp(t, seed, 0), "token", "activate", serial); err != nil {
		t.Fatal(err)
	}
	for _, counter := range []int{1, 9} {
		code := hotp(t, seed, counter)
		visits := make([]*visit, logins)
		for i := range visits {
			visits[i] = arrive(t, l, redirect, spsim.Request{Level: 2})
			visits[i].password(p)
			visits[i].choose("token")
		}
		var wg sync.WaitGroup
		errs := make([]error, logins)
		start := make(chan struct{})
		for i, v := range visits {
			wg.Go(func() {
				<-start
				v.p, errs[i] = v.b.Submit(v.p, "code", map[string]string{"code": code})
			})
		}
		close(start)
		wg.Wait()
		passed, repeated := 0, 0
		for i, v := range visits {
			switch {
			case errs[i] != nil:
				t.Error(errs[i])
			case strings.Contains(v.p.Body, `value="consent"`):
				passed++
			case strings.Contains(v.p.Text, "già stato usato"):
				repeated++
			}
		}
		if passed != 1 || repeated != logins-1 {
			t.Errorf("counter %d: %d logins passed, %d were told that the code was used", counter, passed, repeated)
		}
		if d := shown(t, l, serial); d.State != "active" || d.Failed != 0 {
			t.Errorf("%+v", d)
		}
	}
}

// TestDevicesInTheLogs: the register names the credential of a login, the security log every act
// about a device with its subject, and neither holds a code, a seed or an activation code.
func TestDevicesInTheLogs(t *testing.T) {
	l := shared(t)
	p, serial, uri := activated(t, l)
	v := arrive(t, l, redirect, spsim.Request{Level: 2})
	v.password(p)
	v.choose("app")
	code := uri.code(t, 0)
	bad := wrong(code)
	v.code(bad)
	v.code(code)
	v.submit("consent", nil)
	if _, err := v.consume(); err != nil {
		t.Fatal(err)
	}
	_, other, activation := invited(t, l)
	if got := (&app{t: t, l: l}).redeem(other, "AAAA-AAAA-AAAA-AAAA"); got != http.StatusForbidden {
		t.Errorf("%d", got)
	}
	if _, err := l.Run(t.Context(), "token", "revoke", serial, "--reason", "end of the test"); err != nil {
		t.Fatal(err)
	}
	transactions, events := plain(t, l, "transactions"), plain(t, l, "security")
	found := false
	for line := range strings.Lines(transactions) {
		found = found || strings.Contains(line, p.Attributes["spidCode"]) && strings.Contains(line, `"otp-app"`)
	}
	if !found {
		t.Error("the register does not say that an app was used")
	}
	for _, what := range []string{"token/enrol", "token/activate", "token/revoke", "app-refused", "code-wrong"} {
		if !strings.Contains(events, `"`+what+`"`) {
			t.Errorf("the security log does not hold %s", what)
		}
	}
	for line := range strings.Lines(events) {
		if strings.Contains(line, `"token/revoke"`) && strings.Contains(line, serial) && !strings.Contains(line, `"subject":"s_`) {
			t.Errorf("an act about a device without its subject: %s", line)
		}
		for _, secret := range []string{code, bad, uri.Get("secret"), activation} {
			if strings.Contains(line, `"`+secret) || strings.Contains(line, " "+secret) {
				t.Errorf("a secret is in the security log: %s", line)
			}
		}
	}
}
