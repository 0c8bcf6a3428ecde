package saml

import (
	"errors"
	"fmt"
	"slices"

	"github.com/beevik/etree"

	"custode/authcore/saml/xmldoc"
)

// contents are the elements whose content only the schema rules (SAML Core 3.4.1.1,
// 2.5.1, 3.4.1.2): their attributes, and their children, which are of their own
// namespace. None of them has text. Extensions is conformExtensions', Subject is
// conformSubject's, RequestedAuthnContext has its own anomaly.
var contents = [...]struct {
	space, name          string
	attributes, children []string
}{
	{nsProtocol, "NameIDPolicy", []string{"Format", "SPNameQualifier", "AllowCreate"}, nil},
	{nsAssertion, "Conditions", []string{"NotBefore", "NotOnOrAfter"}, []string{"Condition", "AudienceRestriction", "OneTimeUse", "ProxyRestriction"}},
	{nsProtocol, "Scoping", []string{"ProxyCount"}, []string{"IDPList", "RequesterID"}},
}

// conformExtensions: anything may be in it (SAML Core 3.2.1), but not nothing.
func conformExtensions(a *arrival) error {
	for _, el := range xmldoc.ChildrenNamed(a.root, nsProtocol, "Extensions") {
		if err := plainContent(el); err != nil {
			return err
		}
		if len(el.ChildElements()) == 0 {
			return errors.New("empty Extensions")
		}
	}
	return nil
}

// conformContents refuses what no schema knows inside those elements.
func conformContents(a *arrival) error {
	for _, c := range contents {
		for _, el := range xmldoc.ChildrenNamed(a.root, c.space, c.name) {
			if err := plainContent(el, c.attributes...); err != nil {
				return err
			}
			for _, child := range el.ChildElements() {
				if child.NamespaceURI() != c.space || !slices.Contains(c.children, child.Tag) {
					return fmt.Errorf("unknown element in %s", c.name)
				}
			}
		}
	}
	return nil
}

// plainContent admits elements without text around them, and these attributes.
func plainContent(el *etree.Element, attributes ...string) error {
	if err := xmldoc.OnlyElements(el); err != nil {
		return err
	}
	return knownAttributes(el, attributes...)
}
