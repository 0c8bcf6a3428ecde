package lanes

import (
	"testing"
	"time"
)

func TestRecent(t *testing.T) {
	now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	r := Recent[int, string]{Life: time.Second, Most: 3}
	for i := range 5 {
		r.Keep(i, "v", now)
	}
	if _, ok := r.Recall(1, now); ok || len(r.byKey) != 3 || len(r.order) != 3 {
		t.Errorf("%d and %d kept, want 3", len(r.byKey), len(r.order))
	}
	if v, ok := r.Recall(4, now.Add(time.Second-1)); !ok || v != "v" {
		t.Errorf("%q, %t", v, ok)
	}
	if _, ok := r.Recall(4, now.Add(time.Second)); ok || len(r.byKey)+len(r.order) != 0 {
		t.Error("what is over was kept")
	}
	r.Keep(7, "v", now)
	r.Keep(8, "v", now.Add(time.Minute))
	r.Sweep(now.Add(time.Minute))
	if len(r.byKey) != 1 || len(r.order) != 1 {
		t.Errorf("%d and %d left by Sweep, want 1", len(r.byKey), len(r.order))
	}
	if r.Sweep(now.Add(time.Hour)); len(r.byKey) != 0 || r.order != nil {
		t.Error("Sweep left what is over")
	}
}

func TestAllowance(t *testing.T) {
	now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	a := Allowance{Most: 2, Pause: time.Second}
	for i, c := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {0, true}, {0, false}, {999 * time.Millisecond, false}, {time.Second, true}, {time.Second, false}, {time.Hour, true}} {
		if got := a.Take(now.Add(c.after)); got != c.want {
			t.Errorf("%d: %t", i, got)
		}
	}
}

func TestUnderWay(t *testing.T) {
	var u UnderWay[string]
	n, end := u.Begin("a")
	m, endToo := u.Begin("a")
	if k, endB := u.Begin("b"); n != 0 || m != 1 || k != 0 {
		t.Errorf("%d, %d, %d", n, m, k)
	} else {
		endB()
	}
	end()
	endToo()
	if len(u.byKey) != 0 {
		t.Errorf("kept: %v", u.byKey)
	}
}
