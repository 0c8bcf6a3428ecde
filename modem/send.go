package modem

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"custode/internal/fault"
	"custode/modem/at"
	"custode/modem/pdu"
)

// transact sends one message and settles it in every case. Its error is about
// the line, not about the message.
func (b *bay) transact(ctx context.Context, j *job) error {
	b.enter(Transacting)
	// Shutdown does not cut a transaction in two: it has until Drain.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		time.AfterFunc(b.pool.cfg.Timing.Drain, cancel)
	})()
	frames, o, detail := b.open(work, j)
	if frames == nil {
		b.pool.settle(work, b, j, o, detail)
		return nil
	}
	defer func() {
		for _, f := range frames {
			f.Wipe()
		}
	}()
	switch err := b.pool.record(work, j, Sending, b.cfg.Name, ""); {
	case fault.Is(err, fault.Conflict):
		b.pool.release(b, j)
		return nil
	case err != nil:
		// The journal does not know that the PDU would leave: it stays.
		b.pool.cfg.Log.Error("sms held back", "message", j.msg.ID.String(), "err", err)
		b.pool.settle(work, b, j, postponed, "not recorded")
		return nil
	}
	for i, f := range frames {
		if done, err := b.submit(ctx, work, j, f, i == len(frames)-1); done || err != nil {
			return err
		}
	}
	return nil
}

// open unwraps and encodes; without frames the outcome says why.
func (b *bay) open(ctx context.Context, j *job) ([]pdu.Frame, outcome, string) {
	octx, cancel := context.WithTimeout(ctx, b.pool.cfg.Timing.Record)
	defer cancel()
	text, err := b.pool.cfg.Opener.Unwrap(octx, j.msg.Wrapped, []byte(j.msg.ID.String()))
	if err != nil {
		switch fault.KindOf(err) {
		case fault.Invalid, fault.Denied, fault.NotFound, fault.Conflict:
			return nil, refused, "text cannot be unwrapped"
		}
		b.pool.cfg.Log.Error("sms text not unwrapped", "message", j.msg.ID.String(), "err", err)
		return nil, postponed, "text not unwrapped"
	}
	defer clear(text)
	s := pdu.Submit{To: j.msg.To, Text: text, Report: true, MaxParts: 1, Ref: byte(j.seq),
		Validity: max(j.msg.Expires.Sub(b.pool.cfg.Now()), time.Second)}
	if j.msg.Class != OneTime {
		s.MaxParts = b.pool.cfg.MaxParts
	}
	frames, err := s.Encode()
	if err != nil {
		return nil, refused, "text cannot be encoded"
	}
	return frames, accepted, ""
}

// submit sends one frame. done says that the message is settled.
func (b *bay) submit(ctx, work context.Context, j *job, f pdu.Frame, last bool) (done bool, _ error) {
	t := b.pool.cfg.Timing
	reply, err := b.eng.Do(work, at.Command{
		Text: fmt.Sprintf("AT+CMGS=%d", f.Length), Prefix: "+CMGS:", Payload: f.Hex,
		PromptTimeout: t.Prompt, Timeout: t.Receipt, SlowAfter: t.Hedge,
		OnStep: func(s at.Step) {
			switch s {
			case at.Written:
				b.update(func(st *BayStatus) { st.Handoff = b.pool.cfg.Now().Sub(j.msg.Created) })
			case at.Slow:
				b.pool.hedge(work, b, j)
			}
		},
	})
	refusal := asRefusal(err)
	switch {
	case err == nil:
		if last {
			b.pool.settle(work, b, j, accepted, acceptedDetail(reply))
		}
		b.note(j, reply) // after the receipt: it may find an early report
		return last, nil
	case refusal != nil:
		return true, b.refusal(work, j, refusal)
	case !reply.PayloadLeft:
		b.pool.settle(work, b, j, elsewhere, "not handed over: "+cause(err))
		return true, b.recover(ctx, err)
	}
	b.update(func(st *BayStatus) { st.Doubtful++ })
	if errors.Is(err, at.ErrTimeout) {
		b.enter(Quarantined) // out of service first, or the second copy might wait for us
		b.pool.settle(work, b, j, doubted, "no receipt")
		return true, b.quarantine(ctx, j)
	}
	b.pool.settle(work, b, j, doubted, cause(err))
	return true, b.recover(ctx, err)
}

