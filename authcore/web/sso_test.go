package web

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"custode/authcore"
	"custode/authcore/register"
	"custode/authcore/saml"
	"custode/authcore/web/words"
	"custode/internal/fault"
	"custode/internal/id"
)

func TestRedirectBeginsAFlow(t *testing.T) {
	room := serve(t, nil)
	flow := mustFlow(t, testFlowText)
	var seen authcore.Visitor
	room.logins.begin = func(v authcore.Visitor) (id.FlowID, error) { seen = v; return flow, nil }
	const query = "SAMLRequest=a%2fb%2Fc+d%20e&RelayState=&SigAlg=x&Signature=%3d"
	resp, _ := do(t, newReq(t, "GET", room.url+"/sso/redirect?"+query, ""))
	if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != "/flow/"+testFlowText {
		t.Fatalf("%d, Location %q", resp.StatusCode, resp.Header.Get("Location"))
	}
	if got := string(room.requests.query); got != query {
		t.Errorf("query %q, want it as sent", got)
	}
	set := resp.Header.Values("Set-Cookie")
	if len(set) != 1 || !strings.HasPrefix(set[0], "__Host-flow-0123456789abcdef=") ||
		!strings.HasSuffix(set[0], "; Path=/; Max-Age=540; Secure; HttpOnly; SameSite=Lax") {
		t.Fatalf("Set-Cookie %q", set)
	}
	value := resp.Cookies()[0].Value
	raw, err := base64.RawURLEncoding.DecodeString(value)
	if err != nil || len(raw) != 32 {
		t.Fatalf("cookie value %q: %v", value, err)
	}
	if seen.Browser != sha256.Sum256(raw) {
		t.Error("the visitor is not the hash of the cookie's secret")
	}
	if seen.Address.String() != "127.0.0.1" {
		t.Errorf("visitor's address %v", seen.Address)
	}
}

func TestPostHandsValuesOver(t *testing.T) {
	room := serve(t, nil)
	room.logins.begin = func(authcore.Visitor) (id.FlowID, error) { return mustFlow(t, testFlowText), nil }
	// A cross-site post: no Origin check here.
	resp, _ := do(t, newReq(t, "POST", room.url+"/sso/post", "SAMLRequest=PHg%2BPC94Pg%3D%3D%0D%0A&RelayState=%22%C3%A8%26+%2B%00&submit=x",
		"Origin", "https://sp.example.it", "Sec-Fetch-Site", "cross-site"))
	if resp.StatusCode != http.StatusSeeOther {
		t.Fatal(resp.StatusCode)
	}
	r := room.requests
	if string(r.samlRequest) != "PHg+PC94Pg==\r\n" || string(r.relayState) != "\"è& +\x00" || !r.hasRelayState {
		t.Errorf("%q %q %v", r.samlRequest, r.relayState, r.hasRelayState)
	}
	do(t, newReq(t, "POST", room.url+"/sso/post", "SAMLRequest=x"))
	if r.hasRelayState || r.relayState != nil {
		t.Errorf("relay state %q from nowhere", r.relayState)
	}
}

// TestAnomalyPages shows every row of the table: a page, a page before the
// Response, or the hand-over without a word to the person.
func TestAnomalyPages(t *testing.T) {
	room := newRoom(t, nil)
	room.logins.refuse = func(r *saml.Refusal) (saml.Signed, error) { return *testSigned(r.Code), nil }
	pages, temporary := 0, 0
	for code := range saml.Code(40) {
		row, ok := saml.Anomaly(code)
		if !ok {
			continue
		}
		refusal := &saml.Refusal{Code: code, Err: errors.New("cause")}
		if row.Response {
			refusal.Reply = &saml.Reply{ACS: "https://sp.example.it/acs"}
		}
		room.requests.err = refusal
		for _, l := range words.Languages() {
			lang, book := l.Tag, words.In(l.Tag)
			text := func(key string, args ...any) string {
				s, err := book.Text(key, args...)
				if err != nil {
					t.Errorf("code %d in %s: %v", code, lang, err)
				}
				return s
			}
			_, a := room.route(t.Context(), request{method: "GET", path: "/sso/redirect", lang: lang, peer: testPeer})
			body := unhtml(string(a.body))
			if n := strings.Count(string(a.body), `class="version other"`); n != 3 {
				t.Errorf("code %d in %s holds %d other versions", code, lang, n)
			}
			chosen, _, _ := strings.Cut(body, `class="version other"`)
			if a.status != row.HTTP || strings.Contains(body, `name="SAMLResponse"`) != row.Response {
				t.Errorf("code %d in %s: %d\n%s", code, lang, a.status, body)
			}
			want := []string{map[bool]string{true: "<p>", false: `<p lang="it">`}[lang == words.Italian] + row.PageIT + "<", ">" + text("anomaly.number", code) + "<"}
			switch {
			case !row.Response:
				pages++
				want = append(want, ">"+text(row.AdviceIT)+"<")
				if lang == words.English && text(row.AdviceIT) != row.AdviceEN {
					t.Errorf("code %d: two English advices: %q and %q", code, text(row.AdviceIT), row.AdviceEN)
				}
			case row.PageIT != "":
				temporary++
			default:
				want = []string{text("handover.title")}
				if !strings.Contains(body, `<script src="/static/handover-`) {
					t.Errorf("code %d in %s: no script", code, lang)
				}
				if strings.Contains(body, `role="alert"`) {
					t.Errorf("code %d in %s has a sentence and the table has none", code, lang)
				}
			}
			if row.PageIT != "" && lang != words.Italian {
				want = append(want, ">"+text(row.PageIT)+"<")
				if lang == words.English && text(row.PageIT) != row.PageEN {
					t.Errorf("code %d: two English sentences: %q and %q", code, text(row.PageIT), row.PageEN)
				}
			}
			for _, w := range want {
				if !strings.Contains(chosen, w) {
					t.Errorf("code %d in %s: no %q in\n%s", code, lang, w, body)
				}
			}
		}
	}
	if pages != 4*7 || temporary != 4*2 {
		t.Errorf("%d pages and %d temporary ones in four languages, want 7 and 2 in each", pages, temporary)
	}
}

