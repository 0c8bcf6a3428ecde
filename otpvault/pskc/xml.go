package pskc

import (
	"bytes"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// element is a part of an XML document. text points into the document, so that
// clearing the document clears it.
type element struct {
	space, name string
	attrs       []attribute // without name space declarations and prefixed ones
	text        []byte      // of a leaf; blank in others
	kids        []*element
}

type attribute struct{ name, value string }

const (
	maxDepth    = 24
	maxAttrs    = 16
	maxElements = 4_000_000
	maxName     = 128
)

// scanner reads the part of XML 1.0 that data needs. It decodes references in
// place: what is decoded is never longer.
type scanner struct {
	doc      []byte
	at       int
	elements int
}

func (s *scanner) fail(format string, args ...any) error {
	line := 1 + bytes.Count(s.doc[:min(s.at, len(s.doc))], []byte("\n"))
	return fmt.Errorf("line %d: %s", line, fmt.Sprintf(format, args...))
}

// parseXML returns the root of doc, whose octets it rewrites.
func parseXML(doc []byte) (*element, error) {
	if !utf8.Valid(doc) {
		return nil, fmt.Errorf("not UTF-8")
	}
	s := &scanner{doc: doc}
	s.skip("\xef\xbb\xbf")
	if bytes.HasPrefix(s.rest(), []byte("<?xml ")) {
		end := bytes.Index(s.rest(), []byte("?>"))
		if end < 0 || end > 200 {
			return nil, s.fail("unfinished XML declaration")
		}
		if d := bytes.ToLower(s.rest()[:end]); bytes.Contains(d, []byte("encoding")) && !bytes.Contains(d, []byte("utf-8")) {
			return nil, s.fail("another encoding than UTF-8 is declared")
		}
		s.at += end + 2
	}
	if err := s.blanks(); err != nil {
		return nil, err
	}
	root, err := s.element(map[string]string{"": "", "xml": "http://www.w3.org/XML/1998/namespace"}, 1)
	if err != nil {
		return nil, err
	}
	if err := s.blanks(); err != nil {
		return nil, err
	}
	if s.at != len(s.doc) {
		return nil, s.fail("something follows the document")
	}
	return root, nil
}

func (s *scanner) rest() []byte { return s.doc[s.at:] }

func (s *scanner) skip(p string) bool {
	if bytes.HasPrefix(s.rest(), []byte(p)) {
		s.at += len(p)
		return true
	}
	return false
}

func blank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

func (s *scanner) space() (any bool) {
	for s.at < len(s.doc) && blank(s.doc[s.at]) {
		s.at++
		any = true
	}
	return any
}

// blanks passes over white space and comments.
func (s *scanner) blanks() error {
	for {
		s.space()
		if !bytes.HasPrefix(s.rest(), []byte("<!--")) {
			return nil
		}
		end := bytes.Index(s.doc[s.at+4:], []byte("--"))
		if end < 0 || !bytes.HasPrefix(s.doc[s.at+4+end:], []byte("-->")) {
			return s.fail("malformed comment")
		}
		s.at += 4 + end + 3
	}
}

// name reads a name, with its prefix. Names in data files are ASCII.
func (s *scanner) name() (prefix, local string, err error) {
	start := s.at
	colon := -1
	for ; s.at < len(s.doc) && s.at-start <= maxName; s.at++ {
		c := s.doc[s.at]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
		other := c >= '0' && c <= '9' || c == '-' || c == '.'
		first := s.at == start || s.at == colon+1 && colon >= 0
		switch {
		case letter, other && !first:
		case c == ':' && !first && colon < 0:
			colon = s.at
		default:
			goto end
		}
	}
end:
	whole := s.doc[start:s.at]
	if len(whole) == 0 || len(whole) > maxName || colon == s.at-1 {
		return "", "", s.fail("malformed name")
	}
	if colon < 0 {
		return "", string(whole), nil
	}
	return string(s.doc[start:colon]), string(s.doc[colon+1 : s.at]), nil
}

// element reads one element that begins here.
func (s *scanner) element(outer map[string]string, depth int) (*element, error) {
	s.elements++
	if depth > maxDepth || s.elements > maxElements {
		return nil, s.fail("elements nested deeper than %d, or more than %d", maxDepth, maxElements)
	}
	if !s.skip("<") {
		return nil, s.fail("no element where one is due")
	}
	if s.at < len(s.doc) && (s.doc[s.at] == '!' || s.doc[s.at] == '?') {
		return nil, s.fail("document types, entities, CDATA and processing instructions are refused")
	}
	start := s.at
	prefix, local, err := s.name()
	if err != nil {
		return nil, err
	}
	tag := s.doc[start:s.at]
	e := &element{name: local}
	scope, empty, err := s.attributes(e, outer)
	if err != nil {
		return nil, err
	}
	var known bool
	if e.space, known = scope[prefix]; !known {
		return nil, s.fail("a prefix is not declared")
	}
	if empty {
		return e, nil
	}
	if err := s.content(e, scope, depth); err != nil {
		return nil, err
	}
	if !s.skip("</") || !s.skip(string(tag)) {
		return nil, s.fail("element %s is not ended", local)
	}
	s.space()
	if !s.skip(">") {
		return nil, s.fail("malformed end of %s", local)
	}
	return e, nil
}

// content reads what stands between the tags of e: text, or elements and blanks.
func (s *scanner) content(e *element, scope map[string]string, depth int) error {
	text := s.at
	end := bytes.IndexByte(s.rest(), '<')
	if end < 0 {
		return s.fail("element %s is not ended", e.name)
	}
	s.at += end
	if bytes.HasPrefix(s.rest(), []byte("</")) {
		decoded, err := s.decode(s.doc[text:s.at])
		if err != nil {
			return err
		}
		e.text = decoded
		return nil
	}
	s.at = text
	for {
		if err := s.blanks(); err != nil {
			return err
		}
		if bytes.HasPrefix(s.rest(), []byte("</")) {
			return nil
		}
		if s.at == len(s.doc) || s.doc[s.at] != '<' {
			return s.fail("text between the elements of %s", e.name)
		}
		kid, err := s.element(scope, depth+1)
		if err != nil {
			return err
		}
		e.kids = append(e.kids, kid)
	}
}

// attributes reads up to the end of the tag and returns the name spaces in scope.
func (s *scanner) attributes(e *element, outer map[string]string) (scope map[string]string, empty bool, err error) {
	scope = outer
	seen := map[string]bool{}
	for {
		gap := s.space()
		if s.skip("/>") {
			return scope, true, nil
		}
		if s.skip(">") {
			return scope, false, nil
		}
		if !gap || len(seen) == maxAttrs {
			return nil, false, s.fail("malformed tag of %s, or more than %d attributes", e.name, maxAttrs)
		}
		prefix, local, value, err := s.attribute()
		if err != nil {
			return nil, false, err
		}
		if seen[prefix+":"+local] {
			return nil, false, s.fail("attribute %s is there twice", local)
		}
		seen[prefix+":"+local] = true
		declares, bound := "", prefix == "xmlns"
		if bound {
			declares = local
		}
		switch {
		case bound || prefix == "" && local == "xmlns":
			if bound && (value == "" || local == "xml" || local == "xmlns") {
				return nil, false, s.fail("malformed name space declaration")
			}
			inner := map[string]string{declares: value}
			for p, u := range scope {
				if p != declares {
					inner[p] = u
				}
			}
			scope = inner
		case prefix == "":
			e.attrs = append(e.attrs, attribute{local, value})
		}
	}
}

func (s *scanner) attribute() (prefix, local, value string, err error) {
	prefix, local, err = s.name()
	if err != nil {
		return "", "", "", err
	}
	s.space()
	if !s.skip("=") {
		return "", "", "", s.fail("attribute %s has no value", local)
	}
	s.space()
	if s.at == len(s.doc) || s.doc[s.at] != '"' && s.doc[s.at] != '\'' {
		return "", "", "", s.fail("attribute %s is not quoted", local)
	}
	quote := s.doc[s.at]
	s.at++
	end := bytes.IndexByte(s.rest(), quote)
	if end < 0 || bytes.IndexByte(s.rest()[:end], '<') >= 0 {
		return "", "", "", s.fail("attribute %s is not ended", local)
	}
	raw := append([]byte(nil), s.rest()[:end]...)
	s.at += end + 1
	raw, err = s.decode(raw)
	return prefix, local, string(raw), err
}

// decode resolves the five named and the numeric references in b, in place.
func (s *scanner) decode(b []byte) ([]byte, error) {
	if bytes.Contains(b, []byte("]]>")) {
		return nil, s.fail("]]> in text")
	}
	out := b[:0]
	for len(b) > 0 {
		if b[0] != '&' {
			if b[0] < ' ' && !blank(b[0]) {
				return nil, s.fail("control character")
			}
			out, b = append(out, b[0]), b[1:]
			continue
		}
		end := bytes.IndexByte(b[:min(len(b), 12)], ';')
		if end < 0 {
			return nil, s.fail("malformed reference")
		}
		r, ok := reference(string(b[1:end]))
		if !ok {
			return nil, s.fail("unknown reference")
		}
		b = b[end+1:] // the rune takes no more room than its reference
		out = utf8.AppendRune(out, r)
	}
	return out, nil
}

func reference(name string) (rune, bool) {
	switch name {
	case "amp":
		return '&', true
	case "lt":
		return '<', true
	case "gt":
		return '>', true
	case "quot":
		return '"', true
	case "apos":
		return '\'', true
	}
	if len(name) < 2 || name[0] != '#' {
		return 0, false
	}
	digits, base := name[1:], 10
	if digits[0] == 'x' {
		digits, base = digits[1:], 16
	}
	n, err := strconv.ParseUint(digits, base, 32)
	if err != nil || digits[0] == '+' || digits[0] == '_' {
		return 0, false
	}
	r := rune(n)
	ok := n < 0x110000 && utf8.ValidRune(r) && (r >= ' ' || r == '\t' || r == '\n' || r == '\r') && r != 0xfffe && r != 0xffff
	return r, ok
}
