package request

import (
	"bytes"
	"compress/flate"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Binding is how a request travels.
type Binding string

// The two bindings of the single sign-on service.
const (
	Redirect Binding = "redirect"
	Post     Binding = "post"
)

// InstantLayout has three fractional digits, as every SPID stack can read.
const InstantLayout = "2006-01-02T15:04:05.000Z"

// Plain is the usual request: level 2, ACS and attributes by index 0.
const Plain = `<samlp:AuthnRequest xmlns:samlp="` + NSProtocol + `" xmlns:saml="` + NSAssertion + `" ID="{id}" Version="2.0"` +
	` IssueInstant="{now}" Destination="{destination}" ForceAuthn="true" AssertionConsumerServiceIndex="0" AttributeConsumingServiceIndex="0">` +
	`<saml:Issuer Format="` + FormatEntity + `" NameQualifier="{entity}">{entity}</saml:Issuer>` + SignatureMark +
	`<samlp:NameIDPolicy Format="` + FormatTransient + `"/>` +
	`<samlp:RequestedAuthnContext Comparison="minimum"><saml:AuthnContextClassRef>` + LevelPrefix + `2</saml:AuthnContextClassRef></samlp:RequestedAuthnContext>` +
	`</samlp:AuthnRequest>`

// Full has every optional part too.
const Full = `<samlp:AuthnRequest xmlns:samlp="` + NSProtocol + `" xmlns:saml="` + NSAssertion + `" xmlns:spid="` + NSSPID + `" ID="{id}" Version="2.0"` +
	` IssueInstant="{now}" Destination="{destination}" ForceAuthn="true" IsPassive="false" AssertionConsumerServiceIndex="0" AttributeConsumingServiceIndex="0">` +
	`<saml:Issuer Format="` + FormatEntity + `" NameQualifier="{entity}">{entity}</saml:Issuer>` + SignatureMark +
	`<samlp:Extensions><spid:Purpose>P</spid:Purpose></samlp:Extensions>` +
	`<saml:Subject><saml:NameID Format="` + FormatUnspecified + `" NameQualifier="{entity}">qualcuno</saml:NameID></saml:Subject>` +
	`<samlp:NameIDPolicy AllowCreate="true" Format="` + FormatTransient + `"/>` +
	`<saml:Conditions NotBefore="{now}" NotOnOrAfter="{later}"></saml:Conditions>` +
	`<samlp:RequestedAuthnContext Comparison="minimum"><saml:AuthnContextClassRef>` + LevelPrefix + `2</saml:AuthnContextClassRef></samlp:RequestedAuthnContext>` +
	`<samlp:Scoping ProxyCount="0"></samlp:Scoping></samlp:AuthnRequest>`

const FormatUnspecified = "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified"

// LogoutName is the NameID of Logout.
const LogoutName = `<saml:NameID Format="` + FormatTransient + `" NameQualifier="{idp}">_nessuno</saml:NameID>`

// Logout is the usual LogoutRequest, about a session that nobody has.
const Logout = `<samlp:LogoutRequest xmlns:samlp="` + NSProtocol + `" xmlns:saml="` + NSAssertion + `" ID="{id}" Version="2.0"` +
	` IssueInstant="{now}" Destination="{destination}" NotOnOrAfter="{later}">` +
	`<saml:Issuer Format="` + FormatEntity + `" NameQualifier="{entity}">{entity}</saml:Issuer>` + SignatureMark + LogoutName +
	`<samlp:SessionIndex>_sessione</samlp:SessionIndex></samlp:LogoutRequest>`

// Param is one parameter of a query or form, its value not yet encoded, unless
// raw holds it as it is to travel.
type Param struct{ Name, Value, Raw string }

// Message is one request on its way from the template to the wire. A rule
// changes it before it is written; Raw works on the finished document (by
// HTTP-Redirect before the query is signed), Tamper on the document after
// everything was signed, Query on the parameters before and Wire on them after
// they are signed, Send on the HTTP request.
type Message struct {
	Binding  Binding
	Entity   string // of the auditor
	Other    string // another SP of the instance, "" when the caller named none
	IDP      *IDP
	SP       *SP
	ACS      [2]string
	To       string // location it is sent to
	ID       string
	Issued   time.Time
	Text     string // the document; placeholders in braces until it is written
	Relay    string
	HasRelay bool
	Sign     *Signing
	Stranger func() (KeyPair, error) // a key in nobody's metadata
	Language string                  // Accept-Language

	Raw    func(string) string
	Tamper func(string) string
	Query  func([]Param) []Param
	Wire   func([]Param) []Param
	Send   func(*http.Request)
	Pack   func([]byte) []byte // in the place of DEFLATE
	Err    error               // of a change that does not fit
}

// NewMessage returns the usual request of sp for the binding, with a
// RelayState that is hard to keep.
func NewMessage(by Binding, sp *SP, idp *IDP, issued time.Time, random io.Reader) (*Message, error) {
	id, err := NewID(random)
	if err != nil {
		return nil, err
	}
	return &Message{Binding: by, Entity: sp.EntityID, IDP: idp, SP: sp, ACS: [2]string{sp.ACS(0), sp.ACS(1)}, To: idp.SSO[by], ID: id, Issued: issued, Text: Plain,
		Relay: `stato "<&>' è %2F+~ ` + string(by), HasRelay: true, Sign: sp.signing(random), Language: "it"}, nil
}

// Replace changes the document's only occurrence of old. A rule whose change
// does not fit its request is a defect of the catalogue.
func (m *Message) Replace(old, new string) {
	if n := strings.Count(m.Text, old); n != 1 && m.Err == nil {
		m.Err = fmt.Errorf("the request has %q %d times", old, n)
	}
	m.Text = strings.Replace(m.Text, old, new, 1)
}

// write fills in the placeholders.
func (m *Message) write() {
	destination := m.To
	m.Text = strings.NewReplacer("{id}", m.ID, "{now}", m.Issued.UTC().Format(InstantLayout), "{later}", m.Issued.Add(5*time.Minute).UTC().Format(InstantLayout),
		"{destination}", EscapeAttr(destination), "{entity}", EscapeAttr(m.Entity), "{acs0}", m.ACS[0], "{acs1}", m.ACS[1],
		"{other}", m.Other, "{idp}", EscapeAttr(m.IDP.EntityID),
		"{now-lower}", strings.ToLower(m.Issued.UTC().Format(InstantLayout)), "{later-lower}", strings.ToLower(m.Issued.UTC().Format(InstantLayout)),
		"{destination-upper}", strings.ToUpper(destination), "{entity-upper}", strings.ToUpper(m.Entity), "{entity-tail}", m.Entity[1:]).Replace(m.Text)
}

// params writes and signs the message and returns what travels.
func (m *Message) params() ([]Param, error) {
	m.write()
	if m.Err != nil {
		return nil, m.Err
	}
	var doc string
	if m.Binding == Post {
		doc = m.Text
		if strings.Contains(doc, SignatureMark) {
			var err error
			if doc, err = m.Sign.Enveloped(doc); err != nil {
				return nil, err
			}
		}
	} else {
		doc = strings.Replace(m.Text, SignatureMark, "", 1)
	}
	if m.Raw != nil {
		changed := m.Raw(doc)
		if changed == doc {
			return nil, fmt.Errorf("the rule changes nothing")
		}
		doc = changed
	}
	if m.Binding == Post {
		return m.postParams(doc)
	}
	return m.redirectParams(doc)
}

func (m *Message) postParams(doc string) ([]Param, error) {
	if m.Tamper != nil {
		doc = m.Tamper(doc)
	}
	ps := []Param{{Name: "SAMLRequest", Value: base64.StdEncoding.EncodeToString([]byte(doc))}}
	if m.HasRelay {
		ps = append(ps, Param{Name: "RelayState", Value: m.Relay})
	}
	for _, f := range []func([]Param) []Param{m.Query, m.Wire} {
		if f != nil {
			ps = f(ps)
		}
	}
	return ps, nil
}

func (m *Message) redirectParams(doc string) ([]Param, error) {
	pack := m.Pack
	if pack == nil {
		pack = Deflate
	}
	ps := []Param{{Name: "SAMLRequest", Value: base64.StdEncoding.EncodeToString(pack([]byte(doc)))}}
	if m.HasRelay {
		ps = append(ps, Param{Name: "RelayState", Value: m.Relay})
	}
	ps = append(ps, Param{Name: "SigAlg", Value: m.Sign.Algorithm})
	if m.Query != nil {
		ps = m.Query(ps)
	}
	signature, err := m.Sign.Octets([]byte(encode(ps)))
	if err != nil {
		return nil, err
	}
	ps = append(ps, Param{Name: "Signature", Value: base64.StdEncoding.EncodeToString(signature)})
	if m.Tamper != nil {
		ps[0].Value = base64.StdEncoding.EncodeToString(pack([]byte(m.Tamper(doc))))
	}
	if m.Wire != nil {
		ps = m.Wire(ps)
	}
	return ps, nil
}

// HTTP returns the HTTP request that carries the message.
func (m *Message) HTTP() (*http.Request, error) {
	ps, err := m.params()
	if err != nil {
		return nil, err
	}
	target := m.To
	var r *http.Request
	if m.Binding == Redirect {
		joint := "?"
		if strings.Contains(target, "?") {
			joint = "&"
		}
		r, err = http.NewRequest(http.MethodGet, target+joint+encode(ps), nil)
	} else {
		r, err = http.NewRequest(http.MethodPost, target, strings.NewReader(encode(ps)))
		if err == nil {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set("Origin", "https://"+hostOf(m.Entity))
		}
	}
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept-Language", m.Language)
	if m.Send != nil {
		m.Send(r)
	}
	return r, nil
}

func hostOf(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	return u.Host
}

func encode(ps []Param) string {
	parts := make([]string, len(ps))
	for i, p := range ps {
		v := p.Raw
		if v == "" {
			v = url.QueryEscape(p.Value)
		}
		parts[i] = p.Name + "=" + v
	}
	return strings.Join(parts, "&")
}

// Deflate packs a document as HTTP-Redirect wants it.
func Deflate(doc []byte) []byte {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		return nil // the level is a constant
	}
	if _, err := w.Write(doc); err != nil {
		return nil // a buffer takes everything
	}
	if err := w.Close(); err != nil {
		return nil
	}
	return b.Bytes()
}
