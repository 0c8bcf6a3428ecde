package xmldoc

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"unicode/utf8"

	"github.com/beevik/etree"
)

// Bounds limits an XML document before any parser builds a tree of it. The
// scan is ours because the parser accepts what SAML never needs and attacks do:
// DOCTYPE, processing instructions, comments, text or a second root after the
// document, thousands of namespace declarations (each name's prefix is looked up
// among those in scope, so that their number times the elements is what
// canonicalising costs).
type Bounds struct {
	Bytes        int  // largest document, octets
	Depth        int  // deepest element; the root is at 1
	Attrs        int  // most attributes of one element, declarations included
	Elements     int  // most elements
	Declarations int  // most namespace declarations, in the whole document
	Comments     bool // comments are passed over instead of refused
}

var (
	utf8BOM = []byte("\xef\xbb\xbf")
	xmlDecl = regexp.MustCompile(`^<\?xml[ \t\r\n]+version[ \t\r\n]*=[ \t\r\n]*(?:"1\.0"|'1\.0')` +
		`(?:[ \t\r\n]+encoding[ \t\r\n]*=[ \t\r\n]*(?:"(?i:utf-8)"|'(?i:utf-8)'))?` +
		`(?:[ \t\r\n]+standalone[ \t\r\n]*=[ \t\r\n]*(?:"(?:yes|no)"|'(?:yes|no)'))?[ \t\r\n]*\?>`)
)

// Parse scans doc, builds its tree and returns the root. A byte order mark and
// an XML declaration of UTF-8 are passed over.
func (b Bounds) Parse(doc []byte) (*etree.Element, error) {
	if len(doc) > b.Bytes {
		return nil, fmt.Errorf("document of %d octets exceeds %d", len(doc), b.Bytes)
	}
	if !utf8.Valid(doc) {
		return nil, errors.New("document is not UTF-8")
	}
	doc = bytes.TrimPrefix(doc, utf8BOM)
	doc = doc[len(xmlDecl.Find(doc)):]
	blanks, err := b.scan(doc)
	if err != nil {
		return nil, err
	}
	if blanks {
		doc = b.normalise(doc)
	}
	tree := etree.NewDocument()
	// Duplicate attributes must reach checkTree instead of being merged.
	tree.ReadSettings = etree.ReadSettings{PreserveDuplicateAttrs: true, MaxDepth: b.Depth}
	if err := tree.ReadFromBytes(doc); err != nil {
		return nil, fmt.Errorf("parse document: %w", err)
	}
	root := tree.Root()
	if root == nil {
		return nil, errors.New("document has no root")
	}
	if err := b.checkTree(root); err != nil {
		return nil, err
	}
	return root, nil
}

// scan walks the markup without interpreting it. In a document without DOCTYPE,
// CDATA and processing instructions every '<' begins a tag, so quoting inside
// tags is all the state there is. blanks reports whether an attribute value has
// white space in it that reading turns into blanks.
func (b Bounds) scan(doc []byte) (blanks bool, err error) {
	depth, elements, closed := 0, 0, false
	for len(doc) > 0 {
		lt := bytes.IndexByte(doc, '<')
		if lt < 0 {
			lt = len(doc)
		}
		if depth == 0 && len(bytes.Trim(doc[:lt], " \t\r\n")) > 0 {
			return false, errors.New("text outside the root element")
		}
		doc = doc[lt:]
		if len(doc) == 0 {
			break
		}
		if b.Comments && bytes.HasPrefix(doc, []byte("<!--")) {
			end := bytes.Index(doc[4:], []byte("-->"))
			if end < 0 {
				return false, errors.New("unfinished comment")
			}
			doc = doc[4+end+3:]
			continue
		}
		t, err := scanTag(doc)
		if err != nil {
			return false, err
		}
		blanks = blanks || t.blanks
		switch {
		case t.attrs > b.Attrs:
			return false, fmt.Errorf("element with more than %d attributes", b.Attrs)
		case t.end:
			depth--
		case closed:
			return false, errors.New("second root element")
		default:
			depth, elements = depth+1, elements+1
			if depth > b.Depth || elements > b.Elements {
				return false, fmt.Errorf("elements nested deeper than %d or more than %d", b.Depth, b.Elements)
			}
			if t.empty {
				depth--
			}
		}
		if depth < 0 {
			return false, errors.New("end tag without start")
		}
		closed = depth == 0
		doc = doc[t.size:]
	}
	if !closed {
		return false, errors.New("unfinished document")
	}
	return blanks, nil
}

