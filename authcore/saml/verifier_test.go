package saml

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	dsig "github.com/russellhaering/goxmldsig"

	"custode/authcore/saml/query"
	"custode/internal/fault"
)

func vectorSPs(t testing.TB) spMap {
	t.Helper()
	sps := spMap{}
	for port := 4201; port <= 4206; port++ {
		sp, err := ParseSPMetadata(readFile(t, "vectors", fmt.Sprintf("passport-spid-metadata_port%d.xml", port)))
		if err != nil {
			t.Fatal(err)
		}
		sps[sp.EntityID.String()] = sp
	}
	return sps
}

func vectorVerifier(t testing.TB) *Verifier {
	t.Helper()
	v, err := NewVerifier(VerifierConfig{EntityID: mustEntity("http://localhost:8088"), RedirectLocation: "http://localhost:8088/sso",
		PostLocation: "http://localhost:8088/sso", StrictForceAuthn: true, SPs: vectorSPs(t)})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// vectorQuery returns the query of a recorded redirect URL.
func vectorQuery(t testing.TB, level int) []byte {
	t.Helper()
	_, query, ok := strings.Cut(string(readFile(t, "vectors", fmt.Sprintf("passport-spid-3.0.2_redirect_L%d.url", level))), "?")
	if !ok {
		t.Fatal("vector without query")
	}
	return []byte(strings.TrimSpace(query))
}

func vectorPost(t testing.TB, level int) string {
	t.Helper()
	return string(readFile(t, "vectors", fmt.Sprintf("passport-spid-3.0.2_post_L%d.xml", level)))
}

// TestVectors verifies what a real SP library sent, at each level and binding.
func TestVectors(t *testing.T) {
	v := vectorVerifier(t)
	now := time.Date(2026, 11, 21, 19, 5, 0, 0, time.UTC)
	for level := 1; level <= 3; level++ {
		for _, binding := range []Binding{Redirect, Post} {
			t.Run(fmt.Sprintf("L%d/binding%d", level, binding), func(t *testing.T) {
				port, relay, got, err := 4200+level, "", VerifiedRequest{}, error(nil)
				if binding == Redirect {
					port, relay = 4203+level, "RelayState"
					got, err = v.Redirect(vectorQuery(t, level), now)
				} else {
					got, err = v.Post(b64(vectorPost(t, level)), nil, false, now)
				}
				if err != nil {
					t.Fatal(err)
				}
				r := got.Request()
				want := Request{ID: r.ID, SP: mustEntity(fmt.Sprintf("http://localhost:%d", port)), IssueInstant: r.IssueInstant, Binding: binding,
					Level: Level(level), Comparison: Minimum, ForceAuthn: level > 1, ACS: fmt.Sprintf("http://localhost:%d/login/cb", port),
					HasAttributes: true, Attributes: []string{"spidCode", "email", "fiscalNumber"}, RelayState: relay, HasRelayState: relay != "", Raw: r.Raw}
				if diff := cmp.Diff(fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", r)); diff != "" {
					t.Error(diff)
				}
				if len(r.ID) != 41 || r.IssueInstant.After(now) || !strings.Contains(string(r.Raw), r.ID) || got.SP().Name("it") != "Comune di Prova" {
					t.Errorf("request %+v", r)
				}
			})
		}
	}
}

// TestVectorsMutated flips the recorded requests octet by octet, in a stride:
// none may pass as something else.
func TestVectorsMutated(t *testing.T) {
	v := vectorVerifier(t)
	now := time.Date(2026, 11, 21, 19, 5, 0, 0, time.UTC)
	original := vectorPost(t, 2)
	good, err := v.Post(b64(original), nil, false, now)
	if err != nil {
		t.Fatal(err)
	}
	want := good.Request()
	for i := 0; i < len(original); i += 7 {
		changed := []byte(original)
		changed[i] ^= 1
		got, err := v.Post(b64(string(changed)), nil, false, now)
		if err != nil {
			refusalOf(t, err)
			continue
		}
		// What still passes changed only octets the signature does not cover
		// (KeyInfo, the XML declaration): the values must be the same.
		r := got.Request()
		r.Raw = want.Raw
		if diff := cmp.Diff(fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", r)); diff != "" {
			t.Fatalf("octet %d (%q): %s", i, original[max(0, i-20):i+1], diff)
		}
	}
	query := vectorQuery(t, 2)
	for i := 0; i < len(query); i += 3 {
		changed := []byte(string(query))
		changed[i] ^= 1
		if got, err := v.Redirect(changed, now); err == nil {
			t.Fatalf("query octet %d passed: %+v", i, got.Request())
		}
	}
}

// ruleCases change the plain request; the code is the one after the signature,
// the same by both bindings.
var ruleCases = []struct {
	name, old, new string
	code           Code
}{
	{"good", "", "", 0},
	{"pretty issuer", ">https://sp.example.it</saml:Issuer>", ">\n  https://sp.example.it\n </saml:Issuer>", 0},
	{"pretty class", ">https://www.spid.gov.it/SpidL2<", ">\n https://www.spid.gov.it/SpidL2 <", 0},
	{"sso destination", `Destination="https://idp.example.it"`, `Destination="https://idp.example.it/sso/post"`, 0},
	{"no fraction", "19:04:59.500Z", "19:04:59Z", 0},
	{"nine digits", "19:04:59.500Z", "19:04:59.123456789Z", 0},
	{"ForceAuthn 1", `ForceAuthn="true"`, `ForceAuthn="1"`, 0},
	{"IsPassive false", `ForceAuthn="true"`, `ForceAuthn="true" IsPassive="0"`, 0},
	{"AllowCreate", "<samlp:NameIDPolicy ", `<samlp:NameIDPolicy AllowCreate="perhaps" SPNameQualifier="x" `, 0},
	{"Consent and ProviderName", ` ID="_r1"`, ` ID="_r1" Consent="urn:x" ProviderName="x"`, 0},
	{"ACS by URL", `AssertionConsumerServiceIndex="0"`, `AssertionConsumerServiceURL="https://sp.example.it/acs1" ProtocolBinding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"`, 0},
	{"no attribute service", ` AttributeConsumingServiceIndex="0"`, "", 0},
	{"purpose", "<samlp:NameIDPolicy ", `<samlp:Extensions xmlns:spid="https://spid.gov.it/saml-extensions"><spid:Purpose>PX</spid:Purpose></samlp:Extensions><samlp:NameIDPolicy `, 0},
	{"conditions ahead", "<samlp:RequestedAuthnContext ", `<saml:Conditions NotOnOrAfter="2026-11-21T19:10:00Z"/><samlp:RequestedAuthnContext `, 0},
	{"subject", "<samlp:NameIDPolicy ", `<saml:Subject><saml:NameID Format="urn:oasis:names:tc:SAML:2.0:nameid-format:unspecified" NameQualifier="https://sp.example.it">x</saml:NameID></saml:Subject><samlp:NameIDPolicy `, 0},

	{"no version", ` Version="2.0"`, "", BadVersion},
	{"version 1.1", `Version="2.0"`, `Version="1.1"`, BadVersion},
	{"version wins over all", `Version="2.0" IssueInstant="2026-11-21T19:04:59.500Z" Destination="https://idp.example.it"`, `Version="3"`, BadVersion},
	{"ID a number", `ID="_r1"`, `ID="1r"`, BadID},

	{"unknown attribute", ` ID="_r1"`, ` ID="_r1" Evil="x"`, NotConformant},
	{"unknown element", "<samlp:NameIDPolicy ", "<samlp:Evil/><samlp:NameIDPolicy ", NotConformant},
	{"text", "<samlp:NameIDPolicy ", "text<samlp:NameIDPolicy ", NotConformant},
	{"out of order", "</samlp:RequestedAuthnContext>", `</samlp:RequestedAuthnContext><saml:Conditions/>`, NotConformant},
	{"two policies", "<samlp:NameIDPolicy ", `<samlp:NameIDPolicy Format="urn:oasis:names:tc:SAML:2.0:nameid-format:transient"/><samlp:NameIDPolicy `, NotConformant},
	{"no ForceAuthn", ` ForceAuthn="true"`, "", NotConformant},
	{"ForceAuthn false", `ForceAuthn="true"`, `ForceAuthn="false"`, NotConformant},
	{"ForceAuthn yes", `ForceAuthn="true"`, `ForceAuthn="yes"`, NotConformant},
	{"IsPassive maybe", `ForceAuthn="true"`, `ForceAuthn="true" IsPassive="maybe"`, NotConformant},
	{"unknown purpose", "<samlp:NameIDPolicy ", `<samlp:Extensions xmlns:spid="https://spid.gov.it/saml-extensions"><spid:Purpose>Z</spid:Purpose></samlp:Extensions><samlp:NameIDPolicy `, NotConformant},
	{"subject persistent", "<samlp:NameIDPolicy ", `<saml:Subject><saml:NameID Format="urn:oasis:names:tc:SAML:2.0:nameid-format:persistent" NameQualifier="q">x</saml:NameID></saml:Subject><samlp:NameIDPolicy `, NotConformant},
	{"subject without qualifier", "<samlp:NameIDPolicy ", `<saml:Subject><saml:NameID Format="urn:oasis:names:tc:SAML:2.0:nameid-format:unspecified">x</saml:NameID></saml:Subject><samlp:NameIDPolicy `, NotConformant},
	{"subject named and confirmed", "<samlp:NameIDPolicy ", `<saml:Subject><saml:NameID Format="urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified" NameQualifier="q">x</saml:NameID><saml:SubjectConfirmation Method="x"/></saml:Subject><samlp:NameIDPolicy `, NotConformant},
	{"subject confirmed", "<samlp:NameIDPolicy ", `<saml:Subject><saml:SubjectConfirmation Method="x"/></saml:Subject><samlp:NameIDPolicy `, NotConformant},
	{"conditions malformed", "<samlp:RequestedAuthnContext ", `<saml:Conditions NotBefore="today"/><samlp:RequestedAuthnContext `, NotConformant},
	{"scoping malformed", "</samlp:RequestedAuthnContext>", `</samlp:RequestedAuthnContext><samlp:Scoping ProxyCount="-1"/>`, NotConformant},

	{"withdrawn level", "https://www.spid.gov.it/SpidL2", "urn:oasis:names:tc:SAML:2.0:ac:classes:SpidL2", BadAuthnContext},
	{"level 4", "SpidL2<", "SpidL4<", BadAuthnContext},
	{"comparison case", `"exact"`, `"Exact"`, BadAuthnContext},
	{"two classes", "</saml:AuthnContextClassRef>", "</saml:AuthnContextClassRef><saml:AuthnContextClassRef>https://www.spid.gov.it/SpidL3</saml:AuthnContextClassRef>", BadAuthnContext},
	{"better than 3", `exact"><saml:AuthnContextClassRef>https://www.spid.gov.it/SpidL2`, `better"><saml:AuthnContextClassRef>https://www.spid.gov.it/SpidL3`, BadAuthnContext},
	{"declaration", "saml:AuthnContextClassRef>https://www.spid.gov.it/SpidL2</saml:AuthnContextClassRef", "saml:AuthnContextDeclRef>https://www.spid.gov.it/SpidL2</saml:AuthnContextDeclRef", BadAuthnContext},
	{"two contexts", "</samlp:RequestedAuthnContext>", "</samlp:RequestedAuthnContext><samlp:RequestedAuthnContext><saml:AuthnContextClassRef>https://www.spid.gov.it/SpidL1</saml:AuthnContextClassRef></samlp:RequestedAuthnContext>", BadAuthnContext},

	{"no instant", ` IssueInstant="2026-11-21T19:04:59.500Z"`, "", BadIssueInstant},
	{"offset", "19:04:59.500Z", "20:04:59.500+01:00", BadIssueInstant},
	{"no zone", "19:04:59.500Z", "19:04:59.500", BadIssueInstant},
	{"comma", "19:04:59.500Z", "19:04:59,500Z", BadIssueInstant},
	{"ten digits", "19:04:59.500Z", "19:04:59.1234567890Z", BadIssueInstant},
	{"February 30", "2026-11-21T", "2026-02-30T", BadIssueInstant},
	{"old", "19:04:59.500Z", "18:59:59.000Z", BadIssueInstant},
	{"ahead", "19:04:59.500Z", "19:08:01.000Z", BadIssueInstant},
	{"conditions over", "<samlp:RequestedAuthnContext ", `<saml:Conditions NotOnOrAfter="2026-11-21T19:05:00.123456789Z"/><samlp:RequestedAuthnContext `, BadIssueInstant},

	{"no destination", ` Destination="https://idp.example.it"`, "", BadDestination},
	{"foreign destination", `Destination="https://idp.example.it"`, `Destination="https://idp.example.it/"`, BadDestination},
	{"passive", `ForceAuthn="true"`, `ForceAuthn="true" IsPassive="1"`, Passive},

	{"no ACS", ` AssertionConsumerServiceIndex="0"`, "", BadACS},
	{"ACS index unknown", `AssertionConsumerServiceIndex="0"`, `AssertionConsumerServiceIndex="9"`, BadACS},
	{"ACS index huge", `AssertionConsumerServiceIndex="0"`, `AssertionConsumerServiceIndex="65536"`, BadACS},
	{"ACS index and binding", `AssertionConsumerServiceIndex="0"`, `AssertionConsumerServiceIndex="0" ProtocolBinding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"`, BadACS},
	{"ACS index and URL", `AssertionConsumerServiceIndex="0"`, `AssertionConsumerServiceIndex="0" AssertionConsumerServiceURL="https://sp.example.it/acs" ProtocolBinding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"`, BadACS},
	{"ACS URL alone", `AssertionConsumerServiceIndex="0"`, `AssertionConsumerServiceURL="https://sp.example.it/acs"`, BadACS},
	{"ACS foreign URL", `AssertionConsumerServiceIndex="0"`, `AssertionConsumerServiceURL="https://evil.example.it/acs" ProtocolBinding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"`, BadACS},
	{"ACS artifact", `AssertionConsumerServiceIndex="0"`, `AssertionConsumerServiceURL="https://sp.example.it/acs" ProtocolBinding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Artifact"`, BadACS},

	{"no policy", `<samlp:NameIDPolicy Format="urn:oasis:names:tc:SAML:2.0:nameid-format:transient"/>`, "", BadNameIDPolicy},
	{"persistent", "nameid-format:transient", "nameid-format:persistent", BadNameIDPolicy},
	{"blank in format", "nameid-format:transient", "nameid-format:transient ", BadNameIDPolicy},
	{"service unknown", `AttributeConsumingServiceIndex="0"`, `AttributeConsumingServiceIndex="3"`, BadAttributeService},
	{"service negative", `AttributeConsumingServiceIndex="0"`, `AttributeConsumingServiceIndex="-1"`, BadAttributeService},

	{"no issuer format", ` Format="urn:oasis:names:tc:SAML:2.0:nameid-format:entity"`, "", BadIssuer},
	{"blank in issuer format", "nameid-format:entity", "nameid-format:entity ", BadIssuer},
	{"no qualifier", ` NameQualifier="https://sp.example.it"`, "", BadIssuer},
	{"unknown SP", ">https://sp.example.it<", ">https://nobody.example.it<", BadIssuer},
	{"two issuers", "<samlp:NameIDPolicy ", `<saml:Issuer Format="urn:oasis:names:tc:SAML:2.0:nameid-format:entity" NameQualifier="q">https://sp.example.it</saml:Issuer><samlp:NameIDPolicy `, BadIssuer},
}

func TestRules(t *testing.T) {
	v := testVerifier(t)
	for _, tc := range ruleCases {
		doc := plainRequest
		if tc.old != "" {
			doc = replace(t, doc, tc.old, tc.new)
		}
		t.Run("redirect/"+tc.name, func(t *testing.T) {
			got, err := v.Redirect([]byte(redirectTo(t, doc, "r &\"", spKit().key)), kitNow)
			checkRuleCase(t, tc.code, got, err)
		})
		t.Run("post/"+tc.name, func(t *testing.T) {
			signed := signPost(t, doc, spKit().key, spKit().cert)
			got, err := v.Post(b64(signed), []byte("r &\""), true, kitNow)
			checkRuleCase(t, tc.code, got, err)
		})
	}
}

func checkRuleCase(t *testing.T, want Code, got VerifiedRequest, err error) {
	t.Helper()
	refusal := refusalOf(t, err)
	if refusal.Code != want {
		t.Fatalf("code %d, want %d: %v", refusal.Code, want, err)
	}
	if err != nil && (got.SP() != nil || got.Request().ID != "") {
		t.Error("a refused request carries values")
	}
	reply := refusal.Reply
	if reply == nil {
		return
	}
	if reply.SP.String() != spEntity || reply.RelayState != "r &\"" || !reply.HasRelayState || reply.ACS != spEntity+"/acs" {
		t.Errorf("reply %+v", reply)
	}
	if (want == BadID) != (reply.InResponseTo == "") {
		t.Errorf("reply %+v", reply)
	}
	// Only an instant that is coherent with ours may pull the answer's forward.
	if late := kitNow.Add(3 * time.Minute); reply.RequestIssued.After(late) || (want > BadIssueInstant && reply.RequestIssued.IsZero()) {
		t.Errorf("reply %+v", reply)
	}
}

// TestMissingID needs its own signatures: without an ID the reference of a POST
// signature is the whole document.
func TestMissingID(t *testing.T) {
	v := testVerifier(t)
	doc := replace(t, plainRequest, ` ID="_r1"`, "")
	_, err := v.Redirect([]byte(redirectTo(t, doc, "-", spKit().key)), kitNow)
	if r := refusalOf(t, err); r.Code != BadID || r.Reply.InResponseTo != "" || r.Reply.HasRelayState {
		t.Errorf("redirect: %v %+v", err, r.Reply)
	}
	_, err = v.Post(b64(signPost(t, doc, spKit().key, spKit().cert)), nil, false, kitNow)
	if r := refusalOf(t, err); r.Code != BadID || r.Reply.InResponseTo != "" {
		t.Errorf("post: %v", err)
	}
}

func TestLenient(t *testing.T) {
	doc := replace(t, plainRequest, ` ForceAuthn="true"`, "")
	doc = replace(t, doc, "</samlp:RequestedAuthnContext>", `</samlp:RequestedAuthnContext><samlp:Scoping ProxyCount="2"/>`)
	query := []byte(redirectTo(t, doc, "-", spKit().key))
	if _, err := testVerifier(t, func(c *VerifierConfig) { c.StrictForceAuthn = false }).Redirect(query, kitNow); err != nil {
		t.Error(err)
	}
	malformed := replace(t, plainRequest, `ForceAuthn="true"`, `ForceAuthn="yes"`)
	_, err := testVerifier(t, func(c *VerifierConfig) { c.StrictForceAuthn = false }).Redirect([]byte(redirectTo(t, malformed, "-", spKit().key)), kitNow)
	if r := refusalOf(t, err); r.Code != NotConformant {
		t.Errorf("ForceAuthn malformed: %v", err)
	}
	_, err = testVerifier(t, func(c *VerifierConfig) { c.StrictForceAuthn, c.StrictScoping = false, true }).Redirect(query, kitNow)
	if r := refusalOf(t, err); r.Code != NotConformant {
		t.Errorf("strict scoping: %v", err)
	}
}

func TestRedirectBinding(t *testing.T) {
	v := testVerifier(t)
	key := spKit().key
	good := redirectTo(t, plainRequest, "r", key)
	param := func(name string) string {
		for p := range strings.SplitSeq(good, "&") {
			if strings.HasPrefix(p, name+"=") {
				return p
			}
		}
		t.Fatal(name)
		return ""
	}
	request, relay, alg, sig := param("SAMLRequest"), param("RelayState"), param("SigAlg"), param("Signature")
	resign := func(octets string, hash crypto.Hash) string {
		return octets + "&Signature=" + signQuery(t, octets, key, hash)
	}
	lower := strings.NewReplacer("%2B", "%2b", "%2F", "%2f", "%3D", "%3d", "%3A", "%3a").Replace
	packed := func(raw []byte) string {
		return resign("SAMLRequest="+url.QueryEscape(string(b64(string(raw))))+"&"+alg, crypto.SHA256)
	}
	bomb := packed(deflate(strings.Repeat(" ", 70<<10) + plainRequest))
	algNamed := func(uri string) string { return "SigAlg=" + url.QueryEscape(uri) }
	embedded := signPost(t, plainRequest, key, spKit().cert)
	for name, tc := range map[string]struct {
		query string
		code  Code
	}{
		"good":                    {good, 0},
		"order of parameters":     {strings.Join([]string{sig, alg, relay, request}, "&"), 0},
		"foreign parameter":       {good + "&lang=it", 0},
		"lower-case escapes":      {resign(lower(request+"&"+relay+"&"+alg), crypto.SHA256), 0},
		"plus not encoded":        {resign(strings.ReplaceAll(request, "%2B", "+")+"&"+alg, crypto.SHA256), 0},
		"empty RelayState":        {resign(request+"&RelayState=&"+alg, crypto.SHA256), 0},
		"sha512":                  {resign(request+"&"+algNamed("http://www.w3.org/2001/04/xmldsig-more#rsa-sha512"), crypto.SHA512), 0},
		"RelayState added":        {resign(request+"&"+alg, crypto.SHA256) + "&RelayState=", BadRedirectSig},
		"RelayState removed":      {request + "&" + alg + "&" + sig, BadRedirectSig},
		"re-encoded":              {lower(good), BadRedirectSig},
		"duplicate request":       {good + "&" + request, BadBinding},
		"duplicate RelayState":    {good + "&" + relay, BadBinding},
		"encoded name":            {strings.Replace(good, "SAMLRequest=", "SAML%52equest=", 1), BadBinding},
		"bad escape in a name":    {good + "&%zz=1", BadBinding},
		"encoded duplicate":       {good + "&Relay%53tate=x", BadBinding},
		"no request":              {alg + "&" + sig, BadBinding},
		"no signature":            {request + "&" + alg, BadBinding},
		"no algorithm":            {request + "&" + sig, BadBinding},
		"empty signature":         {request + "&" + alg + "&Signature=", BadRedirectSig},
		"bad escape":              {strings.Replace(good, "SAMLRequest=", "SAMLRequest=%zz", 1), BadBinding},
		"not base64":              {resign("SAMLRequest=!!&"+alg, crypto.SHA256), BadBinding},
		"not deflated":            {packed([]byte(plainRequest)), BadBinding},
		"octets after the stream": {packed(append(deflate(plainRequest), 0)), BadBinding},
		"bomb":                    {bomb, BadBinding},
		"query too long":          {good + "&x=" + strings.Repeat("x", 128<<10), BadBinding},
		"SAMLEncoding":            {good + "&SAMLEncoding=" + url.QueryEscape(query.EncodingDeflate), 0},
		"other SAMLEncoding":      {good + "&SAMLEncoding=urn%3Ax", BadBinding},
		"stream cut short":        {packed(deflate(plainRequest)[:60]), BadBinding},
		"with response":           {good + "&SAMLResponse=x", BadBinding},
		"sha1":                    {resign(request+"&"+algNamed("http://www.w3.org/2000/09/xmldsig#rsa-sha1"), crypto.SHA1), BadRedirectSig},
		"sha224":                  {resign(request+"&"+algNamed("http://www.w3.org/2001/04/xmldsig-more#rsa-sha224"), crypto.SHA224), BadRedirectSig},
		"hmac":                    {resign(request+"&"+algNamed("http://www.w3.org/2001/04/xmldsig-more#hmac-sha256"), crypto.SHA256), BadRedirectSig},
		"ecdsa":                   {resign(request+"&"+algNamed("http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256"), crypto.SHA256), BadRedirectSig},
		"algorithm of other hash": {resign(request+"&"+alg, crypto.SHA512), BadRedirectSig},
		"key of another SP":       {redirectTo(t, plainRequest, "r", otherKit().key), BadRedirectSig},
		"embedded signature":      {redirectTo(t, embedded, "r", key), BadRedirectSig},
		"doctype":                 {redirectTo(t, "<!DOCTYPE x>"+plainRequest, "r", key), BadBinding},
		"other root":              {redirectTo(t, strings.ReplaceAll(plainRequest, "AuthnRequest", "LogoutRequest"), "r", key), BadBinding},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := v.Redirect([]byte(tc.query), kitNow)
			if r := refusalOf(t, err); r.Code != tc.code {
				t.Errorf("code %d, want %d: %v", r.Code, tc.code, err)
			}
		})
	}
	got, err := v.Redirect([]byte(redirectTo(t, plainRequest, "è+ /\x00", key)), kitNow)
	if err != nil || got.Request().RelayState != "è+ /\x00" {
		t.Errorf("RelayState %q, %v", got.Request().RelayState, err)
	}
}

