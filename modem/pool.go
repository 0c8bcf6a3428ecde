package modem

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
)

// Pool is the modems and their queue.
type Pool struct {
	cfg   Config
	lanes []*lane
	wake  chan struct{} // look into the journal
	nudge chan struct{} // look at the queue

	unrecorded atomic.Int32 // jobs with a pending step

	mu      sync.Mutex
	running bool
	jobs    map[id.MessageID]*job
	queue   jobHeap
	seq     uint64
	inDoubt map[id.MessageID]bool // what Recover found
	swept   time.Time             // last forget
}

// New builds a pool; nothing is opened and no goroutine started before Run.
// It fails with fault.Invalid.
func New(cfg Config) (*Pool, error) {
	cfg, err := cfg.validate()
	if err != nil {
		return nil, err
	}
	p := &Pool{
		cfg: cfg, wake: make(chan struct{}, 1), nudge: make(chan struct{}, 1),
		jobs: map[id.MessageID]*job{}, inDoubt: map[id.MessageID]bool{},
	}
	for _, place := range cfg.Bays {
		p.lanes = append(p.lanes, p.newLane(place))
	}
	return p, nil
}

// Wake tells the pool that the journal has new messages. It never blocks.
func (p *Pool) Wake() { poke(p.wake) }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Bays returns the state of every bay, in configuration order.
func (p *Pool) Bays() []BayStatus {
	out := make([]BayStatus, len(p.lanes))
	for i, l := range p.lanes {
		out[i] = l.bay.Status()
		p.mu.Lock()
		out[i].Handoff = l.handoff
		p.mu.Unlock()
	}
	return out
}

// Run recovers the journal and serves until ctx ends; then it lets transactions
// in progress finish (Timing.Drain) and returns nil. It fails when the journal
// cannot be recovered, and may be called once.
func (p *Pool) Run(ctx context.Context) error {
	p.mu.Lock()
	again := p.running
	p.running = true
	p.mu.Unlock()
	if again {
		return fault.Newf(fault.Conflict, "run modem pool", "already run")
	}
	events, err := p.cfg.Journal.Recover(ctx, p.cfg.Now())
	if err != nil {
		return fault.New(fault.KindOf(err), "recover SMS outbox", err)
	}
	for _, e := range events {
		if e.State == MaybeSent {
			p.inDoubt[e.ID] = true
		}
	}
	if len(events) > 0 {
		p.cfg.Log.Warn("outbox recovered", "changed", len(events), "in_doubt", len(p.inDoubt))
	}
	var actors sync.WaitGroup
	for _, l := range p.lanes {
		actors.Go(func() { l.bay.Run(ctx) })
		actors.Go(func() { p.feed(ctx, l) })
	}
	p.clerk(ctx)
	actors.Wait()
	p.flush(context.WithoutCancel(ctx))
	return nil
}

// clerk moves messages between journal and queue. It waits for events; the poll
// is only a safety net.
func (p *Pool) clerk(ctx context.Context) {
	load := true
	for {
		pause := p.cfg.Timing.Poll
		if load && !p.load(ctx) {
			pause = min(pause, time.Second)
		}
		p.signal() // first: what follows may wait for the journal
		p.expire(ctx)
		p.flush(ctx)
		p.mu.Lock()
		now := p.cfg.Now()
		p.forget(now)
		if next, ok := p.nextMoment(now); ok {
			pause = max(min(pause, next.Sub(now)), time.Millisecond)
		}
		p.mu.Unlock()
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-p.wake:
			load = true
		case <-timer.C:
			load = true
		case <-p.nudge:
			load = false
		}
		timer.Stop()
	}
}

// signal tells the bays to look at the queue.
func (p *Pool) signal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		return
	}
	for _, l := range p.lanes {
		if l.inService && !l.busy {
			poke(l.wake)
		}
	}
}

