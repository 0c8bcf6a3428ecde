// Package issuing gives OATH devices to subjects and takes them back: deliveries of hardware
// devices, their assignment and activation, virtual devices, resynchronisation, and the
// emergency code that replaces them.
//
// The rules are those of otpvault/device (states), oath (codes), seed (sealing) and enrol (apps);
// an [Office] reads, applies one and has the result stored, again when somebody was faster. Seeds
// pass through it once, between a delivery file or the random source and the HSM, and
// are cleared.
//
// It is no store, no page and no policy: who may do what is decided, and kept in the security log,
// by its caller. It may be imported by cmd and internal/store; it imports the other
// packages of otpvault.
package issuing

import (
	"context"
	"crypto/x509"
	"encoding/base32"
	"io"
	"log/slog"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/otpvault/device"
	"custode/otpvault/enrol"
	"custode/otpvault/oath"
	"custode/otpvault/pskc"
	"custode/otpvault/seed"
)

// Activations keeps activation codes. Every method is one transaction, durable when it returns nil.
type Activations interface {
	// AddActivation adds one; fault.Conflict when the serial number is taken.
	AddActivation(ctx context.Context, a enrol.Activation, at time.Time) error
	// Activation returns one; fault.NotFound.
	Activation(ctx context.Context, s id.Serial) (enrol.Activation, error)
	// SwapActivation replaces before by after; fault.Conflict when it is not there any more.
	SwapActivation(ctx context.Context, before, after enrol.Activation) error
	// RedeemActivation does the same and adds the device with the wrapped key of its app.
	RedeemActivation(ctx context.Context, before, after enrol.Activation, d device.Device, key []byte, c device.Change) error
}

// Emergencies keeps the subjects' emergency codes.
type Emergencies interface {
	// Emergency returns the subject's; fault.NotFound.
	Emergency(ctx context.Context, s id.Subject) (enrol.Emergency, error)
	// PutEmergency stores e if the one there has the version before e's, or if there is
	// none and e is the first; fault.Conflict.
	PutEmergency(ctx context.Context, e enrol.Emergency) error
}

// Keys wraps the key of an app by a key of the HSM (hsm.Wrapper).
type Keys interface {
	Wrap(ctx context.Context, plaintext, aad []byte) ([]byte, error)
}

// Accounts names a subject as apps show it; fault.Denied for one whose identity is not active.
type Accounts interface {
	Account(ctx context.Context, s id.Subject) (string, error)
}

// Config is what New needs. All but the last three are required.
type Config struct {
	Devices     device.Register
	Activations Activations
	Emergencies Emergencies
	Accounts    Accounts
	Wrapper     seed.Wrapper
	Binder      seed.Binder
	Matcher     seed.Matcher
	MAC         enrol.MAC // of activation and emergency codes
	Keys        Keys
	Recipe      seed.Recipe
	Random      io.Reader
	Now         func() time.Time
	Log         *slog.Logger

	Issuer string     // in apps; "": Custode
	Rules  oath.Rules // zero: the default rules
	// Recovery is the certificate of the off-line key that a copy of each seed is encrypted to
	// (seed.Escrow); nil: no copies.
	Recovery *x509.Certificate
}

// Office issues devices. It keeps nothing itself and is safe for concurrent use.
type Office struct{ cfg Config }

// New checks the configuration; fault.Invalid.
func New(c Config) (*Office, error) {
	if c.Devices == nil || c.Activations == nil || c.Emergencies == nil || c.Accounts == nil || c.Wrapper == nil || c.Binder == nil || c.Matcher == nil ||
		c.MAC == nil || c.Keys == nil || c.Recipe.KEK.IsZero() || c.Random == nil || c.Now == nil || c.Log == nil {
		return nil, fault.Newf(fault.Invalid, "configure the issue of devices", "a required part is missing")
	}
	if c.Rules == (oath.Rules{}) {
		c.Rules = oath.NewRules()
	}
	if c.Issuer == "" {
		c.Issuer = "Custode"
	}
	if c.Recovery != nil {
		if err := seed.CheckRecovery(c.Recovery); err != nil {
			return nil, err
		}
	}
	return &Office{c}, c.Rules.Validate()
}

