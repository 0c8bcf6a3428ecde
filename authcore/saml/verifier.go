package saml

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/beevik/etree"

	"custode/authcore/saml/query"
	"custode/authcore/saml/xmldoc"
	"custode/internal/fault"
	"custode/internal/id"
)

// SPs finds registered service providers (registry.Registry).
type SPs interface {
	// Lookup returns the live SP of that entityID. The snapshot is not
	// modified by either side.
	Lookup(entityID string) (*SP, bool)
}

// VerifierConfig configures a Verifier. EntityID, the two locations and SPs are
// required.
type VerifierConfig struct {
	EntityID         id.EntityID
	RedirectLocation string        // published SingleSignOnService, HTTP-Redirect
	PostLocation     string        // published SingleSignOnService, HTTP-POST; may equal the other
	FutureSkew       time.Duration // how far IssueInstant may be ahead; 0: 3 minutes
	PastSkew         time.Duration // how old IssueInstant may be; 0: 5 minutes
	// StrictForceAuthn refuses (nr08) a level 2 or 3 request without
	// ForceAuthn, as the rules have it. Lenient otherwise: such a request is
	// authenticated afresh anyway.
	StrictForceAuthn bool
	// StrictScoping refuses (nr08) a Scoping whose ProxyCount is not 0.
	StrictScoping bool
	// LenientSubject ignores what is in a Subject. Else (nr08) it must be a lone
	// NameID of format unspecified with a NameQualifier.
	LenientSubject bool
	// LenientPurpose ignores a spid:Purpose that is not in the table. Else nr08.
	LenientPurpose bool
	// LenientBetter lets a request for better than level 3 begin a login, which
	// no credentials can satisfy (nr20). Else nr12 at once.
	LenientBetter bool
	SPs           SPs
}

// Verifier turns what arrives at the single sign-on locations into verified
// requests. It is safe for concurrent use.
type Verifier struct {
	config       VerifierConfig
	destinations [3]string
	inflaters    sync.Pool // of decompressors
}

// NewVerifier checks the configuration; fault.Invalid.
func NewVerifier(c VerifierConfig) (*Verifier, error) {
	if c.EntityID.IsZero() || c.RedirectLocation == "" || c.PostLocation == "" || c.SPs == nil {
		return nil, fault.Newf(fault.Invalid, "build verifier", "entityID, locations and SPs are required")
	}
	if c.FutureSkew < 0 || c.PastSkew < 0 {
		return nil, fault.Newf(fault.Invalid, "build verifier", "negative skew")
	}
	if c.FutureSkew == 0 {
		c.FutureSkew = 3 * time.Minute
	}
	if c.PastSkew == 0 {
		c.PastSkew = 5 * time.Minute
	}
	return &Verifier{config: c, destinations: [3]string{c.EntityID.String(), c.RedirectLocation, c.PostLocation}}, nil
}

// Redirect verifies a request that arrived by HTTP-Redirect. rawQuery is the
// query as received, still percent-encoded, without "?"; now is the time of
// arrival. A refusal is a *Refusal. Nothing of rawQuery is kept.
func (v *Verifier) Redirect(rawQuery []byte, now time.Time) (VerifiedRequest, error) {
	q, err := query.Split(rawQuery, query.Request)
	if err != nil {
		return page(BadBinding, err)
	}
	relay, err := q.RelayState()
	if err != nil {
		return page(BadBinding, fmt.Errorf("decode RelayState: %w", err))
	}
	if len(relay) > query.MaxRelayState {
		return page(BadBinding, query.ErrRelayState)
	}
	doc, err := q.Document(&v.inflaters, requestBounds.Bytes)
	if err != nil {
		return page(BadBinding, err)
	}
	root, err := parseRequest(doc)
	if err != nil {
		return page(BadBinding, err)
	}
	sp, err := v.issuer(root, now)
	if err != nil {
		return page(BadIssuer, err)
	}
	if xmldoc.CountSignatures(root) > 0 {
		return page(BadRedirectSig, errors.New("signature inside a redirected document"))
	}
	if err := q.Verify(sp.Certificates, now); err != nil {
		return page(BadRedirectSig, err)
	}
	return v.accept(&arrival{binding: Redirect, raw: doc, relay: relay, hasRelay: q.HasRelayState, root: root, sp: sp, now: now})
}

