package catalogue

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"
)

func (e *evidence) isResponse() error {
	if !is(e.Root, nsProtocol, "Response") {
		return fmt.Errorf("the root is %s", e.Root.FullTag())
	}
	return nil
}

func (e *evidence) responseSigned() error { return e.Signed(e.Root, true) }
func (e *evidence) responseSigner() error { return e.Signed(e.Root, false) }

func (e *evidence) assertionSigned() error {
	return onAssertion(func(e *evidence, el *etree.Element) error { return e.Signed(el, true) })(e)
}

func (e *evidence) assertionSigner() error {
	return onAssertion(func(e *evidence, el *etree.Element) error { return e.Signed(el, false) })(e)
}

func (e *evidence) responseAfterRequest() error { return e.afterRequest(e.Root) }

func (e *evidence) assertionAfterRequest() error {
	return onAssertion((*evidence).afterRequest)(e)
}

func (e *evidence) answers() error {
	return equal("InResponseTo", attrOf(e.Root, "InResponseTo"), e.RequestID)
}

func (e *evidence) anomaly() int {
	message, err := only(e.Root, nsProtocol, "Status", "StatusMessage")
	if err != nil {
		return 0
	}
	var n int
	if _, err := fmt.Sscanf(message.Text(), "ErrorCode nr%02d", &n); err != nil {
		return 0
	}
	return n
}

func (e *evidence) destination() error {
	want := e.DefaultACS()
	if e.RequestID != "" && e.anomaly() != 16 {
		want = e.ACS()
	}
	return equal("Destination", attrOf(e.Root, "Destination"), want)
}

func (e *evidence) statusPair() error { return e.Status() }

func (e *evidence) issuerFormat() error {
	el, err := only(e.Root, nsAssertion, "Issuer")
	if err != nil {
		return err
	}
	if f, ok := attr(el, "Format"); ok {
		return equal("Format", f, formatEntity)
	}
	return nil
}

func (e *evidence) oneAssertion() error {
	_, err := e.assertion()
	return err
}

func (e *evidence) noAssertion() error {
	if n := count(e.Root, nsAssertion, "Assertion") + count(e.Root, nsAssertion, "EncryptedAssertion"); n != 0 {
		return fmt.Errorf("%d assertions", n)
	}
	return nil
}

func (e *evidence) assertionID() error {
	el, err := e.assertion()
	if err != nil {
		return err
	}
	if attrOf(el, "ID") == attrOf(e.Root, "ID") {
		return errors.New("the Response's")
	}
	return identified(e, el)
}

func (e *evidence) nameID() error {
	el, err := e.find("Subject", "NameID")
	if err == nil && el.Text() == "" {
		return errors.New("empty")
	}
	return err
}

func (e *evidence) nameQualifier() error {
	return at(attribute2{"NameQualifier", e.IdP.EntityID}, "Subject", "NameID")(e)
}

func (e *evidence) confirmationData() error {
	el, err := e.find("Subject", "SubjectConfirmation", "SubjectConfirmationData")
	if err != nil {
		return err
	}
	if _, ok := attr(el, "NotBefore"); ok {
		return errors.New("NotBefore")
	}
	return nil
}

func (e *evidence) recipient() error {
	return at(attribute2{"Recipient", e.ACS()}, "Subject", "SubjectConfirmation", "SubjectConfirmationData")(e)
}

func (e *evidence) confirmationAnswers() error {
	return at(attribute2{"InResponseTo", e.RequestID}, "Subject", "SubjectConfirmation", "SubjectConfirmationData")(e)
}

func (e *evidence) conditions() error {
	_, err := e.find("Conditions")
	return err
}

func (e *evidence) notBefore() error {
	el, err := e.find("Conditions")
	if err != nil {
		return err
	}
	begin, err := instant("NotBefore", attrOf(el, "NotBefore"))
	if err != nil {
		return err
	}
	if begin.After(e.Now.Add(e.Skew)) {
		return errors.New("ahead")
	}
	if issued, err := time.Parse(time.RFC3339, attrOf(e.Root, "IssueInstant")); err == nil && begin.After(issued) {
		return errors.New("after the Response's IssueInstant")
	}
	return nil
}

func (e *evidence) audience() error {
	el, err := e.find("Conditions", "AudienceRestriction", "Audience")
	if err != nil {
		return err
	}
	return equal("Audience", el.Text(), e.EntityID())
}

func (e *evidence) authnInstant() error {
	el, err := e.find("AuthnStatement")
	if err != nil {
		return err
	}
	return e.AuthnInstant(el)
}

func (e *evidence) classReference() error {
	el, err := e.find("AuthnStatement", "AuthnContext", "AuthnContextClassRef")
	if err == nil && el.Text() == "" {
		return errors.New("empty")
	}
	return err
}

