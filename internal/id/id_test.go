package id

import (
	"bytes"
	"strings"
	"testing"

	"custode/internal/fault"
)

func TestParsePhone(t *testing.T) {
	for in, want := range map[string]string{
		"+39 340 123.45-67": "+393401234567", "00393401234567": "+393401234567",
		"3401234567": "+393401234567", "393401234567": "+393401234567",
		"3931234567": "+393931234567", "39391234567": "+39391234567",
		"tel:+442071234567": "+442071234567",
		"0612345678":        "", "447911123456": "", "+0123456789": "", "+39340abc4567": "",
		"": "", "3401234567\r": "+393401234567", "340123\r\n4567": "", "+1234567": "", "+1234567890123456": "",
	} {
		got, err := ParsePhone(in)
		if got.String() != want || (err == nil) != (want != "") {
			t.Errorf("ParsePhone(%q) = %q, %v; want %q", in, got, err, want)
		}
		if err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("ParsePhone(%q): kind %v, want invalid", in, fault.KindOf(err))
		}
	}
}

func TestParseFiscalNumber(t *testing.T) {
	for in, ok := range map[string]bool{
		"RSSMRA80A01H501U": true, "TINIT-rssmra80a01h501u": true,
		"RSSMRA80A01H501V": false, "RSSMRA80A01H501": false, "": false,
		"RSSMRA80A01H50MR": false, "AAAAAA00A00A000A": false,
	} {
		if _, err := ParseFiscalNumber(in); (err == nil) != ok {
			t.Errorf("ParseFiscalNumber(%q): %v, want ok=%v", in, err, ok)
		}
	}
}

func TestParseNames(t *testing.T) {
	check := func(what string, err error, ok bool) {
		t.Helper()
		if (err == nil) != ok {
			t.Errorf("%s: %v, want ok=%v", what, err, ok)
		}
	}
	for s, ok := range map[string]bool{"https://sp.example.it": true, "urn:x:y": true, "sp": false, "https://a b": false, "": false, "https://" + strings.Repeat("a", 1100): false} {
		_, err := ParseEntityID(s)
		check("entityID "+s[:min(len(s), 30)], err, ok)
	}
	for s, ok := range map[string]bool{"Mario.Rossi@Example.it ": true, "a": true, ".a": false, "a b": false, "a'--": false} {
		_, err := ParseUsername(s)
		check("username "+s, err, ok)
	}
	for s, ok := range map[string]bool{"ABCD123456789A": true, "ABC0123456789A": false, "ABCD123456789": false} {
		_, err := ParseSPIDCode(s)
		check("spidCode "+s, err, ok)
	}
	for s, ok := range map[string]bool{"custode/sign/2026-1": true, "A": false, "x/": false, "x;y": false} {
		_, err := ParseKeyLabel(s)
		check("label "+s, err, ok)
	}
}

func TestRandomIdentifiers(t *testing.T) {
	src := bytes.NewReader(bytes.Repeat([]byte{7}, 16))
	f, err := NewFlowID(src)
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseFlowID(f.String())
	if err != nil || back != f {
		t.Fatalf("round trip: %v %v", back, err)
	}
	if _, err := ParseChallengeID(f.String()); err == nil {
		t.Error("a flow identifier passed for a challenge identifier")
	}
	if _, err := NewFlowID(src); !fault.Is(err, fault.Unavailable) {
		t.Errorf("exhausted source: %v", err)
	}
	var z FlowID
	if err := z.UnmarshalText(nil); err != nil || !z.IsZero() {
		t.Errorf("empty text: %v %v", z, err)
	}
}
