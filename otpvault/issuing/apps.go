package issuing

import (
	"context"
	"crypto/ecdh"
	"io"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/otpvault/device"
	"custode/otpvault/enrol"
	"custode/otpvault/oath"
)

// seedOctets is the length of the seeds that are made here (RFC 4226, R6: 160 bits recommended).
const seedOctets = 20

// newApp makes a virtual device of the subject, and its URI, which the caller clears.
func (o *Office) newApp(ctx context.Context, serial id.Serial, subject id.Subject) (device.Device, []byte, error) {
	account, err := o.cfg.Accounts.Account(ctx, subject)
	if err != nil {
		return device.Device{}, nil, err
	}
	secret := make([]byte, seedOctets)
	defer clear(secret)
	if _, err := io.ReadFull(o.cfg.Random, secret); err != nil {
		return device.Device{}, nil, fault.New(fault.Unavailable, "draw seed", err)
	}
	uri, err := enrol.URI(enrol.Label{Issuer: o.cfg.Issuer, Account: account}, forApps, 0, secret)
	if err != nil {
		return device.Device{}, nil, err
	}
	now := o.cfg.Now().UTC()
	d := device.Device{Serial: serial, Subject: subject, State: device.Delivered, Virtual: true, Parameters: forApps,
		Counter: oath.Begin(0), Created: now, Delivered: now}
	if err := o.seal(ctx, &d, secret); err != nil {
		clear(uri)
		return device.Device{}, nil, err
	}
	return d, uri, nil
}

// EnrolURI makes a virtual device for the subject and returns its otpauth URI, for a QR code
// that is shown once. The caller clears it. The device must be activated within enrol.Window.
func (o *Office) EnrolURI(ctx context.Context, subject id.Subject, c device.Change) (id.Serial, []byte, error) {
	if subject.IsZero() {
		return id.Serial{}, nil, fault.Newf(fault.Invalid, "enrol an app", "no subject")
	}
	serial, err := o.newSerial()
	if err != nil {
		return serial, nil, err
	}
	d, uri, err := o.newApp(ctx, serial, subject)
	if err != nil {
		return serial, nil, err
	}
	if err := o.cfg.Devices.AddDevices(ctx, []device.Device{d}, c); err != nil {
		clear(uri)
		return serial, nil, err
	}
	return serial, uri, nil
}

// EnrolCode issues an activation code, with which an app fetches its seed by Redeem: once, within
// enrol.Window.
func (o *Office) EnrolCode(ctx context.Context, subject id.Subject) (id.Serial, string, error) {
	serial, err := o.newSerial()
	if err != nil {
		return serial, "", err
	}
	now := o.cfg.Now().UTC()
	a, code, err := enrol.Issue(ctx, o.cfg.MAC, o.cfg.Random, serial, subject, now)
	if err != nil {
		return serial, "", err
	}
	return serial, code, o.cfg.Activations.AddActivation(ctx, a, now)
}

// Redeem gives an app its seed: it sends its public key (X25519) and the activation code, and gets
// the URI encrypted to that key, and whose it is. The device exists from then on, not active yet.
// fault.Denied when the code is wrong or the serial number unknown, fault.Conflict when it was used,
// fault.Exhausted, fault.Expired, fault.Invalid for what is no code or key.
func (o *Office) Redeem(ctx context.Context, serial id.Serial, code string, appKey []byte) (id.Subject, []byte, error) {
	op := "activate app " + serial.String()
	if _, err := ecdh.X25519().NewPublicKey(appKey); err != nil {
		return id.Subject{}, nil, fault.Newf(fault.Invalid, op, "the app's key has %d octets", len(appKey))
	}
	a, err := o.cfg.Activations.Activation(ctx, serial)
	if fault.Is(err, fault.NotFound) {
		return id.Subject{}, nil, fault.New(fault.Denied, op, err)
	}
	if err != nil {
		return id.Subject{}, nil, err
	}
	used, err := a.Redeem(ctx, o.cfg.MAC, code, o.cfg.Now())
	if fault.Is(err, fault.Denied) {
		if e := o.cfg.Activations.SwapActivation(ctx, a, used); e != nil {
			return id.Subject{}, nil, e
		}
	}
	if err != nil {
		return id.Subject{}, nil, err
	}
	d, uri, err := o.newApp(ctx, serial, a.Subject)
	if err != nil {
		return id.Subject{}, nil, err
	}
	defer clear(uri)
	parcel, key, err := enrol.Deliver(o.cfg.Random, appKey, code, serial, uri)
	if err != nil {
		return id.Subject{}, nil, err
	}
	defer clear(key)
	wrapped, err := o.cfg.Keys.Wrap(ctx, key, enrol.KeyContext(serial))
	if err != nil {
		return id.Subject{}, nil, err
	}
	c := device.Change{Actor: "app", Reason: "activation code redeemed", At: o.cfg.Now().UTC()}
	return a.Subject, parcel, o.cfg.Activations.RedeemActivation(ctx, a, used, d, wrapped, c)
}

// Confirm ends the activation of an app by a code that it shows, and returns its subject.
func (o *Office) Confirm(ctx context.Context, serial id.Serial, code string) (id.Subject, error) {
	op := "activate app " + serial.String()
	d, err := o.cfg.Devices.Device(ctx, serial)
	if err == nil && !d.Virtual {
		err = fault.Newf(fault.NotFound, op, "it is no app")
	}
	if fault.Is(err, fault.NotFound) {
		return id.Subject{}, fault.New(fault.Denied, op, err)
	}
	if err != nil {
		return id.Subject{}, err
	}
	d, err = o.Activate(ctx, serial, code, "", device.Change{Actor: "app", Reason: "first code", At: o.cfg.Now().UTC()})
	return d.Subject, err
}

// IssueEmergency gives a subject an emergency code in place of the one before, to be shown once.
// When there is one that can be used and only the first is wanted: fault.Conflict.
func (o *Office) IssueEmergency(ctx context.Context, subject id.Subject, first bool) (string, error) {
	before, err := o.cfg.Emergencies.Emergency(ctx, subject)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return "", err
	}
	if err == nil && first && !before.Used && before.Left > 0 {
		return "", fault.Newf(fault.Conflict, "issue emergency code", "the subject has one")
	}
	e, code, err := enrol.IssueEmergency(ctx, o.cfg.MAC, o.cfg.Random, subject, before, o.cfg.Now().UTC())
	if err != nil {
		return "", err
	}
	return code, o.cfg.Emergencies.PutEmergency(ctx, e)
}

// RedeemEmergency uses a subject's emergency code up. nil: it was right, and what the subject
// asked for may be done. Errors as Redeem; fault.Denied too when there is none.
func (o *Office) RedeemEmergency(ctx context.Context, subject id.Subject, typed string) error {
	before, err := o.cfg.Emergencies.Emergency(ctx, subject)
	if fault.Is(err, fault.NotFound) {
		return fault.New(fault.Denied, "redeem emergency code", err)
	}
	if err != nil {
		return err
	}
	after, judged := before.Redeem(ctx, o.cfg.MAC, typed)
	if judged != nil && !fault.Is(judged, fault.Denied) {
		return judged
	}
	if err := o.cfg.Emergencies.PutEmergency(ctx, after); err != nil {
		return err
	}
	return judged
}
