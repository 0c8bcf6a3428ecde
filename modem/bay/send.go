package bay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/modem/at"
	"custode/modem/pdu"
	"custode/modem/profile"
	"custode/modem/report"
	"custode/modem/verdict"
)

// variant is how a parcel is encoded after remedies.
type variant struct{ plain, noValidity, noReport bool }

// encode makes the frames of a variant; the caller wipes them.
func (p *Parcel) encode(v variant) ([]pdu.Frame, error) {
	s := p.submit()
	s.Report = !v.noReport
	if v.plain {
		s.Flash = false
	}
	if v.noValidity {
		s.Validity = 0
	}
	return s.Encode()
}

// attempt is what became of one frame.
type attempt struct {
	Outcome
	remedy verdict.Remedy
	err    error // of the line; nil when the modem answered
	partly bool  // an earlier part of the message was accepted
}

// told is the outcome as the owner gets it. A message of which a part has left must
// not be sent again as if nothing had.
func (a attempt) told() Outcome {
	o := a.Outcome
	if a.partly && (o.Result == Refused || o.Result == NotSent) {
		o.Result, o.Blame, o.Detail = Doubtful, 0, "only a part was accepted: "+o.Detail
	}
	return o
}

// doubt is a part whose answer never came and may still come.
type doubt struct {
	msg  Message
	ref  int // TP-MR it should have, -1 unknown
	when time.Time
}

const (
	// doubtLife is the longest a late answer was seen after Ctrl-Z, and a minute.
	doubtLife  = 300 * time.Second
	staleGrace = 10 * time.Second
)

// transact sends one parcel and answers its request in every case. Its error is
// about the line, not about the message.
func (b *Bay) transact(ctx context.Context, r request) error {
	b.enter(Transacting)
	b.submitting = true
	defer func() { b.submitting = false; b.reports.DropEarly() }()
	v := variant{noReport: b.profile.Reports == profile.None}
	frames, err := r.parcel.encode(v)
	defer func() { pdu.Wipe(frames) }()
	if err != nil || len(frames) == 0 {
		r.done <- Outcome{Result: Refused, Blame: OnUs, Detail: "cannot be encoded"}
		return nil
	}
	b.reports.Expect(r.parcel.msg.ID, len(frames))
	long := len(frames) > 1
	if long {
		if err := b.link(r.ctx, "AT+CMMS=2"); err != nil {
			return b.conclude(ctx, r, attempt{Outcome: Outcome{Result: NotSent, Detail: "not handed over: " + at.Cause(err)}, err: err})
		}
	}
	var used [verdict.Purge + 1]bool
	var total time.Duration
	for i := 0; i < len(frames); i++ {
		a := b.submit(r, frames[i], i == 0)
		total += a.Submit
		a.Submit, a.partly = total, i > 0
		if a.remedy != verdict.None && !used[a.remedy] {
			used[a.remedy] = true
			if again, ok := b.remedy(r, a.remedy, &v); ok {
				if again != nil {
					pdu.Wipe(frames)
					frames = again
				}
				i--
				continue
			}
		}
		if a.Result == Accepted && i < len(frames)-1 {
			continue
		}
		return b.conclude(ctx, r, a, long)
	}
	return nil
}

// link keeps the radio link between the parts of a message (CMMS), or no longer.
// Modems that refuse it exist (E1752: CMS 500).
func (b *Bay) link(ctx context.Context, text string) error {
	if _, err := b.eng.Do(ctx, at.Command{Text: text}); verdict.AsRefusal(err) == nil {
		return err
	}
	return nil
}

