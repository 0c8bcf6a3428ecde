package spsim

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed assets
var assets embed.FS

var pages = template.Must(template.New("pages").Funcs(template.FuncMap{
	"instant": func(t time.Time) string { return t.UTC().Format("02/01/2006 15:04:05.000 UTC") },
}).ParseFS(assets, "assets/pages.html"))

const (
	cookieName = "spsim"
	maxForm    = maxResponse + 64<<10 // bytes of a form at the ACS
)

// Handler is the municipality's site below BaseURL's path: the home page,
// /login?livello=1|2|3&metodo=post|redirect[&servizio=N], the assertion consumer
// services /acs and /acs/1, the result at /esito (and /esito.json for
// programs), /metadata, and POST /esci to forget the result. Single logout at
// /slo answers 501.
func (sp *SP) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", sp.serveHome)
	mux.HandleFunc("GET /style.css", sp.serveStyle)
	mux.HandleFunc("GET /metadata", sp.serveMetadata)
	mux.HandleFunc("GET /login", sp.serveLogin)
	mux.HandleFunc("POST /acs", func(w http.ResponseWriter, r *http.Request) { sp.serveACS(w, r, sp.ACS(0)) })
	mux.HandleFunc("POST /acs/1", func(w http.ResponseWriter, r *http.Request) { sp.serveACS(w, r, sp.ACS(1)) })
	mux.HandleFunc("GET /esito", sp.serveResult)
	mux.HandleFunc("GET /esito.json", sp.serveResultJSON)
	mux.HandleFunc("POST /esci", sp.serveLeave)
	mux.HandleFunc("/slo", func(w http.ResponseWriter, _ *http.Request) {
		sp.showProblem(w, http.StatusNotImplemented, problem{
			Badge: "Non disponibile", Heading: "Uscita unica non disponibile",
			Text: "Questo servizio dimostrativo non gestisce l'uscita unica (single logout).",
		})
	})
	return http.StripPrefix(sp.rootPath(), mux)
}

func (sp *SP) rootPath() string {
	u, err := url.Parse(sp.cfg.BaseURL)
	if err != nil {
		return ""
	}
	return u.Path
}

// frame is what every page needs.
type frame struct {
	Title, Org, Root string
	// Outcome is ok, anomalia, rifiuto or empty: a test reads it from the body.
	Outcome string
}

func (sp *SP) frame(title, outcome string) frame {
	return frame{Title: title, Org: sp.cfg.OrganizationDisplayName, Root: sp.rootPath(), Outcome: outcome}
}

// show renders a page; extra is appended to a policy that allows our
// stylesheet and nothing else.
func (sp *SP) show(w http.ResponseWriter, status int, page, extra string, data any) {
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
		"default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'; "+extra)
	w.WriteHeader(status)
	_, _ = w.Write(buf.Bytes())
}

type choice struct {
	Level         int
	Heading, Text string
}

func (sp *SP) serveHome(w http.ResponseWriter, _ *http.Request) {
	var labels []string
	for _, name := range sp.cfg.AttributeSets[0] {
		labels = append(labels, attributeNamed(name).label)
	}
	sp.show(w, http.StatusOK, "home", "form-action 'none'", struct {
		frame
		Choices []choice
		Labels  []string
	}{
		frame: sp.frame("Servizi online", ""),
		Choices: []choice{
			{2, "Anagrafe e tributi", "Certificati, cambio di residenza, pagamento della TARI. Servono nome utente, password e un codice temporaneo."},
			{1, "Biblioteca e segnalazioni", "Prenotazione di libri e segnalazione di guasti. Bastano nome utente e password."},
		},
		Labels: labels,
	})
}

