package spsim

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/beevik/etree"
	dsig "github.com/russellhaering/goxmldsig"
)

const (
	testBase = "https://servizi.provaalta.example"
	testIdP  = "https://idp.example.it"
)

// clock is a test's clock, moved by hand.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock {
	return &clock{t: time.Date(2026, 3, 4, 5, 6, 7, 890_000_000, time.UTC)}
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// fakeIdP signs metadata and responses; it is honest until an answer says
// otherwise.
type fakeIdP struct {
	clock    *clock
	key      *rsa.PrivateKey
	cert     []byte
	otherKey *rsa.PrivateKey
	other    []byte // certificate of otherKey, in no metadata
}

// keys are made once: RSA generation is most of the tests' time.
var testKeys = sync.OnceValue(func() [3]*rsa.PrivateKey {
	var keys [3]*rsa.PrivateKey
	for i := range keys {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		keys[i] = k
	}
	return keys
})

func certificateFor(t testing.TB, key *rsa.PrivateKey, from, to time.Time) []byte {
	t.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(from.UnixNano()), Subject: pkix.Name{CommonName: "fake IdP"},
		NotBefore: from, NotAfter: to,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func newFakeIdP(t testing.TB, c *clock) *fakeIdP {
	t.Helper()
	keys := testKeys()
	from, to := c.now().Add(-time.Hour), c.now().Add(1000*time.Hour)
	return &fakeIdP{
		clock: c, key: keys[0], cert: certificateFor(t, keys[0], from, to),
		otherKey: keys[1], other: certificateFor(t, keys[1], from, to),
	}
}

func (f *fakeIdP) metadataDoc() *etree.Document {
	doc := etree.NewDocument()
	root := doc.CreateElement("md:EntityDescriptor")
	for _, a := range [][2]string{
		{"xmlns:md", nsMetadata}, {"xmlns:ds", nsSignature}, {"xmlns:saml", nsAssertion},
		{"ID", "_m1"}, {"entityID", testIdP},
	} {
		root.CreateAttr(a[0], a[1])
	}
	role := add(root, "md:IDPSSODescriptor", "WantAuthnRequestsSigned", "true", "protocolSupportEnumeration", nsProtocol)
	data := add(add(add(role, "md:KeyDescriptor", "use", "signing"), "ds:KeyInfo"), "ds:X509Data")
	add(data, "ds:X509Certificate").SetText(base64.StdEncoding.EncodeToString(f.cert))
	add(role, "md:SingleLogoutService", "Binding", bindingPost, "Location", testIdP+"/slo/post")
	add(role, "md:SingleLogoutService", "Binding", bindingRedirect, "Location", testIdP+"/slo/redirect")
	add(role, "md:NameIDFormat").SetText(formatTransient)
	add(role, "md:SingleSignOnService", "Binding", bindingPost, "Location", testIdP+"/sso/post")
	add(role, "md:SingleSignOnService", "Binding", bindingRedirect, "Location", testIdP+"/sso/redirect")
	add(role, "saml:Attribute", "Name", "spidCode")
	return doc
}

func (f *fakeIdP) metadata(t testing.TB, mutate func(root *etree.Element)) []byte {
	t.Helper()
	doc := f.metadataDoc()
	if mutate != nil {
		mutate(doc.Root())
	}
	if err := signEnveloped(doc.Root(), f.key, f.cert, crypto.SHA256, 0); err != nil {
		t.Fatal(err)
	}
	return bytesOf(t, doc)
}

func bytesOf(t testing.TB, doc *etree.Document) []byte {
	t.Helper()
	raw, err := doc.WriteToBytes()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// newSP returns a service provider that trusts a fake identity provider.
func newSP(t testing.TB, change func(*Config)) (*SP, *fakeIdP, *clock) {
	t.Helper()
	c := newClock()
	idp := newFakeIdP(t, c)
	cfg := Config{BaseURL: testBase, IdPMetadata: idp.metadata(t, nil), Now: c.now, MaxPending: 64}
	cfg.Key = testKeys()[2]
	cfg.Certificate = certificateFor(t, cfg.Key, c.now().Add(-time.Hour), c.now().Add(1000*time.Hour))
	if change != nil {
		change(&cfg)
	}
	sp, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return sp, idp, c
}

// answer describes the response to a request; the zero value is honest.
type answer struct {
	level            int       // performed; 0 means the one asked for
	issued           time.Time // of Response and Assertion; zero means now
	assertion        func(el *etree.Element)
	response         func(el *etree.Element) // after the assertion was signed
	after            func(root *etree.Element)
	raw              func([]byte) []byte
	unsignedResponse bool
	unsignedAss      bool
	strangerResponse bool
	strangerAss      bool
	hash             crypto.Hash
	status           [3]string // top, sub, message; makes an error response
	// signedInfo changes what the response's signature says about itself; the
	// changed SignedInfo is signed with infoHash.
	signedInfo func(info *etree.Element)
	infoHash   crypto.Hash
}

// respond answers the request that sp remembers under id.
func (f *fakeIdP) respond(t testing.TB, sp *SP, id string, a answer) string {
	t.Helper()
	sp.requests.mu.Lock()
	req := sp.requests.byID[id]
	sp.requests.mu.Unlock()
	if req == nil {
		t.Fatalf("the SP does not remember request %q", id)
	}
	if a.hash == 0 {
		a.hash = crypto.SHA256
	}
	if a.issued.IsZero() {
		a.issued = f.clock.now()
	}
	doc := etree.NewDocument()
	root := doc.CreateElement("samlp:Response")
	for _, at := range [][2]string{
		{"xmlns:samlp", nsProtocol}, {"xmlns:saml", nsAssertion}, {"ID", mustID(t)}, {"Version", "2.0"},
		{"IssueInstant", a.issued.Format(instantLayout)}, {"InResponseTo", id},
		{"Destination", sp.ACS(req.request.ACSIndex)},
	} {
		root.CreateAttr(at[0], at[1])
	}
	add(root, "saml:Issuer").SetText(testIdP)
	status := add(root, "samlp:Status")
	if a.status[0] != "" {
		top := add(status, "samlp:StatusCode", "Value", statusPrefix+a.status[0])
		if a.status[1] != "" {
			add(top, "samlp:StatusCode", "Value", statusPrefix+a.status[1])
		}
		add(status, "samlp:StatusMessage").SetText(a.status[2])
	} else {
		add(status, "samlp:StatusCode", "Value", statusPrefix+"Success")
		f.writeAssertion(t, root, sp, req, a)
	}
	if a.response != nil {
		a.response(root)
	}
	if !a.unsignedResponse {
		f.sign(t, root, a.strangerResponse, a)
	}
	if a.after != nil {
		a.after(root)
	}
	raw := bytesOf(t, doc)
	if a.raw != nil {
		raw = a.raw(raw)
	}
	return base64.StdEncoding.EncodeToString(raw)
}

func (f *fakeIdP) sign(t testing.TB, el *etree.Element, stranger bool, a answer) {
	t.Helper()
	key, cert := f.key, f.cert
	if stranger {
		key, cert = f.otherKey, f.other
	}
	ctx, err := dsig.NewSigningContext(key, [][]byte{cert})
	if err != nil {
		t.Fatal(err)
	}
	ctx.Hash = a.hash
	ctx.Canonicalizer = dsig.MakeC14N10ExclusiveCanonicalizerWithPrefixList("")
	// A copy, because the canonicaliser drops xmlns:xs from what it is given.
	sig, err := ctx.ConstructSignature(el.Copy(), true)
	if err != nil {
		t.Fatal(err)
	}
	if a.signedInfo != nil && el.Tag == "Response" {
		resign(t, sig, key, a)
	}
	el.InsertChildAt(el.ChildElements()[1].Index(), sig)
}

// resign changes SignedInfo and signs it again, so that only the allow-list
// stands between the change and a valid signature.
func resign(t testing.TB, sig *etree.Element, key *rsa.PrivateKey, a answer) {
	t.Helper()
	info := sig.FindElement("SignedInfo")
	a.signedInfo(info)
	alone := info.Copy()
	alone.CreateAttr("xmlns:ds", nsSignature)
	raw, err := dsig.MakeC14N10ExclusiveCanonicalizerWithPrefixList("").Canonicalize(alone)
	if err != nil {
		t.Fatal(err)
	}
	hash := a.infoHash
	if hash == 0 {
		hash = crypto.SHA256
	}
	h := hash.New()
	h.Write(raw)
	value, err := rsa.SignPKCS1v15(rand.Reader, key, hash, h.Sum(nil))
	if err != nil {
		t.Fatal(err)
	}
	sig.FindElement("SignatureValue").SetText(base64.StdEncoding.EncodeToString(value))
}

func mustID(t testing.TB) string {
	t.Helper()
	id, err := newID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (f *fakeIdP) writeAssertion(t testing.TB, root *etree.Element, sp *SP, req *sent, a answer) {
	t.Helper()
	end := a.issued.Add(5 * time.Minute).Format(instantLayout)
	el := add(root, "saml:Assertion", "xmlns:saml", nsAssertion, "xmlns:xs", nsXS, "xmlns:xsi", nsXSI,
		"ID", mustID(t), "Version", "2.0", "IssueInstant", a.issued.Format(instantLayout))
	add(el, "saml:Issuer", "Format", formatEntity).SetText(testIdP)
	subject := add(el, "saml:Subject")
	add(subject, "saml:NameID", "Format", formatTransient, "NameQualifier", testIdP).SetText(mustID(t))
	confirmation := add(subject, "saml:SubjectConfirmation", "Method", "urn:oasis:names:tc:SAML:2.0:cm:bearer")
	add(confirmation, "saml:SubjectConfirmationData", "Recipient", sp.ACS(req.request.ACSIndex),
		"InResponseTo", req.id, "NotOnOrAfter", end)
	conditions := add(el, "saml:Conditions",
		"NotBefore", a.issued.Add(-time.Minute).Format(instantLayout), "NotOnOrAfter", end)
	add(add(conditions, "saml:AudienceRestriction"), "saml:Audience").SetText(sp.EntityID())
	authn := add(el, "saml:AuthnStatement", "AuthnInstant", a.issued.Format(instantLayout))
	if req.request.Level == 1 {
		authn.CreateAttr("SessionIndex", mustID(t))
	}
	level := a.level
	if level == 0 {
		level = req.request.Level
	}
	add(add(authn, "saml:AuthnContext"), "saml:AuthnContextClassRef").SetText(levelPrefix + string(rune('0'+level)))
	if !req.request.NoAttributes {
		statement := add(el, "saml:AttributeStatement")
		for _, name := range sp.cfg.AttributeSets[req.request.Service] {
			kind, value := "xs:string", sampleValue(name)
			if attributeNamed(name).isDate {
				kind = "xs:date"
			}
			at := add(statement, "saml:Attribute", "Name", name,
				"NameFormat", "urn:oasis:names:tc:SAML:2.0:attrname-format:basic")
			add(at, "saml:AttributeValue", "xsi:type", kind).SetText(value)
		}
	}
	if a.assertion != nil {
		a.assertion(el)
	}
	if !a.unsignedAss {
		f.sign(t, el, a.strangerAss, a)
	}
}

func sampleValue(name string) string {
	switch name {
	case "spidCode":
		return "ABCD123456789A"
	case "fiscalNumber", "companyFiscalNumber":
		return "TINIT-RSSMRA80A01H501U"
	case "ivaCode":
		return "VATIT-01234567890"
	case "dateOfBirth", "expirationDate":
		return "1980-01-01"
	case "placeOfBirth":
		return "H501"
	case "countyOfBirth":
		return "RM"
	case "gender":
		return "F"
	case "email", "digitalAddress":
		return "maria.rossi@example.it"
	case "mobilePhone":
		return "3401234567"
	case "idCard":
		return "cartaIdentita AA00000AA comuneRoma 2020-01-01 2030-01-01"
	default:
		return "Maria Rossi"
	}
}
