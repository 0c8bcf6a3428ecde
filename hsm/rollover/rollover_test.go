package rollover

import (
	"strings"
	"testing"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
)

func label(t *testing.T, s string) id.KeyLabel {
	t.Helper()
	l, err := id.ParseKeyLabel(s)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestLife takes two keys through their whole life, and every step too early first.
func TestLife(t *testing.T) {
	one, two := label(t, "sign/1"), label(t, "sign/2")
	day := 24 * time.Hour
	rules := Rules{Before: 30 * day, After: 10 * day}
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	certs := map[id.KeyLabel][32]byte{one: {1}, two: {2}}
	var l Ledger
	apply := func(after time.Duration, sign id.KeyLabel, also ...id.KeyLabel) error {
		at = at.Add(after)
		next, _, err := l.Apply(Wanted{sign, also, certs}, rules, at)
		if err == nil {
			l = next
		}
		return err
	}
	is := func(want ...State) {
		t.Helper()
		for i, s := range l.Steps(rules) {
			if s.State != want[i] {
				t.Errorf("%s is %s, want %s", s.Label, s.State, want[i])
			}
		}
		if len(l) != len(want) {
			t.Errorf("%d keys, want %d", len(l), len(want))
		}
	}
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	denied := func(err error, says string) {
		t.Helper()
		if !fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want denied with %q", err, says)
		}
	}
	ok(apply(0, one))
	is(Active)
	ok(apply(day, one))
	denied(apply(0, two, one), "may sign from")
	is(Active)
	ok(apply(0, one, two))
	is(Active, PrePublished)
	denied(apply(30*day-1, two, one), "2026-02-01 00:00:00 UTC")
	denied(apply(1, two), "also_published must name sign/1")
	ok(apply(0, two, one))
	is(Retired, Active)
	denied(apply(10*day-1, two), "keys.also_published must name it until")
	if next := l.Steps(rules)[0].Next; !strings.Contains(next, "keys.also_published: []") {
		t.Error(next)
	}
	if _, err := l.Destroy(one, at); !fault.Is(err, fault.Denied) {
		t.Errorf("destroyed while published: %v", err)
	}
	ok(apply(1, two))
	is(Withdrawn, Active)
	if _, err := l.Destroy(two, at); !fault.Is(err, fault.Denied) {
		t.Errorf("the active key was destroyed: %v", err)
	}
	gone, err := l.Destroy(one, at)
	ok(err)
	l = gone
	is(Destroyed, Active)
	if err := apply(0, two, one); !fault.Is(err, fault.Invalid) {
		t.Errorf("a destroyed key is used: %v", err)
	}
}

// TestBackAndCertificates: a retired key may sign again at once, an approval lets
// the switch come early and is used up, and a pre-published key whose certificate
// is replaced waits anew.
func TestBackAndCertificates(t *testing.T) {
	one, two := label(t, "sign/1"), label(t, "sign/2")
	rules := Rules{Before: time.Hour, After: time.Hour}
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	certs := map[id.KeyLabel][32]byte{one: {1}, two: {2}}
	l, _, err := Ledger(nil).Apply(Wanted{one, []id.KeyLabel{two}, certs}, rules, at)
	if err != nil {
		t.Fatal(err)
	}
	certs[two] = [32]byte{22}
	at = at.Add(59 * time.Minute)
	l, changes, err := l.Apply(Wanted{one, []id.KeyLabel{two}, certs}, rules, at)
	if err != nil || len(changes) != 1 || changes[0].Reason != "its certificate was replaced" {
		t.Fatal(changes, err)
	}
	at = at.Add(time.Minute)
	switched := Wanted{two, nil, certs}
	if _, _, err := l.Apply(switched, rules, at); !fault.Is(err, fault.Denied) {
		t.Errorf("the wait did not begin anew: %v", err)
	}
	if _, err := l.Approve(two, " "); !fault.Is(err, fault.Invalid) {
		t.Error("approved without a reason")
	}
	if _, err := l.Approve(one, "why not"); !fault.Is(err, fault.Conflict) {
		t.Error("approved the active key")
	}
	if _, err := l.Approve(label(t, "sign/3"), "why not"); !fault.Is(err, fault.NotFound) {
		t.Error("approved an unknown key")
	}
	if l, err = l.Approve(two, "key sign/1 is lost"); err != nil {
		t.Fatal(err)
	}
	// The lost key may leave the metadata in the same step.
	after, changes, err := l.Apply(switched, rules, at)
	if err != nil || after.Active().Label != two || after[0].State() != Withdrawn {
		t.Fatal(after, err)
	}
	if changes[1].Reason != "key sign/1 is lost" {
		t.Errorf("changes: %v", changes)
	}
	for _, k := range after {
		if k.Approval != "" {
			t.Errorf("the approval of %s is not used up", k.Label)
		}
	}
	// And back, because the other way was taken by mistake.
	l, _, err = l.Apply(Wanted{two, []id.KeyLabel{one}, certs}, rules, at)
	if err != nil {
		t.Fatal(err)
	}
	if l, _, err = l.Apply(Wanted{one, []id.KeyLabel{two}, certs}, rules, at); err != nil || l.Active().Label != one {
		t.Error(l, err)
	}
}
