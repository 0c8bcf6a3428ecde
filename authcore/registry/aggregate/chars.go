package aggregate

import (
	"bytes"
	"errors"
	"strconv"
	"unicode/utf8"
)

var errCharacter = errors.New("character that XML does not allow")

// special marks the octets that character data or attribute values cannot be
// copied with as they are.
var special = func() (t [256]bool) {
	for c := range t {
		t[c] = c < 0x20 || c >= 0x80
	}
	for _, c := range `&<>"` {
		t[c] = true
	}
	t['\n'] = false // as it is in text; values are looked at by decodeValue
	return t
}()

// isXMLChar is production 2 of XML 1.0.
func isXMLChar(r rune) bool {
	return r >= 0x20 && r <= 0xD7FF || r == '\t' || r == '\n' || r == '\r' ||
		r >= 0xE000 && r <= 0xFFFD || r >= 0x10000 && r <= 0x10FFFF
}

// appendText appends the canonical form of character data (Canonical XML 1.0,
// 2.3) and returns how much of raw it took: less than everything only when last
// is false and raw ends inside a character, a reference or a line end.
func appendText(out, raw []byte, last bool) ([]byte, int, error) {
	i := 0
	for i < len(raw) {
		j := i
		for j < len(raw) && !special[raw[j]] {
			j++
		}
		out = append(out, raw[i:j]...)
		if i = j; i == len(raw) {
			break
		}
		switch c := raw[i]; {
		case c == '\t' || c == '"':
			out = append(out, c)
			i++
		case c == '>':
			out = append(out, "&gt;"...)
			i++
		case c == '\r':
			if i+1 == len(raw) && !last {
				return out, i, nil
			}
			if i+1 == len(raw) || raw[i+1] != '\n' {
				out = append(out, '\n')
			}
			i++
		case c == '&':
			r, n, err := reference(raw[i:])
			if n == 0 && !last && len(raw)-i < maxReference {
				return out, i, nil
			}
			if err != nil {
				return out, i, err
			}
			out = appendRune(out, r, false)
			i += n
		case c >= 0x80:
			if !last && !utf8.FullRune(raw[i:]) {
				return out, i, nil
			}
			r, n := utf8.DecodeRune(raw[i:])
			if r == utf8.RuneError && n == 1 || !isXMLChar(r) {
				return out, i, errCharacter
			}
			out = append(out, raw[i:i+n]...)
			i += n
		default:
			return out, i, errCharacter
		}
	}
	return out, i, nil
}

// appendValue appends the canonical form of an attribute value, given as it
// stands between the quotes (XML 1.0, 3.3.3, for an attribute without
// declaration; Canonical XML 1.0, 2.3).
func appendValue(out, raw []byte) ([]byte, error) {
	return eachOfValue(out, raw, func(out []byte, r rune) []byte { return appendRune(out, r, true) })
}

// decodeValue returns the attribute's value.
func decodeValue(raw []byte) (string, error) {
	v, err := eachOfValue(nil, raw, utf8.AppendRune)
	return string(v), err
}

func eachOfValue(out, raw []byte, add func([]byte, rune) []byte) ([]byte, error) {
	for i := 0; i < len(raw); {
		j := i
		for j < len(raw) && (!special[raw[j]] && raw[j] != '\n' || raw[j] == '>') {
			j++
		}
		out = append(out, raw[i:j]...)
		if i = j; i == len(raw) {
			break
		}
		switch c := raw[i]; {
		case c == '\t' || c == '\n' || c == '\r':
			if c != '\n' || i == 0 || raw[i-1] != '\r' {
				out = append(out, ' ')
			}
			i++
		case c == '"':
			out = add(out, '"')
			i++
		case c == '&':
			r, n, err := reference(raw[i:])
			if err != nil {
				return out, err
			}
			out = add(out, r)
			i += n
		case c >= 0x80:
			r, n := utf8.DecodeRune(raw[i:])
			if r == utf8.RuneError && n == 1 || !isXMLChar(r) {
				return out, errCharacter
			}
			out = append(out, raw[i:i+n]...)
			i += n
		default:
			return out, errCharacter
		}
	}
	return out, nil
}

// maxReference is longer than any reference needs to be, octets.
const maxReference = 16

// reference decodes the reference that raw begins with and returns its length,
// 0 when it has no end within maxReference.
func reference(raw []byte) (rune, int, error) {
	end := bytes.IndexByte(raw[:min(len(raw), maxReference)], ';')
	if end < 0 {
		return 0, 0, errors.New("'&' that is no reference")
	}
	switch name := string(raw[1:end]); name {
	case "amp":
		return '&', end + 1, nil
	case "lt":
		return '<', end + 1, nil
	case "gt":
		return '>', end + 1, nil
	case "quot":
		return '"', end + 1, nil
	case "apos":
		return '\'', end + 1, nil
	default:
		if len(name) < 2 || name[0] != '#' {
			return 0, end + 1, errors.New("entity that XML does not define")
		}
		digits, base := name[1:], 10
		if digits[0] == 'x' {
			digits, base = digits[1:], 16
		}
		n, err := strconv.ParseUint(digits, base, 32)
		if err != nil || !isXMLChar(rune(n)) || n > utf8.MaxRune {
			return 0, end + 1, errCharacter
		}
		return rune(n), end + 1, nil
	}
}

// appendRune appends a character as canonical form escapes it.
func appendRune(out []byte, r rune, attribute bool) []byte {
	switch r {
	case '&':
		return append(out, "&amp;"...)
	case '<':
		return append(out, "&lt;"...)
	case '\r':
		return append(out, "&#xD;"...)
	}
	if attribute {
		switch r {
		case '"':
			return append(out, "&quot;"...)
		case '\t':
			return append(out, "&#x9;"...)
		case '\n':
			return append(out, "&#xA;"...)
		}
	} else if r == '>' {
		return append(out, "&gt;"...)
	}
	return utf8.AppendRune(out, r)
}