// normalise turns line ends and tabs in attribute values into blanks, as XML 1.0
// wants of a reader (2.11, 3.3.3) and encoding/xml does not: other
// implementations sign and verify the blanks. doc has passed scan.
func (b Bounds) normalise(doc []byte) []byte {
	out := make([]byte, 0, len(doc))
	var quote byte
	tag := false
	for i := 0; i < len(doc); i++ {
		c := doc[i]
		switch {
		case !tag && bytes.HasPrefix(doc[i:], []byte("<!--")):
			end := i + 4 + bytes.Index(doc[i+4:], []byte("-->")) + 3
			out, i = append(out, doc[i:end]...), end-1
			continue
		case !tag:
			tag = c == '<'
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case quote == 0:
			tag = c != '>'
		case c == quote:
			quote = 0
		case c == '\r' && i+1 < len(doc) && doc[i+1] == '\n':
			continue // the pair is one line end
		case c == '\t' || c == '\n' || c == '\r':
			c = ' '
		}
		out = append(out, c)
	}
	return out
}

// tag is what scan needs to know of one tag.
type tag struct {
	size       int // octets from '<' to '>'
	attrs      int
	end, empty bool
	blanks     bool // white space other than blanks in an attribute value
}

func scanTag(doc []byte) (tag, error) {
	if len(doc) < 2 || doc[1] == '!' || doc[1] == '?' {
		return tag{}, errors.New("markup that is neither start nor end tag")
	}
	t := tag{end: doc[1] == '/'}
	var quote byte
	for i := 1; i < len(doc); i++ {
		switch c := doc[i]; {
		case c == '<':
			return tag{}, errors.New("tag inside a tag")
		case quote != 0:
			if c == quote {
				quote = 0
			}
			t.blanks = t.blanks || c == '\t' || c == '\n' || c == '\r'
		case c == '"' || c == '\'':
			quote = c
		case c == '=':
			t.attrs++
		case c == '>':
			t.size, t.empty = i+1, !t.end && doc[i-1] == '/'
			return t, nil
		}
	}
	return tag{}, errors.New("unfinished tag")
}

// checkTree refuses what the tokenizer lets through although XML 1.0 forbids
// it: an attribute given twice; and an ID value given twice, whose meaning
// would depend on the reader. It also counts the declarations.
func (b Bounds) checkTree(root *etree.Element) error {
	ids, declarations := make(map[string]struct{}, 2), 0
	var walk func(el *etree.Element) error
	walk = func(el *etree.Element) error {
		if el.Space != "" && el.NamespaceURI() == "" {
			return errors.New("prefix without a declaration")
		}
		for i, a := range el.Attr {
			if a.Space == "xmlns" || a.Space == "" && a.Key == "xmlns" {
				if declarations++; declarations > b.Declarations {
					return fmt.Errorf("more than %d namespace declarations", b.Declarations)
				}
			} else if a.Space != "" && a.Space != "xml" && a.NamespaceURI() == "" {
				return errors.New("prefix without a declaration")
			}
			for _, other := range el.Attr[:i] {
				if a.Space == other.Space && a.Key == other.Key {
					return errors.New("attribute given twice")
				}
			}
			if a.Key == "ID" || a.Key == "Id" || a.Key == "id" {
				if _, twice := ids[a.Value]; twice {
					return errors.New("identifier given twice")
				}
				ids[a.Value] = struct{}{}
			}
		}
		for _, child := range el.Child {
			if c, ok := child.(*etree.Element); ok {
				if err := walk(c); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return walk(root)
}
