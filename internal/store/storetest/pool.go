package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store"
	"custode/modem"
)

// at records a step through db at a moment.
func at(b *Bench, db *store.DB, m id.MessageID, s modem.State, now time.Time) error {
	return db.Record(b.ctx, modem.Event{ID: m, State: s, Bay: "bay1", Card: "222010000000001", At: now})
}

// waiting lists what db offers.
func waiting(t *testing.T, b *Bench, db *store.DB) map[id.MessageID]bool {
	t.Helper()
	out := map[id.MessageID]bool{}
	for _, m := range get(db.Queued(b.ctx, 100))(t) {
		out[m.ID] = m.InDoubt
	}
	return out
}

// testLease: what a living process sends is its own; when its lease ends, what it
// was sending is in doubt, once for all.
func testLease(t *testing.T, b *Bench) {
	other := b.another(t)
	_, m := issued(t, b)
	get(b.DB.Recover(b.ctx, b.Now))(t)
	must(t, at(b, b.DB, m.ID, modem.Sending, b.Now))
	for _, later := range []time.Duration{0, 10 * time.Second, 20 * time.Second} {
		if events := get(other.Recover(b.ctx, b.Now.Add(later)))(t); len(events) != 0 {
			t.Errorf("after %v: taken from a living process: %v", later, events)
		}
	}
	// It renews, so that its message stays its own for long.
	get(b.DB.Recover(b.ctx, b.Now.Add(30*time.Second)))(t)
	if events := get(other.Recover(b.ctx, b.Now.Add(60*time.Second)))(t); len(events) != 0 {
		t.Errorf("taken from a process that renewed: %v", events)
	}
	events := get(other.Recover(b.ctx, b.Now.Add(75*time.Second)))(t)
	if len(events) != 1 || events[0].ID != m.ID || events[0].State != modem.MaybeSent {
		t.Fatalf("a dead process keeps its message: %v", events)
	}
	for _, db := range []*store.DB{b.DB, other} { // a second process may take it as well as the first
		if q := waiting(t, b, db); len(q) != 1 || !q[m.ID] {
			t.Errorf("offered %v, want it in doubt", q)
		}
	}
	oneWinner(t, race(8, func(n int) error {
		return at(b, []*store.DB{b.DB, other}[n%2], m.ID, modem.Sending, b.Now.Add(76*time.Second))
	}), fault.Conflict)
	if q := waiting(t, b, other); len(q) != 0 {
		t.Errorf("offered once more: %v", q)
	}
}

// testLeaseRace: two processes on one file, each believing that the other is dead
// at times: no message is claimed twice without having been in doubt.
func testLeaseRace(t *testing.T, b *Bench) {
	other := b.another(t)
	var all []id.MessageID
	for range 10 {
		_, m := issued(t, b)
		all = append(all, m.ID)
	}
	errs := race(4, func(n int) error {
		db := []*store.DB{b.DB, other}[n%2]
		for round := range 5 {
			now := b.Now.Add(time.Duration(round) * time.Second)
			if _, err := db.Recover(b.ctx, now); err != nil {
				return err
			}
			for _, m := range all {
				if err := at(b, db, m, modem.Sending, now); err != nil && !fault.Is(err, fault.Conflict) {
					return err
				}
			}
		}
		return nil
	})
	must(t, errors.Join(errs...))
	for _, m := range all {
		claims := 0
		for _, e := range get(b.DB.TrailOf(b.ctx, m))(t) {
			if e.State == modem.Sending {
				claims++
			}
		}
		if claims != 1 {
			t.Errorf("%s was claimed %d times", m, claims)
		}
	}
}

