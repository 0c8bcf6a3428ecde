// Package device is the life of an OATH device as a credential of level 2: from the
// vendor's delivery or the making of a virtual one to its revocation.
//
// [Device] is the record, [Register] the store of such records, and each rule of
// the life cycle is a method of Device that returns the [Move] to make, or why it
// may not be made. They are pure: nothing has happened until the register made the
// move, which it does only if the record is still what the rule saw.
//
//	Created -> Delivered -> Active <-> Blocked, Suspended -> Revoked | Replaced
//
// Created is a device in the drawer, without a subject; Delivered is in the
// subject's hands and proves nothing until a code of it was shown (Activate);
// Blocked is the work of wrong codes only, Suspended of people. Revoked and
// Replaced are final, and what they end keeps its record: dates and holders are
// evidence.
//
// [CellOf] lets oath.Rules.Verify work on a record. It is no policy (who may
// unblock, what is told to the subject) and no cryptography (otpvault/seed). It may
// be imported by internal/store and cmd; it imports otpvault/oath, internal/id,
// internal/fault and the standard library only.
package device

import (
	"context"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/otpvault/oath"
)

// State is where in its life a device is. The numbers are stored.
type State uint8

// The states.
const (
	Created State = iota + 1
	Delivered
	Active
	Blocked
	Suspended
	Revoked
	Replaced
)

// String returns the state's name, for pages of operators and logs.
func (s State) String() string {
	names := [...]string{"created", "delivered", "active", "blocked", "suspended", "revoked", "replaced"}
	if s < Created || s > Replaced {
		return "unknown state"
	}
	return names[s-1]
}

// Final reports whether nothing follows.
func (s State) Final() bool { return s == Revoked || s == Replaced }

// May reports whether a device in state s may be moved to the other state.
func (s State) May(to State) bool {
	switch s {
	case Created:
		return to == Delivered || to == Revoked
	case Delivered:
		return to == Active || to == Blocked || to == Revoked || to == Replaced
	case Active:
		return to == Blocked || to == Suspended || to == Revoked || to == Replaced
	case Blocked:
		return to == Active || to == Delivered || to == Suspended || to == Revoked || to == Replaced
	case Suspended:
		return to == Active || to == Blocked || to == Revoked || to == Replaced
	}
	return false
}

// Device is the record of one device. Times are zero for what has not happened.
type Device struct {
	Serial     id.Serial
	Subject    id.Subject // zero in the drawer
	State      State
	Vendor     string // printable, may be empty
	Virtual    bool   // an app, not a thing
	Parameters oath.Parameters
	Blob       []byte // the encoded seed.Sealed
	MAC        []byte // binds Blob to Serial, Subject and Parameters
	Counter    oath.State
	Escrow     []byte // copy of the seed for the recovery key, if any: kept when the device is added, not read back

	Created   time.Time
	Delivered time.Time
	Activated time.Time
	Suspended time.Time
	Ended     time.Time
	Expires   time.Time // by the vendor; zero for never
}

// Check returns fault.Invalid for a record that no rule can have made.
func (d Device) Check() error {
	op := "check device " + d.Serial.String()
	switch {
	case d.Serial.IsZero() || d.State < Created || d.State > Replaced || d.Created.IsZero():
		return fault.Newf(fault.Invalid, op, "no serial number, state or date")
	case len(d.Blob) == 0 || len(d.MAC) < 32:
		return fault.Newf(fault.Invalid, op, "no sealed seed, or not bound")
	case d.Subject.IsZero() != (d.State == Created) && d.State != Revoked:
		return fault.Newf(fault.Invalid, op, "%v, and the subject does not fit that", d.State)
	case d.Counter.Version == 0 || d.Counter.Failures < 0:
		return fault.Newf(fault.Invalid, op, "no counter")
	case d.Counter.Blocked && (d.State == Active || d.State == Delivered || d.State == Created), !d.Counter.Blocked && d.State == Blocked:
		return fault.Newf(fault.Invalid, op, "%v, and the counter says otherwise", d.State)
	}
	return d.Parameters.Check()
}

// Change says who moved a device, why and when, for its history.
type Change struct {
	Actor  string
	Reason string
	At     time.Time
}

// Move is one step in the life of a device. The register makes it only if the
// device still has the state From and the counter version Seen.
type Move struct {
	Serial  id.Serial
	Seen    uint64
	From    State
	To      State
	Subject id.Subject // after the move
	MAC     []byte     // after the move
	Counter oath.State // after the move; its version is beyond Seen
	Change  Change
}

// Register keeps devices. Every method is one transaction that is durable when
// it returns nil, and is safe against other processes on the same data.
type Register interface {
	// AddDevices adds a delivery, all of it or nothing. fault.Conflict when a serial
	// number is taken, fault.Invalid for a record that Check refuses.
	AddDevices(ctx context.Context, devices []Device, c Change) error
	// Device returns a record; fault.NotFound.
	Device(ctx context.Context, s id.Serial) (Device, error)
	// DevicesOf returns the subject's records by date of creation, ended ones too.
	DevicesOf(ctx context.Context, s id.Subject) ([]Device, error)
	// SwapCounter replaces the counter of a device that is Delivered or Active. When
	// after is blocked, the device becomes Blocked in the same transaction.
	// fault.Conflict when it is in another state, or its counter has not before's version any
	// more; then nothing is changed.
	SwapCounter(ctx context.Context, s id.Serial, before, after oath.State, at time.Time) error
	// MoveDevice makes a move; fault.Conflict when somebody changed the record.
	MoveDevice(ctx context.Context, m Move) error
}

// CellOf is the counter of one device in a register, for oath.Rules.Verify at a
// moment. in is the state the device must be in: Active for logins, Delivered for
// attempts to activate it. Its Load fails with fault.Denied for one in another
// state, except Blocked, and for one that has expired.
func CellOf(r Register, s id.Serial, in State, at time.Time) oath.Cell {
	return cell{r, s, in, at}
}

type cell struct {
	register Register
	serial   id.Serial
	in       State
	at       time.Time
}

// Load implements oath.Cell.
func (c cell) Load(ctx context.Context) (oath.State, error) {
	op := "load counter of device " + c.serial.String()
	d, err := c.register.Device(ctx, c.serial)
	if err != nil {
		return oath.State{}, err
	}
	switch {
	case d.State == Blocked && d.Counter.Blocked:
		return d.Counter, nil
	case d.State != c.in:
		return oath.State{}, fault.Newf(fault.Denied, op, "the device is %v", d.State)
	case !d.Expires.IsZero() && !c.at.Before(d.Expires):
		return oath.State{}, fault.Newf(fault.Denied, op, "the device has expired")
	}
	return d.Counter, nil
}

// Swap implements oath.Cell.
func (c cell) Swap(ctx context.Context, before, after oath.State) error {
	return c.register.SwapCounter(ctx, c.serial, before, after, c.at)
}
