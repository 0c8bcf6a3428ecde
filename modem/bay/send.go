package bay

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

// transact sends one parcel and answers its request in every case. Its error is
// about the line, not about the message.
func (b *Bay) transact(ctx context.Context, r request) error {
	b.enter(Transacting)
	var total time.Duration
	for i, f := range r.parcel.frames {
		last := i == len(r.parcel.frames)-1
		o, after := b.submit(r, f, i == 0)
		total += o.Submit
		o.Submit = total
		if !last && o.Result == Accepted {
			continue
		}
		return after(ctx, o)
	}
	r.done <- Outcome{Detail: "nothing to send"}
	return nil
}

// submit sends one frame. It returns the outcome of the frame, and what is left to
// do, which answers the request when the bay's state is right: who is out of
// service says so before the message looks for another bay.
func (b *Bay) submit(r request, f pdu.Frame, first bool) (Outcome, func(context.Context, Outcome) error) {
	t := b.cfg.Timing
	var written time.Time
	reply, err := b.eng.Do(r.ctx, at.Command{
		Text: fmt.Sprintf("AT+CMGS=%d", f.Length), Prefix: "+CMGS:", Payload: f.Hex,
		PromptTimeout: t.Prompt, Timeout: t.Receipt, SlowAfter: r.parcel.msg.SlowAfter,
		OnStep: func(s at.Step) {
			switch {
			case s == at.Written:
				written = time.Now()
				if first && r.parcel.msg.Written != nil {
					r.parcel.msg.Written()
				}
			case s == at.Slow && r.parcel.msg.Slow != nil:
				r.parcel.msg.Slow()
			}
		},
	})
	var took time.Duration
	if !written.IsZero() {
		took = time.Since(written)
	}
	refusal := asRefusal(err)
	switch {
	case err == nil:
		b.remember(r.parcel.msg, reply)
		return Outcome{Result: Accepted, Detail: acceptedDetail(reply), Submit: took}, func(_ context.Context, o Outcome) error {
			r.done <- o
			return nil
		}
	case refusal != nil:
		o := b.refusal(r.parcel.msg, refusal)
		o.Submit = took
		return o, func(_ context.Context, o Outcome) error { return b.consequence(r, o) }
	case !reply.PayloadLeft:
		return Outcome{Result: NotSent, Detail: "not handed over: " + cause(err)}, func(ctx context.Context, o Outcome) error {
			b.enter(Starting)
			r.done <- o
			return b.recover(ctx, err)
		}
	}
	b.update(func(st *Status) { st.Doubtful++ })
	if errors.Is(err, at.ErrTimeout) {
		return Outcome{Result: Doubtful, Detail: "no receipt", Submit: took}, func(ctx context.Context, o Outcome) error {
			b.enter(Quarantined)
			r.done <- o
			return b.quarantine(ctx, r.parcel.msg)
		}
	}
	return Outcome{Result: Doubtful, Detail: cause(err), Submit: took}, func(ctx context.Context, o Outcome) error {
		b.enter(Starting)
		r.done <- o
		return b.recover(ctx, err)
	}
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
func (b *Bay) recover(ctx context.Context, err error) error {
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
func (b *Bay) quarantine(ctx context.Context, m Message) error {
	listen := b.cfg.Timing.Listen
	if b.cfg.Owner.Alone(b.cfg.Place.Name) {
		listen = b.cfg.Timing.ListenOne
	}
	reply, err := b.eng.Resume(ctx, listen)
	switch {
	case err == nil:
		b.tell(News{Kind: LateReceipt, ID: m.ID, Detail: "late receipt"})
		b.remember(m, reply)
	case errors.Is(err, at.ErrDead), errors.Is(err, at.ErrRestarted):
		return b.recover(ctx, err)
	case ctx.Err() != nil:
		return nil
	}
	return b.resync(ctx)
}

// remember counts an acceptance and keeps its reference for the report.
func (b *Bay) remember(m Message, r at.Reply) {
	b.streak.accepted()
	b.update(func(st *Status) { st.Sent++; st.LastError = "" })
	if ref, ok := reference(r); ok {
		b.reports.put(ref, m.ID, m.To, b.cfg.Now())
		if early, ok := b.reports.takeEarly(ref); ok {
			b.matched(m.ID, early)
		}
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

// refusal classifies a message the network or the modem refused.
func (b *Bay) refusal(m Message, r *at.Refusal) Outcome {
	who := b.streak.refused(r, tail(m.To.String()))
	detail := refusalDetail(r, who)
	b.update(func(st *Status) { st.Refused++; st.LastError = detail })
	switch who {
	case onNobody:
		return Outcome{Result: Accepted, Detail: detail}
	case inDoubt:
		return Outcome{Result: Doubtful, Detail: detail}
	}
	return Outcome{Result: Refused, Blame: who, Detail: detail}
}

// consequence is what a refusal means for this bay; it answers the request.
func (b *Bay) consequence(r request, o Outcome) error {
	var after error
	switch o.Blame {
	case OnModem:
		b.again = true
		b.enter(Starting)
	case OnCard:
		after = fault.Newf(fault.Fatal, "send through modem "+b.cfg.Place.Name, "%s", o.Detail)
		b.enter(NeedsHand)
	}
	r.done <- o
	return after
}
