package request

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"math/big"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/beevik/etree"
	dsig "github.com/russellhaering/goxmldsig"
)

var pair = sync.OnceValue(func() KeyPair {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return KeyPair{Key: key, Certificate: cert}
})

// documents are well-formed, in shapes that canonical forms differ about.
var documents = map[string]string{
	"plain":             `<a/>`,
	"attributes":        `<a c="1" b='2' xmlns:z="u:z" z:a="3" xmlns:y="u:y" y:z="4"/>`,
	"text":              `<a>x &lt; y &amp; z &gt; &#x41;&#66; "'</a>`,
	"values":            `<a b="&lt;&amp;&quot;&apos;&#9;&#10;&#13; &gt;"/>`,
	"line ends":         "<a b='1\n2'>x\r\ny\rz\n</a>",
	"unused prefix":     `<a xmlns:u="u:u"><u:b/><c/></a>`,
	"redeclared":        `<p:a xmlns:p="u:1"><p:b xmlns:p="u:2"/><p:c xmlns:p="u:1"/></p:a>`,
	"default":           `<a xmlns="u:1"><b/><c xmlns=""><d/></c><e xmlns="u:2"><f xmlns="u:1"/></e></a>`,
	"nested":            `<p:a xmlns:p="u:p" xmlns:q="u:q"><q:b><p:c q:d="1"/></q:b><q:b/></p:a>`,
	"xml prefix":        `<a xml:lang="it"><b xml:space="preserve"> </b></a>`,
	"declaration":       `<?xml version="1.0" encoding="UTF-8"?><a> <b/> </a>`,
	"beyond ASCII":      `<à è="ì">ò𝔸€</à>`,
	"blanks in tags":    "<a  b = '1'\n ><c /></a >",
	"undeclared inside": `<p:a xmlns:p="u:u"><b><p:c/></b></p:a>`,
}

// TestCanonicalAgainstAnotherHand compares with libxml2.
func TestCanonicalAgainstAnotherHand(t *testing.T) {
	xmllint, err := exec.LookPath("xmllint")
	if err != nil {
		t.Fatal("xmllint is not installed (Debian package libxml2-utils)")
	}
	for name, doc := range documents {
		t.Run(name, func(t *testing.T) {
			root, err := Parse(doc)
			if err != nil {
				t.Fatal(err)
			}
			for option, got := range map[string]string{"--exc-c14n": canonical(root, nil), "--c14n": canonicalInclusive(root, nil)} {
				cmd := exec.Command(xmllint, option, "-")
				cmd.Stdin = strings.NewReader(doc)
				want, err := cmd.Output()
				if err != nil {
					t.Fatal(err)
				}
				if got != strings.TrimSuffix(string(want), "\n") {
					t.Errorf("%s:\n%s\nwant\n%s", option, got, want)
				}
			}
		})
	}
}