// submit sends one frame.
func (b *Bay) submit(r request, f pdu.Frame, first bool) attempt {
	m := r.parcel.msg
	var written time.Time
	b.expireDoubts()
	stale := -1
	reply, err := b.eng.Do(r.ctx, at.Command{
		Text: fmt.Sprintf("AT+CMGS=%d", f.Length), Prefix: "+CMGS:", Payload: f.Hex,
		PromptTimeout: b.cfg.Timing.Prompt, Timeout: orProfile(b.cfg.Timing.Receipt, b.profile.SubmitTimeout),
		SlowAfter: m.SlowAfter, StaleGrace: staleGrace,
		Stale: func(line string) bool {
			ref, ok := at.Reference(line)
			if ok && stale < 0 && b.mayBeLate(ref, m.ID) {
				stale = ref
				return true
			}
			return false
		},
		OnStep: func(s at.Step) {
			switch {
			case s == at.Written:
				written = time.Now()
				if first && m.Written != nil {
					m.Written()
				}
			case s == at.Slow && m.Slow != nil:
				m.Slow()
			}
		},
	})
	var took time.Duration
	if !written.IsZero() {
		took = time.Since(written)
	}
	a := b.sort(m, reply, err)
	a.Submit = took
	switch {
	case stale >= 0 && a.err == nil && a.Result == Accepted:
		b.credit(stale) // two answers came: the first was the earlier message's
	case errors.Is(a.err, at.ErrUnclear):
		b.unclear(m, stale)
	}
	return a
}

func orProfile(d, p time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return p
}

// sort says what the engine's answer means for the frame.
func (b *Bay) sort(m Message, reply at.Reply, err error) attempt {
	refusal := verdict.AsRefusal(err)
	ref, named := reply.Reference()
	switch {
	case err == nil && !named && b.othersInDoubt(m):
		// Some firmware never names references; but this OK may be an earlier message's.
		b.doubt(m)
		return attempt{Outcome: Outcome{Result: Doubtful, Detail: "accepted without a reference, after a doubt"}}
	case err == nil:
		b.accepted(m, ref, named)
		o := Outcome{Result: Accepted}
		if !named {
			o.Detail = "accepted without a reference"
		}
		return attempt{Outcome: o}
	case refusal != nil:
		if reply.PayloadLeft {
			b.lastRef = -1 // whether it used a reference differs between modems
		}
		return b.refusal(m, refusal)
	case !reply.PayloadLeft:
		return attempt{Outcome: Outcome{Result: NotSent, Detail: "not handed over: " + at.Cause(err)}, err: err}
	}
	b.update(func(st *Status) { st.Doubtful++ })
	b.doubt(m)
	detail := at.Cause(err)
	if errors.Is(err, at.ErrTimeout) {
		detail = "no receipt"
	}
	return attempt{Outcome: Outcome{Result: Doubtful, Detail: detail}, err: err}
}

// doubt remembers a part that may be answered late.
func (b *Bay) doubt(m Message) {
	ref := -1
	if b.lastRef >= 0 {
		ref = (b.lastRef + 1 + len(b.doubts)) % 256
	}
	m.Text, m.Slow, m.Written = nil, nil, nil
	b.doubts = append(b.doubts, doubt{m, ref, time.Now()})
	if len(b.doubts) > 16 {
		b.doubts = b.doubts[1:]
	}
}

func (b *Bay) othersInDoubt(m Message) bool {
	return slices.ContainsFunc(b.doubts, func(d doubt) bool { return d.msg.ID != m.ID })
}

func (b *Bay) expireDoubts() {
	b.doubts = slices.DeleteFunc(b.doubts, func(d doubt) bool { return time.Since(d.when) >= doubtLife })
}

// unclear ends what one answer to two messages left open: it is nobody's. A modem
// that gives no second answer in ten seconds does not answer late (its doubtful
// message never had a reference), or it would do so now: from here on its answers are
// believed, until it shows otherwise.
func (b *Bay) unclear(m Message, ref int) {
	b.lastRef = ref
	b.doubts = slices.DeleteFunc(b.doubts, func(d doubt) bool {
		return d.msg.ID != m.ID && (d.ref < 0 || d.ref == ref) || b.late != answersLate && d.msg.ID == m.ID
	})
	if b.late == lateUnknown {
		b.late = neverLate
	}
}

// lateness is what we know of a modem: does it take the next message while the answer
// to an earlier one is out?
type lateness uint8

const (
	lateUnknown lateness = iota
	answersLate
	neverLate
)

