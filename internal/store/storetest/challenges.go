package storetest

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/otpvault"
)

// issued stores a challenge of a new flow and subject.
func issued(t *testing.T, b *Bench) (otpvault.Challenge, otpvault.Message) {
	t.Helper()
	c, m := NewChallenge(t, newID(t, id.NewFlowID), newID(t, id.NewSubject), b.Now)
	must(t, b.DB.IssueChallenge(b.ctx, c, m, Limit()))
	return c, m
}

func take(b *Bench, c otpvault.Challenge, after time.Duration) (otpvault.Challenge, error) {
	return b.DB.TakeAttempt(b.ctx, c.ID, c.Flow, c.Subject, b.Now.Add(after))
}

func testChallengeLife(t *testing.T, b *Bench) {
	c, _ := issued(t, b)
	wantKind(t, "issued again", b.DB.IssueChallenge(b.ctx, c, otpvault.Message{ID: c.Message, To: parse(t, id.ParsePhone, "+393401234567"), Wrapped: []byte{1}}, Limit()), fault.Conflict)
	want := c
	want.Left = 2
	if diff := cmp.Diff(want, get(take(b, c, time.Second))(t), identifiers); diff != "" {
		t.Errorf("first attempt:\n%s", diff)
	}
	wantKind(t, "unknown", discard(b.DB.TakeAttempt(b.ctx, newID(t, id.NewChallengeID), c.Flow, c.Subject, b.Now)), fault.NotFound)
	wantKind(t, "other flow", discard(b.DB.TakeAttempt(b.ctx, c.ID, newID(t, id.NewFlowID), c.Subject, b.Now)), fault.NotFound)
	wantKind(t, "other subject", discard(b.DB.TakeAttempt(b.ctx, c.ID, c.Flow, newID(t, id.NewSubject), b.Now)), fault.NotFound)
	wantKind(t, "too late", discard(take(b, c, 5*time.Minute)), fault.Expired)
	if got := get(take(b, c, 5*time.Minute-1))(t); got.Left != 1 {
		t.Errorf("%d left: a refused attempt was counted, or one in time was not", got.Left)
	}
	if got := get(take(b, c, time.Second))(t); got.Left != 0 {
		t.Errorf("%d left", got.Left)
	}
	wantKind(t, "fourth attempt", discard(take(b, c, time.Second)), fault.Exhausted)
	wantKind(t, "fourth attempt, late", discard(take(b, c, time.Hour)), fault.Exhausted)

	must(t, b.DB.BurnChallenge(b.ctx, c.ID, b.Now)) // the third attempt was right
	wantKind(t, "burn again", b.DB.BurnChallenge(b.ctx, c.ID, b.Now), fault.Conflict)
	wantKind(t, "burned", discard(take(b, c, time.Hour)), fault.Conflict)
	wantKind(t, "burn unknown", b.DB.BurnChallenge(b.ctx, newID(t, id.NewChallengeID), b.Now), fault.NotFound)

	// A new challenge retires the open one of its flow and no other.
	d, _ := issued(t, b)
	other, _ := issued(t, b)
	e, m := NewChallenge(t, d.Flow, d.Subject, b.Now.Add(time.Second))
	must(t, b.DB.IssueChallenge(b.ctx, e, m, Limit()))
	wantKind(t, "retired", discard(take(b, d, time.Second)), fault.Conflict)
	wantKind(t, "burn retired", b.DB.BurnChallenge(b.ctx, d.ID, b.Now), fault.Conflict)
	must(t, discard(take(b, e, time.Second)))
	must(t, discard(take(b, other, time.Second)))
}

func testChallengeLimit(t *testing.T, b *Bench) {
	subject := newID(t, id.NewSubject)
	issue := func(after time.Duration) error {
		c, m := NewChallenge(t, newID(t, id.NewFlowID), subject, b.Now.Add(after))
		return b.DB.IssueChallenge(b.ctx, c, m, Limit())
	}
	for n := range 5 {
		must(t, issue(time.Duration(n)*time.Minute))
	}
	wantKind(t, "sixth", issue(9*time.Minute), fault.Exhausted)
	wantKind(t, "just inside the window", issue(10*time.Minute-1), fault.Exhausted)
	must(t, issue(10*time.Minute)) // the first has left the window
	wantKind(t, "again full", issue(10*time.Minute), fault.Exhausted)
	must(t, issue(11*time.Minute))
	must(t, discard(b.DB.Sweep(b.ctx, b.Now.Add(11*time.Minute))))
	wantKind(t, "a sweep does not forget the limit", issue(11*time.Minute), fault.Exhausted)
	issued(t, b) // of another subject
}

