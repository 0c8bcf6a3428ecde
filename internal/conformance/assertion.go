package conformance

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"custode/internal/conformance/catalogue"
	"custode/internal/conformance/request"
)

// typedDates are the attributes of type xs:date.
var typedDates = []string{"dateOfBirth", "expirationDate"}

const (
	nsXSI    = "http://www.w3.org/2001/XMLSchema-instance"
	nsXSD    = "http://www.w3.org/2001/XMLSchema"
	cmBearer = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
)

// judgeAssertion holds the predicates about an Assertion (SPID technical rules,
// Assertion; what strict service providers refuse).
func (a *Auditor) judgeAssertion(f *findings, m *request.Message, o *observation, want catalogue.Login) {
	root, err := request.Parse(decodeResponse(o))
	if err != nil {
		return // reported already
	}
	n := root.Child(request.NSAssertion, "Assertion")
	if !f.check(n != nil, "no assertion") {
		return
	}
	err = request.Verify(n, m.IDP.Certificates)
	f.check(err == nil, "Assertion: %v", err)
	f.check(n.Get("Version") == "2.0", "Assertion Version %q", n.Get("Version"))
	a.judgeInstant(f, "Assertion", n, m)
	id := n.Get("ID")
	f.check(request.IsNCName(id) && !a.known[id] && id != root.Get("ID"), "Assertion ID %q is malformed or was used before", id)
	a.known[id] = true
	issuer := n.Child(request.NSAssertion, "Issuer")
	f.check(issuer != nil && issuer.Text() == m.IDP.EntityID && issuer.Get("Format") == request.FormatEntity, "Assertion Issuer is not the identity provider of Format entity")
	order := []string{"Issuer", "Signature", "Subject", "Conditions", "AuthnStatement", "AttributeStatement"}
	last := -1
	for _, c := range n.Children("", "") {
		at := slices.Index(order, c.Name)
		f.check(at > last, "%s in the Assertion is out of order or not foreseen", c.Name)
		last = max(last, at)
	}
	a.judgeSubject(f, n, m)
	a.judgeConditions(f, n, m)
	judgeStatement(f, n, want)
	judgeAttributes(f, n, want)
	transforms := 0
	root.Walk(func(x *request.Node) {
		if x.Is(request.NSSignature, "Transform") {
			transforms++
		}
		if len(x.Children("", "")) == 0 {
			f.check(strings.TrimSpace(x.Text()) == x.Text(), "white space around the text of %s", x.Name)
		}
	})
	f.check(transforms <= 4, "%d transforms in the document; strict service providers take four", transforms)
}

func (a *Auditor) judgeSubject(f *findings, n *request.Node, m *request.Message) {
	subject := n.Child(request.NSAssertion, "Subject")
	name := subject.Child(request.NSAssertion, "NameID")
	if f.check(name != nil, "no NameID") {
		f.check(name.Get("Format") == request.FormatTransient && name.Get("NameQualifier") == m.IDP.EntityID, "NameID Format %q, NameQualifier %q", name.Get("Format"), name.Get("NameQualifier"))
		f.check(len(name.Text()) >= 16 && !a.known[name.Text()], "NameID is short or was used before")
		a.known[name.Text()] = true
	}
	confirmation := subject.Child(request.NSAssertion, "SubjectConfirmation")
	f.check(confirmation != nil && confirmation.Get("Method") == cmBearer, "SubjectConfirmation is not one bearer")
	data := confirmation.Child(request.NSAssertion, "SubjectConfirmationData")
	if !f.check(data != nil, "no SubjectConfirmationData") {
		return
	}
	f.check(data.Get("Recipient") == m.ACS[0], "Recipient %q, want %q", data.Get("Recipient"), m.ACS[0])
	f.check(data.Get("InResponseTo") == m.ID, "InResponseTo of the confirmation %q, want %q", data.Get("InResponseTo"), m.ID)
	_, early := data.Attr("NotBefore")
	f.check(!early, "NotBefore in SubjectConfirmationData")
	a.judgeEnd(f, "SubjectConfirmationData", data)
}

