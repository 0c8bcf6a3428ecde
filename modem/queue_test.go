package modem

import (
	"container/heap"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"custode/internal/fault"
	"custode/modem/budget"
)

// TestQueueOrder: class; what nobody refused yet; deadline; arrival.
func TestQueueOrder(t *testing.T) {
	now := time.Now()
	want := []*job{
		{msg: Message{Class: OneTime, Expires: now.Add(time.Minute)}, seq: 9},
		{msg: Message{Class: OneTime, Expires: now.Add(2 * time.Minute)}, seq: 3},
		{msg: Message{Class: OneTime, Expires: now.Add(2 * time.Minute)}, seq: 4},
		{msg: Message{Class: OneTime, Expires: now.Add(time.Second)}, seq: 1, refusals: 1}, // a bad number, perhaps
		{msg: Message{Class: OneTime, Expires: now.Add(2 * time.Second)}, seq: 2, refusals: 3},
		{msg: Message{Class: Alert, Expires: now.Add(time.Millisecond)}},
		{msg: Message{Class: Bulk, Expires: now}},
	}
	for range 20 {
		var h jobHeap
		for _, i := range []int{6, 3, 1, 5, 0, 4, 2} {
			heap.Push(&h, want[i])
		}
		for i := range want {
			if got := heap.Pop(&h).(*job); got != want[i] {
				t.Fatalf("place %d: %+v", i, got)
			}
		}
	}
}

// lanes builds a pool that does not run, whose bays are in service.
func lanes(t *testing.T, n int, l budget.Limits) *Pool {
	t.Helper()
	cfg := Config{Journal: newFakeJournal(), Opener: fakeOpener{}, Log: slog.New(slog.DiscardHandler), Budget: l}
	for i := range n {
		cfg.Bays = append(cfg.Bays, BayConfig{Name: fmt.Sprintf("bay%d", i), Device: fmt.Sprintf("/dev/bay%d", i)})
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for i, l := range p.lanes {
		l.inService, l.operator = true, fmt.Sprintf("2220%d", i)
		l.purse = budget.New(p.cfg.Budget, now)
	}
	return p
}

// TestChoice is each rule of the choice alone, on bays that are equal otherwise.
func TestChoice(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		worse func(l *lane)
		job   func(p *Pool, j *job)
		same  bool // the rule does not count: the other bay, which sent today, loses
	}{
		"on trial":                    {worse: func(l *lane) { l.breaker.trial = true }},
		"on trial, no code":           {worse: func(l *lane) { l.breaker.trial = true }, job: func(_ *Pool, j *job) { j.msg.Class = Bulk }, same: true},
		"slower":                      {worse: func(l *lane) { l.measure(9*time.Second, false, now) }},
		"a little slower":             {worse: func(l *lane) { l.measure(4200*time.Millisecond, false, now) }, same: true},
		"slower, long ago":            {worse: func(l *lane) { l.measure(7*time.Second, false, now.Add(-3*time.Hour)) }, same: true},
		"fails":                       {worse: func(l *lane) { l.measured = now; l.errors.Value = 0.5 }},
		"operator of the first copy":  {worse: func(*lane) {}, job: func(p *Pool, j *job) { j.doubts, j.tried = 1, map[*lane]bool{{operator: "22200"}: true} }},
		"operator of a refused first": {worse: func(*lane) {}, job: func(p *Pool, j *job) { j.tried = map[*lane]bool{{operator: "22200"}: true} }, same: true},
	} {
		t.Run(name, func(t *testing.T) {
			p := lanes(t, 2, budget.Limits{})
			j := &job{msg: message(t, phone1, "x"), tried: map[*lane]bool{}}
			for _, l := range p.lanes {
				l.measure(4*time.Second, false, now)
			}
			c.worse(p.lanes[0])
			if c.job != nil {
				c.job(p, j)
			}
			p.lanes[1].purse.Spend(1, false, now)
			want := p.lanes[1]
			if c.same {
				want = p.lanes[0]
			}
			for _, idle := range [][]*lane{p.lanes, {p.lanes[1], p.lanes[0]}} {
				if got := p.choose(idle, j, now); got != want {
					t.Errorf("chose %s", got.place.Name)
				}
			}
		})
	}
}

