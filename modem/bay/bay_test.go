package bay

import (
	"crypto/rand"
	"testing"
	"time"

	"custode/internal/id"
	"custode/modem/at"
	"custode/modem/pdu"
)

const phone1, phone2 = "+393401234567", "+393407654321"

func TestStreak(t *testing.T) {
	cms := func(code int) *at.Refusal { return &at.Refusal{Set: at.CMS, Code: code} }
	var s streak
	for i, step := range []struct {
		code   int
		number string
		want   Blame
	}{
		{38, "1", OnRoute}, {38, "1", OnRoute}, {38, "2", OnNetwork}, {1, "3", OnNumber}, {38, "4", OnNetwork},
		{50, "1", OnRoute}, {50, "2", OnCard}, {38, "9", OnRoute},
	} {
		if got := s.refused(cms(step.code), step.number); got != step.want {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
	s.accepted()
	if got := s.refused(cms(38), "5"); got != OnRoute {
		t.Errorf("after a success: %v", got)
	}
	if judge(&at.Refusal{Set: at.CME, Code: 14}) != OnBusy || judge(&at.Refusal{Set: at.Plain, Code: -1}) != OnModem || judge(cms(332)) != inDoubt {
		t.Error("table")
	}
}

func TestReportMatching(t *testing.T) {
	var ring reportRing
	now := time.Now()
	m, err := id.NewMessageID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	to, err := id.ParsePhone(phone1)
	if err != nil {
		t.Fatal(err)
	}
	ring.put(7, m, to, now)
	for name, c := range map[string]struct {
		ref    byte
		number string
		when   time.Time
		want   bool
	}{
		"exact": {7, phone1, now, true}, "national": {7, "3401234567", now, true}, "other number": {7, phone2, now, false},
		"other reference": {8, phone1, now, false}, "too late": {7, phone1, now.Add(26 * time.Hour), false}, "no number": {7, "", now, false},
	} {
		if got := ring.find(pdu.Report{Ref: c.ref, To: pdu.Address{Digits: c.number}}, c.when); (got == m) != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	ring.early = []pdu.Report{{Ref: 9, To: pdu.Address{Digits: phone1}}}
	ring.put(9, m, to, now)
	if _, ok := ring.takeEarly(9); !ok || len(ring.early) != 0 {
		t.Error("an early report was not matched")
	}
}
