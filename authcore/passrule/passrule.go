// Package passrule judges new passwords (manual 10.1): length, kinds of
// characters, repetition, and what others know of the subject: names, dates,
// codes and numbers. Each rule has its own name and its own sentence for the
// person; no error repeats the password.
//
// It knows nothing of hashes and of old passwords, and is not asked at a login:
// only where a password is chosen (cmd). It imports authcore for Identity and
// MaxPassword, which bounds what can be hashed.
package passrule

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"custode/authcore"
	"custode/authcore/passhash"
	"custode/internal/fault"
)

// PasswordRule is one of the rules a new password must keep (manual 10.1).
type PasswordRule string

// The rules, named by what was broken.
const (
	RuleText       PasswordRule = "text"        // UTF-8 without control characters
	RuleShort      PasswordRule = "short"       // under 8 characters
	RuleLong       PasswordRule = "long"        // over passhash.MaxPassword bytes
	RuleLower      PasswordRule = "lower"       // no lower-case letter
	RuleUpper      PasswordRule = "upper"       // no upper-case letter
	RuleDigit      PasswordRule = "digit"       // no digit
	RuleSpecial    PasswordRule = "special"     // no punctuation mark or symbol
	RuleRepeat     PasswordRule = "repeat"      // three identical characters in a row
	RuleUsername   PasswordRule = "username"    // holds the username
	RuleFiscalCode PasswordRule = "fiscal_code" // holds a fiscal code or VAT number
	RuleName       PasswordRule = "name"        // holds a name of the subject
	RuleDate       PasswordRule = "date"        // holds a date
	RuleDocument   PasswordRule = "document"    // holds a document's or telephone number
)

// sentence is what a person is told about a broken rule.
func (r PasswordRule) sentence() string {
	switch r {
	case RuleText:
		return "use printable characters only"
	case RuleShort:
		return "use at least 8 characters"
	case RuleLong:
		return fmt.Sprintf("use at most %d bytes", passhash.MaxPassword)
	case RuleLower:
		return "use at least one lower-case letter"
	case RuleUpper:
		return "use at least one upper-case letter"
	case RuleDigit:
		return "use at least one digit"
	case RuleSpecial:
		return "use at least one special character, such as # $ %"
	case RuleRepeat:
		return "do not use the same character three times in a row"
	case RuleUsername:
		return "do not use the username"
	case RuleFiscalCode:
		return "do not use a fiscal code"
	case RuleName:
		return "do not use your names"
	case RuleDate:
		return "do not use a date"
	case RuleDocument:
		return "do not use the number of a document or telephone"
	}
	return string(r)
}

// PasswordError lists the rules a new password breaks, in the order of the
// constants. Its text does not repeat the password.
type PasswordError struct{ Rules []PasswordRule }

// Error names the rules.
func (e *PasswordError) Error() string {
	return fmt.Sprintf("password breaks the rules %v", e.Rules)
}

// BrokenRules returns the rules named in err's chain, nil when there are none.
func BrokenRules(err error) []PasswordRule {
	var e *PasswordError
	if errors.As(err, &e) {
		return e.Rules
	}
	return nil
}

// CheckPassword judges a new password of the subject about (manual 10.1). The
// error is fault.Invalid, its cause a *PasswordError, its public sentence one
// phrase per broken rule.
func CheckPassword(password string, about authcore.Identity) error {
	broken := brokenRules(password, about)
	if len(broken) == 0 {
		return nil
	}
	said := make([]string, len(broken))
	for i, r := range broken {
		said[i] = r.sentence()
	}
	return &fault.Error{Kind: fault.Invalid, Op: "check new password", Public: strings.Join(said, "; "), Err: &PasswordError{broken}}
}

func brokenRules(password string, about authcore.Identity) []PasswordRule {
	if len(password) > 4*passhash.MaxPassword {
		return []PasswordRule{RuleLong} // bounds the work below
	}
	var broken []PasswordRule
	breaks := func(r PasswordRule, is bool) {
		if is {
			broken = append(broken, r)
		}
	}
	plain := norm.NFC.String(password)
	has := classes(plain)
	breaks(RuleText, has.unprintable)
	breaks(RuleShort, has.length < 8)
	breaks(RuleLong, len(plain) > passhash.MaxPassword)
	breaks(RuleLower, !has.lower)
	breaks(RuleUpper, !has.upper)
	breaks(RuleDigit, !has.digit)
	breaks(RuleSpecial, !has.special)
	breaks(RuleRepeat, has.run > 2)

	bare := squeeze(plain)
	holds := func(words ...string) bool {
		for _, w := range words {
			if w != "" && strings.Contains(bare, w) {
				return true
			}
		}
		return false
	}
	attr := about.Attributes
	breaks(RuleUsername, holds(usernameParts(about.Username.String())...))
	breaks(RuleFiscalCode, fiscalForm.MatchString(bare) || holds(afterDash(attr["fiscalNumber"]),
		afterDash(attr["companyFiscalNumber"]), afterDash(attr["ivaCode"]), squeeze(about.SPIDCode.String())))
	breaks(RuleName, holds(nameParts(attr["name"], attr["familyName"], attr["companyName"])...))
	breaks(RuleDate, dateForm.MatchString(plain) || holds(dateForms(attr["dateOfBirth"])...))
	breaks(RuleDocument, holds(numbers(attr["idCard"], attr["mobilePhone"], about.Phone.String())...))
	return broken
}

