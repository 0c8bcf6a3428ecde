package saml

import (
	"bytes"
	"compress/flate"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"flag"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/beevik/etree"
	dsig "github.com/russellhaering/goxmldsig"

	"custode/internal/id"
)

var update = flag.Bool("update", false, "rewrite golden files")

const (
	idpEntity   = "https://idp.example.it"
	idpRedirect = "https://idp.example.it/sso/redirect"
	idpPost     = "https://idp.example.it/sso/post"
	spEntity    = "https://sp.example.it"
)

var kitNow = time.Date(2026, 11, 21, 19, 5, 0, 123_456_789, time.UTC)

// signerKit is a key pair with its certificate.
type signerKit struct {
	key  *rsa.PrivateKey
	cert *x509.Certificate
}

func newSignerKit(bits int, from, to time.Time) signerKit {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		panic(err)
	}
	return signerKit{key, selfSigned(key, from, to)}
}

func selfSigned(key crypto.Signer, from, to time.Time) *x509.Certificate {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: from, NotAfter: to}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return cert
}

// Keys are made once per test binary: making them is what takes time.
var (
	spKit    = sync.OnceValue(func() signerKit { return newSignerKit(2048, kitNow.AddDate(-1, 0, 0), kitNow.AddDate(1, 0, 0)) })
	otherKit = sync.OnceValue(func() signerKit { return newSignerKit(2048, kitNow.AddDate(-1, 0, 0), kitNow.AddDate(1, 0, 0)) })
	idpKit   = sync.OnceValue(func() signerKit { return newSignerKit(2048, kitNow.AddDate(-1, 0, 0), kitNow.AddDate(1, 0, 0)) })
)

type spMap map[string]*SP

func (m spMap) Lookup(entityID string) (*SP, bool) { sp, ok := m[entityID]; return sp, ok }

func mustEntity(s string) id.EntityID {
	e, err := id.ParseEntityID(s)
	if err != nil {
		panic(err)
	}
	return e
}

func testSP(certs ...*x509.Certificate) *SP {
	return &SP{
		EntityID: mustEntity(spEntity), Certificates: certs, DisplayName: map[string]string{"it": "Comune di Prova"},
		ACS:      []ACS{{0, spEntity + "/acs", true}, {1, spEntity + "/acs1", false}},
		Services: []AttributeService{{0, nil, []string{"spidCode", "name", "dateOfBirth"}}, {7, nil, []string{"email"}}},
	}
}

func testVerifier(t testing.TB, change ...func(*VerifierConfig)) *Verifier {
	t.Helper()
	other := testSP(otherKit().cert)
	other.EntityID = mustEntity("https://other.example.it")
	c := VerifierConfig{EntityID: mustEntity(idpEntity), RedirectLocation: idpRedirect, PostLocation: idpPost, StrictForceAuthn: true,
		SPs: spMap{spEntity: testSP(spKit().cert), "https://other.example.it": other}}
	for _, f := range change {
		f(&c)
	}
	v, err := NewVerifier(c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// plainRequest is a good level 2 request; tests replace parts of it.
const plainRequest = `<samlp:AuthnRequest xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol" xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion"` +
	` ID="_r1" Version="2.0" IssueInstant="2026-11-21T19:04:59.500Z" Destination="https://idp.example.it" ForceAuthn="true"` +
	` AssertionConsumerServiceIndex="0" AttributeConsumingServiceIndex="0">` +
	`<saml:Issuer Format="urn:oasis:names:tc:SAML:2.0:nameid-format:entity" NameQualifier="https://sp.example.it">https://sp.example.it</saml:Issuer>` +
	`<samlp:NameIDPolicy Format="urn:oasis:names:tc:SAML:2.0:nameid-format:transient"/>` +
	`<samlp:RequestedAuthnContext Comparison="exact"><saml:AuthnContextClassRef>https://www.spid.gov.it/SpidL2</saml:AuthnContextClassRef></samlp:RequestedAuthnContext>` +
	`</samlp:AuthnRequest>`

// signPost signs as an SP library does, sharing no code with the product.
func signPost(t testing.TB, doc string, key crypto.Signer, cert *x509.Certificate, change ...func(*dsig.SigningContext)) string {
	t.Helper()
	d := etree.NewDocument()
	if err := d.ReadFromString(doc); err != nil {
		t.Fatal(err)
	}
	ctx, err := dsig.NewSigningContext(key, [][]byte{cert.Raw})
	if err != nil {
		t.Fatal(err)
	}
	ctx.Canonicalizer = dsig.MakeC14N10ExclusiveCanonicalizerWithPrefixList("")
	for _, f := range change {
		f(ctx)
	}
	root := d.Root()
	sig, err := ctx.ConstructSignature(root, true)
	if err != nil {
		t.Fatal(err)
	}
	at := 0
	for _, c := range root.ChildElements() {
		if c.Tag == "Issuer" {
			at = c.Index() + 1
			break
		}
	}
	root.InsertChildAt(at, sig)
	out, err := d.WriteToString()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func b64(s string) []byte { return []byte(base64.StdEncoding.EncodeToString([]byte(s))) }

func deflate(doc string) []byte {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	w.Write([]byte(doc))
	w.Close()
	return b.Bytes()
}

// redirectTo builds a signed query; relay "-" leaves RelayState out.
func redirectTo(t testing.TB, doc, relay string, key *rsa.PrivateKey) string {
	t.Helper()
	q := "SAMLRequest=" + url.QueryEscape(base64.StdEncoding.EncodeToString(deflate(doc)))
	if relay != "-" {
		q += "&RelayState=" + url.QueryEscape(relay)
	}
	q += "&SigAlg=" + url.QueryEscape("http://www.w3.org/2001/04/xmldsig-more#rsa-sha256")
	return q + "&Signature=" + signQuery(t, q, key, crypto.SHA256)
}

func signQuery(t testing.TB, octets string, key *rsa.PrivateKey, hash crypto.Hash) string {
	t.Helper()
	h := hash.New()
	h.Write([]byte(octets))
	sig, err := rsa.SignPKCS1v15(nil, key, hash, h.Sum(nil))
	if err != nil {
		t.Fatal(err)
	}
	return url.QueryEscape(base64.StdEncoding.EncodeToString(sig))
}

// refusalOf returns the refusal behind err; a nil error is code 0.
func refusalOf(t testing.TB, err error) *Refusal {
	t.Helper()
	if err == nil {
		return &Refusal{}
	}
	var r *Refusal
	if !errors.As(err, &r) {
		t.Fatalf("error is not a refusal: %v", err)
	}
	row, ok := Anomaly(r.Code)
	if !ok || row.Response != (r.Reply != nil) {
		t.Fatalf("refusal %d with reply %v contradicts the table", r.Code, r.Reply)
	}
	return r
}

func readFile(t testing.TB, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{"testdata"}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func golden(t *testing.T, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", "golden", strings.ReplaceAll(t.Name(), "/", "_")+".xml")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("differs from %s (rewrite with -update and review):\n%s", path, got)
	}
}

// countingReader is a random source that tests can predict.
type countingReader struct{ n byte }

func (r *countingReader) Read(p []byte) (int, error) {
	for i := range p {
		r.n++
		p[i] = r.n
	}
	return len(p), nil
}

func replace(t testing.TB, s, old, with string) string {
	t.Helper()
	if strings.Count(s, old) != 1 {
		t.Fatalf("%q occurs %d times", old, strings.Count(s, old))
	}
	return strings.Replace(s, old, with, 1)
}
