package web

import (
	"maps"
	"slices"
	"strings"

	"custode/authcore/web/words"
)

// spNames is what a page may call the service provider.
type spNames struct {
	byLang    map[string]string // OrganizationDisplayName by xml:lang, as in its metadata
	otherwise string            // when no name has anything visible in it: the entityID
}

// name is the name to show in a page of the language, cleaned of what could
// deceive (words.Name), and the language it is in: the page's, else Italian,
// English, or the first there is. The language is "" for the entityID and for a
// name whose language the metadata does not tell.
func (s spNames) name(lang string) (name, in string) {
	tags := slices.Sorted(maps.Keys(s.byLang))
	for _, want := range []string{lang, words.Italian, words.English, ""} {
		for _, tag := range tags {
			primary, _, _ := strings.Cut(strings.ToLower(tag), "-")
			if want != "" && primary != want {
				continue
			}
			if n := words.Name(s.byLang[tag]); n != "" {
				return n, langTag(tag)
			}
		}
	}
	return words.Name(s.otherwise), ""
}

// langTag returns a tag that may stand in a lang attribute, else "".
func langTag(tag string) string {
	if len(tag) > 35 || strings.Trim(strings.ToLower(tag), "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return ""
	}
	return tag
}
