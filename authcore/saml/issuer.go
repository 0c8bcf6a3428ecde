package saml

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"custode/authcore/saml/xmldoc"
	"custode/internal/fault"
	"custode/internal/id"
)

// The windows of an assertion. The rules fix none: an SP compares NotBefore
// with its own clock, often with no tolerance, so it lies before IssueInstant;
// five minutes is what the conformance tools use.
const (
	notBeforeMargin  = 60 * time.Second
	assertionLife    = 5 * time.Minute
	maxRequestInHand = 10 * time.Minute // life of a login, and how far a request's IssueInstant may pull ours forward
)

// IssuerConfig configures an Issuer. All fields are required.
type IssuerConfig struct {
	EntityID    id.EntityID
	Signer      crypto.Signer     // RSA, 2048 bits or more; PKCS #1 v1.5 with SHA-256
	Certificate *x509.Certificate // published; its key is the Signer's
	Random      io.Reader         // cryptographic randomness for identifiers
}

// Issuer emits, signs and re-verifies Responses and metadata. It is safe for
// concurrent use if its Signer and Random are.
type Issuer struct {
	entityID string
	cert     *x509.Certificate
	key      xmldoc.Key
	random   io.Reader
}

// NewIssuer checks the configuration; fault.Invalid. It does not use the key.
func NewIssuer(c IssuerConfig) (*Issuer, error) {
	const op = "build issuer"
	if c.EntityID.IsZero() || c.Signer == nil || c.Certificate == nil || c.Random == nil {
		return nil, fault.Newf(fault.Invalid, op, "entityID, signer, certificate and random are required")
	}
	key, err := xmldoc.RSAKey(c.Certificate)
	if err != nil {
		return nil, fault.New(fault.Invalid, op, err)
	}
	if pub, ok := c.Signer.Public().(*rsa.PublicKey); !ok || !pub.Equal(key) {
		return nil, fault.Newf(fault.Invalid, op, "certificate is not of the signer's key")
	}
	return &Issuer{entityID: c.EntityID.String(), cert: c.Certificate,
		key: xmldoc.NewKey(c.Signer, c.Certificate, c.Random), random: c.Random}, nil
}

// Prepared is a Response whose content is decided and which is not signed yet.
// It belongs to the Issuer that prepared it and can be signed once.
type Prepared struct {
	issuer      *Issuer
	used        atomic.Bool
	code        Code
	reply       Reply
	statement   Statement // success only
	id          string
	assertionID string
	nameID      string
	issued      time.Time
}

// PrepareSuccess checks a statement and fixes identifiers and times.
// fault.Invalid when it may not be asserted.
func (i *Issuer) PrepareSuccess(s Statement, now time.Time) (*Prepared, error) {
	if err := checkStatement(s); err != nil {
		return nil, fault.New(fault.Invalid, "prepare response", err)
	}
	p, err := i.prepare(Success, s.Request.Reply(), now)
	if err != nil {
		return nil, err
	}
	if s.AuthnInstant.IsZero() || s.AuthnInstant.After(p.issued.Add(maxRequestInHand)) {
		return nil, fault.Newf(fault.Invalid, "prepare response", "authentication instant missing or in the future")
	}
	// A session answers level 1 only, and never with ForceAuthn (Avviso 3): what is
	// asserted otherwise happened within the life of one login.
	if r := &s.Request; (r.Level > L1 || r.ForceAuthn) && now.Sub(s.AuthnInstant) > maxRequestInHand {
		return nil, fault.Newf(fault.Invalid, "prepare response", "the request wants a new authentication")
	}
	// The same millisecond, or a clock set back since: an authentication is never
	// later than the assertion that tells of it.
	if s.AuthnInstant.After(p.issued) {
		s.AuthnInstant = p.issued
	}
	p.statement = s
	if p.assertionID, err = i.identifier(); err != nil {
		return nil, err
	}
	if p.nameID, err = i.identifier(); err != nil {
		return nil, err
	}
	return p, nil
}

// PrepareAnomaly fixes identifiers and times of an error Response.
// fault.Invalid for a code that sends none.
func (i *Issuer) PrepareAnomaly(c Code, to Reply, now time.Time) (*Prepared, error) {
	row, ok := Anomaly(c)
	if !ok || !row.Response || c == Success {
		return nil, fault.Newf(fault.Invalid, "prepare error response", "anomaly %d sends no response", c)
	}
	if to.InResponseTo != "" && !xmldoc.IsNCName(to.InResponseTo) {
		return nil, fault.Newf(fault.Invalid, "prepare error response", "request identifier is not an NCName")
	}
	return i.prepare(c, to, now)
}

