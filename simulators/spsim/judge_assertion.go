package spsim

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"
)

// checkAssertion checks the assertion's own attributes, its Issuer and the
// statements it holds. Advice and other statements have no place in SPID.
func (j *judge) checkAssertion() error {
	id, err := checkEnvelopeAttributes("assertion", j.assertion)
	if err != nil {
		return err
	}
	if j.login.AssertionID = id; id == j.login.ResponseID {
		return refuse("assertion.id", "the same as the response's")
	}
	if j.login.AssertionIssued, err = j.checkIssued("assertion", j.assertion); err != nil {
		return err
	}
	want := []string{"Issuer", "Subject", "Conditions", "AuthnStatement"}
	if !j.request.request.NoAttributes {
		want = append(want, "AttributeStatement")
	}
	if got := tags(j.assertion); !slices.Equal(got, want) {
		return refuse("assertion.shape", "holds %s, want %s", strings.Join(got, ", "), strings.Join(want, ", "))
	}
	issuer, err := j.checkIssuer("assertion.issuer", j.assertion)
	if err != nil {
		return err
	}
	return equal("assertion.issuerFormat", attrOf(issuer, "Format"), formatEntity)
}

func (j *judge) checkSubject() error {
	subject, err := only(j.assertion, nsAssertion, "Subject")
	if err != nil {
		return refuse("subject", "%v", err)
	}
	if got := tags(subject); !slices.Equal(got, []string{"NameID", "SubjectConfirmation"}) {
		return refuse("subject", "holds %s", strings.Join(got, ", "))
	}
	name, err := only(subject, nsAssertion, "NameID")
	if err != nil {
		return refuse("nameID", "%v", err)
	}
	if j.login.NameID = name.Text(); j.login.NameID == "" {
		return refuse("nameID", "empty")
	}
	return cmp.Or(
		equal("nameID.format", attrOf(name, "Format"), formatTransient),
		equal("nameID.nameQualifier", attrOf(name, "NameQualifier"), j.idp.EntityID),
		j.checkConfirmation(subject))
}

func (j *judge) checkConfirmation(subject *etree.Element) error {
	data, err := only(subject, nsAssertion, "SubjectConfirmation", "SubjectConfirmationData")
	if err != nil {
		return refuse("subjectConfirmation", "%v", err)
	}
	if _, ok := attr(data, "NotBefore"); ok {
		return refuse("subjectConfirmation.notBefore", "present")
	}
	_, err = j.checkEnd("subjectConfirmation.notOnOrAfter", data)
	return cmp.Or(
		equal("subjectConfirmation.method", attrOf(data.Parent(), "Method"), "urn:oasis:names:tc:SAML:2.0:cm:bearer"),
		equal("subjectConfirmation.recipient", attrOf(data, "Recipient"), attrOf(j.response, "Destination")),
		equal("subjectConfirmation.inResponseTo", attrOf(data, "InResponseTo"), j.login.InResponseTo),
		err)
}

// checkEnd reads NotOnOrAfter and wants it after now.
func (j *judge) checkEnd(check string, el *etree.Element) (time.Time, error) {
	end, err := instant(check, attrOf(el, "NotOnOrAfter"))
	if err != nil {
		return time.Time{}, err
	}
	if !j.now.Before(end.Add(j.sp.cfg.Skew)) {
		return time.Time{}, refuse(check, "%s has passed", end.Format(instantLayout))
	}
	return end, nil
}

func (j *judge) checkConditions() error {
	conditions, err := only(j.assertion, nsAssertion, "Conditions")
	if err != nil {
		return refuse("conditions", "%v", err)
	}
	begin, err := instant("conditions.notBefore", attrOf(conditions, "NotBefore"))
	if err != nil {
		return err
	}
	if begin.After(j.now.Add(j.sp.cfg.Skew)) {
		return refuse("conditions.notBefore", "%s is in the future", begin.Format(instantLayout))
	}
	if begin.After(j.login.ResponseIssued) {
		return refuse("conditions.notBefore", "after the response's IssueInstant")
	}
	if j.login.NotOnOrAfter, err = j.checkEnd("conditions.notOnOrAfter", conditions); err != nil {
		return err
	}
	if got := tags(conditions); !slices.Equal(got, []string{"AudienceRestriction"}) {
		return refuse("conditions.audience", "Conditions holds %s", strings.Join(got, ", "))
	}
	audience, err := only(conditions, nsAssertion, "AudienceRestriction", "Audience")
	if err != nil {
		return refuse("conditions.audience", "%v", err)
	}
	return equal("conditions.audience", audience.Text(), j.sp.cfg.EntityID)
}

