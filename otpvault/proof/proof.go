// Package proof judges the codes of a subject's OATH devices at a login: the codes that
// a device shows, and those that are pushed to an app.
//
// A [Desk] opens a [Challenge] to one device for one login and judges what is
// typed for it. Three things are durable before a verdict is told, each decided by the store
// among all processes: an attempt was taken off the challenge (three there are), the
// device's counter or failures were swapped (package oath: a counter or time step is
// accepted once, ten wrong codes in a row block), and the challenge was burned by the
// one success it may have.
//
// The code of a device is compared in the HSM (package seed); a pushed code is kept as
// the HSM's MAC over purpose, challenge, flow, subject, serial and code, as SMS codes are.
//
// It is no store (internal/store implements [Store]), no notifier, and no policy: what
// follows from a wrong code is decided by authcore. It may be imported by cmd and
// internal/store; it imports the other packages of otpvault.
package proof

import (
	"context"
	"io"
	"log/slog"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/otpvault/device"
	"custode/otpvault/enrol"
	"custode/otpvault/oath"
	"custode/otpvault/seed"
)

// Challenge is an open question to one device, as the store keeps it.
type Challenge struct {
	ID      id.ChallengeID
	Flow    id.FlowID
	Subject id.Subject
	Serial  id.Serial
	Number  string // of a pushed code: two digits; else ""
	MAC     []byte // of a pushed code; else nil
	Left    int    // attempts that remain
	Created time.Time
	Expires time.Time // exclusive
}

// Pushed reports whether the challenge is answered by a code that was sent to the app.
func (c Challenge) Pushed() bool { return c.Number != "" }

// Limit bounds the codes pushed to one subject.
type Limit struct {
	Pushes int
	Window time.Duration
}

// Store keeps challenges. Every method is one transaction that is durable when
// it returns nil, and is safe against other processes on the same data.
type Store interface {
	// OpenDeviceChallenge retires the open ones of the same flow and inserts c. When it
	// is pushed, the limit is checked first (fault.Exhausted).
	OpenDeviceChallenge(ctx context.Context, c Challenge, l Limit) error
	// DeviceChallenge returns a challenge, closed ones too; fault.NotFound.
	DeviceChallenge(ctx context.Context, c id.ChallengeID) (Challenge, error)
	// TakeDeviceAttempt takes one attempt off an open challenge and returns what remains.
	// fault.NotFound when it is unknown or of another flow or subject, fault.Conflict when burned
	// or retired, fault.Exhausted, fault.Expired.
	TakeDeviceAttempt(ctx context.Context, c id.ChallengeID, f id.FlowID, s id.Subject, now time.Time) (left int, err error)
	// BurnDeviceChallenge closes an open challenge for good; fault.Conflict when it is not open.
	BurnDeviceChallenge(ctx context.Context, c id.ChallengeID, now time.Time) error
	// PushKey returns the wrapped key of the app that has the device; fault.NotFound.
	PushKey(ctx context.Context, s id.Serial) ([]byte, error)
}

// Wrapper opens what the HSM has wrapped (of hsm.Wrapper).
type Wrapper interface {
	Unwrap(ctx context.Context, blob, aad []byte) ([]byte, error)
}

// Notifier carries a sealed push to the app that has the device. It returns when the
// message was accepted; the context bounds it.
type Notifier interface {
	Notify(ctx context.Context, serial id.Serial, message []byte) error
}

// The defaults of a zero Config field.
const (
	DefaultPushLife = 3 * time.Minute
	DefaultPushes   = 5
	DefaultWindow   = 10 * time.Minute
	notifyTime      = 5 * time.Second // for the notifier to accept
	pushDigits      = 6
)

// Config is what New needs. All but the last four are required.
type Config struct {
	Devices device.Register
	Store   Store
	Matcher seed.Matcher
	MAC     enrol.MAC // of pushed codes; its key may also make those of SMS codes
	Wrapper Wrapper   // of the apps' keys
	Random  io.Reader
	Now     func() time.Time
	Log     *slog.Logger

	Rules    oath.Rules    // zero: the default rules
	Notifier Notifier      // nil: nothing is pushed
	PushLife time.Duration // of a pushed code
	Limit    Limit         // of pushes to a subject
}

// Desk opens and judges challenges. It keeps nothing itself and is safe for
// concurrent use.
type Desk struct{ cfg Config }

