package xmldoc

import (
	"errors"
	"unicode/utf8"
)

// Writer writes XML directly in exclusive canonical form, so that what is hashed
// is what is sent: no tree, no canonicaliser. The caller owes the form's order
// (namespace declarations by prefix, then attributes by name; each prefix
// declared at the outermost element that uses it) and writes markup as
// constants; Writer owes the escaping of values.
//
// The first value that XML cannot carry sets Err and everything written is to
// be thrown away.
type Writer struct {
	B   []byte // what was written
	Err error  // the first failure
}

// ErrCharacter is the error of a Writer that was given an unprintable value.
var ErrCharacter = errors.New("value has a character that XML cannot carry")

// Raw writes markup.
func (c *Writer) Raw(markup string) { c.B = append(c.B, markup...) }

// Text writes character data as Canonical XML 1.0, 2.3 (text nodes) escapes it.
func (c *Writer) Text(value string) { c.escape(value, false) }

// Attr writes one attribute with its leading blank.
func (c *Writer) Attr(name, value string) {
	c.B = append(c.B, ' ')
	c.B = append(c.B, name...)
	c.B = append(c.B, '=', '"')
	c.escape(value, true)
	c.B = append(c.B, '"')
}

// Element writes an element without attributes of its own.
func (c *Writer) Element(name, value string) {
	c.B = append(append(append(c.B, '<'), name...), '>')
	c.Text(value)
	c.B = append(append(append(c.B, '<', '/'), name...), '>')
}

func (c *Writer) escape(s string, attribute bool) {
	from := 0
	for i := 0; i < len(s); {
		r, size := rune(s[i]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(s[i:])
		}
		if (r == utf8.RuneError && size == 1) || !isXMLChar(r) {
			c.Err = ErrCharacter
			return
		}
		if ref := reference(r, attribute); ref != "" {
			c.B = append(append(c.B, s[from:i]...), ref...)
			from = i + size
		}
		i += size
	}
	c.B = append(c.B, s[from:]...)
}

// reference returns what stands for r, "" for itself.
func reference(r rune, attribute bool) string {
	switch r {
	case '&':
		return "&amp;"
	case '<':
		return "&lt;"
	case '\r':
		return "&#xD;"
	}
	if attribute {
		switch r {
		case '"':
			return "&quot;"
		case '\t':
			return "&#x9;"
		case '\n':
			return "&#xA;"
		}
	} else if r == '>' {
		return "&gt;"
	}
	return ""
}

// isXMLChar is production 2 of XML 1.0.
func isXMLChar(r rune) bool {
	return r >= 0x20 && r <= 0xD7FF || r == '\t' || r == '\n' || r == '\r' ||
		r >= 0xE000 && r <= 0xFFFD || r >= 0x10000 && r <= 0x10FFFF
}