// forApps are the parameters of virtual devices: what every authenticator app knows.
var forApps = oath.Parameters{Kind: oath.Time, Hash: oath.SHA1, Digits: 6, Period: 30 * time.Second}

// most tries of a change that others were faster with.
const most = 64

// Import seals a delivery and puts it in the drawer, all of it or nothing, and wipes it in any
// case. It returns the serial numbers. fault.Conflict when one is taken.
func (o *Office) Import(ctx context.Context, batch pskc.Batch, c device.Change) ([]id.Serial, error) {
	const op = "import devices"
	defer batch.Wipe()
	now := o.cfg.Now().UTC()
	var list []device.Device
	var serials []id.Serial
	for _, k := range batch.Keys {
		if err := ctx.Err(); err != nil {
			return nil, fault.New(fault.Retry, op, err)
		}
		d := device.Device{Serial: k.Serial, State: device.Created, Vendor: k.Manufacturer, Parameters: k.Parameters,
			Counter: oath.Begin(k.Counter), Created: now, Expires: k.Expires}
		if err := o.seal(ctx, &d, k.Seed); err != nil {
			return nil, err
		}
		list, serials = append(list, d), append(serials, k.Serial)
	}
	return serials, o.cfg.Devices.AddDevices(ctx, list, c)
}

// seal completes d by its sealed seed, and clears secret.
func (o *Office) seal(ctx context.Context, d *device.Device, secret []byte) error {
	defer clear(secret)
	b := seed.Binding{Subject: d.Subject, Serial: d.Serial, Parameters: d.Parameters}
	if o.cfg.Recovery != nil {
		var err error
		if d.Escrow, err = seed.Escrow(o.cfg.Random, o.cfg.Recovery, b, secret); err != nil {
			return err
		}
	}
	sealed, mac, err := seed.Seal(ctx, o.cfg.Wrapper, o.cfg.Binder, o.cfg.Recipe, b, secret)
	if err != nil {
		return err
	}
	d.MAC = mac
	d.Blob, err = sealed.Encode()
	return err
}

// stored is the device's seed as its row claims it.
func stored(d device.Device) (seed.Stored, error) {
	s, err := seed.Read(seed.Binding{Subject: d.Subject, Serial: d.Serial, Parameters: d.Parameters}, d.Blob, d.MAC)
	if err != nil {
		return s, fault.New(fault.Internal, "read seed of device "+d.Serial.String(), err)
	}
	return s, nil
}

// Move applies a rule of the life cycle to a device and has the move made.
func (o *Office) Move(ctx context.Context, s id.Serial, rule func(device.Device) (device.Move, error)) error {
	for range most {
		d, err := o.cfg.Devices.Device(ctx, s)
		if err != nil {
			return err
		}
		m, err := rule(d)
		if err != nil {
			return err
		}
		if err = o.cfg.Devices.MoveDevice(ctx, m); !fault.Is(err, fault.Conflict) {
			return err
		}
	}
	return fault.Newf(fault.Busy, "move device "+s.String(), "others were always faster")
}

// Assign gives a device from the drawer to a subject.
func (o *Office) Assign(ctx context.Context, s id.Serial, to id.Subject, c device.Change) error {
	return o.Move(ctx, s, func(d device.Device) (device.Move, error) {
		if d.State != device.Created {
			return d.Assign(to, d.MAC, c) // says why not
		}
		claim, err := stored(d)
		if err != nil {
			return device.Move{}, err
		}
		mac, err := claim.Rebind(ctx, o.cfg.Binder, to)
		if err != nil {
			return device.Move{}, err
		}
		return d.Assign(to, mac, c)
	})
}

