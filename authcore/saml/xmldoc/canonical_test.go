package xmldoc

import (
	"bytes"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/beevik/etree"
	dsig "github.com/russellhaering/goxmldsig"
	"pgregory.net/rapid"
)

func parseTree(t testing.TB, doc string) *etree.Element {
	t.Helper()
	root, err := Bounds{1 << 16, 100, 100, 1000, 1000, true}.Parse([]byte(doc))
	if err != nil {
		t.Fatalf("%s: %v", doc, err)
	}
	return root
}

// awkward documents, each for a rule of canonicalisation.
var awkward = map[string]string{
	"plain":                     `<a/>`,
	"empty element":             `<a><b/><c></c></a>`,
	"attribute order":           `<a z="1" b="2" xmlns:y="u:2" xmlns:x="u:1" y:a="3" x:b="4" x:a="5"/>`,
	"order by namespace":        `<a xmlns:b="u:1" xmlns:a="u:2" a:z="1" b:a="2"/>`,
	"unused declaration":        `<a xmlns:x="u:u"><b/></a>`,
	"declared above, used deep": `<a xmlns:x="u:u"><b><x:c/><x:c x:d="1"/></b></a>`,
	"declared again":            `<x:a xmlns:x="u:u"><x:b xmlns:x="u:u"><x:c xmlns:x="u:v"/></x:b></x:a>`,
	"default namespace":         `<a xmlns="u:u"><b><c xmlns=""><d/></c></b><e xmlns="u:v"/></a>`,
	"default undone unused":     `<x:a xmlns:x="u:u" xmlns="u:v"><x:b><c xmlns=""/></x:b></x:a>`,
	"default and prefix":        `<a xmlns="u:u" xmlns:x="u:u"><x:b xmlns=""><c/></x:b></a>`,
	"characters":                `<a b='"&lt;&amp;&#x9;&#xA;&#xD;>' c="&apos;">&lt;&gt;&amp;&quot;&#xD;è漢\U0001f600</a>`,
	"line ends":                 "<a>x\r\ny\rz\n</a>",
	"blanks in tags":            "<a  b = '1'\n\tc\n=\n\"2\" ><b  /></a  >",
	"attribute over lines":      "<a b='x\ty\nz\r\nw\rv&#10;u' c=\"'\n'\">\"\t\"\n</a>",
	"comments and lines":        "<!-- x -->\n<a b='\n'><!-- y -->\"\n\"<!-- z --></a>",
	"comments":                  `<!-- x --><a><!-- y -->t<!-- z -->u</a><!-- w -->`,
	"xml attributes":            `<a xml:lang="it" b="1" xmlns:x="u:u" x:c="2"><b xml:space="preserve"> </b></a>`,
	"xml declared":              `<a xmlns:xml="http://www.w3.org/XML/1998/namespace" xml:lang="it"/>`,
	"declaration and text":      "<?xml version=\"1.0\"?>\n<a>\n <b/>\n</a>\n",
}

// xmllint canonicalises with libxml2.
func xmllint(t interface{ Fatalf(string, ...any) }, doc string) []byte {
	program, err := exec.LookPath("xmllint")
	if err != nil {
		t.Fatalf("xmllint is not installed: apt-get install libxml2-utils")
	}
	cmd := exec.Command(program, "--nonet", "--exc-c14n", "-")
	cmd.Stdin = strings.NewReader(doc)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("xmllint: %v: %s", err, doc)
	}
	return out
}

