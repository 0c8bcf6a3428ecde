// Package site is the web site of the simulated service provider: the
// fictitious municipality a person visits in the demonstration and in the
// browser tests. It shows a choice of services, sends the browser to the
// identity provider, and shows the outcome that spsim's judge found; it judges
// nothing itself.
//
// Pages are HTML in Italian for people; the same outcome is JSON for programs.
// The body's data-esito attribute (ok, anomalia, rifiuto or empty) tells a test
// how a login ended. There is one script, on the page that posts a request, and
// nothing is loaded from elsewhere. The server keeps the outcomes, bounded and
// expiring, behind a random cookie.
//
// It may be imported by whatever may import spsim: simulators, development
// binaries and tests, never the daemon.
package site

import (
	"bytes"
	"crypto/rand"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"custode/simulators/spsim"
	"custode/simulators/spsim/slo"
)

//go:embed assets
var assets embed.FS

var pages = template.Must(template.New("pages").Funcs(template.FuncMap{
	"instant": func(t time.Time) string { return t.UTC().Format("02/01/2006 15:04:05.000 UTC") },
}).ParseFS(assets, "assets/pages.html"))

const (
	cookieName  = "spsim"
	maxForm     = 600 << 10 // bytes of a form at the ACS, more than the judge reads
	maxBrowsers = 4096
)

// site serves one SP.
type site struct {
	sp       *spsim.SP
	cfg      spsim.Config
	root     string // the path below which everything lies, "" or "/path"
	browsers *browserBook
	party    *slo.Party
}

// New returns sp's site, to be reached at its Config.BaseURL: the home page,
// /login?livello=1|2|3&metodo=post|redirect[&servizio=N], the assertion consumer
// services /acs and /acs/1, the result at /esito (and /esito.json for
// programs), /metadata, POST /esci to forget the result, POST /esci-ovunque for
// single logout, whose endpoints are below /slo/. The first login fetches the IdP's metadata (SP.Open).
func New(sp *spsim.SP) http.Handler {
	cfg := sp.Config()
	s := &site{sp: sp, cfg: cfg, browsers: newBrowserBook(maxBrowsers, cfg.RequestTTL), party: slo.New(sp)}
	if u, err := url.Parse(cfg.BaseURL); err == nil { // spsim.New parsed it already
		s.root = u.Path
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.serveHome)
	for _, file := range []string{"style.css", "crest.svg"} {
		mux.HandleFunc("GET /"+file, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Content-Type-Options", "nosniff")
			http.ServeFileFS(w, r, assets, "assets/"+file)
		})
	}
	mux.HandleFunc("GET /metadata", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/samlmetadata+xml")
		_, _ = w.Write(sp.Metadata())
	})
	mux.HandleFunc("GET /login", s.serveLogin)
	mux.HandleFunc("POST /acs", func(w http.ResponseWriter, r *http.Request) { s.serveACS(w, r, sp.ACS(0)) })
	mux.HandleFunc("POST /acs/1", func(w http.ResponseWriter, r *http.Request) { s.serveACS(w, r, sp.ACS(1)) })
	mux.HandleFunc("GET /esito", s.serveResult)
	mux.HandleFunc("GET /esito.json", s.serveResultJSON)
	mux.HandleFunc("POST /esci", func(w http.ResponseWriter, r *http.Request) {
		s.browsers.forget(cookieOf(r))
		s.goTo(w, r, "/")
	})
	mux.HandleFunc("POST /esci-ovunque", s.serveLeave)
	mux.Handle("/slo/", s.party.Handler(s.serveLeft))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { s.showProblem(w, noPage) })
	return http.StripPrefix(s.root, mux)
}

func (s *site) goTo(w http.ResponseWriter, r *http.Request, path string) {
	http.Redirect(w, r, s.root+path, http.StatusSeeOther)
}

// frame is what every page needs.
type frame struct {
	Title, Org, Root string
	// Outcome is ok, anomalia, rifiuto or empty: a test reads it from the body.
	Outcome string
}

