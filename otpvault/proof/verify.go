package proof

import (
	"context"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/otpvault/device"
	"custode/otpvault/oath"
	"custode/otpvault/seed"
)

// Verify judges a code typed for a challenge; left is how many attempts remain in it. oath.Accepted
// is returned once for a challenge, and once for a code of a device. Errors say nothing
// about the code: fault.Invalid not the digits of the device (not counted), fault.Expired,
// fault.Conflict the challenge is not open any more, fault.Exhausted no attempt was left,
// fault.NotFound unknown or of another flow or subject; else trouble.
func (d *Desk) Verify(ctx context.Context, challenge id.ChallengeID, f id.FlowID, s id.Subject, code string) (oath.Verdict, int, error) {
	const op = "verify code of device"
	c, v, err := d.Opened(ctx, challenge)
	if err != nil {
		return oath.Wrong, 0, fault.New(refusal(err), op, err)
	}
	if c.Flow != f || c.Subject != s || v.Subject != s || s.IsZero() {
		return oath.Wrong, 0, fault.Newf(fault.NotFound, op, "challenge %s is of another flow or subject", challenge)
	}
	t := &taker{desk: d, challenge: c}
	var verdict oath.Verdict
	if c.Pushed() {
		verdict, err = d.verifyPush(ctx, t, code)
	} else {
		verdict, err = d.verifyShown(ctx, t, v, code)
	}
	if t.refused != nil {
		return oath.Wrong, 0, fault.New(refusal(t.refused), op, t.refused)
	}
	if fault.Is(err, fault.Denied) {
		verdict, err = oath.Blocked, nil // revoked, suspended or expired meanwhile
	}
	if err != nil {
		d.cfg.Log.ErrorContext(ctx, "code of a device not judged", "serial", c.Serial.String(), "flow", f.String(), "error", err)
		return oath.Wrong, 0, err
	}
	d.cfg.Log.InfoContext(ctx, "code of a device", "serial", c.Serial.String(), "flow", f.String(), "pushed", c.Pushed(), "verdict", verdict.String())
	if verdict != oath.Accepted {
		return verdict, t.left, nil
	}
	if err := d.cfg.Store.BurnDeviceChallenge(ctx, challenge, d.cfg.Now().UTC()); err != nil {
		return oath.Wrong, 0, fault.New(refusal(err), op, err)
	}
	return oath.Accepted, t.left, nil
}

// taker takes one attempt, once, and not before everything that may fail for other reasons than
// the code was done: an HSM that is down costs the subject no attempt.
type taker struct {
	desk      *Desk
	challenge Challenge
	taken     bool
	left      int
	refused   error
}

func (t *taker) take(ctx context.Context) error {
	if t.taken {
		return nil
	}
	c := t.challenge
	t.left, t.refused = t.desk.cfg.Store.TakeDeviceAttempt(ctx, c.ID, c.Flow, c.Subject, t.desk.cfg.Now().UTC())
	t.taken = t.refused == nil
	return t.refused
}

// counted is a Matcher whose answers are not looked at before an attempt was taken.
type counted struct {
	oath.Matcher
	taker *taker
}

// Match implements oath.Matcher.
func (c counted) Match(ctx context.Context, counters []uint64, digits int, code string) ([]int, error) {
	found, err := c.Matcher.Match(ctx, counters, digits, code)
	if err != nil {
		return nil, err
	}
	return found, c.taker.take(ctx)
}

func (d *Desk) verifyShown(ctx context.Context, t *taker, v device.Device, code string) (oath.Verdict, error) {
	stored, err := seed.Read(seed.Binding{Subject: v.Subject, Serial: v.Serial, Parameters: v.Parameters}, v.Blob, v.MAC)
	if err != nil {
		return oath.Wrong, fault.New(fault.Internal, "read seed of device "+v.Serial.String(), err)
	}
	now := d.cfg.Now()
	cell := device.CellOf(d.cfg.Devices, v.Serial, device.Active, now)
	return d.cfg.Rules.Verify(ctx, cell, counted{stored.With(d.cfg.Matcher), t}, v.Parameters, code, now)
}

func (d *Desk) verifyPush(ctx context.Context, t *taker, code string) (oath.Verdict, error) {
	const op = "verify pushed code"
	if !sixDigits(code) {
		return oath.Wrong, fault.Newf(fault.Invalid, op, "not %d digits", pushDigits)
	}
	c := t.challenge
	mac, err := d.mac(ctx, c, []byte(code))
	if err != nil {
		return oath.Wrong, err
	}
	if t.take(ctx) != nil {
		return oath.Wrong, nil // refused says it
	}
	right := subtle.ConstantTimeCompare(mac, c.MAC) == 1
	return d.cfg.Rules.Tally(ctx, device.CellOf(d.cfg.Devices, c.Serial, device.Active, d.cfg.Now()), right)
}

func sixDigits(code string) bool {
	ok := len(code) == pushDigits
	for _, c := range []byte(code) {
		ok = ok && c >= '0' && c <= '9'
	}
	return ok
}

// macPurpose separates these MACs from all others made by the same key.
const macPurpose = "custode push code 1"

// mac is over the purpose, challenge, flow, subject, serial, number and code, each
// preceded by its length in 4 octets, big endian.
func (d *Desk) mac(ctx context.Context, c Challenge, code []byte) ([]byte, error) {
	const op = "compute MAC of pushed code"
	data := make([]byte, 0, 512) // never grows: no copy of the code stays behind
	defer func() { clear(data[:cap(data)]) }()
	for _, field := range []string{macPurpose, c.ID.String(), c.Flow.String(), c.Subject.String(), c.Serial.String(), c.Number} {
		data = binary.BigEndian.AppendUint32(data, uint32(len(field)))
		data = append(data, field...)
	}
	data = binary.BigEndian.AppendUint32(data, uint32(len(code)))
	data = append(data, code...)
	mac, err := d.cfg.MAC.MAC(ctx, data)
	if err != nil {
		return nil, fault.New(trouble(err), op, err)
	}
	if len(mac) < 32 {
		return nil, fault.Newf(fault.Fatal, op, "the MAC has %d octets", len(mac))
	}
	return mac, nil
}

// refusal is the kind of a failed call that may speak of the challenge.
func refusal(err error) fault.Kind {
	switch k := fault.KindOf(err); k {
	case fault.NotFound, fault.Conflict, fault.Exhausted, fault.Expired:
		return k
	default:
		return trouble(err)
	}
}

// trouble is the kind of a failed call below, which says nothing of a code.
func trouble(err error) fault.Kind {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fault.Retry
	}
	switch k := fault.KindOf(err); k {
	case fault.Busy, fault.Retry, fault.Reopen, fault.Fatal, fault.Unavailable:
		return k
	default:
		return fault.Internal
	}
}

// earlier is the earlier of the two.
func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// draw returns a number below n from four random octets; what would make small ones
// likelier is drawn again.
func (d *Desk) draw(n uint32) (uint32, error) {
	limit := uint32(1<<32/uint64(n)*uint64(n) - 1)
	for range 64 {
		var b [4]byte
		if _, err := io.ReadFull(d.cfg.Random, b[:]); err != nil {
			return 0, fault.New(trouble(err), "draw code", err)
		}
		v := binary.BigEndian.Uint32(b[:])
		clear(b[:])
		if v <= limit {
			return v % n, nil
		}
	}
	return 0, fault.Newf(fault.Fatal, "draw code", "the random source gave 64 values out of range in a row")
}

func digits(v uint32, n int) []byte { return fmt.Appendf(nil, "%0*d", n, v) }
