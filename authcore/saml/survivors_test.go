package saml

import (
	"crypto/x509"
	"encoding/hex"
	"strings"
	"testing"

	"custode/authcore/saml/xmldoc"
)

// What these tests ask is what mutants of the verifier got past the others.

// TestAbsentComparison: SAML Core 3.3.2.2.1: absent means exact.
func TestAbsentComparison(t *testing.T) {
	doc := replace(t, plainRequest, ` Comparison="exact"`, "")
	got, err := testVerifier(t).Redirect([]byte(redirectTo(t, doc, "-", spKit().key)), kitNow)
	if err != nil || got.Request().Comparison != Exact {
		t.Errorf("comparison %d, %v", got.Request().Comparison, err)
	}
}

// TestEndlessPost: white space may stand in base64, but not without end.
func TestEndlessPost(t *testing.T) {
	v := testVerifier(t)
	field := b64(signPost(t, plainRequest, spKit().key, spKit().cert))
	for size, code := range map[int]Code{2 * requestBounds.Bytes: 0, 2*requestBounds.Bytes + 1: BadBinding} {
		_, err := v.Post(append([]byte(strings.Repeat("\n", size-len(field))), field...), nil, false, kitNow)
		if r := refusalOf(t, err); r.Code != code {
			t.Errorf("%d octets: code %d, want %d", size, r.Code, code)
		}
	}
}

// TestLookupOfAnother: a registry that returns somebody else is not believed.
func TestLookupOfAnother(t *testing.T) {
	v := testVerifier(t, func(c *VerifierConfig) {
		other := testSP(spKit().cert)
		other.EntityID = mustEntity("https://other.example.it")
		c.SPs = spMap{spEntity: other}
	})
	_, err := v.Redirect([]byte(redirectTo(t, plainRequest, "-", spKit().key)), kitNow)
	if r := refusalOf(t, err); r.Code != BadIssuer {
		t.Errorf("code %d: %v", r.Code, err)
	}
}

// TestRefusalNamesTheSP: the page that carries an error Response names who asked.
func TestRefusalNamesTheSP(t *testing.T) {
	v := testVerifier(t, func(c *VerifierConfig) {
		sp := testSP(spKit().cert)
		sp.DisplayName = map[string]string{"it": "Comune di Prova"}
		c.SPs = spMap{spEntity: sp}
	})
	_, err := v.Redirect([]byte(redirectTo(t, replace(t, plainRequest, "SpidL2<", "SpidL9<"), "-", spKit().key)), kitNow)
	if r := refusalOf(t, err); r.Code != BadAuthnContext || r.SPName["it"] != "Comune di Prova" {
		t.Errorf("%+v", r)
	}
}

// TestUnusableACSAndAnotherFault: the Response about the earlier fault has to go
// somewhere: to the default.
func TestUnusableACSAndAnotherFault(t *testing.T) {
	doc := replace(t, replace(t, plainRequest, `AssertionConsumerServiceIndex="0"`, `AssertionConsumerServiceIndex="99"`), `Version="2.0"`, `Version="3.0"`)
	_, err := testVerifier(t).Redirect([]byte(redirectTo(t, doc, "-", spKit().key)), kitNow)
	if r := refusalOf(t, err); r.Code != BadVersion || r.Reply == nil || r.Reply.ACS != defaultACS(testSP()) {
		t.Errorf("%+v", r)
	}
}

// TestVerifiedIsReadAgain: what a verified signature covers is a tree of its own,
// read from the digested octets, without the signature; what was parsed first
// is not used on.
func TestVerifiedIsReadAgain(t *testing.T) {
	root, err := parseRequest([]byte(signPost(t, plainRequest, spKit().key, spKit().cert)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := xmldoc.VerifyEnveloped(root, 1, []*x509.Certificate{spKit().cert}, kitNow)
	if err != nil {
		t.Fatal(err)
	}
	if got == root || xmldoc.CountSignatures(got) != 0 || xmldoc.CountSignatures(root) != 1 {
		t.Error("the element that arrived is the one that is used")
	}
}

// TestEncodedParameterNames: a name that only some readers take for SAML's is
// ambiguous, and the signature covers the plain one.
func TestEncodedParameterNames(t *testing.T) {
	v, q := testVerifier(t), redirectTo(t, plainRequest, "torna", spKit().key)
	for _, name := range []string{"SAMLRequest", "RelayState", "SigAlg", "Signature"} {
		encoded := replace(t, q, name+"=", name[:1]+"%"+hex.EncodeToString([]byte(name[1:2]))+name[2:]+"=")
		_, err := v.Redirect([]byte(encoded), kitNow)
		if r := refusalOf(t, err); r.Code != BadBinding {
			t.Errorf("%s: code %d: %v", name, r.Code, err)
		}
	}
}
