package logout

import (
	"bytes"
	"compress/flate"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/beevik/etree"
	dsig "github.com/russellhaering/goxmldsig"

	"custode/authcore/saml"
	"custode/internal/id"
)

const (
	idpEntity  = "https://idp.example.it"
	idpRedir   = "https://idp.example.it/slo/redirect"
	idpPost    = "https://idp.example.it/slo/post"
	idpSOAP    = "https://idp.example.it/slo/soap"
	spEntity   = "https://sp.example.it"
	spSLO      = "https://sp.example.it/slo"
	strange    = "https://other.example.it"
	sigRSA256  = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
	goodName   = "_n0123456789abcdef"
	goodIndex  = "_s0123456789abcdef"
	soapBefore = `<S:Envelope xmlns:S="http://schemas.xmlsoap.org/soap/envelope/"><S:Header/><S:Body>`
	soapAfter  = `</S:Body></S:Envelope>`
)

var kitNow = time.Date(2026, 11, 21, 19, 5, 0, 123_456_789, time.UTC)

type kit struct {
	key  *rsa.PrivateKey
	cert *x509.Certificate
}

func newKit() kit {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: kitNow.AddDate(-1, 0, 0), NotAfter: kitNow.AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return kit{key, cert}
}

var (
	spKit    = sync.OnceValue(newKit)
	otherKit = sync.OnceValue(newKit)
	idpKit   = sync.OnceValue(newKit)
)

func entity(s string) id.EntityID {
	e, err := id.ParseEntityID(s)
	if err != nil {
		panic(err)
	}
	return e
}

type spMap map[string]*saml.SP

func (m spMap) Lookup(entityID string) (*saml.SP, bool) { sp, ok := m[entityID]; return sp, ok }

func testReader(t testing.TB) *Reader {
	t.Helper()
	r, err := NewReader(ReaderConfig{EntityID: entity(idpEntity), Locations: []string{idpRedir, idpPost, idpSOAP}, SPs: spMap{
		spEntity: {EntityID: entity(spEntity), Certificates: []*x509.Certificate{spKit().cert}},
		strange:  {EntityID: entity(strange), Certificates: []*x509.Certificate{otherKit().cert}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func testIssuer(t testing.TB) *Issuer {
	t.Helper()
	i, err := NewIssuer(saml.IssuerConfig{EntityID: entity(idpEntity), Signer: idpKit().key, Certificate: idpKit().cert, Random: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// plainRequest is what Shibboleth SP 3.4 sends, as far as SPID's rules go: an
// Issuer without Format, and the extension that wants no answer.
const plainRequest = `<samlp:LogoutRequest xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol" xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion"` +
	` ID="_q1" Version="2.0" IssueInstant="2026-11-21T19:04:59.500Z" NotOnOrAfter="2026-11-21T19:09:59Z" Destination="https://idp.example.it/slo/post">` +
	`<saml:Issuer>https://sp.example.it</saml:Issuer>` +
	`<saml:NameID Format="urn:oasis:names:tc:SAML:2.0:nameid-format:transient" NameQualifier="https://idp.example.it">_n0123456789abcdef</saml:NameID>` +
	`<samlp:SessionIndex>_s0123456789abcdef</samlp:SessionIndex></samlp:LogoutRequest>`

const plainResponse = `<samlp:LogoutResponse xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol" xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion"` +
	` ID="_p1" Version="2.0" IssueInstant="2026-11-21T19:05:00.000Z" InResponseTo="_ours" Destination="https://idp.example.it/slo/post">` +
	`<saml:Issuer Format="urn:oasis:names:tc:SAML:2.0:nameid-format:entity" NameQualifier="https://sp.example.it">https://sp.example.it</saml:Issuer>` +
	`<samlp:Status><samlp:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Success"/></samlp:Status></samlp:LogoutResponse>`

// sign signs as an SP's library does, sharing no code with the product.
func sign(t testing.TB, doc string, k kit) string {
	t.Helper()
	d := etree.NewDocument()
	if err := d.ReadFromString(doc); err != nil {
		t.Fatal(err)
	}
	ctx, err := dsig.NewSigningContext(k.key, [][]byte{k.cert.Raw})
	if err != nil {
		t.Fatal(err)
	}
	ctx.Canonicalizer = dsig.MakeC14N10ExclusiveCanonicalizerWithPrefixList("")
	sig, err := ctx.ConstructSignature(d.Root().Copy(), true)
	if err != nil {
		t.Fatal(err)
	}
	root := d.Root()
	root.InsertChildAt(root.ChildElements()[0].Index()+1, sig)
	out, err := d.WriteToString()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func b64(s string) []byte { return []byte(base64.StdEncoding.EncodeToString([]byte(s))) }

// redirected builds a signed query; relay "-" leaves RelayState out.
func redirected(t testing.TB, parameter, doc, relay string, k kit) string {
	t.Helper()
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	w.Write([]byte(doc))
	w.Close()
	q := parameter + "=" + url.QueryEscape(base64.StdEncoding.EncodeToString(b.Bytes()))
	if relay != "-" {
		q += "&RelayState=" + url.QueryEscape(relay)
	}
	q += "&SigAlg=" + url.QueryEscape(sigRSA256)
	sum := sha256.Sum256([]byte(q))
	sig, err := rsa.SignPKCS1v15(nil, k.key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s&Signature=%s", q, url.QueryEscape(base64.StdEncoding.EncodeToString(sig)))
}

func replace(t testing.TB, s, old, with string) string {
	t.Helper()
	if strings.Count(s, old) != 1 {
		t.Fatalf("%q occurs %d times", old, strings.Count(s, old))
	}
	return strings.Replace(s, old, with, 1)
}
