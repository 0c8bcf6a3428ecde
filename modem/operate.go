package modem

import (
	"context"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/modem/pdu"
)

// Further powers of a bay for operators, found by type assertion.
type (
	powered interface {
		// PowerOff, PowerOn and PowerCycle switch the modem's supply.
		PowerOff(ctx context.Context) error
		PowerOn(ctx context.Context) error
		PowerCycle(ctx context.Context) error
	}
	questioner interface {
		// USSD asks the network (a balance, say) and returns its answer.
		USSD(ctx context.Context, code string) (string, error)
	}
)

func (p *Pool) named(op, bayName string) (*lane, error) {
	if l := p.lane(bayName); l != nil {
		return l, nil
	}
	return nil, fault.Newf(fault.NotFound, op, "no bay has that name")
}

// Drain takes a bay out of the pool (on) or back into it. A message on the air is
// finished; no further one is given to the bay. It lasts until the process ends.
// fault.NotFound.
func (p *Pool) Drain(bayName string, on bool) error {
	l, err := p.named("drain bay "+bayName, bayName)
	if err != nil {
		return err
	}
	p.mu.Lock()
	l.drained = on
	p.mu.Unlock()
	p.cfg.Log.Warn("bay drained or enabled by an operator", "bay", bayName, "drained", on)
	p.dispatch()
	poke(p.nudge)
	return nil
}

// Power switches a bay's modem: "on", "off" or "cycle". fault.NotFound;
// fault.Unavailable for a bay whose power nobody can switch.
func (p *Pool) Power(ctx context.Context, bayName, what string) error {
	op := "switch power of bay " + bayName
	l, err := p.named(op, bayName)
	if err != nil {
		return err
	}
	b, ok := l.bay.(powered)
	if !ok {
		return fault.Newf(fault.Unavailable, op, "its power cannot be switched")
	}
	p.cfg.Log.Warn("power switched by an operator", "bay", bayName, "power", what)
	switch what {
	case "off":
		return b.PowerOff(ctx)
	case "on":
		return b.PowerOn(ctx)
	case "cycle":
		return b.PowerCycle(ctx)
	}
	return fault.Newf(fault.Invalid, op, "power is on, off or cycle")
}

// USSD asks the network through a bay's modem. The code is digits, * and #. The
// answer is the network's text, shortened. fault.NotFound, fault.Invalid.
func (p *Pool) USSD(ctx context.Context, bayName, code string) (string, error) {
	op := "ask the network through bay " + bayName
	l, err := p.named(op, bayName)
	if err != nil {
		return "", err
	}
	b, ok := l.bay.(questioner)
	if !ok {
		return "", fault.Newf(fault.Unavailable, op, "the bay cannot do that")
	}
	if len(code) == 0 || len(code) > 40 {
		return "", fault.Newf(fault.Invalid, op, "1 to 40 characters")
	}
	for _, c := range code {
		if (c < '0' || c > '9') && c != '*' && c != '#' {
			return "", fault.Newf(fault.Invalid, op, "digits, * and # only")
		}
	}
	p.cfg.Log.Info("network asked by an operator", "bay", bayName)
	defer p.lend(l)()
	return b.USSD(ctx, code)
}

// lend keeps messages from a bay whose modem an operator occupies for up to a minute:
// a code given to it would wait so long. The result gives it back.
func (p *Pool) lend(l *lane) (back func()) {
	add := func(n int) {
		p.mu.Lock()
		l.lent += n
		p.mu.Unlock()
	}
	add(1)
	return func() {
		add(-1)
		p.dispatch()
		poke(p.nudge)
	}
}

// Fits fails with fault.Invalid on a text that would need more parts than a message of
// that class may have, or that is no text: better now than when a modem takes it.
func (p *Pool) Fits(text []byte, c Class) error {
	const op = "measure a text"
	most := 1
	if c != OneTime {
		most = p.cfg.MaxParts
	}
	f, err := pdu.Fits(text)
	switch {
	case err != nil:
		return err
	case len(text) == 0:
		return fault.Newf(fault.Invalid, op, "it is empty")
	case f.Parts > most:
		return fault.Newf(fault.Invalid, op, "it needs %d messages of %d allowed", f.Parts, most)
	}
	return nil
}

// NewTest builds the message of an operator's test: an alert that only that bay may
// send and that dies after two minutes. The caller wraps the text and queues it.
func (p *Pool) NewTest(bayName string, m id.MessageID, to id.Phone) (Message, error) {
	if _, err := p.named("test bay "+bayName, bayName); err != nil {
		return Message{}, err
	}
	now := p.cfg.Now()
	return Message{ID: m, To: to, Class: Alert, Created: now, Expires: now.Add(2 * time.Minute), OnlyBay: bayName}, nil
}