// Post verifies a request that arrived by HTTP-POST. samlRequest is the form
// field SAMLRequest after form decoding (base64, white space allowed); relayState
// and hasRelayState describe the field RelayState; now is the time of arrival.
// A refusal is a *Refusal. Nothing of the arguments is kept.
func (v *Verifier) Post(samlRequest, relayState []byte, hasRelayState bool, now time.Time) (VerifiedRequest, error) {
	if len(relayState) > query.MaxRelayState {
		return page(BadBinding, query.ErrRelayState)
	}
	doc, err := decodePost(samlRequest)
	if err != nil {
		return page(BadBinding, err)
	}
	root, err := parseRequest(doc)
	if err != nil {
		return page(BadBinding, err)
	}
	sp, err := v.issuer(root, now)
	if err != nil {
		return page(BadIssuer, err)
	}
	verified, err := xmldoc.VerifyEnveloped(root, 1, sp.Certificates, now)
	if err != nil {
		return page(BadPostSig, err)
	}
	// From here on only what the signature covers is read; that it names the
	// same SP must be asked again.
	signer, err := v.issuer(verified, now)
	if err != nil || signer.EntityID != sp.EntityID || checkRequestRoot(verified) != nil {
		return page(BadPostSig, errors.New("signed element is not the request"))
	}
	return v.accept(&arrival{binding: Post, raw: doc, relay: string(relayState), hasRelay: hasRelayState, root: verified, sp: sp, now: now})
}

func decodePost(samlRequest []byte) ([]byte, error) {
	// Twice the document's bound leaves room for base64 and its line breaks.
	if len(samlRequest) > 2*requestBounds.Bytes {
		return nil, fmt.Errorf("SAMLRequest of %d octets is too long", len(samlRequest))
	}
	doc, err := base64.StdEncoding.DecodeString(xmldoc.Strip(string(samlRequest)))
	if err != nil {
		return nil, fmt.Errorf("decode SAMLRequest: %w", err)
	}
	if len(doc) == 0 {
		return nil, errors.New("mandatory parameter missing")
	}
	return doc, nil
}

func parseRequest(doc []byte) (*etree.Element, error) {
	root, err := requestBounds.Parse(doc)
	if err != nil {
		return nil, err
	}
	return root, checkRequestRoot(root)
}

func checkRequestRoot(root *etree.Element) error {
	if !xmldoc.Is(root, nsProtocol, "AuthnRequest") {
		return errors.New("root is not an AuthnRequest")
	}
	return nil
}

// issuer finds the live SP that the document's Issuer names.
func (v *Verifier) issuer(root *etree.Element, now time.Time) (*SP, error) {
	issuer, err := xmldoc.SoleChild(root, nsAssertion, "Issuer")
	if err != nil {
		return nil, err
	}
	// Never trimmed: the rules want the exact URI in Format.
	if format, _ := xmldoc.Attribute(issuer, "Format"); format != formatEntity {
		return nil, errors.New("issuer Format is not entity")
	}
	qualifier, _ := xmldoc.Attribute(issuer, "NameQualifier")
	if _, err := url.Parse(qualifier); err != nil || xmldoc.Trim(qualifier) == "" {
		return nil, errors.New("issuer without NameQualifier URI")
	}
	text, err := xmldoc.TextOf(issuer)
	if err != nil {
		return nil, err
	}
	entityID, err := id.ParseEntityID(xmldoc.Trim(text))
	if err != nil {
		return nil, err
	}
	sp, ok := v.config.SPs.Lookup(entityID.String())
	if !ok || sp == nil || sp.EntityID != entityID {
		return nil, fmt.Errorf("unknown service provider %q", entityID)
	}
	if !sp.Live(now) {
		return nil, fmt.Errorf("metadata of %q is no longer valid", entityID)
	}
	return sp, nil
}

// accept applies the rules to a request whose signature is good.
func (v *Verifier) accept(a *arrival) (VerifiedRequest, error) {
	a.verifier = v
	a.acs, a.acsErr = chooseACS(a.root, a.sp)
	a.request = Request{SP: a.sp.EntityID, Binding: a.binding, RelayState: a.relay, HasRelayState: a.hasRelay, Raw: a.raw}
	for _, r := range rules {
		if err := r.check(a); err != nil {
			return VerifiedRequest{}, a.refuse(r.code, err)
		}
	}
	return VerifiedRequest{request: a.request, sp: a.sp}, nil
}

// page refuses without a word to the SP.
func page(c Code, err error) (VerifiedRequest, error) {
	return VerifiedRequest{}, &Refusal{Code: c, Err: err}
}

// refuse addresses the error Response: to the ACS asked for if that one was
// good, else to the SP's default; never to a URL from the message alone.
func (a *arrival) refuse(c Code, err error) *Refusal {
	reply := Reply{SP: a.sp.EntityID, ACS: a.acs, RelayState: a.relay, HasRelayState: a.hasRelay}
	if a.acsErr != nil {
		reply.ACS = defaultACS(a.sp)
	}
	if reply.ACS == "" {
		// No Response can be sent; metadata without an ACS does not parse, so
		// this is a defect of ours.
		return &Refusal{Code: SystemError, Err: err}
	}
	if v, _ := xmldoc.Attribute(a.root, "ID"); xmldoc.IsNCName(v) {
		reply.InResponseTo = v
	}
	if t, err := a.issued(); err == nil {
		reply.RequestIssued = t
	}
	return &Refusal{Code: c, Reply: &reply, SPName: a.sp.DisplayName, Err: err}
}
