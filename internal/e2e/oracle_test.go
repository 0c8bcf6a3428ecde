package e2e

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"custode/simulators/browsersim"
	"custode/simulators/spsim"
)

// tool runs a system program and fails the test when it is missing or refuses.
func tool(t *testing.T, debianPackage, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%s is missing: install the Debian package %s (make deps)", name, debianPackage)
	}
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// wrapperSchema ties Debian's schemas together so that xmllint needs no network.
const wrapperSchema = `<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="urn:custode:test">
<xs:import namespace="http://www.w3.org/2000/09/xmldsig#" schemaLocation="file:///usr/share/xml/xmltooling/xmldsig-core-schema.xsd"/>
<xs:import namespace="http://www.w3.org/2001/04/xmlenc#" schemaLocation="file:///usr/share/xml/xmltooling/xenc-schema.xsd"/>
<xs:import namespace="urn:oasis:names:tc:SAML:2.0:assertion" schemaLocation="file:///usr/share/xml/opensaml/saml-schema-assertion-2.0.xsd"/>
<xs:import namespace="urn:oasis:names:tc:SAML:2.0:protocol" schemaLocation="file:///usr/share/xml/opensaml/saml-schema-protocol-2.0.xsd"/>
<xs:import namespace="urn:oasis:names:tc:SAML:2.0:metadata" schemaLocation="file:///usr/share/xml/opensaml/saml-schema-metadata-2.0.xsd"/>
</xs:schema>`

const catalog = `<catalog xmlns="urn:oasis:names:tc:entity:xmlns:xml:catalog">
<nextCatalog catalog="file:///usr/share/xml/xmltooling/catalog.xml"/>
<nextCatalog catalog="file:///usr/share/xml/opensaml/saml20-catalog.xml"/>
<system systemId="http://www.w3.org/TR/2002/REC-xmldsig-core-20020212/xmldsig-core-schema.xsd" uri="file:///usr/share/xml/xmltooling/xmldsig-core-schema.xsd"/>
<system systemId="http://www.w3.org/TR/2002/REC-xmlenc-core-20021210/xenc-schema.xsd" uri="file:///usr/share/xml/xmltooling/xenc-schema.xsd"/>
<system systemId="http://www.w3.org/2001/xml.xsd" uri="file:///usr/share/xml/xmltooling/xml.xsd"/>
</catalog>`

func schemaValid(t *testing.T, doc string) {
	t.Helper()
	t.Setenv("XML_CATALOG_FILES", write(t, "catalog.xml", []byte(catalog)))
	tool(t, "libxml2-utils", "xmllint", "--nonet", "--noout", "--schema", write(t, "all.xsd", []byte(wrapperSchema)), doc)
}

// TestResponsePassesOutsideJudges: xmlsec1 verifies both signatures against the
// certificate the ceremony made, xmllint finds the documents schema-valid.
func TestResponsePassesOutsideJudges(t *testing.T) {
	l := shared(t)
	certs, err := filepath.Glob(filepath.Join(l.Dir, "ceremony", "custode_sign_*.pem"))
	if err != nil || len(certs) != 1 {
		t.Fatalf("certificates of the ceremony: %v, %v", certs, err)
	}
	const response, assertion = "urn:oasis:names:tc:SAML:2.0:protocol:Response", "urn:oasis:names:tc:SAML:2.0:assertion:Assertion"
	verify := func(t *testing.T, xml []byte, path string, idAttrs ...string) {
		t.Helper()
		doc := write(t, "doc.xml", xml)
		args := []string{"--verify", "--trusted-pem", certs[0], "--pubkey-cert-pem", certs[0], "--enabled-key-data", "rsa"}
		for _, a := range idAttrs {
			args = append(args, "--id-attr:ID", a)
		}
		tool(t, "xmlsec1", "xmlsec1", append(args, "--node-xpath", path, doc)...)
		schemaValid(t, doc)
	}
	for level := 1; level <= 2; level++ {
		for _, by := range bindings {
			t.Run(fmt.Sprintf("%s/L%d", by, level), func(t *testing.T) {
				_, got := login(t, l, by, level, enrol(t, l))
				verify(t, got.XML, `/*/*[local-name()="Signature"]`, response, assertion)
				verify(t, got.XML, `//*[local-name()="Assertion"]/*[local-name()="Signature"]`, response, assertion)
			})
		}
	}
	t.Run("error", func(t *testing.T) {
		v := arrive(t, l, post, spsim.Request{Level: 2})
		v.submit("cancel", nil)
		_, err := v.consume()
		s, ok := err.(*spsim.StatusError)
		if !ok {
			t.Fatalf("got %v", err)
		}
		verify(t, s.XML, `/*/*[local-name()="Signature"]`, response)
	})
	t.Run("metadata", func(t *testing.T) {
		p, err := browsersim.New(nil).Get(l.IdP + "/metadata")
		if err != nil {
			t.Fatal(err)
		}
		verify(t, []byte(p.Body), `/*/*[local-name()="Signature"]`, "urn:oasis:names:tc:SAML:2.0:metadata:EntityDescriptor")
	})
}

