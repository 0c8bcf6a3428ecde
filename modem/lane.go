package modem

import (
	"context"
	"time"

	"custode/internal/fault"
	"custode/modem/bay"
	"custode/modem/pdu"
)

// Bay is one modem as the pool sees it; *bay.Bay is the real one. Send is called by
// one goroutine at a time. The bay reports to the pool by the methods of bay.Owner.
type Bay interface {
	// Run works until ctx ends; a Send in progress is finished first.
	Run(ctx context.Context)
	// Send returns the end of one message on this modem. It answers Untouched at
	// once when the bay is out of service.
	Send(ctx context.Context, p *bay.Parcel) bay.Outcome
	// Status never waits for the device.
	Status() bay.Status
}

// lane is a bay and what the pool knows of it. Its goroutine (feed) carries
// messages to the bay, one at a time.
type lane struct {
	place bay.Place
	bay   Bay
	wake  chan struct{}

	// Guarded by Pool.mu.
	inService, busy bool
	coolUntil       time.Time
	cooldowns       int           // network failures in a row
	handoff         time.Duration // creation to Ctrl-Z of the last message
}

func (p *Pool) newLane(place bay.Place) *lane {
	return &lane{place: place, wake: make(chan struct{}, 1), bay: p.cfg.NewBay(place, desk{p})}
}

// realBay builds the bay of a place from the pool's configuration.
func (c Config) realBay(place bay.Place, owner bay.Owner) Bay {
	t := c.Timing
	return bay.New(bay.Config{
		Place: place, Owner: owner, Log: c.Log, Now: c.Now, PINNotes: c.PINNotes, AllowSimulated: c.AllowSimulated, Open: c.OpenPort,
		Timing: bay.Timing{Prompt: t.Prompt, Receipt: t.Receipt, Listen: t.Listen, ListenOne: t.ListenOne, KeepAlive: t.KeepAlive,
			Register: t.Register, Busy: t.Busy, ReopenMin: t.ReopenMin, ReopenMax: t.ReopenMax},
	})
}

// lane finds a lane by its bay's name; nil when there is none.
func (p *Pool) lane(name string) *lane {
	for _, l := range p.lanes {
		if l.place.Name == name {
			return l
		}
	}
	return nil
}

// feed gives l's bay the best message whenever it is idle, until ctx ends.
func (p *Pool) feed(ctx context.Context, l *lane) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		}
		for ctx.Err() == nil {
			j := p.take(l)
			if j == nil {
				break
			}
			p.transact(ctx, l, j)
		}
	}
}

// transact sends one message through l and settles it in every case.
func (p *Pool) transact(ctx context.Context, l *lane, j *job) {
	// Shutdown does not cut a transaction in two: it has until Drain.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		time.AfterFunc(p.cfg.Timing.Drain, cancel)
	})()
	parcel, o, detail := p.open(work, l, j)
	if parcel == nil {
		p.settle(work, l, j, o, detail)
		return
	}
	defer parcel.Wipe()
	switch err := p.record(work, j, Sending, l.place.Name, ""); {
	case fault.Is(err, fault.Conflict):
		p.release(l, j)
		return
	case err != nil:
		// The journal does not know that the PDU would leave: it stays.
		p.cfg.Log.Error("sms held back", "message", j.msg.ID.String(), "err", err)
		p.settle(work, l, j, postponed, "not recorded")
		return
	}
	end := l.bay.Send(work, parcel)
	p.settle(work, l, j, p.judge(l, end), end.Detail)
}

