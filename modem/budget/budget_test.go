package budget

import (
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// drain spends while it may and returns how many left.
func drain(p *Purse, bulk bool, now time.Time) (n int) {
	for {
		if ok, _ := p.CanSpend(bulk, now); !ok || n > 10000 {
			return n
		}
		p.Spend(1, bulk, now)
		n++
	}
}

func TestBurstAndRate(t *testing.T) {
	p := New(Limits{}, noon)
	if n := drain(p, false, noon); n != 3 {
		t.Errorf("burst of %d, want 3", n)
	}
	_, next := p.CanSpend(false, noon)
	if d := next.Sub(noon); d != 6*time.Second {
		t.Errorf("next after %v, want 6 s at 10 a minute", d)
	}
	if ok, _ := p.CanSpend(false, next); !ok {
		t.Error("refused at the moment it named")
	}
	sent := 0
	for s := range 600 { // ten minutes after the burst
		sent += drain(p, false, noon.Add(time.Duration(s+1)*time.Second))
	}
	if sent < 99 || sent > 101 {
		t.Errorf("%d in ten minutes, want 100", sent)
	}
}

func TestBulkLeavesTheLastToken(t *testing.T) {
	p := New(Limits{}, noon)
	if n := drain(p, true, noon); n != 2 {
		t.Errorf("bulk took %d of 3", n)
	}
	if ok, _ := p.CanSpend(false, noon); !ok {
		t.Error("no token for a code")
	}
}

func TestDayAndMonth(t *testing.T) {
	free := Limits{Burst: -1, PerDay: 10, PerMonth: 25, BulkPercent: 40}
	p := New(free, noon)
	if n := drain(p, true, noon); n != 4 {
		t.Errorf("bulk got %d of a day of 10, want 4", n)
	}
	if n := drain(p, false, noon); n != 6 {
		t.Errorf("codes got %d, want the other 6", n)
	}
	_, next := p.CanSpend(false, noon)
	if want := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC); !next.Equal(want) {
		t.Errorf("next %v, want midnight", next)
	}
	if n := drain(p, false, next); n != 10 {
		t.Errorf("%d on the next day", n)
	}
	third := next.AddDate(0, 0, 1)
	if n := drain(p, false, third); n != 5 {
		t.Errorf("%d on the third day, want what the month has left", n)
	}
	_, next = p.CanSpend(false, third)
	if want := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC); !next.Equal(want) {
		t.Errorf("next %v, want the next month", next)
	}
	if l := p.Left(third); l.Day != 5 || l.Month != 0 || l.Used != 1 {
		t.Errorf("left %+v", l)
	}
	if n := drain(p, false, next); n != 10 {
		t.Errorf("%d in the next month", n)
	}
}

func TestRestore(t *testing.T) {
	l := Limits{}.WithDefaults()
	if l.Window() != 18*time.Second {
		t.Errorf("window %v", l.Window())
	}
	p := Restore(Limits{}, noon, 2, Count{199, 0}, Count{2000, 0})
	if n := drain(p, false, noon); n != 1 {
		t.Errorf("%d left after a restart, want 1", n)
	}
	if ok, next := p.CanSpend(false, noon.Add(time.Hour)); ok || next.Sub(noon) != 12*time.Hour {
		t.Errorf("the day is not over: %v %v", ok, next)
	}
	p = Restore(Limits{}, noon, 99, Count{}, Count{})
	if n := drain(p, false, noon); n != 0 {
		t.Errorf("%d left of an overdrawn bucket", n)
	}
	unlimited := New(Limits{Burst: -1, PerDay: -1, PerMonth: -1}, noon)
	if n := drain(unlimited, true, noon); n < 10000 {
		t.Errorf("no limit, and %d", n)
	}
}

// TestClockBack: a clock that steps back neither fills nor empties.
func TestClockBack(t *testing.T) {
	p := New(Limits{}, noon)
	drain(p, false, noon)
	if n := drain(p, false, noon.Add(-time.Hour)); n != 0 {
		t.Errorf("%d for a step back", n)
	}
	if l := p.Left(noon.AddDate(0, 0, -1)); l.SpentDay != 3 {
		t.Errorf("yesterday's purse: %+v", l)
	}
}

// TestClockWasAhead: the spans of a clock that was years ahead end with today, not
// with the year it showed.
func TestClockWasAhead(t *testing.T) {
	free := Limits{Burst: -1, PerDay: 10, PerMonth: 15}
	ahead := noon.AddDate(10, 0, 0)
	p := New(free, ahead)
	drain(p, false, ahead)
	if n := drain(p, false, noon); n != 0 {
		t.Errorf("%d for setting the clock right", n)
	}
	_, next := p.CanSpend(false, noon)
	if want := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC); !next.Equal(want) {
		t.Errorf("next %v, want midnight", next)
	}
	if n := drain(p, false, next); n != 5 {
		t.Errorf("%d tomorrow, want what the month has left", n)
	}
	if n := drain(p, false, noon.AddDate(0, 1, 0)); n != 10 {
		t.Errorf("%d next month", n)
	}
}

// TestBurstIsTheMost: a long rest fills the bucket, and no more; what was overdrawn
// before a restart is not owed.
func TestBurstIsTheMost(t *testing.T) {
	p := New(Limits{}, noon)
	drain(p, false, noon)
	if n := drain(p, false, noon.Add(time.Hour)); n != 3 {
		t.Errorf("%d after an hour, want a burst of 3", n)
	}
	p = Restore(Limits{}, noon, 99, Count{}, Count{})
	if n := drain(p, false, noon.Add(6*time.Second)); n != 1 {
		t.Errorf("%d six seconds after a restart, want 1", n)
	}
	// A bucket of one has no token to keep for codes: bulk gets it, or would never leave.
	if n := drain(New(Limits{Burst: 1}, noon), true, noon); n != 1 {
		t.Errorf("bulk took %d of a bucket of one", n)
	}
}

// TestBulkShareOfTheMonth: bulk ends with its share of the month, too; Used is the
// larger of both shares.
func TestBulkShareOfTheMonth(t *testing.T) {
	p := New(Limits{Burst: -1, PerDay: 10, PerMonth: 12, BulkPercent: 50}, noon)
	if n := drain(p, true, noon); n != 5 {
		t.Errorf("bulk got %d of the day, want 5", n)
	}
	if l := p.Left(noon); l.Used != 0.5 {
		t.Errorf("used %v, want the day's half", l.Used)
	}
	if n := drain(p, true, noon.AddDate(0, 0, 1)); n != 1 {
		t.Errorf("bulk got %d on the second day, want what its share of the month has left", n)
	}
	if l := p.Left(noon.AddDate(0, 0, 1)); l.Used != 0.5 {
		t.Errorf("used %v, want the month's half", l.Used)
	}
}
