package saml

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"
	"github.com/google/go-cmp/cmp"
	dsig "github.com/russellhaering/goxmldsig"

	"custode/internal/fault"
)

func testMetadata() MetadataConfig {
	return MetadataConfig{
		SSO: []Endpoint{{Redirect, idpRedirect, ""}, {Post, idpPost, ""}},
		SLO: []Endpoint{{Post, idpEntity + "/slo/post", ""}, {Redirect, idpEntity + "/slo/redirect", idpEntity + "/slo/answer?x=1&y"}, {SOAP, idpEntity + "/slo/soap", ""}},
		Organization: Organization{
			Name:        map[string]string{"it": "Gestore di Prova S.p.A.", "en": "Test Provider & Co."},
			DisplayName: map[string]string{"it": "Gestore di Prova", "en": "Test Provider"},
			URL:         map[string]string{"it": "https://www.example.it", "en": "https://www.example.it/en"},
		},
		Attributes: []string{"spidCode", "name", "dateOfBirth"},
	}
}

func TestMetadata(t *testing.T) {
	i := testIssuer(t, func(c *IssuerConfig) { c.Random = &countingReader{} })
	c := testMetadata()
	c.Certificates = []*x509.Certificate{otherKit().cert}
	doc, err := i.Metadata(c)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, scrub(doc))
	schemaValid(t, doc, "saml-schema-metadata-2.0.xsd")
	if err := xmlsec(t, doc, idpKit().cert.Raw, "/*"); err != nil {
		t.Error(err)
	}
	if xmlsec(t, bytes.Replace(doc, []byte("/sso/post"), []byte("/sso/pest"), 1), idpKit().cert.Raw, "/*") == nil {
		t.Error("verifies although changed")
	}
	if want := canonicalBytes(t, doc, ""); !bytes.Equal(doc, want) {
		t.Errorf("emitted\n%s\ncanonical\n%s", doc, want)
	}
	if !bytes.Contains(doc, []byte(base64.StdEncoding.EncodeToString(otherKit().cert.Raw))) {
		t.Error("second certificate is not published")
	}
}