func TestCertificates(t *testing.T) {
	key := spKit().key
	expired := selfSigned(key, kitNow.AddDate(-2, 0, 0), kitNow.AddDate(-1, 0, 0))
	future := selfSigned(key, kitNow.AddDate(1, 0, 0), kitNow.AddDate(2, 0, 0))
	short := newSignerKit(1024, kitNow.AddDate(-1, 0, 0), kitNow.AddDate(1, 0, 0))
	other := otherKit().cert
	for name, tc := range map[string]struct {
		certs []*x509.Certificate
		kit   signerKit
		ok    bool
	}{
		"roll-over, new second": {[]*x509.Certificate{other, spKit().cert}, spKit(), true},
		"roll-over, new first":  {[]*x509.Certificate{spKit().cert, other}, spKit(), true},
		"expired spare":         {[]*x509.Certificate{expired, spKit().cert}, spKit(), true},
		"same key, other cert":  {[]*x509.Certificate{selfSigned(key, kitNow.AddDate(-1, 0, 0), kitNow.AddDate(3, 0, 0))}, spKit(), true},
		"expired":               {[]*x509.Certificate{expired}, spKit(), false},
		"not yet valid":         {[]*x509.Certificate{future}, spKit(), false},
		"short key":             {[]*x509.Certificate{short.cert}, short, false},
		"foreign":               {[]*x509.Certificate{other}, spKit(), false},
		"none":                  {nil, spKit(), false},
	} {
		t.Run(name, func(t *testing.T) {
			v := testVerifier(t, func(c *VerifierConfig) { c.SPs = spMap{spEntity: testSP(tc.certs...)} })
			_, err := v.Redirect([]byte(redirectTo(t, plainRequest, "-", tc.kit.key)), kitNow)
			if r := refusalOf(t, err); (r.Code == 0) != tc.ok || (!tc.ok && r.Code != BadRedirectSig) {
				t.Errorf("redirect: %v", err)
			}
			_, err = v.Post(b64(signPost(t, plainRequest, tc.kit.key, tc.kit.cert)), nil, false, kitNow)
			if r := refusalOf(t, err); (r.Code == 0) != tc.ok || (!tc.ok && r.Code != BadPostSig) {
				t.Errorf("post: %v", err)
			}
		})
	}
}

