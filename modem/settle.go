package modem

import (
	"container/heap"
	"context"
	"time"

	"custode/modem/bay"
	"custode/modem/pdu"
)

// outcome is how one attempt of a bay ended.
type outcome uint8

const (
	accepted  outcome = iota
	refused           // the message is bad: final
	unlikely          // refused for a passing reason that is mostly the number's: fewer tries
	elsewhere         // refused here, or not sent at all: try on
	postponed         // our own trouble: the attempt does not count
	doubted           // the PDU left and no answer came
	untouched         // the bay left service before it looked at the message
)

// attempt is one try of one lane on one job, and what the record tells of it.
type attempt struct {
	lane    *lane
	job     *job
	card    string
	parts   int
	handoff time.Duration // acceptance to Ctrl-Z; 0 when it did not come to that
	submit  time.Duration
}

// event is what the trail keeps of the attempt's step.
func (a *attempt) event(to State, detail string) Event {
	return Event{State: to, Bay: a.lane.place.Name, Card: a.card, Parts: a.parts, Handoff: a.handoff, Submit: a.submit, Detail: detail}
}

// settle ends an attempt: it records the step and, when the message is to be
// tried again, puts it back. The record comes first, so that it cannot overtake
// the next attempt's.
func (p *Pool) settle(ctx context.Context, a *attempt, o outcome, detail string) {
	l, j := a.lane, a.job
	p.mu.Lock()
	j.inFlight--
	if o != postponed && o != untouched {
		j.tried[l] = true
	}
	if j.waiting == l { // its doubt was counted by hedge; o decides now
		j.waiting = nil
		j.doubts--
	}
	to, again, detail := p.conclude(a, o, detail)
	if (to == Failed || to == Queued) && j.doubts > 0 {
		to = MaybeSent // a copy may have arrived: the failure of the other proves nothing
	}
	onAir := j.inFlight > 0 && (to == Failed || to == Queued)
	if onAir && to == Failed {
		j.refusals = p.cfg.MaxAttempts // the other copy is the last
	}
	again = again && j.inFlight == 0 // else the other copy's end decides
	if j.index >= 0 {
		heap.Fix(&p.queue, j.index) // a refusal changed its place
	}
	if to == Sent || !again && j.index < 0 && j.inFlight == 0 {
		j.done = true
	}
	p.mu.Unlock()
	if onAir {
		// Nothing to record: "queued" or "failed" would be untrue while the other
		// copy is with a modem, and after a crash that one would go out unsuspected.
		p.cfg.Log.Info("sms: one of two copies ended", "message", j.msg.ID.String(), "bay", l.place.Name, "detail", detail)
	} else {
		_ = p.record(ctx, j, a.event(to, detail))
	}
	p.mu.Lock()
	l.busy = false // only now: the record belongs to the attempt
	reports := j.reports
	j.reports = nil
	if again {
		p.enqueue(j)
	}
	p.mu.Unlock()
	for _, n := range reports {
		_ = p.reported(ctx, j, l, n)
	}
	p.dispatch()
	poke(p.nudge)
}

// conclude says what becomes of a message after one attempt; p.mu is held.
func (p *Pool) conclude(a *attempt, o outcome, detail string) (to State, again bool, _ string) {
	l, j, now := a.lane, a.job, p.cfg.Now()
	switch o {
	case accepted:
		p.marks.clear(j.msg.To)
		return Sent, false, detail
	case doubted:
		j.doubts++
		if j.msg.Class == OneTime && !j.hedged && len(p.lanes) > 1 {
			j.hedged = true
			return MaybeSent, true, detail
		}
		return MaybeSent, false, detail
	case untouched:
		return Queued, true, detail
	case postponed:
		j.retryAt = now.Add(time.Second)
		return Queued, true, detail
	case refused:
		p.marks.note(j.msg.To, l.operator, now)
		return Failed, false, detail
	}
	j.refusals++
	if o == unlikely {
		j.refusals++
		if p.marks.note(j.msg.To, l.operator, now) {
			return Failed, false, detail + ", refused by two operators"
		}
		if len(j.tried) > 1 && !p.othersFit(l, func(o *lane) bool { return !j.sameOperator(o) }) {
			return Failed, false, detail + ", refused twice and no other operator is there"
		}
	}
	if j.refusals >= p.cfg.MaxAttempts {
		return Failed, false, detail + ", attempts used up"
	}
	if !p.otherCouldTry(l, j, now) {
		j.retryAt = now.Add(min(p.cfg.Timing.Retry<<(j.refusals-1), time.Minute))
	}
	return Queued, true, detail
}

// release ends an attempt on a message the journal does not let out: nothing is
// recorded, nobody is to blame, nothing is tried again.
func (p *Pool) release(a *attempt) {
	p.mu.Lock()
	a.job.inFlight--
	a.lane.busy = false
	a.job.done = true
	p.mu.Unlock()
	p.dispatch()
	poke(p.nudge)
}

// hedge grants a one-time code that waits long for its receipt a second copy on another
// bay; the first goes on waiting.
func (p *Pool) hedge(ctx context.Context, a *attempt) {
	l, j := a.lane, a.job
	p.mu.Lock()
	grant := j.msg.Class == OneTime && !j.hedged && !j.done && p.otherCouldTry(l, j, p.cfg.Now())
	if grant {
		j.tried[l], j.hedged, j.waiting = true, true, l
		j.doubts++
		l.hedges++
	}
	p.mu.Unlock()
	if !grant {
		return
	}
	_ = p.record(ctx, j, a.event(MaybeSent, "no receipt yet, second copy on another modem"))
	p.mu.Lock()
	p.enqueue(j)
	p.mu.Unlock()
	p.dispatch()
}

// hedgeAfter is how long a code waits for its receipt on l before it gets a
// second copy: what all but one in a hundred of l's take, between a third of and
// the whole configured wait; p.mu is held.
func (p *Pool) hedgeAfter(l *lane) time.Duration {
	most := p.cfg.Timing.Hedge
	if p99, n := l.submit.Quantile(0.99); n >= 100 {
		return min(max(p99, most/3), most)
	}
	return most
}

// reported records what a status report says.
func (p *Pool) reported(ctx context.Context, j *job, l *lane, n bay.News) error {
	e := Event{Bay: l.place.Name, Card: p.cardIn(l), Detail: n.Detail}
	switch n.Fate {
	case pdu.Delivered:
		e.State = Delivered
		p.mu.Lock()
		if !j.sentAt.IsZero() {
			l.delivery.Add(p.cfg.Now().Sub(j.sentAt))
		}
		p.mu.Unlock()
	case pdu.Undone:
		e.State = Failed
	default:
		return nil
	}
	return p.record(ctx, j, e)
}
