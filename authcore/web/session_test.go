package web

import (
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"custode/authcore"
	"custode/authcore/saml"
	"custode/authcore/saml/logout"
	"custode/authcore/session"
	"custode/internal/fault"
	"custode/internal/id"
)

const testLogoutText = "l_0123456789abcdef0123456789abcdef"

// fakeSessions answers with its values and keeps what it was asked.
type fakeSessions struct {
	view    session.View
	viewErr error
	left    error
	next    session.Next
	nextErr error
	page    session.Page
	pageErr error
	moves   []session.Move
	cookie  [32]byte
	browser [32]byte
}

func (f *fakeSessions) View(_ context.Context, cookie [32]byte) (session.View, error) {
	f.cookie = cookie
	return f.view, f.viewErr
}

func (f *fakeSessions) Leave(_ context.Context, cookie, browser [32]byte) (id.LogoutID, error) {
	f.cookie, f.browser = cookie, browser
	return testLogout(), f.left
}

func (f *fakeSessions) Arrive(_ context.Context, _ logout.Verified, browser [32]byte) (session.Next, error) {
	f.browser = browser
	return f.next, f.nextErr
}

func (f *fakeSessions) SOAP(context.Context, logout.Verified) (*logout.Message, error) {
	return f.next.Message, f.nextErr
}

func (f *fakeSessions) Step(_ context.Context, _ id.LogoutID, cookie, browser [32]byte, m session.Move) (session.Page, error) {
	f.cookie, f.browser, f.moves = cookie, browser, append(f.moves, m)
	return f.page, f.pageErr
}

// fakeLogoutMessages keeps what it was given and returns err.
type fakeLogoutMessages struct {
	parameter      string
	message, relay []byte
	has            bool
	err            error
}

func (f *fakeLogoutMessages) Redirect(q []byte, _ time.Time) (logout.Verified, error) {
	f.message = q
	return logout.Verified{}, f.err
}

func (f *fakeLogoutMessages) Post(parameter string, message, relay []byte, has bool, _ time.Time) (logout.Verified, error) {
	f.parameter, f.message, f.relay, f.has = parameter, message, relay, has
	return logout.Verified{}, f.err
}

func (f *fakeLogoutMessages) SOAP(envelope []byte, _ time.Time) (logout.Verified, error) {
	f.message = envelope
	return logout.Verified{}, f.err
}

func testLogout() id.LogoutID {
	l, err := id.ParseLogoutID(testLogoutText)
	if err != nil {
		panic(err)
	}
	return l
}

func sessionRoom(t testing.TB) (*testRoom, *fakeSessions, *fakeLogoutMessages) {
	t.Helper()
	s, m := &fakeSessions{}, &fakeLogoutMessages{}
	return newRoom(t, func(c *Config) { c.Sessions, c.LogoutMessages = s, m }), s, m
}

func testCookie(name, before string) (secret, string) {
	k := secret{1, 2, 3}
	return k, name + "=" + before + base64.RawURLEncoding.EncodeToString(k[:])
}

func testParts(t testing.TB, states ...session.State) (parts []session.Part) {
	for i, s := range states {
		names := map[string]string{"it": spName, "en": "Sant'Agata <City>"}
		if i == 1 {
			names = nil
		}
		parts = append(parts, session.Part{SP: mustEntity(t, "https://sp.example.it/"+string(rune('a'+i))), Names: names, State: s})
	}
	return parts
}

