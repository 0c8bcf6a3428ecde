package words

import (
	"fmt"
	"strings"
	"time"
)

// Date returns the day of t in words: "28 febbraio 2026".
func (b Book) Date(t time.Time) string {
	month := b.text(fmt.Sprintf("month.%d", t.Month()))
	if t.Day() == 1 {
		return b.text("date.first", month, t.Year())
	}
	return b.text("date", t.Day(), month, t.Year())
}

// Label returns the name of a SPID attribute as people call it; the attribute's
// own name when it is not in the table.
func (b Book) Label(attribute string) string {
	if s, err := b.Text("attribute." + attribute); err == nil {
		return s
	}
	return Visible(attribute)
}

// Value shows the value of a SPID attribute as a person would write it: dates
// in words, codes explained, prefixes of the wire format left out. What is not
// of the attribute's form is shown as it will be sent. Characters that draw
// nothing, or something else than they are, show as U+FFFD.
func (b Book) Value(attribute, value string) string {
	value = Visible(value)
	switch attribute {
	case "dateOfBirth", "expirationDate":
		return b.day(value)
	case "fiscalNumber", "companyFiscalNumber":
		return strings.TrimPrefix(value, "TINIT-")
	case "ivaCode":
		return strings.TrimPrefix(value, "VATIT-")
	case "gender":
		if s, err := b.Text("gender." + value); err == nil {
			return s
		}
	case "countyOfBirth", "domicileProvince":
		return b.province(value)
	case "placeOfBirth":
		if len(value) == 4 && value[0] == 'Z' {
			return value + " (" + b.text("abroad") + ")"
		}
	case "idCard":
		return b.card(value)
	}
	return value
}

// day shows YYYY-MM-DD in words.
func (b Book) day(s string) string {
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		return b.Date(t)
	}
	return s
}

// card shows "cartaIdentita CA00000AA comuneRoma 2020-01-15 2030-12-10" as a
// sentence.
func (b Book) card(s string) string {
	f := strings.Split(s, " ")
	if len(f) != 5 {
		return s
	}
	kind, err := b.Text("card." + f[0])
	if err != nil || f[0] == "words" {
		return s
	}
	return b.text("card.words", kind, f[1], f[2], b.day(f[3]), b.day(f[4]))
}

// province shows the two letters with the name.
func (b Book) province(code string) string {
	name := provinces[code]
	switch code {
	case "EE":
		name = b.text("abroad")
	case "BZ", "TN", "TS", "GO", "UD":
		if s, ok := minorityNames[b.lang+code]; ok {
			name = s
		}
	}
	if name == "" {
		return code
	}
	return name + " (" + code + ")"
}

// minorityNames are the names in the minority's language.
var minorityNames = map[string]string{
	"deBZ": "Bozen", "deTN": "Trient", "slTS": "Trst", "slGO": "Gorica", "slUD": "Videm",
}

// provinces are the plates of the provinces, those that are no more included:
// birth certificates keep them.
var provinces = map[string]string{
	"AG": "Agrigento", "AL": "Alessandria", "AN": "Ancona", "AO": "Aosta", "AP": "Ascoli Piceno", "AQ": "L'Aquila", "AR": "Arezzo",
	"AT": "Asti", "AV": "Avellino", "BA": "Bari", "BG": "Bergamo", "BI": "Biella", "BL": "Belluno", "BN": "Benevento", "BO": "Bologna",
	"BR": "Brindisi", "BS": "Brescia", "BT": "Barletta-Andria-Trani", "BZ": "Bolzano", "CA": "Cagliari", "CB": "Campobasso",
	"CE": "Caserta", "CH": "Chieti", "CI": "Carbonia-Iglesias", "CL": "Caltanissetta", "CN": "Cuneo", "CO": "Como", "CR": "Cremona",
	"CS": "Cosenza", "CT": "Catania", "CZ": "Catanzaro", "EN": "Enna", "FC": "Forlì-Cesena", "FE": "Ferrara", "FG": "Foggia",
	"FI": "Firenze", "FM": "Fermo", "FO": "Forlì", "FR": "Frosinone", "FU": "Fiume", "GE": "Genova", "GO": "Gorizia", "GR": "Grosseto",
	"IM": "Imperia", "IS": "Isernia", "KR": "Crotone", "LC": "Lecco", "LE": "Lecce", "LI": "Livorno", "LO": "Lodi", "LT": "Latina",
	"LU": "Lucca", "MB": "Monza e Brianza", "MC": "Macerata", "ME": "Messina", "MI": "Milano", "MN": "Mantova", "MO": "Modena",
	"MS": "Massa-Carrara", "MT": "Matera", "NA": "Napoli", "NO": "Novara", "NU": "Nuoro", "OG": "Ogliastra", "OR": "Oristano",
	"OT": "Olbia-Tempio", "PA": "Palermo", "PC": "Piacenza", "PD": "Padova", "PE": "Pescara", "PG": "Perugia", "PI": "Pisa", "PL": "Pola",
	"PN": "Pordenone", "PO": "Prato", "PR": "Parma", "PS": "Pesaro e Urbino", "PT": "Pistoia", "PU": "Pesaro e Urbino", "PV": "Pavia",
	"PZ": "Potenza", "RA": "Ravenna", "RC": "Reggio Calabria", "RE": "Reggio Emilia", "RG": "Ragusa", "RI": "Rieti", "RM": "Roma",
	"RN": "Rimini", "RO": "Rovigo", "SA": "Salerno", "SI": "Siena", "SO": "Sondrio", "SP": "La Spezia", "SR": "Siracusa", "SS": "Sassari",
	"SU": "Sud Sardegna", "SV": "Savona", "TA": "Taranto", "TE": "Teramo", "TN": "Trento", "TO": "Torino", "TP": "Trapani", "TR": "Terni",
	"TS": "Trieste", "TV": "Treviso", "UD": "Udine", "VA": "Varese", "VB": "Verbano-Cusio-Ossola", "VC": "Vercelli", "VE": "Venezia",
	"VI": "Vicenza", "VR": "Verona", "VS": "Medio Campidano", "VT": "Viterbo", "VV": "Vibo Valentia", "ZA": "Zara",
}
