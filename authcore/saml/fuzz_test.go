package saml

import (
	"bytes"
	"fmt"
	"net/url"
	"testing"
	"time"
)

var fuzzNow = time.Date(2026, 11, 21, 19, 5, 0, 0, time.UTC)

// FuzzRedirect: no query makes the verifier panic, and what passes was signed
// by the SP it names: the fuzzer has no key, so only a recorded request can.
func FuzzRedirect(f *testing.F) {
	v := vectorVerifier(f)
	known := map[string]bool{}
	for level := 1; level <= 3; level++ {
		q := vectorQuery(f, level)
		f.Add(q)
		got, err := v.Redirect(q, fuzzNow)
		if err != nil {
			f.Fatal(err)
		}
		known[got.Request().ID] = true
	}
	f.Add([]byte("SAMLRequest=&SigAlg=&Signature="))
	f.Add([]byte("SAMLRequest=" + url.QueryEscape(string(b64(string(deflate(plainRequest))))) + "&SigAlg=x&Signature=x"))
	f.Fuzz(func(t *testing.T, q []byte) {
		got, err := v.Redirect(q, fuzzNow)
		checkFuzzed(t, known, got, err)
	})
}

func FuzzPost(f *testing.F) {
	v := vectorVerifier(f)
	known := map[string]bool{}
	for level := 1; level <= 3; level++ {
		doc := vectorPost(f, level)
		f.Add([]byte(doc))
		got, err := v.Post(b64(doc), nil, false, fuzzNow)
		if err != nil {
			f.Fatal(err)
		}
		known[got.Request().ID] = true
	}
	f.Add([]byte(plainRequest))
	f.Fuzz(func(t *testing.T, doc []byte) {
		got, err := v.Post(b64(string(doc)), []byte("r"), true, fuzzNow)
		checkFuzzed(t, known, got, err)
		if _, err := v.Post(doc, nil, false, fuzzNow); err != nil {
			refusalOf(t, err)
		}
	})
}

func checkFuzzed(t *testing.T, known map[string]bool, got VerifiedRequest, err error) {
	t.Helper()
	if err != nil {
		refusalOf(t, err)
		return
	}
	if !known[got.Request().ID] {
		t.Fatalf("forged %+v", got.Request())
	}
}

// FuzzSPMetadata: no panic; what parses is whole. The fuzzer can sign for
// itself no more than for others, so what passes is a vector.
func FuzzSPMetadata(f *testing.F) {
	for port := 4201; port <= 4206; port++ {
		f.Add(readFile(f, "vectors", fmt.Sprintf("passport-spid-metadata_port%d.xml", port)))
	}
	f.Add([]byte(spDocument(spKit().cert)))
	f.Fuzz(func(t *testing.T, data []byte) {
		sp, err := ParseSPMetadata(data)
		if err != nil {
			return
		}
		if sp.EntityID.IsZero() || len(sp.ACS) == 0 || len(sp.Certificates) == 0 || defaultACS(sp) == "" || !bytes.HasPrefix([]byte(sp.EntityID.String()), []byte("http://localhost:420")) {
			t.Fatalf("%+v", sp)
		}
	})
}
