package id

import (
	"strings"
	"testing"

	"custode/internal/fault"
)

// TestSection110 is modem.md section 1.10: what people type.
func TestSection110(t *testing.T) {
	for in, want := range map[string]string{
		"+393401234567": "+393401234567", "00393401234567": "+393401234567", "tel:+393401234567": "+393401234567", "340 123-45.67": "+393401234567",
		"(340)1234567": "+393401234567", "340/1234567": "+393401234567", "\uff0b３９３４０１２３４５６７": "+393401234567", "٣٤٠١٢٣٤٥٦٧": "+393401234567", "۳۴۰۱۲۳۴۵۶۷": "+393401234567",
		"340\u00a01234567": "+393401234567",
		// Bare numbers: never guessed.
		"3931234567": "+393931234567", "393931234567": "+393931234567", "39391234567": "+39391234567", "447911123456": "", "3906123456": "+393906123456",
		"0612345678": "", "40404": "", "12345": "", "+39340ABC4567": "", "+39 340 1234567 ext 2": "", "": "",
	} {
		got, err := ParsePhone(in)
		if got.String() != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestNumbering(t *testing.T) {
	zero := Numbering{}
	wide, err := ParseNumbering([]string{"+39", "41", "+44", "+1", "+378"})
	if err != nil {
		t.Fatal(err)
	}
	for number, c := range map[string]struct{ italy, wide bool }{
		"+393401234567": {true, true}, "+39340123456": {true, true}, // 10 and 9 digits
		"+3933312345678": {false, false}, // voice mailbox
		"+390612345678":  {false, false}, "+39199123456": {false, false}, "+39899123456": {false, false}, "+39800123456": {false, false}, "+394012345678": {false, false},
		"+41791234567": {false, true}, "+41443643535": {false, false}, "+447911123456": {false, true}, "+442071234567": {false, false}, "+447011123456": {false, false},
		"+12125550123": {false, true}, "+37866661212": {false, true}, "+8821234567890": {false, false}, "+8701234567890": {false, false}, "+33612345678": {false, false},
	} {
		p, err := ParsePhone(number)
		if err != nil {
			t.Fatalf("%s: %v", number, err)
		}
		for name, v := range map[string]struct {
			n    Numbering
			want bool
		}{"Italy": {zero, c.italy}, "wide": {wide, c.wide}} {
			err := v.n.Accept(p)
			if (err == nil) != v.want || err != nil && (!fault.Is(err, fault.Denied) || strings.Contains(err.Error(), number[3:])) {
				t.Errorf("%s %s: %v", name, number, err)
			}
		}
	}
	if err := zero.Accept(Phone{}); !fault.Is(err, fault.Denied) {
		t.Errorf("no number: %v", err)
	}
	for _, bad := range []string{"", "IT", "+0", "+3912", "882", "+979", "39;"} {
		if _, err := ParseNumbering([]string{bad}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzParsePhone(f *testing.F) {
	f.Add("+39 340 1234567")
	f.Add("00٣٩")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePhone(s)
		if err != nil {
			return
		}
		again, err := ParsePhone(p.String())
		if err != nil || again != p || !phoneE164.MatchString(p.String()) {
			t.Errorf("%q: %q, then %q (%v)", s, p, again, err)
		}
	})
}
