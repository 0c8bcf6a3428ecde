package spsim

import (
	"bytes"
	"compress/flate"
	"crypto"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	_ "crypto/sha256" // hashes named by Request.Hash
	_ "crypto/sha512"

	"github.com/beevik/etree"
)

// Request describes an AuthnRequest. Its zero value is a conformant request
// for level 2 (see Level) with the attributes of set 0. The fields after
// "Breakage" make requests no honest SP sends.
type Request struct {
	// Level is the SPID level asked for, 1 to 3; 0 means 2.
	Level int
	// Comparison is minimum (the default), exact, better or maximum; other
	// texts are sent as they are.
	Comparison string
	// ForceAuthn is the attribute's literal text ("true", "1", "false", "0");
	// empty means "true" above level 1 and no attribute at level 1; "-" means
	// no attribute at any level.
	ForceAuthn string
	// ACSIndex is 0 or 1, the assertion consumer service that is to receive
	// the answer.
	ACSIndex int
	// ACSByURL names it by AssertionConsumerServiceURL and ProtocolBinding
	// instead of by index.
	ACSByURL bool
	// Service is the index of the attribute set asked for; NoAttributes asks
	// for none, and then the answer must have no AttributeStatement.
	Service      int
	NoAttributes bool
	// Purpose is the spid:Purpose of Avviso 18 v2 (P, LP, PG, PF, PX), sent
	// when it is not empty.
	Purpose string
	// RelayState goes with the request when it is not empty, or when
	// EmptyRelayState asks for a parameter without a value.
	RelayState      string
	EmptyRelayState bool
	// Browser ties the request to a browser; its answer is accepted only by
	// ConsumeFor with the same text. Empty is the browser of Consume.
	Browser string
	// Destination replaces the IdP's SSO location, which is the default; the
	// rules also allow the IdP's entityID. Where the request is sent does not
	// change.
	Destination string
	// ID replaces the random identifier; a test replays a request with it.
	ID string
	// Hash of the signature and digest: SHA-256 by default.
	Hash crypto.Hash

	// Breakage.

	// Mutate changes the document before it is signed. The answer is judged by
	// the other fields of Request, not by what Mutate made of them.
	Mutate func(*etree.Document)
	// TamperAfterSigning changes the document's bytes after they were signed.
	TamperAfterSigning func(xml []byte) []byte
	// OtherKey signs with a key that is in no metadata.
	OtherKey bool
	// Unsigned leaves the signature out (on Redirect also SigAlg).
	Unsigned bool
	// EmbedSignature adds an XML signature on the Redirect binding, where it
	// has no place.
	EmbedSignature bool
	// IssuerOverride replaces the Issuer's text and NameQualifier.
	IssuerOverride string
	// Drop and Double name parameters that are left out or sent twice.
	Drop, Double []string
}

// RedirectURL builds an AuthnRequest for the HTTP-Redirect binding and returns
// the URL to send the browser to and the request's ID ("" if Mutate removed
// it). The request is remembered until it is answered or Config.RequestTTL passes.
func (sp *SP) RedirectURL(r Request) (location, id string, err error) {
	idp, params, id, err := sp.build(r, false)
	if err != nil {
		return "", "", err
	}
	return joinQuery(idp.SSORedirect, params), id, nil
}

// PostForm builds an AuthnRequest for the HTTP-POST binding and returns the
// form's action, its fields and the request's ID, like RedirectURL.
func (sp *SP) PostForm(r Request) (action string, fields url.Values, id string, err error) {
	idp, params, id, err := sp.build(r, true)
	if err != nil {
		return "", nil, "", err
	}
	fields = url.Values{}
	for _, p := range params {
		fields.Add(p.name, p.value)
	}
	return idp.SSOPost, fields, id, nil
}