// sessionPages are the pages of sessions and logouts in every state.
func sessionPages() []shownPage {
	with := func(name, method, path string, change func(testing.TB, *fakeSessions, *fakeLogoutMessages)) shownPage {
		return shownPage{name, func(t testing.TB, _ *testRoom, lang string) answer {
			room, s, m := sessionRoom(t)
			change(t, s, m)
			_, one := testCookie(sessionCookie, "")
			_, two := testCookie(logoutCookie, testLogoutText+".")
			_, a := room.route(t.Context(), request{method: method, path: path, cookies: one + "; " + two, lang: lang, contentType: "application/x-www-form-urlencoded"})
			return a
		}}
	}
	none := func(testing.TB, *fakeSessions, *fakeLogoutMessages) {}
	step := func(page session.Page, states ...session.State) func(testing.TB, *fakeSessions, *fakeLogoutMessages) {
		return func(t testing.TB, s *fakeSessions, _ *fakeLogoutMessages) {
			page.Parts = testParts(t, states...)
			s.page = page
		}
	}
	waits, _ := id.ParseEntityID("https://sp.example.it")
	return []shownPage{
		with("session", "GET", "/session", func(t testing.TB, s *fakeSessions, _ *fakeLogoutMessages) {
			s.view = session.View{Name: "Ada <Lovati>", Since: testNow.Add(-time.Hour), Until: testNow.Add(30 * time.Minute)}
			for _, p := range testParts(t, 0, 0) {
				s.view.SPs = append(s.view.SPs, session.Participant{SP: p.SP, Names: p.Names})
			}
		}),
		with("session-none", "GET", "/session", func(_ testing.TB, s *fakeSessions, _ *fakeLogoutMessages) {
			s.viewErr = fault.New(fault.NotFound, "x", nil)
		}),
		with("logout-going", "GET", "/logout/"+testLogoutText, step(session.Page{Initiator: waits}, session.Done, session.Waiting)),
		with("logout-stuck", "GET", "/logout/"+testLogoutText, step(session.Page{Again: true}, session.Sent, session.Waiting)),
		with("logout-done", "GET", "/logout/"+testLogoutText, step(session.Page{Over: true}, session.Done)),
		with("logout-partial", "GET", "/logout/"+testLogoutText, step(session.Page{Over: true, Partial: true}, session.Done, session.Failed)),
		with("logout-lost", "GET", "/logout/l_00000000000000000000000000000000", none),
		with("logout-refused", "GET", "/slo/redirect", func(_ testing.TB, _ *fakeSessions, m *fakeLogoutMessages) {
			m.err = fault.New(fault.Denied, "x", nil)
		}),
		with("logout-carry", "POST", "/slo/post", func(_ testing.TB, s *fakeSessions, _ *fakeLogoutMessages) {
			s.next.Message = &logout.Message{Binding: saml.Post, Location: "https://sp.example.it/acs?x=1&y=2", Parameter: "SAMLResponse", XML: []byte("<x/>"), RelayState: `odd"><b>`, HasRelayState: true}
		}),
		viewPage("consent-resumed", authcore.StepConsent, func(v *authcore.View) { v.Resumed, v.Level = true, saml.L1 }),
	}
}

func TestSessionPage(t *testing.T) {
	room, s, _ := sessionRoom(t)
	k, cookie := testCookie(sessionCookie, "")
	post := func(r request, fields url.Values) answer {
		r.method, r.path, r.body, r.contentType = "POST", "/session", []byte(fields.Encode()), "application/x-www-form-urlencoded"
		_, a := room.route(t.Context(), r)
		return a
	}
	good := url.Values{"action": {"logout"}, "token": {k.formToken(noID{})}}
	ours := request{cookies: cookie, site: "same-origin", lang: "it"}
	a := post(ours, good)
	if a.status != http.StatusSeeOther || a.location != "/logout/"+testLogoutText || len(a.cookies) != 2 || s.cookie != k.browser() ||
		!strings.HasPrefix(a.cookies[0], "__Host-logout="+testLogoutText+".") || !strings.HasPrefix(a.cookies[1], "__Host-session=; Path=/; Max-Age=0") {
		t.Errorf("leave: %d %s %q", a.status, a.location, a.cookies)
	}
	// The cookie that was set opens the logout and is all that does.
	value, _, _ := strings.Cut(a.cookies[0], ";")
	s.page = session.Page{Over: true}
	if _, page := room.route(t.Context(), request{method: "GET", path: a.location, cookies: value, lang: "it"}); page.status != http.StatusOK {
		t.Errorf("page of the logout: %d", page.status)
	}
	left := s.browser
	s.cookie = [32]byte{}
	for name, c := range map[string]struct {
		r      request
		f      url.Values
		status int
	}{
		"another site":    {request{cookies: cookie, site: "cross-site"}, good, 403},
		"another origin":  {request{cookies: cookie, origin: "https://evil.example"}, good, 403},
		"neither said":    {request{cookies: cookie}, good, 403},
		"no token":        {ours, url.Values{"action": {"logout"}}, 403},
		"another's token": {ours, url.Values{"token": {secret{9}.formToken(noID{})}}, 403},
		"a flow's token":  {ours, url.Values{"token": {k.formToken(mustFlow(t, testFlowText))}}, 403},
		"no session":      {request{site: "same-origin"}, good, 303},
	} {
		if a := post(c.r, c.f); a.status != c.status || s.cookie != [32]byte{} || len(a.cookies) != 0 {
			t.Errorf("%s: %d", name, a.status)
		}
	}
	s.left = fault.New(fault.NotFound, "x", nil)
	if a := post(ours, good); a.status != http.StatusSeeOther || a.location != "/session" {
		t.Errorf("ended meanwhile: %d %s", a.status, a.location)
	}
	if left == ([32]byte{}) || left == k.browser() {
		t.Error("the logout belongs to no browser, or the session's cookie opens it")
	}
	s.left = nil
	if again := post(ours, good); again.cookies[0] != a.cookies[0] {
		t.Error("a second click gets another cookie: the first answer's is lost")
	}
}

