package logout

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/beevik/etree"

	"custode/authcore/saml"
	"custode/authcore/saml/query"
	"custode/authcore/saml/xmldoc"
	"custode/internal/fault"
	"custode/internal/id"
)

// ReaderConfig configures a Reader. EntityID, Locations and SPs are required.
type ReaderConfig struct {
	EntityID   id.EntityID
	Locations  []string      // every published SingleLogoutService location
	FutureSkew time.Duration // how far IssueInstant may be ahead; 0: 3 minutes
	PastSkew   time.Duration // how old IssueInstant may be; 0: 5 minutes
	SPs        saml.SPs
}

// Reader verifies logout messages. It is safe for concurrent use.
type Reader struct {
	config    ReaderConfig
	inflaters sync.Pool // of decompressors
}

// NewReader checks the configuration; fault.Invalid.
func NewReader(c ReaderConfig) (*Reader, error) {
	if c.EntityID.IsZero() || len(c.Locations) == 0 || c.SPs == nil || c.FutureSkew < 0 || c.PastSkew < 0 {
		return nil, fault.Newf(fault.Invalid, "build logout reader", "entityID, locations and SPs are required, and no skew is negative")
	}
	if c.FutureSkew == 0 {
		c.FutureSkew = 3 * time.Minute
	}
	if c.PastSkew == 0 {
		c.PastSkew = 5 * time.Minute
	}
	c.Locations = slices.Clone(c.Locations)
	return &Reader{config: c}, nil
}

// arrival is a message before and while it is read.
type arrival struct {
	binding  saml.Binding
	relay    string
	hasRelay bool
	now      time.Time
	sp       *saml.SP
}

// Redirect verifies a message that arrived by HTTP-Redirect: rawQuery as
// received, without "?". fault.Denied for one that may not be acted on.
func (r *Reader) Redirect(rawQuery []byte, now time.Time) (Verified, error) {
	v, err := r.redirect(rawQuery, now)
	return v, refusal(err)
}

func (r *Reader) redirect(rawQuery []byte, now time.Time) (Verified, error) {
	q, err := query.Split(rawQuery, query.Request, query.Response)
	if err != nil {
		return Verified{}, err
	}
	relay, err := q.RelayState()
	if err != nil {
		return Verified{}, fmt.Errorf("decode RelayState: %w", err)
	}
	if len(relay) > query.MaxRelayState {
		return Verified{}, query.ErrRelayState
	}
	doc, err := q.Document(&r.inflaters, MaxMessage)
	if err != nil {
		return Verified{}, err
	}
	root, err := bounds.Parse(doc)
	if err != nil {
		return Verified{}, err
	}
	sp, err := r.issuer(root, now)
	if err != nil {
		return Verified{}, err
	}
	if xmldoc.CountSignatures(root) > 0 {
		return Verified{}, errors.New("signature inside a redirected document")
	}
	if err := q.Verify(sp.Certificates, now); err != nil {
		return Verified{}, err
	}
	return r.read(root, q.Parameter, &arrival{saml.Redirect, relay, q.HasRelayState, now, sp})
}

// Post verifies a message that arrived by HTTP-POST. parameter is the form field
// that carried it, SAMLRequest or SAMLResponse, and message its value after form
// decoding. fault.Denied for one that may not be acted on.
func (r *Reader) Post(parameter string, message, relayState []byte, hasRelayState bool, now time.Time) (Verified, error) {
	v, err := r.post(parameter, message, &arrival{binding: saml.Post, relay: string(relayState), hasRelay: hasRelayState, now: now})
	return v, refusal(err)
}

func (r *Reader) post(parameter string, message []byte, a *arrival) (Verified, error) {
	if len(a.relay) > query.MaxRelayState {
		return Verified{}, query.ErrRelayState
	}
	// Twice the document's bound leaves room for base64 and its line breaks.
	if len(message) > 2*MaxMessage {
		return Verified{}, fmt.Errorf("message of %d octets is too long", len(message))
	}
	doc, err := base64.StdEncoding.DecodeString(xmldoc.Strip(string(message)))
	if err != nil {
		return Verified{}, fmt.Errorf("decode message: %w", err)
	}
	root, err := bounds.Parse(doc)
	if err != nil {
		return Verified{}, err
	}
	return r.enveloped(root, parameter, a)
}

