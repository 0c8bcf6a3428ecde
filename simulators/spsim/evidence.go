package spsim

import (
	"crypto/x509"
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"
)

// Evidence is a response as it came, with what it is held against: the request
// and the metadata of both sides. It is for auditors (simulators/spsim/catalogue)
// that ask every rule instead of stopping at the first; taking it does not count
// the request as answered.
type Evidence struct {
	// Root is what was received, nothing of it verified. It was vetted as Consume
	// vets a document: no DTD, no comment, unique IDs, one root.
	Root *etree.Element
	IdP  *IdP
	// Now and Skew are the service provider's clock and patience.
	Now  time.Time
	Skew time.Duration
	// RelayState is what came back, Sent what was sent.
	RelayState, Sent string
	// Request is what was asked under RequestID; without an ID the response
	// names no request, which only an nr11 may.
	Request   Request
	RequestID string
	Issued    time.Time // of the request
	sp        *SP
}

// Evidence reads a response to a request of that browser. The error is a *Refusal
// of a response that cannot be read or answers nothing.
func (sp *SP) Evidence(browser, samlResponse, relayState string) (*Evidence, error) {
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
	e := &Evidence{Root: root, IdP: idp, Now: sp.cfg.Now(), Skew: sp.cfg.Skew, RelayState: relayState, sp: sp}
	asked := sp.requests.peek(attrOf(root, "InResponseTo"), browser)
	if asked == nil && !strings.Contains(string(raw), "ErrorCode nr11") {
		return nil, refuse("response.inResponseTo", "no request of this browser")
	}
	if asked != nil {
		e.Request, e.RequestID, e.Issued, e.Sent = asked.request, asked.id, asked.issued, asked.relayState
	}
	return e, nil
}

// peek returns a request without counting it as answered.
func (b *requestBook) peek(id, browser string) *sent {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.byID[id]; s != nil && s.request.Browser == browser {
		return s
	}
	return nil
}

// ACS is where the answer to the request must go.
func (e *Evidence) ACS() string { return e.sp.ACS(e.Request.ACSIndex) }

// DefaultACS is where it must go when the request's own is at fault.
func (e *Evidence) DefaultACS() string { return e.sp.ACS(0) }

// EntityID is the service provider's.
func (e *Evidence) EntityID() string { return e.sp.cfg.EntityID }

// Wanted returns the attribute names asked for, none for NoAttributes.
func (e *Evidence) Wanted() []string {
	if e.Request.NoAttributes {
		return nil
	}
	return slices.Clone(e.sp.cfg.AttributeSets[e.Request.Service])
}

// Signed checks the signature that is a child of el, by a certificate of the
// metadata or, with any, by the one that the signature shows.
func (e *Evidence) Signed(el *etree.Element, any bool) error {
	trusted := e.IdP.Signers
	if any {
		cert, err := ownCertificate(el)
		if err != nil {
			return err
		}
		trusted = append(slices.Clone(trusted), cert)
	}
	_, _, err := verifyElement(el, trusted, e.Now)
	return err
}

// Status checks the status of the response against the anomaly table.
func (e *Evidence) Status() error { return (&judge{response: e.Root}).readStatus() }

// AuthnInstant checks that of an AuthnStatement.
func (e *Evidence) AuthnInstant(statement *etree.Element) error {
	return (&judge{sp: e.sp, now: e.Now, request: &sent{request: e.Request, issued: e.Issued}}).checkAuthnInstant(statement)
}

// Attributes checks the values of Attribute elements against the attribute table.
func (e *Evidence) Attributes(els []*etree.Element) error {
	j := &judge{login: Login{Attributes: map[string]string{}}}
	for _, el := range els {
		if err := j.readAttribute(el); err != nil {
			return err
		}
	}
	return nil
}

// Text checks that no value has blanks around it and that every xsi:type means
// something where it stands.
func (e *Evidence) Text() error {
	if err := checkTypePrefixes(e.Root); err != nil {
		return err
	}
	return checkText(e.Root)
}

// Satisfies reports whether the level performed answers the request.
func (e *Evidence) Satisfies(performed int) bool {
	return satisfies(e.Request.Comparison, e.Request.Level, performed)
}

// ownCertificate returns the certificate in the KeyInfo of el's signature.
func ownCertificate(el *etree.Element) (*x509.Certificate, error) {
	cert, err := only(el, nsSignature, "Signature", "KeyInfo", "X509Data", "X509Certificate")
	if err != nil {
		return nil, err
	}
	der, err := decodeCertificate(cert.Text())
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
