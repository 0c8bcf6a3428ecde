package saml

import (
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
