package script

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestAnswersAndInsertionsAreUsedUp(t *testing.T) {
	var s Script
	s.Answers("+csq", 2, []string{"OK"})
	s.Insert(BeforeRef, 1, []string{"X"})
	for i, want := range []bool{true, true, false} {
		if _, ok := s.Answer("+CSQ"); ok != want {
			t.Errorf("answer %d: %v", i, ok)
		}
	}
	if s.Take(AfterFinal) != nil || len(s.Take(BeforeRef)) != 1 || s.Take(BeforeRef) != nil {
		t.Error("insertions")
	}
}

// The shares of the plan come out as they were asked for.
func TestDraw(t *testing.T) {
	p := Plan{Hang: 0.1, Slow: 0.2, SlowMin: time.Second, SlowMax: 2 * time.Second, OKOnly: 0.05, Twice: 0.05, Late: 0.1, LateBy: time.Minute}
	rnd := rand.New(rand.NewPCG(1, 2))
	var hang, slow, plain, late int
	const n = 20000
	for range n {
		switch o, length := p.Draw(rnd); {
		case o.Hang:
			hang++
			if length != time.Minute {
				t.Fatal(length)
			}
		case o.Free:
			late++
		case o.Delay != 0:
			slow++
			if o.Delay < time.Second || o.Delay > 2*time.Second {
				t.Fatal(o.Delay)
			}
		case o == Outcome{}:
			plain++
		}
	}
	for name, x := range map[string]struct{ got, want int }{"hang": {hang, n / 10}, "slow": {slow, n / 5}, "late": {late, n / 10}, "plain": {plain, n / 2}} {
		if d := x.got - x.want; d < -n/100 || d > n/100 {
			t.Errorf("%s: %d, want about %d", name, x.got, x.want)
		}
	}
	if o, _ := (Plan{}).Draw(rnd); o != (Outcome{}) {
		t.Error("no plan does something")
	}
	if s := Soak(); s.Hang == 0 || s.UnplugEvery == 0 {
		t.Error("a soak without trouble")
	}
}
