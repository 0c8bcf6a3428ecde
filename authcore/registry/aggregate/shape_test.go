package aggregate

import (
	"strings"
	"testing"

	"custode/internal/fault"
)

// TestShapeRefused: what no reader may take is refused by reading alone. A
// registry's own mistake is signed: the digest would not find it.
func TestShapeRefused(t *testing.T) {
	signed := string(sign(t, plainDoc, agid()))
	const empty = "<md:EntityDescriptor/>"
	for name, c := range map[string][2]string{
		"second signature":           {empty, `<ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#"/>`},
		"signature not first":        {"<ds:Signature ", "<md:Extensions/><ds:Signature "},
		"group in a group":           {empty, "<md:EntitiesDescriptor/>"},
		"DOCTYPE":                    {"<!-- made by hand -->", `<!DOCTYPE x [<!ENTITY a "b">]>`},
		"entity reference":           {"tail", "&a;"},
		"CDATA":                      {"tail", "<![CDATA[tail]]>"},
		"processing instruction":     {"tail", "<?x y?>tail"},
		"not UTF-8":                  {"tail", "\xff"},
		"not UTF-8 in a value":       {`a="1"`, "a=\"\xff\""},
		"control":                    {"tail", "\x01"},
		"surrogate":                  {"tail", "\xed\xa0\x80"},
		"reference to a control":     {"tail", "&#0;"},
		"reference to a control, 16": {"tail", "&#x1F;"},
		"reference beyond Unicode":   {"tail", "&#x11FFFF;"},
		"reference to a surrogate":   {"tail", "&#xD800;"},
		"attribute twice":            {`a="1"`, `a="1" a="1"`},
		"attribute twice, unlike":    {`a="1"`, `a="1" a="2"`},
		"attribute twice by name":    {`spid:b="2"`, `spid:b="2" xmlns:s2="https://spid.gov.it/saml-extensions" s2:b="2"`},
		"entityID twice":             {`entityID="https://b.example.it"`, `entityID="https://b.example.it" entityID="https://c.example.it"`},
		"prefix unknown":             {`spid:b="2"`, `nobody:b="2"`},
		"namespace twice":            {`<p xmlns="">`, `<p xmlns="" xmlns="urn:q">`},
		"prefix twice":               {`<p xmlns="">`, `<p xmlns="" xmlns:z="urn:y" xmlns:z="urn:z">`},
		"xmlns declared":             {`<p xmlns="">`, `<p xmlns="" xmlns:xmlns="urn:z">`},
		"xml declared otherwise":     {`<p xmlns="">`, `<p xmlns="" xmlns:xml="urn:z">`},
		"another prefix for xml":     {`<p xmlns="">`, `<p xmlns="" xmlns:z="http://www.w3.org/XML/1998/namespace">`},
		"another prefix for xmlns":   {`<p xmlns="">`, `<p xmlns="" xmlns:z="http://www.w3.org/2000/xmlns/">`},
		"prefix for nothing":         {`<p xmlns="">`, `<p xmlns="" xmlns:z="">`},
		"second root":                {"<!-- end -->", "<x/>"},
		"second document":            {"<!-- end -->", `<md:EntitiesDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata"></md:EntitiesDescriptor>`},
		"text after":                 {"<!-- end -->", "x"},
		"NUL after":                  {"<!-- end -->", "\x00"},
		"open comment":               {"<!-- end -->", "<!-- end"},
		"hyphens in a comment":       {"<!-- end -->", "<!-- e--nd -->"},
		"hyphens inside the root":    {"<!-- x -->", "<!-- x--y -->"},
		"three hyphens":              {"<!-- end -->", "<!-- end --->"},
		"end tag":                    {"</EntityDescriptor>", "</EntityDescriptoR>"},
		"end tag's prefix":           {"</EntityDescriptor>", "</md:EntityDescriptor>"},
	} {
		t.Run(name, func(t *testing.T) {
			changed := strings.Replace(signed, c[0], c[1], 1)
			if changed == signed {
				t.Fatal("the case changes nothing")
			}
			if _, err := read([]byte(changed), limits); !fault.Is(err, fault.Invalid) {
				t.Errorf("got %v", err)
			}
		})
	}
}
