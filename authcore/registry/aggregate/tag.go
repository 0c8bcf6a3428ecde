package aggregate

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"custode/authcore/saml/xmldoc"
)

// Limits of one document's structure. They keep the work for each octet small
// whatever a document declares.
const (
	maxDepth        = 100  // open elements
	maxAttributes   = 64   // of one element, declarations included
	maxDeclarations = 128  // in scope at one element
	maxInterned     = 4096 // different names and namespaces remembered
	maxName         = 512  // octets of a qualified name
	maxNamespace    = 2048 // octets of a namespace name
)

const (
	nsXML   = "http://www.w3.org/XML/1998/namespace"
	nsXMLNS = "http://www.w3.org/2000/xmlns/"
)

// name is a qualified name in its parts.
type name struct{ text, prefix, local string }

// names remembers the names and namespaces met, so that a document of a million
// tags makes a few hundred strings.
type names struct {
	known  map[string]*name
	spaces map[string]string
}

func (n *names) parse(raw []byte) (*name, error) {
	if known, ok := n.known[string(raw)]; ok {
		return known, nil
	}
	if len(raw) > maxName {
		return nil, fmt.Errorf("name longer than %d octets", maxName)
	}
	text := string(raw)
	prefix, local, colon := strings.Cut(text, ":")
	if !colon {
		prefix, local = "", text
	}
	if !xmldoc.IsNCName(local) || colon && !xmldoc.IsNCName(prefix) {
		return nil, errors.New("malformed name")
	}
	made := &name{text, prefix, local}
	if len(n.known) < maxInterned {
		n.known[text] = made
	}
	return made, nil
}

func (n *names) space(uri string) string {
	if known, ok := n.spaces[uri]; ok {
		return known
	}
	if len(n.spaces) < maxInterned {
		n.spaces[uri] = uri
	}
	return uri
}

// attr is one attribute; raw is what stands between its quotes.
type attr struct {
	*name
	raw []byte
	uri string
}

// startTag is a start or empty-element tag, its namespaces resolved.
type startTag struct {
	*name
	uri   string
	attrs []attr // without declarations
	empty bool
}

// is reports whether the element has that expanded name.
func (t *startTag) is(uri, local string) bool { return t.local == local && t.uri == uri }

// value returns an attribute without namespace.
func (t *startTag) value(local string) (string, bool, error) {
	for _, a := range t.attrs {
		if a.prefix == "" && a.local == local {
			v, err := decodeValue(a.raw)
			return v, true, err
		}
	}
	return "", false, nil
}

// binding is a prefix and the namespace it stands for; "" is the default.
type binding struct{ prefix, uri string }

// find returns the innermost binding of prefix.
func find(scope []binding, prefix string) (string, bool) {
	for i := len(scope) - 1; i >= 0; i-- {
		if scope[i].prefix == prefix {
			return scope[i].uri, true
		}
	}
	return "", false
}

const blank = " \t\r\n"

// parseTag takes a start tag from '<' to '>' apart, without namespaces.
// Declarations are appended to scope.
func (w *walker) parseTag(raw []byte) error {
	t := &w.tag
	t.attrs, t.empty = t.attrs[:0], false
	body := raw[1 : len(raw)-1]
	if n := len(body); n > 0 && body[n-1] == '/' {
		body, t.empty = body[:n-1], true
	}
	end := bytes.IndexAny(body, blank)
	if end < 0 {
		end = len(body)
	}
	var err error
	if t.name, err = w.names.parse(body[:end]); err != nil {
		return err
	}
	mark := len(w.scope)
	for rest := body[end:]; ; {
		trimmed := bytes.TrimLeft(rest, blank)
		if len(trimmed) == 0 {
			return nil
		}
		if len(trimmed) == len(rest) {
			return errors.New("attribute not set apart")
		}
		eq := bytes.IndexByte(trimmed, '=')
		if eq < 0 {
			return errors.New("attribute without value")
		}
		n, err := w.names.parse(bytes.TrimRight(trimmed[:eq], blank))
		if err != nil {
			return err
		}
		rest = bytes.TrimLeft(trimmed[eq+1:], blank)
		if len(rest) == 0 || rest[0] != '"' && rest[0] != '\'' {
			return errors.New("attribute value without quotes")
		}
		closing := bytes.IndexByte(rest[1:], rest[0])
		if closing < 0 {
			return errors.New("attribute value without end")
		}
		value := rest[1 : 1+closing]
		rest = rest[2+closing:]
		if n.prefix == "xmlns" || n.text == "xmlns" {
			err = w.declare(n, value, mark)
		} else {
			t.attrs = append(t.attrs, attr{name: n, raw: value})
		}
		if err != nil {
			return err
		}
		if len(t.attrs)+len(w.scope)-mark > maxAttributes {
			return fmt.Errorf("element with more than %d attributes", maxAttributes)
		}
	}
}

