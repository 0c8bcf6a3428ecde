package words

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

const (
	// mostName is how many characters of a foreign name a page shows.
	mostName = 120
	// mostMarks is how many combining marks may sit on one character: no
	// language of Europe needs more, and heaps of them cover other lines.
	mostMarks = 2
)

// deceptive reports characters that draw nothing or change how others are
// drawn: controls, formats (the bidirectional ones of Unicode TR 9 among
// them), private and unassigned ones.
func deceptive(r rune) bool {
	return !unicode.IsGraphic(r) || unicode.Is(unicode.Cf, r) || r == unicode.ReplacementChar ||
		r == 0x115F || r == 0x1160 || r == 0x3164 || r == 0xFFA0 || r == 0x2800 // blanks that count as letters
}

// Name makes one line out of a name that others chose (of a service provider):
// runs of blanks become one, deceptive characters and heaps of marks go, and
// what is longer than 120 characters ends with "…". It is "" when nothing
// visible is left.
func Name(s string) string {
	if len(s) > 16*mostName { // never in a sound name
		s = strings.ToValidUTF8(s[:16*mostName], "")
	}
	var out []rune
	marks := 0
	for _, r := range norm.NFC.String(s) {
		switch {
		case unicode.IsSpace(r):
			r = ' '
			if len(out) == 0 || out[len(out)-1] == ' ' {
				continue
			}
		case deceptive(r):
			continue
		}
		if unicode.Is(unicode.M, r) {
			if marks++; marks > mostMarks || len(out) == 0 {
				continue
			}
		} else {
			marks = 0
		}
		out = append(out, r)
	}
	if len(out) > mostName {
		out = append(out[:mostName-1], '…')
	}
	return strings.TrimSpace(string(out))
}

// Visible replaces the characters of a value that would not show as what they
// are by U+FFFD; the value keeps its length in characters.
func Visible(s string) string {
	return strings.Map(func(r rune) rune {
		if deceptive(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// Isolated wraps a name for places without markup (the title), where it must
// not turn the text around it, in the isolates of Unicode TR 9, if it has
// letters that run from right to left.
func Isolated(name string) string {
	if strings.ContainsFunc(name, rightToLeft) {
		return "\u2068" + name + "\u2069"
	}
	return name
}

func rightToLeft(r rune) bool {
	return r >= 0x0590 && r <= 0x08FF || r >= 0xFB1D && r <= 0xFDFF || r >= 0xFE70 && r <= 0xFEFF ||
		r >= 0x10800 && r <= 0x10FFF || r >= 0x1E800 && r <= 0x1EFFF
}