// open unwraps and encodes; without a parcel the outcome says why.
func (p *Pool) open(ctx context.Context, l *lane, j *job) (*bay.Parcel, outcome, string) {
	octx, cancel := context.WithTimeout(ctx, p.cfg.Timing.Record)
	defer cancel()
	text, err := p.cfg.Opener.Unwrap(octx, j.msg.Wrapped, []byte(j.msg.ID.String()))
	if err != nil {
		switch fault.KindOf(err) {
		case fault.Invalid, fault.Denied, fault.NotFound, fault.Conflict:
			return nil, refused, "text cannot be unwrapped"
		}
		p.cfg.Log.Error("sms text not unwrapped", "message", j.msg.ID.String(), "err", err)
		return nil, postponed, "text not unwrapped"
	}
	defer clear(text)
	m := bay.Message{ID: j.msg.ID, To: j.msg.To, Text: text, Ref: byte(j.seq), MaxParts: 1,
		Validity:  max(j.msg.Expires.Sub(p.cfg.Now()), time.Second),
		SlowAfter: p.cfg.Timing.Hedge,
		Slow:      func() { p.hedge(ctx, l, j) },
		Written:   func() { p.handedOff(l, j) },
	}
	if j.msg.Class != OneTime {
		m.MaxParts = p.cfg.MaxParts
	}
	parcel, err := bay.NewParcel(m)
	if err != nil {
		return nil, refused, "text cannot be encoded"
	}
	return parcel, accepted, ""
}

// handedOff measures creation to Ctrl-Z.
func (p *Pool) handedOff(l *lane, j *job) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.handoff = p.cfg.Now().Sub(j.msg.Created)
}

// judge translates what became of an attempt into what to do with the message, and
// rests the lane when its network is to blame.
func (p *Pool) judge(l *lane, end bay.Outcome) outcome {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.cfg.Now()
	switch end.Result {
	case bay.Accepted:
		l.cooldowns = 0
		return accepted
	case bay.Doubtful:
		return doubted
	case bay.NotSent:
		return elsewhere
	case bay.Untouched:
		return untouched
	}
	switch end.Blame {
	case bay.OnNumber:
		return refused
	case bay.OnRoute:
		return unlikely
	case bay.OnNetwork:
		l.cooldowns = min(l.cooldowns+1, 6)
		l.coolUntil = now.Add(p.cfg.Timing.Retry << (l.cooldowns - 1))
	case bay.OnBusy:
		l.coolUntil = now.Add(p.cfg.Timing.Retry)
	}
	return elsewhere
}

// desk is the pool as its bays see it (bay.Owner).
type desk struct{ p *Pool }

// Serving notes that a bay came into service or left it.
func (d desk) Serving(name string, on bool) {
	l := d.p.lane(name)
	d.p.mu.Lock()
	l.inService = on
	d.p.mu.Unlock()
	d.p.signal()
	poke(d.p.nudge)
}

// Alone reports that no other bay is in service.
func (d desk) Alone(name string) bool {
	d.p.mu.Lock()
	defer d.p.mu.Unlock()
	return d.p.othersInService(d.p.lane(name)) == 0
}

// Heard takes news of a message whose sending has ended, as far as the bay knows.
// What cannot be recorded now is kept and offered to the journal again.
func (d desk) Heard(ctx context.Context, name string, n bay.News) error {
	p := d.p
	p.mu.Lock()
	j := p.jobs[n.ID]
	if j == nil {
		j = forgotten(n)
		p.jobs[n.ID] = j // what is kept for the journal must be found again
	}
	if n.Kind == bay.LateReceipt {
		j.done = true // a copy still waiting is dropped by take
	}
	hold := n.Kind == bay.Reported && j.inFlight > 0
	if hold {
		j.reports = append(j.reports, n)
	}
	p.mu.Unlock()
	switch {
	case hold:
		return nil
	case n.Kind == bay.LateReceipt:
		return p.record(ctx, j, Sent, name, n.Detail)
	}
	return p.reported(ctx, j, name, n)
}

// forgotten stands for a message the pool has finished long ago.
func forgotten(n bay.News) *job {
	j := &job{msg: Message{ID: n.ID}, index: -1, state: Sent, done: true}
	if n.Kind == bay.LateReceipt {
		j.state = MaybeSent
	}
	return j
}

// reported records what a status report says.
func (p *Pool) reported(ctx context.Context, j *job, name string, n bay.News) error {
	switch n.Fate {
	case pdu.Delivered:
		return p.record(ctx, j, Delivered, name, "")
	case pdu.Undone:
		return p.record(ctx, j, Failed, name, n.Detail)
	}
	return nil
}