// mayBeLate reports that a reference could belong to another message, in doubt.
func (b *Bay) mayBeLate(ref int, current id.MessageID) bool {
	if b.late == neverLate {
		return false
	}
	for _, d := range b.doubts {
		if d.msg.ID != current && (d.ref < 0 || d.ref == ref) {
			return true
		}
	}
	return false
}

// credit gives a late reference to the message in doubt it belongs to, or to none:
// it must be the only one, or the one whose turn that reference was.
func (b *Bay) credit(ref int) {
	at := -1
	for i, d := range b.doubts {
		if d.ref == ref || d.ref < 0 && len(b.doubts) == 1 {
			at = i
		}
	}
	if at < 0 {
		return
	}
	b.late = answersLate
	d := b.doubts[at]
	b.doubts = append(b.doubts[:at], b.doubts[at+1:]...)
	b.tell(News{Kind: LateReceipt, ID: d.msg.ID, Detail: "late receipt"})
	b.accepted(d.msg, ref, true)
}

// accepted counts an acceptance and keeps its reference for the report.
func (b *Bay) accepted(m Message, ref int, named bool) {
	b.streak.Accepted()
	b.spam = 0
	b.well()
	b.update(func(st *Status) { st.Sent++; st.LastError = "" })
	if !named {
		b.lastRef = -1
		b.reports.PutUnnamed(m.ID, m.To, m.Validity, b.cfg.Now())
		return
	}
	b.lastRef = ref
	b.reports.Put(byte(ref), m.ID, m.To, m.Validity, b.cfg.Now())
	if early, ok := b.reports.TakeEarly(byte(ref)); ok {
		b.matched(m.ID, early)
	}
}

// refusal classifies a part the network or the modem refused.
func (b *Bay) refusal(m Message, r *at.Refusal) attempt {
	v := b.streak.Refused(r, report.Tail(m.To.String()), b.cfg.Now())
	if verdict.Barred(r) {
		if _, restarted := b.ladder.used[restart]; restarted && b.ladder.level >= restart {
			v.Blame = OnCard
		}
	}
	detail := verdict.Detail(r, v.Blame)
	b.update(func(st *Status) { st.Refused++; st.LastError = detail })
	a := attempt{Outcome: Outcome{Result: Refused, Blame: v.Blame, Detail: detail}, remedy: v.Remedy}
	switch v.Blame {
	case verdict.Nobody:
		a.Outcome = Outcome{Result: Accepted, Detail: detail}
		b.update(func(st *Status) { st.Sent++ })
	case verdict.InDoubt:
		a.Outcome = Outcome{Result: Doubtful, Detail: detail}
		b.update(func(st *Status) { st.Doubtful++ })
	case OnNetwork:
		if r.Set == at.CMS && r.Code == 21 {
			a.Rest = verdict.SpamRests[min(b.spam, len(verdict.SpamRests)-1)]
			b.spam++
		}
	}
	return a
}

// remedy changes what can be changed; ok says that the frame may be sent again, as
// frames when they are new.
func (b *Bay) remedy(r request, what verdict.Remedy, v *variant) (frames []pdu.Frame, ok bool) {
	switch what {
	case verdict.OnceMore:
		return nil, true
	case verdict.Purge:
		b.inbox.look = true
		b.alarm(StorageFull, "a message was refused because the storage is full")
		return nil, false
	case verdict.OwnCentre:
		if b.cfg.Place.Centre.IsZero() {
			return nil, false
		}
		_, err := b.eng.Do(r.ctx, at.Command{Text: `AT+CSCA="` + b.cfg.Place.Centre.String() + `",145`, Timeout: 10 * time.Second})
		return nil, err == nil
	case verdict.PlainForm:
		if v.plain || !r.parcel.msg.Flash {
			return nil, false
		}
		v.plain = true
	case verdict.NoValidity:
		if v.noValidity || r.parcel.msg.Validity == 0 {
			return nil, false
		}
		v.noValidity = true
	default:
		return nil, false
	}
	frames, err := r.parcel.encode(*v)
	return frames, err == nil
}

