package request

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits of what is read from the instance.
const (
	maxXML      = 1 << 20 // octets
	maxXMLDepth = 64
)

// xmlSpace is bound to the prefix xml by definition.
const xmlSpace = "http://www.w3.org/XML/1998/namespace"

// Node is one element. Character data and elements alternate in kids in
// document order.
type Node struct {
	prefix, Name, space string
	Attrs               []Attribute
	decls               map[string]string // namespaces declared here; "" is the default one
	kids                []any             // *Node or string
	parent              *Node
}

// Attribute is an attribute that declares no namespace.
type Attribute struct{ prefix, Name, Space, Value string }

// Scope returns the namespace bound to the prefix at n.
func (n *Node) Scope(prefix string) (string, bool) {
	for at := n; at != nil; at = at.parent {
		if uri, ok := at.decls[prefix]; ok {
			return uri, true
		}
	}
	if prefix == "xml" {
		return xmlSpace, true
	}
	return "", prefix == ""
}

func (n *Node) Is(space, name string) bool { return n != nil && n.space == space && n.Name == name }

func (n *Node) Attr(name string) (string, bool) {
	for _, a := range n.Attrs {
		if a.Space == "" && a.Name == name {
			return a.Value, true
		}
	}
	return "", false
}

// Get is attr for attributes whose absence means "".
func (n *Node) Get(name string) string {
	v, _ := n.Attr(name)
	return v
}

func (n *Node) Children(space, name string) []*Node {
	var found []*Node
	for _, k := range n.kids {
		if c, ok := k.(*Node); ok && (name == "" || c.Is(space, name)) {
			found = append(found, c)
		}
	}
	return found
}

// Child returns the only child of that name, nil when there is none or more.
func (n *Node) Child(space, name string) *Node {
	if n == nil {
		return nil
	}
	if found := n.Children(space, name); len(found) == 1 {
		return found[0]
	}
	return nil
}

// Text returns the character data of an element without children.
func (n *Node) Text() string {
	var b strings.Builder
	if n != nil {
		for _, k := range n.kids {
			if s, ok := k.(string); ok {
				b.WriteString(s)
			}
		}
	}
	return b.String()
}

// Walk visits n and everything below it.
func (n *Node) Walk(visit func(*Node)) {
	visit(n)
	for _, c := range n.Children("", "") {
		c.Walk(visit)
	}
}

// reader reads a document without DOCTYPE, comments, CDATA and processing
// instructions; SPID messages have none.
type reader struct {
	rest  string
	depth int
}

// Parse reads a document.
func Parse(doc string) (*Node, error) {
	if len(doc) > maxXML {
		return nil, fmt.Errorf("document of %d octets", len(doc))
	}
	if !utf8.ValidString(doc) {
		return nil, errors.New("document is not UTF-8")
	}
	doc = strings.ReplaceAll(strings.ReplaceAll(doc, "\r\n", "\n"), "\r", "\n")
	if strings.HasPrefix(doc, "<?xml ") {
		_, after, ok := strings.Cut(doc, "?>")
		if !ok {
			return nil, errors.New("unfinished XML declaration")
		}
		doc = after
	}
	r := &reader{rest: strings.TrimLeft(doc, " \t\n")}
	root, err := r.element(nil)
	if err != nil {
		return nil, err
	}
	if strings.Trim(r.rest, " \t\n") != "" {
		return nil, errors.New("something after the root element")
	}
	return root, nil
}

func (r *reader) element(parent *Node) (*Node, error) {
	if r.depth++; r.depth > maxXMLDepth {
		return nil, errors.New("nested too deep")
	}
	defer func() { r.depth-- }()
	if !strings.HasPrefix(r.rest, "<") {
		return nil, errors.New("no element where one is due")
	}
	r.rest = r.rest[1:]
	n := &Node{parent: parent, decls: map[string]string{}}
	var err error
	if n.prefix, n.Name, err = r.qname(); err != nil {
		return nil, err
	}
	empty, err := r.attributes(n)
	if err != nil {
		return nil, err
	}
	if err := n.resolve(); err != nil {
		return nil, err
	}
	if empty {
		return n, nil
	}
	return n, r.content(n)
}

