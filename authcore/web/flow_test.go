package web

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"custode/authcore"
	"custode/authcore/saml"
	"custode/authcore/web/words"
	"custode/internal/fault"
	"custode/internal/id"
)

func postFlow(t testing.TB, room *testRoom, change func(url.Values, *request)) answer {
	t.Helper()
	flow := mustFlow(t, testFlowText)
	k, cookie := testSecret(t, flow)
	f := url.Values{"token": {k.formToken(flow)}, "action": {"code"}, "code": {"123456"}}
	r := request{method: "POST", path: "/flow/" + testFlowText, contentType: "application/x-www-form-urlencoded",
		cookies: "other=1; " + cookie, origin: "https://login.example.it", site: "same-origin", lang: words.Italian, peer: testPeer}
	if change != nil {
		change(f, &r)
	}
	if r.body == nil {
		r.body = []byte(f.Encode())
	}
	_, a := room.route(t.Context(), r)
	return a
}

func TestForgedAnswersReachNothing(t *testing.T) {
	room := newRoom(t, nil) // Answer must not be called
	for name, c := range map[string]struct {
		status int
		change func(url.Values, *request)
	}{
		"no token":    {403, func(f url.Values, _ *request) { f.Del("token") }},
		"other token": {403, func(f url.Values, _ *request) { f.Set("token", strings.Repeat("A", 43)) }},
		"token of a flow": {403, func(f url.Values, _ *request) {
			k, _ := testSecret(t, mustFlow(t, testFlowText))
			f.Set("token", k.formToken(mustFlow(t, "f_"+strings.Repeat("1", 32))))
		}},
		"no cookie":        {403, func(_ url.Values, r *request) { r.cookies = "" }},
		"malformed cookie": {403, func(_ url.Values, r *request) { r.cookies = "__Host-flow-0123456789abcdef=short" }},
		"other browser":    {403, func(_ url.Values, r *request) { r.cookies = "__Host-flow-0123456789abcdef=" + strings.Repeat("A", 43) }},
		"two cookies": {403, func(_ url.Values, r *request) {
			r.cookies += "; __Host-flow-0123456789abcdef=" + strings.Repeat("A", 43)
		}},
		"foreign origin":    {403, func(_ url.Values, r *request) { r.origin = "https://evil.example" }},
		"null origin":       {403, func(_ url.Values, r *request) { r.origin = "null" }},
		"origin of http":    {403, func(_ url.Values, r *request) { r.origin = "http://login.example.it" }},
		"cross-site":        {403, func(_ url.Values, r *request) { r.site = "cross-site" }},
		"same-site":         {403, func(_ url.Values, r *request) { r.site = "same-site" }},
		"says nothing":      {403, func(_ url.Values, r *request) { r.site, r.origin = "", "" }},
		"json":              {415, func(_ url.Values, r *request) { r.contentType = "application/json" }},
		"too long":          {413, func(_ url.Values, r *request) { r.body = make([]byte, maxFlowForm+1) }},
		"broken form":       {400, func(_ url.Values, r *request) { r.body = []byte("a=%zz") }},
		"unknown action":    {400, func(f url.Values, _ *request) { f.Set("action", "become-root") }},
		"no action":         {400, func(f url.Values, _ *request) { f.Del("action") }},
		"unknown method":    {400, func(f url.Values, _ *request) { f.Set("action", "method"); f.Set("method", "pigeon") }},
		"malformed flow id": {404, func(_ url.Values, r *request) { r.path = "/flow/../x" }},
		"put":               {405, func(_ url.Values, r *request) { r.method = "PUT" }},
	} {
		if a := postFlow(t, room, c.change); a.status != c.status {
			t.Errorf("%s: %d, want %d", name, a.status, c.status)
		}
	}
}

