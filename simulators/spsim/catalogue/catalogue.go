// Package catalogue is the federation's list of test responses turned round: for each
// range of its numbered cases (111 of them, signature wrapping shapes 1 to 8, external
// entities) the predicate that a response must satisfy so as to be none of the bad
// ones. It audits what an identity provider really sent; a service provider
// (simulators/spsim) only wants to know whether to let somebody in.
//
// Where the list has several cases for what one predicate finds (missing, empty,
// malformed) they are one range. Below the simulators' seam: no code of the product.
package catalogue

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/beevik/etree"

	"custode/simulators/spsim"
)

// Case is a rule of the catalogue.
type Case struct {
	Cases string // for example "11-15"; "-" for a rule that the list does not have
	Rule  string
	Of    Outcome
	holds func(*evidence) error
}

// Outcome says which responses a rule is about.
type Outcome int

// The outcomes.
const (
	Any     Outcome = iota
	Success         // responses with status Success
	Failure         // responses that report an anomaly
)

// Finding is a rule and how a response fared: Err is nil when it holds.
type Finding struct {
	Case
	Err error
}

// Catalogue returns every rule, in the order of the list.
func Catalogue() []Case { return slices.Clone(catalogue) }

// Audit holds a response against every applicable rule, without stopping at the
// first.
func Audit(received *spsim.Evidence) []Finding {
	e := &evidence{received}
	success := e.success()
	var all []Finding
	for _, c := range catalogue {
		if c.Of == Any || success == (c.Of == Success) {
			all = append(all, Finding{c, c.holds(e)})
		}
	}
	return all
}

type evidence struct{ *spsim.Evidence }

func (e *evidence) success() bool {
	code, err := only(e.Root, nsProtocol, "Status", "StatusCode")
	return err == nil && attrOf(code, "Value") == statusPrefix+"Success"
}

// catalogue follows the list.
var catalogue = []Case{
	{"1", "one Response is the root", Any, (*evidence).isResponse},
	{"2", "the Response is signed: one reference, enveloped, exclusive C14N, RSA with SHA-256 or stronger", Any, (*evidence).responseSigned},
	{"3", "the Assertion is signed likewise", Success, (*evidence).assertionSigned},
	{"4-5", "the Response's signer is in the metadata", Any, (*evidence).responseSigner},
	{"100", "the Assertion's signer is in the metadata", Success, (*evidence).assertionSigner},
	{"8-9", "Response/@ID is an NCName", Any, onResponse(identified)},
	{"10", "Response/@Version is 2.0", Any, onResponse(version)},
	{"11-13", "Response/@IssueInstant is UTC", Any, onResponse(dated)},
	{"14", "Response/@IssueInstant is not before the request's", Any, (*evidence).responseAfterRequest},
	{"15", "Response/@IssueInstant is not after receipt", Any, onResponse(notAhead)},
	{"16-18", "Response/@InResponseTo is the request's ID", Any, (*evidence).answers},
	{"19-21", "Response/@Destination is the chosen ACS (the default one for nr16)", Any, (*evidence).destination},
	{"22-25", "Status is Success alone, or a pair of the anomaly table with its message", Any, (*evidence).statusPair},
	{"27-30", "Response/Issuer is the identity provider", Any, onResponse(issuer)},
	{"31", "Response/Issuer/@Format is absent or entity", Any, (*evidence).issuerFormat},
	{"32", "a success has one Assertion", Success, (*evidence).oneAssertion},
	{"-", "an anomaly has no Assertion", Failure, (*evidence).noAssertion},
	{"33-34", "Assertion/@ID is an NCName, another than the Response's", Success, (*evidence).assertionID},
	{"35", "Assertion/@Version is 2.0", Success, onAssertion(version)},
	{"36-38", "Assertion/@IssueInstant is UTC", Success, onAssertion(dated)},
	{"39", "Assertion/@IssueInstant is not before the request's", Success, (*evidence).assertionAfterRequest},
	{"40", "Assertion/@IssueInstant is not after receipt", Success, onAssertion(notAhead)},
	{"41-43", "Subject has one NameID, which is not empty", Success, (*evidence).nameID},
	{"44-46", "NameID/@Format is transient", Success, at(attribute2{"Format", formatTransient}, "Subject", "NameID")},
	{"47-49", "NameID/@NameQualifier is the identity provider", Success, (*evidence).nameQualifier},
	{"51-55", "Subject has one SubjectConfirmation, Method bearer", Success, at(attribute2{"Method", "urn:oasis:names:tc:SAML:2.0:cm:bearer"}, "Subject", "SubjectConfirmation")},
	{"56", "SubjectConfirmation has one SubjectConfirmationData, without NotBefore", Success, (*evidence).confirmationData},
	{"57-59", "SubjectConfirmationData/@Recipient is the ACS", Success, (*evidence).recipient},
	{"60-62", "SubjectConfirmationData/@InResponseTo is the request's ID", Success, (*evidence).confirmationAnswers},
	{"63-66", "SubjectConfirmationData/@NotOnOrAfter is UTC and ahead", Success, ahead("Subject", "SubjectConfirmation", "SubjectConfirmationData")},
	{"67-69", "Assertion/Issuer is the identity provider", Success, onAssertion(issuer)},
	{"70-72", "Assertion/Issuer/@Format is entity", Success, at(attribute2{"Format", formatEntity}, "Issuer")},
	{"73-74", "one Conditions", Success, (*evidence).conditions},
	{"75-78", "Conditions/@NotBefore is UTC, not ahead and not after the Response", Success, (*evidence).notBefore},
	{"79-82", "Conditions/@NotOnOrAfter is UTC and ahead", Success, ahead("Conditions")},
	{"83-87", "Conditions has one AudienceRestriction with one Audience: this service provider", Success, (*evidence).audience},
	{"88-90", "one AuthnStatement, AuthnInstant UTC and not ahead", Success, (*evidence).authnInstant},
	{"91-93", "AuthnStatement has one AuthnContext with one AuthnContextClassRef", Success, (*evidence).classReference},
	{"94-96", "the level performed satisfies the request", Success, (*evidence).level},
	{"97", "the level is no withdrawn URN", Success, (*evidence).levelURI},
	{"98-99", "AttributeStatement, if any, has an Attribute", Success, (*evidence).attributesNotEmpty},
	{"103", "the attributes are those of the requested service, one to one", Success, (*evidence).attributeSet},
	{"104-108", "nr19 to nr23 with Responder and AuthnFailed", Failure, (*evidence).userAnomaly},
	{"111", "nr25 with Responder and AuthnFailed", Failure, (*evidence).userAnomaly},
	{"109-110", "every instant has three fractional digits", Any, (*evidence).milliseconds},
	{"XSW 1-8", "one Response, one Assertion as its child, each signature after its Issuer, none elsewhere, identifiers unique", Any, (*evidence).unwrapped},
	{"-", "SessionIndex for level 1 requests, and for no others", Success, (*evidence).sessionIndex},
	{"-", "no Advice, no encryption, statements in the schema's order", Success, (*evidence).shape},
	{"-", "each attribute has one value of its type and form", Success, (*evidence).attributeValues},
	{"-", "no blanks around values, every xsi:type prefix declared", Any, (*evidence).text},
	{"-", "at most four Transform elements", Any, (*evidence).transforms},
	{"-", "RelayState is what was sent", Any, (*evidence).relay},
}

