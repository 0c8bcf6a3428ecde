package registrysim

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func start(t *testing.T) (*Sim, string) {
	t.Helper()
	s, err := New(Config{Entities: 120, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s.Handler())
	t.Cleanup(srv.Close)
	return s, srv.URL
}

func get(t *testing.T, url string) (*http.Response, []byte) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, body
}

// TestSigned: xmlsec1 and the schemas agree with what is served.
func TestSigned(t *testing.T) {
	s, url := start(t)
	s.Publish(func(e *Edition) { e.Extra = append(e.Extra, s.Hostile()["script"]) })
	dir := t.TempDir()
	cert, doc := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "doc.xml")
	if err := os.WriteFile(cert, s.CertificatePEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	for query, entities := range map[string]int{"": 121, "&page=3&numMetadata=50": 21, "&page=1&numMetadata=50": 50} {
		resp, body := get(t, url+"/entities?entity_type=SP"+query)
		if err := os.WriteFile(doc, body, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("xmlsec1", "--verify", "--pubkey-cert-pem", cert, "--id-attr:ID", "urn:oasis:names:tc:SAML:2.0:metadata:EntitiesDescriptor", doc).CombinedOutput()
		if err != nil {
			t.Errorf("%q: xmlsec1 (Debian package xmlsec1): %v\n%s", query, err, out)
		}
		if n := strings.Count(string(body), "<md:EntityDescriptor "); n != entities {
			t.Errorf("%q: %d entities", query, n)
		}
		if query != "" && (resp.Header.Get("tot-pages") != "3" || resp.Header.Get("tot-metadata") != "121") {
			t.Errorf("%q: headers %v", query, resp.Header)
		}
	}
	s.Misbehave(BadSignature)
	_, body := get(t, url+"/entities?entity_type=SP")
	if err := os.WriteFile(doc, body, 0o600); err != nil {
		t.Fatal(err)
	}
	if exec.Command("xmlsec1", "--verify", "--pubkey-cert-pem", cert, "--id-attr:ID", "urn:oasis:names:tc:SAML:2.0:metadata:EntitiesDescriptor", doc).Run() == nil {
		t.Error("the bad signature verifies")
	}
}

func TestListing(t *testing.T) {
	s, url := start(t)
	s.Publish(func(e *Edition) {
		e.Disabled[3] = true
		e.ExtraFlags["https://x.example.it"] = Flags{Deleted: true}
	})
	_, body := get(t, url+"/entities-sp?output=json")
	var list []map[string]string
	if err := json.Unmarshal(body, &list); err != nil || len(list) != 121 || list[3]["_disabled"] != "Y" || list[120]["_deleted"] != "Y" {
		t.Errorf("%v, %d entries", err, len(list))
	}
}
