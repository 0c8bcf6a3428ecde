package logout

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/beevik/etree"

	"custode/authcore/saml"
	"custode/authcore/saml/query"
	"custode/authcore/saml/xmldoc"
	"custode/internal/fault"
)

// Issuer emits, signs and re-verifies logout messages. It is safe for concurrent
// use if its signer and random are.
type Issuer struct {
	entityID  string
	cert      *x509.Certificate
	signer    crypto.Signer
	key       xmldoc.Key
	random    io.Reader
	inflaters sync.Pool
}

// NewIssuer checks the configuration; fault.Invalid. It does not use the key.
func NewIssuer(c saml.IssuerConfig) (*Issuer, error) {
	const op = "build logout issuer"
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
	return &Issuer{entityID: c.EntityID.String(), cert: c.Certificate, signer: c.Signer,
		key: xmldoc.NewKey(c.Signer, c.Certificate, c.Random), random: c.Random}, nil
}

// NewID draws the identifier of a message: an NCName of 128 random bits, to be
// stored before the message leaves. fault.Unavailable.
func (i *Issuer) NewID() (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(i.random, b[:]); err != nil {
		return "", fault.New(fault.Unavailable, "draw identifier", err)
	}
	return "_" + hex.EncodeToString(b[:]), nil
}

// draft is a message before it is signed: the head ends with Issuer, after which
// the signature goes.
type draft struct {
	id, parameter string
	head, tail    xmldoc.Writer
	to            saml.Binding
	location      string
	relay         string
	hasRelay      bool
	nameID        string // request
	status        string // response: the lowest status code
}

// Request builds the LogoutRequest that tells the SP of the end of a session, for
// the endpoint's Location. fault.Invalid for values that cannot be sent.
func (i *Issuer) Request(to saml.Endpoint, e Ended, now time.Time) (Message, error) {
	const op = "build logout request"
	if !xmldoc.IsNCName(e.ID) || e.NameID == "" || e.SessionIndex == "" || !saml.WebLocation(to.Location) || now.IsZero() {
		return Message{}, fault.Newf(fault.Invalid, op, "identifier, NameID, session index or location missing")
	}
	d := &draft{id: e.ID, parameter: query.Request, to: to.Binding, location: to.Location, nameID: e.NameID}
	d.head.Raw(`<samlp:LogoutRequest xmlns:samlp="` + nsProtocol + `"`)
	d.head.Attr("Destination", to.Location)
	d.head.Attr("ID", e.ID)
	d.head.Attr("IssueInstant", saml.FormatInstant(now))
	d.head.Attr("NotOnOrAfter", saml.FormatInstant(now.Add(life)))
	i.issuerElement(&d.head)
	d.tail.Raw(`<saml:NameID xmlns:saml="` + nsAssertion + `" Format="` + formatTransient + `"`)
	d.tail.Attr("NameQualifier", i.entityID)
	d.tail.Raw(`>`)
	d.tail.Text(e.NameID)
	d.tail.Raw(`</saml:NameID>`)
	d.tail.Element("samlp:SessionIndex", e.SessionIndex)
	d.tail.Raw(`</samlp:LogoutRequest>`)
	return i.finish(op, d, now)
}

// Response builds the LogoutResponse for the endpoint's ResponseLocation, or its
// Location when it has none. SPID's partial logout is a sub-status of Requester
// (Avviso 3), not of Success as in plain SAML. fault.Invalid for values that
// cannot be sent.
func (i *Issuer) Response(to saml.Endpoint, r Reply, now time.Time) (Message, error) {
	const op = "build logout response"
	location := to.Location
	if to.ResponseLocation != "" {
		location = to.ResponseLocation
	}
	// Over SOAP the answer goes back on the connection that asked.
	if !xmldoc.IsNCName(r.InResponseTo) || to.Binding != saml.SOAP && !saml.WebLocation(location) || now.IsZero() {
		return Message{}, fault.Newf(fault.Invalid, op, "request identifier or location missing")
	}
	messageID, err := i.NewID()
	if err != nil {
		return Message{}, err
	}
	d := &draft{id: messageID, parameter: query.Response, to: to.Binding, location: location, relay: r.RelayState, hasRelay: r.HasRelayState, status: statusSuccess}
	d.head.Raw(`<samlp:LogoutResponse xmlns:samlp="` + nsProtocol + `"`)
	if location != "" {
		d.head.Attr("Destination", location)
	}
	d.head.Attr("ID", messageID)
	d.head.Attr("InResponseTo", r.InResponseTo)
	d.head.Attr("IssueInstant", saml.FormatInstant(now))
	i.issuerElement(&d.head)
	if r.Partial {
		d.status = statusPartial
		d.tail.Raw(`<samlp:Status><samlp:StatusCode Value="` + statusRequester + `"><samlp:StatusCode Value="` + statusPartial +
			`"></samlp:StatusCode></samlp:StatusCode></samlp:Status></samlp:LogoutResponse>`)
	} else {
		d.tail.Raw(`<samlp:Status><samlp:StatusCode Value="` + statusSuccess + `"></samlp:StatusCode></samlp:Status></samlp:LogoutResponse>`)
	}
	return i.finish(op, d, now)
}

