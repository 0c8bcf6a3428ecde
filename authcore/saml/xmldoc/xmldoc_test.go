package xmldoc

import (
	"bytes"
	"crypto"
	"errors"
	"strings"
	"testing"

	"github.com/beevik/etree"
	dsig "github.com/russellhaering/goxmldsig"
	"pgregory.net/rapid"
)

var testBounds = Bounds{Bytes: 4096, Depth: 4, Attrs: 3, Elements: 5, Declarations: 2}

func TestParseBounds(t *testing.T) {
	commented := testBounds
	commented.Comments = true
	for _, tc := range []struct {
		name, doc string
		bounds    Bounds
		ok        bool
	}{
		{"plain", "<a/>", testBounds, true},
		{"text", "<a>x &amp; y &#x41; &gt;</a>", testBounds, true},
		{"declaration", "<?xml version='1.0' encoding='utf-8' standalone='yes' ?>\n<a/>\n", testBounds, true},
		{"byte order mark", "\ufeff<?xml version=\"1.0\"?><a/>", testBounds, true},
		{"greater than in an attribute", "<a b='>' c=\">=/\"/>", testBounds, true},
		{"depth 4", "<a><b><c><d/></c></b></a>", testBounds, true},
		{"three attributes", "<a b='' c='' xmlns:d=''/>", testBounds, true},
		{"comment allowed", "<!-- < x --><a><!-- <b> --></a><!---->", commented, true},

		{"empty", "", testBounds, false},
		{"white space", " \n", testBounds, false},
		{"text only", "x", testBounds, false},
		{"declaration only", "<?xml version=\"1.0\"?>", testBounds, false},
		{"declaration twice", "<?xml version=\"1.0\"?><?xml version=\"1.0\"?><a/>", testBounds, false},
		{"declaration late", " <?xml version=\"1.0\"?><a/>", testBounds, false},
		{"version 1.1", "<?xml version=\"1.1\"?><a/>", testBounds, false},
		{"latin-1", "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><a/>", testBounds, false},
		{"UTF-7", "<?xml version=\"1.0\" encoding=\"UTF-7\"?><a/>", testBounds, false},
		{"not UTF-8", "<a>\xff</a>", testBounds, false},
		{"NUL", "<a>\x00</a>", testBounds, false},
		{"doctype", "<!DOCTYPE a><a/>", testBounds, false},
		{"doctype inside", "<a><!DOCTYPE a></a>", testBounds, false},
		{"CDATA", "<a><![CDATA[x]]></a>", testBounds, false},
		{"comment", "<a><!-- x --></a>", testBounds, false},
		{"comment unfinished", "<a/><!-- x", commented, false},
		{"comment with dashes", "<a><!-- x -- y --></a>", commented, false},
		{"processing instruction", "<a><?x?></a>", commented, false},
		{"unknown entity", "<a>&b;</a>", testBounds, false},
		{"depth 5", "<a><b><c><d><e/></d></c></b></a>", testBounds, false},
		{"four attributes", "<a b='' c='' d='' e=''/>", testBounds, false},
		{"five elements", "<a><b/><b/><b/><b/></a>", testBounds, true},
		{"six elements", "<a><b/><b/><b/><b/><b/></a>", testBounds, false},
		{"three declarations", "<a xmlns='u' xmlns:v='v'><b xmlns=''/></a>", testBounds, false},
		{"too long", "<a>" + strings.Repeat(" ", 4096) + "</a>", testBounds, false},
		{"second root", "<a/><b/>", testBounds, false},
		{"second root empty", "<a></a><b></b>", testBounds, false},
		{"text after", "<a/>x", testBounds, false},
		{"text before", "x<a/>", testBounds, false},
		{"non-breaking space after", "<a/>\u00a0", testBounds, false},
		{"unfinished", "<a>", testBounds, false},
		{"unfinished tag", "<a b='", testBounds, false},
		{"end only", "</a>", testBounds, false},
		{"end twice", "<a></a></a>", testBounds, false},
		{"crossed", "<a><b></a></b>", testBounds, false},
		{"other name", "<a></b>", testBounds, false},
		{"other prefix", "<x:a xmlns:x='u'></y:a>", testBounds, false},
		{"tag in an attribute", "<a b='<c/>'/>", testBounds, false},
		{"tag in a tag", "<a <b/>>", testBounds, false},
		{"attribute twice", "<a b='1' b='2'/>", testBounds, false},
		{"ID twice", "<a ID='1'><b ID='1'/></a>", testBounds, false},
		{"ID twice under other names", "<a ID='1'><b Id='1'/></a>", testBounds, false},
		{"lone less-than", "<a>< </a>", testBounds, false},
		{"undeclared prefix", "<x:a/>", testBounds, false},
		{"undeclared prefix inside", "<a><x:b/></a>", testBounds, false},
		{"undeclared prefix of an attribute", "<a x:b='1'/>", testBounds, false},
		{"prefix of nothing", "<x:a xmlns:x=''/>", testBounds, false},
		{"declared prefix", "<x:a xmlns:x='u' x:b='1' xml:lang='it'/>", testBounds, true},
		{"ends in less-than", "<a/><", testBounds, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root, err := tc.bounds.Parse([]byte(tc.doc))
			if (err == nil) != tc.ok || (err == nil) != (root != nil) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestScanAgreesWithParser: the scan never sees more structure than the parser
// does, or bounds could be got around.
func TestScanAgreesWithParser(t *testing.T) {
	piece := rapid.SampledFrom([]string{"<a>", "</a>", "<b x='1'>", "</b>", "<c/>", "<d y=\">\" z='\"'/>", "text", " ", "&lt;", "<e ", "/>", "'", "\"", "=", ">", "<!-- - -->", "<?p?>"})
	wide := Bounds{1 << 16, 100, 100, 100, 100, true}
	rapid.Check(t, func(t *rapid.T) {
		doc := "<r>" + strings.Join(rapid.SliceOfN(piece, 0, 12).Draw(t, "pieces"), "") + "</r>"
		root, err := wide.Parse([]byte(doc))
		if err != nil {
			return
		}
		depth, attrs, elements := extent(root)
		for _, narrow := range []Bounds{
			{1 << 16, depth, attrs, elements, 0, true}, {1 << 16, depth - 1, attrs, elements, 0, true},
			{1 << 16, depth, attrs - 1, elements, 0, true}, {1 << 16, depth, attrs, elements - 1, 0, true}} {
			_, err := narrow.Parse([]byte(doc))
			if fits := narrow.Depth >= depth && narrow.Attrs >= attrs && narrow.Elements >= elements; fits && err != nil {
				t.Fatalf("%s: %v", doc, err)
			} else if !fits && err == nil {
				t.Fatalf("%s passed %+v", doc, narrow)
			}
		}
	})
}

func extent(el *etree.Element) (depth, attrs, elements int) {
	attrs = len(el.Attr)
	for _, c := range el.ChildElements() {
		d, a, e := extent(c)
		depth, attrs, elements = max(depth, d), max(attrs, a), elements+e
	}
	return depth + 1, attrs, elements + 1
}

func TestIsNCName(t *testing.T) {
	for s, want := range map[string]bool{
		"a": true, "_": true, "_0-a.b": true, "è": true, "漢": true, "a·": true,
		"": false, "1a": false, "-a": false, ".a": false, "a:b": false, "a b": false, " a": false, "a ": false, "a\x00": false, "a\xff": false, "×": false, "a\u037e": false, "·": false,
	} {
		if IsNCName(s) != want {
			t.Errorf("IsNCName(%q) = %v", s, !want)
		}
	}
}

// TestWriter compares escaping with the canonicaliser's, for any text.
func TestWriter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.String().Draw(t, "value")
		var w Writer
		w.Raw(`<a xmlns="u"`)
		w.Attr("b", value)
		w.Raw(`>`)
		w.Element("c", value)
		w.Raw(`</a>`)
		if w.Err != nil {
			if !errors.Is(w.Err, ErrCharacter) || !strings.ContainsFunc(value, func(r rune) bool { return !isXMLChar(r) }) {
				t.Fatalf("%q: %v", value, w.Err)
			}
			return
		}
		d := etree.NewDocument()
		if err := d.ReadFromBytes(w.B); err != nil {
			t.Fatal(err)
		}
		if c := d.Root().SelectElement("c"); c.Text() != value || d.Root().SelectAttrValue("b", "") != value {
			t.Fatalf("%q came back as %q", value, c.Text())
		}
		want, err := dsig.MakeC14N10ExclusiveCanonicalizerWithPrefixList("").Canonicalize(d.Root())
		if err != nil || !bytes.Equal(w.B, want) {
			t.Fatalf("wrote %s, canonical %s, %v", w.B, want, err)
		}
	})
	for _, bad := range []string{"\x00", "\x08", "\x1f", "\ufffe", "\uffff", "\xff", "\xed\xa0\x80", "\xc0\x80"} {
		var w Writer
		w.Text("a" + bad + "b")
		if !errors.Is(w.Err, ErrCharacter) {
			t.Errorf("%q was written as %q", bad, w.B)
		}
	}
}

func TestSignatureHash(t *testing.T) {
	const more = "http://www.w3.org/2001/04/xmldsig-more#"
	for alg, want := range map[string]crypto.Hash{
		more + "rsa-sha256": crypto.SHA256, more + "rsa-sha384": crypto.SHA384, more + "rsa-sha512": crypto.SHA512,
		"http://www.w3.org/2000/09/xmldsig#rsa-sha1": 0, more + "rsa-sha224": 0, more + "hmac-sha256": 0, more + "ecdsa-sha256": 0, more + "RSA-SHA256": 0, "": 0,
	} {
		if got, err := SignatureHash(alg); got != want || (err == nil) != (want != 0) {
			t.Errorf("%s: %v %v", alg, got, err)
		}
	}
}
