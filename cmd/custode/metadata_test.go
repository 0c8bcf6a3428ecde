package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"custode/authcore/saml/idpmeta"
	"custode/internal/fault"
)

func TestReadMetadata(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/metadata":
			_, _ = w.Write([]byte("<md/>"))
		case "/elsewhere":
			http.Redirect(w, r, "/metadata", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	file := filepath.Join(t.TempDir(), "idp.xml")
	if err := os.WriteFile(file, []byte("<file/>"), 0o600); err != nil {
		t.Fatal(err)
	}
	for source, want := range map[string]string{server.URL + "/metadata": "<md/>", file: "<file/>"} {
		doc, err := (&metadataVerifyCmd{Source: source}).read(&cli{})
		if err != nil || string(doc) != want {
			t.Errorf("%s: %q, %v", source, doc, err)
		}
	}
	for source, kind := range map[string]fault.Kind{server.URL + "/none": fault.Unavailable, server.URL + "/elsewhere": fault.Unavailable, file + "x": fault.Fatal} {
		if _, err := (&metadataVerifyCmd{Source: source}).read(&cli{}); !fault.Is(err, kind) {
			t.Errorf("%s: %v", source, err)
		}
	}
}

func TestPrintResults(t *testing.T) {
	var b strings.Builder
	printResults(&b, []idpmeta.Result{{Rule: "sso", What: "both bindings"}, {Rule: "expiry", What: "valid now", Note: "ends soon"},
		{Rule: "slo", What: "one or more", Err: errors.Join(errors.New("one"), errors.New("two"))}})
	if want := "ok   sso          both bindings\nok   expiry       valid now: ends soon\nFAIL slo          one or more: one; two\n"; b.String() != want {
		t.Errorf("got\n%s", b.String())
	}
}
