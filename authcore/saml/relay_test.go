package saml

import (
	"strings"
	"testing"

	"custode/authcore/saml/query"
)

// TestEndlessRelayState: by HTTP-POST nothing signs RelayState, and what is kept
// with every flow and every Response handed over must have a bound.
func TestEndlessRelayState(t *testing.T) {
	v, kit := testVerifier(t), spKit()
	doc := signPost(t, plainRequest, kit.key, kit.cert)
	for size, code := range map[int]Code{query.MaxRelayState: 0, query.MaxRelayState + 1: BadBinding} {
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

// TestClearLocations: a Response never crosses a network in clear, whatever an
// SP's metadata say.
func TestClearLocations(t *testing.T) {
	for location, want := range map[string]bool{
		"https://sp.example.it/acs": true, "http://localhost:8080/acs": true, "http://127.0.0.1/acs": true, "http://[::1]:1/acs": true,
		"http://sp.example.it/acs": false, "http://localhost.example.it/": false, "http://127.0.0.1.example.it/": false, "http://10.0.0.1/": false,
		"//sp.example.it/acs": false, "javascript://localhost/%0aalert(1)": false,
	} {
		if got := WebLocation(location); got != want {
			t.Errorf("%s: %v", location, got)
		}
	}
}
