package spsim

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Where Debian's opensaml-schemas and xmltooling-schemas keep their files.
const (
	samlSchemas    = "/usr/share/xml/opensaml"
	toolingSchemas = "/usr/share/xml/xmltooling"
)

// catalog maps the addresses in the schemas' imports to Debian's files:
// Debian's own catalogs map namespaces, which xmllint does not look up.
const catalog = `<?xml version="1.0"?>
<catalog xmlns="urn:oasis:names:tc:entity:xmlns:xml:catalog">
<system systemId="http://www.w3.org/TR/2002/REC-xmldsig-core-20020212/xmldsig-core-schema.xsd" uri="file://` + toolingSchemas + `/xmldsig-core-schema.xsd"/>
<system systemId="http://www.w3.org/TR/2002/REC-xmlenc-core-20021210/xenc-schema.xsd" uri="file://` + toolingSchemas + `/xenc-schema.xsd"/>
<system systemId="http://www.w3.org/2001/xml.xsd" uri="file://` + toolingSchemas + `/xml.xsd"/>
</catalog>`

func needProgram(t *testing.T, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is missing: install the Debian package %s", name, pkg)
	}
	return path
}

func writeFile(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// schemaError validates document by the SAML 2.0 schema with that name
// (protocol, metadata) without the network, and returns what xmllint says
// about an invalid one.
func schemaError(t *testing.T, schema string, document []byte) string {
	t.Helper()
	xmllint := needProgram(t, "xmllint", "libxml2-utils")
	xsd := filepath.Join(samlSchemas, "saml-schema-"+schema+"-2.0.xsd")
	for file, pkg := range map[string]string{xsd: "opensaml-schemas", toolingSchemas + "/xml.xsd": "xmltooling-schemas"} {
		if _, err := os.Stat(file); err != nil {
			t.Fatalf("%s is missing: install the Debian package %s", file, pkg)
		}
	}
	cmd := exec.CommandContext(t.Context(), xmllint, "--nonet", "--noout", "--schema", xsd, writeFile(t, "document.xml", document))
	cmd.Env = append(os.Environ(), "XML_CATALOG_FILES="+writeFile(t, "catalog.xml", []byte(catalog)))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out) + err.Error()
	}
	return ""
}

// signatureError verifies the enveloped signature of document's root element
// with xmlsec1 and exactly that certificate (DER).
func signatureError(t *testing.T, rootNamespace, rootTag string, document, cert []byte) string {
	t.Helper()
	xmlsec := needProgram(t, "xmlsec1", "xmlsec1")
	out, err := exec.CommandContext(t.Context(), xmlsec, "--verify",
		"--id-attr:ID", rootNamespace+":"+rootTag,
		"--enabled-key-data", "rsa", "--pubkey-cert-der", writeFile(t, "cert.der", cert),
		writeFile(t, "document.xml", document)).CombinedOutput()
	if err != nil {
		return string(out) + err.Error()
	}
	return ""
}
