package id

import (
	"regexp"
	"strings"
)

// Serial names an OATH device: what is printed on its back, or what we call the
// virtual one in an app. 1 to 64 of A-Z 0-9 . _ : / -, beginning and ending with a letter or
// digit. Letter case does not distinguish devices.
type Serial struct{ text }

var serialForm = regexp.MustCompile(`^[A-Z0-9](?:[A-Z0-9._:/-]{0,62}[A-Z0-9])?$`)

// ParseSerial trims blanks, folds to upper case and checks the form; else
// fault.Invalid.
func ParseSerial(s string) (Serial, error) {
	if len(s) > 128 {
		return Serial{}, refuse("serial number")
	}
	s = strings.ToUpper(strings.TrimSpace(s))
	if !serialForm.MatchString(s) {
		return Serial{}, refuse("serial number")
	}
	return Serial{text{s}}, nil
}

// UnmarshalText parses b as ParseSerial does; empty text gives the zero value.
func (x *Serial) UnmarshalText(b []byte) error { return unmarshal(x, b, ParseSerial) }