func TestRefusals(t *testing.T) {
	room := newRoom(t, nil)
	reply := &saml.Reply{ACS: "https://sp.example.it/acs"}
	post := request{method: "POST", path: "/sso/post", contentType: "application/x-www-form-urlencoded", body: []byte("SAMLRequest=x"), lang: words.Italian}
	room.logins.refuse = func(r *saml.Refusal) (saml.Signed, error) { return *testSigned(r.Code), nil }

	room.requests.err = fmt.Errorf("wrapped: %w", &saml.Refusal{Code: saml.BadIssueInstant, Reply: reply, Err: errors.New("x")})
	_, a := room.route(t.Context(), post)
	if a.status != 200 || !strings.Contains(string(a.body), "handover-") || !strings.Contains(a.csp, "script-src 'nonce-") {
		t.Errorf("13 must be handed over: %d %s", a.status, a.csp)
	}
	if len(a.cookies) != 0 {
		t.Errorf("cookies %q without a flow", a.cookies)
	}

	room.requests.err = &saml.Refusal{Code: saml.BadAuthnContext, Reply: reply, Err: errors.New("x")}
	_, a = room.route(t.Context(), post)
	if a.status != 200 || strings.Contains(string(a.body), "<script") || strings.Contains(a.csp, "script-src 'nonce-A") ||
		!strings.Contains(string(a.body), "Autenticazione SPID non conforme o non specificata") || !strings.Contains(string(a.body), `name="SAMLResponse"`) {
		t.Errorf("12 must show its sentence and a button only: %d\n%s", a.status, a.body)
	}

	// Signing the refusal fails: a page, whatever the error.
	for err, want := range map[error]int{
		fault.New(fault.Unavailable, "sign", nil):           503,
		fault.New(fault.Busy, "sign", nil):                  503,
		&saml.Refusal{Code: saml.BadID, Reply: reply}:       500,
		errors.New("anything"):                              500,
		fault.New(fault.Fatal, "sign", errors.New("a pin")): 500,
	} {
		room.logins.refuse = func(*saml.Refusal) (saml.Signed, error) { return saml.Signed{}, err }
		if _, a := room.route(t.Context(), post); a.status != want {
			t.Errorf("%v: %d, want %d", err, a.status, want)
		}
	}

	// Begin may refuse as well: a request answered before.
	room.requests.err = nil
	room.logins.begin = func(authcore.Visitor) (id.FlowID, error) {
		return id.FlowID{}, &saml.Refusal{Code: saml.BadID, Reply: reply, Err: errors.New("replayed")}
	}
	room.logins.refuse = func(r *saml.Refusal) (saml.Signed, error) { return *testSigned(r.Code), nil }
	if _, a := room.route(t.Context(), post); a.status != 200 || !strings.Contains(string(a.body), `name="SAMLResponse"`) {
		t.Errorf("refusal of Begin: %d", a.status)
	}
}