// New checks the configuration; fault.Invalid.
func New(c Config) (*Desk, error) {
	const op = "configure codes of devices"
	if c.Devices == nil || c.Store == nil || c.Matcher == nil || c.MAC == nil || c.Wrapper == nil || c.Random == nil || c.Now == nil || c.Log == nil {
		return nil, fault.Newf(fault.Invalid, op, "a required part is nil")
	}
	if c.Rules == (oath.Rules{}) {
		c.Rules = oath.NewRules()
	}
	if c.PushLife == 0 {
		c.PushLife = DefaultPushLife
	}
	if c.Limit == (Limit{}) {
		c.Limit = Limit{Pushes: DefaultPushes, Window: DefaultWindow}
	}
	if c.PushLife < 30*time.Second || c.PushLife > 10*time.Minute || c.Limit.Pushes < 1 || c.Limit.Window <= 0 {
		return nil, fault.Newf(fault.Invalid, op, "pushed codes live %v, %d of them in %v", c.PushLife, c.Limit.Pushes, c.Limit.Window)
	}
	return &Desk{c}, c.Rules.Validate()
}

// Held is a device that its subject could log in with.
type Held struct {
	device.Device
	Push bool // codes can be pushed to it
}

// Blocked reports whether it takes no code now.
func (h Held) Blocked() bool { return h.State != device.Active }

// Held lists the subject's devices that are active, blocked or suspended and have not
// expired, by date of creation.
func (d *Desk) Held(ctx context.Context, s id.Subject) ([]Held, error) {
	all, err := d.cfg.Devices.DevicesOf(ctx, s)
	if err != nil {
		return nil, err
	}
	var held []Held
	now := d.cfg.Now()
	for _, v := range all {
		activated := v.State == device.Active || v.State == device.Suspended || v.State == device.Blocked && !v.Activated.IsZero()
		if !activated || !v.Expires.IsZero() && !now.Before(v.Expires) {
			continue
		}
		h := Held{Device: v}
		if v.Virtual && d.cfg.Notifier != nil {
			_, err := d.cfg.Store.PushKey(ctx, v.Serial)
			if err != nil && !fault.Is(err, fault.NotFound) {
				return nil, err
			}
			h.Push = err == nil
		}
		held = append(held, h)
	}
	return held, nil
}

// usable returns the device if it is the subject's and takes codes; fault.Denied.
func (d *Desk) usable(ctx context.Context, op string, serial id.Serial, s id.Subject) (device.Device, error) {
	v, err := d.cfg.Devices.Device(ctx, serial)
	if err != nil {
		return v, err
	}
	if s.IsZero() || v.Subject != s {
		return v, fault.Newf(fault.Denied, op, "the device is another subject's")
	}
	if v.State != device.Active || !v.Expires.IsZero() && !d.cfg.Now().Before(v.Expires) {
		return v, fault.Newf(fault.Denied, op, "the device is %v, or has expired", v.State)
	}
	return v, nil
}

// Open opens a challenge that is answered by a code the device shows, until then.
// fault.Denied when the device takes none.
func (d *Desk) Open(ctx context.Context, f id.FlowID, s id.Subject, serial id.Serial, until time.Time) (id.ChallengeID, error) {
	op := "ask for a code of device " + serial.String()
	if _, err := d.usable(ctx, op, serial, s); err != nil {
		return id.ChallengeID{}, err
	}
	c, err := d.challenge(f, s, serial, until)
	if err != nil {
		return id.ChallengeID{}, err
	}
	return c.ID, d.open(ctx, op, c)
}

func (d *Desk) challenge(f id.FlowID, s id.Subject, serial id.Serial, until time.Time) (Challenge, error) {
	challenge, err := id.NewChallengeID(d.cfg.Random)
	if err != nil {
		return Challenge{}, err
	}
	now := d.cfg.Now().UTC()
	if f.IsZero() || !until.After(now) {
		return Challenge{}, fault.Newf(fault.Invalid, "open challenge", "no flow, or no time")
	}
	return Challenge{ID: challenge, Flow: f, Subject: s, Serial: serial, Left: d.cfg.Rules.PerChallenge, Created: now, Expires: until.UTC()}, nil
}

func (d *Desk) open(ctx context.Context, op string, c Challenge) error {
	err := d.cfg.Store.OpenDeviceChallenge(ctx, c, d.cfg.Limit)
	if err == nil || fault.Is(err, fault.Exhausted) {
		return err
	}
	return fault.New(trouble(err), op, err)
}

// Opened returns a challenge and its device; fault.NotFound.
func (d *Desk) Opened(ctx context.Context, challenge id.ChallengeID) (Challenge, device.Device, error) {
	c, err := d.cfg.Store.DeviceChallenge(ctx, challenge)
	if err != nil {
		return c, device.Device{}, err
	}
	v, err := d.cfg.Devices.Device(ctx, c.Serial)
	return c, v, err
}
