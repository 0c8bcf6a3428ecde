package hsm

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"custode/internal/fault"
	"custode/internal/id"
)

const goodPlan = `# reviewed by two
ceremony: custode-2026-1
token:
  label: custode
  serial: 0123abcd
keys:
  - label: custode/sign/2026-1
    role: sign
    bits: 3072
    certificate:
      validity-days: 1095
      non-repudiation: true
      subject:
        common-name: Custode
        organization: Società Esempio S.p.A.
        organization-identifier: VATIT-12345678903
        uri: https://idp.example.it
        country: IT
        locality: Roma
  - label: custode/mac/2026-1
    role: mac
    bits: 256
  - label: custode/wrap/2026-1
    role: wrap
    bits: 256
`

func mustLabel(t *testing.T, s string) id.KeyLabel {
	t.Helper()
	l, err := id.ParseKeyLabel(s)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestParsePlan(t *testing.T) {
	got, err := ParsePlan([]byte(goodPlan))
	if err != nil {
		t.Fatal(err)
	}
	uri, err := id.ParseEntityID("https://idp.example.it")
	if err != nil {
		t.Fatal(err)
	}
	want := Plan{Name: "custode-2026-1", TokenLabel: "custode", TokenSerial: "0123abcd", Keys: []PlannedKey{
		{Label: mustLabel(t, "custode/sign/2026-1"), Role: RoleSign, Bits: 3072, Certificate: &PlannedCertificate{
			CommonName: "Custode", Organization: "Società Esempio S.p.A.", OrganizationID: "VATIT-12345678903", URI: uri,
			Country: "IT", Locality: "Roma", Validity: 1095 * 24 * time.Hour, NonRepudiation: true,
		}},
		{Label: mustLabel(t, "custode/mac/2026-1"), Role: RoleMAC, Bits: 256},
		{Label: mustLabel(t, "custode/wrap/2026-1"), Role: RoleWrap, Bits: 256},
	}}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(id.KeyLabel{}, id.EntityID{})); d != "" {
		t.Error(d)
	}
	if err := got.Validate(); err != nil {
		t.Error(err)
	}
	if f := got.Keys[0].FileName(); f != "custode_sign_2026-1" {
		t.Errorf("file name %q", f)
	}
	got.Keys[1].Copy, got.Custodians, got.Threshold = true, []string{"anna", "bruno"}, 2
	if err := got.Validate(); err != nil || !got.Copies() {
		t.Errorf("a plan with copies: %v", err)
	}
	got.Keys[1].Bits = 128
	if err := got.Validate(); !fault.Is(err, fault.Invalid) {
		t.Errorf("a changed plan: %v", err)
	}
}

