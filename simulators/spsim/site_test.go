package spsim

import (
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
)

// browser is a person's browser at the demonstration site.
type browser struct {
	t      *testing.T
	client *http.Client
	base   string
}

// openSite serves the SP on loopback below a path and returns a browser there.
func openSite(t *testing.T, change func(*Config)) (*browser, *SP, *fakeIdP, *clock) {
	t.Helper()
	var handler http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	sp, idp, c := newSP(t, func(cfg *Config) {
		cfg.BaseURL = server.URL + "/comune"
		if change != nil {
			change(cfg)
		}
	})
	handler = sp.Handler()
	return newBrowser(t, server.URL+"/comune"), sp, idp, c
}

func newBrowser(t *testing.T, base string) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	stop := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &browser{t: t, client: &http.Client{Jar: jar, CheckRedirect: stop}, base: base}
}

func (b *browser) get(path string) (*http.Response, string) {
	b.t.Helper()
	res, err := b.client.Get(b.base + path)
	if err != nil {
		b.t.Fatal(err)
	}
	return res, b.body(res)
}

func (b *browser) post(path string, form url.Values) (*http.Response, string) {
	b.t.Helper()
	res, err := b.client.PostForm(b.base+path, form)
	if err != nil {
		b.t.Fatal(err)
	}
	return res, b.body(res)
}

func (b *browser) body(res *http.Response) string {
	b.t.Helper()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := res.Body.Close(); err != nil {
		b.t.Fatal(err)
	}
	return string(raw)
}

var (
	idAttribute = regexp.MustCompile(` ID="([^"]+)"`)
	nonceAttr   = regexp.MustCompile(`nonce="([^"]+)"`)
)

// start begins a login and returns the request's ID and RelayState.
func (b *browser) start(sp *SP, query string) (id, relay string) {
	b.t.Helper()
	res, page := b.get("/login?" + query)
	if res.StatusCode == http.StatusFound {
		u, err := url.Parse(res.Header.Get("Location"))
		if err != nil {
			b.t.Fatal(err)
		}
		relay = u.Query().Get("RelayState")
		return idAttribute.FindStringSubmatch(string(redirectXML(b.t, u.String())))[1], relay
	}
	if res.StatusCode != http.StatusOK {
		b.t.Fatalf("login: status %d: %s", res.StatusCode, page)
	}
	relay = html.UnescapeString(regexp.MustCompile(`name="RelayState" value="([^"]*)"`).FindStringSubmatch(page)[1])
	for known, s := range sp.requests.byID {
		if s.request.RelayState == relay {
			return known, relay
		}
	}
	b.t.Fatal("the SP does not remember the request")
	return "", ""
}

func TestSiteLogin(t *testing.T) {
	for _, query := range []string{
		"livello=2&metodo=post", "livello=2&metodo=redirect", "livello=1&metodo=post",
		"livello=1&metodo=redirect", "livello=3&metodo=post&servizio=2",
	} {
		t.Run(query, func(t *testing.T) {
			b, sp, idp, c := openSite(t, nil)
			id, relay := b.start(sp, query)
			c.advance(time.Second)
			res, _ := b.post("/acs", url.Values{"SAMLResponse": {idp.respond(t, sp, id, answer{})}, "RelayState": {relay}})
			if res.StatusCode != http.StatusSeeOther || !strings.HasSuffix(res.Header.Get("Location"), "/comune/esito") {
				t.Fatalf("ACS: status %d, location %q", res.StatusCode, res.Header.Get("Location"))
			}
			res, page := b.get("/esito")
			if res.StatusCode != http.StatusOK {
				t.Errorf("result: status %d", res.StatusCode)
			}
			level := "SPID livello " + query[8:9]
			for _, want := range []string{
				`data-esito="ok"`, "Codice fiscale", "TINIT-RSSMRA80A01H501U", level, "ciao, Maria Rossi",
				"Risposta: firma verificata", "Asserzione: firma verificata", "04/03/2026 05:06:08.890 UTC", testIdP,
			} {
				if !strings.Contains(page, want) {
					t.Errorf("the result page lacks %q", want)
				}
			}
			res, page = b.get("/esito.json")
			var got struct {
				OK         bool
				Level      int
				Attributes map[string]string
			}
			if err := json.Unmarshal([]byte(page), &got); err != nil || res.StatusCode != http.StatusOK || !got.OK || got.Attributes["name"] != "Maria Rossi" {
				t.Errorf("JSON result: %d %s %v", res.StatusCode, page, err)
			}
			b.post("/esci", nil)
			if res, _ := b.get("/esito.json"); res.StatusCode != http.StatusNotFound {
				t.Errorf("after leaving: status %d", res.StatusCode)
			}
		})
	}
}