// Unblock ends a blockage by wrong codes, or a suspension.
func (o *Office) Unblock(ctx context.Context, s id.Serial, c device.Change) error {
	return o.Move(ctx, s, func(d device.Device) (device.Move, error) {
		if d.State == device.Suspended {
			return d.Restore(c)
		}
		return d.Unblock(c)
	})
}

// Activate ends the delivery of a device: one code, or two in a row for a device whose counter
// or clock is further off, prove that its holder has it and align it. Virtual devices must be
// activated within enrol.Window of their issue (fault.Expired). fault.Denied when the
// codes are wrong, which counts, or the device is blocked.
func (o *Office) Activate(ctx context.Context, s id.Serial, first, second string, c device.Change) (device.Device, error) {
	op := "activate device " + s.String()
	for range most {
		d, err := o.cfg.Devices.Device(ctx, s)
		if err != nil {
			return d, err
		}
		now := o.cfg.Now()
		switch {
		case d.State == device.Blocked:
			return d, fault.Newf(fault.Denied, op, "it is blocked")
		case d.State != device.Delivered:
			return d, fault.Newf(fault.Conflict, op, "it is %v", d.State)
		case d.Virtual && !now.Before(d.Delivered.Add(enrol.Window)):
			return d, fault.Newf(fault.Expired, op, "it was issued more than %v ago", enrol.Window)
		}
		claim, err := stored(d)
		if err != nil {
			return d, err
		}
		verdict, after, err := o.judge(ctx, claim, d, first, second, now)
		if err != nil {
			return d, err
		}
		if verdict == oath.Accepted {
			m, err := d.Activate(verdict, after, c)
			if err != nil {
				return d, err
			}
			err = o.cfg.Devices.MoveDevice(ctx, m)
			if fault.Is(err, fault.Conflict) {
				continue
			}
			return d, err
		}
		if after != d.Counter {
			err = o.cfg.Devices.SwapCounter(ctx, s, d.Counter, after, now)
			if fault.Is(err, fault.Conflict) {
				continue
			}
			if err != nil {
				return d, err
			}
		}
		return d, fault.Newf(fault.Denied, op, "the code is %v", verdict)
	}
	return device.Device{}, fault.Newf(fault.Busy, op, "others were always faster")
}

func (o *Office) judge(ctx context.Context, s seed.Stored, d device.Device, first, second string, now time.Time) (oath.Verdict, oath.State, error) {
	m := s.With(o.cfg.Matcher)
	if second == "" {
		return o.cfg.Rules.Check(ctx, m, d.Parameters, d.Counter, first, now)
	}
	return o.cfg.Rules.Realign(ctx, m, d.Parameters, d.Counter, first, second, now)
}

// Resync aligns an active device by two codes that it shows one after the other; both are void
// afterwards. fault.Denied when they are wrong, which counts.
func (o *Office) Resync(ctx context.Context, s id.Serial, first, second string) error {
	op := "resynchronise device " + s.String()
	d, err := o.cfg.Devices.Device(ctx, s)
	if err != nil {
		return err
	}
	claim, err := stored(d)
	if err != nil {
		return err
	}
	now := o.cfg.Now()
	v, err := o.cfg.Rules.VerifyPair(ctx, device.CellOf(o.cfg.Devices, s, device.Active, now), claim.With(o.cfg.Matcher), d.Parameters, first, second, now)
	if err == nil && v != oath.Accepted {
		err = fault.Newf(fault.Denied, op, "the codes are %v", v)
	}
	return err
}

// newSerial draws the serial number of a virtual device.
func (o *Office) newSerial() (id.Serial, error) {
	var b [10]byte
	if _, err := io.ReadFull(o.cfg.Random, b[:]); err != nil {
		return id.Serial{}, fault.New(fault.Unavailable, "draw serial number", err)
	}
	return id.ParseSerial("APP-" + base32.StdEncoding.EncodeToString(b[:])[:12])
}
