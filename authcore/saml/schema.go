package saml

import (
	"fmt"

	"github.com/beevik/etree"

	"custode/authcore/saml/xmldoc"
)

// contents are the optional elements whose content only the schema rules (SAML
// Core 3.4.1, 3.4.1.1, 2.5.1, 3.4.1.2): their attributes, and whether they may
// be without children. None of them has text. Subject is conformSubject's,
// RequestedAuthnContext has its own anomaly.
var contents = [...]struct {
	space, name string
	attributes  []string
	filled      bool
}{
	{nsProtocol, "Extensions", nil, true},
	{nsProtocol, "NameIDPolicy", []string{"Format", "SPNameQualifier", "AllowCreate"}, false},
	{nsAssertion, "Conditions", []string{"NotBefore", "NotOnOrAfter"}, false},
	{nsProtocol, "Scoping", []string{"ProxyCount"}, false},
}

// conformContents refuses what no schema knows inside those elements.
func conformContents(a *arrival) error {
	for _, c := range contents {
		for _, el := range xmldoc.ChildrenNamed(a.root, c.space, c.name) {
			if err := plainContent(el, c.attributes...); err != nil {
				return err
			}
			if c.filled && len(el.ChildElements()) == 0 {
				return fmt.Errorf("%s is empty", c.name)
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
