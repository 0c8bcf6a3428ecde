package spsim

import (
	"regexp"
	"time"
)

// attribute is what the SPID attribute table says about one name.
type attribute struct {
	name   string
	isDate bool // xs:date instead of xs:string
	shape  *regexp.Regexp
}

// attributeTable is the SPID attribute table, Avviso 18 v2 and 25 included. A
// shape is given where the rules fix one.
var attributeTable = makeAttributeTable()

func makeAttributeTable() []attribute {
	taxCode := `TINIT-([A-Z]{6}[0-9LMNPQRSTUV]{2}[A-Z][0-9LMNPQRSTUV]{2}[A-Z][0-9LMNPQRSTUV]{3}[A-Z]|[0-9]{11})`
	one := func(expr string) *regexp.Regexp { return regexp.MustCompile(`^(?:` + expr + `)$`) }
	words := one(`\S+( \S+)*`)
	return []attribute{
		{"spidCode", false, one(`[A-Z]{4}[A-Za-z0-9]{10}`)},
		{"name", false, words},
		{"familyName", false, words},
		{"placeOfBirth", false, one(`[A-Z][0-9]{3}`)},
		{"countyOfBirth", false, one(`[A-Z]{2}`)},
		{"dateOfBirth", true, nil},
		{"gender", false, one(`[FM]`)},
		{"companyName", false, words},
		{"registeredOffice", false, words},
		{"fiscalNumber", false, one(taxCode)},
		{"ivaCode", false, one(`VATIT-[0-9]{11}`)},
		{"companyFiscalNumber", false, one(taxCode)},
		{"idCard", false, one(`\S+ \S+ \S+ \d{4}-\d{2}-\d{2} \d{4}-\d{2}-\d{2}`)},
		{"mobilePhone", false, one(`\+?[0-9]{6,15}`)},
		{"email", false, one(`[^\s@]+@[^\s@]+`)},
		{"address", false, words},
		{"domicileStreetAddress", false, words},
		{"domicilePostalCode", false, words},
		{"domicileMunicipality", false, words},
		{"domicileProvince", false, words},
		{"domicileNation", false, words},
		{"expirationDate", true, nil},
		{"digitalAddress", false, one(`[^\s@]+@[^\s@]+`)},
	}
}

// attributeNamed returns the table's row, or a row that accepts any string for
// a name outside the table.
func attributeNamed(name string) attribute {
	for _, a := range attributeTable {
		if a.name == name {
			return a
		}
	}
	return attribute{name: name}
}

// accepts reports whether value, not empty, has the attribute's form.
func (a attribute) accepts(value string) bool {
	if a.isDate {
		t, err := time.Parse(time.DateOnly, value)
		return err == nil && t.Year() >= 1800
	}
	return a.shape == nil || a.shape.MatchString(value)
}
