package device

import (
	"custode/internal/fault"
	"custode/internal/id"
	"custode/otpvault/oath"
)

// move begins a Move that changes the state and nothing else.
func (d Device) move(what string, to State, c Change) (Move, error) {
	op := what + " device " + d.Serial.String()
	if !d.State.May(to) {
		return Move{}, fault.Newf(fault.Conflict, op, "it is %v", d.State)
	}
	if c.Actor == "" || c.Reason == "" || c.At.IsZero() {
		return Move{}, fault.Newf(fault.Invalid, op, "who, why or when is missing")
	}
	m := Move{Serial: d.Serial, Seen: d.Counter.Version, From: d.State, To: to, Subject: d.Subject, MAC: d.MAC, Counter: d.Counter, Change: c}
	m.Counter.Version++
	return m, nil
}

// Assign gives a device from the drawer to a subject. mac binds the seed to that
// subject (seed.Bound.Rebind).
func (d Device) Assign(to id.Subject, mac []byte, c Change) (Move, error) {
	m, err := d.move("assign", Delivered, c)
	if err != nil {
		return Move{}, err
	}
	if d.State != Created || to.IsZero() || len(mac) < 32 {
		return Move{}, fault.Newf(fault.Conflict, "assign device "+d.Serial.String(), "it is %v, or no subject or binding is given", d.State)
	}
	m.Subject, m.MAC = to, mac
	return m, nil
}

// Activate ends the delivery: v and after are what oath.Rules.Check or Realign said of
// the code, or the codes, that prove the possession and align the counter.
// fault.Denied when the code was not accepted.
func (d Device) Activate(v oath.Verdict, after oath.State, c Change) (Move, error) {
	op := "activate device " + d.Serial.String()
	if d.State != Delivered {
		return Move{}, fault.Newf(fault.Conflict, op, "it is %v", d.State)
	}
	if v != oath.Accepted || after.Version != d.Counter.Version+1 || after.Blocked || after.Next <= d.Counter.Next {
		return Move{}, fault.Newf(fault.Denied, op, "no code proves the possession (%v)", v)
	}
	m, err := d.move("activate", Active, c)
	m.Counter = after
	return m, err
}

// Unblock lets a device that wrong codes had blocked be tried again. One that was
// never activated is Delivered again.
func (d Device) Unblock(c Change) (Move, error) {
	to := Active
	if d.Activated.IsZero() {
		to = Delivered
	}
	if d.State != Blocked {
		return Move{}, fault.Newf(fault.Conflict, "unblock device "+d.Serial.String(), "it is %v", d.State)
	}
	m, err := d.move("unblock", to, c)
	if err != nil {
		return Move{}, err
	}
	m.Counter, err = oath.Unblock(d.Counter)
	return m, err
}

// Suspend stops a device that may come back.
func (d Device) Suspend(c Change) (Move, error) { return d.move("suspend", Suspended, c) }

// Restore ends a suspension. A device that was blocked before is blocked again.
func (d Device) Restore(c Change) (Move, error) {
	if d.State != Suspended {
		return Move{}, fault.Newf(fault.Conflict, "restore device "+d.Serial.String(), "it is %v", d.State)
	}
	if d.Counter.Blocked {
		return d.move("restore", Blocked, c)
	}
	if d.Activated.IsZero() {
		return Move{}, fault.Newf(fault.Conflict, "restore device "+d.Serial.String(), "it was never activated")
	}
	return d.move("restore", Active, c)
}

// Revoke ends a device for good.
func (d Device) Revoke(c Change) (Move, error) { return d.move("revoke", Revoked, c) }

// Replace ends a device because another one takes its place; the reason names it.
func (d Device) Replace(c Change) (Move, error) { return d.move("replace", Replaced, c) }
