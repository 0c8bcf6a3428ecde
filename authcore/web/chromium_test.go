package web

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"custode/authcore"
	"custode/authcore/saml"
	"custode/internal/fault"
	"custode/internal/id"
)

// theBrowser is started by the first test that wants it and ended by TestMain.
var theBrowser struct {
	once sync.Once
	ctx  context.Context
	err  error
	stop func()
}

func TestMain(m *testing.M) {
	code := m.Run()
	if theBrowser.stop != nil {
		theBrowser.stop()
	}
	os.Exit(code)
}

func startBrowser() {
	path, err := exec.LookPath("chromium")
	if err != nil {
		theBrowser.err = errors.New("no chromium: install the Debian package chromium")
		return
	}
	profile, err := os.MkdirTemp("", "custode-web-test-")
	if err != nil {
		theBrowser.err = err
		return
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.IgnoreCertErrors, chromedp.UserDataDir(profile), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("accept-lang", "it-IT,it"))
	ctx, end := chromedp.NewExecAllocator(context.Background(), opts...)
	theBrowser.ctx, _ = chromedp.NewContext(ctx)
	theBrowser.stop = func() {
		_ = chromedp.Cancel(theBrowser.ctx)
		end()
		_ = os.RemoveAll(profile)
	}
	theBrowser.err = chromedp.Do(theBrowser.ctx, chromedp.Navigate("about:blank"))
}

// chromium opens a tab with a cookie jar of its own.
func chromium(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	if testing.Short() {
		t.Skip("drives a browser: not with -short")
	}
	theBrowser.once.Do(startBrowser)
	if theBrowser.err != nil {
		t.Fatalf("start chromium: %v", theBrowser.err)
	}
	ctx, cancel := chromedp.NewContext(theBrowser.ctx, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, limit)
	t.Cleanup(cancel)
	act(t, ctx, chromedp.Navigate("about:blank"))
	return ctx
}

func act(t *testing.T, ctx context.Context, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(ctx, steps...); err != nil {
		t.Fatal(err)
	}
}

func eval[T any](t *testing.T, ctx context.Context, expression string, opts ...chromedp.EvaluateOption) T {
	t.Helper()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, opts...))
	if err != nil {
		t.Fatalf("%.80s: %v", expression, err)
	}
	return v
}

// follow does steps that load a page and waits until it is there.
func follow(t *testing.T, ctx context.Context, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	loaded := chromedp.Events(ctx, cdppage.LoadEventFired)
	act(t, ctx, steps...)
	for _, err := range loaded {
		if err != nil {
			t.Fatal(err)
		}
		return
	}
}

// scriptedLogin is a fake of the login: wrong password once, wrong code once.
type scriptedLogin struct {
	mu      sync.Mutex
	t       testing.TB
	view    authcore.View
	browser [32]byte
	answers []string
	acs     string
}

func (s *scriptedLogin) install(f *fakeLogins) {
	f.begin = func(v authcore.Visitor) (id.FlowID, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.view, s.browser, s.answers = *testView(s.t, authcore.StepCredentials), v.Browser, nil
		return s.view.Flow, nil
	}
	f.view = func(_ context.Context, _ id.FlowID, v authcore.Visitor) (authcore.Outcome, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if v.Browser != s.browser {
			s.t.Error("another browser")
		}
		view := *testView(s.t, s.view.Step)
		return authcore.Outcome{View: &view}, nil
	}
	f.answer = func(_ id.FlowID, v authcore.Visitor, a authcore.Answer) (authcore.Outcome, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if v.Browser != s.browser {
			s.t.Error("another browser")
		}
		s.answers = append(s.answers, fmt.Sprintf("%T%v", a, a))
		notice := authcore.NoticeNone
		switch a := a.(type) {
		case authcore.PasswordAnswer:
			if notice = authcore.NoticeWrongCredentials; a.Password == "right èà+" {
				notice, s.view.Step = 0, authcore.StepMethod
			}
		case authcore.MethodAnswer:
			notice, s.view.Step = authcore.NoticeCodeSent, authcore.StepCode
		case authcore.CodeAnswer:
			if notice = authcore.NoticeWrongCode; a.Code == "123456" {
				notice, s.view.Step = 0, authcore.StepConsent
			}
		default:
			s.view.Step = authcore.StepDone
			r := testSigned(saml.Success)
			r.ACS = s.acs
			return authcore.Outcome{Response: r, Proof: recorded{}}, nil
		}
		view := *testView(s.t, s.view.Step)
		view.Notice, view.AttemptsLeft = notice, 2
		return authcore.Outcome{View: &view}, nil
	}
}

// received is what the service provider's ACS was sent.
type received struct {
	form            map[string][]string
	origin, referer string
}

// TestLoginInChromium goes the whole way with a service provider on another
// site, over https as in production with and without scripts, and over
// http://localhost as in development.
func TestLoginInChromium(t *testing.T) {
	for _, c := range []struct{ https, scripts bool }{{true, true}, {true, false}, {false, true}} {
		t.Run(fmt.Sprintf("https=%v scripts=%v", c.https, c.scripts), func(t *testing.T) { loginInChromium(t, c.https, c.scripts) })
	}
}

