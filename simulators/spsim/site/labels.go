package site

// label names an attribute in Italian; one outside the SPID table keeps its
// own name.
func label(attribute string) string {
	if l, ok := labels[attribute]; ok {
		return l
	}
	return attribute
}

var labels = map[string]string{
	"spidCode":              "Codice identificativo SPID",
	"name":                  "Nome",
	"familyName":            "Cognome",
	"placeOfBirth":          "Luogo di nascita (codice catastale)",
	"countyOfBirth":         "Provincia di nascita",
	"dateOfBirth":           "Data di nascita",
	"gender":                "Sesso",
	"companyName":           "Ragione sociale",
	"registeredOffice":      "Sede legale",
	"fiscalNumber":          "Codice fiscale",
	"ivaCode":               "Partita IVA",
	"companyFiscalNumber":   "Codice fiscale dell'impresa",
	"idCard":                "Documento d'identità",
	"mobilePhone":           "Numero di cellulare",
	"email":                 "Indirizzo e-mail",
	"address":               "Indirizzo",
	"domicileStreetAddress": "Domicilio: via e numero",
	"domicilePostalCode":    "Domicilio: CAP",
	"domicileMunicipality":  "Domicilio: comune",
	"domicileProvince":      "Domicilio: provincia",
	"domicileNation":        "Domicilio: nazione",
	"expirationDate":        "Scadenza dell'identità digitale",
	"digitalAddress":        "Domicilio digitale (PEC)",
}