// cause names the engine's reason for an Event: no text of the modem.
func cause(err error) string {
	for _, c := range []error{at.ErrNoPrompt, at.ErrTimeout, at.ErrRestarted, at.ErrDead, at.ErrDirty} {
		if errors.Is(err, c) {
			return c.Error()
		}
	}
	return "interrupted"
}

// recover brings the line back after a transaction that broke: a restarted modem
// is initialised, a dead port ends the session, anything else is resynchronised.
func (b *bay) recover(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return nil
	case errors.Is(err, at.ErrDead):
		return err
	case errors.Is(err, at.ErrRestarted):
		b.again = true
		return nil
	}
	b.enter(Starting)
	return b.resync(ctx)
}

// quarantine listens for the receipt that did not come, then resynchronises.
func (b *bay) quarantine(ctx context.Context, j *job) error {
	listen := b.pool.cfg.Timing.Listen
	if b.pool.alone(b) {
		listen = b.pool.cfg.Timing.ListenOne
	}
	reply, err := b.eng.Resume(ctx, listen)
	switch {
	case err == nil:
		b.pool.lateReceipt(ctx, b, j)
		b.note(j, reply)
	case errors.Is(err, at.ErrDead), errors.Is(err, at.ErrRestarted):
		return b.recover(ctx, err)
	case ctx.Err() != nil:
		return nil
	}
	return b.resync(ctx)
}

// note counts an acceptance and remembers its reference for the report.
func (b *bay) note(j *job, r at.Reply) {
	b.streak.accepted()
	b.cooldowns = 0
	b.update(func(st *BayStatus) { st.Sent++; st.LastError = "" })
	if ref, ok := reference(r); ok {
		b.matched(b.reports.put(ref, j, b.pool.cfg.Now()))
	}
}

// reference reads "+CMGS: <mr>[,...]". Some firmware says OK without it.
func reference(r at.Reply) (byte, bool) {
	for _, l := range r.Lines {
		f := at.Fields(l, "+CMGS:")
		if len(f) == 0 {
			continue
		}
		if n := atoi(f[0]); n >= 0 && n <= 255 && strings.Trim(f[0], "0123456789") == "" && f[0] != "" {
			return byte(n), true
		}
	}
	return 0, false
}

func acceptedDetail(r at.Reply) string {
	if _, ok := reference(r); ok {
		return ""
	}
	return "accepted without a reference"
}

// refusal settles a message the network or the modem refused, and treats
// whoever is to blame.
func (b *bay) refusal(ctx context.Context, j *job, r *at.Refusal) error {
	who := b.streak.refused(r, tail(j.msg.To.String()))
	detail := refusalDetail(r, who)
	b.update(func(st *BayStatus) { st.Refused++; st.LastError = detail })
	var after error
	o := elsewhere
	switch who {
	case onNobody:
		o = accepted
	case onNumber:
		o = refused
	case onRoute:
		o = unlikely
	case inDoubt:
		o = doubted
	case onNetwork:
		b.cooldowns = min(b.cooldowns+1, 6)
		b.pool.cool(b, b.pool.cfg.Timing.Retry<<(b.cooldowns-1))
	case onModem:
		b.again = true
	case onCard:
		after = fault.Newf(fault.Fatal, "send through modem "+b.cfg.Name, "%s", detail)
	case onBusy:
		b.pool.cool(b, b.pool.cfg.Timing.Retry)
	}
	if after != nil {
		b.enter(NeedsHand)
	}
	b.pool.settle(ctx, b, j, o, detail)
	return after
}
