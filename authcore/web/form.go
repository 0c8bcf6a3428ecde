package web

import (
	"bytes"
	"net/url"
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
		name, errName := url.QueryUnescape(string(k))
		value, errValue := url.QueryUnescape(string(v))
		if errName != nil || errValue != nil { // they quote the value
			return nil, fault.Newf(fault.Invalid, op, "broken percent escape")
		}
		if _, twice := fields[name]; twice {
			return nil, fault.Newf(fault.Invalid, op, "a field comes twice")
		}
		fields[name] = []byte(value)
	}
	return fields, nil
}

// isForm reports whether a Content-Type is the one of HTML forms, with or
// without parameters.
func isForm(contentType string) bool {
	t, _, _ := strings.Cut(contentType, ";")
	return strings.EqualFold(strings.TrimSpace(t), "application/x-www-form-urlencoded")
}
