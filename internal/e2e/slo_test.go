package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"custode/simulators/browsersim"
	"custode/simulators/lab"
	"custode/simulators/spsim"
	"custode/simulators/spsim/slo"
)

// provider is a service provider with its part in single logout.
type provider struct {
	sp    *spsim.SP
	party *slo.Party
}

// circle is a lab with one SP for each way to be told of a logout.
type circle struct {
	t                      *testing.T
	l                      *lab.Lab
	all, redir, post, soap *provider
}

func newCircle(t *testing.T, policy map[string]string) *circle {
	t.Helper()
	f := &circle{t: t, l: own(t, lab.Config{Policy: policy})}
	f.all = f.add("all", "soap", "redirect", "post")
	f.redir, f.post, f.soap = f.add("redir", "redirect"), f.add("post", "post"), f.add("soap", "soap")
	if err := f.l.StopDaemon(); err != nil {
		t.Fatal(err)
	}
	if err := f.l.StartDaemon(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *circle) add(name string, bindings ...string) *provider {
	f.t.Helper()
	ln, err := net.Listen("tcp4", "localhost:0")
	if err != nil {
		f.t.Fatal(err)
	}
	base := fmt.Sprintf("http://localhost:%d", ln.Addr().(*net.TCPAddr).Port)
	sp, err := spsim.New(spsim.Config{BaseURL: base, IdPMetadataURL: f.l.IdP + "/metadata", LogoutBindings: bindings, OrganizationDisplayName: "Ente " + name})
	if err != nil {
		f.t.Fatal(err)
	}
	if err := sp.Open(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	p := &provider{sp, slo.New(sp)}
	server := &http.Server{Handler: p.party.Handler(func(w http.ResponseWriter, _ *http.Request, r slo.Result) {
		fmt.Fprintf(w, "uscita success=%v partial=%v relay=%s", r.Success(), r.Partial(), r.RelayState)
	}), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(ln) }()
	f.t.Cleanup(func() { _ = server.Close() })
	if err := f.l.RegisterSP(name, sp.Metadata()); err != nil {
		f.t.Fatal(err)
	}
	return p
}

// send brings the browser to the appliance with a request of p.
func (f *circle) send(b *browsersim.Browser, p *provider, r spsim.Request) *browsersim.Page {
	f.t.Helper()
	to, _, err := p.sp.RedirectURL(r)
	if err != nil {
		f.t.Fatal(err)
	}
	page, err := b.Get(to)
	if err != nil {
		f.t.Fatal(err)
	}
	return page
}

func (f *circle) submit(b *browsersim.Browser, page *browsersim.Page, button string, set map[string]string) *browsersim.Page {
	f.t.Helper()
	page, err := b.Submit(page, button, set)
	if err != nil {
		f.t.Fatal(err)
	}
	return page
}

func (f *circle) consume(p *provider, page *browsersim.Page) *spsim.Login {
	f.t.Helper()
	if !page.Has("SAMLResponse") {
		f.t.Fatalf("no Response (HTTP %d): %.400s", page.Status, page.Text)
	}
	login, err := p.sp.Consume(page.Field("SAMLResponse"), page.Field("RelayState"))
	if err != nil {
		f.t.Fatal(err)
	}
	p.party.LoggedIn(login)
	return login
}

// login logs in at level 1; with a session nobody asks for a password.
func (f *circle) login(b *browsersim.Browser, p *provider, who *lab.Person) *spsim.Login {
	f.t.Helper()
	page := f.send(b, p, spsim.Request{Level: 1})
	if who != nil {
		if !page.Has("password") {
			f.t.Fatalf("no password asked: %.300s", page.Text)
		}
		page = f.submit(b, page, "password", map[string]string{"username": who.Username, "password": who.Password})
	} else if page.Has("password") {
		f.t.Fatalf("the password is asked in a session: %.300s", page.Text)
	}
	return f.consume(p, f.submit(b, page, "consent", nil))
}

// everywhere logs the browser in at each SP.
func (f *circle) everywhere(b *browsersim.Browser, who lab.Person) (logins map[*provider]*spsim.Login) {
	f.t.Helper()
	logins = map[*provider]*spsim.Login{f.all: f.login(b, f.all, &who)}
	for _, p := range []*provider{f.redir, f.post, f.soap} {
		logins[p] = f.login(b, p, nil)
	}
	return logins
}

func sessionAt(l *spsim.Login) slo.Session {
	return slo.Session{NameID: l.NameID, Index: l.SessionIndex}
}

// follow presses the buttons of pages, as somebody without scripts does, until
// there is none or stop says so.
func (f *circle) follow(b *browsersim.Browser, page *browsersim.Page, stop func(*browsersim.Page) bool) *browsersim.Page {
	f.t.Helper()
	for range 20 {
		if len(page.Forms) == 0 || stop != nil && stop(page) {
			return page
		}
		page = f.submit(b, page, "", nil)
	}
	f.t.Fatalf("the chain does not end: %s", page.URL)
	return nil
}

func (f *circle) get(b *browsersim.Browser, to string) *browsersim.Page {
	f.t.Helper()
	page, err := b.Get(to)
	if err != nil {
		f.t.Fatal(err)
	}
	return page
}

// begin starts a logout from p by the binding and returns the first page.
func (f *circle) begin(b *browsersim.Browser, p *provider, by string, l *spsim.Login, o slo.Options) *browsersim.Page {
	f.t.Helper()
	if by == "redirect" {
		to, _, err := p.party.Redirect(sessionAt(l), o)
		if err != nil {
			f.t.Fatal(err)
		}
		return f.get(b, to)
	}
	action, fields, _, err := p.party.Post(sessionAt(l), o)
	if err != nil {
		f.t.Fatal(err)
	}
	page, err := b.Post(action, fields, p.sp.Config().BaseURL)
	if err != nil {
		f.t.Fatal(err)
	}
	return page
}

func (f *circle) noProblems() {
	f.t.Helper()
	for _, p := range []*provider{f.all, f.redir, f.post, f.soap} {
		for _, problem := range p.party.Problems() {
			f.t.Errorf("%s refused: %s", p.sp.EntityID(), problem)
		}
	}
}

// asked reports whether a level 1 login needs a password in this browser.
func (f *circle) asked(b *browsersim.Browser) bool {
	f.t.Helper()
	return f.send(b, f.all, spsim.Request{Level: 1}).Has("password")
}

// TestSingleSignOn walks the rules of the browser's session.
func TestSingleSignOn(t *testing.T) {
	t.Parallel()
	f := newCircle(t, nil)
	who, b := enrol(t, f.l), browsersim.New(nil)

	// Level 2 begins no session.
	page := f.send(b, f.all, spsim.Request{Level: 2})
	page = f.submit(b, page, "password", map[string]string{"username": who.Username, "password": who.Password})
	page = f.submit(b, page, "method", map[string]string{"method": "sms"})
	inbox, err := f.l.Bank.Wait(t.Context(), who.Phone, 1)
	if err != nil {
		t.Fatal(err)
	}
	page = f.submit(b, page, "code", map[string]string{"code": codeIn(t, inbox[0])})
	if l := f.consume(f.all, f.submit(b, page, "consent", nil)); l.SessionIndex != "" {
		t.Errorf("level 2 has a session index")
	}

	first := f.login(b, f.all, &who)
	second := f.login(b, f.redir, nil)
	if second.SessionIndex != first.SessionIndex || !second.AuthnInstant.Equal(first.AuthnInstant) || second.NameID == first.NameID {
		t.Errorf("first %s %s, second %s %s", first.SessionIndex, first.AuthnInstant, second.SessionIndex, second.AuthnInstant)
	}
	if second.Attributes["fiscalNumber"] != who.Attributes["fiscalNumber"] {
		t.Errorf("attributes %v", second.Attributes)
	}
	// Consent is asked each time, and refusing it costs the session nothing.
	page = f.submit(b, f.send(b, f.post, spsim.Request{Level: 1}), "refuse", nil)
	if _, err := f.post.sp.Consume(page.Field("SAMLResponse"), ""); err == nil || !strings.Contains(err.Error(), "22") {
		t.Errorf("refused consent: %v", err)
	}
	// A fresh authentication is asked for, or level 2: no use of the session.
	for name, r := range map[string]spsim.Request{"ForceAuthn": {Level: 1, ForceAuthn: "true"}, "level 2": {Level: 2}, "better": {Level: 1, Comparison: "better"}} {
		if !f.send(b, f.post, r).Has("password") {
			t.Errorf("%s: no password asked", name)
		}
	}
	if third := f.login(b, f.post, nil); third.SessionIndex != first.SessionIndex {
		t.Error("the session did not go on")
	}
	// Another browser has no part in it; nor a suspended identity.
	if !f.asked(browsersim.New(nil)) {
		t.Error("another browser is in the session")
	}
	session := f.get(b, f.l.IdP+"/session")
	for _, want := range []string{"Ada Lovati", "Ente all", "Ente redir", "Ente post"} {
		if !strings.Contains(session.Text, want) {
			t.Errorf("the session page lacks %q: %s", want, session.Text)
		}
	}
	if strings.Contains(session.Text, "Ente soap") {
		t.Error("an SP that was sent nothing took part")
	}
	if _, err := f.l.Run(t.Context(), "identity", "suspend", who.Username, "--reason", "test"); err != nil {
		t.Fatal(err)
	}
	page = f.send(b, f.soap, spsim.Request{Level: 1})
	if _, err := f.soap.sp.Consume(page.Field("SAMLResponse"), ""); err == nil || !strings.Contains(err.Error(), "23") {
		t.Errorf("suspended in a session: %v (%.200s)", err, page.Text)
	}
}

// TestSingleLogout: from one SP by each binding, each of the others is told by
// its own.
func TestSingleLogout(t *testing.T) {
	t.Parallel()
	f := newCircle(t, nil)
	who := enrol(t, f.l)
	for _, by := range []string{"redirect", "post"} {
		for _, from := range []*provider{f.all, f.redir, f.post} {
			if from == f.redir && by == "post" || from == f.post && by == "redirect" {
				continue // it publishes no endpoint to answer at
			}
			b := browsersim.New(nil)
			logins := f.everywhere(b, who)
			page := f.follow(b, f.begin(b, from, by, logins[from], slo.Options{RelayState: "torna è qui"}), nil)
			if !strings.Contains(page.Body, "uscita success=true") || !strings.Contains(page.Body, "relay=torna è qui") {
				t.Errorf("from %s by %s: %d %.300s", from.sp.EntityID(), by, page.Status, page.Body)
			}
			for p, l := range logins {
				if p.party.Open(l.NameID) {
					t.Errorf("from %s by %s: %s is still logged in", from.sp.EntityID(), by, p.sp.EntityID())
				}
			}
			if !f.asked(b) {
				t.Error("the session is open after a logout")
			}
		}
	}
	// Over SOAP only those that can be told over SOAP are told.
	b := browsersim.New(nil)
	logins := f.everywhere(b, who)
	result, _, err := f.soap.party.SOAP(t.Context(), sessionAt(logins[f.soap]), slo.Options{})
	if err != nil || !result.Partial() {
		t.Errorf("over SOAP: %+v, %v", result, err)
	}
	if f.all.party.Open(logins[f.all].NameID) || !f.redir.party.Open(logins[f.redir].NameID) || !f.asked(b) {
		t.Error("over SOAP: not the right SPs were told, or the session is open")
	}
	// Again, about a session that has ended: partial logout at once.
	if result, _, err := f.soap.party.SOAP(t.Context(), sessionAt(logins[f.soap]), slo.Options{}); err != nil || !result.Partial() {
		t.Errorf("ended session: %+v, %v", result, err)
	}
	page := f.follow(b, f.begin(b, f.redir, "redirect", logins[f.redir], slo.Options{Plain: true}), nil)
	if !strings.Contains(page.Body, "partial=true") {
		t.Errorf("ended session: %.300s", page.Body)
	}
	// With two that speak SOAP alone in the session it is a success.
	one, two := f.login(b, f.all, &who), f.login(b, f.soap, nil)
	if result, _, err := f.soap.party.SOAP(t.Context(), sessionAt(two), slo.Options{Plain: true}); err != nil || !result.Success() || f.all.party.Open(one.NameID) {
		t.Errorf("over SOAP: %+v, %v", result, err)
	}
	// An SP that wants no answer leaves the person with us.
	one = f.login(b, f.all, &who)
	page = f.follow(b, f.begin(b, f.all, "redirect", one, slo.Options{Async: true}), nil)
	if !strings.HasPrefix(page.URL.String(), f.l.IdP+"/logout/") || !strings.Contains(page.Text, "Sei uscito") {
		t.Errorf("asynchronous: %s %.300s", page.URL, page.Text)
	}
	f.noProblems()
}

// TestHostileLogout: nobody ends a session they have no part in.
func TestHostileLogout(t *testing.T) {
	t.Parallel()
	f := newCircle(t, nil)
	who, b := enrol(t, f.l), browsersim.New(nil)
	victim := f.login(b, f.all, &who)
	stranger := browsersim.New(nil)
	for name, c := range map[string]struct {
		from   *provider
		s      *spsim.Login
		o      slo.Options
		status int
	}{
		"another SP's NameID":  {f.redir, victim, slo.Options{}, 200},
		"another index":        {f.all, &spsim.Login{NameID: victim.NameID, SessionIndex: "_other"}, slo.Options{}, 200},
		"another NameID":       {f.all, &spsim.Login{NameID: "_other", SessionIndex: victim.SessionIndex}, slo.Options{}, 200},
		"signed by a stranger": {f.all, victim, slo.Options{Stranger: true}, 403},
	} {
		page := f.follow(stranger, f.begin(stranger, c.from, "redirect", c.s, c.o), nil)
		if page.Status != c.status || c.status == 200 && !strings.Contains(page.Body, "partial=true") {
			t.Errorf("%s: %d %.300s", name, page.Status, page.Text)
		}
		if c.status == 403 && !strings.Contains(page.Text, "Impossibile stabilire l'autenticità della richiesta di uscita") {
			t.Errorf("%s: %s", name, page.Text)
		}
		if f.asked(b) {
			t.Fatalf("%s: the session ended", name)
		}
	}
	if _, status, err := f.all.party.SOAP(t.Context(), sessionAt(victim), slo.Options{Stranger: true}); err == nil || status != 403 {
		t.Errorf("over SOAP: %d, %v", status, err)
	}
	for _, path := range []string{"/slo/redirect", "/slo/redirect?SAMLRequest=x", "/slo/redirect?SAMLResponse=x&SigAlg=y&Signature=z"} {
		if page := f.get(stranger, f.l.IdP+path); page.Status != 403 {
			t.Errorf("%s: %d", path, page.Status)
		}
	}
	// A replay of the request that ended the session changes nothing, in whatever
	// browser, and shows nothing of it.
	other := f.login(b, f.redir, nil)
	to, _, err := f.all.party.Redirect(sessionAt(victim), slo.Options{})
	if err != nil {
		t.Fatal(err)
	}
	page := f.get(b, to)
	if replay := f.get(stranger, to); !strings.Contains(replay.Body, "partial=true") {
		t.Errorf("replayed: %s %.300s", replay.URL, replay.Text)
	}
	// The stranger holds no cookie of the logout.
	if stolen := f.get(stranger, page.URL.String()); stolen.Status != 403 || strings.Contains(stolen.Text, "Ente") {
		t.Errorf("another browser sees the logout: %d %.300s", stolen.Status, stolen.Text)
	}
	f.follow(b, page, nil)
	if f.redir.party.Open(other.NameID) {
		t.Error("the chain did not go on")
	}

	// An SP that brings its own request, in a browser that is not the person's,
	// ends the session and learns of no other SP; those by SOAP are told.
	for _, by := range []string{"redirect", "post"} {
		logins := f.everywhere(b, who)
		page = f.begin(stranger, f.all, by, logins[f.all], slo.Options{})
		for range 3 {
			if strings.Contains(page.Body, "Ente") || !strings.HasPrefix(page.URL.String(), f.l.IdP) && !strings.HasPrefix(page.URL.String(), f.all.sp.Config().BaseURL) {
				t.Errorf("by %s the stranger is shown %s: %.300s", by, page.URL, page.Text)
			}
			if len(page.Forms) == 0 {
				break
			}
			page = f.submit(stranger, page, "", nil)
		}
		if !strings.Contains(page.Body, "partial=true") || !f.asked(b) || f.soap.party.Open(logins[f.soap].NameID) || !f.redir.party.Open(logins[f.redir].NameID) {
			t.Errorf("by %s: %.300s", by, page.Text)
		}
	}
}

// TestDeadProviders: who does not answer costs bounded time and a partial logout,
// never the chain.
func TestDeadProviders(t *testing.T) {
	t.Parallel()
	f := newCircle(t, map[string]string{"session.logout_per_sp": "1s", "session.logout_total": "2s"})
	who := enrol(t, f.l)
	for name, b := range map[string]slo.Behaviour{"silent": {Silent: true}, "slow": {Delay: 30 * time.Second}, "partial": {Partial: true}, "stranger": {Stranger: true}} {
		browser := browsersim.New(nil)
		f.soap.party.Behave(b)
		logins := f.everywhere(browser, who)
		began := time.Now()
		page := f.follow(browser, f.begin(browser, f.all, "redirect", logins[f.all], slo.Options{}), nil)
		if took := time.Since(began); took > 8*time.Second {
			t.Errorf("SOAP %s: took %v", name, took)
		}
		if !strings.Contains(page.Body, "partial=true") || f.redir.party.Open(logins[f.redir].NameID) || f.post.party.Open(logins[f.post].NameID) {
			t.Errorf("SOAP %s: %.300s", name, page.Body)
		}
	}
	f.soap.party.Behave(slo.Behaviour{})

	// The browser is left on a dead page; the person goes back and goes on.
	browser := browsersim.New(nil)
	f.redir.party.Behave(slo.Behaviour{Silent: true})
	logins := f.everywhere(browser, who)
	start := f.begin(browser, f.all, "post", logins[f.all], slo.Options{})
	dead := f.follow(browser, start, func(p *browsersim.Page) bool { return p.Status >= 500 })
	if dead.Status < 500 {
		t.Fatalf("nobody is dead: %s", dead.URL)
	}
	if resume := f.get(browser, f.l.IdP+"/session"); !strings.Contains(resume.Body, start.URL.Path) {
		t.Errorf("the session page does not lead back: %s", resume.Text)
	}
	stuck := f.get(browser, start.URL.String())
	if !strings.Contains(stuck.Text, "non ha ancora risposto") {
		t.Errorf("stuck page: %s", stuck.Text)
	}
	page := f.follow(browser, stuck, nil)
	if !strings.Contains(page.Body, "partial=true") || f.post.party.Open(logins[f.post].NameID) {
		t.Errorf("after skipping: %.300s", page.Body)
	}
	// A wrong signature through the browser is refused, and the person skips too.
	browser = browsersim.New(nil)
	f.redir.party.Behave(slo.Behaviour{Stranger: true})
	logins = f.everywhere(browser, who)
	start = f.begin(browser, f.all, "redirect", logins[f.all], slo.Options{})
	refused := f.follow(browser, start, func(p *browsersim.Page) bool { return p.Status == 403 })
	if refused.Status != 403 {
		t.Errorf("wrong signature: %d %.300s", refused.Status, refused.Text)
	}
	if page := f.follow(browser, f.get(browser, start.URL.String()), nil); !strings.Contains(page.Body, "partial=true") {
		t.Errorf("after a wrong signature: %.300s", page.Body)
	}
}

// TestKillMidLogout: the session is closed before anything else, and the chain
// goes on after a power cut at any page.
func TestKillMidLogout(t *testing.T) {
	t.Parallel()
	f := newCircle(t, nil)
	who, b := enrol(t, f.l), browsersim.New(nil)
	logins := f.everywhere(b, who)
	page := f.begin(b, f.all, "redirect", logins[f.all], slo.Options{RelayState: "kept"})
	for steps := 0; len(page.Forms) > 0; steps++ {
		if steps > 10 {
			t.Fatal("the chain does not end")
		}
		if strings.HasPrefix(page.URL.String(), f.l.IdP+"/logout/") && strings.Contains(page.Body, `value="go"`) {
			restart(t, f.l)
			page = f.get(b, page.URL.String())
		}
		page = f.submit(b, page, "", nil)
	}
	if !strings.Contains(page.Body, "success=true") || !strings.Contains(page.Body, "relay=kept") {
		t.Errorf("%.300s", page.Body)
	}
	if !f.asked(b) {
		t.Error("the session is open")
	}

	// While an SP is slow over SOAP.
	one := f.login(b, f.all, &who)
	f.login(b, f.soap, nil)
	f.soap.party.Behave(slo.Behaviour{Delay: 3 * time.Second})
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, _, err := f.all.party.SOAP(ctx, sessionAt(one), slo.Options{})
		failed <- err
	}()
	for deadline := time.Now().Add(10 * time.Second); len(f.soap.party.Told()) < 2 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	restart(t, f.l)
	cancel()
	if err := <-failed; err == nil {
		t.Error("an answer left a killed daemon")
	}
	if !f.asked(b) {
		t.Error("the session is open after a kill while it was being told")
	}
	f.soap.party.Behave(slo.Behaviour{})
	// The SP repeats itself and the logout is finished.
	if result, _, err := f.all.party.SOAP(t.Context(), sessionAt(one), slo.Options{}); err != nil || !result.Success() {
		t.Errorf("repeated after the kill: %+v, %v", result, err)
	}
}

// TestLeaveByThePage: the person ends the session at the identity provider.
func TestLeaveByThePage(t *testing.T) {
	t.Parallel()
	f := newCircle(t, nil)
	who, b := enrol(t, f.l), browsersim.New(nil)
	logins := f.everywhere(b, who)
	home := f.get(b, f.l.IdP+"/")
	if !strings.Contains(home.Body, `href="/session"`) {
		t.Error("the home page does not lead to the session")
	}
	page := f.get(b, f.l.IdP+"/session")
	// Another site cannot press the button.
	forged, err := b.Post(f.l.IdP+"/session", url.Values{"action": {"logout"}, "token": {page.Field("token")}}, "https://evil.example")
	if err != nil || forged.Status != 403 {
		t.Errorf("forged: %d, %v", forged.Status, err)
	}
	forged, err = b.Post(f.l.IdP+"/session", url.Values{"action": {"logout"}, "token": {"x"}}, f.l.IdP)
	if err != nil || forged.Status != 403 || f.asked(b) {
		t.Errorf("without the token: %d, %v", forged.Status, err)
	}
	page = f.follow(b, f.submit(b, page, "logout", nil), nil)
	if !strings.Contains(page.Text, "Sei uscito") || strings.Contains(page.Text, "non confermata") {
		t.Errorf("%s: %s", page.URL, page.Text)
	}
	for p, l := range logins {
		if p.party.Open(l.NameID) {
			t.Errorf("%s is still logged in", p.sp.EntityID())
		}
	}
	if page = f.get(b, f.l.IdP+"/session"); !strings.Contains(page.Text, "non c'è alcuna sessione") || !f.asked(b) {
		t.Errorf("afterwards: %s", page.Text)
	}
	f.noProblems()
}

// TestSessionsTurnedOff: every login asks, and a logout request is still
// answered.
func TestSessionsTurnedOff(t *testing.T) {
	t.Parallel()
	f := newCircle(t, map[string]string{"session.disabled": "true"})
	who, b := enrol(t, f.l), browsersim.New(nil)
	one, two := f.login(b, f.all, &who), f.login(b, f.redir, &who)
	if one.SessionIndex == two.SessionIndex || one.SessionIndex == "" {
		t.Errorf("indexes %q and %q", one.SessionIndex, two.SessionIndex)
	}
	page := f.follow(b, f.begin(b, f.all, "redirect", one, slo.Options{}), nil)
	if !strings.Contains(page.Body, "partial=true") {
		t.Errorf("%.300s", page.Body)
	}
}