func TestSitePostPage(t *testing.T) {
	b, _, _, _ := openSite(t, nil)
	res, page := b.get("/login?livello=2&metodo=post")
	csp := res.Header.Get("Content-Security-Policy")
	m := nonceAttr.FindStringSubmatch(page)
	if m == nil || !strings.Contains(csp, "script-src 'nonce-"+m[1]+"'") || !strings.Contains(csp, "form-action "+testIdP) || !strings.Contains(csp, "default-src 'none'") {
		t.Errorf("policy %q, nonce %v", csp, m)
	}
	if strings.Count(page, "<script") != 1 || !strings.Contains(page, `<button class="button" type="submit">`) || !strings.Contains(page, `action="`+testIdP+`/sso/post"`) {
		t.Error("the page lacks its form, its button or its only script")
	}
	if res.Header.Get("Cache-Control") != "no-store" {
		t.Error("the page may be cached")
	}
	_, again := b.get("/login?livello=2&metodo=post")
	if nonceAttr.FindStringSubmatch(again)[1] == m[1] {
		t.Error("the nonce is not fresh")
	}
}

func TestSiteErrors(t *testing.T) {
	b, sp, idp, c := openSite(t, nil)
	id, relay := b.start(sp, "livello=2&metodo=redirect")
	c.advance(time.Second)
	cancelled := answer{status: [3]string{"Responder", "AuthnFailed", "ErrorCode nr25"}}
	b.post("/acs", url.Values{"SAMLResponse": {idp.respond(t, sp, id, cancelled)}, "RelayState": {relay}})
	res, page := b.get("/esito")
	if res.StatusCode != http.StatusForbidden || !strings.Contains(page, "Anomalia SPID n. 25") || !strings.Contains(page, "ErrorCode nr25") || !strings.Contains(page, `data-esito="anomalia"`) {
		t.Errorf("cancelled login: status %d", res.StatusCode)
	}
	if _, body := b.get("/esito.json"); !strings.Contains(body, `"anomaly":25`) {
		t.Errorf("JSON: %s", body)
	}

	id, relay = b.start(sp, "livello=2&metodo=post")
	forged := url.Values{"SAMLResponse": {idp.respond(t, sp, id, answer{strangerAss: true})}, "RelayState": {relay}}
	b.post("/acs", forged)
	if res, page = b.get("/esito"); res.StatusCode != http.StatusForbidden || !strings.Contains(page, `data-esito="rifiuto"`) || strings.Contains(page, "Maria") {
		t.Errorf("forged login: status %d", res.StatusCode)
	}
	if _, body := b.get("/esito.json"); !strings.Contains(body, `"check":"assertion.signature"`) {
		t.Errorf("JSON: %s", body)
	}

	// The right response at the wrong endpoint, and in the wrong browser.
	id, relay = b.start(sp, "livello=2&metodo=post")
	good := url.Values{"SAMLResponse": {idp.respond(t, sp, id, answer{})}, "RelayState": {relay}}
	b.post("/acs/1", good)
	if _, body := b.get("/esito.json"); !strings.Contains(body, `"check":"response.destination"`) {
		t.Errorf("JSON: %s", body)
	}
	thief := newBrowser(t, b.base)
	if res, _ := thief.post("/acs", good); res.StatusCode != http.StatusForbidden {
		t.Errorf("a browser without a login: status %d", res.StatusCode)
	}
	thief.get("/login?livello=2&metodo=post")
	thief.post("/acs", good)
	if _, body := thief.get("/esito.json"); !strings.Contains(body, `"check":"response.inResponseTo"`) {
		t.Errorf("JSON: %s", body)
	}
	b.post("/acs", url.Values{"SAMLResponse": {"a", "b"}})
	if _, body := b.get("/esito.json"); !strings.Contains(body, `"check":"form"`) {
		t.Errorf("JSON: %s", body)
	}
}