func TestMetadataNoLongerValid(t *testing.T) {
	sp := testSP(spKit().cert)
	sp.ValidUntil = kitNow.Add(-time.Second)
	v := testVerifier(t, func(c *VerifierConfig) { c.SPs = spMap{spEntity: sp} })
	_, err := v.Redirect([]byte(redirectTo(t, plainRequest, "-", spKit().key)), kitNow)
	if r := refusalOf(t, err); r.Code != BadIssuer {
		t.Error(err)
	}
}

// TestPostAlgorithms signs properly, with what SPID does not allow.
func TestPostAlgorithms(t *testing.T) {
	v := testVerifier(t)
	for name, tc := range map[string]struct {
		change func(*dsig.SigningContext)
		code   Code
	}{
		"sha256": {func(*dsig.SigningContext) {}, 0},
		"sha384": {func(c *dsig.SigningContext) { c.Hash = crypto.SHA384 }, 0},
		"sha512": {func(c *dsig.SigningContext) { c.Hash = crypto.SHA512 }, 0},
		"sha1":   {func(c *dsig.SigningContext) { c.Hash = crypto.SHA1 }, BadPostSig},
		"comments": {func(c *dsig.SigningContext) {
			c.Canonicalizer = dsig.MakeC14N10ExclusiveWithCommentsCanonicalizerWithPrefixList("")
		}, BadPostSig},
		"inclusive": {func(c *dsig.SigningContext) { c.Canonicalizer = dsig.MakeC14N10RecCanonicalizer() }, BadPostSig},
		"c14n 1.1":  {func(c *dsig.SigningContext) { c.Canonicalizer = dsig.MakeC14N11Canonicalizer() }, BadPostSig},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := v.Post(b64(signPost(t, plainRequest, spKit().key, spKit().cert, tc.change)), nil, false, kitNow)
			if r := refusalOf(t, err); r.Code != tc.code {
				t.Errorf("code %d, want %d: %v", r.Code, tc.code, err)
			}
		})
	}
}