func testChallengeRace(t *testing.T, b *Bench) {
	// As otpvault.Verify does with the right code, from two processes.
	c, _ := issued(t, b)
	second := b.another(t)
	oneWinner(t, race(50, func(n int) error {
		db := b.DB
		if n%2 == 1 {
			db = second
		}
		if _, err := db.TakeAttempt(b.ctx, c.ID, c.Flow, c.Subject, b.Now); err != nil {
			return err
		}
		return db.BurnChallenge(b.ctx, c.ID, b.Now)
	}), fault.Conflict, fault.Exhausted)

	// Attempts alone: exactly three are given.
	d, _ := issued(t, b)
	given := 0
	for _, err := range race(50, func(int) error { return discard(take(b, d, 0)) }) {
		if err == nil {
			given++
		} else if !fault.Is(err, fault.Exhausted) {
			t.Error(err)
		}
	}
	if given != 3 {
		t.Errorf("%d attempts given, want 3", given)
	}
}

func testIssueRace(t *testing.T, b *Bench) {
	flow, subject := newID(t, id.NewFlowID), newID(t, id.NewSubject)
	challenges := make([]otpvault.Challenge, 20)
	messages := make([]otpvault.Message, 20)
	for n := range challenges {
		challenges[n], messages[n] = NewChallenge(t, flow, subject, b.Now)
	}
	issuedCount := 0
	for _, err := range race(20, func(n int) error { return b.DB.IssueChallenge(b.ctx, challenges[n], messages[n], Limit()) }) {
		if err == nil {
			issuedCount++
		} else if !fault.Is(err, fault.Exhausted) {
			t.Error(err)
		}
	}
	if issuedCount != Limit().Messages {
		t.Errorf("%d issued, want %d", issuedCount, Limit().Messages)
	}
	open := 0
	for _, c := range challenges {
		if _, err := take(b, c, 0); err == nil {
			open++
		}
	}
	if open != 1 {
		t.Errorf("%d open challenges in one flow, want 1", open)
	}
	if queued := get(b.DB.Queued(b.ctx, 100))(t); len(queued) != 1 {
		t.Errorf("%d messages queued, want that of the open challenge", len(queued))
	}
}

// testIssueIsOneThing: when the challenge cannot be stored, no message is, and
// the earlier challenge stays open; and the reverse.
func testIssueIsOneThing(t *testing.T, b *Bench) {
	c, m := issued(t, b)
	again, m2 := NewChallenge(t, c.Flow, c.Subject, b.Now)
	again.ID = c.ID
	wantKind(t, "same challenge", b.DB.IssueChallenge(b.ctx, again, m2, Limit()), fault.Conflict)
	again, _ = NewChallenge(t, c.Flow, c.Subject, b.Now)
	again.Message = m.ID
	wantKind(t, "same message", b.DB.IssueChallenge(b.ctx, again, m, Limit()), fault.Conflict)
	again, m2 = NewChallenge(t, c.Flow, c.Subject, b.Now)
	again.MAC = []byte("short")
	if err := b.DB.IssueChallenge(b.ctx, again, m2, Limit()); err == nil {
		t.Error("a MAC of 5 octets was stored")
	}
	again, m2 = NewChallenge(t, c.Flow, c.Subject, b.Now)
	wantKind(t, "other message", b.DB.IssueChallenge(b.ctx, again, m, Limit()), fault.Invalid)
	m2.Wrapped = nil
	wantKind(t, "no text", b.DB.IssueChallenge(b.ctx, again, m2, Limit()), fault.Invalid)
	if queued := get(b.DB.Queued(b.ctx, 100))(t); len(queued) != 1 {
		t.Errorf("%d messages queued, want 1", len(queued))
	}
	must(t, discard(take(b, c, 0)))
}
