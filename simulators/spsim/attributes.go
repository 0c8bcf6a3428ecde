package spsim

import (
	"regexp"
	"time"
)

// attribute is what the SPID attribute table says about one name.
type attribute struct {
	name   string
	label  string // Italian, for the result page
	isDate bool   // xs:date instead of xs:string
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
		{"spidCode", "Codice identificativo SPID", false, one(`[A-Z]{4}[A-Za-z0-9]{10}`)},
		{"name", "Nome", false, words},
		{"familyName", "Cognome", false, words},
		{"placeOfBirth", "Luogo di nascita (codice catastale)", false, one(`[A-Z][0-9]{3}`)},
		{"countyOfBirth", "Provincia di nascita", false, one(`[A-Z]{2}`)},
		{"dateOfBirth", "Data di nascita", true, nil},
		{"gender", "Sesso", false, one(`[FM]`)},
		{"companyName", "Ragione sociale", false, words},
		{"registeredOffice", "Sede legale", false, words},
		{"fiscalNumber", "Codice fiscale", false, one(taxCode)},
		{"ivaCode", "Partita IVA", false, one(`VATIT-[0-9]{11}`)},
		{"companyFiscalNumber", "Codice fiscale dell'impresa", false, one(taxCode)},
		{"idCard", "Documento d'identità", false, one(`\S+ \S+ \S+ \d{4}-\d{2}-\d{2} \d{4}-\d{2}-\d{2}`)},
		{"mobilePhone", "Numero di cellulare", false, one(`\+?[0-9]{6,15}`)},
		{"email", "Indirizzo e-mail", false, one(`[^\s@]+@[^\s@]+`)},
		{"address", "Indirizzo", false, words},
		{"domicileStreetAddress", "Domicilio: via e numero", false, words},
		{"domicilePostalCode", "Domicilio: CAP", false, words},
		{"domicileMunicipality", "Domicilio: comune", false, words},
		{"domicileProvince", "Domicilio: provincia", false, words},
		{"domicileNation", "Domicilio: nazione", false, words},
		{"expirationDate", "Scadenza dell'identità digitale", true, nil},
		{"digitalAddress", "Domicilio digitale (PEC)", false, one(`[^\s@]+@[^\s@]+`)},
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
	return attribute{name: name, label: name}
}

// accepts reports whether value, not empty, has the attribute's form.
func (a attribute) accepts(value string) bool {
	if a.isDate {
		t, err := time.Parse(time.DateOnly, value)
		return err == nil && t.Year() >= 1800
	}
	return a.shape == nil || a.shape.MatchString(value)
}
