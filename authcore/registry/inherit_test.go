package registry

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"
	dsig "github.com/russellhaering/goxmldsig"

	"custode/authcore/saml"
)

// TestInheritedNamespaces: real metadata inside an aggregate that declares the
// prefixes for them, signed by another library.
func TestInheritedNamespaces(t *testing.T) {
	a := newAuthor()
	d := etree.NewDocument()
	root := d.CreateElement("md:EntitiesDescriptor")
	for _, p := range [][2]string{{"xmlns:md", "urn:oasis:names:tc:SAML:2.0:metadata"}, {"xmlns:spid", "https://spid.gov.it/saml-extensions"}, {"xmlns:ds", "http://www.w3.org/2000/09/xmldsig#"}, {"ID", "_all"}} {
		root.CreateAttr(p[0], p[1])
	}
	for _, port := range []int{4201, 4202, 4203} {
		one := etree.NewDocument()
		text := string(vector(t, port))
		if err := one.ReadFromString(text); err != nil {
			t.Fatal(err)
		}
		el := one.Root()
		if port == 4202 { // this one has all prefixes from above
			el.RemoveChild(el.SelectElement("Signature"))
			strip(el)
			el.Space = "md"
		}
		root.AddChild(el)
	}
	ctx, err := dsig.NewSigningContext(a.key, [][]byte{a.cert.Raw})
	if err != nil {
		t.Fatal(err)
	}
	ctx.Canonicalizer = dsig.MakeC14N10ExclusiveCanonicalizerWithPrefixList("")
	sig, err := ctx.ConstructSignature(root.Copy(), true)
	if err != nil {
		t.Fatal(err)
	}
	root.InsertChildAt(0, sig)
	doc, err := d.WriteToBytes()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	put(t, dir, "all.xml", doc)
	r := &room{t: t, copy: dir + "/copy", pins: []*x509.Certificate{a.cert}, now: time.Now, log: &lockedBuffer{}, http: HTTPConfig{AggregateURL: "http://unused", Now: time.Now}}
	f := r.open(func(c *FederationConfig) { c.Source = File{AggregatePath: dir + "/all.xml"} })
	r.refreshed(f)
	if st := f.Status(); st.Live != 3 || st.Broken != 0 {
		t.Fatalf("%+v", st)
	}
	for port, id := range map[int]string{4201: "http://localhost:4201", 4202: "http://localhost:4202", 4203: "http://localhost:4203"} {
		got, ok := f.Lookup(id)
		alone, err := saml.ParseSPMetadata(vector(t, port))
		if err != nil || !ok {
			t.Fatal(err, ok)
		}
		if got.ACS[0] != alone.ACS[0] || !got.Certificates[0].Equal(alone.Certificates[0]) || len(got.Services) != len(alone.Services) || got.Name("it") != alone.Name("it") {
			t.Errorf("%s: %+v, alone %+v", id, got, alone)
		}
	}
}

// strip takes the namespace declarations off.
func strip(el *etree.Element) {
	kept := el.Attr[:0]
	for _, a := range el.Attr {
		if a.Space != "xmlns" && !(a.Space == "" && a.Key == "xmlns") {
			kept = append(kept, a)
		}
	}
	el.Attr = kept
	if el.Space == "" {
		el.Space = map[bool]string{true: "ds", false: "md"}[strings.HasPrefix(el.Tag, "X509") || el.Tag == "KeyInfo"]
	}
	for _, c := range el.ChildElements() {
		strip(c)
	}
}
