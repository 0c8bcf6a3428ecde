package slo

import (
	"encoding/base64"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/beevik/etree"
)

// Handler serves the endpoints that the metadata name: /slo/redirect, /slo/post
// and /slo/soap, below the SP's base URL. done is called with the browser that
// brought the answer to a request of ours.
func (p *Party) Handler(done func(http.ResponseWriter, *http.Request, Result)) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /slo/redirect", func(w http.ResponseWriter, r *http.Request) { p.redirected(w, r, done) })
	mux.HandleFunc("POST /slo/post", func(w http.ResponseWriter, r *http.Request) { p.posted(w, r, done) })
	mux.HandleFunc("POST /slo/soap", p.soap)
	return mux
}

func (p *Party) at(binding string) string { return p.sp.Config().BaseURL + "/slo/" + binding }

func (p *Party) redirected(w http.ResponseWriter, r *http.Request, done func(http.ResponseWriter, *http.Request, Result)) {
	parameter := "SAMLRequest"
	if r.URL.Query().Has("SAMLResponse") {
		parameter = "SAMLResponse"
	}
	if err := p.verifyQuery(r.URL.RawQuery, parameter); err != nil {
		p.refuse(w, err)
		return
	}
	raw, err := inflate(r.URL.Query().Get(parameter))
	if err != nil {
		p.refuse(w, err)
		return
	}
	p.take(w, r, "redirect", parameter, raw, r.URL.Query().Get("RelayState"), done)
}

func (p *Party) posted(w http.ResponseWriter, r *http.Request, done func(http.ResponseWriter, *http.Request, Result)) {
	r.Body = http.MaxBytesReader(w, r.Body, maxMessage)
	if err := r.ParseForm(); err != nil {
		p.refuse(w, err)
		return
	}
	parameter := "SAMLRequest"
	if r.PostForm.Has("SAMLResponse") {
		parameter = "SAMLResponse"
	}
	raw, err := base64.StdEncoding.DecodeString(r.PostForm.Get(parameter))
	if err != nil {
		p.refuse(w, err)
		return
	}
	p.take(w, r, "post", parameter, raw, r.PostForm.Get("RelayState"), done)
}

// take handles a message that came through a browser; a redirected one has been
// verified, a posted one carries its signature.
func (p *Party) take(w http.ResponseWriter, r *http.Request, binding, parameter string, raw []byte, relay string, done func(http.ResponseWriter, *http.Request, Result)) {
	el, err := parse(raw)
	if err == nil && binding == "post" {
		el, err = p.verify(el)
	}
	if err != nil {
		p.refuse(w, err)
		return
	}
	if parameter == "SAMLResponse" {
		result, err := p.result(el, p.at(binding), relay)
		if err != nil {
			p.refuse(w, err)
			return
		}
		done(w, r, result)
		return
	}
	s, err := p.check(el, p.at(binding))
	if err != nil {
		p.refuse(w, err)
		return
	}
	b := p.ended(s)
	if b.Silent {
		http.Error(w, "il servizio non risponde", http.StatusInternalServerError)
		return
	}
	to, doc, err := p.response(binding, el.SelectAttrValue("ID", ""), b)
	if err != nil {
		p.refuse(w, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	if binding == "redirect" {
		xml, err := doc.WriteToBytes()
		if err == nil {
			var q string
			if q, err = p.signQuery("SAMLResponse", xml, relay, b.Stranger); err == nil {
				http.Redirect(w, r, to+"?"+q, http.StatusFound)
				return
			}
		}
		p.refuse(w, err)
		return
	}
	fields, err := p.form(doc, "SAMLResponse", relay, b.Stranger)
	if err != nil {
		p.refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprintf(w, `<!DOCTYPE html><html lang="it"><title>Uscita</title><form id="f" method="post" action="%s">`, html.EscapeString(to))
	for name, values := range fields {
		fmt.Fprintf(w, `<input type="hidden" name="%s" value="%s">`, html.EscapeString(name), html.EscapeString(values[0]))
	}
	_, _ = io.WriteString(w, `<button>Continua</button></form><script>document.getElementById("f").submit()</script></html>`)
}

func (p *Party) soap(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(io.LimitReader(r.Body, maxMessage))
	if err != nil {
		return
	}
	el, err := openEnvelope(raw)
	if err == nil && !strings.HasPrefix(r.Header.Get("Content-Type"), "text/xml") {
		err = errors.New("content type")
	}
	if err == nil {
		el, err = p.verify(el)
	}
	var s Session
	if err == nil {
		s, err = p.check(el, p.at("soap"))
	}
	if err != nil {
		p.refuse(w, err)
		return
	}
	b := p.ended(s)
	if b.Silent {
		<-r.Context().Done()
		return
	}
	select {
	case <-time.After(b.Delay):
	case <-r.Context().Done():
		return
	}
	_, doc, err := p.response("soap", el.SelectAttrValue("ID", ""), b)
	if err == nil {
		err = p.sign(doc, b.Stranger)
	}
	if err != nil {
		p.refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	_, _ = w.Write(envelope(doc))
}

// ended ends the session here, unless the party misbehaves.
func (p *Party) ended(s Session) Behaviour {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = append(p.told, s.NameID)
	if p.behaviour == (Behaviour{Delay: p.behaviour.Delay}) {
		delete(p.open, s.NameID)
	}
	return p.behaviour
}

func (p *Party) response(binding, inResponseTo string, b Behaviour) (string, *etree.Document, error) {
	idp, err := p.sp.IdP()
	if err != nil {
		return "", nil, err
	}
	to := idp.SLO[bindings[binding]]
	doc, root, _, err := p.start("LogoutResponse", to)
	if err != nil {
		return "", nil, err
	}
	root.CreateAttr("InResponseTo", inResponseTo)
	p.issuer(root, false)
	code := root.CreateElement("samlp:Status").CreateElement("samlp:StatusCode")
	code.CreateAttr("Value", status+"Success")
	if b.Partial {
		code.CreateAttr("Value", status+"Requester")
		code.CreateElement("samlp:StatusCode").CreateAttr("Value", status+"PartialLogout")
	}
	return to, doc, nil
}
