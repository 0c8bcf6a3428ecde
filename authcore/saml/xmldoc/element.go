package xmldoc

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/beevik/etree"
)

// The namespaces this package knows.
const (
	NSSignature = "http://www.w3.org/2000/09/xmldsig#"
	nsXSI       = "http://www.w3.org/2001/XMLSchema-instance"
)

// Is reports whether el has that expanded name.
func Is(el *etree.Element, space, name string) bool {
	return el != nil && el.Tag == name && el.NamespaceURI() == space
}

// Attribute returns the value of the attribute without namespace called name.
func Attribute(el *etree.Element, name string) (string, bool) {
	for _, a := range el.Attr {
		if a.Space == "" && a.Key == name {
			return a.Value, true
		}
	}
	return "", false
}

// Neutral reports whether a is a namespace declaration or belongs to the
// XML Schema instance namespace, which schemas allow everywhere.
func Neutral(a etree.Attr) bool {
	return a.Space == "xmlns" || (a.Space == "" && a.Key == "xmlns") || (a.Space != "" && a.NamespaceURI() == nsXSI)
}

// ChildrenNamed returns the child elements with that expanded name.
func ChildrenNamed(el *etree.Element, space, name string) []*etree.Element {
	var found []*etree.Element
	for _, c := range el.ChildElements() {
		if Is(c, space, name) {
			found = append(found, c)
		}
	}
	return found
}

// SoleChild returns the one child element with that expanded name.
func SoleChild(el *etree.Element, space, name string) (*etree.Element, error) {
	switch found := ChildrenNamed(el, space, name); len(found) {
	case 0:
		return nil, fmt.Errorf("no %s", name)
	case 1:
		return found[0], nil
	default:
		return nil, fmt.Errorf("more than one %s", name)
	}
}

// TextOf returns the character data of an element that has no child elements,
// untrimmed.
func TextOf(el *etree.Element) (string, error) {
	var b strings.Builder
	for _, child := range el.Child {
		switch c := child.(type) {
		case *etree.CharData:
			b.WriteString(c.Data)
		case *etree.Comment:
		default:
			return "", fmt.Errorf("%s has element content", el.Tag)
		}
	}
	return b.String(), nil
}

// OnlyElements refuses character data other than white space among children.
func OnlyElements(el *etree.Element) error {
	for _, child := range el.Child {
		if c, ok := child.(*etree.CharData); ok && Trim(c.Data) != "" {
			return fmt.Errorf("text in %s", el.Tag)
		}
	}
	return nil
}

// Trim strips the four white space characters of XML 1.0, and no others.
func Trim(s string) string { return strings.Trim(s, " \t\r\n") }

// Strip removes white space anywhere, as base64 in XML needs it.
func Strip(s string) string {
	if !strings.ContainsAny(s, " \t\r\n") {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r == ' ' || r == '\t' || r == '\r' || r == '\n' {
			return -1
		}
		return r
	}, s)
}

// ParseBoolean reads an xs:boolean, whose four spellings SPs all use.
func ParseBoolean(s string) (bool, error) {
	switch Trim(s) {
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, errors.New("malformed boolean")
}

// IsNCName reports whether s is an NCName (Namespaces in XML 1.0, production 4),
// the lexical space of xs:ID.
func IsNCName(s string) bool {
	for i, r := range s {
		if r == unicode.ReplacementChar || (i == 0 && !isNameStart(r)) || (i > 0 && !isNameChar(r)) {
			return false
		}
	}
	return s != ""
}

func isNameStart(r rune) bool {
	switch {
	case r == '_', 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z':
		return true
	case r < 0xC0, r == 0xD7, r == 0xF7, 0x300 <= r && r <= 0x36F, r == 0x37E:
		return false
	case r <= 0x1FFF, r == 0x200C, r == 0x200D, 0x2070 <= r && r <= 0x218F, 0x2C00 <= r && r <= 0x2FEF,
		0x3001 <= r && r <= 0xD7FF, 0xF900 <= r && r <= 0xFDCF, 0xFDF0 <= r && r <= 0xFFFD, 0x10000 <= r && r <= 0xEFFFF:
		return true
	}
	return false
}

func isNameChar(r rune) bool {
	return isNameStart(r) || r == '-' || r == '.' || ('0' <= r && r <= '9') || r == 0xB7 ||
		(0x300 <= r && r <= 0x36F) || r == 0x203F || r == 0x2040
}
