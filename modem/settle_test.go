package modem

import (
	"slices"
	"strings"
	"testing"
	"time"

	"custode/internal/fault"
	"custode/modem/budget"
)

// TestBrokenOutboxCostsNothing: while a full disk refuses the renewal of claims, the
// clerk asks now and then. It neither spins nor fills the log (and the disk) with
// its complaint; when the disk is well again, so is the pool.
func TestBrokenOutboxCostsNothing(t *testing.T) {
	bubble(t, Config{}, []*radio{{}}, func(t *testing.T, r *rig) {
		before := r.journal.setBroken(fault.Newf(fault.Unavailable, "renew", "database or disk is full"))
		time.Sleep(time.Minute)
		asked := r.journal.setBroken(nil) - before
		if asked < 2 || asked > 60 {
			t.Errorf("claims were to be renewed %d times within a minute", asked)
		}
		if n := strings.Count(r.log.String(), "\n"); n > 200 {
			t.Errorf("%d lines in the log", n)
		}
		r.journal.wait(t, r.submit(t, phone1, "dopo").ID, Sent)
	})
}

// TestCopyOnTheAirIsNotQueued: the end of the first copy does not make the journal say
// "queued" while the second is on the air. A crash then would send a third one that
// nobody doubts.
func TestCopyOnTheAirIsNotQueued(t *testing.T) {
	for name, first := range map[string][]string{"network": {"+CMS ERROR: 42"}, "modem": {"ERROR"}, "number": {"+CMS ERROR: 1"}} {
		t.Run(name, func(t *testing.T) {
			tries := 0 // whichever modem is asked first refuses
			answer := func(string, string) (time.Duration, []string) {
				if tries++; tries == 1 {
					return 20 * time.Second, first
				}
				return 30 * time.Second, nil
			}
			a, b := &radio{imsi: "222010000000001", answer: answer}, &radio{imsi: "222880000000001", answer: answer}
			bubble(t, Config{}, []*radio{a, b}, func(t *testing.T, r *rig) {
				m := r.submit(t, phone1, "codice")
				time.Sleep(25 * time.Second) // the first has ended, the second has not
				if s := r.journal.state(m.ID); s == Queued || s == Failed {
					t.Errorf("the outbox says %v while a copy is on the air: %v", s, r.journal.states(m.ID))
				}
				r.journal.wait(t, m.ID, Sent)
				if states := r.journal.states(m.ID); slices.Contains(states, Queued) {
					t.Errorf("steps %v", states)
				}
				if n := len(a.texts()) + len(b.texts()); n != 2 {
					t.Errorf("%d copies", n)
				}
			})
		})
	}
}

// TestSettledJob: what the end of one copy leaves in the job.
func TestSettledJob(t *testing.T) {
	p := lanes(t, 2, budget.Limits{})
	l := p.lanes[0]
	for _, l := range p.lanes {
		l.drained = true // nothing is dispatched
	}
	add := func(life time.Duration) *job {
		m := message(t, phone1, "x")
		m.Expires = time.Now().Add(life)
		p.cfg.Journal.(*fakeJournal).put(m, Queued)
		j := &job{msg: m, tried: map[*lane]bool{}, index: -1, inFlight: 1}
		p.jobs[m.ID] = j
		return j
	}
	j := add(time.Minute)
	p.settle(t.Context(), &attempt{lane: l, job: j}, untouched, "")
	if j.tried[l] || j.index < 0 || j.refusals != 0 {
		t.Errorf("a message that the bay did not look at: %+v", j)
	}
	// The second copy waits; the refusal of the first moves it behind the fresh ones.
	fresh := add(time.Hour)
	p.enqueue(fresh)
	j.inFlight, j.hedged = 1, true
	if p.queue[0] != j {
		t.Fatal("the nearer deadline is not first")
	}
	p.settle(t.Context(), &attempt{lane: l, job: j}, elsewhere, "")
	if p.queue[0] != fresh || !j.tried[l] {
		t.Errorf("a refused message is before a fresh one: %+v", j)
	}
}