// conclude brings the bay into the state that a finished message leaves it in,
// answers the request, and does what is left to do. Who goes out of service says so
// before the message looks for another bay.
func (b *Bay) conclude(ctx context.Context, r request, a attempt, unlink ...bool) error {
	reply := func(s State) {
		b.enter(s)
		r.done <- a.told()
	}
	switch {
	case a.err != nil && a.Result == Doubtful && errors.Is(a.err, at.ErrTimeout) && !errors.Is(a.err, at.ErrUnclear):
		reply(Quarantined)
		return b.quarantine(ctx, r.parcel.msg)
	case a.err != nil:
		if errors.Is(a.err, at.ErrRestarted) || errors.Is(a.err, at.ErrDead) {
			b.doubts, b.lastRef = nil, -1 // whatever it still had to say is gone
		}
		reply(Starting)
		return b.broken(ctx, a.err)
	case a.Result == Refused && a.Blame == OnModem:
		reply(Starting)
		return b.blamed(ctx)
	case a.Result == Refused && a.Blame == verdict.Soft:
		a.Blame = OnModem // for the owner they are the same
	case a.Result == Refused && a.Blame == OnCard:
		b.alarm(CardBarred, a.Detail)
		reply(NeedsHand)
		return fault.Newf(fault.Fatal, "send through modem "+b.cfg.Place.Name, "%s", a.Detail)
	case a.Result == Refused && a.Blame == OnUs:
		b.alarm(OurMistake, a.Detail)
	}
	if len(unlink) > 0 && unlink[0] {
		if err := b.link(r.ctx, "AT+CMMS=0"); err != nil {
			reply(Starting)
			return b.broken(ctx, err)
		}
	}
	reply(Transacting)
	return nil
}

// blamed decides what a refusal of the modem's own means: initialise it again, and
// after three of those in a row the next rung.
func (b *Bay) blamed(ctx context.Context) error {
	b.again = true
	if b.streak.Soft < 6 {
		return nil
	}
	b.streak.Soft = 0
	return b.perform(ctx, b.climb(restart, "refuses message after message"))
}

// quarantine listens for the receipt that did not come, then resynchronises.
// Nothing is written meanwhile.
func (b *Bay) quarantine(ctx context.Context, m Message) error {
	listen := b.cfg.Timing.Listen
	if b.cfg.Owner.Alone(b.cfg.Place.Name) {
		listen = b.cfg.Timing.ListenOne
	}
	reply, err := b.resume(ctx, listen)
	switch {
	case err == nil:
		b.dropDoubt(m)
		b.tell(News{Kind: LateReceipt, ID: m.ID, Detail: "late receipt"})
		ref, named := reply.Reference()
		b.accepted(m, ref, named)
	case verdict.AsRefusal(err) != nil:
		b.dropDoubt(m) // a late no: who doubts is not told
	case errors.Is(err, at.ErrDead), errors.Is(err, at.ErrRestarted):
		return b.broken(ctx, err)
	case errors.Is(err, errGone):
		b.doubts, b.lastRef = nil, -1
		return err
	case ctx.Err() != nil:
		return nil
	}
	return b.resync(ctx)
}

// resume listens for a late answer. Operators are answered meanwhile, as by a modem that
// does not answer: one that hangs must not wait four minutes for its power switch.
func (b *Bay) resume(ctx context.Context, d time.Duration) (at.Reply, error) {
	for end := time.Now().Add(d); ; {
		reply, err := b.eng.Resume(ctx, min(time.Until(end), time.Second))
		if !errors.Is(err, at.ErrTimeout) || !time.Now().Before(end) {
			return reply, err
		}
		select {
		case o := <-b.orders:
			_ = b.obey(o, false)
			if b.held || b.ladder.planned != 0 {
				return reply, fault.New(fault.Reopen, "listen to modem "+b.cfg.Place.Name, errGone)
			}
		default:
		}
	}
}

func (b *Bay) dropDoubt(m Message) {
	b.doubts = slices.DeleteFunc(b.doubts, func(d doubt) bool { return d.msg.ID == m.ID })
}
