package saml

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"
)

const (
	spidExtensions = `<samlp:Extensions xmlns:spid="https://spid.gov.it/saml-extensions">`
	unspecified    = "urn:oasis:names:tc:SAML:2.0:nameid-format:unspecified"
)

// TestOpenPoints: each decision that the rules leave to us, both ways.
func TestOpenPoints(t *testing.T) {
	for _, tc := range []struct {
		name, old, new string
		change         func(*VerifierConfig)
		normal, turned Code
		check          func(Request) bool
	}{
		{"subject persistent", "<samlp:NameIDPolicy ", `<saml:Subject><saml:NameID Format="urn:oasis:names:tc:SAML:2.0:nameid-format:persistent">x</saml:NameID></saml:Subject><samlp:NameIDPolicy `,
			func(c *VerifierConfig) { c.LenientSubject = true }, NotConformant, 0, nil},
		{"subject confirmed", "<samlp:NameIDPolicy ", `<saml:Subject><saml:SubjectConfirmation Method="x"/></saml:Subject><samlp:NameIDPolicy `,
			func(c *VerifierConfig) { c.LenientSubject = true }, NotConformant, 0, nil},
		{"two subjects", "<samlp:NameIDPolicy ", `<saml:Subject/><saml:Subject/><samlp:NameIDPolicy `,
			func(c *VerifierConfig) { c.LenientSubject = true }, NotConformant, NotConformant, nil},
		{"unknown purpose", "<samlp:NameIDPolicy ", spidExtensions + `<spid:Purpose>Z</spid:Purpose></samlp:Extensions><samlp:NameIDPolicy `,
			func(c *VerifierConfig) { c.LenientPurpose = true }, NotConformant, 0, func(r Request) bool { return r.Purpose == "" }},
		{"purpose in lower case", "<samlp:NameIDPolicy ", spidExtensions + `<spid:Purpose>lp</spid:Purpose></samlp:Extensions><samlp:NameIDPolicy `,
			func(c *VerifierConfig) { c.LenientPurpose = true }, NotConformant, 0, func(r Request) bool { return r.Purpose == "" }},
		{"empty purpose", "<samlp:NameIDPolicy ", spidExtensions + `<spid:Purpose/></samlp:Extensions><samlp:NameIDPolicy `,
			func(c *VerifierConfig) { c.LenientPurpose = true }, NotConformant, 0, func(r Request) bool { return r.Purpose == "" }},
		{"two purposes, one unknown", "<samlp:NameIDPolicy ", spidExtensions + `<spid:Purpose>Z</spid:Purpose><spid:Purpose>LP</spid:Purpose></samlp:Extensions><samlp:NameIDPolicy `,
			func(c *VerifierConfig) { c.LenientPurpose = true }, NotConformant, NotConformant, nil},
		{"better than 3", `exact"><saml:AuthnContextClassRef>https://www.spid.gov.it/SpidL2`, `better"><saml:AuthnContextClassRef>https://www.spid.gov.it/SpidL3`,
			func(c *VerifierConfig) { c.LenientBetter = true }, BadAuthnContext, 0, func(r Request) bool { return r.Level == L3 && r.Comparison == Better }},
		{"proxy count 1", "</samlp:RequestedAuthnContext>", `</samlp:RequestedAuthnContext><samlp:Scoping ProxyCount="1"><samlp:RequesterID>x</samlp:RequesterID></samlp:Scoping>`,
			func(c *VerifierConfig) { c.StrictScoping = true }, 0, NotConformant, nil},
		{"proxy count 0", "</samlp:RequestedAuthnContext>", `</samlp:RequestedAuthnContext><samlp:Scoping ProxyCount="0"/>`,
			func(c *VerifierConfig) { c.StrictScoping = true }, 0, 0, nil},
		{"no ForceAuthn", ` ForceAuthn="true"`, "", func(c *VerifierConfig) { c.StrictForceAuthn = false }, NotConformant, 0, func(r Request) bool { return !r.ForceAuthn }},
		{"ForceAuthn 0", `ForceAuthn="true"`, `ForceAuthn="0"`, func(c *VerifierConfig) { c.StrictForceAuthn = false }, NotConformant, 0, func(r Request) bool { return !r.ForceAuthn }},
		{"eight minutes old", "19:04:59.500Z", "18:57:00Z", func(c *VerifierConfig) { c.PastSkew = 10 * time.Minute }, BadIssueInstant, 0, nil},
		{"two minutes ahead", "19:04:59.500Z", "19:07:00Z", func(c *VerifierConfig) { c.FutureSkew = time.Minute }, 0, BadIssueInstant, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			query := []byte(redirectTo(t, replace(t, plainRequest, tc.old, tc.new), "-", spKit().key))
			for _, way := range []struct {
				v    *Verifier
				code Code
			}{{testVerifier(t), tc.normal}, {testVerifier(t, tc.change), tc.turned}} {
				got, err := way.v.Redirect(query, kitNow)
				if r := refusalOf(t, err); r.Code != way.code {
					t.Errorf("code %d, want %d: %v", r.Code, way.code, err)
				} else if r.Code == 0 && tc.check != nil && !tc.check(got.Request()) {
					t.Errorf("request %+v", got.Request())
				}
			}
		})
	}
}

