package site

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"html"
	"math/big"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/beevik/etree"
	dsig "github.com/russellhaering/goxmldsig"

	"custode/simulators/spsim"
)

const testIdP = "https://idp.example.it"

// noon is the time of all tests.
var noon = time.Date(2026, 3, 4, 5, 6, 7, 890_000_000, time.UTC)

// fakeIdP answers the requests of one SP; it knows of them what it reads.
type fakeIdP struct {
	sp             *spsim.SP
	keys           [2]*rsa.PrivateKey // its own and a stranger's
	certs          [2][]byte
	spKey          *rsa.PrivateKey
	spCert         []byte
	signedMetadata []byte
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

func certificateFor(t *testing.T, key *rsa.PrivateKey) []byte {
	t.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

const metadataTemplate = `<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" xmlns:ds="http://www.w3.org/2000/09/xmldsig#" ID="_m1" entityID="%[1]s">` +
	`<md:IDPSSODescriptor WantAuthnRequestsSigned="true" protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol">` +
	`<md:KeyDescriptor use="signing"><ds:KeyInfo><ds:X509Data><ds:X509Certificate>%[2]s</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>` +
	`<md:SingleLogoutService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST" Location="%[1]s/slo"/>` +
	`<md:NameIDFormat>urn:oasis:names:tc:SAML:2.0:nameid-format:transient</md:NameIDFormat>` +
	`<md:SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST" Location="%[1]s/sso/post"/>` +
	`<md:SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect" Location="%[1]s/sso/redirect"/>` +
	`</md:IDPSSODescriptor></md:EntityDescriptor>`

func newFakeIdP(t *testing.T) *fakeIdP {
	t.Helper()
	keys := testKeys()
	f := &fakeIdP{keys: [2]*rsa.PrivateKey{keys[0], keys[1]}, spKey: keys[2], spCert: certificateFor(t, keys[2])}
	for i, key := range f.keys {
		f.certs[i] = certificateFor(t, key)
	}
	doc := parse(t, fmt.Sprintf(metadataTemplate, testIdP, base64.StdEncoding.EncodeToString(f.certs[0])))
	f.sign(t, doc.Root(), 0, 0)
	f.signedMetadata = bytesOf(t, doc)
	return f
}

// client makes the SP that trusts f.
func (f *fakeIdP) client(t *testing.T, base string) *spsim.SP {
	t.Helper()
	sp, err := spsim.New(spsim.Config{
		BaseURL: base, IdPMetadata: f.signedMetadata, Key: f.spKey, Certificate: f.spCert,
		Now: func() time.Time { return noon },
	})
	if err != nil {
		t.Fatal(err)
	}
	f.sp = sp
	return sp
}

func parse(t *testing.T, text string) *etree.Document {
	t.Helper()
	doc := etree.NewDocument()
	if err := doc.ReadFromString(text); err != nil {
		t.Fatal(err)
	}
	return doc
}

func bytesOf(t *testing.T, doc *etree.Document) []byte {
	t.Helper()
	raw, err := doc.WriteToBytes()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// sign puts el's signature before its child element number at.
func (f *fakeIdP) sign(t *testing.T, el *etree.Element, with, at int) {
	t.Helper()
	ctx, err := dsig.NewSigningContext(f.keys[with], [][]byte{f.certs[with]})
	if err != nil {
		t.Fatal(err)
	}
	ctx.Canonicalizer = dsig.MakeC14N10ExclusiveCanonicalizerWithPrefixList("")
	sig, err := ctx.ConstructSignature(el.Copy(), true)
	if err != nil {
		t.Fatal(err)
	}
	el.InsertChildAt(el.ChildElements()[at].Index(), sig)
}

// answer describes a response; the zero value is an honest login.
type answer struct {
	stranger bool      // signs the assertion
	status   [3]string // top, sub, message; makes an error response
}

const (
	responseTemplate = `<samlp:Response xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol" xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion"` +
		` ID="_%[1]s" Version="2.0" IssueInstant="%[2]s" InResponseTo="%[3]s" Destination="%[4]s"><saml:Issuer>` + testIdP + `</saml:Issuer>`
	statusPrefix      = "urn:oasis:names:tc:SAML:2.0:status:"
	assertionTemplate = `<saml:Assertion xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion" xmlns:xs="http://www.w3.org/2001/XMLSchema"` +
		` xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" ID="_%[1]s" Version="2.0" IssueInstant="%[2]s">` +
		`<saml:Issuer Format="urn:oasis:names:tc:SAML:2.0:nameid-format:entity">` + testIdP + `</saml:Issuer><saml:Subject>` +
		`<saml:NameID Format="urn:oasis:names:tc:SAML:2.0:nameid-format:transient" NameQualifier="` + testIdP + `">_%[1]s</saml:NameID>` +
		`<saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer">` +
		`<saml:SubjectConfirmationData Recipient="%[4]s" InResponseTo="%[3]s" NotOnOrAfter="%[5]s"/></saml:SubjectConfirmation></saml:Subject>` +
		`<saml:Conditions NotBefore="%[2]s" NotOnOrAfter="%[5]s"><saml:AudienceRestriction><saml:Audience>%[6]s</saml:Audience></saml:AudienceRestriction></saml:Conditions>` +
		`<saml:AuthnStatement AuthnInstant="%[2]s"%[7]s><saml:AuthnContext><saml:AuthnContextClassRef>%[8]s</saml:AuthnContextClassRef></saml:AuthnContext></saml:AuthnStatement>` +
		`<saml:AttributeStatement>%[9]s</saml:AttributeStatement></saml:Assertion>`
	attributeTemplate = `<saml:Attribute Name="%s" NameFormat="urn:oasis:names:tc:SAML:2.0:attrname-format:basic">` +
		`<saml:AttributeValue xsi:type="xs:%s">%s</saml:AttributeValue></saml:Attribute>`
)

// respond answers an AuthnRequest with a SAMLResponse field.
func (f *fakeIdP) respond(t *testing.T, request []byte, a answer) string {
	t.Helper()
	const layout = "2006-01-02T15:04:05.000Z"
	asked := parse(t, string(request)).Root()
	id, class := asked.SelectAttrValue("ID", ""), asked.FindElement("//AuthnContextClassRef").Text()
	now, acs := noon.Format(layout), f.sp.ACS(0)
	text := fmt.Sprintf(responseTemplate, rand.Text(), now, id, acs)
	if a.status[0] != "" {
		text += `<samlp:Status><samlp:StatusCode Value="` + statusPrefix + a.status[0] + `"><samlp:StatusCode Value="` + statusPrefix + a.status[1] +
			`"/></samlp:StatusCode><samlp:StatusMessage>` + a.status[2] + `</samlp:StatusMessage></samlp:Status>`
	} else {
		session := ""
		if strings.HasSuffix(class, "SpidL1") {
			session = ` SessionIndex="_s"`
		}
		set, err := strconv.Atoi(asked.SelectAttrValue("AttributeConsumingServiceIndex", ""))
		if err != nil {
			t.Fatal(err)
		}
		var attributes strings.Builder
		for _, name := range f.sp.Config().AttributeSets[set] {
			kind, value := sample(name)
			fmt.Fprintf(&attributes, attributeTemplate, name, kind, html.EscapeString(value))
		}
		text += `<samlp:Status><samlp:StatusCode Value="` + statusPrefix + `Success"/></samlp:Status>` +
			fmt.Sprintf(assertionTemplate, rand.Text(), now, id, acs, noon.Add(time.Minute).Format(layout), f.sp.EntityID(), session, class, attributes.String())
	}
	doc := parse(t, text+`</samlp:Response>`)
	if el := doc.FindElement("//Assertion"); el != nil {
		with := 0
		if a.stranger {
			with = 1
		}
		f.sign(t, el, with, 1)
	}
	f.sign(t, doc.Root(), 0, 1)
	return base64.StdEncoding.EncodeToString(bytesOf(t, doc))
}

// sample returns an attribute's XML Schema type and a value of its form.
func sample(name string) (kind, value string) {
	switch name {
	case "dateOfBirth", "expirationDate":
		return "date", "1980-01-01"
	case "spidCode":
		return "string", "ABCD123456789A"
	case "fiscalNumber", "companyFiscalNumber":
		return "string", "TINIT-RSSMRA80A01H501U"
	case "ivaCode":
		return "string", "VATIT-01234567890"
	case "placeOfBirth":
		return "string", "H501"
	case "countyOfBirth":
		return "string", "RM"
	case "gender":
		return "string", "F"
	case "email", "digitalAddress":
		return "string", "maria.rossi@example.it"
	case "mobilePhone":
		return "string", "3401234567"
	case "idCard":
		return "string", "cartaIdentita AA00000AA comuneRoma 2020-01-01 2030-01-01"
	default:
		return "string", "Maria Rossi"
	}
}
