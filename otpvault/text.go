package otpvault

import (
	"strconv"
	"strings"
	"unicode"

	"custode/internal/fault"
)

const (
	// maxSeptets is what one SMS holds in the GSM default alphabet
	// (3GPP TS 23.040, 9.2.3.24: 140 octets of 7-bit characters).
	maxSeptets = 160
	// minService is the room a template must leave for the service's name.
	minService = 24
	// noName stands for a name of which nothing can be shown.
	noName = "servizio online"
)

// gsmBasic is the default alphabet of 3GPP TS 23.038, 6.2.1, without its control
// characters: one septet each. The characters of the extension table are not
// used: they cost two septets and old telephones show them wrongly.
const gsmBasic = "@£$¥èéùìòÇØøÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?" +
	"¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"

// plain gives what stands for a letter or sign that gsmBasic lacks.
var plain = strings.NewReplacer(
	"À", "A", "Á", "A", "Â", "A", "Ã", "A", "Ā", "A", "Ă", "A", "Ą", "A", "á", "a", "â", "a", "ã", "a", "ā", "a", "ă", "a", "ą", "a",
	"Ć", "C", "Č", "C", "Ĉ", "C", "ç", "c", "ć", "c", "č", "c", "ĉ", "c",
	"Ď", "D", "Đ", "D", "Ð", "D", "ď", "d", "đ", "d", "ð", "d",
	"È", "E", "Ê", "E", "Ë", "E", "Ē", "E", "Ė", "E", "Ę", "E", "Ě", "E", "ê", "e", "ë", "e", "ē", "e", "ė", "e", "ę", "e", "ě", "e",
	"Ğ", "G", "Ģ", "G", "ğ", "g", "ģ", "g",
	"Ì", "I", "Í", "I", "Î", "I", "Ï", "I", "Ī", "I", "Į", "I", "İ", "I", "í", "i", "î", "i", "ï", "i", "ī", "i", "į", "i", "ı", "i",
	"Ķ", "K", "ķ", "k", "Ĺ", "L", "Ļ", "L", "Ľ", "L", "Ł", "L", "ĺ", "l", "ļ", "l", "ľ", "l", "ł", "l",
	"Ń", "N", "Ņ", "N", "Ň", "N", "ń", "n", "ņ", "n", "ň", "n",
	"Ò", "O", "Ó", "O", "Ô", "O", "Õ", "O", "Ō", "O", "Ő", "O", "ó", "o", "ô", "o", "õ", "o", "ō", "o", "ő", "o",
	"Œ", "OE", "œ", "oe", "Þ", "Th", "þ", "th", "ẞ", "SS",
	"Ŕ", "R", "Ř", "R", "ŕ", "r", "ř", "r",
	"Ś", "S", "Ş", "S", "Š", "S", "Ș", "S", "ś", "s", "ş", "s", "š", "s", "ș", "s",
	"Ţ", "T", "Ť", "T", "Ț", "T", "ţ", "t", "ť", "t", "ț", "t",
	"Ù", "U", "Ú", "U", "Û", "U", "Ū", "U", "Ů", "U", "Ű", "U", "Ų", "U", "ú", "u", "û", "u", "ū", "u", "ů", "u", "ű", "u", "ų", "u",
	"Ý", "Y", "Ÿ", "Y", "ý", "y", "ÿ", "y", "Ź", "Z", "Ż", "Z", "Ž", "Z", "ź", "z", "ż", "z", "ž", "z",
	"‘", "'", "’", "'", "‚", "'", "′", "'", "`", "'", "´", "'", "“", "\"", "”", "\"", "„", "\"", "«", "\"", "»", "\"", "‹", "'", "›", "'",
	"‐", "-", "‑", "-", "‒", "-", "–", "-", "—", "-", "―", "-", "−", "-", "•", "-", "·", "-", "…", "...", "€", "EUR", "№", "n.", "ª", "a", "º", "o", "°", "o",
	"[", "(", "]", ")", "{", "(", "}", ")", "\\", "/", "|", "/", "~", "-", "^", "'", "™", "", "®", "", "©", "",
	// Not for the alphabet's sake: these two begin what telephones take for the
	// machine-readable line of a code ("@host #code").
	"@", "(at)", "#", "n.",
)

// serviceName turns a name from an SP's metadata into at most room characters
// of gsmBasic, one line, words one blank apart. What cannot be shown is left
// out; noName stands for a name without a single letter or digit.
func serviceName(name string, room int) []rune {
	// A hostile name must not cost more than an honest one.
	const most = 1024
	if len(name) > most {
		name = strings.ToValidUTF8(name[:most], "")
	}
	var out []rune
	word, blank := false, false
	for _, r := range plain.Replace(name) {
		switch {
		case unicode.IsSpace(r):
			blank = len(out) > 0
			continue
		case !strings.ContainsRune(gsmBasic, r):
			continue
		}
		if blank {
			out = append(out, ' ')
			blank = false
		}
		out = append(out, r)
		word = word || unicode.IsLetter(r) || unicode.IsDigit(r)
	}
	if !word {
		return []rune(noName)
	}
	if len(out) > room {
		out = []rune(strings.TrimRight(string(out[:room-2]), " .,;:-(/") + "..")
	}
	return out
}

// template is a parsed message text.
type template struct {
	parts   []string // text, placeholder, text, placeholder, ..., text
	minutes string
	room    int // characters left for the service's name; 0 without {service}
}

// parseTemplate checks that s is in the GSM default alphabet, has {code} once
// and the others at most once, and fits one SMS in the worst case.
func parseTemplate(s string, minutes int) (template, error) {
	const op = "parse message template"
	t := template{minutes: strconv.Itoa(minutes)}
	count := map[string]int{}
	septets := 0
	for {
		before, rest, found := strings.Cut(s, "{")
		for _, r := range before {
			if !strings.ContainsRune(gsmBasic, r) {
				return template{}, fault.Newf(fault.Invalid, op, "%q is not in the GSM default alphabet", r)
			}
			septets++
		}
		t.parts = append(t.parts, before)
		if !found {
			break
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed || name != "code" && name != "service" && name != "minutes" {
			return template{}, fault.Newf(fault.Invalid, op, "unknown placeholder: want {code}, {service}, {minutes}")
		}
		count[name]++
		t.parts = append(t.parts, name)
		s = after
	}
	if count["code"] != 1 || count["service"] > 1 || count["minutes"] > 1 {
		return template{}, fault.Newf(fault.Invalid, op, "want {code} once, {service} and {minutes} at most once")
	}
	septets += codeDigits + count["minutes"]*len(t.minutes)
	if count["service"] == 1 {
		t.room = maxSeptets - septets
		if t.room < minService {
			return template{}, fault.Newf(fault.Invalid, op, "%d characters remain for the service's name, fewer than %d", t.room, minService)
		}
	} else if septets > maxSeptets {
		return template{}, fault.Newf(fault.Invalid, op, "%d characters do not fit one SMS of %d", septets, maxSeptets)
	}
	return t, nil
}

// render returns the text in a buffer of its own that the caller clears.
func (t template) render(code *[codeDigits]byte, service string) []byte {
	// Two octets at most for a character of gsmBasic, and never grown: no copy
	// of the code stays behind.
	out := make([]byte, 0, 2*maxSeptets)
	for i, part := range t.parts {
		switch {
		case i%2 == 0:
			out = append(out, part...)
		case part == "code":
			out = append(out, code[:]...)
		case part == "minutes":
			out = append(out, t.minutes...)
		case part == "service":
			out = append(out, string(serviceName(service, t.room))...)
		}
	}
	return out
}
