package storetest

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"custode/authcore"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/modem"
	"custode/otpvault"
)

// replace issues a newer challenge in the flow of c.
func (b *Bench) replace(t *testing.T, c otpvault.Challenge) (otpvault.Challenge, otpvault.Message) {
	t.Helper()
	newer, m := NewChallenge(t, c.Flow, c.Subject, b.Now.Add(time.Second))
	must(t, b.DB.IssueChallenge(b.ctx, newer, m, Limit()))
	return newer, m
}

// wantOffered checks what Queued returns.
func (b *Bench) wantOffered(t *testing.T, what string, want ...id.MessageID) {
	t.Helper()
	var got []id.MessageID
	for _, m := range get(b.DB.Queued(b.ctx, 100))(t) {
		got = append(got, m.ID)
	}
	if diff := cmp.Diff(want, got, identifiers); diff != "" {
		t.Errorf("%s: offered:\n%s", what, diff)
	}
}

// wantCancelled checks that m can never leave again, and that it is Cancelled
// rather than Failed or Expired.
func (b *Bench) wantCancelled(t *testing.T, what string, c otpvault.Challenge) {
	t.Helper()
	for _, s := range []modem.State{modem.Sending, modem.Queued, modem.MaybeSent, modem.Failed, modem.Expired} {
		wantKind(t, what+": "+s.String(), b.record(c.Message, s), fault.Conflict)
	}
	if err := b.record(c.Message, modem.Cancelled); err != nil {
		t.Errorf("%s: not cancelled: %v", what, err)
	}
	if got := get(b.DB.Delivery(b.ctx, c.ID))(t); got != authcore.DeliveryFailed {
		t.Errorf("%s: delivery %d", what, got)
	}
}

// testReplacedIsCancelled: the message of a replaced challenge does not leave
// when it has not left, or when it is in doubt and could leave once more.
func testReplacedIsCancelled(t *testing.T, b *Bench) {
	bystander, _ := issued(t, b)
	queued, _ := issued(t, b)
	again, _ := issued(t, b)
	must(t, b.record(again.Message, modem.Sending))
	must(t, b.record(again.Message, modem.Queued))
	doubt, _ := issued(t, b)
	must(t, b.record(doubt.Message, modem.Sending))
	must(t, b.record(doubt.Message, modem.MaybeSent)) // the pool waits for another modem
	recovered, _ := issued(t, b)
	must(t, b.record(recovered.Message, modem.Sending))
	b.reopen(t)
	if events := get(b.DB.Recover(b.ctx, b.Now))(t); len(events) != 1 || events[0].ID != recovered.Message {
		t.Fatalf("recovered %v", events)
	}
	sent, _ := issued(t, b)
	must(t, b.record(sent.Message, modem.Sending))
	must(t, b.record(sent.Message, modem.Sent))

	offered := []id.MessageID{bystander.Message}
	for _, c := range []otpvault.Challenge{queued, again, doubt, recovered, sent} {
		_, m := b.replace(t, c)
		offered = append(offered, m.ID)
	}
	b.wantOffered(t, "replaced", offered...)
	b.wantCancelled(t, "queued", queued)
	b.wantCancelled(t, "queued again", again)
	b.wantCancelled(t, "in doubt", doubt)
	b.wantCancelled(t, "in doubt after a crash", recovered)
	must(t, b.record(sent.Message, modem.Delivered))
	must(t, b.record(doubt.Message, modem.Sent)) // a late receipt of the first copy

	b.reopen(t)
	if events := get(b.DB.Recover(b.ctx, b.Now))(t); len(events) != 0 {
		t.Errorf("recovered %v", events)
	}
	b.wantOffered(t, "after a crash", offered...)

	// What is not replaced is not cancelled.
	over := otpvault.Limit{Messages: 1, Window: time.Hour}
	c, m := NewChallenge(t, bystander.Flow, bystander.Subject, b.Now)
	wantKind(t, "over the limit", b.DB.IssueChallenge(b.ctx, c, m, over), fault.Exhausted)
	must(t, b.record(bystander.Message, modem.Sending))
}

// testReplacedOnTheAir: a message that is Sending is left alone, but no further
// copy of it leaves.
func testReplacedOnTheAir(t *testing.T, b *Bench) {
	sending := func() otpvault.Challenge {
		t.Helper()
		c, _ := issued(t, b)
		must(t, b.record(c.Message, modem.Sending))
		_, m := b.replace(t, c)
		must(t, b.record(m.ID, modem.Sending)) // out of the way of wantOffered
		must(t, b.record(m.ID, modem.Sent))
		if got := get(b.DB.Delivery(b.ctx, c.ID))(t); got != authcore.DeliveryQueued {
			t.Errorf("on the air: delivery %d", got)
		}
		wantKind(t, "cancel what is on the air", b.record(c.Message, modem.Cancelled), fault.Conflict)
		return c
	}
	c := sending()
	must(t, b.record(c.Message, modem.Sent))
	must(t, b.record(c.Message, modem.Delivered))

	c = sending()
	must(t, b.record(c.Message, modem.Queued)) // the modem was lost before it took it
	b.wantOffered(t, "not taken")
	b.wantCancelled(t, "not taken", c)

	c = sending()
	must(t, b.record(c.Message, modem.MaybeSent)) // no receipt: another modem shall try
	b.wantCancelled(t, "no receipt", c)
	must(t, b.record(c.Message, modem.Sent))

	c = sending()
	b.reopen(t)
	if events := get(b.DB.Recover(b.ctx, b.Now))(t); len(events) != 0 {
		t.Errorf("recovered for another try: %v", events)
	}
	b.wantOffered(t, "after a crash")
	b.wantCancelled(t, "after a crash", c)
}

// testUsedIsCancelled: when the code was used, a second copy of it serves nobody.
func testUsedIsCancelled(t *testing.T, b *Bench) {
	doubt, _ := issued(t, b)
	must(t, b.record(doubt.Message, modem.Sending))
	must(t, b.record(doubt.Message, modem.MaybeSent))
	queued, _ := issued(t, b)
	for _, c := range []otpvault.Challenge{doubt, queued} {
		must(t, discard(take(b, c, time.Second)))
		must(t, b.DB.BurnChallenge(b.ctx, c.ID, b.Now))
	}
	b.wantOffered(t, "used")
	b.wantCancelled(t, "in doubt", doubt)
	b.wantCancelled(t, "queued", queued)

	sending, _ := issued(t, b)
	must(t, b.record(sending.Message, modem.Sending))
	must(t, b.DB.BurnChallenge(b.ctx, sending.ID, b.Now))
	must(t, b.record(sending.Message, modem.Sent))
	must(t, b.record(sending.Message, modem.Delivered))
}
