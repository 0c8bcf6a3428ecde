package factor

import (
	"crypto/rand"
	"strings"
	"testing"

	"custode/authcore"
	"custode/internal/id"
	"custode/otpvault/device"
	"custode/otpvault/oath"
	"custode/otpvault/proof"
)

// TestNames: what a page shows of a device gives neither its serial number nor the means to try some.
func TestNames(t *testing.T) {
	of := func(serial string) device.Device {
		s, err := id.ParseSerial(serial)
		if err != nil {
			t.Fatal(err)
		}
		subject, err := id.NewSubject(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return device.Device{Serial: s, Subject: subject, Parameters: oath.Parameters{Digits: 8}}
	}
	for serial, want := range map[string]string{"FT-0012345678": "•••5678", "ABCD": "•••CD", "Z": "•••"} {
		d := of(serial)
		w := way(authcore.MethodToken, d)
		if w.Name != want || strings.Contains(w.Key, serial) || len(w.Key) != 16 || w.Digits != 8 {
			t.Errorf("%s: %+v", serial, w)
		}
		if other := of(serial); key(other) == w.Key {
			t.Errorf("%s: the same key for another subject", serial)
		}
	}
	if w := way(authcore.MethodPush, of("APP-1")); w.Digits != 6 {
		t.Errorf("%+v", w)
	}
}

func TestMethods(t *testing.T) {
	for _, c := range []struct {
		held proof.Held
		want int
	}{
		{proof.Held{}, 1}, {proof.Held{Device: device.Device{Virtual: true}}, 1}, {proof.Held{Device: device.Device{Virtual: true}, Push: true}, 2},
	} {
		if got := methods(c.held); len(got) != c.want {
			t.Errorf("%+v: %v", c.held, got)
		}
	}
	if verdicts[oath.Wrong] != authcore.VerdictWrong || verdicts[99] != authcore.VerdictWrong {
		t.Error("an unknown verdict lets somebody in")
	}
}