// TestEligible: who may send what now.
func TestEligible(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		change func(p *Pool, j *job)
		want   bool
	}{
		"all well":                {func(*Pool, *job) {}, true},
		"in a pause":              {func(_ *Pool, j *job) { j.retryAt = now.Add(time.Second) }, false},
		"past its deadline":       {func(_ *Pool, j *job) { j.msg.Expires = now }, false},
		"another bay's test":      {func(_ *Pool, j *job) { j.msg.OnlyBay = "bay1" }, false},
		"no purse":                {func(p *Pool, _ *job) { p.lanes[0].purse = nil }, false},
		"last token, a code":      {func(p *Pool, _ *job) { p.lanes[0].purse.Spend(2, false, now) }, true},
		"last token, bulk":        {func(p *Pool, j *job) { p.lanes[0].purse.Spend(2, false, now); j.msg.Class = Bulk }, false},
		"tried, another is there": {func(p *Pool, j *job) { j.tried[p.lanes[0]] = true }, false},
		"tried by all": {func(p *Pool, j *job) {
			j.tried[p.lanes[0]], j.tried[p.lanes[1]], j.tried[p.lanes[2]] = true, true, true
		}, true},
		"tried by all, in doubt": {func(p *Pool, j *job) {
			j.doubts = 1
			j.tried[p.lanes[0]], j.tried[p.lanes[1]], j.tried[p.lanes[2]] = true, true, true
		}, false},
		"in doubt, not by this one": {func(p *Pool, j *job) { j.doubts = 1; j.tried[p.lanes[1]] = true }, true},
		"tried, the others are broken": {func(p *Pool, j *job) {
			j.tried[p.lanes[0]] = true
			p.lanes[1].breaker.open, p.lanes[2].drained = true, true
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			p := lanes(t, 3, budget.Limits{})
			j := &job{msg: message(t, phone1, "x"), tried: map[*lane]bool{}}
			c.change(p, j)
			if got := p.eligible(p.lanes[0], j, now); got != c.want {
				t.Error(got)
			}
		})
	}
}

// TestNextMoment: whatever a message waits for is a moment at which the clerk looks.
func TestNextMoment(t *testing.T) {
	now := time.Now()
	soon := now.Add(3 * time.Second)
	for name, change := range map[string]func(p *Pool, j *job){
		"pause":    func(_ *Pool, j *job) { j.retryAt = soon },
		"deadline": func(_ *Pool, j *job) { j.msg.Expires = soon },
		"breaker":  func(p *Pool, _ *job) { p.lanes[0].breaker = breaker{open: true, until: soon, probed: now} },
		"renewal":  func(p *Pool, _ *job) { p.renewal = soon },
	} {
		t.Run(name, func(t *testing.T) {
			p := lanes(t, 2, budget.Limits{Burst: -1, PerDay: -1, PerMonth: -1})
			p.renewal = now.Add(time.Hour)
			j := &job{msg: message(t, phone1, "x"), tried: map[*lane]bool{}, index: -1}
			change(p, j)
			p.enqueue(j)
			if got, ok := p.nextMoment(now); !ok || !got.Equal(soon) {
				t.Errorf("in %v, want 3 s", got.Sub(now))
			}
		})
	}
	t.Run("tokens", func(t *testing.T) {
		p := lanes(t, 1, budget.Limits{Burst: 1, PerMinute: 20})
		p.renewal = now.Add(time.Hour)
		p.lanes[0].purse.Spend(1, false, now)
		p.enqueue(&job{msg: message(t, phone1, "x"), tried: map[*lane]bool{}, index: -1})
		if got, _ := p.nextMoment(now); got.Sub(now) < 2*time.Second || got.Sub(now) > 4*time.Second {
			t.Errorf("in %v, want 3 s", got.Sub(now))
		}
	})
}

// TestReserve: what bulk must leave idle.
func TestReserve(t *testing.T) {
	now := time.Now()
	for bays, want := range map[int]int{1: 0, 2: 1, 6: 1, 7: 2, 12: 2, 16: 3, 64: 11} {
		if got := lanes(t, bays, budget.Limits{}).reserve(bays, now); got != want {
			t.Errorf("%d bays: %d, want %d", bays, got, want)
		}
	}
	p := lanes(t, 8, budget.Limits{})
	p.codes.Add(45, now) // three bays' work at 4 s each
	if got := p.reserve(8, now); got != 5 {
		t.Errorf("with three busy bays: %d, want 5", got)
	}
	p.codes.Add(24, now) // 4.6 of 8; 1.5 times that would be 7
	if got := p.reserve(8, now); got != 8 {
		t.Errorf("near the limit: %d, want all", got)
	}
}

// TestText: an operator's text that would not go out is refused when it is given.
func TestText(t *testing.T) {
	p := lanes(t, 1, budget.Limits{})
	for _, c := range []struct {
		n     int
		class Class
		ok    bool
	}{{160, OneTime, true}, {161, OneTime, false}, {4 * 153, Bulk, true}, {4*153 + 1, Bulk, false}, {0, Bulk, false}} {
		err := p.Fits(slices.Repeat([]byte("x"), c.n), c.class)
		if c.ok != (err == nil) || err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("%d characters, %v: %v", c.n, c.class, err)
		}
	}
}