// moreRules are rows of the element rules beyond ruleCases: the code is the same
// by both bindings.
var moreRules = []struct {
	name, old, new string
	code           Code
}{
	{"ForceAuthn with blanks", `ForceAuthn="true"`, `ForceAuthn=" 1 "`, 0},
	{"ForceAuthn capital", `ForceAuthn="true"`, `ForceAuthn="True"`, NotConformant},
	{"IsPassive true", `ForceAuthn="true"`, `ForceAuthn="true" IsPassive="true"`, Passive},
	{"IsPassive false", `ForceAuthn="true"`, `ForceAuthn="true" IsPassive="false"`, 0},
	{"issuer in tabs", ">https://sp.example.it</saml:Issuer>", ">\t\r\nhttps://sp.example.it\t</saml:Issuer>", 0},
	{"issuer in other blanks", ">https://sp.example.it</saml:Issuer>", ">\u00a0https://sp.example.it</saml:Issuer>", BadIssuer},
	{"issuer empty", ">https://sp.example.it</saml:Issuer>", "> </saml:Issuer>", BadIssuer},
	{"issuer in another case", ">https://sp.example.it</saml:Issuer>", ">https://SP.example.it</saml:Issuer>", BadIssuer},
	{"qualifier blank", `NameQualifier="https://sp.example.it"`, `NameQualifier=" "`, BadIssuer},
	{"qualifier no URI", `NameQualifier="https://sp.example.it"`, `NameQualifier="https://sp.example.it/%zz"`, BadIssuer},
	{"root in another namespace", `xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol"`, `xmlns:samlp="urn:oasis:names:tc:SAML:1.0:protocol"`, BadBinding},
	{"ACS index in blanks", `AssertionConsumerServiceIndex="0"`, `AssertionConsumerServiceIndex=" 0 "`, 0},
	{"service index in blanks", `AttributeConsumingServiceIndex="0"`, `AttributeConsumingServiceIndex=" 0 "`, 0},
	{"qualifier another", `NameQualifier="https://sp.example.it"`, `NameQualifier="urn:other"`, 0},
	{"issuer in another namespace", "<saml:Issuer ", `<saml:Issuer xmlns:saml="urn:x" `, BadIssuer},
	{"class in tabs", ">https://www.spid.gov.it/SpidL2<", ">\t\r\nhttps://www.spid.gov.it/SpidL2\t<", 0},
	{"class in another case", ">https://www.spid.gov.it/SpidL2<", ">https://www.spid.gov.it/spidl2<", BadAuthnContext},
	{"class without www", ">https://www.spid.gov.it/SpidL2<", ">https://spid.gov.it/SpidL2<", BadAuthnContext},
	{"class empty", ">https://www.spid.gov.it/SpidL2<", "><", BadAuthnContext},
	{"comparison empty", `Comparison="exact"`, `Comparison=""`, BadAuthnContext},
	{"comparison blank", `Comparison="exact"`, `Comparison="exact "`, BadAuthnContext},
	{"comparison absent", ` Comparison="exact"`, "", 0},
	{"instant without digits after the dot", "19:04:59.500Z", "19:04:59.Z", BadIssueInstant},
	{"instant with one digit", "19:04:59.500Z", "19:04:59.5Z", 0},
	{"instant small z", "19:04:59.500Z", "19:04:59.500z", BadIssueInstant},
	{"instant with blanks", "19:04:59.500Z", " 19:04:59.500Z", BadIssueInstant},
	{"instant +00:00", "19:04:59.500Z", "19:04:59.500+00:00", BadIssueInstant},
	{"instant 24:00", "2026-11-21T19:04:59.500Z", "2026-11-20T24:00:00Z", BadIssueInstant},
	{"destination blank behind", `Destination="https://idp.example.it"`, `Destination="https://idp.example.it "`, BadDestination},
	{"destination of the other binding", `Destination="https://idp.example.it"`, `Destination="https://idp.example.it/sso/redirect"`, 0},
	{"policy format absent", ` Format="urn:oasis:names:tc:SAML:2.0:nameid-format:transient"`, "", BadNameIDPolicy},
	{"policy of SAML 1.1", "2.0:nameid-format:transient", "1.1:nameid-format:transient", BadNameIDPolicy},
	{"ACS binding alone", `AssertionConsumerServiceIndex="0"`, `ProtocolBinding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"`, BadACS},
	{"ACS index empty", `AssertionConsumerServiceIndex="0"`, `AssertionConsumerServiceIndex=""`, BadACS},
	{"ACS URL in another case", `AssertionConsumerServiceIndex="0"`, `AssertionConsumerServiceURL="https://sp.example.it/ACS" ProtocolBinding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"`, BadACS},
	{"service index empty", `AttributeConsumingServiceIndex="0"`, `AttributeConsumingServiceIndex=""`, BadAttributeService},
	{"service index text", `AttributeConsumingServiceIndex="0"`, `AttributeConsumingServiceIndex="x"`, BadAttributeService},
	{"purpose in blanks", "<samlp:NameIDPolicy ", spidExtensions + "<spid:Purpose>\n P </spid:Purpose></samlp:Extensions><samlp:NameIDPolicy ", 0},
	{"purpose in the level's namespace", "<samlp:NameIDPolicy ", `<samlp:Extensions xmlns:spid="https://www.spid.gov.it/saml-extensions"><spid:Purpose>Z</spid:Purpose></samlp:Extensions><samlp:NameIDPolicy `, 0},
	{"purpose twice", "<samlp:NameIDPolicy ", spidExtensions + "<spid:Purpose>P</spid:Purpose><spid:Purpose>P</spid:Purpose></samlp:Extensions><samlp:NameIDPolicy ", NotConformant},
	{"other extension", "<samlp:NameIDPolicy ", spidExtensions + "<spid:AgeLimit><spid:MinAge>18</spid:MinAge></spid:AgeLimit></samlp:Extensions><samlp:NameIDPolicy ", 0},
	{"extensions late", "</samlp:RequestedAuthnContext>", "</samlp:RequestedAuthnContext><samlp:Extensions/>", NotConformant},
	{"subject in 1.1", "<samlp:NameIDPolicy ", `<saml:Subject><saml:NameID Format="urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified" NameQualifier="q">x</saml:NameID></saml:Subject><samlp:NameIDPolicy `, 0},
	{"subject format blank", "<samlp:NameIDPolicy ", `<saml:Subject><saml:NameID Format="` + unspecified + ` " NameQualifier="q">x</saml:NameID></saml:Subject><samlp:NameIDPolicy `, NotConformant},
	{"subject empty", "<samlp:NameIDPolicy ", `<saml:Subject/><samlp:NameIDPolicy `, NotConformant},
	{"conditions NotBefore ahead", "<samlp:RequestedAuthnContext ", `<saml:Conditions NotBefore="2026-11-21T20:00:00Z"/><samlp:RequestedAuthnContext `, 0},
	{"conditions with an offset", "<samlp:RequestedAuthnContext ", `<saml:Conditions NotOnOrAfter="2026-11-21T20:10:00+01:00"/><samlp:RequestedAuthnContext `, NotConformant},
	{"ID of 300 characters", `ID="_r1"`, `ID="_` + strings.Repeat("r", 299) + `"`, 0},
	{"ID blank", `ID="_r1"`, `ID=" "`, BadID},
	{"ID with a colon", `ID="_r1"`, `ID="a:b"`, BadID},
	{"version 2", `Version="2.0"`, `Version="2"`, BadVersion},
	{"version blank", `Version="2.0"`, `Version="2.0 "`, BadVersion},
}

