package report

import (
	"crypto/rand"
	"testing"
	"time"

	"custode/internal/id"
	"custode/modem/pdu"
)

const phone1, phone2 = "+393401234567", "+393407654321"

func TestMatching(t *testing.T) {
	var ring Ring
	now := time.Now()
	m, err := id.NewMessageID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	to, err := id.ParsePhone(phone1)
	if err != nil {
		t.Fatal(err)
	}
	ring.Put(7, m, to, time.Hour, now)
	for name, c := range map[string]struct {
		ref    byte
		number string
		when   time.Time
		want   bool
	}{
		"exact": {7, phone1, now, true}, "national": {7, "3401234567", now, true}, "other number": {7, phone2, now, false},
		"other reference": {8, phone1, now, false}, "too late": {7, phone1, now.Add(26 * time.Hour), false}, "no number": {7, "", now, false},
	} {
		if got := ring.Find(pdu.Report{Ref: c.ref, To: pdu.Address{Digits: c.number}}, c.when, false); (got == m) != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	ring.early = []pdu.Report{{Ref: 9, To: pdu.Address{Digits: phone1}}}
	ring.Put(9, m, to, time.Hour, now)
	if _, ok := ring.TakeEarly(9); !ok || len(ring.early) != 0 {
		t.Error("an early report was not matched")
	}
}
