package conformance

import (
	"bytes"
	"compress/flate"
	"encoding/base64"
	"fmt"
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

// instantLayout has three fractional digits, as every SPID stack can read.
const instantLayout = "2006-01-02T15:04:05.000Z"

// plainRequest is the usual request: level 2, ACS and attributes by index 0.
const plainRequest = `<samlp:AuthnRequest xmlns:samlp="` + nsProtocol + `" xmlns:saml="` + nsAssertion + `" ID="{id}" Version="2.0"` +
	` IssueInstant="{now}" Destination="{destination}" ForceAuthn="true" AssertionConsumerServiceIndex="0" AttributeConsumingServiceIndex="0">` +
	`<saml:Issuer Format="` + formatEntity + `" NameQualifier="{entity}">{entity}</saml:Issuer>` + signatureMark +
	`<samlp:NameIDPolicy Format="` + formatTransient + `"/>` +
	`<samlp:RequestedAuthnContext Comparison="minimum"><saml:AuthnContextClassRef>` + levelPrefix + `2</saml:AuthnContextClassRef></samlp:RequestedAuthnContext>` +
	`</samlp:AuthnRequest>`

// fullRequest has every optional part too.
const fullRequest = `<samlp:AuthnRequest xmlns:samlp="` + nsProtocol + `" xmlns:saml="` + nsAssertion + `" xmlns:spid="` + nsSPID + `" ID="{id}" Version="2.0"` +
	` IssueInstant="{now}" Destination="{destination}" ForceAuthn="true" IsPassive="false" AssertionConsumerServiceIndex="0" AttributeConsumingServiceIndex="0">` +
	`<saml:Issuer Format="` + formatEntity + `" NameQualifier="{entity}">{entity}</saml:Issuer>` + signatureMark +
	`<samlp:Extensions><spid:Purpose>P</spid:Purpose></samlp:Extensions>` +
	`<saml:Subject><saml:NameID Format="` + formatUnspecified + `" NameQualifier="{entity}">qualcuno</saml:NameID></saml:Subject>` +
	`<samlp:NameIDPolicy AllowCreate="true" Format="` + formatTransient + `"/>` +
	`<saml:Conditions NotBefore="{now}" NotOnOrAfter="{later}"></saml:Conditions>` +
	`<samlp:RequestedAuthnContext Comparison="minimum"><saml:AuthnContextClassRef>` + levelPrefix + `2</saml:AuthnContextClassRef></samlp:RequestedAuthnContext>` +
	`<samlp:Scoping ProxyCount="0"></samlp:Scoping></samlp:AuthnRequest>`

const formatUnspecified = "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified"

// param is one parameter of a query or form, its value not yet encoded, unless
// raw holds it as it is to travel.
type param struct{ name, value, raw string }

// message is one request on its way from the template to the wire. A rule's
// change works on it before it is written, raw on the finished document, tamper
// on the document after everything was signed, wire on the parameters after
// that, and send on the HTTP request.
type message struct {
	binding  Binding
	entity   string // of the auditor
	other    string // another SP of the instance, "" when the caller named none
	idp      *idp
	acs      [2]string
	id       string
	issued   time.Time
	text     string // the document; placeholders until it is written
	relay    string
	hasRelay bool
	sign     *signing
	sp       *SP
	stranger *stranger
	language string

	raw    func(string) string
	tamper func(string) string
	query  func([]param) []param // before signing
	wire   func([]param) []param
	send   func(*http.Request)
	deflat func([]byte) []byte // replaces DEFLATE on Redirect
	err    error
}

// replace changes the document's only occurrence of old. A rule whose change
// does not fit its request is a defect of the catalogue.
func (m *message) replace(old, new string) {
	if n := strings.Count(m.text, old); n != 1 && m.err == nil {
		m.err = fmt.Errorf("the request has %q %d times", old, n)
	}
	m.text = strings.Replace(m.text, old, new, 1)
}

// write fills in the placeholders.
func (m *message) write() {
	destination := m.idp.sso[m.binding]
	m.text = strings.NewReplacer("{id}", m.id, "{now}", m.issued.UTC().Format(instantLayout), "{later}", m.issued.Add(5*time.Minute).UTC().Format(instantLayout),
		"{destination}", escapeAttr(destination), "{entity}", escapeAttr(m.entity), "{acs0}", m.acs[0], "{acs1}", m.acs[1],
		"{other}", m.other, "{idp}", escapeAttr(m.idp.entityID),
		"{now-lower}", strings.ToLower(m.issued.UTC().Format(instantLayout)), "{later-lower}", strings.ToLower(m.issued.UTC().Format(instantLayout)),
		"{destination-upper}", strings.ToUpper(destination), "{entity-upper}", strings.ToUpper(m.entity), "{entity-tail}", m.entity[1:]).Replace(m.text)
}

// params writes and signs the message and returns what travels.
func (m *message) params() ([]param, error) {
	m.write()
	if m.err != nil {
		return nil, m.err
	}
	var doc string
	if m.binding == Post {
		doc = m.text
		if strings.Contains(doc, signatureMark) {
			var err error
			if doc, err = m.sign.enveloped(doc); err != nil {
				return nil, err
			}
		}
	} else {
		doc = strings.Replace(m.text, signatureMark, "", 1)
	}
	if m.raw != nil {
		changed := m.raw(doc)
		if changed == doc {
			return nil, fmt.Errorf("the rule changes nothing")
		}
		doc = changed
	}
	if m.binding == Post {
		return m.postParams(doc)
	}
	return m.redirectParams(doc)
}

func (m *message) postParams(doc string) ([]param, error) {
	if m.tamper != nil {
		doc = m.tamper(doc)
	}
	ps := []param{{name: "SAMLRequest", value: base64.StdEncoding.EncodeToString([]byte(doc))}}
	if m.hasRelay {
		ps = append(ps, param{name: "RelayState", value: m.relay})
	}
	for _, f := range []func([]param) []param{m.query, m.wire} {
		if f != nil {
			ps = f(ps)
		}
	}
	return ps, nil
}

func (m *message) redirectParams(doc string) ([]param, error) {
	pack := m.deflat
	if pack == nil {
		pack = deflate
	}
	ps := []param{{name: "SAMLRequest", value: base64.StdEncoding.EncodeToString(pack([]byte(doc)))}}
	if m.hasRelay {
		ps = append(ps, param{name: "RelayState", value: m.relay})
	}
	ps = append(ps, param{name: "SigAlg", value: m.sign.algorithm})
	if m.query != nil {
		ps = m.query(ps)
	}
	signature, err := m.sign.octets([]byte(encode(ps)))
	if err != nil {
		return nil, err
	}
	ps = append(ps, param{name: "Signature", value: base64.StdEncoding.EncodeToString(signature)})
	if m.tamper != nil {
		ps[0].value = base64.StdEncoding.EncodeToString(pack([]byte(m.tamper(doc))))
	}
	if m.wire != nil {
		ps = m.wire(ps)
	}
	return ps, nil
}

// request returns the HTTP request that carries the message.
func (m *message) request() (*http.Request, error) {
	ps, err := m.params()
	if err != nil {
		return nil, err
	}
	target := m.idp.sso[m.binding]
	var r *http.Request
	if m.binding == Redirect {
		joint := "?"
		if strings.Contains(target, "?") {
			joint = "&"
		}
		r, err = http.NewRequest(http.MethodGet, target+joint+encode(ps), nil)
	} else {
		r, err = http.NewRequest(http.MethodPost, target, strings.NewReader(encode(ps)))
		if err == nil {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set("Origin", "https://"+hostOf(m.entity))
		}
	}
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept-Language", m.language)
	if m.send != nil {
		m.send(r)
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

func encode(ps []param) string {
	parts := make([]string, len(ps))
	for i, p := range ps {
		v := p.raw
		if v == "" {
			v = url.QueryEscape(p.value)
		}
		parts[i] = p.name + "=" + v
	}
	return strings.Join(parts, "&")
}

func deflate(doc []byte) []byte {
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
