package storetest

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"custode/authcore"
	"custode/internal/fault"
	"custode/internal/id"
	modem "custode/internal/store/modemshape"
	"custode/otpvault"
)

func (b *Bench) record(m id.MessageID, s modem.State) error {
	return b.DB.Record(b.ctx, modem.Event{ID: m, State: s, Bay: "bay1", Detail: "+CMGS: 1", At: b.Now.Add(time.Second)})
}

func testOutboxLife(t *testing.T, b *Bench) {
	_, m := issued(t, b)
	want := []modem.Message{{ID: m.ID, To: m.To, Sealed: m.Sealed, Class: modem.OTP, Created: m.Created, Expires: m.Expires}}
	if diff := cmp.Diff(want, get(b.DB.Queued(b.ctx, 10))(t), identifiers); diff != "" {
		t.Errorf("queued:\n%s", diff)
	}
	wantKind(t, "report before sending", b.record(m.ID, modem.Delivered), fault.Conflict)
	must(t, b.record(m.ID, modem.Sending))
	if queued := get(b.DB.Queued(b.ctx, 10))(t); len(queued) != 0 {
		t.Errorf("still queued while sending: %v", queued)
	}
	wantKind(t, "sending twice", b.record(m.ID, modem.Sending), fault.Conflict)
	must(t, b.record(m.ID, modem.Queued)) // the modem was lost before it took it
	want[0].Attempts = 1
	if diff := cmp.Diff(want, get(b.DB.Queued(b.ctx, 10))(t), identifiers); diff != "" {
		t.Errorf("queued again:\n%s", diff)
	}
	for _, s := range []modem.State{modem.Sending, modem.Sent, modem.Sent, modem.Delivered, modem.Delivered} {
		must(t, b.record(m.ID, s))
	}
	for _, s := range []modem.State{modem.Queued, modem.Sending, modem.Sent, modem.Failed, modem.Expired, modem.MaybeSent} {
		wantKind(t, "after delivery", b.record(m.ID, s), fault.Conflict)
	}
	wantKind(t, "unknown message", b.record(newID(t, id.NewMessageID), modem.Sent), fault.NotFound)
	wantKind(t, "no such state", b.record(m.ID, 200), fault.Conflict)
}

func testOutboxRace(t *testing.T, b *Bench) {
	_, m := issued(t, b)
	second := b.another(t)
	oneWinner(t, race(20, func(n int) error {
		db := b.DB
		if n%2 == 1 {
			db = second
		}
		return db.Record(b.ctx, modem.Event{ID: m.ID, State: modem.Sending, Bay: "bay1", At: b.Now})
	}), fault.Conflict)
}

func testOutboxOrder(t *testing.T, b *Bench) {
	var ids []id.MessageID
	for n := range 4 {
		c, m := NewChallenge(t, newID(t, id.NewFlowID), newID(t, id.NewSubject), b.Now.Add(-time.Duration(n)*time.Second))
		must(t, b.DB.IssueChallenge(b.ctx, c, m, Limit()))
		ids = append([]id.MessageID{m.ID}, ids...)
	}
	var got []id.MessageID
	for _, m := range get(b.DB.Queued(b.ctx, 3))(t) {
		got = append(got, m.ID)
	}
	if diff := cmp.Diff(ids[:3], got, identifiers); diff != "" {
		t.Errorf("not the three oldest:\n%s", diff)
	}
}

func testRecover(t *testing.T, b *Bench) {
	sending, m1 := issued(t, b)
	queued, m2 := issued(t, b)
	sent, m3 := issued(t, b)
	must(t, b.record(m1.ID, modem.Sending))
	must(t, b.record(m3.ID, modem.Sending))
	must(t, b.record(m3.ID, modem.Sent))
	late, m4 := NewChallenge(t, newID(t, id.NewFlowID), newID(t, id.NewSubject), b.Now.Add(-5*time.Minute))
	must(t, b.DB.IssueChallenge(b.ctx, late, m4, Limit()))

	b.reopen(t)
	events := get(b.DB.Recover(b.ctx, b.Now))(t)
	states := map[id.MessageID]modem.State{}
	for _, e := range events {
		states[e.ID] = e.State
		if !e.At.Equal(b.Now) {
			t.Errorf("event at %v", e.At)
		}
	}
	if len(events) != 2 || states[m1.ID] != modem.MaybeSent || states[m4.ID] != modem.Expired {
		t.Errorf("recovered %+v", events)
	}
	if again := get(b.DB.Recover(b.ctx, b.Now))(t); len(again) != 0 {
		t.Errorf("recovered twice: %+v", again)
	}
	for _, c := range []struct {
		challenge otpvault.Challenge
		want      authcore.Delivery
	}{{sending, authcore.DeliveryUncertain}, {queued, authcore.DeliveryQueued}, {sent, authcore.DeliverySent}, {late, authcore.DeliveryFailed}} {
		if got := get(b.DB.Delivery(b.ctx, c.challenge.ID))(t); got != c.want {
			t.Errorf("delivery %d, want %d", got, c.want)
		}
	}
	if left := get(b.DB.Queued(b.ctx, 10))(t); len(left) != 1 || left[0].ID != m2.ID {
		t.Errorf("queued after recovery: %+v", left)
	}
}

func testDelivery(t *testing.T, b *Bench) {
	wantKind(t, "unknown challenge", discard(b.DB.Delivery(b.ctx, newID(t, id.NewChallengeID))), fault.NotFound)
	for _, c := range []struct {
		path []modem.State
		want authcore.Delivery
	}{
		{nil, authcore.DeliveryQueued},
		{[]modem.State{modem.Sending}, authcore.DeliveryQueued},
		{[]modem.State{modem.Sending, modem.Sent}, authcore.DeliverySent},
		{[]modem.State{modem.Sending, modem.Sent, modem.Delivered}, authcore.DeliveryDelivered},
		{[]modem.State{modem.Sending, modem.Sent, modem.Failed}, authcore.DeliveryFailed},
		{[]modem.State{modem.Sending, modem.MaybeSent}, authcore.DeliveryUncertain},
		{[]modem.State{modem.Sending, modem.MaybeSent, modem.Delivered}, authcore.DeliveryDelivered},
		{[]modem.State{modem.Sending, modem.Queued, modem.Expired}, authcore.DeliveryFailed},
		{[]modem.State{modem.Failed}, authcore.DeliveryFailed},
	} {
		challenge, m := issued(t, b)
		for _, s := range c.path {
			must(t, b.record(m.ID, s))
		}
		if got := get(b.DB.Delivery(b.ctx, challenge.ID))(t); got != c.want {
			t.Errorf("after %v: %d, want %d", c.path, got, c.want)
		}
	}
	// A message that went back to the queue still has its text.
	for _, m := range get(b.DB.Queued(b.ctx, 10))(t) {
		if !bytes.Equal(m.Sealed, []byte{0, 1, 2, 0xff}) {
			t.Errorf("a queued message lost its text")
		}
	}
}