func TestAnswersAreReadRight(t *testing.T) {
	room := newRoom(t, nil)
	for name, c := range map[string]struct {
		form url.Values
		want authcore.Answer
	}{
		"password": {url.Values{"action": {"password"}, "username": {" Mario "}, "password": {" pä ss+%&= "}}, authcore.PasswordAnswer{Username: " Mario ", Password: " pä ss+%&= "}},
		"method":   {url.Values{"action": {"method"}, "method": {"sms"}}, authcore.MethodAnswer{Method: authcore.MethodSMS}},
		"token":    {url.Values{"action": {"method"}, "method": {"token-0a1b"}}, authcore.MethodAnswer{Method: authcore.MethodToken, Key: "0a1b"}},
		"app":      {url.Values{"action": {"method"}, "method": {"app-0a1b"}}, authcore.MethodAnswer{Method: authcore.MethodApp, Key: "0a1b"}},
		"push":     {url.Values{"action": {"method"}, "method": {"push-0a1b"}}, authcore.MethodAnswer{Method: authcore.MethodPush, Key: "0a1b"}},
		"other":    {url.Values{"action": {"other"}}, authcore.OtherAnswer{}},
		"resend":   {url.Values{"action": {"resend"}}, authcore.ResendAnswer{}},
		"code":     {url.Values{"action": {"code"}, "code": {" 123 456\t"}}, authcore.CodeAnswer{Code: "123456"}},
		"consent":  {url.Values{"action": {"consent"}}, authcore.ConsentAnswer{}},
		"refuse":   {url.Values{"action": {"refuse"}}, authcore.RefuseAnswer{}},
		"cancel":   {url.Values{"action": {"cancel"}}, authcore.CancelAnswer{}},
	} {
		var got authcore.Answer
		var visitor authcore.Visitor
		room.logins.answer = func(_ id.FlowID, v authcore.Visitor, a authcore.Answer) (authcore.Outcome, error) {
			got, visitor = a, v
			return authcore.Outcome{View: testView(t, authcore.StepMethod)}, nil
		}
		a := postFlow(t, room, func(f url.Values, _ *request) {
			f.Del("action")
			f.Del("code")
			for k, v := range c.form {
				f[k] = v
			}
		})
		if got != c.want || a.status != http.StatusSeeOther || a.location != "/flow/"+testFlowText {
			t.Errorf("%s: %#v, %d %q", name, got, a.status, a.location)
		}
		k, _ := testSecret(t, mustFlow(t, testFlowText))
		if visitor.Browser != k.browser() || visitor.Address != testPeer {
			t.Errorf("%s: visitor %v", name, visitor)
		}
	}
	// Only one of the two signs of a browser is enough.
	room.logins.answer = func(id.FlowID, authcore.Visitor, authcore.Answer) (authcore.Outcome, error) {
		return authcore.Outcome{View: testView(t, authcore.StepMethod)}, nil
	}
	if a := postFlow(t, room, func(_ url.Values, r *request) { r.site = "" }); a.status != http.StatusSeeOther {
		t.Errorf("origin alone: %d", a.status)
	}
	if a := postFlow(t, room, func(_ url.Values, r *request) { r.origin = "" }); a.status != http.StatusSeeOther {
		t.Errorf("Sec-Fetch-Site alone: %d", a.status)
	}
}

func TestNoticeCrossesTheRedirect(t *testing.T) {
	room := newRoom(t, nil)
	now := testNow
	room.cfg.Now = func() time.Time { return now }
	flow := mustFlow(t, testFlowText)
	k, cookie := testSecret(t, flow)
	room.logins.answer = func(id.FlowID, authcore.Visitor, authcore.Answer) (authcore.Outcome, error) {
		v := testView(t, authcore.StepCode)
		v.Notice, v.AttemptsLeft = authcore.NoticeWrongCode, 2
		return authcore.Outcome{View: v}, nil
	}
	a := postFlow(t, room, nil)
	if a.status != http.StatusSeeOther || !strings.HasPrefix(a.location, "/flow/"+testFlowText+"?n=3.3.2.0.") {
		t.Fatalf("%d %q", a.status, a.location)
	}
	step := authcore.StepCode
	room.logins.view = func(context.Context, id.FlowID, authcore.Visitor) (authcore.Outcome, error) {
		return authcore.Outcome{View: testView(t, step)}, nil
	}
	get := func(path, cookies string) string {
		p, q, _ := strings.Cut(path, "?")
		_, a := room.route(t.Context(), request{method: "GET", path: p, query: []byte(q), cookies: cookies, lang: words.Italian})
		return string(a.body)
	}
	const told = "Ti restano ancora 2 tentativi."
	page := get(a.location, cookie)
	if !strings.Contains(page, told) || !strings.Contains(page, `aria-invalid="true" aria-describedby="notice code-lead"`) {
		t.Errorf("the notice is missing:\n%s", page)
	}
	if strings.Contains(get("/flow/"+testFlowText, cookie), told) {
		t.Error("a notice without a mark")
	}
	if forged := strings.Replace(a.location, "n=3.3.2", "n=3.3.1", 1); strings.Contains(get(forged, cookie), "role=\"alert\"") {
		t.Error("a forged mark was believed")
	}
	step = authcore.StepConsent
	if strings.Contains(get(a.location, cookie), told) {
		t.Error("a mark of another step was shown")
	}

	// Waiting counts down and then is over.
	v := testView(t, authcore.StepCredentials)
	v.Notice, v.RetryAfter = authcore.NoticeWait, 90*time.Second
	mark := k.mark(v, now)
	step = authcore.StepCredentials
	now = now.Add(30 * time.Second)
	if page := get("/flow/"+testFlowText+"?n="+mark, cookie); !strings.Contains(page, "fra 60 secondi") {
		t.Errorf("waiting:\n%s", page)
	}
	now = now.Add(61 * time.Second)
	if page := get("/flow/"+testFlowText+"?n="+mark, cookie); strings.Contains(page, "notice") {
		t.Error("told to wait when waiting is over")
	}
}