func TestLogoutSteps(t *testing.T) {
	room, s, _ := sessionRoom(t)
	k, cookie := testCookie(logoutCookie, testLogoutText+".")
	path := "/logout/" + testLogoutText
	send := func(method string, r request, fields url.Values) answer {
		r.method, r.path, r.lang = method, path, "it"
		if method == "POST" {
			r.body, r.contentType = []byte(fields.Encode()), "application/x-www-form-urlencoded"
		}
		_, a := room.route(t.Context(), r)
		return a
	}
	token := k.formToken(testLogout())
	ours := request{cookies: cookie, site: "same-origin"}
	s.page = session.Page{Parts: testParts(t, session.Waiting)}
	held, heldCookie := testCookie(sessionCookie, "")
	a := send("GET", request{cookies: cookie + "; " + heldCookie}, nil)
	if s.cookie != held.browser() {
		t.Error("the session's cookie is not looked at")
	}
	if a.status != 200 || !strings.Contains(string(a.body), `id="next"`) || !strings.Contains(a.csp, "script-src 'nonce-") || strings.Contains(a.csp, "http:") {
		t.Errorf("page: %d %s", a.status, a.csp)
	}
	s.page.Message = &logout.Message{Binding: saml.Redirect, Location: "https://sp.example.it/slo?SAMLRequest=x"}
	if a := send("POST", ours, url.Values{"action": {"go"}, "token": {token}}); a.status != 303 || a.location != "https://sp.example.it/slo?SAMLRequest=x" || a.referrer != "strict-origin" {
		t.Errorf("redirected: %d %s", a.status, a.location)
	}
	s.page.Message = &logout.Message{Binding: saml.Post, Location: "https://sp.example.it/slo", Parameter: "SAMLRequest", XML: []byte("<x/>")}
	if a := send("POST", ours, url.Values{"action": {"skip"}, "token": {token}}); a.status != 200 || !strings.Contains(string(a.body), `name="SAMLRequest" value="PHgvPg=="`) || strings.Contains(string(a.body), "RelayState") {
		t.Errorf("posted: %d %s", a.status, a.body)
	}
	s.page.Message = nil
	if a := send("POST", ours, url.Values{"action": {"go"}, "token": {token}}); a.status != 303 || a.location != path {
		t.Errorf("over: %d %s", a.status, a.location)
	}
	want := []session.Move{session.Look, session.Go, session.Skip, session.Go}
	if len(s.moves) != len(want) || s.browser != k.browser() {
		t.Fatalf("moves %v", s.moves)
	}
	for i, m := range want {
		if s.moves[i] != m {
			t.Errorf("moves %v, want %v", s.moves, want)
		}
	}
	for name, c := range map[string]struct {
		method string
		r      request
		f      url.Values
		status int
	}{
		"no cookie":     {"GET", request{}, nil, 403},
		"other cookie":  {"GET", request{cookies: strings.Replace(cookie, "l_0", "l_1", 1)}, nil, 403},
		"cross-site":    {"POST", request{cookies: cookie, site: "cross-site"}, url.Values{"token": {token}}, 403},
		"no token":      {"POST", ours, url.Values{"action": {"go"}}, 403},
		"wrong method":  {"PUT", ours, nil, 405},
		"post no cooky": {"POST", request{site: "same-origin"}, url.Values{"token": {token}}, 403},
	} {
		if a := send(c.method, c.r, c.f); a.status != c.status || len(s.moves) != len(want) {
			t.Errorf("%s: %d, moves %v", name, a.status, s.moves)
		}
	}
	for kind, status := range map[fault.Kind]int{fault.NotFound: 404, fault.Denied: 403, fault.Busy: 503, fault.Unavailable: 503, fault.Conflict: 409} {
		s.pageErr = fault.New(kind, "x", nil)
		if a := send("GET", request{cookies: cookie}, nil); a.status != status {
			t.Errorf("%v: %d, want %d", kind, a.status, status)
		}
	}
	s.pageErr = fault.New(fault.Conflict, "x", nil)
	if a := send("POST", ours, url.Values{"token": {token}}); a.status != 303 || a.location != path {
		t.Errorf("another node was faster: %d %s", a.status, a.location)
	}
}