// assertion returns the one Assertion.
func (e *evidence) assertion() (*etree.Element, error) { return only(e.Root, nsAssertion, "Assertion") }

func onResponse(f func(*evidence, *etree.Element) error) func(*evidence) error {
	return func(e *evidence) error { return f(e, e.Root) }
}

func onAssertion(f func(*evidence, *etree.Element) error) func(*evidence) error {
	return func(e *evidence) error {
		el, err := e.assertion()
		if err != nil {
			return err
		}
		return f(e, el)
	}
}

// attribute2 is an attribute and its only value.
type attribute2 struct{ name, want string }

// find descends from the Assertion.
func (e *evidence) find(path ...string) (*etree.Element, error) {
	return only(e.Root, nsAssertion, append([]string{"Assertion"}, path...)...)
}

func at(a attribute2, path ...string) func(*evidence) error {
	return func(e *evidence) error {
		el, err := e.find(path...)
		if err != nil {
			return err
		}
		return equal(el.Tag+"/@"+a.name, attrOf(el, a.name), a.want)
	}
}

func ahead(path ...string) func(*evidence) error {
	return func(e *evidence) error {
		el, err := e.find(path...)
		if err != nil {
			return err
		}
		end, err := instant(el.Tag, attrOf(el, "NotOnOrAfter"))
		if err == nil && !e.Now.Before(end.Add(e.Skew)) {
			return errors.New("NotOnOrAfter has passed")
		}
		return err
	}
}

func identified(_ *evidence, el *etree.Element) error {
	if id := attrOf(el, "ID"); !ncName.MatchString(id) {
		return fmt.Errorf("%q is no NCName", id)
	}
	return nil
}

func version(_ *evidence, el *etree.Element) error {
	return equal("version", attrOf(el, "Version"), "2.0")
}

func dated(_ *evidence, el *etree.Element) error {
	_, err := time.Parse("2006-01-02T15:04:05Z", attrOf(el, "IssueInstant")) // with any fraction
	return err
}

func notAhead(e *evidence, el *etree.Element) error {
	issued, err := time.Parse(time.RFC3339, attrOf(el, "IssueInstant"))
	if err == nil && issued.After(e.Now.Add(e.Skew)) {
		return fmt.Errorf("%s is after %s", issued, e.Now)
	}
	return err
}

func (e *evidence) afterRequest(el *etree.Element) error {
	issued, err := time.Parse(time.RFC3339, attrOf(el, "IssueInstant"))
	if err == nil && issued.Before(e.Issued.Add(-e.Skew)) {
		return fmt.Errorf("%s is before the request's %s", issued, e.Issued)
	}
	return err
}

func issuer(e *evidence, el *etree.Element) error {
	found, err := only(el, nsAssertion, "Issuer")
	if err != nil {
		return err
	}
	return equal("Issuer", found.Text(), e.IdP.EntityID)
}