func TestAnswerFails(t *testing.T) {
	room := newRoom(t, nil)
	for kind, want := range map[fault.Kind]int{
		fault.Conflict: 303, fault.Invalid: 303, fault.Denied: 403, fault.NotFound: 404, fault.Expired: 410,
		fault.Exhausted: 429, fault.Busy: 503, fault.Unavailable: 503, fault.Fatal: 500, fault.Internal: 500,
	} {
		room.logins.answer = func(id.FlowID, authcore.Visitor, authcore.Answer) (authcore.Outcome, error) {
			return authcore.Outcome{}, fault.New(kind, "answer", errors.New("private cause"))
		}
		a := postFlow(t, room, nil)
		if a.status != want || strings.Contains(string(a.body), "private") {
			t.Errorf("%v: %d, want %d", kind, a.status, want)
		}
	}
	room.logins.answer = func(id.FlowID, authcore.Visitor, authcore.Answer) (authcore.Outcome, error) {
		return authcore.Outcome{}, nil
	}
	if a := postFlow(t, room, nil); a.status != 500 {
		t.Errorf("empty outcome: %d", a.status)
	}
}

func TestHandOver(t *testing.T) {
	room := newRoom(t, nil)
	signed := testSigned(saml.Success)
	room.logins.answer = func(id.FlowID, authcore.Visitor, authcore.Answer) (authcore.Outcome, error) {
		return authcore.Outcome{Response: signed, Proof: recorded{}}, nil
	}
	a := postFlow(t, room, nil)
	body := string(a.body)
	if a.status != 200 || a.referrer != "strict-origin" || len(a.cookies) != 0 {
		t.Errorf("%d %q %q", a.status, a.referrer, a.cookies)
	}
	if !strings.Contains(a.csp, "form-action https:;") {
		t.Error(a.csp)
	}
	nonce := between(t, a.csp, "'nonce-", "'")
	if len(nonce) != 22 || !strings.Contains(body, `nonce="`+nonce+`"`) {
		t.Errorf("nonce %q is not in the page", nonce)
	}
	if got := between(t, body, `name="SAMLResponse" value="`, `"`); unhtml(got) != base64.StdEncoding.EncodeToString(signed.XML) {
		t.Errorf("SAMLResponse %q", got)
	}
	if got := between(t, body, `name="RelayState" value="`, `"`); unhtml(got) != relayStateSample {
		t.Errorf("RelayState %q, want %q", unhtml(got), relayStateSample)
	}
	if got := between(t, body, `method="post" action="`, `"`); unhtml(got) != signed.ACS {
		t.Errorf("action %q", got)
	}
	if again := postFlow(t, room, nil); strings.Contains(again.csp, nonce) {
		t.Error("the nonce came twice")
	}
	signed.HasRelayState = false
	if strings.Contains(string(postFlow(t, room, nil).body), "RelayState") {
		t.Error("a RelayState that was not sent")
	}
	signed.HasRelayState, signed.RelayState = true, ""
	if !strings.Contains(string(postFlow(t, room, nil).body), `name="RelayState" value=""`) {
		t.Error("an empty RelayState was dropped")
	}
	signed.ACS = "http://localhost:8088/acs"
	if a := postFlow(t, room, nil); !strings.Contains(a.csp, "form-action https: http://localhost:8088;") {
		t.Error(a.csp)
	}
	signed.Code = saml.NotActive
	if a := postFlow(t, room, nil); strings.Contains(string(a.body), "<script") || strings.Contains(a.csp, "script-src") ||
		!strings.Contains(string(a.body), "Credenziali sospese o revocate") {
		t.Errorf("23: %s\n%s", a.csp, a.body)
	}
	for _, acs := range []string{"", "javascript:alert(1)", "/acs", "ftp://x/", "https://"} {
		signed.ACS = acs
		if a := postFlow(t, room, nil); a.status != 500 {
			t.Errorf("ACS %q: %d", acs, a.status)
		}
	}
}

