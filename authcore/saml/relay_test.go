package saml

import (
	"strings"
	"testing"
)

// TestEndlessRelayState: by HTTP-POST nothing signs RelayState, and what is kept
// with every flow and every Response handed over must have a bound.
func TestEndlessRelayState(t *testing.T) {
	v, kit := testVerifier(t), spKit()
	doc := signPost(t, plainRequest, kit.key, kit.cert)
	for size, code := range map[int]Code{maxRelayState: 0, maxRelayState + 1: BadBinding} {
		relay := strings.Repeat("r", size)
		_, err := v.Post(b64(doc), []byte(relay), true, kitNow)
		if r := refusalOf(t, err); r.Code != code {
			t.Errorf("post, %d octets: code %d, want %d", size, r.Code, code)
		}
		_, err = v.Redirect([]byte(redirectTo(t, plainRequest, relay, kit.key)), kitNow)
		if r := refusalOf(t, err); r.Code != code {
			t.Errorf("redirect, %d octets: code %d, want %d", size, r.Code, code)
		}
	}
}
