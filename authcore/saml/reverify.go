package saml

import (
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/beevik/etree"

	"custode/authcore/saml/xmldoc"
)

// reverify reads a document just signed as a service provider would: parsed
// afresh, canonicalised by code that had no part in writing it, both signatures
// checked with the published certificate, the values compared with what was
// prepared.
func reverify(p *Prepared, doc []byte, cert *x509.Certificate) error {
	root, err := responseBounds.Parse(doc)
	if err != nil {
		return err
	}
	if err := xmldoc.Usable(cert, p.issued); err != nil {
		return err
	}
	signatures := 1
	if p.code == Success {
		signatures = 2
	}
	if n := xmldoc.CountSignatures(root); n != signatures {
		return fmt.Errorf("%d signatures", n)
	}
	if children := root.ChildElements(); len(children) < 3 || !xmldoc.Is(children[1], xmldoc.NSSignature, "Signature") {
		return errors.New("response signature not in its place")
	}
	response, err := xmldoc.Validate(root, cert, p.issued)
	if err != nil {
		return err
	}
	if err := compareResponse(p, response); err != nil {
		return err
	}
	assertions := xmldoc.ChildrenNamed(response, nsAssertion, "Assertion")
	if p.code != Success {
		if len(assertions) > 0 {
			return errors.New("assertion in an error response")
		}
		return nil
	}
	if len(assertions) != 1 {
		return fmt.Errorf("%d assertions", len(assertions))
	}
	assertion, err := xmldoc.Validate(assertions[0], cert, p.issued)
	if err != nil {
		return err
	}
	return compareAssertion(p, assertion)
}

// difference keeps the first one found.
type difference struct{ err error }

func (d *difference) attr(el *etree.Element, name, want string) {
	if d.err != nil {
		return
	}
	if got, ok := xmldoc.Attribute(el, name); got != want || ok != (want != "") {
		d.err = fmt.Errorf("%s of %s differs from what was prepared", name, el.Tag)
	}
}

func (d *difference) text(el *etree.Element, want string) {
	if d.err != nil {
		return
	}
	if got, err := xmldoc.TextOf(el); err != nil || got != want {
		d.err = fmt.Errorf("%s differs from what was prepared", el.Tag)
	}
}

// at descends along sole children of that namespace.
func (d *difference) at(el *etree.Element, space string, path ...string) *etree.Element {
	for _, name := range path {
		if d.err != nil {
			return el
		}
		next, err := xmldoc.SoleChild(el, space, name)
		if err != nil {
			d.err = err
			return el
		}
		el = next
	}
	return el
}

func compareResponse(p *Prepared, r *etree.Element) error {
	if !xmldoc.Is(r, nsProtocol, "Response") {
		return errors.New("signed element is not the response")
	}
	row, _ := Anomaly(p.code)
	var d difference
	d.attr(r, "ID", p.id)
	d.attr(r, "Destination", p.reply.ACS)
	d.attr(r, "InResponseTo", p.reply.InResponseTo)
	d.attr(r, "IssueInstant", FormatInstant(p.issued))
	d.text(d.at(r, nsAssertion, "Issuer"), p.issuer.entityID)
	top := d.at(r, nsProtocol, "Status", "StatusCode")
	d.attr(top, "Value", row.Status)
	if row.SubStatus != "" {
		d.attr(d.at(top, nsProtocol, "StatusCode"), "Value", row.SubStatus)
	}
	if row.Message != "" {
		d.text(d.at(r, nsProtocol, "Status", "StatusMessage"), row.Message)
	}
	return d.err
}

func compareAssertion(p *Prepared, a *etree.Element) error {
	if !xmldoc.Is(a, nsAssertion, "Assertion") {
		return errors.New("signed element is not the assertion")
	}
	s, end := &p.statement, FormatInstant(p.issued.Add(assertionLife))
	var d difference
	d.attr(a, "ID", p.assertionID)
	d.attr(a, "IssueInstant", FormatInstant(p.issued))
	d.text(d.at(a, nsAssertion, "Issuer"), p.issuer.entityID)
	d.text(d.at(a, nsAssertion, "Subject", "NameID"), p.nameID)
	data := d.at(a, nsAssertion, "Subject", "SubjectConfirmation", "SubjectConfirmationData")
	d.attr(data, "Recipient", p.reply.ACS)
	d.attr(data, "InResponseTo", p.reply.InResponseTo)
	d.attr(data, "NotOnOrAfter", end)
	d.attr(d.at(a, nsAssertion, "Conditions"), "NotOnOrAfter", end)
	d.text(d.at(a, nsAssertion, "Conditions", "AudienceRestriction", "Audience"), p.reply.SP.String())
	statement := d.at(a, nsAssertion, "AuthnStatement")
	d.attr(statement, "AuthnInstant", FormatInstant(s.AuthnInstant))
	d.attr(statement, "SessionIndex", s.SessionIndex)
	d.text(d.at(statement, nsAssertion, "AuthnContext", "AuthnContextClassRef"), s.Level.URI())
	if d.err != nil {
		return d.err
	}
	return compareAttributes(s.Attributes, xmldoc.ChildrenNamed(a, nsAssertion, "AttributeStatement"))
}

func compareAttributes(want []Attribute, statements []*etree.Element) error {
	var got []*etree.Element
	if len(statements) > 0 {
		got = xmldoc.ChildrenNamed(statements[0], nsAssertion, "Attribute")
	}
	if len(statements) > 1 || len(got) != len(want) {
		return errors.New("attributes differ from what was prepared")
	}
	var d difference
	for i, a := range want {
		d.attr(got[i], "Name", a.Name)
		d.text(d.at(got[i], nsAssertion, "AttributeValue"), a.Value)
	}
	return d.err
}
