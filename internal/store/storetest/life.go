package storetest

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"custode/authcore"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store"
)

func testSweep(t *testing.T, b *Bench) {
	i, finished := started(t, b, 1)
	must(t, b.DB.FinishFlow(b.ctx, finished, NewAnswered(finished, i.SPIDCode, b.Now)))
	for range 600 { // more than one batch
		f := NewFlow(t, b.Now.Add(-2*time.Hour))
		must(t, b.DB.CreateFlow(b.ctx, f))
	}
	old, oldMessage := issued(t, b)
	must(t, discard(b.DB.CountFailure(b.ctx, [32]byte{1}, b.Now)))

	if got := get(b.DB.Sweep(b.ctx, b.Now))(t); got != (store.Swept{Flows: 600}) {
		t.Errorf("swept %+v, want 600 flows", got)
	}
	must(t, discard(b.DB.Flow(b.ctx, finished.ID)))
	must(t, discard(take(b, old, 0)))

	later := b.Now.Add(31 * 24 * time.Hour)
	young := NewFlow(t, later)
	must(t, b.DB.CreateFlow(b.ctx, young))
	must(t, discard(b.DB.CountFailure(b.ctx, [32]byte{2}, later)))
	c, m := NewChallenge(t, young.ID, i.Subject, later)
	must(t, b.DB.IssueChallenge(b.ctx, c, m, Limit()))
	if got := get(b.DB.Sweep(b.ctx, later))(t); got != (store.Swept{Flows: 1, Challenges: 1, Messages: 1, Tallies: 1}) {
		t.Errorf("swept %+v, want one of each", got)
	}
	wantKind(t, "swept flow", discard(b.DB.Flow(b.ctx, finished.ID)), fault.NotFound)
	wantKind(t, "swept challenge", discard(take(b, old, 0)), fault.NotFound)
	wantKind(t, "swept message", b.record(oldMessage.ID, 2), fault.NotFound)
	must(t, discard(b.DB.Flow(b.ctx, young.ID)))
	must(t, discard(b.DB.TakeAttempt(b.ctx, c.ID, c.Flow, c.Subject, later)))
	if got := get(b.DB.Tally(b.ctx, [32]byte{2}))(t); got.Failures != 1 {
		t.Errorf("a young tally was swept")
	}
	// The register outlives the flow, and so does the claim of the request.
	must(t, discard(b.DB.Answer(b.ctx, finished.Request.SP, finished.Request.ID)))
	must(t, b.DB.CreateFlow(b.ctx, finished))
	wantKind(t, "replay after a sweep", b.DB.FinishFlow(b.ctx, finished, NewAnswered(finished, i.SPIDCode, later)), fault.Conflict)
}

func testReopen(t *testing.T, b *Bench) {
	i, f := started(t, b, 1)
	c, m := issued(t, b)
	burned, _ := issued(t, b)
	must(t, discard(take(b, c, 0)))
	must(t, b.DB.BurnChallenge(b.ctx, burned.ID, b.Now))
	must(t, discard(b.DB.CountFailure(b.ctx, [32]byte{1}, b.Now)))
	b.reopen(t)
	if diff := cmp.Diff(f, get(b.DB.Flow(b.ctx, f.ID))(t), identifiers); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(i, get(b.DB.Identity(b.ctx, i.Subject))(t), identifiers); diff != "" {
		t.Error(diff)
	}
	if got := get(take(b, c, 0))(t); got.Left != 1 {
		t.Errorf("%d attempts left, want 1", got.Left)
	}
	wantKind(t, "burned", discard(take(b, burned, 0)), fault.Conflict)
	if got := get(b.DB.Tally(b.ctx, [32]byte{1}))(t); got.Failures != 1 {
		t.Errorf("tally %+v", got)
	}
	if queued := get(b.DB.Queued(b.ctx, 10))(t); len(queued) != 1 || queued[0].ID != m.ID {
		t.Errorf("queued %+v", queued)
	}
	must(t, b.DB.Ping(b.ctx))
}

func testCancelledContext(t *testing.T, b *Bench) {
	ctx, cancel := context.WithCancel(b.ctx)
	cancel()
	f := NewFlow(t, b.Now)
	wantKind(t, "write", b.DB.CreateFlow(ctx, f), fault.Retry)
	wantKind(t, "read", discard(b.DB.Flow(ctx, f.ID)), fault.Retry)
	wantKind(t, "nothing written", discard(b.DB.Flow(b.ctx, f.ID)), fault.NotFound)
	must(t, b.DB.CreateFlow(b.ctx, f))
}

// testCancelledMidway ends contexts at every moment of a write: the writing
// connection must stay usable, and what was told must be true.
func testCancelledMidway(t *testing.T, b *Bench) {
	flows := make([]authcore.Flow, 300)
	for n := range flows {
		flows[n] = NewFlow(t, b.Now)
	}
	errs := race(len(flows), func(n int) error {
		ctx, cancel := context.WithTimeout(b.ctx, time.Duration(n)*100*time.Microsecond)
		defer cancel()
		return b.DB.CreateFlow(ctx, flows[n])
	})
	stored := 0
	for n, err := range errs {
		if err == nil {
			stored++
			must(t, discard(b.DB.Flow(b.ctx, flows[n].ID)))
		} else {
			wantKind(t, "cancelled write", err, fault.Retry)
		}
	}
	t.Logf("%d of %d writes were in time", stored, len(flows))
	must(t, b.DB.CreateFlow(b.ctx, NewFlow(t, b.Now)))
	must(t, b.DB.Ping(b.ctx))
}

func testTwoOpenDatabases(t *testing.T, b *Bench) {
	second := b.another(t)
	f := NewFlow(t, b.Now)
	must(t, b.DB.CreateFlow(b.ctx, f))
	f.Step = authcore.StepConsent
	must(t, second.SaveFlow(b.ctx, f))
	if got := get(b.DB.Flow(b.ctx, f.ID))(t); got.Version != 2 || got.Step != authcore.StepConsent {
		t.Errorf("the first process reads %+v", got)
	}
	wantKind(t, "the first process saves", b.DB.SaveFlow(b.ctx, f), fault.Conflict)
	same := make([]authcore.Identity, 20)
	for n := range same {
		same[n] = NewIdentity(t, 7, b.Now)
	}
	oneWinner(t, race(len(same), func(n int) error {
		db := []*store.DB{b.DB, second}[n%2]
		return db.AddIdentity(b.ctx, same[n], change(b))
	}), fault.Conflict)
	must(t, discard(second.IdentityByUsername(b.ctx, parse(t, id.ParseUsername, "mario.rossi7@example.it"))))
}