func (i *Issuer) prepare(c Code, to Reply, now time.Time) (*Prepared, error) {
	const op = "prepare response"
	if to.SP.IsZero() || !WebLocation(to.ACS) {
		return nil, fault.Newf(fault.Invalid, op, "no service provider or no ACS to answer")
	}
	if now.IsZero() || to.RequestIssued.After(now.Add(maxRequestInHand)) {
		return nil, fault.Newf(fault.Invalid, op, "request issued too far in the future")
	}
	responseID, err := i.identifier()
	if err != nil {
		return nil, err
	}
	return &Prepared{issuer: i, code: c, reply: to, id: responseID, issued: issueInstant(now, to.RequestIssued)}, nil
}

// checkStatement refuses what must never be asserted, whatever led there.
func checkStatement(s Statement) error {
	r := &s.Request
	if !xmldoc.IsNCName(r.ID) || r.IssueInstant.IsZero() {
		return errors.New("request without identifier or instant")
	}
	if !levelAnswers(s.Level, r.Level, r.Comparison) {
		return fmt.Errorf("level %d does not answer a request of level %d", s.Level, r.Level)
	}
	if (r.Level == L1) != (s.SessionIndex != "") {
		return errors.New("session index belongs to level 1 requests, and to all of them")
	}
	return checkSet(s)
}

// checkSet wants the requested attributes, each once, asserted or left out on
// purpose.
func checkSet(s Statement) error {
	r := &s.Request
	if n := len(s.Attributes) + len(s.Omitted); !r.HasAttributes && n > 0 || n != len(r.Attributes) {
		return errors.New("attributes differ from the requested set")
	}
	wanted := make(map[string]bool, len(r.Attributes))
	for _, name := range r.Attributes {
		wanted[name] = true
	}
	for _, name := range s.Omitted {
		if !wanted[name] {
			return errors.New("attributes differ from the requested set")
		}
		delete(wanted, name)
	}
	for _, a := range s.Attributes {
		if !wanted[a.Name] {
			return errors.New("attributes differ from the requested set")
		}
		delete(wanted, a.Name)
		if isDate(a.Name) && a.Value != "" {
			if _, err := time.Parse(time.DateOnly, a.Value); err != nil {
				return fmt.Errorf("attribute %s is not a date", a.Name)
			}
		}
	}
	return nil
}

// levelAnswers reports whether the level performed may answer. A level above
// what the comparison allows never fails a request (technical rules).
func levelAnswers(performed, requested Level, c Comparison) bool {
	if performed < L1 || performed > L3 || requested < L1 || requested > L3 {
		return false
	}
	switch c {
	case Exact, Minimum:
		return performed >= requested
	case Better:
		return performed > requested
	case Maximum:
		return true
	}
	return false
}

// identifier draws an NCName of 128 random bits.
func (i *Issuer) identifier() (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(i.random, b[:]); err != nil {
		return "", fault.New(fault.Unavailable, "draw identifier", err)
	}
	return "_" + hex.EncodeToString(b[:]), nil
}

// Sign emits and signs a prepared Response, verifies the result by another
// path, and only then hands it out. Each Prepared is signed at most once, even
// if signing fails: fault.Conflict. Errors of the Signer are wrapped.
func (i *Issuer) Sign(p *Prepared) (Signed, error) {
	if p == nil || p.issuer != i {
		return Signed{}, fault.Newf(fault.Internal, "sign response", "not prepared by this issuer")
	}
	if !p.used.CompareAndSwap(false, true) {
		return Signed{}, fault.Newf(fault.Conflict, "sign response "+p.id, "signed before")
	}
	doc, err := i.emitResponse(p)
	if err != nil {
		return Signed{}, err
	}
	if err := reverify(p, doc, i.cert); err != nil {
		return Signed{}, fault.New(fault.Fatal, "re-verify response "+p.id, err)
	}
	return Signed{XML: doc, Code: p.code, ID: p.id, AssertionID: p.assertionID, NameID: p.nameID, IssueInstant: p.issued,
		ACS: p.reply.ACS, RelayState: p.reply.RelayState, HasRelayState: p.reply.HasRelayState}, nil
}

// Success builds, signs and re-verifies the Response that asserts s; now is the
// time of issue. Errors: as PrepareSuccess and Sign.
func (i *Issuer) Success(s Statement, now time.Time) (Signed, error) {
	p, err := i.PrepareSuccess(s, now)
	if err != nil {
		return Signed{}, err
	}
	return i.Sign(p)
}

// Anomaly builds, signs and re-verifies the error Response of code c. Errors:
// as PrepareAnomaly and Sign.
func (i *Issuer) Anomaly(c Code, to Reply, now time.Time) (Signed, error) {
	p, err := i.PrepareAnomaly(c, to, now)
	if err != nil {
		return Signed{}, err
	}
	return i.Sign(p)
}