// load takes new rows from the journal; it reports success.
func (p *Pool) load(ctx context.Context) bool {
	rctx, cancel := context.WithTimeout(ctx, p.cfg.Timing.Record)
	defer cancel()
	rows, err := p.cfg.Journal.Queued(rctx, p.cfg.QueueLimit)
	if err != nil {
		if ctx.Err() == nil {
			p.cfg.Log.Error("outbox not read", "err", err)
		}
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range rows {
		if p.jobs[m.ID] != nil || m.ID.IsZero() || m.To.IsZero() {
			continue
		}
		if len(p.queue) >= p.cfg.QueueLimit && m.Class == Bulk {
			continue
		}
		p.seq++
		j := &job{msg: m, seq: p.seq, index: -1, tried: map[*lane]bool{}, refusals: m.Attempts}
		p.jobs[m.ID] = j
		if p.inDoubt[m.ID] {
			j.state, j.doubts, j.hedged = MaybeSent, 1, true
			j.done = m.Class != OneTime // a one-time code sent twice is harmless, other texts are not
		}
		p.enqueue(j)
	}
	return true
}

// forget drops finished and recorded jobs once no snapshot of the journal can
// hold them; p.mu is held.
func (p *Pool) forget(now time.Time) {
	if now.Sub(p.swept) < 10*time.Second {
		return
	}
	p.swept = now
	for k, j := range p.jobs {
		if !j.done || j.inFlight > 0 {
			continue
		}
		if j.doneAt.IsZero() {
			j.doneAt = now
		}
		if now.Sub(j.doneAt) < time.Minute || !j.rec.TryLock() {
			continue
		}
		// A journal may offer what is in doubt until its deadline.
		if j.pending == nil && (j.state != MaybeSent || now.Sub(j.msg.Expires) > time.Hour) {
			delete(p.jobs, k)
		}
		j.rec.Unlock()
	}
}

// expire ends the messages whose deadline passed.
func (p *Pool) expire(ctx context.Context) {
	p.mu.Lock()
	late := p.expired(p.cfg.Now())
	for _, j := range late {
		j.done = true
	}
	p.mu.Unlock()
	for _, j := range late {
		_ = p.record(ctx, j, Expired, "", "deadline passed")
	}
}

// allowed says whether a message may go from one state to another. A receipt is
// never taken back by the failure of a second copy.
func allowed(from, to State) bool {
	switch from {
	case Delivered, Expired:
		return false
	case Failed, Cancelled:
		return to == Delivered || to == Sent
	case Sent:
		return to == Delivered || to == Failed
	case MaybeSent:
		return to != Queued && to != Expired && to != MaybeSent
	default:
		return true
	}
}

// errOvertaken stops a second copy whose first was accepted meanwhile.
var errOvertaken = fault.Newf(fault.Conflict, "send SMS", "the other copy was accepted")

// record makes a step durable. A step the journal cannot take is kept and offered
// again by the clerk, except Sending, on which the caller must not go on. A step
// it refuses for good (fault.Conflict) ends the message for the pool.
func (p *Pool) record(ctx context.Context, j *job, to State, bay, detail string) error {
	j.rec.Lock()
	defer j.rec.Unlock()
	if !allowed(j.state, to) {
		if to == Sending {
			return errOvertaken
		}
		return nil
	}
	if to == Sending && j.pending != nil {
		// The journal is a step behind: it would take this one for a conflict.
		if err := p.write(ctx, *j.pending); err != nil && !fault.Is(err, fault.Conflict) {
			return err
		}
		p.clearPending(j)
	}
	e := Event{ID: j.msg.ID, State: to, Bay: bay, Detail: detail, At: p.cfg.Now()}
	err := p.write(ctx, e)
	switch {
	case err == nil:
		p.clearPending(j)
	case fault.Is(err, fault.Conflict):
		p.clearPending(j)
		p.overruled(j, to, err)
		return err
	case to == Sending:
		return err
	default:
		if j.pending == nil {
			p.unrecorded.Add(1)
		}
		j.pending = &e
		p.cfg.Log.Error("outbox not written, will try again", "message", e.ID.String(), "state", to.String(), "err", err)
	}
	j.state = to
	p.cfg.Log.Info("sms", "message", e.ID.String(), "state", to.String(), "bay", bay, "detail", detail)
	return err
}

// overruled lets go of a message that somebody else finished or cancelled in the
// journal. A copy on the air stays there.
func (p *Pool) overruled(j *job, to State, err error) {
	p.mu.Lock()
	j.done = true // take drops it from the queue
	p.mu.Unlock()
	p.cfg.Log.Info("sms dropped, the outbox has it finished or cancelled", "message", j.msg.ID.String(), "step", to.String(), "err", err)
}

func (p *Pool) write(ctx context.Context, e Event) error {
	// A step that happened is written even while the pool shuts down.
	rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.cfg.Timing.Record)
	defer cancel()
	return p.cfg.Journal.Record(rctx, e)
}