// SOAP verifies a LogoutRequest that arrived in a SOAP envelope. fault.Denied
// for one that may not be acted on.
func (r *Reader) SOAP(envelope []byte, now time.Time) (Verified, error) {
	v, err := r.soap(envelope, query.Request, now)
	return v, refusal(err)
}

// SOAPAnswer verifies the LogoutResponse in the envelope that answers a request
// of ours. fault.Denied for one that proves nothing.
func (r *Reader) SOAPAnswer(envelope []byte, now time.Time) (Verified, error) {
	v, err := r.soap(envelope, query.Response, now)
	return v, refusal(err)
}

func (r *Reader) soap(envelope []byte, parameter string, now time.Time) (Verified, error) {
	outer, err := bounds.Parse(envelope)
	if err != nil {
		return Verified{}, err
	}
	root, err := openEnvelope(outer)
	if err != nil {
		return Verified{}, err
	}
	return r.enveloped(root, parameter, &arrival{binding: saml.SOAP, now: now})
}

// enveloped verifies the signature of a root that carries its own.
func (r *Reader) enveloped(root *etree.Element, parameter string, a *arrival) (Verified, error) {
	claimed, err := r.issuer(root, a.now)
	if err != nil {
		return Verified{}, err
	}
	verified, err := xmldoc.VerifyEnveloped(root, 1, claimed.Certificates, a.now)
	if err != nil {
		return Verified{}, err
	}
	// From here on only what the signature covers is read; that it names the
	// same SP must be asked again.
	if a.sp, err = r.issuer(verified, a.now); err != nil || a.sp.EntityID != claimed.EntityID {
		return Verified{}, errors.New("signed element is not the message")
	}
	return r.read(verified, parameter, a)
}

// issuer finds the live SP that the document's Issuer names. Its Format and
// NameQualifier are not asked for: there is no anomaly to answer with, and
// service providers in production leave them out.
func (r *Reader) issuer(root *etree.Element, now time.Time) (*saml.SP, error) {
	issuer, err := xmldoc.SoleChild(root, nsAssertion, "Issuer")
	if err != nil {
		return nil, err
	}
	text, err := xmldoc.TextOf(issuer)
	if err != nil {
		return nil, err
	}
	entityID, err := id.ParseEntityID(xmldoc.Trim(text))
	if err != nil {
		return nil, err
	}
	sp, ok := r.config.SPs.Lookup(entityID.String())
	if !ok || sp == nil || sp.EntityID != entityID {
		return nil, fmt.Errorf("unknown service provider %q", entityID)
	}
	if !sp.Live(now) {
		return nil, fmt.Errorf("metadata of %q is no longer valid", entityID)
	}
	return sp, nil
}

// read reads the verified message.
func (r *Reader) read(root *etree.Element, parameter string, a *arrival) (Verified, error) {
	messageID, err := r.checkFrame(root, a)
	if err != nil {
		return Verified{}, err
	}
	switch {
	case parameter == query.Request && xmldoc.Is(root, nsProtocol, "LogoutRequest"):
		q := Request{ID: messageID, SP: a.sp.EntityID, Binding: a.binding, RelayState: a.relay, HasRelayState: a.hasRelay}
		if err := readRequest(root, a.now, &q); err != nil {
			return Verified{}, err
		}
		return Verified{request: &q}, nil
	case parameter == query.Response && xmldoc.Is(root, nsProtocol, "LogoutResponse"):
		p := Response{ID: messageID, SP: a.sp.EntityID}
		if err := readResponse(root, &p); err != nil {
			return Verified{}, err
		}
		return Verified{response: &p}, nil
	}
	return Verified{}, errors.New("root is not the logout message the parameter announces")
}

