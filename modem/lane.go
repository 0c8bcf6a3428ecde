package modem

import (
	"context"
	"math"
	"time"

	"custode/internal/fault"
	"custode/modem/bay"
	"custode/modem/budget"
	"custode/modem/meter"
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

// Further powers of a bay, found by type assertion.
type (
	// carded tells the IMSI of the card in it, "" when none is known.
	carded interface{ Card() string }
	// prober asks an idle modem for signal and registration.
	prober interface {
		Check(ctx context.Context) error
	}
)

// task is what the pool asks of a lane: a message, or a probe.
type task struct {
	job   *job
	probe bool
}

// lane is a bay and what the pool knows of it. Its goroutine (feed) carries
// messages to the bay, one at a time.
type lane struct {
	place bay.Place
	bay   Bay
	work  chan task

	// Guarded by Pool.mu.
	inService, busy, drained bool
	lent                     int // operators' questions to the modem
	breaker                  breaker
	card, operator           string // IMSI; country and network of the card
	purse                    *budget.Purse
	lastHandoff              time.Duration // creation to Ctrl-Z of the last message
	submitTime, errors       meter.Average // seconds; share of attempts that the bay failed
	handoff, submit          meter.Span    // of messages that are not bulk; of all
	delivery                 meter.Span
	hedges                   uint64
	measured                 time.Time // last attempt; zero before the first
}

// priorSubmit is what a submission is expected to take (seconds) before a bay
// was measured.
const priorSubmit = 4.0

func (p *Pool) newLane(place bay.Place) *lane {
	return &lane{place: place, work: make(chan task, 1), bay: p.cfg.NewBay(place, desk{p}),
		submitTime: meter.Average{Weight: 0.2, Value: priorSubmit}, errors: meter.Average{Weight: 0.1}}
}

// fit reports that the lane takes messages, now or when it is idle again.
func (l *lane) fit() bool { return l.inService && !l.drained && !l.breaker.open }

// idle reports that the lane can take a message now.
func (l *lane) idle() bool { return l.fit() && !l.busy && l.lent == 0 }

// affords reports that the card may send one more message now.
func (l *lane) affords(bulk bool, now time.Time) bool {
	if l.purse == nil {
		return false
	}
	ok, _ := l.purse.CanSpend(bulk, now)
	return ok
}

// cardIn is the IMSI of l's card.
func (p *Pool) cardIn(l *lane) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return l.card
}

// measure takes the time of an attempt and whether the bay failed it.
func (l *lane) measure(took time.Duration, failed bool, now time.Time) {
	if took > 0 && l.measured.IsZero() {
		l.submitTime.Value = took.Seconds() // what was only assumed does not count
	}
	if took > 0 {
		l.submitTime.Add(took.Seconds())
	}
	share := 0.0
	if failed {
		share = 1
	}
	l.errors.Add(share)
	l.measured = now
}

// forget is how long a measure counts: a bay that was slow then is tried again.
const forget = 10 * time.Minute

// score is the expected cost of a submission in seconds: the measured time, longer
// for a bay that fails. A bay that was not measured, or long ago, is taken for an
// average one.
func (l *lane) score(average float64, now time.Time) float64 {
	if l.measured.IsZero() {
		return average
	}
	fresh := math.Exp(-now.Sub(l.measured).Seconds() / forget.Seconds())
	return fresh*l.submitTime.Value*(1+l.errors.Value) + (1-fresh)*average
}

func (l *lane) spentToday(now time.Time) int {
	if l.purse == nil {
		return 0
	}
	return l.purse.Left(now).SpentDay
}