func (sp *SP) serveStyle(w http.ResponseWriter, _ *http.Request) {
	css, err := assets.ReadFile("assets/style.css")
	if err != nil {
		http.Error(w, "stile non disponibile", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(css)
}

func (sp *SP) serveMetadata(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/samlmetadata+xml")
	_, _ = w.Write(sp.metadata)
}

func (sp *SP) serveLogin(w http.ResponseWriter, r *http.Request) {
	request, post, ok := sp.readChoice(r.URL.Query())
	if !ok {
		sp.showProblem(w, http.StatusBadRequest, problem{
			Badge: "Richiesta non valida", Heading: "Scelta non riconosciuta",
			Text: "Torna alla pagina iniziale e scegli come entrare.",
		})
		return
	}
	if err := sp.Open(r.Context()); err != nil {
		sp.showProblem(w, http.StatusBadGateway, problem{
			Badge: "Servizio non raggiungibile", Heading: "Il gestore di identità non risponde",
			Text: "Non è stato possibile leggere i metadati del gestore. Riprova più tardi.", Detail: err.Error(),
		})
		return
	}
	cookie, err := sp.browser(w, r)
	if err == nil {
		request.Browser = cookie
		request.RelayState, err = newID(sp.cfg.Rand)
	}
	if err == nil && post {
		err = sp.sendPost(w, request)
	} else if err == nil {
		var location string
		if location, _, err = sp.RedirectURL(request); err == nil {
			w.Header().Set("Cache-Control", "no-store")
			http.Redirect(w, r, location, http.StatusFound)
		}
	}
	if err != nil {
		sp.showProblem(w, http.StatusInternalServerError, problem{
			Badge: "Errore interno", Heading: "Non è stato possibile preparare la richiesta",
			Text: "Riprova più tardi.",
		})
	}
}

func (sp *SP) readChoice(q url.Values) (request Request, post, ok bool) {
	level, err := strconv.Atoi(q.Get("livello"))
	if err != nil || level < 1 || level > 3 {
		return Request{}, false, false
	}
	method := q.Get("metodo")
	if method != "post" && method != "redirect" {
		return Request{}, false, false
	}
	request.Level = level
	if s := q.Get("servizio"); s != "" {
		if request.Service, err = strconv.Atoi(s); err != nil {
			return Request{}, false, false
		}
	}
	if _, ok := sp.cfg.AttributeSets[request.Service]; !ok {
		return Request{}, false, false
	}
	return request, method == "post", true
}

// browser returns the cookie of a known browser, or makes and sets one. The
// ACS receives a cross-site POST, so under https the cookie is SameSite=None;
// under plain http (loopback, same site as the IdP) the attribute is left out.
func (sp *SP) browser(w http.ResponseWriter, r *http.Request) (string, error) {
	now := sp.cfg.Now()
	if value := cookieOf(r); sp.browsers.known(value, now) {
		sp.browsers.put(value, nil, nil, now) // its time starts anew, the last outcome is forgotten
		return value, nil
	}
	value, err := newID(sp.cfg.Rand)
	if err != nil {
		return "", err
	}
	sp.browsers.put(value, nil, nil, now)
	cookie := &http.Cookie{Name: cookieName, Value: value, Path: sp.rootPath() + "/", HttpOnly: true}
	if strings.HasPrefix(sp.cfg.BaseURL, "https:") {
		cookie.Secure, cookie.SameSite = true, http.SameSiteNoneMode
	}
	http.SetCookie(w, cookie)
	return value, nil
}

func cookieOf(r *http.Request) string {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return ""
	}
	return c.Value
}

type field struct{ Name, Value string }

func (sp *SP) sendPost(w http.ResponseWriter, request Request) error {
	action, values, _, err := sp.PostForm(request)
	if err != nil {
		return err
	}
	target, err := url.Parse(action)
	if err != nil {
		return err
	}
	nonce, err := newID(sp.cfg.Rand)
	if err != nil {
		return err
	}
	var fields []field
	for _, name := range []string{"SAMLRequest", "RelayState"} {
		for _, value := range values[name] {
			fields = append(fields, field{name, value})
		}
	}
	policy := "script-src 'nonce-" + nonce + "'; form-action " + target.Scheme + "://" + target.Host
	sp.show(w, http.StatusOK, "post", policy, struct {
		frame
		Action, Nonce string
		Fields        []field
	}{sp.frame("Accesso con SPID", ""), action, nonce, fields})
	return nil
}

// serveACS judges the response, keeps the outcome for this browser and
// redirects to the result, so that a reload does not post it again.
func (sp *SP) serveACS(w http.ResponseWriter, r *http.Request, endpoint string) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		sp.showProblem(w, http.StatusBadRequest, problem{
			Badge: "Risposta non valida", Heading: "La risposta ricevuta non è leggibile",
			Text: "Torna alla pagina iniziale e riprova.",
		})
		return
	}
	cookie := cookieOf(r)
	now := sp.cfg.Now()
	if !sp.browsers.known(cookie, now) {
		sp.showProblem(w, http.StatusForbidden, problem{
			Badge: "Sessione scaduta", Heading: "Questo accesso non è stato chiesto da qui",
			Text: "La risposta è arrivata a un browser che non ha iniziato l'accesso, o troppo tardi.",
		})
		return
	}
	var login *Login
	var err error
	if len(r.PostForm["SAMLResponse"]) != 1 || len(r.PostForm["RelayState"]) > 1 {
		err = refuse("form", "%d SAMLResponse and %d RelayState fields", len(r.PostForm["SAMLResponse"]), len(r.PostForm["RelayState"]))
	} else {
		login, err = sp.consumeAt(endpoint, cookie, r.PostForm.Get("SAMLResponse"), r.PostForm.Get("RelayState"))
	}
	sp.browsers.put(cookie, login, err, now)
	http.Redirect(w, r, sp.rootPath()+"/esito", http.StatusSeeOther)
}

