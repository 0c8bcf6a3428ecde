package spsim

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/beevik/etree"
)

// ncName is the part of xs:ID that SAML peers use.
var ncName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

var encodingDecl = regexp.MustCompile(`encoding\s*=\s*["']([^"']*)["']`)

const (
	maxDepth    = 32
	maxElements = 4096
)

// parseDocument reads one XML document and refuses whatever a signed SAML
// message has no use for and an attacker has: DTDs, comments (they split text
// nodes), processing instructions, doubled attributes, doubled IDs, mixed content.
func parseDocument(raw []byte) (*etree.Element, error) {
	if !utf8.Valid(raw) {
		return nil, errors.New("not UTF-8")
	}
	if bytes.Contains(raw, []byte("<![CDATA[")) {
		return nil, errors.New("CDATA section")
	}
	doc := etree.NewDocument()
	doc.ReadSettings = etree.ReadSettings{PreserveDuplicateAttrs: true, MaxDepth: maxDepth}
	if err := doc.ReadFromBytes(raw); err != nil {
		return nil, fmt.Errorf("not well-formed: %w", err)
	}
	var root *etree.Element
	for i, token := range doc.Child {
		switch t := token.(type) {
		case *etree.ProcInst:
			if i != 0 || t.Target != "xml" {
				return nil, errors.New("processing instruction outside the XML declaration")
			}
			if m := encodingDecl.FindStringSubmatch(t.Inst); m != nil && !strings.EqualFold(m[1], "UTF-8") {
				return nil, errors.New("encoding other than UTF-8")
			}
		case *etree.Element:
			if root != nil {
				return nil, errors.New("more than one root element")
			}
			root = t
		case *etree.CharData:
			if strings.TrimSpace(t.Data) != "" {
				return nil, errors.New("text outside the root element")
			}
		default:
			return nil, errors.New("DTD or comment")
		}
	}
	if root == nil {
		return nil, errors.New("no root element")
	}
	v := vetting{ids: map[string]bool{}}
	return root, v.element(root)
}

type vetting struct {
	ids      map[string]bool
	elements int
}

func (v *vetting) element(el *etree.Element) error {
	if v.elements++; v.elements > maxElements {
		return errors.New("too many elements")
	}
	if err := v.attributes(el); err != nil {
		return err
	}
	text, nested := false, false
	for _, token := range el.Child {
		switch t := token.(type) {
		case *etree.CharData:
			text = text || strings.TrimSpace(t.Data) != ""
		case *etree.Element:
			nested = true
			if err := v.element(t); err != nil {
				return err
			}
		default:
			return fmt.Errorf("comment, processing instruction or directive in %s", el.Tag)
		}
	}
	if text && nested {
		return fmt.Errorf("text between the elements of %s", el.Tag)
	}
	return nil
}

func (v *vetting) attributes(el *etree.Element) error {
	seen := map[string]bool{}
	for _, a := range el.Attr {
		name := a.FullKey()
		if seen[name] {
			return fmt.Errorf("attribute %q twice in %s", name, el.Tag)
		}
		seen[name] = true
		if a.Space == "" && strings.EqualFold(a.Key, "id") {
			if v.ids[a.Value] {
				return fmt.Errorf("ID %q twice", a.Value)
			}
			v.ids[a.Value] = true
		}
	}
	if el.NamespaceURI() == "" {
		return fmt.Errorf("element %q without a namespace", el.FullTag())
	}
	return nil
}

func is(el *etree.Element, ns, tag string) bool {
	return el.Tag == tag && el.NamespaceURI() == ns
}

// attr finds an attribute without a namespace.
func attr(el *etree.Element, name string) (string, bool) {
	for _, a := range el.Attr {
		if a.Space == "" && a.Key == name {
			return a.Value, true
		}
	}
	return "", false
}

// attrOf returns its value, "" when it is missing.
func attrOf(el *etree.Element, name string) string {
	v, _ := attr(el, name)
	return v
}

func childrenNamed(el *etree.Element, ns, tag string) []*etree.Element {
	var found []*etree.Element
	for _, c := range el.ChildElements() {
		if is(c, ns, tag) {
			found = append(found, c)
		}
	}
	return found
}

// only returns the one child with the first name, or that child's one child
// with the second name, and so on.
func only(el *etree.Element, ns string, tags ...string) (*etree.Element, error) {
	for _, tag := range tags {
		found := childrenNamed(el, ns, tag)
		if len(found) != 1 {
			return nil, fmt.Errorf("%s has %d %s elements, want 1", el.Tag, len(found), tag)
		}
		el = found[0]
	}
	return el, nil
}

// count counts the elements with that name at any depth, el included.
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

// prefixNamespace resolves a namespace prefix where el stands.
func prefixNamespace(el *etree.Element, prefix string) string {
	for e := el; e != nil; e = e.Parent() {
		for _, a := range e.Attr {
			if a.Space == "xmlns" && a.Key == prefix {
				return a.Value
			}
		}
	}
	return ""
}
