package saml

import (
	"net/netip"
	"net/url"

	"custode/authcore/saml/xmldoc"
	"custode/internal/fault"
)

// emitResponse writes and signs the document: first the assertion, then the
// Response over the signed assertion. Each signature stands after Issuer, so
// each element is written as a head (up to and with Issuer) and a tail.
func (i *Issuer) emitResponse(p *Prepared) ([]byte, error) {
	head := xmldoc.Writer{B: make([]byte, 0, 1<<10)}
	i.responseHead(&head, p)
	tail := xmldoc.Writer{B: make([]byte, 0, 8<<10)}
	responseStatus(&tail, p.code)
	if p.code == Success {
		i.signedAssertion(&tail, p)
	}
	tail.Raw(`</samlp:Response>`)
	if head.Err != nil {
		tail.Err = head.Err
	}
	doc := xmldoc.Writer{B: make([]byte, 0, len(head.B)+len(tail.B)+4<<10), Err: tail.Err}
	doc.B = append(doc.B, head.B...)
	doc.Sign(i.key, p.id, p.code == Success, head.B, tail.B)
	if doc.Err != nil {
		return nil, emitError(p, doc.Err)
	}
	return append(doc.B, tail.B...), nil
}

// emitError tells a value that cannot be sent from a signer in trouble, whose
// own kind is kept.
func emitError(p *Prepared, err error) error {
	if err == xmldoc.ErrCharacter {
		return fault.New(fault.Invalid, "emit response "+p.id, err)
	}
	return fault.New(fault.KindOf(err), "sign response "+p.id, err)
}

func (i *Issuer) responseHead(c *xmldoc.Writer, p *Prepared) {
	c.Raw(`<samlp:Response xmlns:samlp="` + nsProtocol + `"`)
	c.Attr("Destination", p.reply.ACS)
	c.Attr("ID", p.id)
	if p.reply.InResponseTo != "" {
		c.Attr("InResponseTo", p.reply.InResponseTo)
	}
	c.Attr("IssueInstant", FormatInstant(p.issued))
	c.Raw(` Version="2.0"><saml:Issuer xmlns:saml="` + nsAssertion + `" Format="` + formatEntity + `">`)
	c.Text(i.entityID)
	c.Raw(`</saml:Issuer>`)
}

func responseStatus(c *xmldoc.Writer, code Code) {
	row, _ := Anomaly(code)
	c.Raw(`<samlp:Status><samlp:StatusCode Value="`)
	c.Raw(row.Status)
	c.Raw(`">`)
	if row.SubStatus != "" {
		c.Raw(`<samlp:StatusCode Value="`)
		c.Raw(row.SubStatus)
		c.Raw(`"></samlp:StatusCode>`)
	}
	c.Raw(`</samlp:StatusCode>`)
	if row.Message != "" {
		c.Element("samlp:StatusMessage", row.Message)
	}
	c.Raw(`</samlp:Status>`)
}

func (i *Issuer) signedAssertion(c *xmldoc.Writer, p *Prepared) {
	start := len(c.B)
	c.Raw(`<saml:Assertion xmlns:saml="` + nsAssertion + `" xmlns:xs="` + nsXS + `"`)
	c.Attr("ID", p.assertionID)
	c.Attr("IssueInstant", FormatInstant(p.issued))
	c.Raw(` Version="2.0"><saml:Issuer Format="` + formatEntity + `">`)
	c.Text(i.entityID)
	c.Raw(`</saml:Issuer>`)

	body := xmldoc.Writer{B: make([]byte, 0, 6<<10)}
	i.assertionSubject(&body, p)
	assertionStatements(&body, p)
	body.Raw(`</saml:Assertion>`)
	if body.Err != nil {
		c.Err = body.Err
	}
	c.Sign(i.key, p.assertionID, true, c.B[start:], body.B)
	c.B = append(c.B, body.B...)
}

func (i *Issuer) assertionSubject(c *xmldoc.Writer, p *Prepared) {
	end := FormatInstant(p.issued.Add(assertionLife))
	c.Raw(`<saml:Subject><saml:NameID Format="` + formatTransient + `"`)
	c.Attr("NameQualifier", i.entityID)
	c.Raw(`>`)
	c.Text(p.nameID)
	c.Raw(`</saml:NameID><saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer"><saml:SubjectConfirmationData`)
	c.Attr("InResponseTo", p.reply.InResponseTo)
	c.Attr("NotOnOrAfter", end)
	c.Attr("Recipient", p.reply.ACS)
	c.Raw(`></saml:SubjectConfirmationData></saml:SubjectConfirmation></saml:Subject><saml:Conditions`)
	c.Attr("NotBefore", FormatInstant(p.issued.Add(-notBeforeMargin)))
	c.Attr("NotOnOrAfter", end)
	c.Raw(`><saml:AudienceRestriction>`)
	c.Element("saml:Audience", p.reply.SP.String())
	c.Raw(`</saml:AudienceRestriction></saml:Conditions>`)
}

func assertionStatements(c *xmldoc.Writer, p *Prepared) {
	s := &p.statement
	c.Raw(`<saml:AuthnStatement`)
	c.Attr("AuthnInstant", FormatInstant(s.AuthnInstant))
	if s.SessionIndex != "" {
		c.Attr("SessionIndex", s.SessionIndex)
	}
	c.Raw(`><saml:AuthnContext>`)
	c.Element("saml:AuthnContextClassRef", s.Level.URI())
	c.Raw(`</saml:AuthnContext></saml:AuthnStatement>`)
	if len(s.Attributes) == 0 {
		return
	}
	c.Raw(`<saml:AttributeStatement>`)
	for _, a := range s.Attributes {
		c.Raw(`<saml:Attribute`)
		c.Attr("Name", a.Name)
		c.Raw(` NameFormat="urn:oasis:names:tc:SAML:2.0:attrname-format:basic"><saml:AttributeValue xmlns:xsi="` + nsXSI + `" xsi:type="`)
		c.Raw(attributeType(a))
		c.Raw(`">`)
		c.Text(a.Value)
		c.Raw(`</saml:AttributeValue></saml:Attribute>`)
	}
	c.Raw(`</saml:AttributeStatement>`)
}

// isDate reports whether the SPID attribute is an xs:date.
func isDate(name string) bool { return name == "dateOfBirth" || name == "expirationDate" }

// attributeType returns the xsi:type. The empty value is never a date: that
// would not be valid.
func attributeType(a Attribute) string {
	if isDate(a.Name) && a.Value != "" {
		return "xs:date"
	}
	return "xs:string"
}

// WebLocation reports whether s is an absolute https URL with a host and without
// blanks: the only kind of place a browser is sent to. Plain http is for this
// box only: a Response in clear gives its attributes to the network.
func WebLocation(s string) bool {
	for _, r := range s {
		if r <= ' ' || r == 0x7f {
			return false
		}
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || err == nil && ip.IsLoopback())
}
