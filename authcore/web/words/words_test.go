package words

import (
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// TestSentences: no empty place, no stray blank, the same verbs in each
// language, as many plural forms as the language has, and no key twice.
func TestSentences(t *testing.T) {
	verbs := regexp.MustCompile(`%[a-z%]`)
	seen := map[string]bool{}
	for _, table := range tables() {
		for key, s := range table {
			if seen[key] {
				t.Errorf("%q is in two tables", key)
			}
			seen[key] = true
			counted := strings.Contains(s.it, "|")
			for _, l := range Languages() {
				text := s.in(l.Tag)
				if text == "" || strings.TrimSpace(text) != text || strings.Contains(text, "  ") || strings.ContainsFunc(text, unicode.IsControl) {
					t.Errorf("%q in %s: %q", key, l.Tag, text)
				}
				forms := strings.Split(text, "|")
				if want := map[bool]int{true: map[bool]int{true: 4, false: 2}[l.Tag == Slovene], false: 1}[counted]; len(forms) != want {
					t.Errorf("%q in %s has %d forms, want %d", key, l.Tag, len(forms), want)
				}
				for _, f := range forms {
					if diff := cmp.Diff(verbs.FindAllString(strings.Split(s.it, "|")[0], -1), verbs.FindAllString(f, -1)); diff != "" {
						t.Errorf("%q in %s has other verbs: %s", key, l.Tag, diff)
					}
				}
			}
			if strings.Contains(key, " ") && s.it != key {
				t.Errorf("the Italian of %q is %q", key, s.it)
			}
			// Translated, not copied: a sentence of several words differs.
			for _, l := range Languages()[1:] {
				if strings.Count(s.it, " ") > 1 && s.in(l.Tag) == s.it && !strings.HasPrefix(key, "date") {
					t.Errorf("%q in %s is the Italian", key, l.Tag)
				}
			}
		}
	}
	if len(seen) != len(Keys()) || len(seen) < 150 {
		t.Errorf("%d sentences, %d keys", len(seen), len(Keys()))
	}
	if got, err := In("xx").Text("cancel"); err != nil || got != "Annulla" || In("xx").Lang() != Italian || (Book{}).Lang() != Italian {
		t.Errorf("unknown language: %q, %v", got, err)
	}
	if got, err := In(German).Text("none.such"); err == nil {
		t.Errorf("unknown key: %q", got)
	}
	if got, err := In(German).Count("none.such", 1); err == nil {
		t.Errorf("unknown key: %q", got)
	}
}

func TestCount(t *testing.T) {
	for _, c := range []struct {
		lang string
		n    int
		want string
	}{
		{Italian, 1, "Ti resta ancora 1 tentativo."}, {Italian, 2, "Ti restano ancora 2 tentativi."},
		{English, 1, "You have 1 attempt left."}, {German, 2, "Sie haben noch 2 Versuche."},
		{Slovene, 1, "Na voljo imate še 1 poskus."}, {Slovene, 2, "Na voljo imate še 2 poskusa."}, {Slovene, 3, "Na voljo imate še 3 poskuse."},
		{Slovene, 4, "Na voljo imate še 4 poskuse."}, {Slovene, 5, "Na voljo imate še 5 poskusov."}, {Slovene, 102, "Na voljo imate še 102 poskusa."},
		{Slovene, 11, "Na voljo imate še 11 poskusov."}, {Slovene, 0, "Na voljo imate še 0 poskusov."},
	} {
		if got, err := In(c.lang).Count("notice.left", c.n); err != nil || got != c.want {
			t.Errorf("%s %d: %q, %v", c.lang, c.n, got, err)
		}
	}
}

func TestDate(t *testing.T) {
	for _, c := range []struct{ lang, first, later string }{
		{Italian, "1º gennaio 1980", "28 febbraio 2026"}, {English, "1 January 1980", "28 February 2026"},
		{German, "1. Jänner 1980", "28. Februar 2026"}, {Slovene, "1. januarja 1980", "28. februarja 2026"},
	} {
		first := In(c.lang).Date(time.Date(1980, 1, 1, 12, 0, 0, 0, time.UTC))
		later := In(c.lang).Date(time.Date(2026, 2, 28, 0, 0, 0, 0, time.UTC))
		if first != c.first || later != c.later {
			t.Errorf("%s: %q, %q", c.lang, first, later)
		}
	}
}

func TestValues(t *testing.T) {
	for _, c := range []struct{ attribute, value, it, sl string }{
		{"gender", "F", "femminile", "ženski"}, {"gender", "X", "X", "X"}, {"gender", "", "", ""},
		{"dateOfBirth", "1985-12-10", "10 dicembre 1985", "10. decembra 1985"}, {"dateOfBirth", "1985-13-10", "1985-13-10", "1985-13-10"},
		{"fiscalNumber", "TINIT-LVTDAA85T50H501D", "LVTDAA85T50H501D", "LVTDAA85T50H501D"}, {"ivaCode", "VATIT-12345678903", "12345678903", "12345678903"},
		{"companyFiscalNumber", "TINIT-12345678903", "12345678903", "12345678903"},
		{"countyOfBirth", "TS", "Trieste (TS)", "Trst (TS)"}, {"countyOfBirth", "EE", "estero (EE)", "tujina (EE)"}, {"countyOfBirth", "QQ", "QQ", "QQ"},
		{"domicileProvince", "RM", "Roma (RM)", "Roma (RM)"}, {"placeOfBirth", "H501", "H501", "H501"}, {"placeOfBirth", "Z112", "Z112 (estero)", "Z112 (tujina)"},
		{"idCard", "cartaIdentita CA00000AA comuneRoma 2020-01-15 2030-12-01", "Carta d'identità n. CA00000AA, ente comuneRoma, rilascio 15 gennaio 2020, scadenza 1º dicembre 2030",
			"Osebna izkaznica št. CA00000AA, organ comuneRoma, izdano 15. januarja 2020, velja do 1. decembra 2030"},
		{"idCard", "words a b c d", "words a b c d", "words a b c d"}, {"idCard", "passaporto X", "passaporto X", "passaporto X"},
		{"email", "a@example.it", "a@example.it", "a@example.it"}, {"name", "A\u202eB\u0000", "A\ufffdB\ufffd", "A\ufffdB\ufffd"}, {"other", "gender.F", "gender.F", "gender.F"},
	} {
		if it, sl := In(Italian).Value(c.attribute, c.value), In(Slovene).Value(c.attribute, c.value); it != c.it || sl != c.sl {
			t.Errorf("%s %q: %q, %q", c.attribute, c.value, it, sl)
		}
	}
	if got := In(German).Value("countyOfBirth", "BZ"); got != "Bozen (BZ)" {
		t.Errorf("%q", got)
	}
	if got := In(German).Label("fiscalNumber") + In(German).Label("odd"); got != "Steuernummerodd" {
		t.Errorf("%q", got)
	}
}

func TestName(t *testing.T) {
	for in, want := range map[string]string{
		" Comune\t di\n Prova ": "Comune di Prova", "\u202eabc\u202c": "abc", "a\u200b\u2060\ufeffb": "ab", "\u3164\u2800": "", "": "",
		"e\u0301": "é", "x\u0301\u0302\u0303\u0304y": "x\u0301\u0302y", "\u0301": "", "a\xffb": "ab", "Zürich 🏛": "Zürich 🏛",
		strings.Repeat("a", 121): strings.Repeat("a", 119) + "…", strings.Repeat("è", 120): strings.Repeat("è", 120),
	} {
		if got := Name(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := Isolated("Comune") + Isolated("بلدية"); got != "Comune\u2068بلدية\u2069" {
		t.Errorf("%q", got)
	}
}

// FuzzName: what is left is short, valid, on one line, and cleaning it again
// changes nothing.
func FuzzName(f *testing.F) {
	for _, s := range []string{"Comune di Prova", "\u202eabc", strings.Repeat("x\u0301", 300), "a \x00\xff b", "  "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Name(s)
		if !utf8.ValidString(got) || utf8.RuneCountInString(got) > mostName || strings.ContainsFunc(got, deceptive) || strings.TrimSpace(got) != got {
			t.Errorf("%q: %q", s, got)
		}
		if again := Name(got); again != got {
			t.Errorf("%q: %q, then %q", s, got, again)
		}
	})
}