func (sp *SP) serveLeave(w http.ResponseWriter, r *http.Request) {
	sp.browsers.forget(cookieOf(r))
	http.Redirect(w, r, sp.rootPath()+"/", http.StatusSeeOther)
}

type row struct{ Name, Label, Value string }

func (sp *SP) serveResult(w http.ResponseWriter, r *http.Request) {
	login, failure := sp.browsers.outcome(cookieOf(r), sp.cfg.Now())
	switch {
	case login != nil:
		sp.showLogin(w, login)
	case failure != nil:
		sp.showFailure(w, failure)
	default:
		http.Redirect(w, r, sp.rootPath()+"/", http.StatusSeeOther)
	}
}

func (sp *SP) showLogin(w http.ResponseWriter, login *Login) {
	var rows []row
	for _, name := range sp.cfg.AttributeSets[login.Request.Service] {
		if slices.Contains(login.AttributeNames, name) {
			rows = append(rows, row{name, attributeNamed(name).label, login.Attributes[name]})
		}
	}
	idpName := ""
	if idp, err := sp.IdP(); err == nil {
		idpName = idp.EntityID
	}
	sp.show(w, http.StatusOK, "esito", "form-action 'self'", struct {
		frame
		Login       *Login
		Person, IdP string
		Rows        []row
	}{sp.frame("Accesso riuscito", "ok"), login, login.Attributes["name"], idpName, rows})
}

// serveResultJSON gives programs the outcome: 200 with the login, 403 with
// the anomaly or the broken rule, 404 when there is none.
func (sp *SP) serveResultJSON(w http.ResponseWriter, r *http.Request) {
	login, failure := sp.browsers.outcome(cookieOf(r), sp.cfg.Now())
	status, body := http.StatusNotFound, map[string]any{"ok": false, "error": "no login"}
	var anomaly *StatusError
	switch {
	case login != nil:
		status, body = http.StatusOK, map[string]any{
			"ok": true, "level": login.Level, "attributes": login.Attributes,
			"nameID": login.NameID, "sessionIndex": login.SessionIndex,
		}
	case errors.As(failure, &anomaly):
		status, body = http.StatusForbidden, map[string]any{
			"ok": false, "error": failure.Error(), "anomaly": anomaly.Anomaly,
		}
	case failure != nil:
		status, body = http.StatusForbidden, map[string]any{
			"ok": false, "error": failure.Error(), "check": CheckOf(failure),
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