func TestSitePages(t *testing.T) {
	b, sp, _, _ := openSite(t, nil)
	for _, tt := range []struct {
		path, want string
		status     int
	}{
		{"/", "Entra con SPID", 200},
		{"/", `<html lang="it">`, 200},
		{"/style.css", ".button", 200},
		{"/metadata", "SPSSODescriptor", 200},
		{"/slo", "Uscita unica", 501},
		{"/esito", "", 303},
		{"/esito.json", `"ok":false`, 404},
		{"/altro", "", 404},
		{"/login?livello=9&metodo=post", "Scelta non riconosciuta", 400},
		{"/login?livello=2&metodo=get", "Scelta non riconosciuta", 400},
		{"/login?livello=2&metodo=post&servizio=5", "Scelta non riconosciuta", 400},
	} {
		res, page := b.get(tt.path)
		if res.StatusCode != tt.status || !strings.Contains(page, tt.want) {
			t.Errorf("%s: status %d, want %d with %q", tt.path, res.StatusCode, tt.status, tt.want)
		}
		if strings.Contains(page, "style=") || regexp.MustCompile(`(src|href)="(https?:)?//`).MatchString(page) {
			t.Errorf("%s: inline style or external resource", tt.path)
		}
	}
	if u, err := url.Parse(b.base); err != nil || len(b.client.Jar.Cookies(u)) != 0 {
		t.Error("a cookie before any login")
	}
	_, page := b.get("/metadata")
	if page != string(sp.Metadata()) {
		t.Error("/metadata differs from Metadata")
	}
}

func TestSiteCookie(t *testing.T) {
	sp, _, _ := newSP(t, nil) // an https base
	w := httptest.NewRecorder()
	sp.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/login?livello=2&metodo=redirect", nil))
	cookies := w.Result().Cookies()
	if len(cookies) != 1 || !cookies[0].HttpOnly || !cookies[0].Secure || cookies[0].SameSite != http.SameSiteNoneMode {
		t.Errorf("cookies %v", cookies)
	}
}

func TestBrowserBookIsBounded(t *testing.T) {
	book := newBrowserBook(2, time.Minute)
	now := newClock().now()
	for i := range 5 {
		book.put(fmt.Sprint(i), nil, errors.New("x"), now)
	}
	if len(book.byCookie) != 2 || book.order.Len() != 2 || book.known("2", now) || !book.known("4", now) {
		t.Errorf("%d browsers kept", len(book.byCookie))
	}
	if book.known("4", now.Add(time.Minute)) {
		t.Error("a visit outlived its time")
	}
	book.put("new", nil, nil, now.Add(time.Minute))
	if len(book.byCookie) != 1 {
		t.Errorf("%d browsers kept after the others expired", len(book.byCookie))
	}
}

func TestOpenFetchesMetadata(t *testing.T) {
	var fail bool
	c := newClock()
	idp := newFakeIdP(t, c)
	raw := idp.metadata(t, nil)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if fail {
			http.Error(w, "no", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write(raw)
	}))
	defer server.Close()
	sp, _, _ := newSP(t, func(cfg *Config) { cfg.IdPMetadata, cfg.IdPMetadataURL = nil, server.URL })
	if _, _, err := sp.RedirectURL(Request{}); err == nil {
		t.Error("a request without IdP metadata")
	}
	fail = true
	w := httptest.NewRecorder()
	sp.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/login?livello=2&metodo=redirect", nil))
	if w.Code != http.StatusBadGateway {
		t.Errorf("IdP out of reach: status %d", w.Code)
	}
	fail = false
	for range 2 {
		if err := sp.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if idp, err := sp.IdP(); err != nil || idp.EntityID != testIdP || idp.SSOPost != testIdP+"/sso/post" || len(idp.Signers) != 1 {
		t.Errorf("IdP %+v, %v", idp, err)
	}
	nowhere, _, _ := newSP(t, func(cfg *Config) { cfg.IdPMetadata = nil })
	if nowhere.Open(t.Context()) == nil {
		t.Error("opened without metadata and without an address")
	}
}
