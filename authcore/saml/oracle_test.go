package saml

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The oracles: programs that share nothing with the product.

// tool returns the path of a program, failing with the Debian package to install.
func tool(t *testing.T, name, debian string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is not installed: apt-get install %s", name, debian)
	}
	return path
}

func temporary(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// xmlsec checks, with xmlsec1, the signature that is a child of the element
// found by xpath.
func xmlsec(t *testing.T, doc, der []byte, xpath string) error {
	t.Helper()
	cert := temporary(t, "cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	cmd := exec.Command(tool(t, "xmlsec1", "xmlsec1"), "--verify", "--enabled-key-data", "rsa",
		"--id-attr:ID", nsProtocol+":Response", "--id-attr:ID", nsAssertion+":Assertion", "--id-attr:ID", nsMetadata+":EntityDescriptor",
		"--node-xpath", xpath+"/*[local-name()='Signature']", "--pubkey-cert-pem", cert, temporary(t, "doc.xml", doc))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Logf("xmlsec1: %s", out)
	}
	return err
}

// schemaValid validates doc with xmllint against one of SAML's schemas, offline.
func schemaValid(t *testing.T, doc []byte, schema string) {
	t.Helper()
	xsd := filepath.Join("/usr/share/xml/opensaml", schema)
	for path, debian := range map[string]string{xsd: "opensaml-schemas", "/usr/share/xml/xmltooling/xmldsig-core-schema.xsd": "xmltooling-schemas"} {
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("%v: apt-get install %s", err, debian)
		}
	}
	catalog, err := filepath.Abs("testdata/schema/catalog.xml")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(tool(t, "xmllint", "libxml2-utils"), "--nonet", "--noout", "--schema", xsd, temporary(t, "doc.xml", doc))
	cmd.Env = append(os.Environ(), "XML_CATALOG_FILES="+catalog)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("xmllint: %v\n%s", err, out)
	}
}

// prettyTemplate is a request as people write them: indented, with everything
// declared at the root, and a signature for xmlsec1 to fill in.
const prettyTemplate = `<?xml version="1.0" encoding="UTF-8"?>
<samlp:AuthnRequest
    xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol"
    xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion"
    xmlns:ds="http://www.w3.org/2000/09/xmldsig#"
    xmlns:unused="urn:unused"
    ID="_r1" Version="2.0" IssueInstant='2026-11-21T19:04:59Z'
    Destination="https://idp.example.it/sso/post" ForceAuthn="true"
    AssertionConsumerServiceIndex="0" AttributeConsumingServiceIndex="7">
  <saml:Issuer Format="urn:oasis:names:tc:SAML:2.0:nameid-format:entity" NameQualifier="https://sp.example.it">
    https://sp.example.it
  </saml:Issuer>
  <ds:Signature>
    <ds:SignedInfo>
      <ds:CanonicalizationMethod Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"/>
      <ds:SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#rsa-sha512"/>
      <ds:Reference URI="#_r1">
        <ds:Transforms>
          <ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"/>
          <ds:Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"/>
        </ds:Transforms>
        <ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha512"/>
        <ds:DigestValue/>
      </ds:Reference>
    </ds:SignedInfo>
    <ds:SignatureValue/>
  </ds:Signature>
  <samlp:NameIDPolicy Format="urn:oasis:names:tc:SAML:2.0:nameid-format:transient"></samlp:NameIDPolicy>
  <samlp:RequestedAuthnContext Comparison="minimum">
    <saml:AuthnContextClassRef>
      https://www.spid.gov.it/SpidL2
    </saml:AuthnContextClassRef>
  </samlp:RequestedAuthnContext>
</samlp:AuthnRequest>
`

// TestSignedByXmlsec verifies a request that another implementation signed.
func TestSignedByXmlsec(t *testing.T) {
	der, err := x509.MarshalPKCS8PrivateKey(spKit().key)
	if err != nil {
		t.Fatal(err)
	}
	key := temporary(t, "key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	out := filepath.Join(t.TempDir(), "signed.xml")
	cmd := exec.Command(tool(t, "xmlsec1", "xmlsec1"), "--sign", "--id-attr:ID", nsProtocol+":AuthnRequest", "--privkey-pem", key, "--output", out,
		temporary(t, "template.xml", []byte(prettyTemplate)))
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("xmlsec1: %v\n%s", err, msg)
	}
	doc, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	schemaValid(t, doc, "saml-schema-protocol-2.0.xsd")
	got, err := testVerifier(t).Post(b64(string(doc)), nil, false, kitNow)
	if err != nil {
		t.Fatal(err)
	}
	if r := got.Request(); r.ID != "_r1" || r.Level != L2 || r.Comparison != Minimum || len(r.Attributes) != 1 || r.Attributes[0] != "email" {
		t.Errorf("request %+v", r)
	}
}