type characters struct {
	lower, upper, digit, special, unprintable bool
	length, run                               int // run: longest of one character
}

func classes(s string) characters {
	var c characters
	var last rune
	run := 0
	for _, r := range s {
		c.length++
		c.lower = c.lower || unicode.IsLower(r)
		c.upper = c.upper || unicode.IsUpper(r)
		c.digit = c.digit || unicode.IsDigit(r)
		c.special = c.special || unicode.IsPunct(r) || unicode.IsSymbol(r)
		c.unprintable = c.unprintable || !unicode.IsPrint(r) || r == unicode.ReplacementChar
		if run++; r != last || c.length == 1 {
			run = 1
		}
		last, c.run = r, max(c.run, run)
	}
	return c
}

// squeeze leaves lower-case letters without accents, and digits: a name with a
// dot or a capital inside is still the name.
func squeeze(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, norm.NFKD.String(s))
}

// shortestWord keeps particles and initials ("Li", "De") from forbidding too much.
const shortestWord = 3

func longEnough(words []string) []string {
	var out []string
	for _, w := range words {
		if w = squeeze(w); len([]rune(w)) >= shortestWord {
			out = append(out, w)
		}
	}
	return out
}

func usernameParts(u string) []string {
	local, _, _ := strings.Cut(u, "@")
	return longEnough([]string{u, local})
}

func nameParts(names ...string) []string {
	var words []string
	for _, n := range names {
		words = append(words, n)
		words = append(words, strings.FieldsFunc(n, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsMark(r) })...)
	}
	return longEnough(words)
}

// afterDash returns the code behind a prefix such as "TINIT-".
func afterDash(s string) string {
	if _, code, ok := strings.Cut(s, "-"); ok {
		return squeeze(code)
	}
	return squeeze(s)
}

// numbers returns the words of the texts that hold at least five digits.
func numbers(texts ...string) []string {
	var out []string
	for _, t := range texts {
		for _, w := range strings.Fields(t) {
			if strings.Count(strings.Map(digitMark, w), "0") >= 5 {
				out = append(out, squeeze(strings.TrimPrefix(w, "+39")))
			}
		}
	}
	return out
}

func digitMark(r rune) rune {
	if unicode.IsDigit(r) {
		return '0'
	}
	return -1
}

var (
	// fiscalForm finds anybody's fiscal code in a squeezed password.
	fiscalForm = regexp.MustCompile(`[a-z]{6}[0-9lmnpqrstuv]{2}[a-z][0-9lmnpqrstuv]{2}[a-z][0-9lmnpqrstuv]{3}[a-z]`)
	// dateForm finds any date: day and month with separators, or eight digits
	// of this century or the last.
	dateForm = regexp.MustCompile(`(?:^|[^0-9])(?:` +
		`(?:0?[1-9]|[12][0-9]|3[01])[-/. ](?:0?[1-9]|1[0-2])[-/. ](?:(?:19|20)[0-9]{2}|[0-9]{2})` +
		`|(?:19|20)[0-9]{2}[-/. ](?:0?[1-9]|1[0-2])[-/. ](?:0?[1-9]|[12][0-9]|3[01])` +
		`|(?:0[1-9]|[12][0-9]|3[01])(?:0[1-9]|1[0-2])(?:19|20)[0-9]{2}` +
		`|(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])` +
		`)(?:$|[^0-9])`)
)

// dateForms returns the ways people write a birth date, without separators.
func dateForms(xsDate string) []string {
	d, err := time.Parse(time.DateOnly, xsDate)
	if err != nil {
		return nil
	}
	var out []string
	for _, layout := range []string{"02012006", "20060102", "01022006", "020106", "060102", "010206", "212006", "122006"} {
		if s := d.Format(layout); len(s) >= 6 {
			out = append(out, s)
		}
	}
	return out
}