// attributes reads up to and including ">" or "/>".
func (r *reader) attributes(n *Node) (empty bool, err error) {
	for {
		before := len(r.rest)
		r.blank()
		switch {
		case strings.HasPrefix(r.rest, "/>"):
			r.rest = r.rest[2:]
			return true, nil
		case strings.HasPrefix(r.rest, ">"):
			r.rest = r.rest[1:]
			return false, nil
		case before == len(r.rest):
			return false, fmt.Errorf("malformed tag %s", n.Name)
		}
		prefix, name, err := r.qname()
		if err != nil {
			return false, err
		}
		r.blank()
		if !strings.HasPrefix(r.rest, "=") {
			return false, fmt.Errorf("attribute %s without a value", name)
		}
		r.rest = r.rest[1:]
		r.blank()
		value, err := r.quoted()
		if err != nil {
			return false, err
		}
		switch {
		case prefix == "" && name == "xmlns":
			n.decls[""] = value
		case prefix == "xmlns" && (value == "" || name == "xml" || name == "xmlns"):
			return false, fmt.Errorf("prefix %s declared as nothing", name)
		case prefix == "xmlns":
			n.decls[name] = value
		default:
			n.Attrs = append(n.Attrs, Attribute{prefix: prefix, Name: name, Value: value})
		}
	}
}

func (r *reader) blank() { r.rest = strings.TrimLeft(r.rest, " \t\n") }

func (r *reader) quoted() (string, error) {
	if r.rest == "" || r.rest[0] != '"' && r.rest[0] != '\'' {
		return "", errors.New("attribute value without quotes")
	}
	raw, after, ok := strings.Cut(r.rest[1:], r.rest[:1])
	if !ok || strings.Contains(raw, "<") {
		return "", errors.New("malformed attribute value")
	}
	r.rest = after
	return unescape(strings.NewReplacer("\t", " ", "\n", " ").Replace(raw))
}

func (r *reader) qname() (prefix, name string, err error) {
	end := strings.IndexAny(r.rest, " \t\n/>=\"'<&;!?")
	if end <= 0 {
		return "", "", errors.New("malformed name")
	}
	text := r.rest[:end]
	r.rest = r.rest[end:]
	prefix, name, ok := strings.Cut(text, ":")
	if !ok {
		prefix, name = "", text
	}
	if name == "" || strings.Contains(name, ":") || strings.ContainsAny(name[:1], "0123456789-.") {
		return "", "", fmt.Errorf("malformed name %q", text)
	}
	return prefix, name, nil
}

func (n *Node) resolve() error {
	var ok bool
	if n.space, ok = n.Scope(n.prefix); !ok {
		return fmt.Errorf("prefix %s is not declared", n.prefix)
	}
	for i := range n.Attrs {
		a := &n.Attrs[i]
		if a.prefix != "" {
			if a.Space, ok = n.Scope(a.prefix); !ok {
				return fmt.Errorf("prefix %s is not declared", a.prefix)
			}
		}
		for _, b := range n.Attrs[:i] {
			if a.Space == b.Space && a.Name == b.Name {
				return fmt.Errorf("attribute %s given twice", a.Name)
			}
		}
	}
	return nil
}

// content reads up to and including the end tag of n.
func (r *reader) content(n *Node) error {
	for {
		text, after, ok := strings.Cut(r.rest, "<")
		if !ok {
			return fmt.Errorf("%s has no end", n.Name)
		}
		if text != "" {
			value, err := unescape(text)
			if err != nil {
				return err
			}
			n.kids = append(n.kids, value)
		}
		if strings.HasPrefix(after, "/") {
			r.rest = after[1:]
			prefix, name, err := r.qname()
			if err != nil || prefix != n.prefix || name != n.Name {
				return fmt.Errorf("%s has another's end tag", n.Name)
			}
			r.blank()
			if !strings.HasPrefix(r.rest, ">") {
				return errors.New("malformed end tag")
			}
			r.rest = r.rest[1:]
			return nil
		}
		r.rest = "<" + after
		child, err := r.element(n)
		if err != nil {
			return err
		}
		n.kids = append(n.kids, child)
	}
}

var predefined = map[string]string{"amp": "&", "lt": "<", "gt": ">", "quot": `"`, "apos": "'"}

// unescape resolves the five entities of XML and character references.
func unescape(s string) (string, error) {
	if !strings.Contains(s, "&") {
		return s, nil
	}
	var b strings.Builder
	for {
		before, after, ok := strings.Cut(s, "&")
		b.WriteString(before)
		if !ok {
			return b.String(), nil
		}
		name, rest, ok := strings.Cut(after, ";")
		if !ok || len(name) > 8 {
			return "", errors.New("malformed reference")
		}
		value := predefined[name]
		if num, isNum := strings.CutPrefix(name, "#"); isNum {
			base := 10
			if hex, isHex := strings.CutPrefix(num, "x"); isHex {
				num, base = hex, 16
			}
			code, err := strconv.ParseUint(num, base, 21)
			if err != nil || code == 0 || !utf8.ValidRune(rune(code)) {
				return "", errors.New("malformed character reference")
			}
			value = string(rune(code))
		}
		if value == "" {
			return "", fmt.Errorf("unknown entity %s", name)
		}
		b.WriteString(value)
		s = rest
	}
}