// TestNoSecretInTheLog greps a full debug run: password, codes, PIN, cookies.
// It walks the ways on which a secret could slip out and reads the shared lab's
// log so far; TestMain looks for the lasting secrets once more when all tests
// have fed it.
func TestNoSecretInTheLog(t *testing.T) {
	l := shared(t)
	p := enrol(t, l)
	secrets := map[string]string{"password": p.Password}
	v := arrive(t, l, post, spsim.Request{Level: 2})
	v.submit("password", map[string]string{"username": p.Username, "password": "Wrong-Pass-" + p.Password})
	v.password(p)
	v.sms()
	code := v.inbox(1)
	secrets["code"], secrets["wrong code"] = code, wrong(code)
	v.code(wrong(code))
	v.code(code)
	v.submit("consent", nil)
	cookies := v.b.CookieValues("localhost")
	if len(cookies) == 0 {
		t.Fatal("the browser holds no cookie to search for")
	}
	for i, c := range cookies {
		secrets[fmt.Sprintf("cookie %d", i)] = c
	}
	// The password typed into the wrong field, and requests the server refuses.
	w := arrive(t, l, redirect, spsim.Request{Level: 1})
	w.submit("password", map[string]string{"username": p.Password, "password": p.Username})
	if _, err := w.b.Post(w.p.URL.String(), url.Values{"action": {"password"}, "password": {p.Password}}, l.IdP); err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{"PIN": l.HSM.PINFile, "SO PIN": l.HSM.SOFile} {
		pin, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		secrets[name] = strings.TrimSpace(string(pin))
	}
	if _, err := v.consume(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond) // the log is written by another process
	log := sharedLog.String()
	if !strings.Contains(log, `"level":"DEBUG"`) || len(log) < 2000 {
		t.Fatalf("this is no debug log: %d octets", len(log))
	}
	for name, secret := range secrets {
		if len(secret) < 4 {
			t.Fatalf("%s is too short to search for", name)
		}
		// Whole words: among the digits of times and identifiers any six stand somewhere by chance.
		if regexp.MustCompile(`(^|\W)` + regexp.QuoteMeta(secret) + `(\W|$)`).MatchString(log) {
			t.Errorf("the log holds the %s", name)
		}
	}
}

// TestNoSecretInTheDatabase greps database, WAL and journal files.
func TestNoSecretInTheDatabase(t *testing.T) {
	l := shared(t)
	p := enrol(t, l)
	v := arrive(t, l, post, spsim.Request{Level: 2})
	v.password(p)
	v.sms()
	code := v.inbox(1)
	files, err := filepath.Glob(filepath.Join(l.Dir, "state", "*"))
	if err != nil || len(files) < 2 {
		t.Fatalf("database files: %v, %v", files, err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for name, secret := range map[string]string{"password": p.Password, "message": "il codice", "code": " " + code, "code first": code + " "} {
			if bytes.Contains(data, []byte(secret)) {
				t.Errorf("%s holds the %s", filepath.Base(f), name)
			}
		}
	}
}
