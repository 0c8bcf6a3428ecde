package saml

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	dsig "github.com/russellhaering/goxmldsig"
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
	lenient := lenientVectors(f)
	for _, doc := range openRequests() {
		f.Add([]byte(redirectTo(f, doc, "", otherKit().key)))
	}
	f.Add([]byte("SAMLRequest=" + url.QueryEscape(string(b64(string(deflate(plainRequest))))) + "&SigAlg=x&Signature=x"))
	f.Fuzz(func(t *testing.T, q []byte) {
		got, err := v.Redirect(q, fuzzNow)
		checkFuzzed(t, known, got, err)
		got, err = lenient.Redirect(q, fuzzNow)
		checkFuzzed(t, known, got, err)
	})
}

// lenientVectors is the vectors' verifier with every open point turned the other way.
func lenientVectors(t testing.TB) *Verifier {
	c := vectorVerifier(t).config
	c.StrictForceAuthn, c.StrictScoping, c.LenientSubject, c.LenientPurpose, c.LenientBetter = false, true, true, true, true
	v, err := NewVerifier(c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// openRequests are requests of the shapes that the open points are about.
func openRequests() []string {
	with := func(old, text string) string { return strings.Replace(plainRequest, old, text, 1) }
	return []string{
		with("<samlp:NameIDPolicy ", spidExtensions+"<spid:Purpose>Z</spid:Purpose></samlp:Extensions><samlp:NameIDPolicy "),
		with("<samlp:NameIDPolicy ", `<saml:Subject><saml:NameID Format="`+unspecified+`" NameQualifier="q">x</saml:NameID></saml:Subject><samlp:NameIDPolicy `),
		with("</samlp:RequestedAuthnContext>", `</samlp:RequestedAuthnContext><samlp:Scoping ProxyCount="1"/>`),
		with("<samlp:RequestedAuthnContext ", `<saml:Conditions NotOnOrAfter="2026-11-21T19:10:00Z"/><samlp:RequestedAuthnContext `),
		with(`Comparison="exact"`, `Comparison="better"`), with("SpidL2<", "SpidL3<"), with(` ID="_r1"`, ""),
	}
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
	for _, doc := range openRequests() {
		f.Add([]byte(signPost(f, doc, otherKit().key, otherKit().cert)))
	}
	odd := strings.NewReplacer("http://www.w3.org/2001/04/xmlenc#sha256", "http://www.w3.org/2001/04/xmlenc#sha384", `URI="#`, `URI="`)
	f.Add([]byte(odd.Replace(vectorPost(f, 2))))
	lenient := lenientVectors(f)
	f.Fuzz(func(t *testing.T, doc []byte) {
		got, err := v.Post(b64(string(doc)), []byte("r"), true, fuzzNow)
		checkFuzzed(t, known, got, err)
		if err == nil {
			theirs(t, doc, got)
		}
		got, err = lenient.Post(b64(string(doc)), nil, false, fuzzNow)
		checkFuzzed(t, known, got, err)
		if _, err := v.Post(doc, nil, false, fuzzNow); err != nil {
			refusalOf(t, err)
		}
	})
}

// theirs fails when another implementation refuses the signature of a document
// that was accepted.
func theirs(t *testing.T, doc []byte, got VerifiedRequest) {
	t.Helper()
	root, err := requestBounds.Parse(doc)
	if err != nil {
		t.Fatal(err)
	}
	for _, sig := range root.ChildElements() {
		if sig.Tag != "Signature" {
			continue
		}
		for _, part := range sig.ChildElements() {
			switch part.Tag {
			case "KeyInfo":
				sig.RemoveChild(part)
			case "SignatureValue": // the library does not tolerate white space in it
				part.SetText(strings.Join(strings.Fields(part.Text()), ""))
			}
		}
	}
	for _, cert := range got.SP().Certificates {
		ctx := dsig.NewDefaultValidationContext(&dsig.MemoryX509CertificateStore{Roots: []*x509.Certificate{cert}})
		ctx.Clock = dsig.NewFakeClockAt(fuzzNow)
		if el, err := ctx.Validate(root); err == nil && el.SelectAttrValue("ID", "") == got.Request().ID {
			return
		}
	}
	t.Fatalf("another library refuses %s", doc)
}

// TestMutatedVectorsElsewhere flips octets of recorded requests: what is still
// accepted another implementation accepts too.
func TestMutatedVectorsElsewhere(t *testing.T) {
	v, accepted := vectorVerifier(t), 0
	original := vectorPost(t, 2)
	for i := range original {
		changed := []byte(original)
		changed[i] ^= 2
		if got, err := v.Post(b64(string(changed)), nil, false, fuzzNow); err == nil {
			accepted++
			theirs(t, changed, got)
		}
	}
	if accepted == 0 {
		t.Error("nothing was accepted: KeyInfo is not covered, and may change")
	}
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
	f.Add([]byte(aggregated("https://aggregator.example.it/pub-ag-lite/c_h501", spKit().cert, otherKit().cert)))
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
