package aggregate

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

var kitNow = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

type kit struct {
	key  *rsa.PrivateKey
	cert *x509.Certificate
}

func newKit(from, to time.Time) kit {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "registry"}, NotBefore: from, NotAfter: to}
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
	agid  = sync.OnceValue(func() kit { return newKit(kitNow.AddDate(-1, 0, 0), kitNow.AddDate(1, 0, 0)) })
	other = sync.OnceValue(func() kit { return newKit(kitNow.AddDate(-1, 0, 0), kitNow.AddDate(1, 0, 0)) })
	old   = sync.OnceValue(func() kit { return newKit(kitNow.AddDate(-2, 0, 0), kitNow.AddDate(-1, 0, 0)) })
)

// template is a signature that xmlsec1 fills in.
const template = `<ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:SignedInfo>` +
	`<ds:CanonicalizationMethod Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"/>` +
	`<ds:SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"/>` +
	`<ds:Reference URI="#_a"><ds:Transforms><ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"/>` +
	`<ds:Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"/></ds:Transforms>` +
	`<ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"/><ds:DigestValue/></ds:Reference></ds:SignedInfo>` +
	`<ds:SignatureValue/><ds:KeyInfo><ds:X509Data/></ds:KeyInfo></ds:Signature>`

const plainDoc = `<?xml version="1.0" encoding="UTF-8"?>
<!-- made by hand --><md:EntitiesDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" xmlns:unused="urn:x" xmlns:spid="https://spid.gov.it/saml-extensions"
 Name='SPID "test"' validUntil="2026-12-01T00:00:00Z" ID="_a">
{signature}
 <md:Extensions><mdrpi:PublicationInfo xmlns:mdrpi="urn:oasis:names:tc:SAML:metadata:rpi" creationInstant="2026-11-20T00:00:00Z" publisher="x"/></md:Extensions>
 <md:EntityDescriptor entityID="https://a.example.it/?x=1&amp;y=2"><md:Organization spid:b="2" a='1'>però &#233; &lt;&gt;&amp;&#13;" ' > <!-- x -->tail</md:Organization></md:EntityDescriptor>
 <EntityDescriptor xmlns="urn:oasis:names:tc:SAML:2.0:metadata" entityID="https://b.example.it"><p xmlns=""><md:q/><q xmlns="urn:q"/></p></EntityDescriptor>
 <md:EntityDescriptor/>
 <other xmlns="urn:other">text</other>
</md:EntitiesDescriptor>
<!-- end -->
`

// sign has xmlsec1 (Debian package xmlsec1) sign the document.
func sign(t testing.TB, doc string, k kit, change ...string) []byte {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, err := x509.MarshalPKCS8PrivateKey(k.key)
	if err != nil {
		t.Fatal(err)
	}
	keyFile := write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	certFile := write("cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.cert.Raw}))
	text := strings.NewReplacer(change...).Replace(strings.Replace(doc, "{signature}", template, 1))
	in, out := write("in.xml", []byte(text)), filepath.Join(dir, "out.xml")
	cmd := exec.Command("xmlsec1", "--sign", "--privkey-pem", keyFile+","+certFile, "--output", out,
		"--id-attr:ID", "urn:oasis:names:tc:SAML:2.0:metadata:EntitiesDescriptor", in)
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("xmlsec1 (Debian package xmlsec1): %v\n%s", err, msg)
	}
	signed, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

var limits = Limits{Document: 64 << 20, Entity: 1 << 20, Entities: 1000}

// outcome is what one reading gave.
type outcome struct {
	doc      *Document
	entities []Entity
	out      []byte
}

func read(doc []byte, l Limits) (outcome, error) {
	var o outcome
	var buf bytes.Buffer
	d, err := Read(bytes.NewReader(doc), &buf, l, func(e Entity) error {
		o.entities = append(o.entities, e)
		return nil
	})
	o.doc, o.out = d, buf.Bytes()
	return o, err
}

func (o outcome) slice(i int) []byte {
	e := o.entities[i]
	return o.out[e.Offset : e.Offset+int64(e.Length)]
}

func (o outcome) intact(i int) bool { return sha256.Sum256(o.slice(i)) == o.entities[i].Digest }

// canonical is the walker alone.
func canonical(doc []byte, inclusive ...string) ([]byte, error) {
	w := newWalker(bytes.NewReader(doc), 64<<20)
	w.inclusive = inclusive
	err := w.walk()
	return w.out, err
}
