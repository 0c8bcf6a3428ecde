package modem

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/modem/modemtest"
)

// cancel makes f answer every further step of m but a receipt with Conflict, as
// an outbox does whose owner cancelled the message. It returns the count of
// refusals by state; read it after the pool stopped.
func (f *fakeJournal) cancel(m id.MessageID) map[State]int {
	asked := map[State]int{}
	f.setRefuse(func(e Event) error {
		if e.ID != m || e.State == Sent || e.State == Delivered {
			return nil
		}
		asked[e.State]++
		return fault.Newf(fault.Conflict, "record", "cancelled")
	})
	return asked
}

func (r *rig) wantQuiet(t *testing.T) {
	t.Helper()
	for line := range strings.Lines(r.log.String()) {
		if strings.Contains(line, "level=ERROR") || strings.Contains(line, "level=WARN") {
			t.Errorf("alarming: %s", line)
		}
	}
	if n := r.pool.unrecorded.Load(); n != 0 {
		t.Errorf("%d steps still to be recorded", n)
	}
}

// TestCancelledIsDropped: a message whose Sending is refused with Conflict leaves
// the queue at once; the modem is not blamed and goes on with the next.
func TestCancelledIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, ports := scripted(t, Config{}, modemtest.Polite(nil))
		r.waitBay(t, 0, isReady)
		m := message(t, phone1, "vecchio")
		asked := r.journal.cancel(m.ID)
		next := message(t, phone1, "nuovo")
		next.Expires = m.Expires.Add(time.Second)
		r.journal.put(m, Queued) // and stays offered, as by a slow reader
		r.journal.put(next, Queued)
		began := time.Now()
		r.pool.Wake()
		r.journal.wait(t, next.ID, Sent)
		if took := time.Since(began); took != 0 {
			t.Errorf("the next message waited %v", took)
		}
		time.Sleep(30 * time.Second)
		status := r.pool.Bays()[0]
		if status.State != Ready || status.LastError != "" || status.Refused != 0 || status.Doubtful != 0 || status.Sent != 1 {
			t.Errorf("the modem is blamed: %+v", status)
		}
		r.stop()
		if d := cmp.Diff([]string{"nuovo"}, sentTexts(t, ports(0))); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff(map[State]int{Sending: 1}, asked); d != "" {
			t.Errorf("asked of the journal:\n%s", d)
		}
		if !strings.Contains(r.log.String(), "level=INFO msg=\"sms dropped") {
			t.Error("the log does not tell of it")
		}
		r.wantQuiet(t)
	})
}

// TestCancelledSecondCopy: a code that is cancelled while its first copy is on
// the air gets no second one; the late receipt of the first is recorded.
func TestCancelledSecondCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func() func(*modemtest.Port, string) {
			polite := silent()
			return func(p *modemtest.Port, got string) {
				polite(p, got)
				if strings.HasSuffix(got, "\x1a") {
					time.AfterFunc(30*time.Second, func() { p.Say("+CMGS: 9", "OK") })
				}
			}
		}
		r, ports := scripted(t, Config{}, slow(), slow())
		r.waitBay(t, 0, isReady)
		r.waitBay(t, 1, isReady)
		m := r.submit(t, phone1, "uno")
		r.journal.setRefuse(func(e Event) error {
			if e.State == Sending && r.journal.rows[e.ID].state == MaybeSent {
				return fault.Newf(fault.Conflict, "record", "cancelled")
			}
			return nil
		})
		time.Sleep(time.Minute)
		if d := cmp.Diff([]State{Sending, MaybeSent, Sent}, r.journal.states(m.ID)); d != "" {
			t.Error(d)
		}
		for i := range 2 {
			if s := r.pool.Bays()[i]; s.State != Ready || s.LastError != "" {
				t.Errorf("bay %d: %+v", i, s)
			}
		}
		r.stop()
		if n := len(sentTexts(t, ports(0))) + len(sentTexts(t, ports(1))); n != 1 {
			t.Errorf("%d copies", n)
		}
		r.wantQuiet(t)
	})
}

// TestRefusedStepIsNotRepeated: the same for the other steps. A step that was
// kept because of trouble and is then refused for good is forgotten, too.
func TestRefusedStepIsNotRepeated(t *testing.T) {
	for name, first := range map[string]fault.Kind{"at once": fault.Conflict, "after trouble": fault.Unavailable} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, ports := scripted(t, Config{}, modemtest.Polite(map[string][]string{"PDU": {"+CMS ERROR: 27"}}))
				r.waitBay(t, 0, isReady)
				m := message(t, phone1, "uno")
				var asked []State
				kind := first
				r.journal.setRefuse(func(e Event) error {
					asked = append(asked, e.State)
					if e.State == Sending && len(asked) == 1 {
						return nil
					}
					defer func() { kind = fault.Conflict }()
					return fault.Newf(kind, "record", "no")
				})
				r.journal.put(m, Queued)
				r.pool.Wake()
				time.Sleep(30 * time.Second)
				r.stop()
				want := []State{Sending, Queued}
				if first != fault.Conflict {
					want = append(want, Queued)
				}
				if d := cmp.Diff(want, asked); d != "" {
					t.Errorf("asked of the journal:\n%s", d)
				}
				if n := len(sentTexts(t, ports(0))); n != 1 {
					t.Errorf("%d copies", n)
				}
				if n := r.pool.unrecorded.Load(); n != 0 {
					t.Errorf("%d steps still to be recorded", n)
				}
			})
		})
	}
}

// TestSendingWaitsForThePendingStep: a journal that is a step behind, because it
// was in trouble, would take the next Sending for a second claim.
func TestSendingWaitsForThePendingStep(t *testing.T) {
	j := newFakeJournal()
	m := message(t, phone1, "uno")
	j.put(m, Sending)
	down := true
	j.setRefuse(func(e Event) error {
		switch {
		case down:
			return fault.Newf(fault.Unavailable, "record", "down")
		case e.State == Sending && j.rows[e.ID].state == Sending:
			return fault.Newf(fault.Conflict, "record", "sent by somebody")
		}
		return nil
	})
	pool, err := New(Config{Bays: []BayConfig{{Name: "a", Device: "/dev/a"}}, Journal: j, Opener: fakeOpener{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	job := &job{msg: m, state: Sending}
	if err := pool.record(t.Context(), job, Event{State: Queued, Bay: "a"}); !fault.Is(err, fault.Unavailable) {
		t.Fatal(err)
	}
	if err := pool.record(t.Context(), job, Event{State: Sending, Bay: "a"}); !fault.Is(err, fault.Unavailable) || job.done {
		t.Errorf("while the journal is down: %v, done %v", err, job.done)
	}
	down = false
	if err := pool.record(t.Context(), job, Event{State: Sending, Bay: "a"}); err != nil || job.done {
		t.Errorf("the journal is back: %v, done %v", err, job.done)
	}
	if d := cmp.Diff([]State{Queued, Sending}, j.states(m.ID)); d != "" {
		t.Error(d)
	}
	if n := pool.unrecorded.Load(); n != 0 {
		t.Errorf("%d steps still to be recorded", n)
	}
}