func TestWrongWaysIntoSSO(t *testing.T) {
	room := newRoom(t, nil) // no function of the fakes may be reached
	form := "application/x-www-form-urlencoded; charset=UTF-8"
	for name, c := range map[string]struct {
		r    request
		want saml.Code
	}{
		"post to redirect": {request{method: "POST", path: "/sso/redirect"}, saml.WrongMethod},
		"head":             {request{method: "HEAD", path: "/sso/redirect"}, saml.WrongMethod},
		"get to post":      {request{method: "GET", path: "/sso/post", query: []byte("SAMLRequest=x")}, saml.WrongMethod},
		"put":              {request{method: "PUT", path: "/sso/post"}, saml.WrongMethod},
		"no form":          {request{method: "POST", path: "/sso/post", contentType: "text/xml", body: []byte("<x/>")}, saml.BadBinding},
		"multipart":        {request{method: "POST", path: "/sso/post", contentType: "multipart/form-data; boundary=x"}, saml.BadBinding},
		"twice":            {request{method: "POST", path: "/sso/post", contentType: form, body: []byte("SAMLRequest=x&SAMLRequest=y")}, saml.BadBinding},
		"twice, escaped":   {request{method: "POST", path: "/sso/post", contentType: form, body: []byte("SAMLRequest=x&SAMLReques%74=y")}, saml.BadBinding},
		"broken escape":    {request{method: "POST", path: "/sso/post", contentType: form, body: []byte("SAMLRequest=%4")}, saml.BadBinding},
	} {
		_, a := room.route(t.Context(), c.r)
		if want := fmt.Sprintf("n. %d<", c.want); a.status != 403 || !strings.Contains(string(a.body), want) {
			t.Errorf("%s: %d, want anomaly %d", name, a.status, c.want)
		}
	}
}

func TestBeginFails(t *testing.T) {
	room := newRoom(t, nil)
	r := request{method: "GET", path: "/sso/redirect", lang: words.Italian}
	for kind, want := range map[fault.Kind]int{
		fault.Busy: 503, fault.Unavailable: 503, fault.Retry: 503, fault.Reopen: 503, fault.Fatal: 500, fault.Internal: 500,
		fault.Conflict: 409, fault.Exhausted: 429, fault.Denied: 403, fault.NotFound: 404, fault.Expired: 410, fault.Invalid: 400,
	} {
		room.logins.begin = func(authcore.Visitor) (id.FlowID, error) {
			return id.FlowID{}, fault.New(kind, "begin", errors.New("private cause"))
		}
		_, a := room.route(t.Context(), r)
		if a.status != want || len(a.cookies) != 0 || strings.Contains(string(a.body), "private cause") {
			t.Errorf("%v: %d with cookies %q, want %d", kind, a.status, a.cookies, want)
		}
		if (want == 503 || want == 429) != (a.retryAfter > 0) {
			t.Errorf("%v: Retry-After %d", kind, a.retryAfter)
		}
	}
	// No randomness, no flow.
	room = newRoom(t, func(c *Config) { c.Random = strings.NewReader("short") })
	if _, a := room.route(t.Context(), r); a.status != 503 {
		t.Errorf("without randomness: %d, want 503", a.status)
	}
}

// TestUnprovedStays: what the register does not prove to hold does not leave.
func TestUnprovedStays(t *testing.T) {
	room := newRoom(t, nil)
	for _, out := range []authcore.Outcome{{Response: testSigned(saml.Success)}, {Response: testSigned(saml.Cancelled), Proof: unproved{}}} {
		a := room.handOver(t.Context(), request{lang: "it"}, out, spNames{}, 0)
		if a.status != http.StatusInternalServerError || bytes.Contains(a.body, []byte("SAMLResponse")) {
			t.Errorf("HTTP %d: %.200s", a.status, a.body)
		}
	}
}

type unproved struct{ recorded }

func (unproved) IsZero() bool { return true }

// TestRefusedIsNoted: refused requests reach the security log with peer and browser.
func TestRefusedIsNoted(t *testing.T) {
	room := newRoom(t, nil)
	room.requests.err = &saml.Refusal{Code: saml.BadIssuer, Err: errors.New("unknown")}
	peer := netip.MustParseAddr("192.0.2.9")
	room.ssoRedirect(t.Context(), request{method: http.MethodGet, peer: peer, agent: "Browser", lang: "it"})
	room.ssoPost(t.Context(), request{method: http.MethodGet, peer: peer, lang: "it"})
	room.ssoPost(t.Context(), request{method: http.MethodPost, contentType: "text/plain", peer: peer, lang: "it"})
	var codes []saml.Code
	for _, i := range room.witness.all() {
		if i.What != register.RequestRefused || i.Address != peer {
			t.Errorf("noted: %+v", i)
		}
		codes = append(codes, i.Code)
	}
	if !slices.Equal(codes, []saml.Code{saml.BadIssuer, saml.WrongMethod, saml.BadBinding}) || room.witness.all()[0].Agent != "Browser" {
		t.Errorf("noted: %v", room.witness.all())
	}
}
