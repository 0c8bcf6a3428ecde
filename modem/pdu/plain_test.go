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

func TestIsStop(t *testing.T) {
	for text, want := range map[string]bool{"STOP": true, " stop. ": true, "Arresta!": true, "basta": true, "non fermarti stop": false, "": false, "stop per favore": false, strings.Repeat("S", 100): false} {
		if pdu.IsStop(text) != want {
			t.Errorf("%q", text)
		}
	}
}

func TestSilent(t *testing.T) {
	for _, c := range []struct {
		pid, dcs byte
		want     bool
	}{{0, 0, false}, {0x40, 0, true}, {0, 0x10, true}, {0, 0x18, true}, {0, 0x11, false}, {0, 0xf0, true}, {0, 0xf1, false}, {0, 8, false}, {0, 0xc8, false}} {
		if got := (pdu.Body{PID: c.pid, DCS: c.dcs}).Silent(); got != c.want {
			t.Errorf("%#x %#x: %v", c.pid, c.dcs, got)
		}
	}
}

func TestUSSD(t *testing.T) {
	for _, c := range []struct {
		text string
		dcs  int
		want string
	}{{"Credito 5", 15, "Credito 5"}, {"00430069", 72, "Ci"}, {"00430069", 15, "00430069"}, {"0043", 17, "C"}, {"004", 72, "004"}, {"a\x1b[31mb", 15, "a[31mb"}} {
		if got := pdu.USSD(c.text, c.dcs); got != c.want {
			t.Errorf("%q %d: %q", c.text, c.dcs, got)
		}
	}
}
