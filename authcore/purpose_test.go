package authcore

import (
	"crypto/rand"
	"maps"
	"testing"

	"custode/authcore/saml"
	"custode/internal/fault"
	"custode/internal/id"
)

// purposeTable is the table of Avviso 18 v2, as the rules print it: for each
// Purpose the types 1 to 4.
var purposeTable = map[string][4]bool{
	"":   {true, false, true, false},
	"P":  {false, false, true, true},
	"LP": {false, true, false, true},
	"PG": {false, false, false, true},
	"PF": {false, false, true, false},
	"PX": {false, true, true, true},
	"Z":  {}, // not in the table: nobody
	"p":  {},
}

func TestAccepts(t *testing.T) {
	for purpose, row := range purposeTable {
		for i, want := range row {
			if got := IdentityType(i + 1).Accepts(purpose); got != want {
				t.Errorf("type %d, purpose %q: %v", i+1, purpose, got)
			}
		}
		if IdentityType(0).Accepts(purpose) || IdentityType(5).Accepts(purpose) {
			t.Errorf("no type answers purpose %q", purpose)
		}
	}
}

// TestPurposeInLogin: who is not of a type that the Purpose accepts learns so when
// the requested level was reached, not before (anomaly 30).
func TestPurposeInLogin(t *testing.T) {
	for purpose, row := range purposeTable {
		for i, accepted := range row {
			kind := IdentityType(i + 1)
			for level, answers := range map[saml.Level][]Answer{saml.L1: {right}, saml.L2: {right, sms, code}} {
				b := newBench(t)
				b.mario.Type = kind
				b.store.put(b.mario)
				r := b.request(level, saml.Exact)
				r.Purpose = purpose
				flow := b.startedWith(r)
				b.page(flow, StepCredentials, NoticeWrongCredentials, wrong)
				for _, a := range answers[:len(answers)-1] {
					if out := b.do(flow, a); out.View == nil {
						t.Fatalf("type %s, purpose %q, level %d: told too early", kind, purpose, level)
					}
				}
				if last := answers[len(answers)-1]; accepted {
					b.page(flow, StepConsent, NoticeNone, last)
					b.response(flow, saml.Success, ConsentAnswer{})
				} else {
					b.response(flow, saml.WrongIdentityType, last)
				}
			}
		}
	}
}

// TestPurposeAfterCredentials: without the credentials of the level it is anomaly
// 20, whatever the type.
func TestPurposeAfterCredentials(t *testing.T) {
	b := newBench(t)
	b.mario.Phone = id.Phone{}
	b.store.put(b.mario)
	r := b.request(saml.L2, saml.Exact)
	r.Purpose = "LP"
	b.response(b.startedWith(r), saml.NoCredentials, right)
}

// TestTypeChangedMeanwhile: what the consent page was shown for does not bind.
func TestTypeChangedMeanwhile(t *testing.T) {
	b := newBench(t)
	flow := b.started(saml.L1, saml.Exact)
	b.page(flow, StepConsent, NoticeNone, right)
	b.mario.Type = LegalPerson
	b.store.put(b.mario)
	if out, err := b.Answer(t.Context(), flow, visitor, ConsentAnswer{}); !fault.Is(err, fault.Internal) || out.Response != nil {
		t.Errorf("%+v, %v", out, err)
	}
}

func TestIdentityTypes(t *testing.T) {
	person := map[string]string{"name": "Ada", "familyName": "Lovati"}
	company := map[string]string{"companyName": "Prova S.r.l.", "registeredOffice": "via Listz 21 00144 Roma", "ivaCode": "VATIT-12345678903"}
	both := maps.Clone(company)
	maps.Copy(both, person)
	without := func(m map[string]string, names ...string) map[string]string {
		m = maps.Clone(m)
		for _, n := range names {
			delete(m, n)
		}
		return m
	}
	byFiscalNumber := without(company, "ivaCode")
	byFiscalNumber["companyFiscalNumber"] = "TINIT-12345678903"
	for name, tc := range map[string]struct {
		kind       string
		attributes map[string]string
		want       IdentityType // 0: refused
	}{
		"default":                      {"", person, NaturalPerson},
		"natural":                      {"natural", person, NaturalPerson},
		"legal":                        {"legal", company, LegalPerson},
		"legal by fiscal number":       {"legal", byFiscalNumber, LegalPerson},
		"professional":                 {"professional", person, Professional},
		"professional with VAT number": {"professional", both, Professional},
		"professional for legal":       {"professional-for-legal", both, ProfessionalForLegal},
		"citizen of a company":         {"natural", both, 0},
		"legal with a name":            {"legal", both, 0},
		"legal without company":        {"legal", without(company, "companyName"), 0},
		"legal without office":         {"legal", without(company, "registeredOffice"), 0},
		"legal without number":         {"legal", without(company, "ivaCode"), 0},
		"professional for no legal":    {"professional-for-legal", person, 0},
		"unknown type":                 {"robot", person, 0},
		"type by number":               {"1", person, 0},
		"type in capitals":             {"Legal", company, 0},
	} {
		t.Run(name, func(t *testing.T) {
			who, err := NewIdentity(NewIdentityInput{Username: "ada", SPIDCode: "ABCD1234567890", Type: tc.kind, Attributes: tc.attributes, Random: rand.Reader, Now: start})
			if who.Type != tc.want || (tc.want == 0) != fault.Is(err, fault.Invalid) {
				t.Errorf("%s, %v", who.Type, err)
			}
			if again, err := ParseIdentityType(who.Type.String()); tc.want != 0 && (err != nil || again != who.Type) {
				t.Errorf("%s is read as %s, %v", who.Type, again, err)
			}
		})
	}
}