// clearPending forgets an unrecorded step; j.rec is held.
func (p *Pool) clearPending(j *job) {
	if j.pending != nil {
		j.pending = nil
		p.unrecorded.Add(-1)
	}
}

// flush offers the journal what it refused.
func (p *Pool) flush(ctx context.Context) {
	if p.unrecorded.Load() == 0 {
		return
	}
	p.mu.Lock()
	all := make([]*job, 0, len(p.jobs))
	for _, j := range p.jobs {
		all = append(all, j)
	}
	p.mu.Unlock()
	for _, j := range all {
		j.rec.Lock()
		if j.pending != nil {
			switch err := p.write(ctx, *j.pending); {
			case err == nil:
				p.clearPending(j)
			case fault.Is(err, fault.Conflict):
				p.overruled(j, j.pending.State, err)
				p.clearPending(j)
			}
		}
		j.rec.Unlock()
	}
}

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

// settle ends an attempt of l on j: it records the step and, when the message
// is to be tried again, puts it back. The record comes first, so that it cannot
// overtake the next attempt's.
func (p *Pool) settle(ctx context.Context, l *lane, j *job, o outcome, detail string) {
	p.mu.Lock()
	now := p.cfg.Now()
	j.inFlight--
	l.busy = false
	if o != postponed && o != untouched {
		j.tried[l] = true
	}
	if j.waiting == l { // its doubt was counted by hedge; o decides now
		j.waiting = nil
		j.doubts--
	}
	again, to := false, Sent
	switch o {
	case accepted:
	case doubted:
		j.doubts++
		to = MaybeSent
		if j.msg.Class == OneTime && !j.hedged && len(p.lanes) > 1 {
			j.hedged, again = true, true
		}
	case untouched:
		again, to = true, Queued
	case postponed:
		again, to, j.retryAt = true, Queued, now.Add(time.Second)
	case refused:
		to = Failed
	case unlikely, elsewhere:
		j.refusals++
		if o == unlikely {
			j.refusals++
		}
		if j.refusals >= p.cfg.MaxAttempts {
			to, detail = Failed, detail+", attempts used up"
			break
		}
		again, to = true, Queued
		if !p.otherCouldTry(l, j, p.cfg.Now()) {
			j.retryAt = now.Add(min(p.cfg.Timing.Retry<<(j.refusals-1), time.Minute))
		}
	}
	if (to == Failed || to == Queued) && j.doubts > 0 {
		to = MaybeSent // a copy may have arrived: the failure of the other proves nothing
	}
	again = again && j.inFlight == 0 // else the other copy's end decides
	if to == Sent || !again && j.index < 0 && j.inFlight == 0 {
		j.done = true
	}
	p.mu.Unlock()
	_ = p.record(ctx, j, to, l.place.Name, detail)
	p.mu.Lock()
	reports := j.reports
	j.reports = nil
	if again {
		p.enqueue(j)
	}
	p.mu.Unlock()
	for _, n := range reports {
		_ = p.reported(ctx, j, l.place.Name, n)
	}
	p.signal()
	poke(p.nudge)
}

// release ends an attempt of l on a message the journal does not let out: nothing
// is recorded, nobody is to blame, nothing is tried again.
func (p *Pool) release(l *lane, j *job) {
	p.mu.Lock()
	j.inFlight--
	l.busy = false
	j.done = true
	p.mu.Unlock()
	p.signal()
	poke(p.nudge)
}

// hedge grants a one-time code that waits long for its receipt a second copy on another
// bay; l goes on waiting.
func (p *Pool) hedge(ctx context.Context, l *lane, j *job) {
	p.mu.Lock()
	grant := j.msg.Class == OneTime && !j.hedged && !j.done && p.otherCouldTry(l, j, p.cfg.Now())
	if grant {
		j.tried[l], j.hedged, j.waiting = true, true, l
		j.doubts++
	}
	p.mu.Unlock()
	if !grant {
		return
	}
	_ = p.record(ctx, j, MaybeSent, l.place.Name, "no receipt yet, second copy on another modem")
	p.mu.Lock()
	p.enqueue(j)
	p.mu.Unlock()
	p.signal()
}