// startSP starts a service provider: a page with the request, an ACS, and (over
// https) another host of its own to which the ACS redirects.
func startSP(t *testing.T, https bool, origin string, acs chan<- received) *httptest.Server {
	start := func(h http.HandlerFunc) *httptest.Server {
		srv := httptest.NewUnstartedServer(h)
		if https {
			srv.StartTLS()
		} else {
			srv.Start()
		}
		t.Cleanup(srv.Close)
		return srv
	}
	inside := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `<!DOCTYPE html><p id="in">inside</p>`) }
	after := "/in"
	if https {
		after = start(inside).URL
	}
	return start(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/acs":
			if err := r.ParseForm(); err != nil {
				t.Error(err)
			}
			acs <- received{r.PostForm, r.Header.Get("Origin"), r.Header.Get("Referer")}
			http.Redirect(w, r, after, http.StatusFound)
		case "/in":
			inside(w, r)
		default:
			fmt.Fprintf(w, `<!DOCTYPE html><form method="post" action="%s/sso/post"><input type="hidden" name="SAMLRequest" value="PHg+"><button id="go">go</button></form>`, origin)
		}
	})
}

// answerPages goes from the first page to the consent, with a mistake and a
// reload on the way.
func answerPages(t *testing.T, ctx context.Context) {
	t.Helper()
	follow(t, ctx, chromedp.SendKeys("#username", "mario"), chromedp.SendKeys("#password", "wrong"+kb.Enter))
	act(t, ctx, chromedp.WaitVisible(".notice.error"))
	follow(t, ctx, chromedp.Reload()) // must not send the password again
	act(t, ctx, chromedp.WaitVisible(".notice.error"))
	follow(t, ctx, chromedp.Click(".langs a[lang=en]"))
	if got, err := chromedp.Run(ctx, chromedp.Text("#notice")); err != nil || got != "Wrong username or password. You have 2 attempts left." {
		t.Errorf("notice in English %q, %v", got, err)
	}
	follow(t, ctx, chromedp.Click(".langs a[lang=it]"))
	follow(t, ctx, chromedp.SendKeys("#username", "mario"), chromedp.SendKeys("#password", "right èà+"), chromedp.Click("button[value=password]"))
	follow(t, ctx, chromedp.Click("button[value=method]"))
	act(t, ctx, chromedp.WaitVisible(".notice.success"))
	follow(t, ctx, chromedp.SendKeys("#code", "000000"), chromedp.Click("button[value=code]"))
	follow(t, ctx, chromedp.Reload())
	follow(t, ctx, chromedp.SendKeys("#code", "123 456"), chromedp.Click("button[value=code]"))
	act(t, ctx, chromedp.WaitVisible("button[value=consent]"))
}

// loginRoom serves the scripted login to a browser tab, and a service provider
// to come from.
func loginRoom(t *testing.T, https, scripts bool) (ctx context.Context, room *testRoom, login *scriptedLogin, origin, sp string, acs chan received) {
	ctx = chromium(t, time.Minute)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	origin = map[bool]string{true: "https", false: "http"}[https] + "://localhost:" + port
	room = newRoom(t, func(c *Config) {
		c.PublicURL, c.DevelopmentHTTP = origin, !https
		c.Limits.Shutdown = time.Second // Chromium keeps a connection ready that never sends
		if https {
			c.CertFile, c.KeyFile, _ = selfSigned(t, t.TempDir())
		}
	})
	serving, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- room.Serve(serving, ln) }()
	t.Cleanup(func() {
		stop()
		<-done
		if t.Failed() {
			t.Log(room.log.String())
		}
	})
	acs = make(chan received, 4)
	sp = startSP(t, https, origin, acs).URL
	login = &scriptedLogin{t: t, acs: sp + "/acs"}
	login.install(room.logins)
	if !scripts {
		if _, err := chromedp.Call(ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
			t.Fatal(err)
		}
	}
	return ctx, room, login, origin, sp, acs
}

func loginInChromium(t *testing.T, https, scripts bool) {
	ctx, room, login, origin, sp, acs := loginRoom(t, https, scripts)
	act(t, ctx, chromedp.Navigate(sp))
	follow(t, ctx, chromedp.Click("#go"))
	answerPages(t, ctx)
	follow(t, ctx, chromedp.Click("button[value=consent]"))
	if !scripts {
		act(t, ctx, chromedp.WaitVisible("#lang-it button"))
		select {
		case <-acs:
			t.Fatal("sent without a click and without scripts")
		default:
		}
		act(t, ctx, chromedp.Click("#lang-it button"))
	}
	act(t, ctx, chromedp.WaitVisible("#in")) // CSP let the redirect pass

	got := <-acs
	if rs := got.form["RelayState"]; len(rs) != 1 || rs[0] != relayStateSample {
		t.Errorf("RelayState %q, want %q", rs, relayStateSample)
	}
	if xml, err := base64.StdEncoding.DecodeString(got.form["SAMLResponse"][0]); err != nil || string(xml) != string(testSigned(1).XML) || len(got.form) != 2 {
		t.Errorf("form %q, %v", got.form, err)
	}
	if got.origin != origin || got.referer != origin+"/" {
		t.Errorf("Origin %q, Referer %q", got.origin, got.referer)
	}
	want := []string{"authcore.PasswordAnswer{mario wrong}", "authcore.PasswordAnswer{mario right èà+}", "authcore.MethodAnswer{sms }",
		"authcore.CodeAnswer{000000}", "authcore.CodeAnswer{123456}", "authcore.ConsentAnswer{}"}
	if strconv.Quote(strings.Join(login.answers, "\n")) != strconv.Quote(strings.Join(want, "\n")) {
		t.Errorf("answers:\n%s", strings.Join(login.answers, "\n"))
	}
	// The way back is closed.
	room.logins.view = func(context.Context, id.FlowID, authcore.Visitor) (authcore.Outcome, error) {
		return authcore.Outcome{}, fault.New(fault.Conflict, "view", nil)
	}
	act(t, ctx, chromedp.Navigate(origin+"/flow/"+testFlowText))
	if got, err := chromedp.Run(ctx, chromedp.Text("h1")); err != nil || got != "Accesso già concluso" {
		t.Errorf("after the hand-over: %q, %v", got, err)
	}
}
