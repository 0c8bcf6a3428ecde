package catalogue

import (
	"fmt"
	"regexp"
	"time"

	"github.com/beevik/etree"
)

const (
	nsProtocol      = "urn:oasis:names:tc:SAML:2.0:protocol"
	nsAssertion     = "urn:oasis:names:tc:SAML:2.0:assertion"
	nsSignature     = "http://www.w3.org/2000/09/xmldsig#"
	statusPrefix    = "urn:oasis:names:tc:SAML:2.0:status:"
	formatEntity    = "urn:oasis:names:tc:SAML:2.0:nameid-format:entity"
	formatTransient = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"
	levelPrefix     = "https://www.spid.gov.it/SpidL"
)

var (
	ncName       = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`) // the part of it that SAML peers use
	instantShape = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`)
)

func is(el *etree.Element, ns, tag string) bool { return el.Tag == tag && el.NamespaceURI() == ns }

// attr finds an attribute without a namespace.
func attr(el *etree.Element, name string) (string, bool) {
	for _, a := range el.Attr {
		if a.Space == "" && a.Key == name {
			return a.Value, true
		}
	}
	return "", false
}

func attrOf(el *etree.Element, name string) string {
	v, _ := attr(el, name)
	return v
}

func children(el *etree.Element, ns, tag string) []*etree.Element {
	var found []*etree.Element
	for _, c := range el.ChildElements() {
		if is(c, ns, tag) {
			found = append(found, c)
		}
	}
	return found
}

// only descends along children that are the only ones of their name.
func only(el *etree.Element, ns string, path ...string) (*etree.Element, error) {
	for _, tag := range path {
		found := children(el, ns, tag)
		if len(found) != 1 {
			return nil, fmt.Errorf("%s has %d %s elements", el.Tag, len(found), tag)
		}
		el = found[0]
	}
	return el, nil
}

// count counts the elements of that name at any depth.
func count(el *etree.Element, ns, tag string) int {
	n := 0
	if is(el, ns, tag) {
		n++
	}
	for _, c := range el.ChildElements() {
		n += count(c, ns, tag)
	}
	return n
}

func tags(el *etree.Element) []string {
	var names []string
	for _, c := range el.ChildElements() {
		names = append(names, c.Tag)
	}
	return names
}

func equal(what, got, want string) error {
	if got != want {
		return fmt.Errorf("%s is %q, want %q", what, got, want)
	}
	return nil
}

// instant reads UTC with exactly three fractional digits.
func instant(what, text string) (time.Time, error) {
	if !instantShape.MatchString(text) {
		return time.Time{}, fmt.Errorf("%s: %q is not UTC with three fractional digits", what, text)
	}
	return time.Parse(time.RFC3339, text)
}