// realBay builds the bay of a place from the pool's configuration.
func (c Config) realBay(place bay.Place, owner bay.Owner) Bay {
	t := c.Timing
	var power bay.Power
	if c.Power != nil {
		power = c.Power(place.Name)
	}
	return bay.New(bay.Config{
		Place: place, Owner: owner, Log: c.Log, Now: c.Now, PINNotes: c.PINNotes, AllowSimulated: c.AllowSimulated, Open: c.OpenPort,
		Profiles: c.Profiles, Power: power,
		Timing: bay.Timing{Prompt: t.Prompt, Receipt: t.Receipt, Listen: t.Listen, ListenOne: t.ListenOne, KeepAlive: t.KeepAlive,
			Register: t.Register, Busy: t.Busy, Boot: t.Boot, Lost: t.Lost, Inbox: t.Inbox, RungRest: t.RungRest,
			ReopenMin: t.ReopenMin, ReopenMax: t.ReopenMax, AlarmEvery: t.AlarmEvery},
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

// feed carries out l's tasks until ctx ends.
func (p *Pool) feed(ctx context.Context, l *lane) {
	for {
		select {
		case <-ctx.Done():
			return
		case t := <-l.work:
			if t.probe {
				p.tryOut(ctx, l)
			} else {
				p.transact(ctx, &attempt{lane: l, job: t.job})
			}
		}
	}
}

// tryOut probes a bay whose breaker is open.
func (p *Pool) tryOut(ctx context.Context, l *lane) {
	var err error
	if b, ok := l.bay.(prober); ok {
		pctx, cancel := context.WithTimeout(ctx, p.cfg.Timing.Prompt)
		err = b.Check(pctx)
		cancel()
	}
	p.mu.Lock()
	l.busy = false
	if err == nil {
		l.breaker.probedWell()
	} else {
		l.breaker.probedBadly(p.cfg.Now(), p.cfg.Timing.Retry)
	}
	p.mu.Unlock()
	if err != nil {
		p.cfg.Log.Warn("modem still fails", "bay", l.place.Name, "err", err)
	}
	p.dispatch()
	poke(p.nudge)
}

// transact makes one attempt and settles it in every case.
func (p *Pool) transact(ctx context.Context, a *attempt) {
	l, j := a.lane, a.job
	// Shutdown does not cut a transaction in two: it has until Drain.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		time.AfterFunc(p.cfg.Timing.Drain, cancel)
	})()
	parcel, o, detail := p.open(work, a)
	if parcel == nil {
		p.settle(work, a, o, detail)
		return
	}
	defer parcel.Wipe()
	p.mu.Lock()
	a.card, a.parts = l.card, parcel.Parts()
	p.mu.Unlock()
	switch err := p.record(work, j, a.event(Sending, "")); {
	case fault.Is(err, fault.Conflict):
		p.release(a)
		return
	case err != nil:
		// The journal does not know that the PDU would leave: it stays.
		p.cfg.Log.Error("sms held back", "message", j.msg.ID.String(), "err", err)
		p.settle(work, a, postponed, "not recorded")
		return
	}
	p.mu.Lock()
	if l.purse != nil {
		l.purse.Spend(a.parts, j.msg.Class == Bulk, p.cfg.Now())
	}
	p.mu.Unlock()
	end := l.bay.Send(work, parcel)
	p.settle(work, a, p.judge(a, end), end.Detail)
}

// open unwraps and encodes; without a parcel the outcome says why.
func (p *Pool) open(ctx context.Context, a *attempt) (*bay.Parcel, outcome, string) {
	j := a.job
	if p.cfg.Numbers.Accept(j.msg.To) != nil {
		return nil, refused, "no messages go to such numbers"
	}
	octx, cancel := context.WithTimeout(ctx, p.cfg.Timing.Record)
	defer cancel()
	if j.msg.Class == Bulk && p.cfg.Accounts != nil {
		switch out, err := p.cfg.Accounts.OptedOut(octx, j.msg.To); {
		case err != nil:
			return nil, postponed, "opt-outs not read"
		case out:
			return nil, refused, "the recipient opted out"
		}
	}
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
		Validity: max(j.msg.Expires.Sub(p.cfg.Now()), time.Second),
		Slow:     func() { p.hedge(ctx, a) },
		Written:  func() { p.handedOff(a) },
	}
	p.mu.Lock()
	m.SlowAfter = p.hedgeAfter(a.lane)
	p.mu.Unlock()
	if j.msg.Class != OneTime {
		m.MaxParts = p.cfg.MaxParts
	}
	parcel, err := bay.NewParcel(m)
	if err != nil {
		return nil, refused, "text cannot be encoded"
	}
	return parcel, accepted, ""
}