func (i *Issuer) issuerElement(c *xmldoc.Writer) {
	c.Raw(` Version="2.0"><saml:Issuer xmlns:saml="` + nsAssertion + `" Format="` + formatEntity + `"`)
	c.Attr("NameQualifier", i.entityID)
	c.Raw(`>`)
	c.Text(i.entityID)
	c.Raw(`</saml:Issuer>`)
}

// finish signs for the binding and reads the result back as its receiver would.
func (i *Issuer) finish(op string, d *draft, now time.Time) (Message, error) {
	doc := d.head
	if d.head.Err != nil || d.tail.Err != nil {
		return Message{}, fault.New(fault.Invalid, op, errors.Join(d.head.Err, d.tail.Err))
	}
	m := Message{ID: d.id, Binding: d.to, Location: d.location, Parameter: d.parameter, RelayState: d.relay, HasRelayState: d.hasRelay}
	if d.to == saml.Redirect {
		m.XML = append(doc.B, d.tail.B...)
		signed, err := query.Sign(d.parameter, m.XML, d.relay, d.hasRelay, i.signer, i.random)
		if err != nil {
			return Message{}, fault.New(fault.KindOf(err), op, err)
		}
		if err := i.reverifyQuery(signed, m.XML, now); err != nil {
			return Message{}, fault.New(fault.Fatal, "re-verify logout message "+m.ID, err)
		}
		separator := "?"
		if strings.Contains(d.location, "?") {
			separator = "&"
		}
		m.Location += separator + signed
		return m, nil
	}
	if d.to != saml.Post && d.to != saml.SOAP {
		return Message{}, fault.Newf(fault.Invalid, op, "no such binding")
	}
	doc.B = append([]byte(nil), d.head.B...)
	doc.Sign(i.key, d.id, false, d.head.B, d.tail.B)
	if doc.Err != nil {
		return Message{}, fault.New(fault.KindOf(doc.Err), op, doc.Err)
	}
	m.XML = append(doc.B, d.tail.B...)
	if d.to == saml.SOAP {
		m.XML = append(append([]byte(envelopeHead), m.XML...), envelopeTail...)
	}
	if err := i.reverify(d, m.XML, now); err != nil {
		return Message{}, fault.New(fault.Fatal, "re-verify logout message "+m.ID, err)
	}
	return m, nil
}

// reverify parses afresh, checks the signature with the published certificate
// and compares the signed element, without its signature, with the draft.
func (i *Issuer) reverify(d *draft, doc []byte, now time.Time) error {
	root, err := bounds.Parse(doc)
	if err != nil {
		return err
	}
	if d.to == saml.SOAP {
		if root, err = openEnvelope(root); err != nil {
			return err
		}
	}
	signed, err := xmldoc.VerifyEnveloped(root, 1, []*x509.Certificate{i.cert}, now)
	if err != nil {
		return err
	}
	return d.compare(signed)
}

// compare checks what a receiver acts on.
func (d *draft) compare(signed *etree.Element) error {
	if v, _ := xmldoc.Attribute(signed, "ID"); v != d.id {
		return errors.New("signed element is not the message")
	}
	if v, _ := xmldoc.Attribute(signed, "Destination"); v != d.location {
		return errors.New("destination differs from what was prepared")
	}
	if d.nameID != "" {
		name, err := xmldoc.SoleChild(signed, nsAssertion, "NameID")
		if err != nil {
			return err
		}
		if text, err := xmldoc.TextOf(name); err != nil || text != d.nameID {
			return errors.New("NameID differs from what was prepared")
		}
		return nil
	}
	var p Response
	if err := readResponse(signed, &p); err != nil {
		return err
	}
	if p.SubStatus == "" {
		p.SubStatus = p.Status
	}
	if p.SubStatus != d.status {
		return errors.New("status differs from what was prepared")
	}
	return nil
}

func (i *Issuer) reverifyQuery(signed string, doc []byte, now time.Time) error {
	q, err := query.Split([]byte(signed), query.Request, query.Response)
	if err != nil {
		return err
	}
	if err := q.Verify([]*x509.Certificate{i.cert}, now); err != nil {
		return err
	}
	back, err := q.Document(&i.inflaters, MaxMessage)
	if err != nil {
		return err
	}
	if !bytes.Equal(back, doc) {
		return errors.New("document differs from what was prepared")
	}
	return nil
}
