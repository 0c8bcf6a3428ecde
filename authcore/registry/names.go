package registry

import (
	"strconv"
	"strings"
	"unicode"

	"custode/authcore/saml"
)

// maxShown bounds a name or text from a document on its way to operators, octets.
const maxShown = 300

// printable returns s with everything that could steer a terminal or hide
// itself (control characters, invisible and direction marks) escaped as Go does.
func printable(s string) string {
	if len(s) > maxShown {
		s = strings.ToValidUTF8(s[:maxShown], "") + "..."
	}
	q := strconv.Quote(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

// printableNames returns texts by language for operators: the language tag, too,
// is the provider's own.
func printableNames(names map[string]string) map[string]string {
	shown := make(map[string]string, len(names))
	for lang, text := range names {
		shown[printable(lang)] = printable(text)
	}
	return shown
}

// harmless puts a blank in the place of every character in the provider's names that
// is not to be seen. Pages escape markup; this is for text messages, logs and
// marks that turn the writing direction.
func harmless(sp *saml.SP) {
	clean(sp.DisplayName)
	for i := range sp.Services {
		clean(sp.Services[i].Name)
	}
}

func clean(names map[string]string) {
	for lang, text := range names {
		if strings.IndexFunc(text, unseen) < 0 {
			continue
		}
		names[lang] = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || unseen(r) }), " ")
	}
}

func unseen(r rune) bool { return r != ' ' && !unicode.IsGraphic(r) || r == '\u2028' || r == '\u2029' }