func TestDefaultACS(t *testing.T) {
	sp := testSP(spKit().cert)
	sp.ACS = []ACS{{3, spEntity + "/three", false}, {5, spEntity + "/five", false}}
	v := testVerifier(t, func(c *VerifierConfig) { c.SPs = spMap{spEntity: sp} })
	query := []byte(redirectTo(t, plainRequest, "-", spKit().key)) // asks for index 0
	_, err := v.Redirect(query, kitNow)
	if r := refusalOf(t, err); r.Code != BadACS || r.Reply.ACS != spEntity+"/three" {
		t.Errorf("lowest index: %v %+v", err, r.Reply)
	}
	sp.ACS[1].Default = true
	_, err = v.Redirect(query, kitNow)
	if r := refusalOf(t, err); r.Code != BadACS || r.Reply.ACS != spEntity+"/five" {
		t.Errorf("default: %v %+v", err, r.Reply)
	}
	// An error of another kind goes to the ACS that was properly asked for.
	doc := replace(t, replace(t, plainRequest, `ServiceIndex="0" Attr`, `ServiceIndex="3" Attr`), `Version="2.0"`, `Version="1.0"`)
	_, err = v.Redirect([]byte(redirectTo(t, doc, "-", spKit().key)), kitNow)
	if r := refusalOf(t, err); r.Code != BadVersion || r.Reply.ACS != spEntity+"/three" || r.Reply.InResponseTo != "_r1" {
		t.Errorf("asked for: %v %+v", err, r.Reply)
	}
	sp.ACS = nil
	_, err = v.Redirect(query, kitNow)
	if r := refusalOf(t, err); r.Code != SystemError {
		t.Errorf("nowhere to answer: %v", err)
	}
}

