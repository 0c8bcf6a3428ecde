package proof

import (
	"context"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/otpvault/enrol"
)

// PushOrder is what a code is pushed for.
type PushOrder struct {
	Flow    id.FlowID
	Subject id.Subject
	Serial  id.Serial
	SP      id.EntityID
	SPName  string
	Until   time.Time // when the flow ends
}

// Push draws a code and a number, opens a challenge that the code answers, and has both sent to
// the subject's app. The challenge is durable before anything leaves; when the notifier
// refuses, the error is fault.Busy and the challenge runs out unanswered. fault.Denied
// when the device takes no codes, fault.Exhausted.
func (d *Desk) Push(ctx context.Context, o PushOrder) (id.ChallengeID, error) {
	op := "push code to device " + o.Serial.String()
	if d.cfg.Notifier == nil {
		return id.ChallengeID{}, fault.Newf(fault.Denied, op, "nothing is pushed here")
	}
	if _, err := d.usable(ctx, op, o.Serial, o.Subject); err != nil {
		return id.ChallengeID{}, err
	}
	wrapped, err := d.cfg.Store.PushKey(ctx, o.Serial)
	if fault.Is(err, fault.NotFound) {
		return id.ChallengeID{}, fault.New(fault.Denied, op, err)
	}
	if err != nil {
		return id.ChallengeID{}, err
	}
	c, err := d.challenge(o.Flow, o.Subject, o.Serial, earlier(o.Until, d.cfg.Now().Add(d.cfg.PushLife)))
	if err != nil {
		return id.ChallengeID{}, err
	}
	drawn, err := d.draw(1_000_000)
	if err != nil {
		return id.ChallengeID{}, err
	}
	number, err := d.draw(100)
	if err != nil {
		return id.ChallengeID{}, err
	}
	code := digits(drawn, pushDigits)
	defer clear(code)
	c.Number = string(digits(number, 2))
	if c.MAC, err = d.mac(ctx, c, code); err != nil {
		return id.ChallengeID{}, err
	}
	message, err := d.seal(ctx, o, c, wrapped, code)
	if err != nil {
		return id.ChallengeID{}, fault.New(trouble(err), op, err)
	}
	if err := d.open(ctx, op, c); err != nil {
		return id.ChallengeID{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, notifyTime)
	defer cancel()
	if err := d.cfg.Notifier.Notify(ctx, o.Serial, message); err != nil {
		d.cfg.Log.ErrorContext(ctx, "code not pushed", "serial", o.Serial.String(), "flow", o.Flow.String(), "error", err)
		return id.ChallengeID{}, fault.New(fault.Busy, op, err)
	}
	return c.ID, nil
}

// seal encrypts the code for the app.
func (d *Desk) seal(ctx context.Context, o PushOrder, c Challenge, wrapped, code []byte) ([]byte, error) {
	key, err := d.cfg.Wrapper.Unwrap(ctx, wrapped, enrol.KeyContext(o.Serial))
	if err != nil {
		return nil, err
	}
	defer clear(key)
	p := enrol.Push{Serial: o.Serial, Flow: o.Flow, Number: c.Number, SP: o.SP, SPName: cut(o.SPName, 128), Code: code, Expires: c.Expires}
	return p.Seal(d.cfg.Random, key)
}

// cut shortens a name to at most n octets, between characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	end := 0
	for i := range s {
		if i > n {
			break
		}
		end = i
	}
	return s[:end]
}
