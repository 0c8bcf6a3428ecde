// Package slo is single logout as the simulated service provider speaks it: it
// asks the identity provider to end a session and answers when it is told of an
// end, over HTTP-Redirect, HTTP-POST and SOAP. It judges what it receives
// strictly (signature, Destination, Issuer, NameID given at a login, SessionIndex,
// NotOnOrAfter) and can misbehave on purpose: see [Behaviour].
//
// Like every simulator it shares no code with the product. Tests, the demo's web
// site and the laboratory may import it.
package slo

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/beevik/etree"

	"custode/simulators/spsim"
)

const (
	nsProtocol  = "urn:oasis:names:tc:SAML:2.0:protocol"
	nsAssertion = "urn:oasis:names:tc:SAML:2.0:assertion"
	nsSOAP      = "http://schemas.xmlsoap.org/soap/envelope/"
	entity      = "urn:oasis:names:tc:SAML:2.0:nameid-format:entity"
	transient   = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"
	status      = "urn:oasis:names:tc:SAML:2.0:status:"
	layout      = "2006-01-02T15:04:05.000Z"
	maxMessage  = 256 << 10
)

var bindings = map[string]string{
	"redirect": "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect", "post": "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST",
	"soap": "urn:oasis:names:tc:SAML:2.0:bindings:SOAP",
}

// Behaviour is how the party answers when it is told of an end. The zero value
// is honest.
type Behaviour struct {
	Silent   bool          // never answers; the browser stays on a dead page
	Partial  bool          // answers that it could not end everything
	Stranger bool          // signs its answer with a key of nobody's
	Delay    time.Duration // waits before it answers
}

// Session is what a login left at the SP.
type Session struct{ NameID, Index string }

// Party is one SP's part in single logout. Its methods may be used concurrently.
type Party struct {
	sp *spsim.SP

	mu        sync.Mutex
	behaviour Behaviour
	open      map[string]Session // by NameID
	told      []string           // NameIDs that an IdP request ended, in order
	problems  []string           // messages refused
	results   map[string]Result  // by request ID
	waiting   map[string]bool    // requests not answered
}

// Result is a verified LogoutResponse.
type Result struct {
	InResponseTo, Status, SubStatus, RelayState string
}

// Success reports whether everything ended.
func (r Result) Success() bool { return r.Status == status+"Success" && r.SubStatus == "" }

// Partial reports SPID's partial logout.
func (r Result) Partial() bool {
	return r.Status == status+"Requester" && r.SubStatus == status+"PartialLogout"
}

// New returns the party of sp.
func New(sp *spsim.SP) *Party {
	return &Party{sp: sp, open: map[string]Session{}, results: map[string]Result{}, waiting: map[string]bool{}}
}

// Behave changes how the party answers.
func (p *Party) Behave(b Behaviour) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.behaviour = b
}

// LoggedIn remembers the session of a login.
func (p *Party) LoggedIn(l *spsim.Login) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.SessionIndex != "" {
		p.open[l.NameID] = Session{l.NameID, l.SessionIndex}
	}
}

// Open reports whether the party still has the session of the NameID.
func (p *Party) Open(nameID string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.open[nameID]
	return ok
}

// Told returns the NameIDs of the sessions that the IdP ended here.
func (p *Party) Told() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.told)
}

// Problems returns why messages were refused.
func (p *Party) Problems() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.problems)
}

// Result returns the answer to a request of ours.
func (p *Party) Result(request string) (Result, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, ok := p.results[request]
	return r, ok
}

// Options change a LogoutRequest.
type Options struct {
	RelayState string
	Stranger   bool                     // signed with a key of nobody's
	Async      bool                     // with the extension that wants no answer
	Plain      bool                     // Issuer without Format and NameQualifier, as Shibboleth sends it
	Change     func(doc *etree.Element) // before signing
}

func (p *Party) issuer(root *etree.Element, plain bool) {
	el := root.CreateElement("saml:Issuer")
	if !plain {
		el.CreateAttr("Format", entity)
		el.CreateAttr("NameQualifier", p.sp.EntityID())
	}
	el.SetText(p.sp.EntityID())
}

