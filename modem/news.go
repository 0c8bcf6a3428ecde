package modem

import (
	"context"

	"custode/internal/fault"
	"custode/modem/alarm"
	"custode/modem/bay"
)

// Forward hands a received message on (a web hook, an e-mail), after it was made
// durable. It is called in a bay's goroutine and must not block; it gets no second
// chance.
type Forward func(Received)

// received makes a message that came in durable and notes opt-outs.
func (p *Pool) received(ctx context.Context, l *lane, in bay.Incoming) error {
	if p.cfg.Accounts == nil {
		return nil // nobody wants them
	}
	rctx, cancel := context.WithTimeout(ctx, p.cfg.Timing.Record)
	defer cancel()
	now := p.cfg.Now()
	m := Received{Mark: in.Mark, From: in.From, Text: in.Text, Bay: l.place.Name, Card: p.cardIn(l), At: in.At}
	if m.At.IsZero() {
		m.At = now
	}
	fresh, err := p.cfg.Accounts.Receive(rctx, m)
	if fault.Is(err, fault.Invalid) {
		p.cfg.Log.Warn("incoming message refused for good", "bay", l.place.Name, "err", err)
		return nil // else it would block a place of the card for ever
	}
	if err != nil {
		return err
	}
	if in.Stop {
		// Also when it was kept before: the crash may have come between the two.
		if err := p.cfg.Accounts.OptOut(rctx, in.From, true, now); err != nil && !fault.Is(err, fault.Invalid) { // a sender with a name
			p.cfg.Log.Error("opt-out not kept", "bay", l.place.Name, "err", err)
			return err
		}
	}
	if fresh && p.cfg.Forward != nil {
		p.cfg.Forward(m)
	}
	return nil
}

// bayAlarms translates what a bay tells.
var bayAlarms = map[bay.Alarm]alarm.Name{
	bay.StorageFull: alarm.SIMFull, bay.UnderVoltage: alarm.UnderVoltage, bay.NotServed: alarm.NotRegistered, bay.CardBarred: alarm.NoCredit,
	bay.OutOfOrder: alarm.BayDown, bay.Impostor: alarm.Impostor, bay.OurMistake: alarm.Configuration,
}
