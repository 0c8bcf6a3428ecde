package saml

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// expensiveRequest carries a good SP's signature over another document, made so
// that canonicalising costs as much as the bounds let it: many prefixes in
// scope of many elements. Anybody can have such a signature: a visit to the SP
// gives it.
func expensiveRequest(t testing.TB, levels, prefixes, fill int) string {
	t.Helper()
	signed := signPost(t, plainRequest, spKit().key, spKit().cert)
	sig := regexp.MustCompile(`(?s)<ds:Signature .*</ds:Signature>`).FindString(signed)
	head, tail, _ := strings.Cut(strings.Replace(signed, sig, "", 1), "<samlp:NameIDPolicy")
	var open, end strings.Builder
	for l := range levels {
		open.WriteString("<a")
		for p := range prefixes {
			fmt.Fprintf(&open, ` xmlns:%c%c="u"`, 'a'+l, '\u4e00'+p)
		}
		open.WriteString(">")
		end.WriteString("</a>")
	}
	doc := head + sig + "<samlp:Extensions>" + open.String() + "@" + end.String() + "</samlp:Extensions><samlp:NameIDPolicy" + tail
	return strings.Replace(doc, "@", strings.Repeat("<b/>", fill), 1)
}

// TestExpensiveRequest: what could be expensive is refused before it is.
func TestExpensiveRequest(t *testing.T) {
	v := testVerifier(t)
	for _, tc := range []struct {
		levels, prefixes, fill int
		code                   Code
	}{
		{0, 0, 10_000, BadBinding}, {12, 60, 0, BadBinding}, {12, 60, 10_000, BadBinding}, {1, 63, 100, BadBinding},
		{8, 6, 200, BadPostSig}, // the most that passes the bounds and meets the canonicaliser
	} {
		start := time.Now()
		_, err := v.Post(b64(expensiveRequest(t, tc.levels, tc.prefixes, tc.fill)), nil, false, kitNow)
		t.Logf("%+v: %v, %v", tc, time.Since(start), err)
		if r := refusalOf(t, err); r.Code != tc.code {
			t.Errorf("%+v: code %d", tc, r.Code)
		}
	}
}
