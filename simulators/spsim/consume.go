package spsim

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/beevik/etree"
)

// Refusal says which rule a response broke. Check is a stable name such as
// "assertion.signature" or "conditions.notOnOrAfter"; Detail is for people.
type Refusal struct{ Check, Detail string }

// Error renders the check's name and the detail.
func (r *Refusal) Error() string { return "response refused: " + r.Check + ": " + r.Detail }

func refuse(check, format string, args ...any) error {
	return &Refusal{Check: check, Detail: fmt.Sprintf(format, args...)}
}

// CheckOf returns the Check of the Refusal in err's chain, "" when there is none.
func CheckOf(err error) string {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Check
	}
	return ""
}

// StatusError is a valid, signed response in which the IdP reports an anomaly.
type StatusError struct {
	// Code and SubCode are the full status URIs; SubCode may be empty.
	Code, SubCode string
	// Message is the StatusMessage, "ErrorCode nrNN"; Anomaly is NN.
	Message string
	Anomaly int
	// InResponseTo is empty when the IdP could not use the request's ID (nr11).
	InResponseTo string
	ResponseID   string
	IssueInstant time.Time
	RelayState   string
	XML          []byte
}

// Error names the anomaly and the status codes.
func (e *StatusError) Error() string {
	return fmt.Sprintf("the IdP answered %q (%s %s)", e.Message,
		strings.TrimPrefix(e.Code, statusPrefix), strings.TrimPrefix(e.SubCode, statusPrefix))
}

// Login is what a response that passed every check says. Every value comes
// from signed elements.
type Login struct {
	// Level is the level performed, 1 to 3.
	Level      int
	Attributes map[string]string
	// AttributeNames keeps the order of the assertion.
	AttributeNames []string
	NameID         string
	// SessionIndex is present for level 1 requests only.
	SessionIndex string

	InResponseTo, ResponseID, AssertionID         string
	ResponseIssued, AssertionIssued, AuthnInstant time.Time
	NotOnOrAfter                                  time.Time

	RelayState string
	Request    Request
	// SignerSHA256 is the hexadecimal fingerprint of the certificate that
	// verified the response, AssertionSignerSHA256 that of the assertion.
	SignerSHA256, AssertionSignerSHA256 string
	// XML and RequestXML are the decoded messages.
	XML, RequestXML []byte
}

// Consume judges the answer to a request made with an empty Browser.
// samlResponse and relayState are the form fields as received. The error is a
// *StatusError when the IdP reports an anomaly, a *Refusal when a rule is
// broken. The request counts as answered as soon as a validly signed response
// names it, even if a later check refuses that response.
func (sp *SP) Consume(samlResponse, relayState string) (*Login, error) {
	return sp.ConsumeFor("", samlResponse, relayState)
}

// ConsumeFor is Consume for requests made with that Request.Browser.
func (sp *SP) ConsumeFor(browser, samlResponse, relayState string) (*Login, error) {
	return sp.ConsumeAt("", browser, samlResponse, relayState)
}

// ConsumeAt is ConsumeFor when the URL at which the response arrived is known
// (see ACS): the response must be addressed to it. "" is any.
func (sp *SP) ConsumeAt(endpoint, browser, samlResponse, relayState string) (*Login, error) {
	idp, err := sp.IdP()
	if err != nil {
		return nil, err
	}
	raw, err := decodeResponse(samlResponse)
	if err != nil {
		return nil, err
	}
	root, err := parseDocument(raw)
	if err != nil {
		return nil, refuse("xml", "%v", err)
	}
	j := &judge{sp: sp, idp: idp, now: sp.cfg.Now(), endpoint: endpoint, browser: browser, relayState: relayState, raw: raw}
	if err := j.openEnvelope(root); err != nil {
		return nil, err
	}
	return j.decide()
}