// TestCanonicalLikeXmllint compares with libxml2.
func TestCanonicalLikeXmllint(t *testing.T) {
	for name, doc := range awkward {
		t.Run(name, func(t *testing.T) {
			got, err := canonical(parseTree(t, doc), nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			want := xmllint(t, doc)
			// It keeps comments, and what stands outside the root.
			for _, c := range []string{"<!-- x -->\n", "<!-- y -->", "<!-- z -->", "\n<!-- w -->"} {
				want = bytes.Replace(want, []byte(c), nil, 1)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// TestCanonicalLikeOthers compares with libxml2, and with a library in Go where a
// prefix list is in play, for trees with few names, so that declarations meet.
func TestCanonicalLikeOthers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		doc := etree.NewDocument()
		root := drawElement(t, 3)
		root.CreateAttr("xmlns:p", "u:0")
		root.CreateAttr("xmlns:q", "u:0")
		doc.SetRoot(root)
		if duplicated(root) {
			t.Skip("not well-formed")
		}
		text, err := doc.WriteToString()
		if err != nil {
			t.Fatal(err)
		}
		list := rapid.SampledFrom([]string{"", "p", "q p", "unknown"}).Draw(t, "list")
		root = parseTree2(t, []byte(text)) // a line end written as such is read as another
		got, err := canonical(root, nil, prefixes(t, list))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if list == "" {
			if want := xmllint(t, text); !bytes.Equal(got, want) {
				t.Fatalf("%s\ngot  %s\nwant %s", text, got, want)
			}
		}
		if mixed(root) {
			return // the library misorders attributes of two prefixes when one is declared further out
		}
		want, err := dsig.MakeC14N10ExclusiveCanonicalizerWithPrefixList(list).Canonicalize(root.Copy())
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s\ngot  %s\nwant %s, %v", text, got, want, err)
		}
		// What was canonicalised is canonical.
		if again, err := canonical(parseTree2(t, got), nil, prefixes(t, list)); err != nil || !bytes.Equal(got, again) {
			t.Fatalf("%s\nthen %s, %v", got, again, err)
		}
	})
}

func prefixes(t interface{ Fatal(...any) }, list string) []string {
	all, err := prefixList(list)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func parseTree2(t *rapid.T, doc []byte) *etree.Element {
	root, err := reparse(doc)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func drawElement(t *rapid.T, depth int) *etree.Element {
	el := etree.NewElement(rapid.SampledFrom([]string{"a", "b", "p:a", "q:b"}).Draw(t, "name"))
	for _, a := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"x", "y", "p:x", "q:y", "xmlns", "xmlns:p", "xmlns:q"}), 0, 4, rapid.ID[string]).Draw(t, "attributes") {
		value := rapid.SampledFrom([]string{"", "1", "<\"&>"}).Draw(t, "value")
		if strings.HasPrefix(a, "xmlns") {
			value = rapid.SampledFrom([]string{"u:0", "u:1", "u:2"}).Draw(t, "namespace")
		}
		el.CreateAttr(a, value)
	}
	for range rapid.IntRange(0, 2).Draw(t, "children") {
		if depth > 0 {
			el.AddChild(drawElement(t, depth-1))
		}
		el.CreateText(rapid.SampledFrom([]string{"", " ", "text", "<&>\r"}).Draw(t, "text"))
	}
	return el
}

// duplicated reports an attribute given twice under two prefixes.
func duplicated(el *etree.Element) bool {
	seen := map[string]bool{}
	for _, a := range el.Attr {
		if a.Space == "p" || a.Space == "q" {
			name := a.NamespaceURI() + " " + a.Key
			if seen[name] {
				return true
			}
			seen[name] = true
		}
	}
	for _, c := range el.ChildElements() {
		if duplicated(c) {
			return true
		}
	}
	return false
}

// mixed reports an element with attributes of both prefixes.
func mixed(el *etree.Element) bool {
	p, q := false, false
	for _, a := range el.Attr {
		p, q = p || a.Space == "p", q || a.Space == "q"
	}
	return p && q || slices.ContainsFunc(el.ChildElements(), mixed)
}

// TestCanonicalPart: the part's declarations may stand around it, and an
// inclusive prefix is declared where it is in scope (Exclusive XML
// Canonicalization 1.0, 3).
func TestCanonicalPart(t *testing.T) {
	root := parseTree(t, `<a xmlns:x="u" xmlns="d" xmlns:y="v"><b><x:c><d/><e/></x:c></b></a>`)
	part := root.ChildElements()[0].ChildElements()[0]
	for _, tc := range []struct {
		without      *etree.Element
		prefix, want string
	}{
		{nil, "", `<x:c xmlns:x="u"><d xmlns="d"></d><e xmlns="d"></e></x:c>`},
		{part.ChildElements()[0], "", `<x:c xmlns:x="u"><e xmlns="d"></e></x:c>`},
		{nil, "y none", `<x:c xmlns:x="u" xmlns:y="v"><d xmlns="d"></d><e xmlns="d"></e></x:c>`},
		{nil, "#default", `<x:c xmlns="d" xmlns:x="u"><d></d><e></e></x:c>`},
	} {
		got, err := canonical(part, tc.without, prefixes(t, tc.prefix))
		if err != nil || string(got) != tc.want {
			t.Errorf("got %s, %v, want %s", got, err, tc.want)
		}
	}
}

func TestCanonicalRefuses(t *testing.T) {
	for name, doc := range map[string]string{
		"undeclared element":        `<x:a/>`,
		"undeclared attribute":      `<a x:b="1"/>`,
		"prefix of nothing":         `<a xmlns:x=""><x:b/></a>`,
		"xml bound otherwise":       `<a xmlns:xml="u"/>`,
		"xmlns bound":               `<a xmlns:xmlns="u"/>`,
		"xml's namespace taken":     `<a xmlns:x="http://www.w3.org/XML/1998/namespace"/>`,
		"xmlns's namespace taken":   `<a xmlns="http://www.w3.org/2000/xmlns/"/>`,
		"attribute under two names": `<a xmlns:x="u" xmlns:y="u" x:b="1" y:b="2"/>`,
	} {
		tree := etree.NewDocument() // Bounds.Parse refuses some of them itself
		if err := tree.ReadFromString(doc); err != nil {
			t.Fatal(err)
		}
		if got, err := canonical(tree.Root(), nil, nil); err == nil {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// BenchmarkCanonical is for a document of the size of a Response.
func BenchmarkCanonical(b *testing.B) {
	var doc strings.Builder
	doc.WriteString(`<p:r xmlns:p="urn:p" xmlns:q="urn:q">`)
	for i := range 60 {
		fmt.Fprintf(&doc, `<q:attribute Name="n%d" NameFormat="urn:oasis:names:tc:SAML:2.0:attrname-format:basic"><q:v>value</q:v></q:attribute>`, i)
	}
	doc.WriteString(`</p:r>`)
	root := parseTree(b, doc.String())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := canonical(root, nil, nil); err != nil {
			b.Fatal(err)
		}
	}
}
