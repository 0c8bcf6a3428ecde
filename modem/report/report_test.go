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

func messageID(t *testing.T) id.MessageID {
	t.Helper()
	m, err := id.NewMessageID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func phone(t *testing.T, number string) id.Phone {
	t.Helper()
	p, err := id.ParsePhone(number)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func about(ref byte, number string) pdu.Report {
	return pdu.Report{Ref: ref, To: pdu.Address{Digits: number}}
}

// TestFinalForgets: a report is credited once.
func TestFinalForgets(t *testing.T) {
	var ring Ring
	now := time.Now()
	m, n := messageID(t), messageID(t)
	ring.Put(7, m, phone(t, phone1), time.Hour, now)
	ring.PutUnnamed(n, phone(t, phone2), time.Hour, now)
	for _, c := range []struct {
		rep   pdu.Report
		final bool
		want  id.MessageID
	}{
		{about(7, phone1), false, m}, {about(7, phone1), true, m}, {about(7, phone1), true, id.MessageID{}},
		{about(200, phone2), false, n}, {about(200, phone2), true, n}, {about(200, phone2), true, id.MessageID{}},
	} {
		if got := ring.Find(c.rep, now, c.final); got != c.want {
			t.Errorf("%+v final %v: %v, want %v", c.rep, c.final, got, c.want)
		}
	}
}

// TestUnnamed: a message without a reference is found by its number, if it is the only
// one to it and not too old; they are few.
func TestUnnamed(t *testing.T) {
	var ring Ring
	now := time.Now()
	m := messageID(t)
	ring.PutUnnamed(m, phone(t, phone1), time.Hour, now)
	if got := ring.Find(about(3, phone1), now.Add(26*time.Hour), false); !got.IsZero() {
		t.Errorf("found after its time: %v", got)
	}
	ring.PutUnnamed(messageID(t), phone(t, phone1), time.Hour, now)
	if got := ring.Find(about(3, phone1), now, false); !got.IsZero() {
		t.Errorf("one of two: %v", got)
	}
	for range 100 {
		ring.PutUnnamed(messageID(t), phone(t, phone2), time.Hour, now)
	}
	if len(ring.unnamed) != unnamedRoom {
		t.Errorf("%d are kept", len(ring.unnamed))
	}
	var short Ring
	short.PutUnnamed(m, phone(t, "+3912345678"), time.Hour, now)
	if got := short.Find(about(3, ""), now, false); !got.IsZero() {
		t.Error("found without a number")
	}
}

// TestShortNumbersMatchNothing: a service's short number is nobody's telephone.
func TestShortNumbersMatchNothing(t *testing.T) {
	if sameNumber("12345", tailHash("12345")) || sameNumber("", tailHash("")) || !sameNumber("0393401234567", tailHash(phone1)) {
		t.Error("compared wrongly")
	}
}

// TestEarly: a report before its receipt waits, for its own number's receipt only, among
// few, until the submission ends.
func TestEarly(t *testing.T) {
	var ring Ring
	now := time.Now()
	for range earlyRoom {
		if !ring.Early(about(9, phone2)) {
			t.Fatal("no room")
		}
	}
	if ring.Early(about(9, phone1)) {
		t.Error("room without end")
	}
	ring.Put(9, messageID(t), phone(t, phone1), time.Hour, now)
	if _, ok := ring.TakeEarly(9); ok {
		t.Error("another number's report was taken")
	}
	ring.DropEarly()
	ring.Put(9, messageID(t), phone(t, phone2), time.Hour, now)
	if _, ok := ring.TakeEarly(9); ok {
		t.Error("a report outlived its submission")
	}
}

// TestWhole: a long message is delivered with its last part, and never after a part was
// given up; parts of many messages do not pile up.
func TestWhole(t *testing.T) {
	var ring Ring
	long, one := messageID(t), messageID(t)
	ring.Expect(long, 3)
	ring.Expect(one, 1)
	if len(ring.parts) != 1 || !ring.Whole(one) {
		t.Error("a single message is whole")
	}
	for i, want := range []bool{false, false, true} {
		if got := ring.Whole(long); got != want {
			t.Errorf("part %d of 3: %v", i+1, got)
		}
	}
	ring.Expect(long, 2)
	ring.Undelivered(long)
	for range 2 {
		if ring.Whole(long) {
			t.Error("whole, though a part was given up")
		}
	}
	if ring.Undelivered(one); !ring.Whole(one) {
		t.Error("a single message is kept")
	}
	for range 1000 {
		ring.Expect(messageID(t), 2)
	}
	if len(ring.parts) > 257 {
		t.Errorf("%d messages are kept", len(ring.parts))
	}
}
