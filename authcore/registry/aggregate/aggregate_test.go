package aggregate

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"custode/internal/fault"
)

var pinned = func() []*x509.Certificate { return []*x509.Certificate{old().cert, other().cert, agid().cert} }

func TestRead(t *testing.T) {
	for name, change := range map[string][]string{
		"plain":         nil,
		"sha512":        {"xmldsig-more#rsa-sha256", "xmldsig-more#rsa-sha512", "xmlenc#sha256", "xmlenc#sha512"},
		"default space": {"<md:EntitiesDescriptor xmlns:md", `<EntitiesDescriptor xmlns="urn:oasis:names:tc:SAML:2.0:metadata" xmlns:md`, "</md:EntitiesDescriptor", "</EntitiesDescriptor"},
		"inclusive": {`<ds:Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"/>`,
			`<ds:Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"><ec:InclusiveNamespaces xmlns:ec="http://www.w3.org/2001/10/xml-exc-c14n#" PrefixList="unused #default nothing"/></ds:Transform>`},
		"CRLF": {"\n", "\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			signed := sign(t, plainDoc, agid(), change...)
			o, err := read(signed, limits)
			if err != nil {
				t.Fatal(err)
			}
			cert, err := o.doc.Verify(pinned(), kitNow)
			if err != nil || cert != agid().cert {
				t.Fatalf("verify: %v %v", cert, err)
			}
			var ids []string
			for i, e := range o.entities {
				ids = append(ids, e.ID)
				if !o.intact(i) || e.Oversize {
					t.Errorf("entity %d: %+v", i, e)
				}
			}
			if got := strings.Join(ids, " "); got != "https://a.example.it/?x=1&y=2 https://b.example.it " {
				t.Errorf("entities %q", got)
			}
			if s := o.slice(0); !bytes.HasPrefix(s, []byte("<md:EntityDescriptor ")) || !bytes.HasSuffix(s, []byte("</md:EntityDescriptor>")) {
				t.Errorf("first entity is %s", s)
			}
			if !bytes.Contains(o.doc.Context, []byte(` xmlns`)) || o.doc.ID != "_a" || o.doc.ValidUntil.IsZero() || o.doc.Created.Day() != 20 {
				t.Errorf("document %+v", o.doc)
			}
			// What was written is the same document.
			again, err := read(o.out, limits)
			if err != nil || !bytes.Equal(again.out, o.out) || fmt.Sprint(again.entities) != fmt.Sprint(o.entities) {
				t.Fatalf("second reading: %v", err)
			}
			if _, err := again.doc.Verify(pinned(), kitNow); err != nil {
				t.Error(err)
			}
			// Whatever the reader hands out at once.
			var buf bytes.Buffer
			d, err := Read(iotest.OneByteReader(bytes.NewReader(signed)), &buf, limits, func(Entity) error { return nil })
			if err != nil || !bytes.Equal(buf.Bytes(), o.out) {
				t.Fatalf("octet by octet: %v", err)
			}
			if _, err := d.Verify(pinned(), kitNow); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestVerifyRefuses(t *testing.T) {
	signed := sign(t, plainDoc, agid())
	for name, c := range map[string]struct {
		pins []*x509.Certificate
		at   time.Time
		kind fault.Kind
	}{
		"another's key": {[]*x509.Certificate{other().cert}, kitNow, fault.Denied},
		"no pin":        {nil, kitNow, fault.Denied},
		"pin expired":   {[]*x509.Certificate{agid().cert}, kitNow.AddDate(2, 0, 0), fault.Denied},
		"validUntil":    {[]*x509.Certificate{agid().cert}, kitNow.AddDate(0, 1, 0), fault.Expired},
	} {
		o, err := read(signed, limits)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.doc.Verify(c.pins, c.at); !fault.Is(err, c.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestChanged: no change of a signed document survives, whether reading or
// verifying refuses it.
func TestChanged(t *testing.T) {
	signed := string(sign(t, plainDoc, agid()))
	for name, c := range map[string][2]string{
		"text":                   {"tail", "tale"},
		"attribute":              {`a="1"`, `a="2"`},
		"attribute gone":         {` a="1"`, ""},
		"entity gone":            {"<md:EntityDescriptor/>", ""},
		"entity twice":           {"<md:EntityDescriptor/>", "<md:EntityDescriptor/><md:EntityDescriptor/>"},
		"blank":                  {"<md:EntityDescriptor/>", "<md:EntityDescriptor/> "},
		"validUntil":             {"2026-12-01", "2027-12-01"},
		"other ID":               {`ID="_a"`, `ID="_b"`},
		"prefix moved":           {`xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata"`, `xmlns:md="urn:oasis:names:tc:SAML:2.0:metadatA"`},
		"namespace of a child":   {`xmlns="urn:q"`, `xmlns="urn:r"`},
		"digest":                 {"<ds:DigestValue>", "<ds:DigestValue>AAAA"},
		"algorithm SHA-1":        {"xmldsig-more#rsa-sha256", "xmldsig#rsa-sha1"},
		"HMAC":                   {"xmldsig-more#rsa-sha256", "xmldsig#hmac-sha1"},
		"transform":              {"xmldsig#enveloped-signature", "xmldsig#base64"},
		"reference to all":       {`URI="#_a"`, `URI=""`},
		"second signature":       {"<md:EntityDescriptor/>", `<ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#"/>`},
		"group in a group":       {"<md:EntityDescriptor/>", "<md:EntitiesDescriptor/>"},
		"DOCTYPE":                {"<!-- made by hand -->", `<!DOCTYPE x [<!ENTITY a "b">]>`},
		"entity reference":       {"tail", "&a;"},
		"CDATA":                  {"tail", "<![CDATA[tail]]>"},
		"processing instruction": {"tail", "<?x y?>tail"},
		"half":                   {"<md:EntityDescriptor/>\n", "\x00"},
		"not UTF-8":              {"tail", "\xff"},
		"control":                {"tail", "\x01"},
		"surrogate":              {"tail", "\xed\xa0\x80"},
		"non-character ref":      {"tail", "&#0;"},
		"big ref":                {"tail", "&#x11FFFF;"},
		"twice an attribute":     {`a="1"`, `a="1" a="1"`},
		"twice by namespace":     {`spid:b="2"`, `spid:b="2" xmlns:s2="https://spid.gov.it/saml-extensions" s2:b="2"`},
		"prefix unknown":         {`spid:b="2"`, `nobody:b="2"`},
		"second root":            {"<!-- end -->", "<x/>"},
		"text after":             {"<!-- end -->", "x"},
		"open comment":           {"<!-- end -->", "<!-- end"},
		"hyphens":                {"<!-- end -->", "<!-- e--nd -->"},
		"end tag":                {"</EntityDescriptor>", "</EntityDescriptoR>"},
	} {
		t.Run(name, func(t *testing.T) {
			changed := strings.Replace(signed, c[0], c[1], 1)
			if changed == signed {
				t.Fatal("the case changes nothing")
			}
			o, err := read([]byte(changed), limits)
			if err == nil {
				_, err = o.doc.Verify(pinned(), kitNow)
			}
			if err == nil || !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.Denied) {
				t.Errorf("got %v", err)
			}
		})
	}
	for i := range len(signed) {
		if i%7 != 0 && i < len(signed)-200 {
			continue
		}
		if o, err := read([]byte(signed[:i]), limits); err == nil && !strings.Contains(signed[:i], "</md:EntitiesDescriptor>") {
			t.Fatalf("cut at %d of %d: read %d entities", i, len(signed), len(o.entities))
		}
	}
}

func TestBounds(t *testing.T) {
	signed := sign(t, plainDoc, agid())
	tight := limits
	tight.Document = int64(len(signed)) - 1
	if _, err := read(signed, tight); !fault.Is(err, fault.Invalid) {
		t.Errorf("document: %v", err)
	}
	tight = limits
	tight.Entities = 2
	if _, err := read(signed, tight); !fault.Is(err, fault.Invalid) {
		t.Errorf("entities: %v", err)
	}
	// An entity that is too large spoils nothing but itself.
	tight = limits
	tight.Entity = 200
	o, err := read(signed, tight)
	if err != nil || !o.entities[0].Oversize || o.entities[2].Oversize || !o.intact(2) {
		t.Errorf("entity: %v %+v", err, o.entities)
	}
	big := sign(t, strings.Replace(plainDoc, "tail", strings.Repeat("large è &amp; ", 200_000), 1), agid())
	o, err = read(big, limits)
	if err != nil || !o.entities[0].Oversize || !o.intact(1) {
		t.Errorf("large entity: %v", err)
	}
	if _, err := o.doc.Verify(pinned(), kitNow); err != nil {
		t.Errorf("large entity: %v", err)
	}
	far := strings.Replace(plainDoc, "\n{signature}", strings.Repeat(" ", maxHead)+"{signature}", 1)
	if _, err := read(sign(t, far, agid()), limits); !fault.Is(err, fault.Invalid) {
		t.Errorf("signature far from the beginning: %v", err)
	}
	for name, doc := range map[string]string{
		"empty":        "",
		"unsigned":     strings.Replace(plainDoc, "{signature}", "", 1),
		"not one":      "<html><body>down for maintenance</body></html>",
		"deep":         strings.Repeat("<a>", 1000),
		"declarations": "<a" + strings.Repeat(" xmlns:a='b'", 100) + "/>",
		"endless tag":  "<a b='" + strings.Repeat("x", maxToken+1),
		"long name":    "<" + strings.Repeat("a", maxName+1) + "/>",
		"namespace":    "<a xmlns='" + strings.Repeat("a", maxNamespace+1) + "'/>",
		"gzip":         "\x1f\x8b\x08\x00",
		"UTF-16":       "\xff\xfe<\x00a\x00",
	} {
		if _, err := read([]byte(doc), limits); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestFailures(t *testing.T) {
	signed := sign(t, plainDoc, agid())
	none := func(Entity) error { return nil }
	if _, err := Read(bytes.NewReader(signed), failing{}, limits, none); !fault.Is(err, fault.Unavailable) {
		t.Errorf("writer: %v", err)
	}
	cut := io.MultiReader(bytes.NewReader(signed[:len(signed)-10]), iotest.ErrReader(errors.New("connection reset")))
	if _, err := Read(cut, io.Discard, limits, none); !fault.Is(err, fault.Unavailable) {
		t.Errorf("reader: %v", err)
	}
	if _, err := Read(bytes.NewReader(signed), io.Discard, limits, func(Entity) error { return fault.Newf(fault.Busy, "x", "y") }); !fault.Is(err, fault.Busy) {
		t.Errorf("callback: %v", err)
	}
}

// TestCanonicalForm compares with libxml2 (Debian package libxml2-utils).
func TestCanonicalForm(t *testing.T) {
	for _, doc := range []string{
		strings.Replace(plainDoc, "{signature}", "", 1),
		`<a xmlns="urn:1"><b xmlns=""><c xmlns="urn:1"/></b><d xmlns="urn:1"/></a>`,
		`<a xmlns:p="urn:1"><p:b><p:c xmlns:p="urn:2" p:z="1" y="2" p:a="3"/><p:c/></p:b></a>`,
		`<a xmlns:z="urn:a" xmlns:a="urn:z" z:b="1" a:b="2" b="3" xml:lang="it" xml:space='preserve'/>`,
		"<a b='&#9;&#10;&#13; \t\n\r\n \" &quot;&apos;&lt;&gt;>&amp;'>\t\r\n&#13;&#9;\"'></a>",
		`<a xmlns="urn:1" xmlns:p="urn:1"><p:b x="1"/><b/></a>`,
		"<a>€ 𝄞 \u00a0&#x1d11e;</a>",
		"<a>x<!-- y -->\r<!-- z -->\nw</a>",
	} {
		path := filepath.Join(t.TempDir(), "a.xml")
		if err := os.WriteFile(path, []byte(doc), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("xmllint", "--exc-c14n", path)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		want, err := cmd.Output()
		if err != nil {
			t.Fatalf("xmllint (Debian package libxml2-utils): %v %s", err, errs.String())
		}
		// xmllint keeps comments; ours are gone.
		for {
			from := bytes.Index(want, []byte("<!--"))
			if from < 0 {
				break
			}
			to := from + bytes.Index(want[from:], []byte("-->")) + 3
			want = append(want[:from:from], want[to:]...)
		}
		got, err := canonical([]byte(doc))
		if err != nil || !bytes.Equal(got, bytes.TrimSpace(want)) {
			t.Errorf("%s\ngot  %q %v\nwant %q", doc, got, err, want)
		}
	}
}

func FuzzWalk(f *testing.F) {
	f.Add([]byte(strings.Replace(plainDoc, "{signature}", template, 1)))
	f.Add([]byte(`<a xmlns="u"><b xmlns=""/>&#13;x<!-- - --></a>`))
	f.Add([]byte("\xef\xbb\xbf<?xml version='1.0'?>\r\n<p:a xmlns:p='urn:1' p:b='&lt;\"'>\r\xc3\xa8</p:a >"))
	f.Fuzz(func(t *testing.T, doc []byte) {
		once, err := canonical(doc)
		if err != nil {
			return
		}
		twice, err := canonical(once)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("canonical form %q is read as %q, %v", once, twice, err)
		}
		if root, err := headBounds.Parse(once); err == nil && root.Tag == "" {
			t.Fatal("root without name")
		}
	})
}

func FuzzRead(f *testing.F) {
	signed := sign(f, plainDoc, agid())
	original, err := read(signed, limits)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signed)
	f.Add(original.out)
	f.Fuzz(func(t *testing.T, doc []byte) {
		o, err := read(doc, limits)
		if err != nil {
			return
		}
		for i, e := range o.entities {
			if !e.Oversize && !o.intact(i) {
				t.Fatalf("entity %d is not where it is said to be", i)
			}
		}
		if _, err := o.doc.Verify(pinned(), kitNow); err != nil {
			return
		}
		// Only another spelling of the same content verifies.
		if fmt.Sprint(o.entities) != fmt.Sprint(original.entities) && len(o.entities) != len(original.entities) {
			t.Fatal("another document verifies")
		}
	})
}

func BenchmarkRead(b *testing.B) {
	entity := `<md:EntityDescriptor entityID="https://a.example.it/1"><md:SPSSODescriptor AuthnRequestsSigned="true" WantAssertionsSigned="true"><x:X509Certificate xmlns:x="urn:x">` +
		strings.Repeat("MIIDdzCCAl+gAwIBAgIEAgAAuTANBgkqhkiG9w0BAQUFADBaMQswCQYDVQQGEwJJ", 24) + `</x:X509Certificate>` +
		strings.Repeat(`<md:RequestedAttribute Name="fiscalNumber"/>`, 30) + `</md:SPSSODescriptor></md:EntityDescriptor>`
	signed := sign(b, strings.Replace(plainDoc, "<md:EntityDescriptor/>", strings.Repeat(entity, 2000), 1), agid())
	l := limits
	l.Entities = 10_000
	b.SetBytes(int64(len(signed)))
	b.ReportAllocs()
	for b.Loop() {
		d, err := Read(bytes.NewReader(signed), io.Discard, l, func(Entity) error { return nil })
		if err != nil {
			b.Fatal(err)
		}
		if _, err := d.Verify(pinned(), kitNow); err != nil {
			b.Fatal(err)
		}
	}
}
