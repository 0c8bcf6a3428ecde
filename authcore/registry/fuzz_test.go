package registry

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"unicode"

	"custode/authcore/saml"
	"custode/internal/fault"
	"custode/simulators/registrysim"
)

func FuzzListing(f *testing.F) {
	f.Add([]byte(`[{"entity_id":"https://a.example.it","_disabled":"Y","_deleted":"N"},{"entity_id":"b","_deleted":true}]`))
	f.Add([]byte(`[]`))
	f.Add([]byte(`[{"_disabled":null,"x":[{"y":1}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		n := 0
		err := eachListed(bytes.NewReader(text), func(Listed) error { n++; return nil })
		if err == nil && (!bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte("[")) || n > len(text)) {
			t.Errorf("%d entries accepted from %q", n, text)
		}
	})
}

func FuzzCopy(f *testing.F) {
	path := f.TempDir() + "/copy"
	w, err := newCopyWriter(path)
	if err != nil {
		f.Fatal(err)
	}
	if err := w.commit(&footer{Source: "x", Parts: []part{{Name: "a", Offset: int64(len(copyHead))}}}); err != nil {
		f.Fatal(err)
	}
	w.discard()
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(copyHead + copyEnd))
	f.Fuzz(func(t *testing.T, file []byte) {
		foot, err := readFooter(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			return
		}
		for _, p := range append(foot.Parts, listingParts(foot)...) {
			if n, _ := p.section(bytes.NewReader(file)).ReadAt(make([]byte, 1), 0); n == 0 && p.Length > 0 {
				t.Errorf("part %+v is outside of %d octets", p, len(file))
			}
		}
	})
}

func FuzzPrintable(f *testing.F) {
	f.Add("a\u202eb\x1b[31m\xff\u009b")
	f.Add(strings.Repeat("è", 400))
	f.Fuzz(func(t *testing.T, s string) {
		if p := printable(s); strings.ContainsFunc(p, func(r rune) bool { return !unicode.IsPrint(r) }) || len(p) > 10*maxShown+20 {
			t.Errorf("%q", p)
		}
	})
}

// FuzzEntity: whatever an entity of a signed aggregate holds, parsing it ends.
func FuzzEntity(f *testing.F) {
	sim, err := registrysim.New(registrysim.Config{Entities: 1})
	if err != nil {
		f.Fatal(err)
	}
	for _, doc := range sim.Hostile() {
		if len(doc) < 20_000 {
			f.Add(` xmlns="urn:oasis:names:tc:SAML:2.0:metadata"`, doc)
		}
	}
	f.Fuzz(func(t *testing.T, context string, doc []byte) { parsesHarmless(t, context, doc) })
}

func parsesHarmless(t *testing.T, context string, doc []byte) {
	t.Helper()
	sp, err := saml.ParseAggregatedSP(context, doc)
	if err != nil {
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("kind of %v", err)
		}
		return
	}
	harmless(sp)
	for _, name := range sp.DisplayName {
		if strings.ContainsFunc(name, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) }) {
			t.Errorf("name %q", name)
		}
	}
}
