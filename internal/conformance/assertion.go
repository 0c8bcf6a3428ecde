package conformance

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// login is what a success has to assert.
type login struct {
	level   int
	service int // index of the attribute set; -1: none was asked for
}

// typedDates are the attributes of type xs:date.
var typedDates = []string{"dateOfBirth", "expirationDate"}

const (
	nsXSI    = "http://www.w3.org/2001/XMLSchema-instance"
	nsXSD    = "http://www.w3.org/2001/XMLSchema"
	cmBearer = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
)

// judgeAssertion holds the predicates about an Assertion (SPID technical rules,
// Assertion; what strict service providers refuse).
func (a *Auditor) judgeAssertion(f *findings, m *message, o *observation, want login) {
	root, err := parseXML(decodeResponse(o))
	if err != nil {
		return // reported already
	}
	n := root.child(nsAssertion, "Assertion")
	if !f.check(n != nil, "no assertion") {
		return
	}
	err = verifyEnveloped(n, m.idp.certificates)
	f.check(err == nil, "Assertion: %v", err)
	f.check(n.get("Version") == "2.0", "Assertion Version %q", n.get("Version"))
	a.judgeInstant(f, "Assertion", n, m)
	id := n.get("ID")
	f.check(isNCName(id) && !a.known[id] && id != root.get("ID"), "Assertion ID %q is malformed or was used before", id)
	a.known[id] = true
	issuer := n.child(nsAssertion, "Issuer")
	f.check(issuer != nil && issuer.text() == m.idp.entityID && issuer.get("Format") == formatEntity, "Assertion Issuer is not the identity provider of Format entity")
	order := []string{"Issuer", "Signature", "Subject", "Conditions", "AuthnStatement", "AttributeStatement"}
	last := -1
	for _, c := range n.children("", "") {
		at := slices.Index(order, c.name)
		f.check(at > last, "%s in the Assertion is out of order or not foreseen", c.name)
		last = max(last, at)
	}
	a.judgeSubject(f, n, m)
	a.judgeConditions(f, n, m)
	judgeStatement(f, n, want)
	judgeAttributes(f, n, want)
	transforms := 0
	root.walk(func(x *node) {
		if x.is(nsDS, "Transform") {
			transforms++
		}
		if len(x.children("", "")) == 0 {
			f.check(strings.TrimSpace(x.text()) == x.text(), "white space around the text of %s", x.name)
		}
	})
	f.check(transforms <= 4, "%d transforms in the document; strict service providers take four", transforms)
}

func (a *Auditor) judgeSubject(f *findings, n *node, m *message) {
	subject := n.child(nsAssertion, "Subject")
	name := subject.child(nsAssertion, "NameID")
	if f.check(name != nil, "no NameID") {
		f.check(name.get("Format") == formatTransient && name.get("NameQualifier") == m.idp.entityID, "NameID Format %q, NameQualifier %q", name.get("Format"), name.get("NameQualifier"))
		f.check(len(name.text()) >= 16 && !a.known[name.text()], "NameID is short or was used before")
		a.known[name.text()] = true
	}
	confirmation := subject.child(nsAssertion, "SubjectConfirmation")
	f.check(confirmation != nil && confirmation.get("Method") == cmBearer, "SubjectConfirmation is not one bearer")
	data := confirmation.child(nsAssertion, "SubjectConfirmationData")
	if !f.check(data != nil, "no SubjectConfirmationData") {
		return
	}
	f.check(data.get("Recipient") == m.acs[0], "Recipient %q, want %q", data.get("Recipient"), m.acs[0])
	f.check(data.get("InResponseTo") == m.id, "InResponseTo of the confirmation %q, want %q", data.get("InResponseTo"), m.id)
	_, early := data.attr("NotBefore")
	f.check(!early, "NotBefore in SubjectConfirmationData")
	a.judgeEnd(f, "SubjectConfirmationData", data)
}

// judgeEnd: NotOnOrAfter is in the future, and not by hours.
func (a *Auditor) judgeEnd(f *findings, what string, n *node) {
	t, err := time.Parse(instantLayout, n.get("NotOnOrAfter"))
	left := t.Sub(a.cfg.Now())
	f.check(err == nil && instantForm.MatchString(n.get("NotOnOrAfter")) && left > 0 && left <= 15*time.Minute, "%s NotOnOrAfter %q", what, n.get("NotOnOrAfter"))
}

func (a *Auditor) judgeConditions(f *findings, n *node, m *message) {
	c := n.child(nsAssertion, "Conditions")
	if !f.check(c != nil, "no Conditions") {
		return
	}
	a.judgeEnd(f, "Conditions", c)
	t, err := time.Parse(instantLayout, c.get("NotBefore"))
	f.check(err == nil && instantForm.MatchString(c.get("NotBefore")) && !t.After(a.cfg.Now()), "Conditions NotBefore %q", c.get("NotBefore"))
	audience := c.child(nsAssertion, "AudienceRestriction").child(nsAssertion, "Audience")
	f.check(audience != nil && audience.text() == m.entity, "Audience %q, want %q", audience.text(), m.entity)
}

func judgeStatement(f *findings, n *node, want login) {
	s := n.child(nsAssertion, "AuthnStatement")
	if !f.check(s != nil, "no AuthnStatement") {
		return
	}
	f.check(instantForm.MatchString(s.get("AuthnInstant")), "AuthnInstant %q", s.get("AuthnInstant"))
	_, session := s.attr("SessionIndex")
	f.check(session == (want.level == 1), "SessionIndex present: %v, at level %d", session, want.level)
	class := s.child(nsAssertion, "AuthnContext").child(nsAssertion, "AuthnContextClassRef")
	f.check(class != nil && class.text() == fmt.Sprintf("%s%d", levelPrefix, want.level), "AuthnContextClassRef %q at level %d", class.text(), want.level)
}

// judgeAttributes: exactly the attributes of the set, each with one value of
// its type.
func judgeAttributes(f *findings, n *node, want login) {
	statements := n.children(nsAssertion, "AttributeStatement")
	if want.service < 0 {
		f.check(len(statements) == 0, "attributes, although none were asked for")
		return
	}
	if !f.check(len(statements) == 1, "%d AttributeStatements", len(statements)) {
		return
	}
	var names []string
	for _, at := range statements[0].children(nsAssertion, "Attribute") {
		name := at.get("Name")
		names = append(names, name)
		f.check(at.get("NameFormat") == basicName, "attribute %s has NameFormat %q", name, at.get("NameFormat"))
		values := at.children(nsAssertion, "AttributeValue")
		if !f.check(len(values) == 1, "attribute %s has %d values", name, len(values)) {
			continue
		}
		kind := "string"
		if slices.Contains(typedDates, name) && values[0].text() != "" {
			kind = "date"
		}
		f.check(xsdType(values[0]) == kind, "attribute %s is of type %q, want xs:%s", name, xsdType(values[0]), kind)
		if name == "fiscalNumber" {
			f.check(strings.HasPrefix(values[0].text(), "TIN"), "fiscalNumber without its country's prefix")
		}
	}
	slices.Sort(names)
	asked := slices.Sorted(slices.Values(services[want.service]))
	f.check(slices.Equal(names, asked), "attributes %v, want exactly %v", names, asked)
}

// xsdType returns the local name of xsi:type when it is of XML Schema.
func xsdType(n *node) string {
	for _, a := range n.attrs {
		if a.space == nsXSI && a.name == "type" {
			prefix, name, _ := strings.Cut(a.value, ":")
			if uri, ok := n.scope(prefix); ok && uri == nsXSD {
				return name
			}
		}
	}
	return ""
}