func TestFlowPageGuards(t *testing.T) {
	room := newRoom(t, nil)
	flow := mustFlow(t, testFlowText)
	_, cookie := testSecret(t, flow)
	get := func(cookies string) answer {
		_, a := room.route(t.Context(), request{method: "GET", path: "/flow/" + testFlowText, cookies: cookies, lang: words.Italian})
		return a
	}
	if a := get(""); a.status != 403 { // View must not be called
		t.Errorf("without a cookie: %d", a.status)
	}
	for kind, want := range map[fault.Kind]int{fault.Conflict: 409, fault.Denied: 403, fault.NotFound: 404, fault.Expired: 410} {
		room.logins.view = func(context.Context, id.FlowID, authcore.Visitor) (authcore.Outcome, error) {
			return authcore.Outcome{}, fault.New(kind, "view", nil)
		}
		if a := get(cookie); a.status != want {
			t.Errorf("%v: %d, want %d", kind, a.status, want)
		}
	}
	outcomes := []struct {
		out  authcore.Outcome
		want int
	}{
		{authcore.Outcome{View: testView(t, authcore.StepDone)}, 410},
		{authcore.Outcome{View: &authcore.View{Flow: flow}}, 410},
		{authcore.Outcome{Response: testSigned(saml.TimedOut), Proof: recorded{}}, 200},
		{authcore.Outcome{}, 500},
	}
	for i, o := range outcomes {
		room.logins.view = func(context.Context, id.FlowID, authcore.Visitor) (authcore.Outcome, error) { return o.out, nil }
		if a := get(cookie); a.status != o.want {
			t.Errorf("outcome %d: %d, want %d", i, a.status, o.want)
		}
	}
}

func TestLanguage(t *testing.T) {
	for in, want := range map[[2]string]string{
		{"", ""}: "it", {"", "en-GB,it;q=0.5"}: "en", {"", "it-IT,en;q=0.9"}: "it", {"", "de,en;q=0.3"}: "de", {"", "de-IT"}: "de", {"", "fr,sl-SI;q=0.8,en;q=0.3"}: "sl", {"", "fr"}: "it",
		{"__Host-lang=sl", "de"}: "sl", {"__Host-lang=DE", "sl"}: "sl",
		{"__Host-lang=en", "it"}: "en", {"__Host-lang=xx", "en"}: "en", {"", "en;q=0"}: "it", {"", "en;q=NaN,it;q=0.1"}: "it",
		{"", "en;q=9"}: "it", {"", strings.Repeat("x,", 40) + "en"}: "it", {"__Host-lang=it; __Host-lang=en", "en"}: "en",
	} {
		if got := chooseLanguage(in[0], in[1]); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	room := newRoom(t, nil)
	for query, want := range map[string]string{
		"lang=en": "/flow/" + testFlowText, "lang=it&n=3.3.2.0.abc_-": "/flow/" + testFlowText + "?n=3.3.2.0.abc_-",
		"lang=en&n=%0d%0aSet-Cookie:x": "/flow/" + testFlowText, "lang=de": "/flow/" + testFlowText, "lang=sl": "/flow/" + testFlowText,
	} {
		_, a := room.route(t.Context(), request{method: "GET", path: "/flow/" + testFlowText, query: []byte(query)})
		if a.status != 303 || a.location != want || len(a.cookies) != 1 || !strings.HasPrefix(a.cookies[0], "__Host-lang=") {
			t.Errorf("%q: %d %q %q", query, a.status, a.location, a.cookies)
		}
	}
}

// TestEveryPageHasItsLanguage: the cookie's, else the browser's, on pages that
// answer a GET and on those that answer a POST.
func TestEveryPageHasItsLanguage(t *testing.T) {
	room := serve(t, nil)
	room.requests.err = &saml.Refusal{Code: saml.BadBinding, Err: errors.New("cause")}
	for _, c := range []struct{ cookie, accept, want string }{
		{"", "", "it"}, {"", "de-AT,de;q=0.9", "de"}, {"__Host-lang=sl", "de", "sl"}, {"__Host-lang=fr", "en", "en"}, {"__Host-lang=it", "sl", "it"},
	} {
		for _, target := range []string{"GET /", "GET /x", "GET /sso/post", "POST /sso/post", "GET /flow/" + testFlowText, "POST /flow/" + testFlowText, "GET /flow/x", "PUT /metadata"} {
			method, path, _ := strings.Cut(target, " ")
			resp, body := do(t, newReq(t, method, room.url+path, "", "Cookie", c.cookie, "Accept-Language", c.accept))
			if got := resp.Header.Get("Content-Language"); got != c.want || !strings.Contains(body, `<html lang="`+c.want+`">`) {
				t.Errorf("%s with %q and %q: language %q", target, c.cookie, c.accept, got)
			}
			for _, l := range []string{"it", "en", "de", "sl"} {
				if !strings.Contains(body, `<a href="/?lang=`+l+`"`) && !strings.Contains(body, `<a href="#lang-`+l+`"`) {
					t.Errorf("%s cannot be read in %s", target, l)
				}
			}
		}
	}
}

func between(t testing.TB, s, a, b string) string {
	t.Helper()
	_, rest, ok := strings.Cut(s, a)
	v, _, ok2 := strings.Cut(rest, b)
	if !ok || !ok2 {
		t.Fatalf("no %q…%q in:\n%s", a, b, s)
	}
	return v
}