func decodeResponse(field string) ([]byte, error) {
	if len(field) > maxResponse {
		return nil, refuse("size", "%d bytes of base64, want at most %d", len(field), maxResponse)
	}
	if field == "" {
		return nil, refuse("encoding", "SAMLResponse is empty")
	}
	if strings.ContainsAny(field, "\r\n") {
		return nil, refuse("encoding", "line break inside the base64")
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(field)
	if err != nil {
		return nil, refuse("encoding", "%v", err)
	}
	return raw, nil
}

// judge holds one response on its way through the checks.
type judge struct {
	sp         *SP
	idp        *IdP
	now        time.Time
	endpoint   string
	browser    string
	relayState string
	raw        []byte

	response  *etree.Element // verified, without its signature
	assertion *etree.Element // verified, without its signature; nil in an error
	signer    *x509.Certificate
	assSigner *x509.Certificate
	request   *sent // nil only for nr11 without InResponseTo

	status statusOf
	login  Login
}

// openEnvelope verifies the signatures and keeps only what they cover.
func (j *judge) openEnvelope(root *etree.Element) error {
	if !is(root, nsProtocol, "Response") {
		return refuse("response.root", "the root element is %q", root.FullTag())
	}
	assertions := count(root, nsAssertion, "Assertion")
	if n := count(root, nsProtocol, "Response"); n != 1 {
		return refuse("response.shape", "%d Response elements", n)
	}
	if assertions > 1 {
		return refuse("response.shape", "%d Assertion elements", assertions)
	}
	var err error
	if j.response, j.signer, err = verifyElement(root, j.idp.Signers, j.now); err != nil {
		return refuse("response.signature", "%v", err)
	}
	if err := checkSignaturePlace(root); err != nil {
		return err
	}
	if direct := childrenNamed(root, nsAssertion, "Assertion"); len(direct) != assertions {
		return refuse("response.shape", "an Assertion that is not a child of Response")
	} else if assertions == 1 {
		if err := j.openAssertion(direct[0]); err != nil {
			return err
		}
	}
	if n := count(root, nsSignature, "Signature"); n != 1+assertions {
		return refuse("response.shape", "%d signatures, want %d", n, 1+assertions)
	}
	if err := checkTypePrefixes(root); err != nil {
		return err
	}
	return checkText(j.response)
}

// openAssertion verifies the assertion where it stands in the document, and
// that the response's signature covers the same bytes.
func (j *judge) openAssertion(el *etree.Element) error {
	var err error
	if j.assertion, j.assSigner, err = verifyElement(el, j.idp.Signers, j.now); err != nil {
		return refuse("assertion.signature", "%v", err)
	}
	if err := checkSignaturePlace(el); err != nil {
		return err
	}
	covered, err := only(j.response, nsAssertion, "Assertion")
	if err != nil {
		return refuse("response.shape", "%v", err)
	}
	one, err := canonical(covered)
	if err != nil {
		return refuse("assertion.signature", "%v", err)
	}
	other, err := canonical(j.assertion)
	if err != nil {
		return refuse("assertion.signature", "%v", err)
	}
	if !bytes.Equal(one, other) {
		return refuse("assertion.signature", "the two signatures cover different assertions")
	}
	return nil
}

// checkSignaturePlace wants the signature right after the Issuer, as the
// SAML schema does.
func checkSignaturePlace(el *etree.Element) error {
	children := el.ChildElements()
	if len(children) < 2 || !is(children[0], nsAssertion, "Issuer") || !is(children[1], nsSignature, "Signature") {
		return refuse("signature.place", "%s: the signature does not follow the Issuer", el.Tag)
	}
	return nil
}

// checkTypePrefixes resolves the prefix of each xsi:type in the original
// document: exclusive canonicalisation may drop its declaration.
func checkTypePrefixes(el *etree.Element) error {
	if value, ok := xsiType(el); ok {
		prefix, _, found := strings.Cut(value, ":")
		if !found || prefixNamespace(el, prefix) != nsXS {
			return refuse("attribute.type", "xsi:type %q is not in the XML Schema namespace", value)
		}
	}
	for _, c := range el.ChildElements() {
		if err := checkTypePrefixes(c); err != nil {
			return err
		}
	}
	return nil
}

func xsiType(el *etree.Element) (string, bool) {
	for _, a := range el.Attr {
		if a.Key == "type" && a.Space != "" && prefixNamespace(el, a.Space) == nsXSI {
			return a.Value, true
		}
	}
	return "", false
}

// checkText refuses blanks around the text of any element outside a
// signature: several SPs compare untrimmed.
func checkText(el *etree.Element) error {
	if el.NamespaceURI() == nsSignature {
		return nil
	}
	children := el.ChildElements()
	if text := el.Text(); len(children) == 0 && text != strings.TrimSpace(text) {
		return refuse("text.whitespace", "blanks around the text of %s", el.Tag)
	}
	for _, c := range children {
		if err := checkText(c); err != nil {
			return err
		}
	}
	return nil
}

func fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}