// Each row changes one thing in the good plan and names what the error must say.
func TestParsePlanRefuses(t *testing.T) {
	for name, c := range map[string]struct{ old, new, says string }{
		"unknown key":          {"    bits: 3072", "    bitz: 3072", "[9:5]"},
		"unknown top key":      {"ceremony:", "extra: 1\nceremony:", "[2:1]"},
		"unknown subject key":  {"locality", "location", "[19:9]"},
		"repeated key":         {"    role: mac", "    role: mac\n    role: mac", "[22:5]"},
		"second document":      {"ceremony:", "---\na: 1\n---\nceremony:", "unknown field"},
		"trailing document":    {"    role: wrap\n    bits: 256\n", "    role: wrap\n    bits: 256\n---\na: 1\n", "more than one document"},
		"no name":              {"ceremony: custode-2026-1", "ceremony: \"\"", "ceremony:"},
		"path as name":         {"ceremony: custode-2026-1", "ceremony: ../x", "ceremony:"},
		"no token label":       {"  label: custode\n", "", "token.label: is missing"},
		"long token label":     {"  label: custode\n", "  label: " + strings.Repeat("a", 33) + "\n", "token.label:"},
		"odd serial":           {"serial: 0123abcd", "serial: \"0123 abcd\"", "token.serial:"},
		"bad label":            {"label: custode/mac/2026-1", "label: Custode/MAC", "keys[1].label:"},
		"label twice":          {"label: custode/wrap/2026-1", "label: custode/mac/2026-1", "keys[2].label:"},
		"file name twice":      {"label: custode/wrap/2026-1", "label: custode_mac_2026-1", "keys[2].label:"},
		"unknown role":         {"role: wrap", "role: kek", "keys[2].role:"},
		"no role":              {"    role: wrap\n", "", "keys[2].role:"},
		"copies for nothing":   {"keys:\n", "copies: {custodians: [a, b], threshold: 2}\nkeys:\n", "copies: contradicts"},
		"copy, no custodians":  {"role: wrap\n", "role: wrap\n    copy: true\n", "copies: keys with copy: true want"},
		"one opens all":        {"keys:\n  - label: custode/sign/2026-1\n", "copies: {custodians: [a, b], threshold: 1}\nkeys:\n  - label: custode/sign/2026-1\n    copy: true\n", "copies: keys with copy: true want"},
		"custodian twice":      {"keys:\n  - label: custode/sign/2026-1\n", "copies: {custodians: [a, a], threshold: 2}\nkeys:\n  - label: custode/sign/2026-1\n    copy: true\n", "copies.custodians[1]:"},
		"custodian's path":     {"keys:\n  - label: custode/sign/2026-1\n", "copies: {custodians: [a, ../b], threshold: 2}\nkeys:\n  - label: custode/sign/2026-1\n    copy: true\n", "copies.custodians[1]:"},
		"approvals":            {"ceremony:", "approvals: -1\nceremony:", "approvals:"},
		"small RSA":            {"bits: 3072", "bits: 1024", "keys[0].bits:"},
		"odd RSA":              {"bits: 3072", "bits: 3000", "keys[0].bits:"},
		"AES-128":              {"role: wrap\n    bits: 256", "role: wrap\n    bits: 128", "keys[2].bits:"},
		"certificate on a mac": {"role: sign\n    bits: 3072", "role: mac\n    bits: 256", "keys[0].certificate: contradicts"},
		"sign without one":     {"role: mac\n    bits: 256", "role: sign\n    bits: 2048", "keys[1].certificate: is missing"},
		"no days":              {"      validity-days: 1095\n", "", "keys[0].certificate.validity-days:"},
		"too many days":        {"validity-days: 1095", "validity-days: 36500", "keys[0].certificate.validity-days:"},
		"country":              {"country: IT", "country: it", "certificate.subject.country:"},
		"contradiction":        {"country: IT", "country: SI", "contradicts country"},
		"VAT check digit":      {"VATIT-12345678903", "VATIT-12345678904", "organization-identifier:"},
		"VAT length":           {"VATIT-12345678903", "VATIT-123", "organization-identifier:"},
		"no scheme":            {"VATIT-12345678903", "12345678903", "organization-identifier:"},
		"uri":                  {"uri: https://idp.example.it", "uri: idp.example.it", "certificate.subject.uri:"},
		"control character":    {"common-name: Custode", "common-name: \"Cus\\ttode\"", "certificate.subject.common-name:"},
		"blank around":         {"common-name: Custode", "common-name: \" Custode\"", "certificate.subject.common-name:"},
		"long name":            {"common-name: Custode", "common-name: " + strings.Repeat("C", 65), "certificate.subject.common-name:"},
		"wrong type":           {"bits: 3072", "bits: many", "[9:"},
		"not YAML":             {"ceremony:", "\tceremony: [", "["},
	} {
		text := strings.Replace(goodPlan, c.old, c.new, 1)
		if text == goodPlan {
			t.Errorf("%s: the row changes nothing", name)
		}
		if _, err := ParsePlan([]byte(text)); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want invalid saying %q", name, err, c.says)
		}
	}
	for name, text := range map[string]string{
		"empty": "", "comment": "# nothing\n", "long": goodPlan + strings.Repeat("#", maxPlan),
		"no keys":       goodPlan[:strings.Index(goodPlan, "keys:")],
		"too many keys": goodPlan + strings.Repeat("  - label: a/b\n    role: mac\n    bits: 256\n", maxKeys),
	} {
		if _, err := ParsePlan([]byte(text)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, want invalid", name, err)
		}
	}
}

// The plan that operators copy must be one.
func TestDocumentedPlan(t *testing.T) {
	text, err := os.ReadFile("../docs/ceremony.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "```yaml\n")
	plan, _, closed := strings.Cut(rest, "```")
	if !ok || !closed {
		t.Fatal("docs/ceremony.md shows no plan")
	}
	if _, err := ParsePlan([]byte(plan)); err != nil {
		t.Error(err)
	}
}

func FuzzParsePlan(f *testing.F) {
	f.Add([]byte(goodPlan))
	f.Add([]byte("ceremony: &a [*a]\n"))
	f.Add([]byte("keys: [{label: a/b, role: mac, bits: 256}]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ParsePlan(text)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("kind of %v", err)
			}
			return
		}
		if err := p.Validate(); err != nil {
			t.Errorf("accepted, then refused: %v", err)
		}
	})
}
