// Package attribute knows the table of SPID attributes: their 23 names and the wire
// format of each (technical rules, with Avviso 18 v2 and 25). It reads values that
// operators type; it knows no identity and asserts nothing. Imported by authcore and
// cmd/custode.
package attribute

import (
	"fmt"
	"net/mail"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"custode/internal/fault"
	"custode/internal/id"
)

// forms is the table of attributes (technical rules, with Avviso 18
// and 25): each name with the reader of its wire format, which returns the value
// to keep. Attribute names are case-sensitive.
var forms = map[string]func(value string, now time.Time) (string, error){
	"spidCode":              form(`^[A-Z]{4}[A-Za-z0-9]{10}$`),
	"name":                  words,
	"familyName":            words,
	"placeOfBirth":          form(`^[A-Z][0-9]{3}$`), // cadastral code; Z: abroad
	"countyOfBirth":         form(`^[A-Z]{2}$`),      // EE: abroad
	"dateOfBirth":           pastDate,
	"gender":                form(`^[FM]$`),
	"companyName":           words,
	"registeredOffice":      words,
	"fiscalNumber":          fiscalNumber,
	"ivaCode":               ivaCode,
	"companyFiscalNumber":   companyFiscalNumber,
	"idCard":                idCard,
	"mobilePhone":           form(`^\+?[0-9]{8,15}$`),
	"email":                 mailbox,
	"address":               words,
	"domicileStreetAddress": words,
	"domicilePostalCode":    form(`^[0-9A-Z][0-9A-Z -]{1,8}[0-9A-Z]$`),
	"domicileMunicipality":  words,
	"domicileProvince":      form(`^[A-Z]{2}$`),
	"domicileNation":        words,
	"expirationDate":        date,
	"digitalAddress":        mailbox,
}

// Names returns the 23 SPID attribute names, sorted.
func Names() []string {
	names := make([]string, 0, len(forms))
	for n := range forms {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// mostValue is the longest attribute value, in bytes.
const mostValue = 256

// Parse checks value against the format of the named SPID attribute
// and returns it in wire format. "" is the value of an attribute that is not
// known. now bounds a birth date. fault.Invalid names the attribute and never
// repeats the value.
func Parse(name, value string, now time.Time) (string, error) {
	read, ok := forms[name]
	if !ok {
		return "", fault.Newf(fault.Invalid, "parse attribute", "no SPID attribute has this name")
	}
	op := "parse attribute " + name
	if value == "" {
		return "", nil
	}
	if len(value) > mostValue || !utf8.ValidString(value) || strings.ContainsFunc(value, unprintable) {
		return "", fault.Newf(fault.Invalid, op, "not 1 to %d bytes of printable UTF-8", mostValue)
	}
	value, err := read(norm.NFC.String(value), now)
	if err != nil {
		return "", fault.New(fault.Invalid, op, err)
	}
	return value, nil
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }

func form(pattern string) func(string, time.Time) (string, error) {
	re := regexp.MustCompile(pattern)
	return func(s string, _ time.Time) (string, error) {
		if !re.MatchString(s) {
			return "", fmt.Errorf("not of the form %s", pattern)
		}
		return s, nil
	}
}

// words accepts text with single blanks between its words.
func words(s string, _ time.Time) (string, error) {
	if strings.Join(strings.Fields(s), " ") != s {
		return "", fmt.Errorf("words are not parted by single blanks")
	}
	return s, nil
}

func date(s string, _ time.Time) (string, error) {
	if d, err := time.Parse(time.DateOnly, s); err != nil || d.Year() < 1800 {
		return "", fmt.Errorf("not a date YYYY-MM-DD")
	}
	return s, nil
}

func pastDate(s string, now time.Time) (string, error) {
	d, err := time.Parse(time.DateOnly, s)
	if err != nil || d.Year() < 1800 || d.After(now) {
		return "", fmt.Errorf("not a past date YYYY-MM-DD")
	}
	return s, nil
}

func fiscalNumber(s string, _ time.Time) (string, error) {
	n, err := id.ParseFiscalNumber(s)
	if err != nil {
		return "", fmt.Errorf("not a fiscal code")
	}
	return "TINIT-" + n.String(), nil
}

var elevenDigits = regexp.MustCompile(`^[0-9]{11}$`)

// vatNumber reports whether s is an Italian VAT number: eleven digits, the last
// one the Luhn check digit (D.P.R. 633/1972, art. 35; D.M. 23 December 1976).
func vatNumber(s string) bool {
	if !elevenDigits.MatchString(s) {
		return false
	}
	sum := 0
	for i := range len(s) {
		d := int(s[i] - '0')
		if i%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}

func ivaCode(s string, _ time.Time) (string, error) {
	n, ok := strings.CutPrefix(s, "VATIT-")
	if !ok || !vatNumber(n) {
		return "", fmt.Errorf("not VATIT- and a VAT number")
	}
	return s, nil
}

// companyFiscalNumber is eleven digits for a company, sixteen characters for a
// sole trader.
func companyFiscalNumber(s string, now time.Time) (string, error) {
	if n, ok := strings.CutPrefix(s, "TINIT-"); ok && vatNumber(n) {
		return s, nil
	}
	return fiscalNumber(s, now)
}

var idCardForm = regexp.MustCompile(`^(?:cartaIdentita|passaporto|patenteGuida|patenteNautica|librettoPensione|` +
	`patentinoImpTermici|portoArmi|tesseraRiconoscimento) [0-9A-Za-z/-]{1,32} [\pL'-]{1,64} ([0-9-]{10}) ([0-9-]{10})$`)

func idCard(s string, now time.Time) (string, error) {
	m := idCardForm.FindStringSubmatch(s)
	if m == nil {
		return "", fmt.Errorf("not type, number, issuer, issue date and expiry date")
	}
	if _, err := pastDate(m[1], now); err != nil {
		return "", err
	}
	if _, err := date(m[2], now); err != nil {
		return "", err
	}
	if m[2] < m[1] {
		return "", fmt.Errorf("it expires before its issue")
	}
	return s, nil
}

func mailbox(s string, _ time.Time) (string, error) {
	a, err := mail.ParseAddress(s)
	if err != nil || a.Address != s || len(s) > 254 || strings.ContainsAny(s, " \"") {
		return "", fmt.Errorf("not a mail address")
	}
	return s, nil
}
