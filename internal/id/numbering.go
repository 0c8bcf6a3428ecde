package id

import (
	"regexp"
	"slices"
	"strings"

	"custode/internal/fault"
)

// Numbering says which numbers may get an SMS: those of mobile telephones in the
// allowed countries. The zero value allows Italy only.
type Numbering struct{ codes []string }

// mobiles are the national numbers of mobile telephones by calling code, where the
// plan tells them from others (national plans as published to the ITU, E.164 annex
// to the Operational Bulletin). In Italy the number of a mobile begins with 3 and has
// 10 digits (9 in old ones); 11 are its voice mailbox. Other codes may be allowed,
// but then landlines cannot be told apart.
var mobiles = map[string]*regexp.Regexp{
	"39":  regexp.MustCompile(`^3[0-9]{8,9}$`),
	"378": regexp.MustCompile(`^(?:6[0-9]{7}|3[0-9]{8,9})$`), // San Marino
	"30":  regexp.MustCompile(`^69[0-9]{8}$`),
	"31":  regexp.MustCompile(`^6[1-58][0-9]{7}$`),
	"32":  regexp.MustCompile(`^4[5-9][0-9]{7}$`),
	"33":  regexp.MustCompile(`^[67][0-9]{8}$`),
	"34":  regexp.MustCompile(`^[67][0-9]{8}$`),
	"351": regexp.MustCompile(`^9[1-36][0-9]{7}$`),
	"355": regexp.MustCompile(`^6[6-9][0-9]{7}$`),
	"356": regexp.MustCompile(`^(?:7[79]|9[2689])[0-9]{6}$`),
	"377": regexp.MustCompile(`^[346][0-9]{7,8}$`),
	"385": regexp.MustCompile(`^9[125789][0-9]{6,7}$`),
	"386": regexp.MustCompile(`^(?:3[01]|4[01]|51|6[4589]|7[01])[0-9]{6}$`),
	"40":  regexp.MustCompile(`^7[0-9]{8}$`),
	"41":  regexp.MustCompile(`^7[5-9][0-9]{7}$`),
	"43":  regexp.MustCompile(`^6(?:5|6|7|8|9)[0-9]{7,11}$`),
	"44":  regexp.MustCompile(`^7(?:[1-57-9][0-9]{8}|624[0-9]{6})$`), // not 70 personal, 76 pagers
	"48":  regexp.MustCompile(`^(?:45|5[0137]|6[069]|7[2389]|88)[0-9]{7}$`),
	"49":  regexp.MustCompile(`^1[5-7][0-9]{8,9}$`),
	"423": regexp.MustCompile(`^(?:7[0-9]{6}|6[0-9]{8})$`),
}

// never are codes of no country, where calls and messages cost dearly: shared-cost
// and premium services, satellites, personal numbers, networks.
var never = []string{"800", "808", "870", "878", "881", "882", "883", "888", "979", "991"}

var callingCode = regexp.MustCompile(`^\+?([1-9][0-9]{0,2})$`)

// ParseNumbering takes the calling codes of the allowed countries ("+39"), at most
// 100; none means Italy. It fails with fault.Invalid.
func ParseNumbering(codes []string) (Numbering, error) {
	const op = "allowed countries"
	var n Numbering
	if len(codes) > 100 {
		return n, fault.Newf(fault.Invalid, op, "more than 100")
	}
	for _, c := range codes {
		m := callingCode.FindStringSubmatch(c)
		if m == nil {
			return Numbering{}, fault.Newf(fault.Invalid, op, "%.10q is not a calling code like +39", c)
		}
		if slices.Contains(never, m[1]) {
			return Numbering{}, fault.Newf(fault.Invalid, op, "+%s is not a country", m[1])
		}
		n.codes = append(n.codes, m[1])
	}
	return n, nil
}

// Accept fails with fault.Denied when p is not the number of a mobile telephone in
// an allowed country: landlines, premium and free services, short codes, other
// countries. The number is not repeated in the error.
func (n Numbering) Accept(p Phone) error {
	const op = "send to a number"
	codes := n.codes
	if len(codes) == 0 {
		codes = []string{"39"}
	}
	if p.IsZero() {
		return fault.Newf(fault.Denied, op, "there is no number")
	}
	digits := p.String()[1:]
	// Codes are free of prefixes among themselves, but an allowed "1" and a refused
	// "12..." are told apart by the longest.
	best := ""
	for _, c := range codes {
		if strings.HasPrefix(digits, c) && len(c) > len(best) {
			best = c
		}
	}
	if best == "" {
		return fault.Newf(fault.Denied, op, "its country is not allowed")
	}
	for _, c := range never {
		if strings.HasPrefix(digits, c) {
			return fault.Newf(fault.Denied, op, "it belongs to no country")
		}
	}
	if form := mobiles[best]; form != nil && !form.MatchString(digits[len(best):]) {
		return fault.Newf(fault.Denied, op, "it is not a mobile telephone's")
	}
	return nil
}