func (p *Party) start(tag, destination string) (*etree.Document, *etree.Element, string, error) {
	id, err := newID()
	doc := etree.NewDocument()
	root := doc.CreateElement("samlp:" + tag)
	for _, a := range [][2]string{{"xmlns:samlp", nsProtocol}, {"xmlns:saml", nsAssertion}, {"ID", id}, {"Version", "2.0"},
		{"IssueInstant", p.sp.Config().Now().UTC().Format(layout)}, {"Destination", destination}} {
		root.CreateAttr(a[0], a[1])
	}
	return doc, root, id, err
}

func (p *Party) request(binding string, s Session, o Options) (*etree.Document, string, string, error) {
	idp, err := p.sp.IdP()
	if err != nil {
		return nil, "", "", err
	}
	to := idp.SLO[bindings[binding]]
	if to == "" {
		return nil, "", "", fmt.Errorf("the IdP publishes no single logout by %s", binding)
	}
	doc, root, id, err := p.start("LogoutRequest", to)
	if err != nil {
		return nil, "", "", err
	}
	p.issuer(root, o.Plain)
	if o.Async {
		root.CreateElement("samlp:Extensions").CreateElement("aslo:Asynchronous").CreateAttr("xmlns:aslo", "urn:oasis:names:tc:SAML:2.0:protocol:ext:async-slo")
	}
	name := root.CreateElement("saml:NameID")
	name.CreateAttr("Format", transient)
	name.CreateAttr("NameQualifier", idp.EntityID)
	name.SetText(s.NameID)
	if s.Index != "" {
		root.CreateElement("samlp:SessionIndex").SetText(s.Index)
	}
	if o.Change != nil {
		o.Change(root)
	}
	p.mu.Lock()
	p.waiting[id] = true
	delete(p.open, s.NameID) // whoever asks is out already
	p.mu.Unlock()
	return doc, to, id, nil
}

// Redirect returns the address that asks for the end of s through a browser.
func (p *Party) Redirect(s Session, o Options) (location, id string, err error) {
	doc, to, id, err := p.request("redirect", s, o)
	if err != nil {
		return "", "", err
	}
	raw, err := doc.WriteToBytes()
	if err != nil {
		return "", "", err
	}
	q, err := p.signQuery("SAMLRequest", raw, o.RelayState, o.Stranger)
	return to + "?" + q, id, err
}

// Post returns the form that asks for the end of s through a browser.
func (p *Party) Post(s Session, o Options) (action string, fields url.Values, id string, err error) {
	doc, to, id, err := p.request("post", s, o)
	if err != nil {
		return "", nil, "", err
	}
	fields, err = p.form(doc, "SAMLRequest", o.RelayState, o.Stranger)
	return to, fields, id, err
}

func (p *Party) form(doc *etree.Document, parameter, relay string, stranger bool) (url.Values, error) {
	if err := p.sign(doc, stranger); err != nil {
		return nil, err
	}
	raw, err := doc.WriteToBytes()
	if err != nil {
		return nil, err
	}
	fields := url.Values{parameter: {base64.StdEncoding.EncodeToString(raw)}}
	if relay != "" {
		fields.Set("RelayState", relay)
	}
	return fields, nil
}

// SOAP asks for the end of s directly and returns the verified answer; status is
// that of HTTP.
func (p *Party) SOAP(ctx context.Context, s Session, o Options) (result Result, status int, err error) {
	doc, to, id, err := p.request("soap", s, o)
	if err != nil {
		return Result{}, 0, err
	}
	if err := p.sign(doc, o.Stranger); err != nil {
		return Result{}, 0, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(envelope(doc)))
	if err != nil {
		return Result{}, 0, err
	}
	r.Header.Set("Content-Type", "text/xml; charset=utf-8")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return Result{}, 0, err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxMessage))
	if err != nil || answer.StatusCode != http.StatusOK {
		return Result{}, answer.StatusCode, errors.Join(err, fmt.Errorf("status %d", answer.StatusCode))
	}
	root, err := openEnvelope(body)
	if err != nil {
		return Result{}, answer.StatusCode, err
	}
	verified, err := p.verify(root)
	if err != nil {
		return Result{}, answer.StatusCode, err
	}
	result, err = p.result(verified, "", "")
	if err == nil && result.InResponseTo != id {
		err = errors.New("the answer is to another request")
	}
	return result, answer.StatusCode, err
}