func (j *judge) checkAuthn() error {
	statement, err := only(j.assertion, nsAssertion, "AuthnStatement")
	if err != nil {
		return refuse("authnStatement", "%v", err)
	}
	if err := j.checkAuthnInstant(statement); err != nil {
		return err
	}
	request := j.request.request
	session, present := attr(statement, "SessionIndex")
	switch {
	case request.Level > 1 && present:
		return refuse("authnStatement.sessionIndex", "present although level %d was requested", request.Level)
	case request.Level == 1 && request.Comparison != "better" && session == "":
		return refuse("authnStatement.sessionIndex", "missing although level 1 was requested")
	}
	j.login.SessionIndex = session
	context, err := only(statement, nsAssertion, "AuthnContext")
	if err != nil {
		return refuse("authnContext", "%v", err)
	}
	if got := tags(context); !slices.Equal(got, []string{"AuthnContextClassRef"}) {
		return refuse("authnContext", "holds %s", strings.Join(got, ", "))
	}
	class, err := only(context, nsAssertion, "AuthnContextClassRef")
	if err != nil {
		return refuse("authnContext", "%v", err)
	}
	digit, found := strings.CutPrefix(class.Text(), levelPrefix)
	if !found || len(digit) != 1 || digit[0] < '1' || digit[0] > '3' {
		return refuse("authnContext.level", "%q is no SPID level", class.Text())
	}
	j.login.Level = int(digit[0] - '0')
	if !satisfies(request.Comparison, request.Level, j.login.Level) {
		return refuse("authnContext.level", "level %d does not satisfy %s %d", j.login.Level, request.Comparison, request.Level)
	}
	return nil
}

// checkAuthnInstant: a level 2 or 3 request, and any with ForceAuthn, is
// answered by an authentication that happened after it was made (art. 28 of
// the implementing regulation: such requests never use a session).
func (j *judge) checkAuthnInstant(statement *etree.Element) error {
	const check = "authnStatement.authnInstant"
	at, err := instant(check, attrOf(statement, "AuthnInstant"))
	if err != nil {
		return err
	}
	if at.After(j.now.Add(j.sp.cfg.Skew)) {
		return refuse(check, "in the future")
	}
	if j.request.request.fresh() && at.Before(j.request.issued.Add(-j.sp.cfg.Skew)) {
		return refuse(check, "%s is before the request, which wants a new authentication", at.Format(instantLayout))
	}
	j.login.AuthnInstant = at
	return nil
}

// fresh reports whether the request forbids answering from a session.
func (r Request) fresh() bool {
	return r.Level > 1 || r.ForceAuthn == "true" || r.ForceAuthn == "1"
}

// satisfies applies Comparison with the SPID rider that an IdP may always
// authenticate at a higher level than asked: a higher level never refuses an
// exact, and nothing refuses a maximum.
func satisfies(comparison string, asked, performed int) bool {
	switch comparison {
	case "better":
		return performed > asked
	case "maximum":
		return true
	default:
		return performed >= asked
	}
}

// checkAttributes wants the requested set, one to one, each with one value of
// the form the attribute table gives; an attribute without a value is sent as
// an empty xs:string.
func (j *judge) checkAttributes() error {
	j.login.Attributes = map[string]string{}
	request := j.request.request
	if request.NoAttributes {
		return nil
	}
	statement, err := only(j.assertion, nsAssertion, "AttributeStatement")
	if err != nil {
		return refuse("attributes", "%v", err)
	}
	for _, el := range statement.ChildElements() {
		if !is(el, nsAssertion, "Attribute") {
			return refuse("attributes", "AttributeStatement holds %s", el.Tag)
		}
		if err := j.readAttribute(el); err != nil {
			return err
		}
	}
	want := slices.Sorted(slices.Values(j.sp.cfg.AttributeSets[request.Service]))
	if got := slices.Sorted(slices.Values(j.login.AttributeNames)); !slices.Equal(got, want) {
		return refuse("attributes", "got %s, want %s", strings.Join(got, " "), strings.Join(want, " "))
	}
	return nil
}

func (j *judge) readAttribute(el *etree.Element) error {
	name := attrOf(el, "Name")
	if _, twice := j.login.Attributes[name]; twice || name == "" {
		return refuse("attributes", "attribute %q is nameless or comes twice", name)
	}
	if f := attrOf(el, "NameFormat"); f != "urn:oasis:names:tc:SAML:2.0:attrname-format:basic" {
		return refuse("attribute.nameFormat", "%s: %q, want basic", name, f)
	}
	value, err := only(el, nsAssertion, "AttributeValue")
	if err != nil || len(el.ChildElements()) != 1 || len(value.ChildElements()) != 0 {
		return refuse("attribute.value", "%s: want exactly one textual value", name)
	}
	text := value.Text()
	if err := checkValue(attributeNamed(name), value, text); err != nil {
		return err
	}
	j.login.Attributes[name] = text
	j.login.AttributeNames = append(j.login.AttributeNames, name)
	return nil
}

func checkValue(a attribute, value *etree.Element, text string) error {
	kind, typed := xsiType(value)
	_, local, _ := strings.Cut(kind, ":")
	if text == "" {
		if typed && local != "string" {
			return refuse("attribute.type", "%s: an empty value of type %s", a.name, local)
		}
		return nil
	}
	want := "string"
	if a.isDate {
		want = "date"
	}
	if local != want {
		return refuse("attribute.type", "%s: type %q, want xs:%s", a.name, kind, want)
	}
	if !a.accepts(text) {
		return refuse("attribute.value", "%s does not have the form of the attribute table", a.name)
	}
	return nil
}

// checkNovelty refuses identifiers seen before: IDs are unique, and the
// transient NameID is drawn for each assertion.
func (j *judge) checkNovelty() error {
	for check, key := range map[string]string{
		"response.id": j.login.ResponseID, "assertion.id": j.login.AssertionID, "nameID": j.login.NameID,
	} {
		if !j.sp.requests.first(check + " " + key) {
			return refuse(check, "%q was used in an earlier response", key)
		}
	}
	return nil
}