func TestMoreRules(t *testing.T) {
	v := testVerifier(t)
	for _, tc := range moreRules {
		doc := replace(t, plainRequest, tc.old, tc.new)
		t.Run(tc.name, func(t *testing.T) {
			_, err := v.Redirect([]byte(redirectTo(t, doc, "-", spKit().key)), kitNow)
			if r := refusalOf(t, err); r.Code != tc.code {
				t.Errorf("redirect: code %d, want %d: %v", r.Code, tc.code, err)
			}
			_, err = v.Post(b64(signPost(t, doc, spKit().key, spKit().cert)), nil, false, kitNow)
			if r := refusalOf(t, err); r.Code != tc.code {
				t.Errorf("post: code %d, want %d: %v", r.Code, tc.code, err)
			}
		})
	}
}

// TestLevel1NeedsNoForceAuthn: it is required above level 1 only.
func TestLevel1NeedsNoForceAuthn(t *testing.T) {
	doc := replace(t, replace(t, plainRequest, ` ForceAuthn="true"`, ""), "SpidL2<", "SpidL1<")
	got, err := testVerifier(t).Redirect([]byte(redirectTo(t, doc, "-", spKit().key)), kitNow)
	if r := got.Request(); err != nil || r.Level != L1 || r.ForceAuthn {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestExpiryIsNamed: the log tells an expired certificate from a key that is not
// the SP's, whichever certificate was tried last.
func TestExpiryIsNamed(t *testing.T) {
	key := spKit().key
	expired := selfSigned(key, kitNow.AddDate(-2, 0, 0), kitNow.AddDate(-1, 0, 0))
	future := selfSigned(key, kitNow.AddDate(1, 0, 0), kitNow.AddDate(2, 0, 0))
	for name, tc := range map[string]struct {
		certs []*x509.Certificate
		want  string
		not   string
	}{
		"expired beside a foreign one": {[]*x509.Certificate{expired, otherKit().cert}, "certificate expired at 2025-11-21T19:05:00Z", "not valid before"},
		"foreign beside an expired":    {[]*x509.Certificate{otherKit().cert, expired}, "certificate expired at", "not valid before"},
		"not yet":                      {[]*x509.Certificate{future}, "certificate is not valid before 2027-11-21T19:05:00Z", "expired"},
		"foreign":                      {[]*x509.Certificate{otherKit().cert}, "verification error", "expired"},
	} {
		t.Run(name, func(t *testing.T) {
			v := testVerifier(t, func(c *VerifierConfig) { c.SPs = spMap{spEntity: testSP(tc.certs...)} })
			_, byRedirect := v.Redirect([]byte(redirectTo(t, plainRequest, "-", key)), kitNow)
			_, byPost := v.Post(b64(signPost(t, plainRequest, key, spKit().cert)), nil, false, kitNow)
			for code, err := range map[Code]error{BadRedirectSig: byRedirect, BadPostSig: byPost} {
				if r := refusalOf(t, err); r.Code != code || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), tc.not) {
					t.Errorf("code %d: %v", r.Code, err)
				}
			}
		})
	}
}