// performed returns the level of the class reference, 0 for none.
func (e *evidence) performed() int {
	el, err := e.find("AuthnStatement", "AuthnContext", "AuthnContextClassRef")
	if err != nil {
		return 0
	}
	return slices.Index([]string{"", levelPrefix + "1", levelPrefix + "2", levelPrefix + "3"}, el.Text())
}

func (e *evidence) level() error {
	if n := e.performed(); n > 0 && !e.Satisfies(n) {
		return fmt.Errorf("level %d for %s %d", n, e.Request.Comparison, e.Request.Level)
	}
	return nil
}

func (e *evidence) levelURI() error {
	if e.performed() < 1 {
		return errors.New("not one of the three level URIs")
	}
	return nil
}

// attributes returns the Attribute elements; none when there is no statement.
func (e *evidence) attributes() []*etree.Element {
	el, err := e.find("AttributeStatement")
	if err != nil {
		return nil
	}
	return children(el, nsAssertion, "Attribute")
}

func (e *evidence) attributesNotEmpty() error {
	if _, err := e.find("AttributeStatement"); err == nil && len(e.attributes()) == 0 {
		return errors.New("no Attribute")
	}
	return nil
}

func (e *evidence) attributeSet() error {
	want := slices.Sorted(slices.Values(e.Wanted()))
	var got []string
	for _, el := range e.attributes() {
		got = append(got, attrOf(el, "Name"))
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		return fmt.Errorf("got %q, want %q", got, want)
	}
	return nil
}

func (e *evidence) userAnomaly() error {
	n := e.anomaly()
	if n < 19 || n > 25 {
		return nil
	}
	return e.Status()
}

// milliseconds looks at every attribute that is an instant.
func (e *evidence) milliseconds() error {
	var walk func(el *etree.Element) error
	walk = func(el *etree.Element) error {
		for _, a := range el.Attr {
			if slices.Contains([]string{"IssueInstant", "AuthnInstant", "NotBefore", "NotOnOrAfter", "SessionNotOnOrAfter"}, a.Key) {
				if _, err := instant(el.Tag+"/@"+a.Key, a.Value); err != nil {
					return err
				}
			}
		}
		for _, c := range el.ChildElements() {
			if err := walk(c); err != nil {
				return err
			}
		}
		return nil
	}
	return walk(e.Root)
}

// unwrapped also needs what Audit checked when it read the document: identifiers
// are unique, and there is no comment, entity or second root.
func (e *evidence) unwrapped() error {
	assertions := count(e.Root, nsAssertion, "Assertion")
	if n := count(e.Root, nsProtocol, "Response"); n != 1 || assertions > 1 || len(children(e.Root, nsAssertion, "Assertion")) != assertions {
		return fmt.Errorf("%d Response, %d Assertion elements", n, assertions)
	}
	if n := count(e.Root, nsSignature, "Signature"); n != 1+assertions {
		return fmt.Errorf("%d signatures", n)
	}
	for _, el := range append([]*etree.Element{e.Root}, children(e.Root, nsAssertion, "Assertion")...) {
		if got := tags(el); len(got) < 2 || got[0] != "Issuer" || got[1] != "Signature" {
			return fmt.Errorf("the signature of %s does not follow its Issuer", el.Tag)
		}
	}
	return nil
}

func (e *evidence) sessionIndex() error {
	el, err := e.find("AuthnStatement")
	if err != nil {
		return err
	}
	if _, has := attr(el, "SessionIndex"); has != (e.Request.Level == 1) || has && attrOf(el, "SessionIndex") == "" {
		return fmt.Errorf("SessionIndex %q for a level %d request", attrOf(el, "SessionIndex"), e.Request.Level)
	}
	return nil
}

func (e *evidence) shape() error {
	el, err := e.assertion()
	if err != nil {
		return err
	}
	want := "Issuer Signature Subject Conditions AuthnStatement"
	if len(e.attributes()) > 0 || !e.Request.NoAttributes {
		want += " AttributeStatement"
	}
	if got := strings.Join(tags(el), " "); got != want {
		return fmt.Errorf("the Assertion holds %s", got)
	}
	if got := strings.Join(tags(e.Root), " "); got != "Issuer Signature Status Assertion" {
		return fmt.Errorf("the Response holds %s", got)
	}
	return nil
}

func (e *evidence) attributeValues() error { return e.Attributes(e.attributes()) }

func (e *evidence) text() error { return e.Text() }

func (e *evidence) transforms() error {
	if n := count(e.Root, nsSignature, "Transform"); n > 4 {
		return fmt.Errorf("%d", n)
	}
	return nil
}

func (e *evidence) relay() error {
	if e.RequestID == "" {
		return nil
	}
	return equal("RelayState", e.RelayState, e.Sent)
}
