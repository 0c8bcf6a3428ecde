package xmldoc

import (
	"bytes"
	"testing"
)

// FuzzCanonical: no document makes the canonicaliser panic or grow without bound,
// and what it wrote is read back as what it wrote: canonical form is a fixed point.
func FuzzCanonical(f *testing.F) {
	for _, doc := range awkward {
		f.Add([]byte(doc), "")
	}
	f.Add([]byte(`<a xmlns:x="u" xmlns="d"><x:b y="1"/></a>`), "x #default")
	bounds := Bounds{Bytes: 8 << 10, Depth: 16, Attrs: 64, Elements: 256, Declarations: 64}
	f.Fuzz(func(t *testing.T, doc []byte, list string) {
		prefixes, err := prefixList(list)
		if err != nil {
			return
		}
		root, err := bounds.Parse(doc)
		if err != nil {
			return
		}
		once, err := canonical(root, nil, prefixes)
		if err != nil {
			return
		}
		if len(once) > 64*(len(doc)+1) {
			t.Fatalf("%d octets became %d", len(doc), len(once))
		}
		back, err := reparse(once)
		if err != nil {
			t.Fatalf("%s: %v", once, err)
		}
		if again, err := canonical(back, nil, prefixes); err != nil || !bytes.Equal(once, again) {
			t.Fatalf("%s\nthen %s, %v", once, again, err)
		}
	})
}