// handedOff measures creation to Ctrl-Z, of a message's first copy for the spans.
func (p *Pool) handedOff(a *attempt) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l, j := a.lane, a.job
	a.handoff = max(p.cfg.Now().Sub(j.msg.Created), 1) // 0 means never
	l.lastHandoff = a.handoff
	if j.left || j.msg.InDoubt {
		return
	}
	j.left = true
	p.handoff[min(j.msg.Class, Bulk)].Add(a.handoff)
	if j.msg.Class != Bulk {
		l.handoff.Add(a.handoff)
	}
}

// judge translates what became of an attempt into what to do with the message,
// and takes the bay's measure by it.
func (p *Pool) judge(a *attempt, end bay.Outcome) outcome {
	p.mu.Lock()
	defer p.mu.Unlock()
	l, now := a.lane, p.cfg.Now()
	a.submit = end.Submit
	l.breaker.count(end, p.marks.bad(a.job.msg.To, now), now, p.cfg.Timing.Retry)
	switch end.Result {
	case bay.Accepted:
		l.submit.Add(end.Submit)
		l.measure(max(end.Submit, 1), false, now)
		a.job.sentAt = now
		return accepted
	case bay.Doubtful:
		// Longer than anything a hedge waits for tells no more.
		l.measure(min(end.Submit, p.cfg.Timing.Hedge), true, now)
		return doubted
	case bay.NotSent:
		l.measure(0, true, now)
		return elsewhere
	case bay.Untouched:
		return untouched
	}
	switch end.Blame {
	case bay.OnNumber, bay.OnUs:
		return refused
	case bay.OnRoute:
		return unlikely
	}
	l.measure(0, true, now)
	return elsewhere
}

// desk is the pool as its bays see it (bay.Owner).
type desk struct{ p *Pool }

// Serving notes that a bay came into service or left it.
func (d desk) Serving(name string, on bool) {
	p := d.p
	l := p.lane(name)
	if on {
		p.openPurse(context.Background(), l)
	}
	p.mu.Lock()
	l.inService = on
	if fit, _ := p.serving(); fit > 0 {
		p.dark = time.Time{}
	} else if p.dark.IsZero() {
		p.dark = p.cfg.Now()
	}
	p.mu.Unlock()
	p.dispatch()
	poke(p.nudge)
}

// Alone reports that the others cannot do this bay's work: none of them is fit, or
// codes wait for one, or the codes of the last minute are so many that it is missed.
func (d desk) Alone(name string) bool {
	p := d.p
	p.mu.Lock()
	defer p.mu.Unlock()
	fit, _ := p.serving()
	if l := p.lane(name); l.fit() {
		fit--
	}
	waiting := len(p.queue) > 0 && p.queue[0].msg.Class == OneTime && p.queue[0].doubts == 0
	return fit == 0 || waiting || p.codeLoad(p.cfg.Now()) > allowedLoad(fit)/3
}

// Heard takes news of a message whose sending has ended, as far as the bay knows.
// What cannot be recorded now is kept and offered to the journal again.
// Received messages and alarms have their own ways (news.go).
func (d desk) Heard(ctx context.Context, name string, n bay.News) error {
	p := d.p
	l := p.lane(name)
	switch n.Kind {
	case bay.Received:
		return p.received(ctx, l, *n.Incoming)
	case bay.Alarmed:
		p.fade(bayAlarms[n.Alarm], name, n.Detail)
		return nil
	}
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
		return p.record(ctx, j, Event{State: Sent, Bay: name, Card: p.cardIn(l), Detail: n.Detail})
	}
	return p.reported(ctx, j, l, n)
}

// forgotten stands for a message the pool has finished long ago.
func forgotten(n bay.News) *job {
	j := &job{msg: Message{ID: n.ID}, index: -1, state: Sent, done: true}
	if n.Kind == bay.LateReceipt {
		j.state = MaybeSent
	}
	return j
}
