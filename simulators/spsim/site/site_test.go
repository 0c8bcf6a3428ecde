package site

import (
	"compress/flate"
	"encoding/base64"
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

	"custode/simulators/spsim"
)

// browser is a person's browser at the demonstration site.
type browser struct {
	t      *testing.T
	client *http.Client
	base   string
}

// openSite serves an SP on loopback below a path, trusting a fake identity
// provider, and returns a browser there.
func openSite(t *testing.T) (*browser, *fakeIdP) {
	t.Helper()
	var handler http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	idp := newFakeIdP(t)
	sp := idp.client(t, server.URL+"/comune")
	handler = New(sp)
	return newBrowser(t, sp.Config().BaseURL), idp
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

var nonceAttr = regexp.MustCompile(`nonce="([^"]+)"`)

// start begins a login and returns the AuthnRequest and the RelayState.
func (b *browser) start(query string) (request []byte, relay string) {
	b.t.Helper()
	res, page := b.get("/login?" + query)
	if res.StatusCode == http.StatusFound {
		u, err := url.Parse(res.Header.Get("Location"))
		if err != nil {
			b.t.Fatal(err)
		}
		raw, err := io.ReadAll(flate.NewReader(base64.NewDecoder(base64.StdEncoding, strings.NewReader(u.Query().Get("SAMLRequest")))))
		if err != nil {
			b.t.Fatal(err)
		}
		return raw, u.Query().Get("RelayState")
	}
	if res.StatusCode != http.StatusOK {
		b.t.Fatalf("login: status %d: %s", res.StatusCode, page)
	}
	field := func(name string) string {
		m := regexp.MustCompile(`name="` + name + `" value="([^"]*)"`).FindStringSubmatch(page)
		if m == nil {
			b.t.Fatalf("the page has no field %s", name)
		}
		return html.UnescapeString(m[1])
	}
	raw, err := base64.StdEncoding.DecodeString(field("SAMLRequest"))
	if err != nil {
		b.t.Fatal(err)
	}
	return raw, field("RelayState")
}

// deliver answers the request at the ACS.
func (b *browser) deliver(idp *fakeIdP, request []byte, relay string, a answer) *http.Response {
	b.t.Helper()
	res, _ := b.post("/acs", url.Values{"SAMLResponse": {idp.respond(b.t, request, a)}, "RelayState": {relay}})
	return res
}

func TestSiteLogin(t *testing.T) {
	for _, query := range []string{
		"livello=2&metodo=post", "livello=2&metodo=redirect", "livello=1&metodo=post",
		"livello=1&metodo=redirect", "livello=3&metodo=post&servizio=2",
	} {
		t.Run(query, func(t *testing.T) {
			b, idp := openSite(t)
			request, relay := b.start(query)
			res := b.deliver(idp, request, relay, answer{})
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
				"Risposta: firma verificata", "Asserzione: firma verificata", "04/03/2026 05:06:07.890 UTC", testIdP,
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
	b, _ := openSite(t)
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
	b, idp := openSite(t)
	request, relay := b.start("livello=2&metodo=redirect")
	b.deliver(idp, request, relay, answer{status: [3]string{"Responder", "AuthnFailed", "ErrorCode nr25"}})
	res, page := b.get("/esito")
	if res.StatusCode != http.StatusForbidden || !strings.Contains(page, "Anomalia SPID n. 25") || !strings.Contains(page, "ErrorCode nr25") || !strings.Contains(page, `data-esito="anomalia"`) {
		t.Errorf("cancelled login: status %d", res.StatusCode)
	}
	if _, body := b.get("/esito.json"); !strings.Contains(body, `"anomaly":25`) {
		t.Errorf("JSON: %s", body)
	}

	request, relay = b.start("livello=2&metodo=post")
	b.deliver(idp, request, relay, answer{stranger: true})
	if res, page = b.get("/esito"); res.StatusCode != http.StatusForbidden || !strings.Contains(page, `data-esito="rifiuto"`) || strings.Contains(page, "Maria") {
		t.Errorf("forged login: status %d", res.StatusCode)
	}
	if _, body := b.get("/esito.json"); !strings.Contains(body, `"check":"assertion.signature"`) {
		t.Errorf("JSON: %s", body)
	}

	// The right response at the wrong endpoint, and in the wrong browser.
	request, relay = b.start("livello=2&metodo=post")
	good := url.Values{"SAMLResponse": {idp.respond(t, request, answer{})}, "RelayState": {relay}}
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
	b, idp := openSite(t)
	for _, tt := range []struct {
		path, want string
		status     int
	}{
		{"/", "Entra con SPID", 200},
		{"/", `<html lang="it">`, 200},
		{"/style.css", ".button", 200},
		{"/metadata", "SPSSODescriptor", 200},
		{"/slo/altro", "404 page not found", 404},
		{"/slo/redirect", "messaggio rifiutato", 403},
		{"/esci-ovunque", "Pagina non trovata", 404},
		{"/esito", "", 303},
		{"/esito.json", `"ok":false`, 404},
		{"/crest.svg", "<svg", 200},
		{"/altro", "Pagina non trovata", 404},
		{"/esci", "Pagina non trovata", 404},
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
	if page != string(idp.sp.Metadata()) {
		t.Error("/metadata differs from Metadata")
	}
}

func TestSiteCookie(t *testing.T) {
	w := httptest.NewRecorder()
	New(newFakeIdP(t).client(t, "https://comune.example")).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/login?livello=2&metodo=redirect", nil))
	cookies := w.Result().Cookies()
	if len(cookies) != 1 || !cookies[0].HttpOnly || !cookies[0].Secure || cookies[0].SameSite != http.SameSiteNoneMode {
		t.Errorf("cookies %v", cookies)
	}
}

func TestSiteWithoutIdP(t *testing.T) {
	sp, err := spsim.New(spsim.Config{BaseURL: "https://comune.example"})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	New(sp).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/login?livello=2&metodo=redirect", nil))
	if w.Code != http.StatusBadGateway || len(w.Result().Cookies()) != 0 {
		t.Errorf("status %d, cookies %v", w.Code, w.Result().Cookies())
	}
}

func TestSiteRefusesHugeForms(t *testing.T) {
	b, _ := openSite(t)
	b.start("livello=2&metodo=post")
	if res, _ := b.post("/acs", url.Values{"SAMLResponse": {strings.Repeat("A", maxForm)}}); res.StatusCode != http.StatusBadRequest {
		t.Errorf("status %d", res.StatusCode)
	}
}

// Every attribute the SP may ask for has an Italian name.
func TestLabels(t *testing.T) {
	for _, name := range newFakeIdP(t).client(t, "https://comune.example").Config().AttributeSets[2] {
		if label(name) == name {
			t.Errorf("%s has no label", name)
		}
	}
	if label("altro") != "altro" {
		t.Error("an attribute outside the table loses its name")
	}
}

func TestBrowserBookIsBounded(t *testing.T) {
	book := newBrowserBook(2, time.Minute)
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	known := func(cookie string, now time.Time) bool {
		_, ok := book.get(cookie, now)
		return ok
	}
	for i := range 5 {
		book.put(visit{cookie: fmt.Sprint(i), failure: errors.New("x")}, now)
	}
	if len(book.byCookie) != 2 || book.order.Len() != 2 || known("2", now) || !known("4", now) {
		t.Errorf("%d browsers kept", len(book.byCookie))
	}
	if known("4", now.Add(time.Minute)) {
		t.Error("a visit outlived its time")
	}
	book.put(visit{cookie: "new"}, now.Add(time.Minute))
	if len(book.byCookie) != 1 {
		t.Errorf("%d browsers kept after the others expired", len(book.byCookie))
	}
}
