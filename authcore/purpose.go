package authcore

import (
	"fmt"
	"slices"

	"custode/internal/fault"
)

// IdentityType says whose a digital identity is and in what quality it is used
// (SPID Avviso 18 v2).
type IdentityType uint8

// The types. Appended to, never renumbered: they are stored, and the numbers are
// the rules' own.
const (
	NaturalPerson        IdentityType = 1 // a citizen
	LegalPerson          IdentityType = 2
	Professional         IdentityType = 3 // a natural person, for professional use
	ProfessionalForLegal IdentityType = 4 // for professional use, on behalf of a legal person
)

// typeNames are the words of files and commands.
var typeNames = [...]string{"", "natural", "legal", "professional", "professional-for-legal"}

// String returns the word of the type.
func (t IdentityType) String() string {
	if t >= NaturalPerson && int(t) < len(typeNames) {
		return typeNames[t]
	}
	return fmt.Sprintf("type(%d)", uint8(t))
}

// ParseIdentityType reads the word of a type; "" is a natural person's.
// fault.Invalid.
func ParseIdentityType(word string) (IdentityType, error) {
	if word == "" {
		return NaturalPerson, nil
	}
	if i := slices.Index(typeNames[:], word); i > 0 {
		return IdentityType(i), nil
	}
	return 0, fault.Newf(fault.Invalid, "parse identity type", "not one of %q", typeNames[1:])
}

// purposes is the table of Avviso 18 v2: the types that may answer a request with
// that spid:Purpose, "" for none.
var purposes = map[string][]IdentityType{
	"":   {NaturalPerson, Professional},
	"P":  {Professional, ProfessionalForLegal},
	"LP": {LegalPerson, ProfessionalForLegal},
	"PG": {ProfessionalForLegal},
	"PF": {Professional},
	"PX": {LegalPerson, Professional, ProfessionalForLegal},
}

// Accepts reports whether an identity of the type may answer a request with that
// spid:Purpose ("" for none); else the answer is anomaly 30. A purpose that is
// not in the table accepts nobody.
func (t IdentityType) Accepts(purpose string) bool { return slices.Contains(purposes[purpose], t) }

// checkAttributes holds the attributes against the type: a legal person's has
// what identifies the company (fiscal code, VAT number or both) and a citizen's
// has nothing of a company.
func (t IdentityType) checkAttributes(have map[string]string) error {
	const op = "make identity"
	given := func(name string) bool { return have[name] != "" }
	switch t {
	case NaturalPerson:
		for _, name := range []string{"companyName", "companyFiscalNumber", "ivaCode", "registeredOffice"} {
			if given(name) {
				return fault.Newf(fault.Invalid, op, "attribute %s does not belong to type %s", name, t)
			}
		}
	case LegalPerson, ProfessionalForLegal:
		for _, name := range []string{"companyName", "registeredOffice"} {
			if !given(name) {
				return fault.Newf(fault.Invalid, op, "type %s needs attribute %s", t, name)
			}
		}
		if !given("companyFiscalNumber") && !given("ivaCode") {
			return fault.Newf(fault.Invalid, op, "type %s needs attribute companyFiscalNumber or ivaCode", t)
		}
		if t == LegalPerson && (given("name") || given("familyName")) {
			return fault.Newf(fault.Invalid, op, "type %s has no name and familyName", t)
		}
	case Professional:
	default:
		return fault.Newf(fault.Invalid, op, "%s", t)
	}
	return nil
}