// testForeignSteps: only who claimed a message may say what became of it, but
// for the proof that it was accepted.
func testForeignSteps(t *testing.T, b *Bench) {
	other := b.another(t)
	for _, c := range []struct {
		path []modem.State
		step modem.State
		ok   bool
	}{
		{[]modem.State{modem.Sending}, modem.Queued, false},
		{[]modem.State{modem.Sending}, modem.MaybeSent, false},
		{[]modem.State{modem.Sending}, modem.Failed, false},
		{[]modem.State{modem.Sending}, modem.Expired, false},
		{[]modem.State{modem.Sending}, modem.Sent, true},
		{[]modem.State{modem.Sending}, modem.Delivered, true},
		{[]modem.State{modem.Sending, modem.MaybeSent}, modem.Sending, false},
		{[]modem.State{modem.Sending, modem.MaybeSent}, modem.Failed, false},
		{[]modem.State{modem.Sending, modem.MaybeSent}, modem.Sent, true},
		{[]modem.State{modem.Sending, modem.Queued}, modem.Sending, true},
		{[]modem.State{modem.Sending, modem.Queued}, modem.Expired, true},
		{[]modem.State{modem.Sending, modem.Sent}, modem.Delivered, true},
	} {
		_, m := issued(t, b)
		for _, s := range c.path {
			must(t, b.record(m.ID, s))
		}
		err := at(b, other, m.ID, c.step, b.Now.Add(2*time.Second))
		if name := fmt.Sprintf("%v after %v by another process", c.step, c.path); !c.ok {
			wantKind(t, name, err, fault.Conflict)
		} else if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func testAccounts(t *testing.T, b *Bench) {
	_, m1 := issued(t, b)
	_, m2 := issued(t, b)
	const card = "222010000000001"
	must(t, b.DB.Record(b.ctx, modem.Event{ID: m1.ID, State: modem.Sending, Card: card, Parts: 1, At: b.Now}))
	must(t, b.DB.Record(b.ctx, modem.Event{ID: m1.ID, State: modem.Queued, Card: card, At: b.Now.Add(time.Second)}))
	must(t, b.DB.Record(b.ctx, modem.Event{ID: m1.ID, State: modem.Sending, Card: card, Parts: 2, At: b.Now.Add(2 * time.Second)}))
	must(t, b.DB.Record(b.ctx, modem.Event{ID: m2.ID, State: modem.Sending, Card: "x", Parts: 1, At: b.Now}))
	bulk := modem.Message{ID: newID(t, id.NewMessageID), To: m1.To, Wrapped: []byte{1}, Class: modem.Bulk, Created: b.Now, Expires: b.Now.Add(time.Hour), OnlyBay: "bay2"}
	must(t, b.DB.Enqueue(b.ctx, bulk))
	must(t, b.DB.Record(b.ctx, modem.Event{ID: bulk.ID, State: modem.Sending, Card: card, Parts: 1, At: b.Now.Add(3 * time.Second)}))
	b.reopen(t) // over a restart
	for since, want := range map[time.Duration][2]int{0: {4, 1}, 2 * time.Second: {3, 1}, 4 * time.Second: {0, 0}} {
		all, ofBulk, err := b.DB.Spent(b.ctx, card, b.Now.Add(since))
		must(t, err)
		if got := [2]int{all, ofBulk}; got != want {
			t.Errorf("since %v: spent %v, want %v", since, got, want)
		}
	}
	for _, c := range []struct {
		number string
		prefix bool
		since  time.Duration
		want   int
	}{
		{"+393401234567", false, 0, 3}, {"+393401234567", false, time.Second, 0}, {"+39340123456", false, 0, 0},
		{"+39", true, 0, 3}, {"+393401234567", true, 0, 3}, {"+38", true, 0, 0}, {"+4", true, 0, 0}, {"", true, 0, 3},
	} {
		if n := get(b.DB.Accepted(b.ctx, c.number, c.prefix, b.Now.Add(c.since)))(t); n != c.want {
			t.Errorf("%+v: %d", c, n)
		}
	}
	wantKind(t, "the same identifier", b.DB.Enqueue(b.ctx, bulk), fault.Conflict)
	code := bulk
	code.ID, code.Class = newID(t, id.NewMessageID), modem.OneTime
	wantKind(t, "a code without challenge", b.DB.Enqueue(b.ctx, code), fault.Invalid)
}

func testIncoming(t *testing.T, b *Bench) {
	m := modem.Received{Mark: "222010000000001/x", From: "+393401234567", Text: "STOP", Bay: "bay1", Card: "222010000000001", At: b.Now}
	for n, want := range []bool{true, false} {
		if fresh := get(b.DB.Receive(b.ctx, m))(t); fresh != want {
			t.Errorf("time %d: fresh %v", n, fresh)
		}
	}
	b.reopen(t)
	if d := cmp.Diff([]modem.Received{m}, get(b.DB.Incoming(b.ctx, b.Now, 10))(t)); d != "" {
		t.Error(d)
	}
	wantKind(t, "no mark", discard(b.DB.Receive(b.ctx, modem.Received{From: "x"})), fault.Invalid)
	to := parse(t, id.ParsePhone, "+393401234567")
	check := func(want bool) {
		t.Helper()
		if got := get(b.DB.OptedOut(b.ctx, to))(t); got != want {
			t.Errorf("opted out %v, want %v", got, want)
		}
	}
	check(false)
	must(t, b.DB.OptOut(b.ctx, to.String(), true, b.Now))
	must(t, b.DB.OptOut(b.ctx, to.String(), true, b.Now)) // again is no error
	check(true)
	must(t, b.DB.OptOut(b.ctx, to.String(), false, b.Now))
	check(false)
	wantKind(t, "a name", b.DB.OptOut(b.ctx, "TIM", true, b.Now), fault.Invalid)
	swept := get(b.DB.Sweep(b.ctx, b.Now.Add(91*24*time.Hour)))(t)
	if left := get(b.DB.Incoming(b.ctx, b.Now, 10))(t); swept.Incoming != 1 || len(left) != 0 {
		t.Errorf("swept %+v, left %v", swept, left)
	}
}

// testTrail: every step is told of, with what it took and without the text, and
// outlives the message.
func testTrail(t *testing.T, b *Bench) {
	_, m := issued(t, b)
	steps := []modem.Event{
		{State: modem.Sending, Bay: "bay1", Card: "1", Parts: 1},
		{State: modem.MaybeSent, Bay: "bay1", Card: "1", Detail: "no receipt", Handoff: time.Second},
		{State: modem.Sending, Bay: "bay2", Card: "2", Parts: 1},
		{State: modem.Sent, Bay: "bay2", Card: "2", Handoff: 2 * time.Second, Submit: 3 * time.Second},
	}
	for i := range steps {
		steps[i].ID, steps[i].At = m.ID, b.Now.Add(time.Duration(i)*time.Second)
		must(t, b.DB.Record(b.ctx, steps[i]))
	}
	must(t, b.DB.Record(b.ctx, steps[3])) // told twice, noted once
	if swept := get(b.DB.Sweep(b.ctx, b.Now.Add(30*24*time.Hour)))(t); swept.Messages != 1 || swept.Events != 0 {
		t.Errorf("swept %+v", swept)
	}
	check := func(what string, list []store.TrailEntry, want []modem.Event) {
		t.Helper()
		var got []modem.Event
		for _, e := range list {
			if e.Recipient != m.To || e.Class != modem.OneTime {
				t.Errorf("%s: %+v", what, e)
			}
			got = append(got, e.Event)
		}
		if d := cmp.Diff(want, got, identifiers); d != "" {
			t.Errorf("%s:\n%s", what, d)
		}
	}
	check("of the message", get(b.DB.TrailOf(b.ctx, m.ID))(t), steps)
	check("since", get(b.DB.Trail(b.ctx, b.Now.Add(time.Second), 0, 2))(t), steps[1:3])
	page := get(b.DB.Trail(b.ctx, b.Now, 0, 3))(t)
	check("next page", get(b.DB.Trail(b.ctx, b.Now, page[2].Number, 3))(t), steps[3:])
	if swept := get(b.DB.Sweep(b.ctx, b.Now.Add(25*31*24*time.Hour)))(t); swept.Events != 4 {
		t.Errorf("swept %+v", swept)
	}
}
