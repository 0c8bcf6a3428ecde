package xmldoc

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/beevik/etree"
)

// nsXML is bound to the prefix xml without a declaration (Namespaces in XML 1.0, 3).
const nsXML = "http://www.w3.org/XML/1998/namespace"

// The escapes of Canonical XML 1.0, 2.3. They are apart from Writer's on purpose:
// what Writer wrote is read back through these.
var (
	textEscapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "\r", "&#xD;")
	attrEscapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", `"`, "&quot;", "\t", "&#x9;", "\n", "&#xA;", "\r", "&#xD;")
)

// binding is a prefix ("" for the default namespace) and its namespace.
type binding struct{ prefix, uri string }

// bindings are searched from the end: the innermost wins.
type bindings []binding

func (b bindings) find(prefix string) (uri string, ok bool) {
	for i := len(b) - 1; i >= 0; i-- {
		if b[i].prefix == prefix {
			return b[i].uri, true
		}
	}
	return "", false
}

// canonicaliser writes Exclusive XML Canonicalization 1.0 without comments.
type canonicaliser struct {
	out       []byte
	without   *etree.Element // left out, with what is in it; nil for nothing
	inclusive []string       // prefixes of InclusiveNamespaces, "" for #default
	scope     bindings       // declared, in the source
	rendered  bindings       // declared, in the output
}

// canonical returns the canonical octets of el where it stands (declarations of
// its ancestors count), without one of its descendants (the enveloped signature;
// nil for none). inclusive is what prefixList makes of InclusiveNamespaces.
func canonical(el, without *etree.Element, inclusive []string) ([]byte, error) {
	c := canonicaliser{out: make([]byte, 0, 4<<10), without: without, inclusive: inclusive}
	for _, ancestor := range ancestors(el) {
		if err := c.enter(ancestor); err != nil {
			return nil, err
		}
	}
	if err := c.element(el); err != nil {
		return nil, err
	}
	return c.out, nil
}

// maxPrefixes bounds a PrefixList: each of its prefixes is looked up at each
// element. Real lists name two or three.
const maxPrefixes = 32

// prefixList reads InclusiveNamespaces/@PrefixList; "" stands for #default.
func prefixList(list string) ([]string, error) {
	var prefixes []string
	for p := range strings.FieldsSeq(list) {
		if len(prefixes) == maxPrefixes {
			return nil, fmt.Errorf("InclusiveNamespaces with more than %d prefixes", maxPrefixes)
		}
		if p == "#default" {
			p = ""
		}
		prefixes = append(prefixes, p)
	}
	return prefixes, nil
}

// ancestors returns the elements around el, outermost first. etree's document is
// an element without a name.
func ancestors(el *etree.Element) []*etree.Element {
	var up []*etree.Element
	for p := el.Parent(); p != nil && p.Tag != ""; p = p.Parent() {
		up = append(up, p)
	}
	slices.Reverse(up)
	return up
}

// declaration returns what attribute a declares.
func declaration(a *etree.Attr) (prefix string, ok bool) {
	switch {
	case a.Space == "xmlns":
		return a.Key, true
	case a.Space == "" && a.Key == "xmlns":
		return "", true
	}
	return "", false
}

// enter takes the declarations of el into scope.
func (c *canonicaliser) enter(el *etree.Element) error {
	for i := range el.Attr {
		a := &el.Attr[i]
		prefix, ok := declaration(a)
		switch {
		case !ok || prefix == "xml" && a.Value == nsXML:
			continue
		case prefix == "xml", prefix == "xmlns", prefix != "" && a.Value == "", a.Value == nsXML, a.Value == "http://www.w3.org/2000/xmlns/":
			return errors.New("impossible namespace declaration")
		}
		c.scope = append(c.scope, binding{prefix, a.Value})
	}
	return nil
}

// lookup returns the namespace a prefix stands for here.
func (c *canonicaliser) lookup(prefix string) (string, error) {
	if prefix == "xml" {
		return nsXML, nil
	}
	uri, ok := c.scope.find(prefix)
	if !ok && prefix != "" {
		return "", fmt.Errorf("undeclared prefix %q", prefix)
	}
	return uri, nil
}

func (c *canonicaliser) element(el *etree.Element) error {
	scope, rendered := len(c.scope), len(c.rendered)
	if err := c.enter(el); err != nil {
		return err
	}
	if err := c.startTag(el); err != nil {
		return err
	}
	c.out = append(c.out, '>')
	for _, child := range el.Child {
		switch child := child.(type) {
		case *etree.CharData:
			c.out = append(c.out, textEscapes.Replace(child.Data)...)
		case *etree.Comment:
		case *etree.Element:
			if child == c.without {
				continue
			}
			if err := c.element(child); err != nil {
				return err
			}
		default: // Bounds lets none through
			return errors.New("markup that is not canonicalised")
		}
	}
	c.out = append(c.name(append(c.out, '<', '/'), el.Space, el.Tag), '>')
	c.scope, c.rendered = c.scope[:scope], c.rendered[:rendered]
	return nil
}

// attribute is one that is not a declaration.
type attribute struct {
	uri  string
	from *etree.Attr
}

func (c *canonicaliser) startTag(el *etree.Element) error {
	c.out = c.name(append(c.out, '<'), el.Space, el.Tag)
	first := len(c.rendered)
	if err := c.use(el.Space); err != nil {
		return err
	}
	var store [16]attribute // few elements have more; kept off the heap
	attrs := store[:0]
	for i := range el.Attr {
		a := &el.Attr[i]
		if _, declares := declaration(a); declares {
			continue
		}
		uri := ""
		if a.Space != "" { // the default namespace is not for attributes
			var err error
			if uri, err = c.lookup(a.Space); err != nil {
				return err
			}
			if err := c.use(a.Space); err != nil {
				return err
			}
		}
		attrs = append(attrs, attribute{uri, a})
	}
	for _, prefix := range c.inclusive {
		if _, ok := c.scope.find(prefix); ok || prefix == "" {
			if err := c.use(prefix); err != nil {
				return err
			}
		}
	}
	c.declarations(c.rendered[first:])
	return c.attributes(attrs)
}

// use has the prefix declared on the element being written, unless an element
// around it in the output declares the same.
func (c *canonicaliser) use(prefix string) error {
	uri, err := c.lookup(prefix)
	if err != nil || prefix == "xml" {
		return err
	}
	// Without a declaration in the output the default namespace is none.
	if there, ok := c.rendered.find(prefix); there == uri && (ok || prefix == "") {
		return nil
	}
	c.rendered = append(c.rendered, binding{prefix, uri})
	return nil
}

// declarations are ordered by prefix, the default namespace first.
func (c *canonicaliser) declarations(list bindings) {
	slices.SortFunc(list, func(a, b binding) int { return strings.Compare(a.prefix, b.prefix) })
	for _, d := range list {
		if d.prefix == "" {
			c.attr("", "xmlns", d.uri)
		} else {
			c.attr("xmlns", d.prefix, d.uri)
		}
	}
}

// attributes are ordered by namespace and local name.
func (c *canonicaliser) attributes(list []attribute) error {
	order := func(a, b attribute) int {
		if d := strings.Compare(a.uri, b.uri); d != 0 {
			return d
		}
		return strings.Compare(a.from.Key, b.from.Key)
	}
	slices.SortFunc(list, order)
	for i, a := range list {
		if i > 0 && order(list[i-1], a) == 0 {
			return errors.New("attribute given twice") // under two prefixes
		}
		c.attr(a.from.Space, a.from.Key, a.from.Value)
	}
	return nil
}

func (c *canonicaliser) attr(space, key, value string) {
	c.out = append(c.name(append(c.out, ' '), space, key), '=', '"')
	c.out = append(c.out, attrEscapes.Replace(value)...)
	c.out = append(c.out, '"')
}

func (c *canonicaliser) name(b []byte, space, local string) []byte {
	if space != "" {
		b = append(append(b, space...), ':')
	}
	return append(b, local...)
}