// aggregated is the metadata of an aggregated body under a light aggregator
// (SPID Avviso 19 v4): two contacts, and a key that is not for requests.
func aggregated(entity string, signing, validation *x509.Certificate) string {
	doc := strings.ReplaceAll(spDocument(signing), `entityID="https://sp.example.it"`, `entityID="`+entity+`"`)
	other := func(kind, extension string) string {
		return `<md:ContactPerson xmlns:spid="https://spid.gov.it/saml-extensions" contactType="other" spid:entityType="spid:` + kind + `"><md:Extensions>` + extension +
			`</md:Extensions><md:Company>Prova</md:Company><md:EmailAddress>x@example.it</md:EmailAddress></md:ContactPerson>`
	}
	key := `<spid:KeyDescriptor use="spid:validation"><ds:KeyInfo><ds:X509Data><ds:X509Certificate>` + string(b64(string(validation.Raw))) + `</ds:X509Certificate></ds:X509Data></ds:KeyInfo></spid:KeyDescriptor>`
	return strings.Replace(doc, "</md:EntityDescriptor>", other("aggregator", "<spid:VATNumber>IT12345678903</spid:VATNumber><spid:PublicServicesLightAggregator/>"+key)+
		other("aggregated", "<spid:IPACode>c_h501</spid:IPACode><spid:Public/>")+"</md:EntityDescriptor>", 1)
}

// TestAggregators: every aggregated body is an SP of its own under a long
// entityID; the aggregator's validation key verifies no request.
func TestAggregators(t *testing.T) {
	for _, kind := range []string{"pub-ag-full", "pub-ag-lite", "pri-ag-full", "pri-ag-lite", "pub-op-full", "pub-op-lite"} {
		entity := "https://aggregator.example.it/" + kind + "/c_h501"
		doc := aggregated(entity, spKit().cert, otherKit().cert)
		if !strings.Contains(doc, entity) || !strings.Contains(doc, "spid:validation") {
			t.Fatal("not the document meant")
		}
		sp, err := ParseSPMetadata(signMetadata(t, doc, spKit()))
		if err != nil {
			t.Fatal(err)
		}
		if sp.EntityID.String() != entity || len(sp.Certificates) != 1 || sp.Name("it") != "Comune di Prova" {
			t.Errorf("%s: %+v", kind, sp)
		}
		v := testVerifier(t, func(c *VerifierConfig) { c.SPs = spMap{entity: sp} })
		request := strings.ReplaceAll(plainRequest, "https://sp.example.it", entity)
		got, err := v.Post(b64(signPost(t, request, spKit().key, spKit().cert)), nil, false, kitNow)
		if err != nil || got.Request().SP != mustEntity(entity) {
			t.Errorf("%s: %v", kind, err)
		}
		_, err = v.Post(b64(signPost(t, request, otherKit().key, otherKit().cert)), nil, false, kitNow)
		if r := refusalOf(t, err); r.Code != BadPostSig {
			t.Errorf("%s: signed by the validation key: %v", kind, err)
		}
	}
}