// judgeEnd: NotOnOrAfter is in the future, and not by hours.
func (a *Auditor) judgeEnd(f *findings, what string, n *request.Node) {
	t, err := time.Parse(request.InstantLayout, n.Get("NotOnOrAfter"))
	left := t.Sub(a.cfg.Now())
	f.check(err == nil && instantForm.MatchString(n.Get("NotOnOrAfter")) && left > 0 && left <= 15*time.Minute, "%s NotOnOrAfter %q", what, n.Get("NotOnOrAfter"))
}

func (a *Auditor) judgeConditions(f *findings, n *request.Node, m *request.Message) {
	c := n.Child(request.NSAssertion, "Conditions")
	if !f.check(c != nil, "no Conditions") {
		return
	}
	a.judgeEnd(f, "Conditions", c)
	t, err := time.Parse(request.InstantLayout, c.Get("NotBefore"))
	f.check(err == nil && instantForm.MatchString(c.Get("NotBefore")) && !t.After(a.cfg.Now()), "Conditions NotBefore %q", c.Get("NotBefore"))
	audience := c.Child(request.NSAssertion, "AudienceRestriction").Child(request.NSAssertion, "Audience")
	f.check(audience != nil && audience.Text() == m.Entity, "Audience %q, want %q", audience.Text(), m.Entity)
}

func judgeStatement(f *findings, n *request.Node, want catalogue.Login) {
	s := n.Child(request.NSAssertion, "AuthnStatement")
	if !f.check(s != nil, "no AuthnStatement") {
		return
	}
	f.check(instantForm.MatchString(s.Get("AuthnInstant")), "AuthnInstant %q", s.Get("AuthnInstant"))
	_, session := s.Attr("SessionIndex")
	f.check(session == (want.Level == 1), "SessionIndex present: %v, at level %d", session, want.Level)
	class := s.Child(request.NSAssertion, "AuthnContext").Child(request.NSAssertion, "AuthnContextClassRef")
	f.check(class != nil && class.Text() == fmt.Sprintf("%s%d", request.LevelPrefix, want.Level), "AuthnContextClassRef %q at level %d", class.Text(), want.Level)
}

// judgeAttributes: exactly the attributes of the set, each with one value of
// its type.
func judgeAttributes(f *findings, n *request.Node, want catalogue.Login) {
	statements := n.Children(request.NSAssertion, "AttributeStatement")
	if want.Service < 0 {
		f.check(len(statements) == 0, "attributes, although none were asked for")
		return
	}
	if !f.check(len(statements) == 1, "%d AttributeStatements", len(statements)) {
		return
	}
	var names []string
	for _, at := range statements[0].Children(request.NSAssertion, "Attribute") {
		name := at.Get("Name")
		names = append(names, name)
		f.check(at.Get("NameFormat") == request.BasicName, "attribute %s has NameFormat %q", name, at.Get("NameFormat"))
		values := at.Children(request.NSAssertion, "AttributeValue")
		if !f.check(len(values) == 1, "attribute %s has %d values", name, len(values)) {
			continue
		}
		kind := "string"
		if slices.Contains(typedDates, name) && values[0].Text() != "" {
			kind = "date"
		}
		f.check(xsdType(values[0]) == kind, "attribute %s is of type %q, want xs:%s", name, xsdType(values[0]), kind)
		if name == "fiscalNumber" {
			f.check(strings.HasPrefix(values[0].Text(), "TIN"), "fiscalNumber without its country's prefix")
		}
	}
	slices.Sort(names)
	asked := slices.Sorted(slices.Values(request.Services[want.Service]))
	f.check(slices.Equal(names, asked), "attributes %v, want exactly %v", names, asked)
}

// xsdType returns the local name of xsi:type when it is of XML Schema.
func xsdType(n *request.Node) string {
	for _, a := range n.Attrs {
		if a.Space == nsXSI && a.Name == "type" {
			prefix, name, _ := strings.Cut(a.Value, ":")
			if uri, ok := n.Scope(prefix); ok && uri == nsXSD {
				return name
			}
		}
	}
	return ""
}
