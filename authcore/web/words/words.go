// Package words is what the pages say, and how: every sentence in Italian,
// English, German and Slovene, and the way each language writes dates, counts
// and the values of SPID attributes.
//
// German and Slovene are those of the minorities of South Tyrol and of Friuli
// Venezia Giulia (law 482/1999): "Jänner" and "Steuernummer", "davčna
// številka". The Italian sentences of the anomaly table are keys of their own
// and stand here letter for letter.
//
// A sentence is a row of four; Go refuses a row with three, and the tests a row
// with an empty place or with verbs (fmt) that differ between its languages. A
// counted sentence holds its plural forms, parted by "|", in the order of
// [Book.Count].
//
// It knows no HTML: what it returns is text that a template must escape. It
// holds no state, imports nothing of ours, and is imported by authcore/web.
package words

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The languages, as they stand in the lang attribute (BCP 47).
const (
	Italian = "it" // the default
	English = "en"
	German  = "de"
	Slovene = "sl"
)

// Language is one entry of the language switch.
type Language struct {
	Tag   string // "it"
	Short string // "ITA"
	Name  string // in the language itself
}

// Languages returns all languages in the order of the switch.
func Languages() []Language {
	return []Language{{Italian, "ITA", "Italiano"}, {English, "ENG", "English"}, {German, "DEU", "Deutsch"}, {Slovene, "SLV", "Slovenščina"}}
}

// Known reports whether tag is one of the languages.
func Known(tag string) bool {
	switch tag {
	case Italian, English, German, Slovene:
		return true
	}
	return false
}

// sentence is a row: the same sentence in each language. Rows are written
// without field names, so that none can be left out.
type sentence struct{ it, en, de, sl string }

func (s sentence) in(lang string) string {
	switch lang {
	case English:
		return s.en
	case German:
		return s.de
	case Slovene:
		return s.sl
	}
	return s.it
}

// tables are all rows there are; no key is in two of them.
func tables() []map[string]sentence {
	return []map[string]sentence{loginRows, messageRows, sessionRows, valueRows}
}

// Book is the sentences in one language. The zero Book is Italian.
type Book struct{ lang string }

// In returns the book of a language; Italian for an unknown one.
func In(lang string) Book {
	if !Known(lang) {
		lang = Italian
	}
	return Book{lang}
}

// Lang returns the language's tag.
func (b Book) Lang() string { return In(b.lang).lang }

// Keys returns the keys of all sentences, sorted.
func Keys() []string {
	var keys []string
	for _, t := range tables() {
		keys = slices.AppendSeq(keys, maps.Keys(t))
	}
	slices.Sort(keys)
	return keys
}

// Text returns the sentence of the key; args fill in its verbs. An unknown key
// is an error.
func (b Book) Text(key string, args ...any) (string, error) {
	for _, t := range tables() {
		if s, ok := t[key]; ok {
			if len(args) == 0 {
				return s.in(b.lang), nil
			}
			return fmt.Sprintf(s.in(b.lang), args...), nil
		}
	}
	return "", fmt.Errorf("no sentence %q", key)
}

// Count returns the sentence of the key with the number n in the form that the
// language wants (CLDR plural rules): Italian, English and German have one and
// other, Slovene has one, two, few (3 and 4) and other.
func (b Book) Count(key string, n int) (string, error) {
	text, err := b.Text(key)
	if err != nil {
		return "", err
	}
	forms := strings.Split(text, "|")
	return fmt.Sprintf(forms[min(b.form(n), len(forms)-1)], n), nil
}

// form is the place of n's form within a counted sentence.
func (b Book) form(n int) int {
	if b.lang == Slovene {
		switch n % 100 {
		case 1:
			return 0
		case 2:
			return 1
		case 3, 4:
			return 2
		}
		return 3
	}
	if n == 1 {
		return 0
	}
	return 1
}

// text is Text for keys that are constants of this package.
func (b Book) text(key string, args ...any) string {
	s, err := b.Text(key, args...)
	if err != nil {
		return key
	}
	return s
}
