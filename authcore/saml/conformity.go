package saml

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/beevik/etree"

	"custode/authcore/saml/xmldoc"
)

// requestChildren are AuthnRequest's children in schema order (SAML Core 3.4.1).
var requestChildren = [...]struct{ space, name string }{
	{nsAssertion, "Issuer"}, {xmldoc.NSSignature, "Signature"}, {nsProtocol, "Extensions"}, {nsAssertion, "Subject"},
	{nsProtocol, "NameIDPolicy"}, {nsAssertion, "Conditions"}, {nsProtocol, "RequestedAuthnContext"}, {nsProtocol, "Scoping"},
}

// requestAttributes are AuthnRequest's attributes. Consent and ProviderName are
// schema-legal and ignored.
var requestAttributes = []string{
	"ID", "Version", "IssueInstant", "Destination", "Consent", "ForceAuthn", "IsPassive", "ProtocolBinding",
	"AssertionConsumerServiceIndex", "AssertionConsumerServiceURL", "AttributeConsumingServiceIndex", "ProviderName",
}

// purposes are the identity types an SP may ask for (SPID Avviso 18 v2).
var purposes = []string{"P", "LP", "PG", "PF", "PX"}

// conformityChecks make up checkConformity; anomaly 8.
var conformityChecks = [...]func(*arrival) error{
	conformAttributes, conformChildren, conformForceAuthn, conformPurpose, conformSubject, conformConditions, conformScoping, conformExtensions, conformContents,
}

func checkConformity(a *arrival) error {
	for _, check := range conformityChecks {
		if err := check(a); err != nil {
			return err
		}
	}
	return nil
}

func conformAttributes(a *arrival) error { return knownAttributes(a.root, requestAttributes...) }

func knownAttributes(el *etree.Element, names ...string) error {
	for _, attr := range el.Attr {
		if !xmldoc.Neutral(attr) && (attr.Space != "" || !slices.Contains(names, attr.Key)) {
			return fmt.Errorf("%s with an unknown attribute", el.Tag)
		}
	}
	return nil
}

// conformChildren checks kinds, order and number of the children. More than one
// RequestedAuthnContext is left to anomaly 12.
func conformChildren(a *arrival) error {
	if err := xmldoc.OnlyElements(a.root); err != nil {
		return err
	}
	last := -1
	for _, child := range a.root.ChildElements() {
		at := slices.IndexFunc(requestChildren[:], func(c struct{ space, name string }) bool { return xmldoc.Is(child, c.space, c.name) })
		if at < 0 {
			return errors.New("unknown element in the request")
		}
		repeated := at == last && child.Tag == "RequestedAuthnContext"
		if at <= last && !repeated {
			return fmt.Errorf("%s repeated or out of order", child.Tag)
		}
		last = at
	}
	return nil
}

func conformForceAuthn(a *arrival) error {
	v, ok := xmldoc.Attribute(a.root, "ForceAuthn")
	if ok {
		force, err := xmldoc.ParseBoolean(v)
		if err != nil {
			return fmt.Errorf("ForceAuthn: %w", err)
		}
		a.request.ForceAuthn = force
	}
	if p, ok := xmldoc.Attribute(a.root, "IsPassive"); ok {
		if _, err := xmldoc.ParseBoolean(p); err != nil {
			return fmt.Errorf("IsPassive: %w", err)
		}
	}
	// A bad context has its own anomaly, further on.
	level, _, err := requestedContext(a.root)
	if err == nil && level > L1 && !a.request.ForceAuthn && a.verifier.config.StrictForceAuthn {
		return errors.New("ForceAuthn is required above level 1")
	}
	return nil
}

// conformPurpose reads spid:Purpose; other extensions are ignored.
func conformPurpose(a *arrival) error {
	seen := false
	for _, ext := range xmldoc.ChildrenNamed(a.root, nsProtocol, "Extensions") {
		for _, p := range xmldoc.ChildrenNamed(ext, nsSPID, "Purpose") {
			text, err := xmldoc.TextOf(p)
			if err != nil || seen {
				return errors.New("malformed or repeated purpose")
			}
			seen = true
			if purpose := xmldoc.Trim(text); slices.Contains(purposes, purpose) {
				a.request.Purpose = purpose
			} else if !a.verifier.config.LenientPurpose {
				return errors.New("unknown purpose")
			}
		}
	}
	return nil
}

// conformSubject admits a lone NameID; its value is not used: who logs in is
// decided by the credentials.
func conformSubject(a *arrival) error {
	if a.verifier.config.LenientSubject {
		return nil
	}
	for _, subject := range xmldoc.ChildrenNamed(a.root, nsAssertion, "Subject") {
		children := subject.ChildElements()
		if len(children) != 1 || !xmldoc.Is(children[0], nsAssertion, "NameID") {
			return errors.New("subject is not a lone NameID")
		}
		format, _ := xmldoc.Attribute(children[0], "Format")
		if format != formatUnspecified20 && format != formatUnspecified11 {
			return errors.New("subject format is not unspecified")
		}
		if _, err := xmldoc.TextOf(children[0]); err != nil {
			return err
		}
		if q, _ := xmldoc.Attribute(children[0], "NameQualifier"); q == "" {
			return errors.New("subject without NameQualifier")
		}
		if err := plainContent(subject); err != nil {
			return err
		}
	}
	return nil
}

func conformConditions(a *arrival) error {
	for _, c := range xmldoc.ChildrenNamed(a.root, nsAssertion, "Conditions") {
		if err := knownAttributes(c, "NotBefore", "NotOnOrAfter"); err != nil {
			return err
		}
		for _, name := range []string{"NotBefore", "NotOnOrAfter"} {
			if v, ok := xmldoc.Attribute(c, name); ok {
				if _, err := ParseInstant(v); err != nil {
					return fmt.Errorf("conditions: %w", err)
				}
			}
		}
	}
	return nil
}

func conformScoping(a *arrival) error {
	for _, s := range xmldoc.ChildrenNamed(a.root, nsProtocol, "Scoping") {
		v, ok := xmldoc.Attribute(s, "ProxyCount")
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(xmldoc.Trim(v), 10, 32)
		if err != nil {
			return errors.New("malformed ProxyCount")
		}
		if n != 0 && a.verifier.config.StrictScoping {
			return errors.New("ProxyCount is not 0")
		}
	}
	return nil
}