func TestMetadataRefused(t *testing.T) {
	i := testIssuer(t)
	for name, change := range map[string]func(*MetadataConfig){
		"no redirect":      func(c *MetadataConfig) { c.SSO = c.SSO[1:] },
		"no post":          func(c *MetadataConfig) { c.SSO = c.SSO[:1] },
		"soap sso":         func(c *MetadataConfig) { c.SSO = append(c.SSO, Endpoint{SOAP, idpPost, ""}) },
		"no logout":        func(c *MetadataConfig) { c.SLO = nil },
		"logout unbound":   func(c *MetadataConfig) { c.SLO[0].Binding = 0 },
		"logout not web":   func(c *MetadataConfig) { c.SLO[0].Location = "/slo" },
		"no Italian":       func(c *MetadataConfig) { delete(c.Organization.Name, "it") },
		"language missing": func(c *MetadataConfig) { delete(c.Organization.URL, "en") },
		"other language": func(c *MetadataConfig) {
			delete(c.Organization.URL, "en")
			c.Organization.URL["de"] = "https://www.example.it"
		},
		"control": func(c *MetadataConfig) { c.Attributes[0] = "\x01" },
	} {
		c := testMetadata()
		change(&c)
		if doc, err := i.Metadata(c); err == nil || doc != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	bad := testIssuer(t, func(c *IssuerConfig) {
		c.Signer = fakeSigner{idpKit().key, func([]byte) ([]byte, error) { return make([]byte, 256), nil }}
	})
	if _, err := bad.Metadata(testMetadata()); !fault.Is(err, fault.Fatal) {
		t.Errorf("bad signer: %v", err)
	}
}

// spDocument is SP metadata before signing; tests replace parts of it.
func spDocument(certs ...*x509.Certificate) string {
	var keys strings.Builder
	for i, cert := range certs {
		use := ` use="signing"`
		if i > 0 {
			use = ""
		}
		fmt.Fprintf(&keys, `<md:KeyDescriptor%s><ds:KeyInfo><ds:X509Data><ds:X509Certificate>
	%s
</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>`, use, base64.StdEncoding.EncodeToString(cert.Raw))
	}
	return `<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" xmlns:ds="http://www.w3.org/2000/09/xmldsig#" ID="_m" entityID="https://sp.example.it">` +
		`<md:SPSSODescriptor AuthnRequestsSigned="true" protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol">` + keys.String() +
		`<md:AssertionConsumerService index="2" Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST" Location="https://sp.example.it/acs2"/>` +
		`<md:AssertionConsumerService index="0" isDefault="true" Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST" Location="https://sp.example.it/acs"/>` +
		`<md:AssertionConsumerService index="1" Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Artifact" Location="https://sp.example.it/art"/>` +
		`<md:AttributeConsumingService index="1"><md:ServiceName xml:lang="it"> Servizio </md:ServiceName><md:ServiceName xml:lang="EN">Service</md:ServiceName>` +
		`<md:RequestedAttribute Name="name"/><md:RequestedAttribute Name="email"/><md:RequestedAttribute Name="name"/></md:AttributeConsumingService>` +
		`<md:AttributeConsumingService index="0"><md:ServiceName xml:lang="it">S0</md:ServiceName><md:RequestedAttribute Name="spidCode"/></md:AttributeConsumingService>` +
		`</md:SPSSODescriptor><md:Organization><md:OrganizationName xml:lang="it">N</md:OrganizationName>` +
		`<md:OrganizationDisplayName xml:lang="it">Comune di Prova</md:OrganizationDisplayName><md:OrganizationURL xml:lang="it">https://sp.example.it</md:OrganizationURL></md:Organization>` +
		`</md:EntityDescriptor>`
}

// signMetadata signs as signPost does, the signature first.
func signMetadata(t testing.TB, doc string, kit signerKit, change ...func(*dsig.SigningContext)) []byte {
	t.Helper()
	d := etree.NewDocument()
	if err := d.ReadFromString(signPost(t, doc, kit.key, kit.cert, change...)); err != nil {
		t.Fatal(err)
	}
	out, err := d.WriteToBytes()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestParseSPMetadata(t *testing.T) {
	sp, err := ParseSPMetadata(signMetadata(t, spDocument(otherKit().cert, spKit().cert), spKit()))
	if err != nil {
		t.Fatal(err)
	}
	want := []ACS{{0, "https://sp.example.it/acs", true}, {2, "https://sp.example.it/acs2", false}}
	if diff := cmp.Diff(want, sp.ACS); diff != "" {
		t.Error(diff)
	}
	services := []AttributeService{{0, map[string]string{"it": "S0"}, []string{"spidCode"}}, {1, map[string]string{"it": "Servizio", "en": "Service"}, []string{"name", "email"}}}
	if diff := cmp.Diff(services, sp.Services); diff != "" {
		t.Error(diff)
	}
	if sp.EntityID.String() != spEntity || sp.Name("de") != "Comune di Prova" || len(sp.Certificates) != 2 || !sp.Certificates[1].Equal(spKit().cert) || !sp.Live(kitNow) {
		t.Errorf("%+v", sp)
	}
}

func TestParseSPMetadataCases(t *testing.T) {
	kit := spKit()
	plain := spDocument(kit.cert)
	cert64 := base64.StdEncoding.EncodeToString(kit.cert.Raw)
	short := newSignerKit(1024, kitNow.AddDate(-1, 0, 0), kitNow.AddDate(1, 0, 0))
	for name, tc := range map[string]struct {
		old, new string
		ok       bool
	}{
		"plain":                      {"", "", true},
		"comment":                    {"<md:SPSSODescriptor ", "<!-- written by hand --><md:SPSSODescriptor ", true},
		"validUntil":                 {` ID="_m"`, ` ID="_m" validUntil="2027-01-01T00:00:00Z"`, true},
		"broken spare certificate":   {"<md:AssertionConsumerService index=\"2\"", `<md:KeyDescriptor><ds:KeyInfo><ds:X509Data><ds:X509Certificate>AAAA</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor><md:AssertionConsumerService index="2"`, true},
		"encryption key":             {`use="signing"`, `use="encryption"`, false},
		"no certificate":             {cert64, "", false},
		"certificate not base64":     {cert64, "%%%%", false},
		"certificate too short":      {cert64, base64.StdEncoding.EncodeToString(short.cert.Raw), false},
		"certificate of another":     {cert64, base64.StdEncoding.EncodeToString(otherKit().cert.Raw), false},
		"validUntil malformed":       {` ID="_m"`, ` ID="_m" validUntil="tomorrow"`, false},
		"no entityID":                {` entityID="https://sp.example.it"`, "", false},
		"entityID with a blank":      {`entityID="https://sp.example.it"`, `entityID="https://sp.example.it "`, false},
		"entityID relative":          {`entityID="https://sp.example.it"`, `entityID="sp"`, false},
		"no role":                    {"md:SPSSODescriptor", "md:IDPSSODescriptor", false},
		"SAML 1.1":                   {`Enumeration="urn:oasis:names:tc:SAML:2.0:protocol"`, `Enumeration="urn:oasis:names:tc:SAML:1.1:protocol"`, false},
		"ACS index twice":            {`index="2" Binding`, `index="0" Binding`, false},
		"ACS index malformed":        {`index="2" Binding`, `index="x" Binding`, false},
		"ACS without index":          {`index="0" isDefault`, `isDefault`, false},
		"no POST ACS":                {"bindings:HTTP-POST", "bindings:PAOS", false},
		"service without index":      {`<md:AttributeConsumingService index="0">`, `<md:AttributeConsumingService>`, false},
		"ACS script":                 {`Location="https://sp.example.it/acs2"`, `Location="javascript:alert(1)"`, false},
		"ACS with credentials":       {`Location="https://sp.example.it/acs2"`, `Location="https://a:b@sp.example.it/"`, false},
		"ACS default malformed":      {`isDefault="true"`, `isDefault="yes"`, false},
		"service index twice":        {`<md:AttributeConsumingService index="1">`, `<md:AttributeConsumingService index="0">`, false},
		"attribute without a name":   {`<md:RequestedAttribute Name="email"/>`, `<md:RequestedAttribute/>`, false},
		"other root":                 {"md:EntityDescriptor", "md:EntitiesDescriptor", false},
		"processing instruction":     {"<md:Organization>", "<?php ?><md:Organization>", false},
		"other markup inside a name": {"Comune di Prova", "Comune <b>di</b> Prova", true},
	} {
		t.Run(name, func(t *testing.T) {
			doc := plain
			if tc.old != "" {
				doc = strings.ReplaceAll(doc, tc.old, tc.new)
				if doc == plain {
					t.Fatal("nothing replaced")
				}
			}
			sp, err := ParseSPMetadata(signMetadata(t, doc, kit))
			if (err == nil) != tc.ok || (err != nil && !fault.Is(err, fault.Invalid)) || (err == nil) != (sp != nil) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestParseSPMetadataSignature(t *testing.T) {
	kit, other := spKit(), otherKit()
	good := string(signMetadata(t, spDocument(kit.cert), kit))
	sig := good[strings.Index(good, "<ds:Signature "):strings.Index(good, "<md:SPSSODescriptor")]
	for name, tc := range map[string]struct {
		doc    string
		pinned []*x509.Certificate
		ok     bool
	}{
		"own key":                   {good, nil, true},
		"pinned":                    {string(signMetadata(t, spDocument(kit.cert), other)), []*x509.Certificate{kit.cert, other.cert}, true},
		"own key is not the pinned": {good, []*x509.Certificate{other.cert}, false},
		"somebody else's key":       {string(signMetadata(t, spDocument(kit.cert), other)), nil, false},
		"unsigned":                  {strings.Replace(good, sig, "", 1), nil, false},
		"signature last":            {strings.Replace(strings.Replace(good, sig, "", 1), "</md:EntityDescriptor>", sig+"</md:EntityDescriptor>", 1), nil, false},
		"changed":                   {strings.Replace(good, "/acs2", "/acs3", 1), nil, false},
		"wrapped":                   {strings.Replace(good, "<md:Organization>", "<md:Extensions>"+strings.Replace(good, sig, "", 1)+"</md:Extensions><md:Organization>", 1), nil, false},
		"sha-1":                     {string(signMetadata(t, spDocument(kit.cert), kit, func(c *dsig.SigningContext) { c.Hash = crypto.SHA1 })), nil, false},
		"comment inside a value":    {strings.Replace(good, "https://sp.example.it/acs2", "https://sp.example.it/acs2<!-- x -->", 1), nil, false},
		"too long":                  {good + strings.Repeat(" ", MaxSPMetadata), nil, false},
		"empty":                     {"", nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseSPMetadata([]byte(tc.doc), tc.pinned...)
			if (err == nil) != tc.ok || (err != nil && !fault.Is(err, fault.Invalid)) {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := ParseSPMetadata(signMetadata(t, spDocument(slices.Repeat([]*x509.Certificate{kit.cert}, maxSPCertificates+1)...), kit)); err == nil {
		t.Error("seventeen certificates")
	}
	// Expiry is the verifier's question, asked at each request.
	old := signerKit{kit.key, selfSigned(kit.key, kitNow.AddDate(-3, 0, 0), kitNow.AddDate(-2, 0, 0))}
	if _, err := ParseSPMetadata(signMetadata(t, spDocument(old.cert), old)); err != nil {
		t.Errorf("expired certificate: %v", err)
	}
}

func TestSPName(t *testing.T) {
	sp := SP{EntityID: mustEntity(spEntity)}
	if sp.Name("it") != spEntity {
		t.Error("no name")
	}
	sp.DisplayName = map[string]string{"de": "Amt"}
	if sp.Name("it") != "Amt" || !sp.Live(time.Time{}) {
		t.Error("any name")
	}
}

// TestLogoutEndpoints: what can be used is kept in order, the rest passed over.
func TestLogoutEndpoints(t *testing.T) {
	el := etree.NewDocument()
	if err := el.ReadFromString(`<md:SPSSODescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata">` +
		`<md:SingleLogoutService Binding="urn:oasis:names:tc:SAML:2.0:bindings:SOAP" Location="https://sp.example.it/soap"/>` +
		`<md:SingleLogoutService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Artifact" Location="https://sp.example.it/a"/>` +
		`<md:SingleLogoutService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST" Location="http://sp.example.it/plain"/>` +
		`<md:SingleLogoutService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect" Location="https://sp.example.it/r" ResponseLocation="javascript:x"/>` +
		`<md:SingleLogoutService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect" Location="https://sp.example.it/r" ResponseLocation="https://sp.example.it/rr"/>` +
		`</md:SPSSODescriptor>`); err != nil {
		t.Fatal(err)
	}
	sp := &SP{SLO: logoutEndpoints(el.Root())}
	want := []Endpoint{{SOAP, "https://sp.example.it/soap", ""}, {Redirect, "https://sp.example.it/r", "https://sp.example.it/rr"}}
	if diff := cmp.Diff(want, sp.SLO); diff != "" {
		t.Error(diff)
	}
	if e, ok := sp.LogoutEndpoint(Redirect); !ok || e != want[1] {
		t.Errorf("redirect: %+v", e)
	}
	if _, ok := sp.LogoutEndpoint(Post); ok {
		t.Error("post: there is none")
	}
}