func TestLogoutMessagesArrive(t *testing.T) {
	room, s, m := sessionRoom(t)
	send := func(method, path, query, body, contentType string) answer {
		_, a := room.route(t.Context(), request{method: method, path: path, query: []byte(query), body: []byte(body), contentType: contentType, lang: "it"})
		return a
	}
	const form, xml = "application/x-www-form-urlencoded", "text/xml; charset=utf-8"
	// The octets go on as they came.
	send("GET", "/slo/redirect", "SAMLRequest=%2f%2F+a", "", "")
	if string(m.message) != "SAMLRequest=%2f%2F+a" {
		t.Errorf("query %q", m.message)
	}
	send("POST", "/slo/post", "", "SAMLResponse=a%2Bb&RelayState=%00", form)
	if m.parameter != "SAMLResponse" || string(m.message) != "a+b" || string(m.relay) != "\x00" || !m.has {
		t.Errorf("%s %q %q %v", m.parameter, m.message, m.relay, m.has)
	}
	send("POST", "/slo/post", "", "SAMLRequest=x", form)
	if m.parameter != "SAMLRequest" || m.has {
		t.Errorf("%s %v", m.parameter, m.has)
	}
	s.next = session.Next{Message: &logout.Message{Binding: saml.SOAP, XML: []byte("<e/>")}}
	if a := send("POST", "/slo/soap", "", "<q/>", xml); a.status != 200 || string(a.body) != "<e/>" || a.contentType != xml || string(m.message) != "<q/>" {
		t.Errorf("soap: %d %s", a.status, a.body)
	}
	s.next = session.Next{Logout: testLogout()}
	if a := send("GET", "/slo/redirect", "SAMLResponse=x", "", ""); a.status != 303 || a.location != "/logout/"+testLogoutText || len(a.cookies) != 0 {
		t.Errorf("an answer sets cookies: %d %q", a.status, a.cookies)
	}
	s.next = session.Next{}
	if a := send("GET", "/slo/redirect", "SAMLRequest=x", "", ""); a.status != 404 || strings.Contains(string(a.body), "Sei uscito") {
		t.Errorf("a session that did not end: %d", a.status)
	}
	for target, want := range map[string]int{
		"POST /slo/redirect": 405, "GET /slo/post": 405, "GET /slo/soap": 405, "HEAD /slo/redirect": 405, "DELETE /session": 405, "GET /logout/x": 403,
	} {
		method, path, _ := strings.Cut(target, " ")
		if a := send(method, path, "", "", form); a.status != want {
			t.Errorf("%s: %d, want %d", target, a.status, want)
		}
	}
	for name, a := range map[string]answer{
		"both":         send("POST", "/slo/post", "", "SAMLRequest=x&SAMLResponse=y", form),
		"twice":        send("POST", "/slo/post", "", "SAMLRequest=x&SAMLRequest=y", form),
		"not a form":   send("POST", "/slo/post", "", "SAMLRequest=x", "text/plain"),
		"broken":       send("POST", "/slo/post", "", "SAMLRequest=%zz", form),
		"soap no type": send("POST", "/slo/soap", "", "<q/>", form),
	} {
		if a.status != 403 && a.status != 415 || len(a.cookies) != 0 {
			t.Errorf("%s: %d", name, a.status)
		}
	}
	m.err = fault.New(fault.Denied, "x", nil)
	s.nextErr = io.ErrUnexpectedEOF // must not be asked
	for _, target := range []string{"GET /slo/redirect", "POST /slo/post"} {
		method, path, _ := strings.Cut(target, " ")
		if a := send(method, path, "", "SAMLRequest=x", form); a.status != 403 || !strings.Contains(string(a.body), "Impossibile stabilire l&#39;autenticità della richiesta di uscita") || len(a.cookies) != 0 {
			t.Errorf("%s refused: %d", target, a.status)
		}
	}
	if a := send("POST", "/slo/soap", "", "<q/>", xml); a.status != 403 || len(a.body) != 0 {
		t.Errorf("soap refused: %d %s", a.status, a.body)
	}
	m.err = nil
	if a := send("POST", "/slo/soap", "", "<q/>", xml); a.status != 503 {
		t.Errorf("soap in trouble: %d", a.status)
	}
}