// checkFrame checks what both messages have in common.
func (r *Reader) checkFrame(root *etree.Element, a *arrival) (string, error) {
	if v, _ := xmldoc.Attribute(root, "Version"); v != "2.0" {
		return "", errors.New("version is not 2.0")
	}
	messageID, _ := xmldoc.Attribute(root, "ID")
	if !xmldoc.IsNCName(messageID) {
		return "", errors.New("identifier is not an NCName")
	}
	v, _ := xmldoc.Attribute(root, "IssueInstant")
	issued, err := saml.ParseInstant(v)
	if err != nil {
		return "", fmt.Errorf("IssueInstant: %w", err)
	}
	if issued.After(a.now.Add(r.config.FutureSkew)) || issued.Before(a.now.Add(-r.config.PastSkew)) {
		return "", errors.New("issued too long ago or in the future")
	}
	// A message without destination could have been meant for another identity
	// provider; over SOAP the sender connected to us itself.
	destination, ok := xmldoc.Attribute(root, "Destination")
	if !ok && a.binding == saml.SOAP {
		return messageID, nil
	}
	if destination != r.config.EntityID.String() && !slices.Contains(r.config.Locations, destination) {
		return "", errors.New("meant for another destination")
	}
	return messageID, nil
}

func readRequest(root *etree.Element, now time.Time, q *Request) error {
	if err := inOrder(root, "Issuer", "Signature", "Extensions", "NameID", "SessionIndex"); err != nil {
		return err
	}
	if v, ok := xmldoc.Attribute(root, "NotOnOrAfter"); ok {
		if end, err := saml.ParseInstant(v); err != nil || !now.Before(end) {
			return errors.New("no longer to be acted on")
		}
	}
	name, err := xmldoc.SoleChild(root, nsAssertion, "NameID")
	if err != nil {
		return err
	}
	text, err := xmldoc.TextOf(name)
	if err != nil {
		return err
	}
	q.NameID = xmldoc.Trim(text)
	if q.NameID == "" || len(q.NameID) > 256 {
		return errors.New("NameID empty or too long")
	}
	for _, el := range xmldoc.ChildrenNamed(root, nsProtocol, "SessionIndex") {
		text, err := xmldoc.TextOf(el)
		if err != nil {
			return err
		}
		if len(q.SessionIndexes) == maxIndexes {
			return fmt.Errorf("more than %d session indexes", maxIndexes)
		}
		q.SessionIndexes = append(q.SessionIndexes, xmldoc.Trim(text))
	}
	for _, ext := range xmldoc.ChildrenNamed(root, nsProtocol, "Extensions") {
		q.Asynchronous = q.Asynchronous || len(xmldoc.ChildrenNamed(ext, nsAsync, "Asynchronous")) > 0
	}
	return nil
}

func readResponse(root *etree.Element, p *Response) error {
	if err := inOrder(root, "Issuer", "Signature", "Extensions", "Status"); err != nil {
		return err
	}
	p.InResponseTo, _ = xmldoc.Attribute(root, "InResponseTo")
	if !xmldoc.IsNCName(p.InResponseTo) {
		return errors.New("answers no request")
	}
	status, err := xmldoc.SoleChild(root, nsProtocol, "Status")
	if err != nil {
		return err
	}
	top, err := xmldoc.SoleChild(status, nsProtocol, "StatusCode")
	if err != nil {
		return err
	}
	if p.Status, _ = xmldoc.Attribute(top, "Value"); p.Status == "" {
		return errors.New("no status")
	}
	for _, sub := range xmldoc.ChildrenNamed(top, nsProtocol, "StatusCode") {
		p.SubStatus, _ = xmldoc.Attribute(sub, "Value")
	}
	return nil
}

// inOrder checks kinds and order of the children; only SessionIndex may repeat.
// The names are unambiguous across the three namespaces of a message.
func inOrder(root *etree.Element, names ...string) error {
	if err := xmldoc.OnlyElements(root); err != nil {
		return err
	}
	space := map[string]string{"Issuer": nsAssertion, "NameID": nsAssertion, "Signature": xmldoc.NSSignature}
	last := -1
	for _, child := range root.ChildElements() {
		at := slices.Index(names, child.Tag)
		want := space[child.Tag]
		if want == "" {
			want = nsProtocol
		}
		if at < 0 || child.NamespaceURI() != want {
			return errors.New("unknown element in the message")
		}
		if at < last || at == last && child.Tag != "SessionIndex" {
			return fmt.Errorf("%s repeated or out of order", child.Tag)
		}
		last = at
	}
	return nil
}

func refusal(err error) error {
	if err == nil {
		return nil
	}
	return fault.New(fault.Denied, "read logout message", err)
}