// build writes, signs and remembers a request and returns its parameters.
func (sp *SP) build(r Request, post bool) (idp *IdP, params []parameter, id string, err error) {
	if idp, err = sp.IdP(); err != nil {
		return nil, nil, "", err
	}
	sso, sign, parameters := idp.SSORedirect, r.EmbedSignature, sp.redirectParameters
	if post {
		sso, sign, parameters = idp.SSOPost, !r.Unsigned, postParameters
	}
	m, err := sp.prepare(&r, sso)
	if err != nil {
		return nil, nil, "", err
	}
	if sign {
		if err := sp.signDocument(m.doc, r); err != nil {
			return nil, nil, "", err
		}
	}
	raw, err := m.doc.WriteToBytes()
	if err != nil {
		return nil, nil, "", err
	}
	if params, err = parameters(r, raw); err != nil {
		return nil, nil, "", err
	}
	sp.remember(r, m, raw)
	return idp, breakParameters(r, params), m.id, nil
}

type parameter struct{ name, value string }

// message is an AuthnRequest that is ready to be signed.
type message struct {
	doc    *etree.Document
	id     string
	issued time.Time
}

// prepare fills r's defaults and writes the unsigned request.
func (sp *SP) prepare(r *Request, sso string) (*message, error) {
	if r.Level == 0 {
		r.Level = 2
	}
	if r.Hash == 0 {
		r.Hash = crypto.SHA256
	}
	if r.ACSIndex != 0 && r.ACSIndex != 1 {
		return nil, fmt.Errorf("ACS index %d: want 0 or 1", r.ACSIndex)
	}
	if _, ok := sp.cfg.AttributeSets[r.Service]; !ok && !r.NoAttributes {
		return nil, fmt.Errorf("attribute set %d is not in the metadata", r.Service)
	}
	if r.Destination == "" {
		r.Destination = sso
	}
	if r.ID == "" {
		var err error
		if r.ID, err = newID(sp.cfg.Rand); err != nil {
			return nil, err
		}
	}
	m := &message{issued: sp.cfg.Now().UTC().Truncate(time.Millisecond)}
	m.doc = sp.writeRequest(*r, m.issued)
	if r.Mutate != nil {
		r.Mutate(m.doc)
	}
	root := m.doc.Root()
	if root == nil {
		return nil, errors.New("mutate left no root element")
	}
	m.id = attrOf(root, "ID")
	return m, nil
}

// writeRequest writes the unsigned AuthnRequest; r's defaults are filled.
func (sp *SP) writeRequest(r Request, issued time.Time) *etree.Document {
	doc := etree.NewDocument()
	root := doc.CreateElement("samlp:AuthnRequest")
	for _, a := range [][2]string{
		{"xmlns:samlp", nsProtocol}, {"xmlns:saml", nsAssertion},
		{"ID", r.ID}, {"Version", "2.0"},
		{"IssueInstant", issued.Format(instantLayout)}, {"Destination", r.Destination},
	} {
		root.CreateAttr(a[0], a[1])
	}
	switch {
	case r.ForceAuthn == "" && r.Level > 1:
		root.CreateAttr("ForceAuthn", "true")
	case r.ForceAuthn != "" && r.ForceAuthn != "-":
		root.CreateAttr("ForceAuthn", r.ForceAuthn)
	}
	if r.ACSByURL {
		root.CreateAttr("AssertionConsumerServiceURL", sp.ACS(r.ACSIndex))
		root.CreateAttr("ProtocolBinding", bindingPost)
	} else {
		root.CreateAttr("AssertionConsumerServiceIndex", strconv.Itoa(r.ACSIndex))
	}
	if !r.NoAttributes {
		root.CreateAttr("AttributeConsumingServiceIndex", strconv.Itoa(r.Service))
	}
	issuer := sp.cfg.EntityID
	if r.IssuerOverride != "" {
		issuer = r.IssuerOverride
	}
	add(root, "saml:Issuer", "Format", formatEntity, "NameQualifier", issuer).SetText(issuer)
	if r.Purpose != "" {
		ext := add(root, "samlp:Extensions")
		add(ext, "spid:Purpose", "xmlns:spid", nsSpid).SetText(r.Purpose)
	}
	add(root, "samlp:NameIDPolicy", "Format", formatTransient)
	comparison := r.Comparison
	if comparison == "" {
		comparison = "minimum"
	}
	rac := add(root, "samlp:RequestedAuthnContext", "Comparison", comparison)
	add(rac, "saml:AuthnContextClassRef").SetText(levelPrefix + strconv.Itoa(r.Level))
	return doc
}