// TestSessionCookie: the cookie comes with the answer that begins a session, the
// same one with every copy of that answer, and goes to the login as a hash.
func TestSessionCookie(t *testing.T) {
	room, _, _ := sessionRoom(t)
	flow := mustFlow(t, testFlowText)
	k, cookie := testSecret(t, flow)
	var seen authcore.Visitor
	began := true
	room.logins.answer = func(_ id.FlowID, v authcore.Visitor, _ authcore.Answer) (authcore.Outcome, error) {
		seen = v
		return authcore.Outcome{Response: testSigned(saml.Success), SessionBegan: began}, nil
	}
	send := func(more string) answer {
		body := url.Values{"action": {"consent"}, "token": {k.formToken(flow)}}.Encode()
		_, a := room.route(t.Context(), request{method: "POST", path: "/flow/" + testFlowText, cookies: cookie + more, site: "same-origin",
			body: []byte(body), contentType: "application/x-www-form-urlencoded", lang: "it"})
		return a
	}
	first, second := send(""), send("")
	if len(first.cookies) != 1 || first.cookies[0] != second.cookies[0] {
		t.Fatalf("cookies %q and %q", first.cookies, second.cookies)
	}
	value, rest, _ := strings.Cut(strings.TrimPrefix(first.cookies[0], "__Host-session="), ";")
	if s, ok := parseSecret(value); !ok || s.browser() != seen.NewSession || seen.Session != [32]byte{} || seen.NewSession == seen.Browser {
		t.Errorf("cookie %q, visitor %+v", value, seen)
	}
	if rest != " Path=/; Max-Age=8100; Secure; HttpOnly; SameSite=Lax" {
		t.Errorf("cookie attributes %q", rest)
	}
	if a := send("; __Host-session=" + value); seen.Session != seen.NewSession || a.status != 200 {
		t.Error("the cookie does not come back")
	}
	began = false
	if a := send(""); len(a.cookies) != 0 {
		t.Errorf("a cookie without a session: %q", a.cookies)
	}
	if send("; __Host-session=" + value + "; __Host-session=x"); seen.Session != [32]byte{} {
		t.Error("two different session cookies were believed")
	}
}

func TestWithoutSessions(t *testing.T) {
	room := newRoom(t, nil)
	for _, path := range []string{"/slo/redirect", "/slo/post", "/slo/soap", "/session", "/logout/" + testLogoutText} {
		if _, a := room.route(t.Context(), request{method: "GET", path: path, lang: "it"}); a.status != 404 {
			t.Errorf("%s: %d", path, a.status)
		}
	}
}