func (s *site) frame(title, outcome string) frame {
	return frame{Title: title, Org: s.cfg.OrganizationDisplayName, Root: s.root, Outcome: outcome}
}

// show renders a page; extra is appended to a policy that allows our
// stylesheet and nothing else.
func (s *site) show(w http.ResponseWriter, status int, page, extra string, data any) {
	var buf bytes.Buffer
	if err := pages.ExecuteTemplate(&buf, page, data); err != nil {
		http.Error(w, "pagina non disponibile", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy",
		"default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'; "+extra)
	w.WriteHeader(status)
	_, _ = w.Write(buf.Bytes())
}

type choice struct {
	Level         int
	Heading, Text string
}

func (s *site) serveHome(w http.ResponseWriter, _ *http.Request) {
	var asked []string
	for _, name := range s.cfg.AttributeSets[0] {
		asked = append(asked, label(name))
	}
	s.show(w, http.StatusOK, "home", "form-action 'none'", struct {
		frame
		Choices []choice
		Labels  []string
	}{
		frame: s.frame("Servizi online", ""),
		Choices: []choice{
			{2, "Anagrafe e tributi", "Certificati, cambio di residenza, pagamento della TARI. Servono nome utente, password e un codice temporaneo."},
			{1, "Biblioteca e segnalazioni", "Prenotazione di libri e segnalazione di guasti. Bastano nome utente e password."},
		},
		Labels: asked,
	})
}

func (s *site) serveLogin(w http.ResponseWriter, r *http.Request) {
	request, post, ok := s.readChoice(r.URL.Query())
	if !ok {
		s.showProblem(w, badChoice)
		return
	}
	if err := s.sp.Open(r.Context()); err != nil {
		p := noIdP
		p.Detail = err.Error()
		s.showProblem(w, p)
		return
	}
	request.Browser = s.browser(w, r)
	request.RelayState = rand.Text()
	send := s.sendRedirect
	if post {
		send = s.sendPost
	}
	if send(w, r, request) != nil {
		s.showProblem(w, noRequest)
	}
}

func (s *site) readChoice(q url.Values) (request spsim.Request, post, ok bool) {
	level, err := strconv.Atoi(q.Get("livello"))
	method := q.Get("metodo")
	if err != nil || level < 1 || level > 3 || method != "post" && method != "redirect" {
		return spsim.Request{}, false, false
	}
	request.Level = level
	if set := q.Get("servizio"); set != "" {
		if request.Service, err = strconv.Atoi(set); err != nil {
			return spsim.Request{}, false, false
		}
	}
	_, ok = s.cfg.AttributeSets[request.Service]
	return request, method == "post", ok
}

// browser returns the cookie of a known browser, or makes and sets one; the
// last outcome is forgotten. The ACS receives a cross-site POST, so under https
// the cookie is SameSite=None; under plain http (loopback, same site as the
// IdP) the attribute is left out.
func (s *site) browser(w http.ResponseWriter, r *http.Request) string {
	now, value := s.cfg.Now(), cookieOf(r)
	if _, known := s.browsers.get(value, now); !known {
		value = rand.Text()
		cookie := &http.Cookie{Name: cookieName, Value: value, Path: s.root + "/", HttpOnly: true}
		if strings.HasPrefix(s.cfg.BaseURL, "https:") {
			cookie.Secure, cookie.SameSite = true, http.SameSiteNoneMode
		}
		http.SetCookie(w, cookie)
	}
	s.browsers.put(visit{cookie: value}, now)
	return value
}

func cookieOf(r *http.Request) string {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return ""
	}
	return c.Value
}

func (s *site) sendRedirect(w http.ResponseWriter, r *http.Request, request spsim.Request) error {
	location, _, err := s.sp.RedirectURL(request)
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, location, http.StatusFound)
	return nil
}