// declare enters a namespace declaration of the element whose declarations
// begin at mark (Namespaces in XML 1.0, 3 and 5).
func (w *walker) declare(n *name, raw []byte, mark int) error {
	prefix := ""
	if n.prefix == "xmlns" {
		prefix = n.local
	}
	uri, err := decodeValue(raw)
	if err != nil {
		return err
	}
	switch {
	case prefix == "xmlns", uri == nsXMLNS, (prefix == "xml") != (uri == nsXML):
		return errors.New("reserved namespace declared")
	case prefix != "" && uri == "":
		return errors.New("prefix declared for no namespace")
	case len(uri) > maxNamespace:
		return fmt.Errorf("namespace longer than %d octets", maxNamespace)
	case len(w.scope) == maxDeclarations:
		return fmt.Errorf("more than %d namespace declarations in scope", maxDeclarations)
	}
	if _, twice := find(w.scope[mark:], prefix); twice {
		return errors.New("namespace declared twice")
	}
	w.scope = append(w.scope, binding{prefix, w.names.space(uri)})
	return nil
}

// resolve gives the element and its attributes their namespaces and puts the
// attributes in canonical order.
func (w *walker) resolve() error {
	t := &w.tag
	var err error
	if t.uri, err = w.lookup(t.prefix); err != nil {
		return err
	}
	for i := range t.attrs {
		a := &t.attrs[i]
		a.uri = ""
		if a.prefix != "" {
			if a.uri, err = w.lookup(a.prefix); err != nil {
				return err
			}
		}
	}
	slices.SortFunc(t.attrs, func(a, b attr) int { return cmp.Or(cmp.Compare(a.uri, b.uri), cmp.Compare(a.local, b.local)) })
	for i := 1; i < len(t.attrs); i++ {
		if t.attrs[i].local == t.attrs[i-1].local && t.attrs[i].uri == t.attrs[i-1].uri {
			return errors.New("attribute given twice")
		}
	}
	return nil
}

func (w *walker) lookup(prefix string) (string, error) {
	if prefix == "xml" {
		return nsXML, nil
	}
	uri, ok := find(w.scope, prefix)
	if !ok && prefix != "" {
		return "", errors.New("prefix without declaration")
	}
	return uri, nil
}

// appendTag appends the canonical start tag (Exclusive XML Canonicalization
// 1.0, 3) and remembers which declarations it shows.
func (w *walker) appendTag() error {
	t := &w.tag
	mark := len(w.shown)
	if err := w.show(t.prefix); err != nil {
		return err
	}
	for i := range t.attrs {
		if p := t.attrs[i].prefix; p != "" {
			if err := w.show(p); err != nil {
				return err
			}
		}
	}
	for _, p := range w.inclusive {
		if _, declared := find(w.scope, p); declared {
			if err := w.show(p); err != nil {
				return err
			}
		}
	}
	slices.SortFunc(w.shown[mark:], func(a, b binding) int { return cmp.Compare(a.prefix, b.prefix) })
	w.out = append(append(w.out, '<'), t.text...)
	for _, b := range w.shown[mark:] {
		w.out = appendDeclaration(w.out, b)
	}
	for i := range t.attrs {
		a := &t.attrs[i]
		w.out = append(append(append(w.out, ' '), a.text...), `="`...)
		var err error
		if w.out, err = appendValue(w.out, a.raw); err != nil {
			return err
		}
		w.out = append(w.out, '"')
	}
	w.out = append(w.out, '>')
	return nil
}

// show adds the prefix to what is declared in canonical form, unless an
// ancestor's canonical tag, or this one, did with the same value.
func (w *walker) show(prefix string) error {
	if prefix == "xml" {
		return nil
	}
	uri, err := w.lookup(prefix)
	if err != nil {
		return err
	}
	if shown, ok := find(w.shown[w.apex:], prefix); shown == uri && (ok || prefix == "") {
		return nil
	}
	w.shown = append(w.shown, binding{prefix, uri})
	return nil
}