func envelope(doc *etree.Document) []byte {
	out := etree.NewDocument()
	root := out.CreateElement("S:Envelope")
	root.CreateAttr("xmlns:S", nsSOAP)
	root.CreateElement("S:Body").AddChild(doc.Root())
	raw, err := out.WriteToBytes()
	if err != nil {
		return nil
	}
	return raw
}

func openEnvelope(raw []byte) (*etree.Element, error) {
	outer, err := parse(raw)
	if err != nil {
		return nil, err
	}
	body := outer.SelectElement("Body")
	if outer.Tag != "Envelope" || outer.NamespaceURI() != nsSOAP || body == nil || len(body.ChildElements()) != 1 {
		return nil, errors.New("not a SOAP envelope with one message")
	}
	return body.ChildElements()[0], nil
}

// own checks what every message of the IdP must have.
func (p *Party) own(el *etree.Element, tag, location string) error {
	idp, err := p.sp.IdP()
	if err != nil {
		return err
	}
	issuer := el.SelectElement("Issuer")
	switch {
	case el.Tag != tag || el.NamespaceURI() != nsProtocol:
		return fmt.Errorf("%s instead of %s", el.Tag, tag)
	case el.SelectAttrValue("Version", "") != "2.0" || el.SelectAttrValue("ID", "") == "":
		return errors.New("version or identifier")
	case location != "" && el.SelectAttrValue("Destination", "") != location:
		return fmt.Errorf("destination %q, want %q", el.SelectAttrValue("Destination", ""), location)
	case issuer == nil || issuer.Text() != idp.EntityID || issuer.SelectAttrValue("Format", "") != entity || issuer.SelectAttrValue("NameQualifier", "") != idp.EntityID:
		return errors.New("issuer")
	}
	issued, err := time.Parse(layout, el.SelectAttrValue("IssueInstant", ""))
	if err != nil || issued.After(p.sp.Config().Now()) || p.sp.Config().Now().Sub(issued) > 5*time.Minute {
		return errors.New("issue instant")
	}
	return nil
}

func (p *Party) result(el *etree.Element, location, relay string) (Result, error) {
	if err := p.own(el, "LogoutResponse", location); err != nil {
		return Result{}, err
	}
	r := Result{InResponseTo: el.SelectAttrValue("InResponseTo", ""), RelayState: relay}
	top := el.FindElement("./Status/StatusCode")
	if top == nil {
		return Result{}, errors.New("no status")
	}
	r.Status = top.SelectAttrValue("Value", "")
	if sub := top.SelectElement("StatusCode"); sub != nil {
		r.SubStatus = sub.SelectAttrValue("Value", "")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.waiting[r.InResponseTo] {
		return Result{}, fmt.Errorf("answer to %q, which was not asked or is answered", r.InResponseTo)
	}
	delete(p.waiting, r.InResponseTo)
	p.results[r.InResponseTo] = r
	return r, nil
}

func (p *Party) refuse(w http.ResponseWriter, err error) {
	p.mu.Lock()
	p.problems = append(p.problems, err.Error())
	p.mu.Unlock()
	http.Error(w, "messaggio rifiutato: "+err.Error(), http.StatusForbidden)
}

// trim keeps log lines of hostile text short.
func trim(s string) string { return s[:min(len(s), 200)] }

// check validates a LogoutRequest of the IdP.
func (p *Party) check(el *etree.Element, location string) (Session, error) {
	if err := p.own(el, "LogoutRequest", location); err != nil {
		return Session{}, err
	}
	if end, err := time.Parse(layout, el.SelectAttrValue("NotOnOrAfter", "")); err != nil || !p.sp.Config().Now().Before(end) {
		return Session{}, errors.New("not on or after")
	}
	name := el.SelectElement("NameID")
	if name == nil || name.SelectAttrValue("Format", "") != transient {
		return Session{}, errors.New("NameID")
	}
	s := Session{NameID: strings.Clone(name.Text())}
	if index := el.SelectElement("SessionIndex"); index != nil {
		s.Index = index.Text()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	known, ok := p.open[s.NameID]
	if !ok && !slices.Contains(p.told, s.NameID) {
		return Session{}, fmt.Errorf("no session of %q", trim(s.NameID))
	}
	if ok && known.Index != s.Index {
		return Session{}, errors.New("session index")
	}
	return s, nil
}