func (s *site) sendPost(w http.ResponseWriter, _ *http.Request, request spsim.Request) error {
	action, fields, _, err := s.sp.PostForm(request)
	if err != nil {
		return err
	}
	target, err := url.Parse(action)
	if err != nil {
		return err
	}
	nonce := rand.Text()
	policy := "script-src 'nonce-" + nonce + "'; form-action " + target.Scheme + "://" + target.Host
	s.show(w, http.StatusOK, "post", policy, struct {
		frame
		Action, Nonce string
		Fields        url.Values
	}{s.frame("Accesso con SPID", ""), action, nonce, fields})
	return nil
}

// serveACS judges the response, keeps the outcome for this browser and
// redirects to the result, so that a reload does not post it again.
func (s *site) serveACS(w http.ResponseWriter, r *http.Request, endpoint string) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		s.showProblem(w, badForm)
		return
	}
	now, v := s.cfg.Now(), visit{cookie: cookieOf(r)}
	if _, known := s.browsers.get(v.cookie, now); !known {
		s.showProblem(w, strangeBrowser)
		return
	}
	if responses, states := len(r.PostForm["SAMLResponse"]), len(r.PostForm["RelayState"]); responses != 1 || states > 1 {
		v.failure = &spsim.Refusal{Check: "form", Detail: fmt.Sprintf("%d SAMLResponse and %d RelayState fields", responses, states)}
	} else {
		v.login, v.failure = s.sp.ConsumeAt(endpoint, v.cookie, r.PostForm.Get("SAMLResponse"), r.PostForm.Get("RelayState"))
	}
	if v.login != nil {
		s.party.LoggedIn(v.login)
	}
	s.browsers.put(v, now)
	s.goTo(w, r, "/esito")
}

func (s *site) serveResult(w http.ResponseWriter, r *http.Request) {
	v, _ := s.browsers.get(cookieOf(r), s.cfg.Now())
	switch {
	case v.login != nil && v.login.SessionIndex != "" && !s.party.Open(v.login.NameID):
		s.browsers.forget(cookieOf(r)) // the identity provider ended the session
		s.goTo(w, r, "/")
	case v.login != nil:
		s.showLogin(w, v.login)
	case v.failure != nil:
		s.showProblem(w, problemOf(v.failure))
	default:
		s.goTo(w, r, "/")
	}
}

type row struct{ Name, Label, Value string }

func (s *site) showLogin(w http.ResponseWriter, login *spsim.Login) {
	var rows []row
	for _, name := range s.cfg.AttributeSets[login.Request.Service] {
		if slices.Contains(login.AttributeNames, name) {
			rows = append(rows, row{name, label(name), login.Attributes[name]})
		}
	}
	issuer := ""
	if idp, err := s.sp.IdP(); err == nil {
		issuer = idp.EntityID
	}
	// The logout's form leads on to the identity provider and the other services.
	s.show(w, http.StatusOK, "esito", "form-action 'self' https: http:", struct {
		frame
		Login       *spsim.Login
		Person, IdP string
		Rows        []row
	}{s.frame("Accesso riuscito", "ok"), login, login.Attributes["name"], issuer, rows})
}

// serveResultJSON gives programs the outcome: 200 with the login, 403 with
// the anomaly or the broken rule, 404 when there is none.
func (s *site) serveResultJSON(w http.ResponseWriter, r *http.Request) {
	v, _ := s.browsers.get(cookieOf(r), s.cfg.Now())
	status, body := http.StatusNotFound, map[string]any{"ok": false, "error": "no login"}
	var anomaly *spsim.StatusError
	switch {
	case v.login != nil:
		status, body = http.StatusOK, map[string]any{
			"ok": true, "level": v.login.Level, "attributes": v.login.Attributes,
			"nameID": v.login.NameID, "sessionIndex": v.login.SessionIndex,
		}
	case errors.As(v.failure, &anomaly):
		status, body = http.StatusForbidden, map[string]any{
			"ok": false, "error": v.failure.Error(), "anomaly": anomaly.Anomaly,
		}
	case v.failure != nil:
		status, body = http.StatusForbidden, map[string]any{
			"ok": false, "error": v.failure.Error(), "check": spsim.CheckOf(v.failure),
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
