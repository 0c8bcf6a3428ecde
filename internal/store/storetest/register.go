package storetest

import (
	"testing"
	"time"

	"custode/authcore"
	"custode/authcore/saml"
	"custode/internal/fault"
)

// testRegisterFloor: the floor rises with each answer, never falls, survives, and
// stays where it was when the answer was not taken.
func testRegisterFloor(t *testing.T, b *Bench) {
	floor := func() uint64 { t.Helper(); return get(b.DB.Floor(b.ctx, "transactions"))(t) }
	if n := floor(); n != 0 {
		t.Errorf("floor of nothing: %d", n)
	}
	must(t, b.DB.RaiseFloor(b.ctx, "transactions", 7))
	must(t, b.DB.RaiseFloor(b.ctx, "transactions", 3))
	must(t, b.DB.RaiseFloor(b.ctx, "security", 99))
	for _, try := range []string{"one", "another"} {
		if got := get(b.DB.PinLog(b.ctx, "transactions", try))(t); got != "one" {
			t.Errorf("pinned %q", got)
		}
	}
	if n := floor(); n != 7 {
		t.Errorf("floor %d, want 7", n)
	}
	i, f := started(t, b, 1)
	f.Step, f.Outcome = authcore.StepDone, saml.Success
	a := NewAnswered(f, i.SPIDCode, b.Now.Add(time.Minute))
	a.Floor = 12
	must(t, b.DB.FinishFlow(b.ctx, f, a))
	if n := floor(); n != 12 {
		t.Errorf("floor %d after an answer, want 12", n)
	}
	a.Floor = 50
	wantKind(t, "a second answer", b.DB.FinishFlow(b.ctx, f, a), fault.Conflict)
	b.reopen(t)
	if n := floor(); n != 12 {
		t.Errorf("floor %d after a refused answer and a restart, want 12", n)
	}
}
