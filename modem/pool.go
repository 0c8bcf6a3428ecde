package modem

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/modem/alarm"
	"custode/modem/meter"
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
	swept   time.Time // last forget
	renewal time.Time // when Recover is due
	began   time.Time
	calm    time.Time // when codes last were fewer than the bays carry well
	dark    time.Time // since when no bay serves; zero while one does
	codes   meter.Rate
	handoff [classes]meter.Span // acceptance to the first hand-over
	ends    [Cancelled + 1]uint64
	marks   marks
	alarms  alarm.Set
	fading  map[fadingAlarm]time.Time
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
		jobs: map[id.MessageID]*job{}, codes: meter.Rate{Memory: time.Minute}, fading: map[fadingAlarm]time.Time{},
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
		out[i].Handoff = l.lastHandoff
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
	if _, err := p.renew(ctx); err != nil {
		return fault.New(fault.KindOf(err), "recover SMS outbox", err)
	}
	p.mu.Lock()
	p.began = p.cfg.Now()
	p.dark, p.calm = p.began, p.began
	p.mu.Unlock()
	// The bays work until nobody gives them messages: what is recorded as leaving
	// then leaves.
	live, stopBays := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBays()
	var bays, feeders sync.WaitGroup
	for _, l := range p.lanes {
		bays.Go(func() { l.bay.Run(live) })
		feeders.Go(func() { p.feed(ctx, l) })
	}
	p.clerk(ctx)
	feeders.Wait()
	stopBays()
	bays.Wait()
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
		p.dispatch() // first: what follows may wait for the journal
		p.expire(ctx)
		p.flush(ctx)
		load = p.keepClaims(ctx)
		p.openPurses(ctx)
		p.lookAround()
		p.mu.Lock()
		now := p.cfg.Now()
		p.forget(now)
		if load {
			pause = 0
		}
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
		}
		timer.Stop()
	}
}

// renew renews this process's claims and takes over what dead processes left.
func (p *Pool) renew(ctx context.Context) (changed bool, err error) {
	rctx, cancel := context.WithTimeout(ctx, p.cfg.Timing.Record)
	defer cancel()
	now := p.cfg.Now()
	events, err := p.cfg.Journal.Recover(rctx, now)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.renewal = now.Add(min(p.cfg.Timing.Lease, time.Second)) // not at once: a full disk stays full for a while
		return false, err
	}
	p.renewal = now.Add(p.cfg.Timing.Lease)
	doubtful, news := 0, 0
	for _, e := range events {
		if p.jobs[e.ID] == nil {
			news++
			if e.State == MaybeSent {
				doubtful++
			}
		}
	}
	if news > 0 {
		p.cfg.Log.Warn("outbox recovered", "changed", news, "in_doubt", doubtful)
	}
	return news > 0, nil
}

// keepClaims renews when it is time; it reports that there is something to load.
func (p *Pool) keepClaims(ctx context.Context) bool {
	p.mu.Lock()
	due := !p.cfg.Now().Before(p.renewal)
	p.mu.Unlock()
	if !due || ctx.Err() != nil {
		return false
	}
	changed, err := p.renew(ctx)
	p.trouble(ctx, "claims not renewed", err)
	return changed
}

// trouble raises or clears the alarm of the outbox.
func (p *Pool) trouble(ctx context.Context, what string, err error) {
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		p.cfg.Log.Error("outbox: "+what, "err", err)
	}
	p.alarm(alarm.Storage, "", err != nil, what)
}

// load takes new rows from the journal; it reports success.
func (p *Pool) load(ctx context.Context) bool {
	rctx, cancel := context.WithTimeout(ctx, p.cfg.Timing.Record)
	defer cancel()
	rows, err := p.cfg.Journal.Queued(rctx, p.cfg.QueueLimit)
	p.trouble(ctx, "not read", err)
	if err != nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.cfg.Now()
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
		if m.Class == OneTime {
			p.codes.Add(1, now)
		}
		if m.InDoubt {
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
		_ = p.record(ctx, j, Event{State: Expired, Detail: "deadline passed"})
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

// record makes a step durable; e's identifier and moment are filled in. A step the
// journal cannot take is kept and offered again by the clerk, except Sending, on
// which the caller must not go on. A step it refuses for good (fault.Conflict) ends
// the message for the pool.
func (p *Pool) record(ctx context.Context, j *job, e Event) error {
	j.rec.Lock()
	defer j.rec.Unlock()
	if !allowed(j.state, e.State) {
		if e.State == Sending {
			return errOvertaken
		}
		return nil
	}
	if e.State == Sending && j.pending != nil {
		// The journal is a step behind: it would take this one for a conflict.
		if err := p.write(ctx, *j.pending); err != nil && !fault.Is(err, fault.Conflict) {
			return err
		}
		p.clearPending(j)
	}
	e.ID, e.At = j.msg.ID, p.cfg.Now()
	err := p.write(ctx, e)
	switch {
	case err == nil:
		p.clearPending(j)
	case fault.Is(err, fault.Conflict):
		p.clearPending(j)
		p.overruled(j, e.State, err)
		return err
	case e.State == Sending:
		return err
	default:
		if j.pending == nil {
			p.unrecorded.Add(1)
		}
		j.pending = &e
		p.cfg.Log.Error("outbox not written, will try again", "message", e.ID.String(), "state", e.State.String(), "err", err)
	}
	j.state = e.State
	p.mu.Lock()
	p.ends[e.State]++
	p.mu.Unlock()
	p.cfg.Log.Info("sms", "message", e.ID.String(), "state", e.State.String(), "bay", e.Bay, "detail", e.Detail)
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
