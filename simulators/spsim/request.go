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
	idp, err := sp.IdP()
	if err != nil {
		return "", "", err
	}
	m, err := sp.prepare(r, idp, idp.SSORedirect)
	if err != nil {
		return "", "", err
	}
	if r.EmbedSignature {
		if err := sp.signDocument(m.doc, r); err != nil {
			return "", "", err
		}
	}
	raw, err := m.doc.WriteToBytes()
	if err != nil {
		return "", "", err
	}
	params, err := sp.redirectParameters(r, raw)
	if err != nil {
		return "", "", err
	}
	sp.remember(r, m, raw)
	return joinQuery(idp.SSORedirect, breakParameters(r, params)), m.id, nil
}

// PostForm builds an AuthnRequest for the HTTP-POST binding and returns the
// form's action, its fields and the request's ID, like RedirectURL.
func (sp *SP) PostForm(r Request) (action string, fields url.Values, id string, err error) {
	idp, err := sp.IdP()
	if err != nil {
		return "", nil, "", err
	}
	m, err := sp.prepare(r, idp, idp.SSOPost)
	if err != nil {
		return "", nil, "", err
	}
	if !r.Unsigned {
		if err := sp.signDocument(m.doc, r); err != nil {
			return "", nil, "", err
		}
	}
	raw, err := m.doc.WriteToBytes()
	if err != nil {
		return "", nil, "", err
	}
	if r.TamperAfterSigning != nil {
		raw = r.TamperAfterSigning(raw)
	}
	params := []parameter{{"SAMLRequest", base64.StdEncoding.EncodeToString(raw)}}
	if r.RelayState != "" || r.EmptyRelayState {
		params = append(params, parameter{"RelayState", r.RelayState})
	}
	sp.remember(r, m, raw)
	fields = url.Values{}
	for _, p := range breakParameters(r, params) {
		fields.Add(p.name, p.value)
	}
	return idp.SSOPost, fields, m.id, nil
}

type parameter struct{ name, value string }

// message is an AuthnRequest that is ready to be signed.
type message struct {
	doc    *etree.Document
	id     string
	issued time.Time
}

func (sp *SP) prepare(r Request, idp *IdP, sso string) (*message, error) {
	if r.Level == 0 {
		r.Level = 2
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
	m.doc = sp.writeRequest(r, m.issued)
	if r.Mutate != nil {
		r.Mutate(m.doc)
	}
	root := m.doc.Root()
	if root == nil {
		return nil, errors.New("mutate left no root element")
	}
	m.id = attrOr(root, "ID", "")
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

func (r Request) hash() crypto.Hash {
	if r.Hash == 0 {
		return crypto.SHA256
	}
	return r.Hash
}

func (sp *SP) signDocument(doc *etree.Document, r Request) error {
	key, err := sp.signingKey(r)
	if err != nil {
		return err
	}
	return signEnveloped(doc.Root(), key, sp.cert, r.hash(), 1)
}

func (sp *SP) redirectParameters(r Request, raw []byte) ([]parameter, error) {
	packed, err := deflate(raw)
	if err != nil {
		return nil, err
	}
	params := []parameter{{"SAMLRequest", base64.StdEncoding.EncodeToString(packed)}}
	if r.RelayState != "" || r.EmptyRelayState {
		params = append(params, parameter{"RelayState", r.RelayState})
	}
	if !r.Unsigned {
		alg, err := redirectAlgorithm(r.hash())
		if err != nil {
			return nil, err
		}
		key, err := sp.signingKey(r)
		if err != nil {
			return nil, err
		}
		params = append(params, parameter{"SigAlg", alg})
		h := r.hash().New()
		h.Write([]byte(encodeQuery(params)))
		signature, err := rsa.SignPKCS1v15(sp.cfg.Rand, key, r.hash(), h.Sum(nil))
		if err != nil {
			return nil, fmt.Errorf("sign the query: %w", err)
		}
		params = append(params, parameter{"Signature", base64.StdEncoding.EncodeToString(signature)})
	}
	if r.TamperAfterSigning != nil {
		if packed, err = deflate(r.TamperAfterSigning(raw)); err != nil {
			return nil, err
		}
		params[0].value = base64.StdEncoding.EncodeToString(packed)
	}
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
	if r.Level == 0 {
		r.Level = 2
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
