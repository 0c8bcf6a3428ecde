package id

import (
	"net/url"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Phone is an international telephone number in E.164 form: "+" and 8 to 15
// digits, the first not 0.
type Phone struct{ text }

var (
	phoneE164      = regexp.MustCompile(`^\+[1-9][0-9]{7,14}$`)
	phoneItMobile  = regexp.MustCompile(`^3[0-9]{8,9}$`)
	phoneItWith39  = regexp.MustCompile(`^393[0-9]{8,9}$`)
	spidCodeForm   = regexp.MustCompile(`^[A-Z]{4}[A-Za-z0-9]{10}$`)
	keyLabelForm   = regexp.MustCompile(`^[a-z0-9][a-z0-9._/-]{0,62}[a-z0-9]$`)
	usernameForm   = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9._@+-]{0,126}[a-z0-9])?$`)
	fiscalCodeForm = regexp.MustCompile(`^[A-Z]{6}[0-9LMNPQRSTUV]{2}[A-Z][0-9LMNPQRSTUV]{2}[A-Z][0-9LMNPQRSTUV]{3}[A-Z]$`)
)

// ParsePhone normalises s to E.164. It accepts "+" or "00" international
// forms, "tel:", the separators blank . - / ( ), digits as other scripts and Asian
// keyboards write them, and the Italian mobile forms
// without a prefix (3xx, 9 or 10 digits; 393xx, 11 or 12 digits). Anything else
// without "+" or "00" is refused rather than guessed, with fault.Invalid.
func ParsePhone(s string) (Phone, error) {
	if len(s) > 64 {
		return Phone{}, refuse("telephone number")
	}
	s = strings.TrimPrefix(strings.TrimSpace(s), "tel:")
	s = strings.Map(phoneRune, s)
	switch {
	case strings.HasPrefix(s, "00"):
		s = "+" + s[2:]
	case len(s) <= 10 && phoneItMobile.MatchString(s):
		s = "+39" + s
	case len(s) >= 11 && phoneItWith39.MatchString(s):
		s = "+" + s
	}
	if !phoneE164.MatchString(s) {
		return Phone{}, refuse("telephone number")
	}
	return Phone{text{s}}, nil
}

// phoneRune drops separators and maps the digits people type to ASCII.
func phoneRune(r rune) rune {
	switch {
	case strings.ContainsRune(" .-/()\u00a0\u202f\u2010\u2011\u2012\u2013", r):
		return -1
	case r >= '\uff10' && r <= '\uff19': // full width
		return '0' + r - '\uff10'
	case r >= '\u0660' && r <= '\u0669': // Arabic-Indic
		return '0' + r - '\u0660'
	case r >= '\u06f0' && r <= '\u06f9': // the Persian form
		return '0' + r - '\u06f0'
	case r == '\uff0b':
		return '+'
	}
	return r
}

// Masked shows only the last three digits, for pages: "••• ••• 567".
func (p Phone) Masked() string {
	if p.IsZero() {
		return ""
	}
	return "••• ••• " + p.s[len(p.s)-3:]
}

// UnmarshalText parses b as ParsePhone does; empty text gives the zero value.
func (p *Phone) UnmarshalText(b []byte) error { return unmarshal(p, b, ParsePhone) }

// Username is what a subject types to name themselves: 1 to 128 of
// a-z 0-9 . _ @ + -, beginning and ending with a letter or digit. Letter case
// does not distinguish usernames.
type Username struct{ text }

// ParseUsername trims blanks, folds to lower case and checks the form; else
// fault.Invalid.
func ParseUsername(s string) (Username, error) {
	if len(s) > 256 {
		return Username{}, refuse("username")
	}
	s = strings.ToLower(strings.TrimSpace(s))
	if !usernameForm.MatchString(s) {
		return Username{}, refuse("username")
	}
	return Username{text{s}}, nil
}

// UnmarshalText parses b as ParseUsername does; empty text gives the zero value.
func (u *Username) UnmarshalText(b []byte) error { return unmarshal(u, b, ParseUsername) }

// SPIDCode is the public identifier of a digital identity: four upper-case
// letters of the identity provider and ten letters or digits (technical rules,
// attribute table).
type SPIDCode struct{ text }

// ParseSPIDCode checks the form; else fault.Invalid.
func ParseSPIDCode(s string) (SPIDCode, error) {
	if !spidCodeForm.MatchString(s) {
		return SPIDCode{}, refuse("SPID code")
	}
	return SPIDCode{text{s}}, nil
}

// UnmarshalText parses b as ParseSPIDCode does; empty text gives the zero value.
func (c *SPIDCode) UnmarshalText(b []byte) error { return unmarshal(c, b, ParseSPIDCode) }

// FiscalNumber is an Italian fiscal code (codice fiscale) of a natural person,
// without the "TINIT-" prefix that the SAML attribute carries.
type FiscalNumber struct{ text }

// ParseFiscalNumber accepts the code with or without "TINIT-", in any letter
// case, and checks its form and check letter (D.M. 23 December 1976); else
// fault.Invalid.
func ParseFiscalNumber(s string) (FiscalNumber, error) {
	s = strings.TrimPrefix(strings.ToUpper(strings.TrimSpace(s)), "TINIT-")
	if !fiscalCodeForm.MatchString(s) || checkLetter(s[:15]) != s[15] {
		return FiscalNumber{}, refuse("fiscal code")
	}
	return FiscalNumber{text{s}}, nil
}

// oddWeight maps 0-9/A-Z in odd positions (counted from 1) to their weight.
var oddWeight = [26]int{1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23}

func checkLetter(first15 string) byte {
	sum := 0
	for i := range len(first15) {
		c := first15[i]
		v := int(c - 'A')
		if c <= '9' {
			v = int(c - '0')
		}
		if i%2 == 0 {
			sum += oddWeight[v]
		} else {
			sum += v
		}
	}
	return byte('A' + sum%26)
}

// EntityID is a SAML entity identifier: an absolute URI of at most 1024 octets
// (SAML Core 8.3.6), compared octet by octet.
type EntityID struct{ text }

// ParseEntityID checks that s is an absolute URI without blanks or control
// characters; else fault.Invalid. It does not trim: the caller does where the
// technical rules allow it.
func ParseEntityID(s string) (EntityID, error) {
	if s == "" || len(s) > 1024 || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return EntityID{}, refuse("entityID")
	}
	u, err := url.Parse(s)
	if err != nil || !u.IsAbs() {
		return EntityID{}, refuse("entityID")
	}
	return EntityID{text{s}}, nil
}

// UnmarshalText parses b as ParseEntityID does; empty text gives the zero value.
func (e *EntityID) UnmarshalText(b []byte) error { return unmarshal(e, b, ParseEntityID) }

// KeyLabel is the CKA_LABEL of a key in the token: 2 to 64 of a-z 0-9 . _ / -,
// for example "custode/sign/2026-1".
type KeyLabel struct{ text }

// ParseKeyLabel checks the form; else fault.Invalid.
func ParseKeyLabel(s string) (KeyLabel, error) {
	if !keyLabelForm.MatchString(s) {
		return KeyLabel{}, refuse("key label")
	}
	return KeyLabel{text{s}}, nil
}

// UnmarshalText parses b as ParseKeyLabel does; empty text gives the zero value.
func (l *KeyLabel) UnmarshalText(b []byte) error { return unmarshal(l, b, ParseKeyLabel) }
