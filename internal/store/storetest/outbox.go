package storetest

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"custode/authcore"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/modem"
	"custode/otpvault"
)

func (b *Bench) record(m id.MessageID, s modem.State) error {
	return b.DB.Record(b.ctx, modem.Event{ID: m, State: s, Bay: "bay1", Detail: "+CMGS: 1", At: b.Now.Add(time.Second)})
}

func testOutboxLife(t *testing.T, b *Bench) {
	_, m := issued(t, b)
	want := []modem.Message{{ID: m.ID, To: m.To, Wrapped: m.Wrapped, Class: modem.OneTime, Created: m.Created, Expires: m.Expires}}
	if diff := cmp.Diff(want, get(b.DB.Queued(b.ctx, 10))(t), identifiers); diff != "" {
		t.Errorf("queued:\n%s", diff)
	}
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
	wantKind(t, "unknown message", b.record(newID(t, id.NewMessageID), modem.Sent), fault.NotFound)
	wantKind(t, "no such state", b.record(m.ID, 200), fault.Conflict)
	wantKind(t, "no limit", discard(b.DB.Queued(b.ctx, 0)), fault.Invalid)
}

// testOutboxStates walks each path and then tries every state.
func testOutboxStates(t *testing.T, b *Bench) {
	all := []modem.State{modem.Queued, modem.Sending, modem.Sent, modem.Delivered, modem.Failed, modem.Expired, modem.MaybeSent, modem.Cancelled}
	for _, c := range []struct {
		path    []modem.State
		refused []modem.State
	}{
		{[]modem.State{modem.Sending}, []modem.State{modem.Sending, modem.Cancelled}},
		// A copy in doubt; its second copy elsewhere; then the receipt of either.
		{[]modem.State{modem.Sending, modem.MaybeSent}, []modem.State{modem.Queued}},
		{[]modem.State{modem.Sending, modem.MaybeSent, modem.Sending}, []modem.State{modem.Sending, modem.Cancelled}},
		{[]modem.State{modem.Sending, modem.MaybeSent, modem.Sending, modem.Queued}, nil},
		{[]modem.State{modem.Sending, modem.Sent}, []modem.State{modem.Queued, modem.Sending, modem.Expired, modem.MaybeSent, modem.Cancelled}},
		{[]modem.State{modem.Sending, modem.Failed}, []modem.State{modem.Queued, modem.Sending, modem.Expired, modem.MaybeSent, modem.Cancelled}},
		{[]modem.State{modem.Sending, modem.Sent, modem.Delivered}, []modem.State{modem.Queued, modem.Sending, modem.Sent, modem.Failed, modem.Expired, modem.MaybeSent, modem.Cancelled}},
		{[]modem.State{modem.Expired}, []modem.State{modem.Queued, modem.Sending, modem.Sent, modem.Delivered, modem.Failed, modem.MaybeSent, modem.Cancelled}},
		// The receipt of an earlier copy is noted, and nothing leaves any more.
		{[]modem.State{modem.Cancelled}, []modem.State{modem.Queued, modem.Sending, modem.Failed, modem.Expired, modem.MaybeSent}},
		{[]modem.State{modem.Sending, modem.MaybeSent, modem.Cancelled, modem.Sent}, []modem.State{modem.Queued, modem.Sending, modem.Expired, modem.MaybeSent, modem.Cancelled}},
	} {
		for _, next := range all {
			_, m := issued(t, b)
			for _, s := range c.path {
				must(t, b.record(m.ID, s))
			}
			err := b.record(m.ID, next)
			if slices.Contains(c.refused, next) {
				wantKind(t, fmt.Sprintf("%v after %v", next, c.path), err, fault.Conflict)
			} else if err != nil {
				t.Errorf("%v after %v: %v", next, c.path, err)
			}
		}
	}
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
	old, m5 := issued(t, b)
	must(t, b.record(m1.ID, modem.Sending))
	must(t, b.record(m3.ID, modem.Sending))
	must(t, b.record(m3.ID, modem.Sent))
	must(t, b.record(m5.ID, modem.Sending))
	must(t, b.record(m5.ID, modem.MaybeSent)) // the pool had given it up
	late, m4 := NewChallenge(t, newID(t, id.NewFlowID), newID(t, id.NewSubject), b.Now.Add(-5*time.Minute))
	must(t, b.DB.IssueChallenge(b.ctx, late, m4, Limit()))

	b.reopen(t)
	check := func(what string, want map[id.MessageID]modem.State, queue ...id.MessageID) {
		t.Helper()
		got := map[id.MessageID]modem.State{}
		for _, e := range get(b.DB.Recover(b.ctx, b.Now))(t) {
			got[e.ID] = e.State
			if !e.At.Equal(b.Now) {
				t.Errorf("%s: event at %v", what, e.At)
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s: recovered %v, want %v", what, got, want)
		}
		var waiting []id.MessageID
		for _, m := range get(b.DB.Queued(b.ctx, 10))(t) {
			waiting = append(waiting, m.ID)
			if len(m.Wrapped) == 0 {
				t.Errorf("%s: message without its text", what)
			}
		}
		if diff := cmp.Diff(queue, waiting, identifiers); diff != "" {
			t.Errorf("%s: waiting:\n%s", what, diff)
		}
	}
	check("after a crash", map[id.MessageID]modem.State{m1.ID: modem.MaybeSent, m4.ID: modem.Expired}, m1.ID, m2.ID)
	check("after one more crash, not tried yet", map[id.MessageID]modem.State{m1.ID: modem.MaybeSent}, m1.ID, m2.ID)
	for _, c := range []struct {
		challenge otpvault.Challenge
		want      authcore.Delivery
	}{{sending, authcore.DeliveryUncertain}, {queued, authcore.DeliveryQueued}, {sent, authcore.DeliverySent}, {old, authcore.DeliveryUncertain}, {late, authcore.DeliveryFailed}} {
		if got := get(b.DB.Delivery(b.ctx, c.challenge.ID))(t); got != c.want {
			t.Errorf("delivery %d, want %d", got, c.want)
		}
	}
	must(t, b.record(m1.ID, modem.Sending))
	must(t, b.record(m1.ID, modem.MaybeSent))
	check("tried again", map[id.MessageID]modem.State{}, m2.ID)

	must(t, b.record(m2.ID, modem.Sending))
	b.Now = b.Now.Add(5 * time.Minute)
	check("in flight, and this process lives", map[id.MessageID]modem.State{})
	b.reopen(t)
	check("a crash after the deadline", map[id.MessageID]modem.State{m2.ID: modem.MaybeSent})
	check("the same once more", map[id.MessageID]modem.State{})
	if got := get(b.DB.Delivery(b.ctx, queued.ID))(t); got != authcore.DeliveryUncertain {
		t.Errorf("delivery %d", got)
	}

	// The deadline passes while it waits for its second chance.
	other, m6 := issued(t, b)
	must(t, b.record(m6.ID, modem.Sending))
	b.reopen(t)
	check("in time", map[id.MessageID]modem.State{m6.ID: modem.MaybeSent}, m6.ID)
	must(t, b.record(m6.ID, modem.Expired))
	check("expired meanwhile", map[id.MessageID]modem.State{})
	if got := get(b.DB.Delivery(b.ctx, other.ID))(t); got != authcore.DeliveryUncertain {
		t.Errorf("delivery %d", got)
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
		{[]modem.State{modem.Sending, modem.MaybeSent, modem.Sending, modem.Sent}, authcore.DeliverySent},
		{[]modem.State{modem.Sending, modem.Queued, modem.Expired}, authcore.DeliveryFailed},
		{[]modem.State{modem.Failed}, authcore.DeliveryFailed},
		{[]modem.State{modem.Cancelled}, authcore.DeliveryFailed},
		{[]modem.State{modem.Sending, modem.MaybeSent, modem.Cancelled, modem.Delivered}, authcore.DeliveryDelivered},
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
		if !bytes.Equal(m.Wrapped, []byte{0, 1, 2, 0xff}) {
			t.Errorf("a queued message lost its text")
		}
	}
}