func (sp *SP) signingKey(r Request) (*rsa.PrivateKey, error) {
	if r.OtherKey {
		return sp.stranger()
	}
	return sp.key, nil
}

func (sp *SP) signDocument(doc *etree.Document, r Request) error {
	key, err := sp.signingKey(r)
	if err != nil {
		return err
	}
	return signEnveloped(doc.Root(), key, sp.cert, r.Hash, 1)
}

// tampered is what is sent in the place of the bytes that were signed.
func (r Request) tampered(raw []byte) []byte {
	if r.TamperAfterSigning == nil {
		return raw
	}
	return r.TamperAfterSigning(raw)
}

// payload is what both bindings send; message is deflated or not.
func (r Request) payload(message []byte) []parameter {
	params := []parameter{{"SAMLRequest", base64.StdEncoding.EncodeToString(message)}}
	if r.RelayState != "" || r.EmptyRelayState {
		params = append(params, parameter{"RelayState", r.RelayState})
	}
	return params
}

func postParameters(r Request, raw []byte) ([]parameter, error) {
	return r.payload(r.tampered(raw)), nil
}

func (sp *SP) redirectParameters(r Request, raw []byte) ([]parameter, error) {
	packed, err := deflate(raw)
	if err != nil {
		return nil, err
	}
	params := r.payload(packed)
	if !r.Unsigned {
		alg, err := redirectAlgorithm(r.Hash)
		if err != nil {
			return nil, err
		}
		key, err := sp.signingKey(r)
		if err != nil {
			return nil, err
		}
		params = append(params, parameter{"SigAlg", alg})
		h := r.Hash.New()
		h.Write([]byte(encodeQuery(params)))
		signature, err := rsa.SignPKCS1v15(sp.cfg.Rand, key, r.Hash, h.Sum(nil))
		if err != nil {
			return nil, fmt.Errorf("sign the query: %w", err)
		}
		params = append(params, parameter{"Signature", base64.StdEncoding.EncodeToString(signature)})
	}
	if packed, err = deflate(r.tampered(raw)); err != nil {
		return nil, err
	}
	params[0] = r.payload(packed)[0]
	return params, nil
}

func redirectAlgorithm(hash crypto.Hash) (string, error) {
	if !hash.Available() {
		return "", fmt.Errorf("hash %v is not linked in", hash)
	}
	switch hash {
	case crypto.SHA1:
		return "http://www.w3.org/2000/09/xmldsig#rsa-sha1", nil
	case crypto.SHA256, crypto.SHA384, crypto.SHA512:
		return "http://www.w3.org/2001/04/xmldsig-more#rsa-sha" + strconv.Itoa(hash.Size()*8), nil
	default:
		return "", fmt.Errorf("no RSA signature algorithm for hash %v", hash)
	}
}

func deflate(raw []byte) ([]byte, error) {
	var buf bytes.Buffer
	w, err := flate.NewWriter(&buf, flate.DefaultCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(raw); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func breakParameters(r Request, params []parameter) []parameter {
	var out []parameter
	for _, p := range params {
		if slices.Contains(r.Drop, p.name) {
			continue
		}
		out = append(out, p)
		if slices.Contains(r.Double, p.name) {
			out = append(out, p)
		}
	}
	return out
}

func encodeQuery(params []parameter) string {
	parts := make([]string, len(params))
	for i, p := range params {
		parts[i] = p.name + "=" + url.QueryEscape(p.value)
	}
	return strings.Join(parts, "&")
}

func joinQuery(base string, params []parameter) string {
	separator := "?"
	if strings.Contains(base, "?") {
		separator = "&"
	}
	return base + separator + encodeQuery(params)
}

func (sp *SP) remember(r Request, m *message, raw []byte) {
	if m.id == "" {
		return
	}
	relayState := r.RelayState
	if slices.Contains(r.Drop, "RelayState") {
		relayState = "" // never sent, so never echoed
	}
	sp.requests.put(&sent{
		id: m.id, request: r, relayState: relayState, issued: m.issued, xml: raw,
		expires: m.issued.Add(sp.cfg.RequestTTL),
	}, sp.cfg.Now())
}