// TestCanonicalForms: what the other hand does not do, by the specifications.
func TestCanonicalForms(t *testing.T) {
	root, err := Parse(`<p:a xmlns:p="u:p" xmlns:xs="u:xs" xmlns:n="u:n"><p:b t="xs:string"/></p:a>`)
	if err != nil {
		t.Fatal(err)
	}
	inner := root.Child("u:p", "b")
	for want, got := range map[string]string{
		`<p:b xmlns:p="u:p" t="xs:string"></p:b>`:                               canonical(inner, nil),
		`<p:b xmlns:p="u:p" xmlns:xs="u:xs" t="xs:string"></p:b>`:               canonical(inner, nil, "xs"),
		`<p:b xmlns:n="u:n" xmlns:p="u:p" xmlns:xs="u:xs" t="xs:string"></p:b>`: canonicalInclusive(inner, nil),
		`<p:a xmlns:p="u:p"></p:a>`:                                             canonical(root, inner),
		`<p:a xmlns:p="u:p" xmlns:xs="u:xs"><p:b t="xs:string"></p:b></p:a>`:    canonical(root, nil, "xs"),
	} {
		if got != want {
			t.Errorf("%s\nwant\n%s", got, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for name, doc := range map[string]string{
		"empty": "", "text": "x", "two roots": "<a/><b/>", "unfinished": "<a>", "crossed": "<a><b></a></b>", "text after": "<a/>x",
		"doctype": "<!DOCTYPE a><a/>", "comment": "<a><!-- --></a>", "cdata": "<a><![CDATA[x]]></a>", "instruction": "<a><?x y?></a>",
		"entity": "<a>&b;</a>", "reference": "<a>&#xZZ;</a>", "nul": "<a>&#0;</a>", "lone ampersand": "<a>& </a>", "undeclared": "<p:a/>", "undeclared attribute": `<a p:b="1"/>`,
		"attribute twice": `<a b="1" b="2"/>`, "same attribute": `<a xmlns:p="u" xmlns:q="u" p:b="1" q:b="2"/>`, "no value": "<a b/>", "no quotes": "<a b=1/>",
		"less-than": `<a b="<"/>`, "digit": "<1/>", "colons": `<a:b:c xmlns:a="u"/>`, "no blank": `<a b="1"c="2"/>`, "not UTF-8": "<a>\xff</a>", "deep": strings.Repeat("<a>", 100) + strings.Repeat("</a>", 100),
		"long": "<a>" + strings.Repeat(" ", maxXML) + "</a>",
	} {
		if _, err := Parse(doc); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// TestSignaturesOfAnotherHand: what we sign the library verifies, and the
// reverse.
func TestSignaturesOfAnotherHand(t *testing.T) {
	p := pair()
	sp := &SP{EntityID: "https://verifica.example.it", Main: p}
	doc, err := sp.Metadata(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tree := etree.NewDocument()
	if err := tree.ReadFromBytes(doc); err != nil {
		t.Fatal(err)
	}
	ctx := dsig.NewDefaultValidationContext(&dsig.MemoryX509CertificateStore{Roots: []*x509.Certificate{p.Certificate}})
	if _, err := ctx.Validate(tree.Root()); err != nil {
		t.Errorf("the library refuses our signature: %v", err)
	}

	theirs, err := dsig.NewSigningContext(p.Key, [][]byte{p.Certificate.Raw})
	if err != nil {
		t.Fatal(err)
	}
	theirs.Canonicalizer = dsig.MakeC14N10ExclusiveCanonicalizerWithPrefixList("")
	unsigned := etree.NewDocument()
	if err := unsigned.ReadFromString(`<p:a xmlns:p="u:p" xmlns:xs="u:xs" ID="_1"><p:b t="xs:string">è &amp; "x"</p:b></p:a>`); err != nil {
		t.Fatal(err)
	}
	signed, err := theirs.SignEnveloped(unsigned.Root())
	if err != nil {
		t.Fatal(err)
	}
	out := etree.NewDocumentWithRoot(signed)
	text, err := out.WriteToString()
	if err != nil {
		t.Fatal(err)
	}
	root, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := Verify(root, []*x509.Certificate{p.Certificate}); err != nil {
		t.Errorf("we refuse the library's signature: %v", err)
	}
	for name, change := range map[string]func(string) string{
		"text":       func(s string) string { return strings.Replace(s, "è", "e", 1) },
		"attribute":  func(s string) string { return strings.Replace(s, `t="xs:string"`, `t="xs:date"`, 1) },
		"reference":  func(s string) string { return strings.Replace(s, `URI="#_1"`, `URI="#_2"`, 1) },
		"namespace":  func(s string) string { return strings.ReplaceAll(s, `"u:p"`, `"u:q"`) },
		"identifier": func(s string) string { return strings.ReplaceAll(s, `_1"`, `_2"`) },
	} {
		root, err := Parse(change(text))
		if err != nil {
			t.Fatal(err)
		}
		if Verify(root, []*x509.Certificate{p.Certificate}) == nil {
			t.Errorf("%s: a changed document is taken", name)
		}
	}
	if Verify(root, nil) == nil {
		t.Error("taken without a certificate")
	}
}

// TestQueryIsSignedAsSent: the signature of HTTP-Redirect covers the octets on
// the wire, with RelayState if and only if it is there.
func TestQueryIsSignedAsSent(t *testing.T) {
	p := pair()
	sp := &SP{EntityID: "https://verifica.example.it", Main: p}
	idp := &IDP{EntityID: "x", SSO: map[Binding]string{Redirect: "https://idp.example.it/sso"}}
	for name, change := range map[string]func(*Message){
		"usual": func(*Message) {}, "no RelayState": func(m *Message) { m.HasRelay = false }, "empty": func(m *Message) { m.Relay = "" },
		"raw": func(m *Message) {
			m.Query = func(ps []Param) []Param { ps[1].Raw = "%7e+%7E"; return ps }
		},
	} {
		m, err := NewMessage(Redirect, sp, idp, time.Now(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		change(m)
		r, err := m.HTTP()
		if err != nil {
			t.Fatal(err)
		}
		octets, sig, ok := strings.Cut(r.URL.RawQuery, "&Signature=")
		if !ok || strings.Contains(octets, "RelayState") != m.HasRelay {
			t.Fatalf("%s: %s", name, r.URL.RawQuery)
		}
		plain, err := url.QueryUnescape(sig)
		if err != nil {
			t.Fatal(err)
		}
		value, err := base64.StdEncoding.DecodeString(plain)
		if err != nil {
			t.Fatal(err)
		}
		h := hashes[RSASHA256].New()
		h.Write([]byte(octets))
		if err := rsa.VerifyPKCS1v15(&p.Key.PublicKey, hashes[RSASHA256], h.Sum(nil), value); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzParse: no document makes the reader fall, and its canonical form is its own.
func FuzzParse(f *testing.F) {
	for _, doc := range documents {
		f.Add(doc)
	}
	f.Add(Plain)
	f.Fuzz(func(t *testing.T, doc string) {
		root, err := Parse(doc)
		if err != nil {
			return
		}
		once := canonical(root, nil)
		again, err := Parse(once)
		if err != nil {
			t.Fatalf("%v: %q", err, once)
		}
		if twice := canonical(again, nil); twice != once {
			t.Fatalf("%q\n%q", once, twice)
		}
		_ = Verify(root, []*x509.Certificate{pair().Certificate})
	})
}