func TestNewVerifier(t *testing.T) {
	good := VerifierConfig{EntityID: mustEntity(idpEntity), RedirectLocation: idpRedirect, PostLocation: idpPost, SPs: spMap{}}
	if _, err := NewVerifier(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*VerifierConfig){
		"no entity": func(c *VerifierConfig) { c.EntityID = Request{}.SP }, "no redirect": func(c *VerifierConfig) { c.RedirectLocation = "" },
		"no post": func(c *VerifierConfig) { c.PostLocation = "" }, "no SPs": func(c *VerifierConfig) { c.SPs = nil },
		"skew": func(c *VerifierConfig) { c.PastSkew = -1 },
	} {
		c := good
		change(&c)
		if _, err := NewVerifier(c); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestInstantWindow asks at the edges of the tolerance.
func TestInstantWindow(t *testing.T) {
	query := []byte(redirectTo(t, plainRequest, "-", spKit().key))
	issued := time.Date(2026, 11, 21, 19, 4, 59, 500_000_000, time.UTC)
	for _, tc := range []struct {
		now  time.Time
		code Code
	}{
		{issued.Add(5 * time.Minute), 0}, {issued.Add(5*time.Minute + 1), BadIssueInstant},
		{issued.Add(-3 * time.Minute), 0}, {issued.Add(-3*time.Minute - 1), BadIssueInstant},
	} {
		_, err := testVerifier(t).Redirect(query, tc.now)
		r := refusalOf(t, err)
		if r.Code != tc.code || (r.Reply != nil && !r.Reply.RequestIssued.IsZero()) {
			t.Errorf("at %v: %v", tc.now, err)
		}
	}
}

// TestSnapshotNotShared: a flow may keep and change what it was given.
func TestSnapshotNotShared(t *testing.T) {
	v := testVerifier(t)
	query := []byte(redirectTo(t, plainRequest, "-", spKit().key))
	first, err := v.Redirect(query, kitNow)
	if err != nil {
		t.Fatal(err)
	}
	first.Request().Attributes[0] = "changed"
	clear(query)
	if first.Request().ID != "_r1" || first.SP().Services[0].Attributes[0] != "spidCode" {
		t.Error("the request shares memory with the metadata or the query")
	}
}

// TestConcurrent: one verifier serves all connections, whatever the others sent.
func TestConcurrent(t *testing.T) {
	v := testVerifier(t)
	query := []byte(redirectTo(t, plainRequest, "-", spKit().key))
	post := b64(signPost(t, plainRequest, spKit().key, spKit().cert))
	cut := []byte("SAMLRequest=" + url.QueryEscape(string(b64(string(deflate(plainRequest)[:60])))) + "&SigAlg=x&Signature=AAAA")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 25 {
				if got, err := v.Redirect(query, kitNow); err != nil || got.Request().ID != "_r1" {
					t.Error(err)
				}
				if _, err := v.Redirect(cut, kitNow); err == nil {
					t.Error("half a stream passed")
				}
				if _, err := v.Redirect(append([]byte("SAMLRequest=AAAA&"), query...), kitNow); err == nil {
					t.Error("duplicate passed")
				}
				if _, err := v.Post(post, nil, false, kitNow); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
