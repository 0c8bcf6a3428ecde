package idpmeta

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"math/big"
	"regexp"
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
	entity   = "https://idp.example.it"
	misspelt = "http://www.w3.org/2001/XMLSchemainstance"
)

var now = time.Date(2026, 11, 21, 19, 5, 0, 0, time.UTC)

type pair struct {
	key  *rsa.PrivateKey
	cert *x509.Certificate
}

func newPair(bits int, from, to time.Time) pair {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		panic(err)
	}
	return pair{key, selfSigned(key, from, to)}
}

func selfSigned(key *rsa.PrivateKey, from, to time.Time) *x509.Certificate {
	template := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "prova"}, NotBefore: from, NotAfter: to}
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

var (
	active = sync.OnceValue(func() pair { return newPair(2048, now.AddDate(-1, 0, 0), now.AddDate(1, 0, 0)) })
	next   = sync.OnceValue(func() pair { return newPair(2048, now.AddDate(-1, 0, 0), now.AddDate(3, 0, 0)) })
	short  = sync.OnceValue(func() pair { return newPair(1024, now.AddDate(-1, 0, 0), now.AddDate(1, 0, 0)) })
)

// published is what the product publishes during a roll-over.
func product(t testing.TB) string {
	t.Helper()
	e, err := id.ParseEntityID(entity)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := saml.NewIssuer(saml.IssuerConfig{EntityID: e, Signer: active().key, Certificate: active().cert, Random: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	both := func(it, en string) map[string]string { return map[string]string{"it": it, "en": en} }
	doc, err := issuer.Metadata(saml.MetadataConfig{
		SSO:          []saml.Endpoint{{Binding: saml.Redirect, Location: entity + "/sso/redirect"}, {Binding: saml.Post, Location: entity + "/sso/post"}},
		SLO:          []saml.Endpoint{{Binding: saml.Redirect, Location: entity + "/slo/redirect", ResponseLocation: entity + "/slo/done"}, {Binding: saml.SOAP, Location: entity + "/slo/soap"}},
		Certificates: []*x509.Certificate{next().cert},
		Organization: saml.Organization{Name: both("Prova S.p.A.", "Test"), DisplayName: both("Prova", "Test"), URL: both("https://www.example.it", "https://www.example.it/en")},
		Attributes:   []string{"name", "spidCode"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(doc)
}

var signature = regexp.MustCompile(`(?s)<ds:Signature .*?</ds:Signature>`)

// signed signs the changed document anew, with another library.
func signed(t testing.TB, doc string, by pair) string {
	t.Helper()
	d := etree.NewDocument()
	if err := d.ReadFromString(signature.ReplaceAllString(doc, "")); err != nil {
		t.Fatal(err)
	}
	ctx, err := dsig.NewSigningContext(by.key, [][]byte{by.cert.Raw})
	if err != nil {
		t.Fatal(err)
	}
	ctx.Canonicalizer = dsig.MakeC14N10ExclusiveCanonicalizerWithPrefixList("")
	sig, err := ctx.ConstructSignature(d.Root(), true)
	if err != nil {
		t.Fatal(err)
	}
	d.Root().InsertChildAt(0, sig)
	out, err := d.WriteToString()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func b64(cert *x509.Certificate) string { return base64.StdEncoding.EncodeToString(cert.Raw) }

func expected() Expected {
	return Expected{EntityID: entity, PublicURL: entity, Signer: active().cert, Published: []*x509.Certificate{active().cert, next().cert}, KnownNames: []string{"name", "spidCode"}}
}

// broken returns the names of the broken rules.
func broken(t testing.TB, doc string, want Expected) string {
	t.Helper()
	results, err := Check([]byte(doc), want, now)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range results {
		if r.Err != nil {
			names = append(names, r.Rule)
		}
	}
	if Kept(results) != (len(names) == 0) || len(results) != len(rules) {
		t.Error("Kept does not tell")
	}
	return strings.Join(names, " ")
}

func TestProductKeepsTheRules(t *testing.T) {
	doc := product(t)
	if got := broken(t, doc, expected()); got != "" {
		t.Errorf("broken: %s", got)
	}
	if got := broken(t, doc, Expected{Count: 2}); got != "" {
		t.Errorf("nothing expected but two certificates; broken: %s", got)
	}
	if got := broken(t, signed(t, doc, active()), expected()); got != "" {
		t.Errorf("signed anew; broken: %s", got)
	}
}

// TestEachRule breaks a good document in one way at a time.
func TestEachRule(t *testing.T) {
	doc := product(t)
	expired := selfSigned(active().key, now.AddDate(-3, 0, 0), now.AddDate(0, 0, -1))
	for name, tc := range map[string]struct{ old, with, want string }{
		"no entityID":            {`entityID="https://idp.example.it"`, `entityID=""`, "entityID"},
		"other entityID":         {`entityID="https://idp.example.it"`, `entityID="https://idp.example.it/"`, "entityID"},
		"role twice":             {"<md:Organization>", `<md:IDPSSODescriptor/><md:Organization>`, "role keys signature published protocol sso slo nameID"},
		"validUntil over":        {` entityID=`, ` validUntil="2026-11-21T19:05:00Z" entityID=`, "validity"},
		"validUntil malformed":   {` entityID=`, ` validUntil="soon" entityID=`, "validity"},
		"expired":                {b64(next().cert), b64(expired), "expiry published"},
		"short key":              {b64(next().cert), b64(short().cert), "keys signature published"},
		"spare twice the active": {b64(next().cert), b64(active().cert), "published"},
		"not signed wanted":      {`WantAuthnRequestsSigned="true"`, `WantAuthnRequestsSigned="false"`, "protocol"},
		"misspelt attribute":     {`WantAuthnRequestsSigned="true"`, `WantAuthnRequestSigned="true"`, "protocol"},
		"SAML 1.1 too":           {`protocolSupportEnumeration="`, `protocolSupportEnumeration="urn:oasis:names:tc:SAML:1.1:protocol `, "protocol"},
		"no SSO by POST":         {`HTTP-POST" Location="https://idp.example.it/sso/post`, `HTTP-Redirect" Location="https://idp.example.it/sso/post`, "sso"},
		"SSO by SOAP":            {`HTTP-POST" Location="https://idp.example.it/sso/post`, `SOAP" Location="https://idp.example.it/sso/post`, "sso"},
		"SSO elsewhere":          {"https://idp.example.it/sso/post", "https://evil.example.it/sso/post", "sso"},
		"SSO beside":             {"https://idp.example.it/sso/post", "https://idp.example.it.evil.example/sso", "sso"},
		"SLO script":             {"https://idp.example.it/slo/done", "javascript:alert(1)", "slo"},
		"SLO artifact":           {`HTTP-Redirect" Location="https://idp.example.it/slo/`, `HTTP-Artifact" Location="https://idp.example.it/slo/`, "slo"},
		"persistent":             {"nameid-format:transient", "nameid-format:persistent", "nameID"},
		"RT's typo":              {"nameid-format:transient", "nameidformat:transient", "nameID"},
		"unknown attribute":      {`Name="spidCode"`, `Name="SPIDCode"`, "attributes"},
		"attribute twice":        {`Name="spidCode"`, `Name="name"`, "attributes"},
		"xsi:type":               {`Name="spidCode"`, `xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="x" Name="spidCode"`, "attributes"},
		"no Italian name":        {`<md:OrganizationName xml:lang="it">`, `<md:OrganizationName xml:lang="de">`, "organization"},
		"empty display name":     {`<md:OrganizationDisplayName xml:lang="it">Prova<`, `<md:OrganizationDisplayName xml:lang="it"> <`, "organization"},
		"unordered":              {"<md:NameIDFormat>", `<md:KeyDescriptor use="encryption"/><md:NameIDFormat>`, "order"},
		"unknown child":          {"<md:Organization>", "<md:Thing/><md:Organization>", "order"},
	} {
		t.Run(name, func(t *testing.T) {
			changed := strings.ReplaceAll(doc, tc.old, tc.with)
			if changed == doc {
				t.Fatal("nothing changed")
			}
			if got := broken(t, signed(t, changed, active()), expected()); got != tc.want {
				t.Errorf("broken %q, want %q", got, tc.want)
			}
		})
	}
}

func TestSignatureRule(t *testing.T) {
	doc := product(t)
	sig := signature.FindString(doc)
	noID := regexp.MustCompile(` ID="[^"]*"`).ReplaceAllString(doc, "")
	// A declaration that nothing uses is not signed, and still must not be there.
	declared := strings.Replace(doc, "<md:EntityDescriptor ", `<md:EntityDescriptor xmlns:xsi="`+misspelt+`" `, 1)
	for name, tc := range map[string]struct {
		doc, want string
	}{
		"misspelt namespace": {declared, "namespaces"},
		"changed":            {strings.Replace(doc, "/sso/post", "/sso/pest", 1), "signature"},
		"unsigned":           {strings.Replace(doc, sig, "", 1), "signature"},
		"last":               {strings.Replace(strings.Replace(doc, sig, "", 1), "</md:EntityDescriptor>", sig+"</md:EntityDescriptor>", 1), "signature order"},
		"by the spare":       {signed(t, doc, next()), "signature"},
		"by a stranger":      {signed(t, doc, pair{newPair(2048, now, now.AddDate(1, 0, 0)).key, active().cert}), "signature"},
		"without an ID":      {signed(t, noID, active()), "id"},
	} {
		if got := broken(t, tc.doc, expected()); got != tc.want {
			t.Errorf("%s: broken %q, want %q", name, got, tc.want)
		}
	}
	// Without pinned certificates the spare may sign; the count still tells.
	if got := broken(t, signed(t, doc, next()), Expected{Count: 1}); got != "published" {
		t.Errorf("broken %q", got)
	}
}

func TestSoonOver(t *testing.T) {
	doc := strings.ReplaceAll(product(t), b64(next().cert), b64(selfSigned(next().key, now.AddDate(-1, 0, 0), now.AddDate(0, 1, 0))))
	results, err := Check([]byte(signed(t, doc, active())), Expected{}, now)
	if err != nil || !Kept(results) {
		t.Fatal(err, results)
	}
	for _, r := range results {
		if r.Rule == "expiry" && !strings.Contains(r.Note, "ends soon") {
			t.Errorf("%+v", r)
		}
	}
}

func TestNoMetadata(t *testing.T) {
	for _, doc := range []string{"", "x", "<a/>", `<!DOCTYPE a><a/>`, `<md:EntitiesDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata"/>`} {
		if _, err := Check([]byte(doc), Expected{}, now); err == nil {
			t.Errorf("%q passed", doc)
		}
	}
	if got := broken(t, `<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata"/>`, Expected{}); !strings.HasPrefix(got, "role keys signature entityID id protocol sso slo nameID") {
		t.Errorf("an empty descriptor breaks %s", got)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add([]byte(product(f)))
	f.Add([]byte(`<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata"><md:IDPSSODescriptor/></md:EntityDescriptor>`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		results, err := Check(doc, expected(), now)
		if err == nil && len(results) != len(rules) {
			t.Errorf("%d results", len(results))
		}
	})
}
