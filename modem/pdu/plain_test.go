package pdu_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"custode/modem/pdu"
)

func TestTransliterate(t *testing.T) {
	for in, want := range map[string]string{
		"L’è “così” – €5…": "L'è \"così\" - €5...",
		"È già ÀÈÌÒÙ":      "E' già A'E'I'O'U'",
		"a\u00a0b\u200bc":  "a bc",
		"façade":           "facade",
		"Ж resta “Ж”":      "Ж resta “Ж”", // no gain: left as it was
		"":                 "",
		"\u200b":           "\u200b",
	} {
		if got := string(pdu.Transliterate([]byte(in))); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestFits(t *testing.T) {
	for in, want := range map[string]pdu.Fit{
		"ciao":                               {Parts: 1, Units: 4, Room: 156},
		strings.Repeat("x", 160):             {Parts: 1, Units: 160},
		strings.Repeat("x", 161):             {Parts: 2, Units: 161, Room: 145},
		strings.Repeat("€", 80):              {Parts: 1, Units: 160},
		"“" + strings.Repeat("x", 158) + "”": {Parts: 1, Units: 160},
		strings.Repeat("ж", 70):              {Parts: 1, Wide: true, Units: 70, Cause: 'ж'},
		strings.Repeat("x", 70) + "😀":        {Parts: 2, Wide: true, Units: 72, Room: 62, Cause: '😀'},
	} {
		got, err := pdu.Fits([]byte(in))
		if err != nil || got != want {
			t.Errorf("%.10q: %+v, %v; want %+v", in, got, err, want)
		}
	}
	if _, err := pdu.Fits([]byte("\xff")); err == nil {
		t.Error("not UTF-8, accepted")
	}
}

// TestLongReference: sixteen bits of reference, 152 septets or 66 units each.
func TestLongReference(t *testing.T) {
	for text, parts := range map[string]int{strings.Repeat("x", 304): 2, strings.Repeat("x", 305): 3, strings.Repeat("ж", 132): 2, strings.Repeat("ж", 133): 3} {
		s := pdu.Submit{To: phone(t, "+393401234567"), Text: []byte(text), MaxParts: 9, Ref: 0xABCD, LongRef: true}
		frames, err := s.Encode()
		if err != nil || len(frames) != parts {
			t.Fatalf("%d frames, %v; want %d", len(frames), err, parts)
		}
		if got := join(t, frames); got != text {
			t.Errorf("read back %d of %d characters", utf8.RuneCountInString(got), utf8.RuneCountInString(text))
		}
		first, err := pdu.DecodeSubmit(string(frames[0].Hex))
		if err != nil || first.Concat.Ref != 0xABCD {
			t.Errorf("%+v, %v", first.Concat, err)
		}
	}
}

// FuzzTransliterate: what comes out is never longer to send than what went in.
func FuzzTransliterate(f *testing.F) {
	f.Add("L’è “così” – €5…")
	f.Add("Ж\u00a0")
	f.Fuzz(func(t *testing.T, s string) {
		out := pdu.Transliterate([]byte(s))
		if utf8.ValidString(s) != utf8.Valid(out) {
			t.Fatalf("%q became %q", s, out)
		}
		before, wide, err := pdu.Parts([]byte(s))
		if err != nil || !wide {
			return
		}
		if after, _, err := pdu.Parts(out); err != nil || after > before {
			t.Errorf("%q: %d parts, then %d (%v)", s, before, after, err)
		}
	})
}
