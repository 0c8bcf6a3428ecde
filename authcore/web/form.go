package web

import (
	"bytes"
	"strings"

	"custode/internal/fault"
)

// maxFields bounds the fields of a form or query; ours have at most four, a
// SAML form two, but service providers add names of their submit buttons.
const maxFields = 32

// parseForm decodes application/x-www-form-urlencoded octets strictly: a broken
// percent escape, a name that comes twice and more than maxFields fields are
// fault.Invalid. Values are kept octet by octet (RelayState is opaque).
func parseForm(b []byte) (map[string][]byte, error) {
	const op = "parse form"
	fields := map[string][]byte{}
	if bytes.Count(b, []byte("&")) >= maxFields {
		return nil, fault.Newf(fault.Invalid, op, "more than %d fields", maxFields)
	}
	for part := range bytes.SplitSeq(b, []byte("&")) {
		if len(part) == 0 {
			continue
		}
		k, v, _ := bytes.Cut(part, []byte("="))
		name, okName := unescape(k)
		value, okValue := unescape(v)
		if !okName || !okValue {
			return nil, fault.Newf(fault.Invalid, op, "broken percent escape")
		}
		if _, twice := fields[string(name)]; twice {
			return nil, fault.Newf(fault.Invalid, op, "a field comes twice")
		}
		fields[string(name)] = value
	}
	return fields, nil
}

// unescape decodes "+" and %XX; false for a broken escape. The result is never
// nil and never aliases b.
func unescape(b []byte) ([]byte, bool) {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '+':
			out = append(out, ' ')
		case '%':
			if i+2 >= len(b) {
				return nil, false
			}
			hi, ok1 := hexDigit(b[i+1])
			lo, ok2 := hexDigit(b[i+2])
			if !ok1 || !ok2 {
				return nil, false
			}
			out = append(out, hi<<4|lo)
			i += 2
		default:
			out = append(out, b[i])
		}
	}
	return out, true
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// isForm reports whether a Content-Type is the one of HTML forms, with or
// without parameters.
func isForm(contentType string) bool {
	t, _, _ := strings.Cut(contentType, ";")
	return strings.EqualFold(strings.TrimSpace(t), "application/x-www-form-urlencoded")
}