// TestRelayStateUnchanged: what comes back is what came, octet by octet, with a
// success and with a refusal, by both bindings.
func TestRelayStateUnchanged(t *testing.T) {
	v := testVerifier(t)
	refused := replace(t, plainRequest, `Comparison="exact"`, `Comparison="x"`)
	for _, relay := range []string{"", " ", "a b+c%2F&=;'\"<>\u00e8\u0000\r\n", "\xff\xfe", strings.Repeat("x", 500)} {
		got, err := v.Redirect([]byte(redirectTo(t, plainRequest, relay, spKit().key)), kitNow)
		if r := got.Request(); err != nil || r.RelayState != relay || !r.HasRelayState {
			t.Errorf("redirect %q: %q, %v", relay, r.RelayState, err)
		}
		_, err = v.Redirect([]byte(redirectTo(t, refused, relay, spKit().key)), kitNow)
		if r := refusalOf(t, err).Reply; r == nil || r.RelayState != relay || !r.HasRelayState {
			t.Errorf("redirect %q refused: %+v", relay, r)
		}
		got, err = v.Post(b64(signPost(t, plainRequest, spKit().key, spKit().cert)), []byte(relay), true, kitNow)
		if r := got.Request(); err != nil || r.RelayState != relay || !r.HasRelayState {
			t.Errorf("post %q: %q, %v", relay, r.RelayState, err)
		}
		_, err = v.Post(b64(signPost(t, refused, spKit().key, spKit().cert)), []byte(relay), true, kitNow)
		if r := refusalOf(t, err).Reply; r == nil || r.RelayState != relay || !r.HasRelayState {
			t.Errorf("post %q refused: %+v", relay, r)
		}
	}
	got, err := v.Redirect([]byte(redirectTo(t, plainRequest, "-", spKit().key)), kitNow)
	if r := got.Request(); err != nil || r.HasRelayState {
		t.Errorf("absent: %+v, %v", r, err)
	}
}

// TestOmitted: attributes may be left out only by name, and then all must be
// there or named.
func TestOmitted(t *testing.T) {
	i := testIssuer(t)
	leave := func(s *Statement, names ...string) {
		s.Omitted = names
		var kept []Attribute
		for _, a := range s.Attributes {
			if !strings.Contains(" "+strings.Join(names, " ")+" ", " "+a.Name+" ") {
				kept = append(kept, a)
			}
		}
		s.Attributes = kept
	}
	for name, tc := range map[string]struct {
		change func(*Statement)
		ok     bool
	}{
		"two":            {func(s *Statement) { leave(s, "digitalAddress", "expirationDate") }, true},
		"all":            {func(s *Statement) { leave(s, s.Request.Attributes...) }, true},
		"one not asked":  {func(s *Statement) { s.Omitted = []string{"email"} }, false},
		"asserted too":   {func(s *Statement) { s.Omitted = []string{"name"} }, false},
		"instead of one": {func(s *Statement) { s.Attributes = s.Attributes[1:]; s.Omitted = []string{"name"} }, false},
		"twice": {func(s *Statement) {
			leave(s, "name")
			s.Attributes = s.Attributes[1:]
			s.Omitted = []string{"name", "name"}
		}, false},
		"none asked": {func(s *Statement) {
			s.Request.HasAttributes, s.Request.Attributes, s.Attributes, s.Omitted = false, nil, nil, []string{"x"}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := testStatement()
			tc.change(&s)
			signed, err := i.Success(s, kitNow)
			if (err == nil) != tc.ok {
				t.Fatal(err)
			}
			if tc.ok {
				schemaValid(t, signed.XML, "saml-schema-protocol-2.0.xsd")
				if strings.Contains(string(signed.XML), "AttributeStatement") != (len(s.Attributes) > 0) {
					t.Error("an AttributeStatement without attributes, or none with")
				}
			}
		})
	}
}
