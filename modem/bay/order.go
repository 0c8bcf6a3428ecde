package bay

import (
	"context"
	"regexp"
	"time"

	"custode/internal/fault"
	"custode/modem/at"
	"custode/modem/pdu"
)

// order is an operator's wish on its way to the actor. do runs in the actor's
// goroutine; open says that the modem is initialised and may be spoken to. An
// error of do is the operator's; one of after ends the session.
type order struct {
	ctx   context.Context
	do    func(ctx context.Context, open bool) error
	after func(ctx context.Context, open bool) error // may be nil
	done  chan error                                 // room for one
}

// command hands an order to the actor and waits for its end. A bay that is being
// initialised looks at orders when it is done with that.
func (b *Bay) command(ctx context.Context, do, after func(context.Context, bool) error) error {
	o := order{ctx, do, after, make(chan error, 1)}
	select {
	case b.orders <- o:
		return <-o.done
	case <-ctx.Done():
		return fault.New(fault.Busy, "command modem "+b.cfg.Place.Name, ctx.Err())
	}
}

func (b *Bay) obey(o order, open bool) error {
	err := o.do(o.ctx, open)
	o.done <- err
	if err != nil || o.after == nil {
		return nil
	}
	return o.after(context.WithoutCancel(o.ctx), open)
}

// Reset restarts the modem by its own command, whatever the ladder says. It returns
// when the restart begins.
func (b *Bay) Reset(ctx context.Context) error {
	return b.command(ctx, func(_ context.Context, open bool) error {
		if !open {
			return fault.Newf(fault.Unavailable, "restart modem "+b.cfg.Place.Name, "the modem does not answer now")
		}
		return nil
	}, func(ctx context.Context, _ bool) error { return b.hardReset(ctx, restart) })
}

// switched checks that the bay's supply can be switched.
func (b *Bay) switched() error {
	if b.cfg.Power == nil {
		return fault.Newf(fault.Unavailable, "switch modem "+b.cfg.Place.Name, "this bay's power cannot be switched")
	}
	return nil
}

// PowerCycle switches the modem off and on. It returns when that begins.
// fault.Unavailable: this bay has no such switch.
func (b *Bay) PowerCycle(ctx context.Context) error {
	if err := b.switched(); err != nil {
		return err
	}
	return b.command(ctx, func(context.Context, bool) error {
		b.ladder.planned = supply
		return nil
	}, func(ctx context.Context, open bool) error {
		if open {
			return b.hardReset(ctx, supply)
		}
		return nil
	})
}

// PowerOff closes the port and switches the modem off; it stays so until PowerOn.
// fault.Unavailable: this bay has no such switch.
func (b *Bay) PowerOff(ctx context.Context) error {
	if err := b.switched(); err != nil {
		return err
	}
	if err := b.Hold(ctx, true); err != nil {
		return err
	}
	// Held, the actor obeys from its rest, when the port is closed.
	return b.command(ctx, func(ctx context.Context, _ bool) error { return b.cfg.Power.Off(ctx) }, nil)
}

// PowerOn switches the modem on and takes it back into service.
func (b *Bay) PowerOn(ctx context.Context) error {
	if err := b.switched(); err != nil {
		return err
	}
	return b.command(ctx, func(ctx context.Context, _ bool) error {
		if err := b.cfg.Power.On(ctx); err != nil {
			return err
		}
		b.leaveAlone()
		b.held = false
		return nil
	}, nil)
}

// Hold closes the port and leaves the modem to the operator's tools until it is
// released; on false releases it.
func (b *Bay) Hold(ctx context.Context, on bool) error {
	return b.command(ctx, func(context.Context, bool) error { b.held = on; return nil }, nil)
}

// Check asks the modem for signal and registration now; Status then has them.
func (b *Bay) Check(ctx context.Context) error {
	return b.command(ctx, func(ctx context.Context, open bool) error {
		if !open {
			return fault.Newf(fault.Unavailable, "check modem "+b.cfg.Place.Name, "the modem does not answer now")
		}
		if err := b.signal(ctx); err != nil {
			return err
		}
		return b.registration(ctx)
	}, nil)
}

var ussdForm = regexp.MustCompile(`^[*#0-9]{1,30}$`)

// ussdWait is how long a network may think about a USSD request.
const ussdWait = 30 * time.Second

// USSD sends a request ("*123#") and returns the network's text, for example the
// credit left. It fails with fault.Invalid on other characters, fault.Unavailable
// when no answer comes. The text is for the operator who asked, not for logs.
func (b *Bay) USSD(ctx context.Context, request string) (string, error) {
	op := "ask the network through modem " + b.cfg.Place.Name
	if !ussdForm.MatchString(request) {
		return "", fault.Newf(fault.Invalid, op, "a request is made of * # and digits")
	}
	var text string
	err := b.command(ctx, func(ctx context.Context, open bool) error {
		if !open {
			return fault.Newf(fault.Unavailable, op, "the modem does not answer now")
		}
		b.lastLine = ""
		if _, err := b.eng.Do(ctx, at.Command{Text: `AT+CUSD=1,"` + request + `",15`, Timeout: ussdWait}); err != nil {
			return err
		}
		timer := time.NewTimer(ussdWait)
		defer timer.Stop()
		for b.lastLine == "" {
			select {
			case tok := <-b.eng.Tokens():
				if err := b.eng.Idle(tok); err != nil {
					return err
				}
			case <-timer.C:
				return fault.Newf(fault.Unavailable, op, "no answer")
			case <-ctx.Done():
				return fault.New(fault.Unavailable, op, ctx.Err())
			}
		}
		text = pdu.USSD(at.USSD(b.lastLine))
		b.lastLine = ""
		return nil
	}, nil)
	return text, err
}
