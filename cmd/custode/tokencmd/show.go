package tokencmd

import (
	"context"
	"time"

	"custode/authcore"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store"
	"custode/otpvault/device"
)

// view is what operators see of a device. It has no form of the seed.
type view struct {
	Serial    string      `json:"serial"`
	Subject   string      `json:"subject,omitempty"`
	State     string      `json:"state"`
	Vendor    string      `json:"vendor,omitempty"`
	Virtual   bool        `json:"virtual"`
	Type      string      `json:"type"`
	Hash      string      `json:"hash"`
	Digits    int         `json:"digits"`
	Period    string      `json:"period,omitempty"`
	Failures  int         `json:"wrongCodesInARow"`
	Drift     int         `json:"driftSteps,omitempty"`
	Created   time.Time   `json:"created"`
	Delivered *time.Time  `json:"delivered,omitempty"`
	Activated *time.Time  `json:"activated,omitempty"`
	Suspended *time.Time  `json:"suspended,omitempty"`
	Ended     *time.Time  `json:"ended,omitempty"`
	Expires   *time.Time  `json:"expires,omitempty"`
	History   []viewEvent `json:"history,omitempty"`
}

type viewEvent struct {
	At     time.Time `json:"at"`
	From   string    `json:"from,omitempty"`
	To     string    `json:"to"`
	Actor  string    `json:"actor"`
	Reason string    `json:"reason"`
}

func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func viewOf(d device.Device) view {
	v := view{Serial: d.Serial.String(), Subject: d.Subject.String(), State: d.State.String(), Vendor: d.Vendor, Virtual: d.Virtual,
		Type: d.Parameters.Kind.String(), Hash: d.Parameters.Hash.String(), Digits: d.Parameters.Digits,
		Failures: d.Counter.Failures, Drift: d.Counter.Drift, Created: d.Created, Delivered: when(d.Delivered), Activated: when(d.Activated),
		Suspended: when(d.Suspended), Ended: when(d.Ended), Expires: when(d.Expires)}
	if d.Parameters.Period > 0 {
		v.Period = d.Parameters.Period.String()
	}
	return v
}

func (m *methods) view(ctx context.Context, s id.Serial) (view, error) {
	d, err := m.Devices.Device(ctx, s)
	if err != nil {
		return view{}, err
	}
	v := viewOf(d)
	events, err := m.Devices.DeviceHistory(ctx, s)
	if err != nil {
		return view{}, err
	}
	for _, e := range events {
		one := viewEvent{At: e.At, To: e.To.String(), Actor: e.Actor, Reason: e.Reason}
		if e.From != 0 {
			one.From = e.From.String()
		}
		v.History = append(v.History, one)
	}
	return v, nil
}

// show is a device with its history, or a person's devices.
func (m *methods) show(ctx context.Context, in call) (any, error) {
	if !in.serial.IsZero() {
		return m.view(ctx, in.serial)
	}
	if in.who.Subject.IsZero() {
		return nil, fault.Newf(fault.Invalid, "show devices", "neither a device nor a person is named")
	}
	all, err := m.Devices.DevicesOf(ctx, in.who.Subject)
	if err != nil {
		return nil, err
	}
	list := make([]view, 0, len(all))
	for _, d := range all {
		list = append(list, viewOf(d))
	}
	return list, nil
}

func (m *methods) issueEmergency(ctx context.Context, in call) (any, error) {
	if in.who.Subject.IsZero() || in.Reason == "" {
		return nil, fault.Newf(fault.Invalid, "issue emergency code", "no person or no reason is given")
	}
	code, err := m.Office.IssueEmergency(ctx, in.who.Subject, false)
	if err != nil {
		return nil, err
	}
	return map[string]string{"username": in.Username, "emergencyCode": code}, nil
}

// redeemEmergency does the three things an emergency code allows, and no other (life cycle, I13). What
// cannot be done is refused before the code is used up.
func (m *methods) redeemEmergency(ctx context.Context, in call) (any, error) {
	const op = "redeem emergency code"
	var do func() (any, error)
	switch in.Action {
	case "suspend", "revoke":
		reason := map[string]string{"suspend": "emergency code: suspension asked for", "revoke": "emergency code: revocation asked for"}[in.Action]
		next, err := in.who.Suspend(reason)
		if err != nil {
			return nil, err
		}
		do = func() (any, error) {
			err := m.DB.SetIdentityState(ctx, in.who.Username, in.who.State, next.State, store.Change{Actor: in.Actor, Reason: reason, At: m.Now()})
			return map[string]string{"username": in.Username, "state": next.State.String(), "reason": reason}, err
		}
	case "replace":
		d, err := m.Devices.Device(ctx, in.serial)
		if err != nil {
			return nil, err
		}
		if d.Subject != in.who.Subject || !d.State.May(device.Replaced) || in.who.State != authcore.Active {
			return nil, fault.Newf(fault.Conflict, op, "the device is %v, or another person's, or the identity is not active", d.State)
		}
		in.change.Reason = "emergency code: replaced by a virtual device"
		do = func() (any, error) {
			if err := m.Office.Move(ctx, in.serial, func(d device.Device) (device.Move, error) { return d.Replace(in.change) }); err != nil {
				return nil, err
			}
			in.ByCode = true
			return m.enrol(ctx, in)
		}
	default:
		return nil, fault.Newf(fault.Invalid, op, "suspend, replace and revoke are what it is for")
	}
	if err := m.Office.RedeemEmergency(ctx, in.who.Subject, in.Code); err != nil {
		return nil, err
	}
	return do()
}
