// Package factor is where the second factors of a login meet: authcore asks for them,
// otpvault/proof judges their codes, the token compares, the database keeps. Wiring
// only, like cmd/custode, which imports it.
package factor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"custode/authcore"
	"custode/hsm"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/otpvault/device"
	"custode/otpvault/oath"
	"custode/otpvault/proof"
	"custode/otpvault/seed"
)

// Choices keeps by which way a subject logged in last (store.DB).
type Choices interface {
	Choice(ctx context.Context, subject id.Subject) (method uint8, serial id.Serial, err error)
	SetChoice(ctx context.Context, subject id.Subject, method uint8, serial id.Serial, at time.Time) error
}

// Ways implements authcore.Devices.
type Ways struct {
	Desk    *proof.Desk
	Choices Choices
	Now     func() time.Time
}

var _ authcore.Devices = Ways{}

// way is how the login names a device: by a hash, so that a page that only a password has
// opened does not give the serial number away, which activating and resynchronising ask for.
func way(m authcore.Method, d device.Device) authcore.Way {
	digits := d.Parameters.Digits
	if m == authcore.MethodPush {
		digits = 6
	}
	return authcore.Way{Method: m, Key: key(d), Name: masked(d.Serial), Digits: digits}
}

// key has the subject in it, which nobody outside knows: serial numbers alone could be tried.
func key(d device.Device) string {
	sum := sha256.Sum256([]byte("custode way 1 " + d.Subject.String() + " " + d.Serial.String()))
	return hex.EncodeToString(sum[:8])
}

// masked shows the last four characters of a serial number, or half of a short one.
func masked(s id.Serial) string {
	text := s.String()
	return "•••" + text[len(text)-min(4, len(text)/2):]
}

// methods are how a device can be used.
func methods(h proof.Held) []authcore.Method {
	switch {
	case !h.Virtual:
		return []authcore.Method{authcore.MethodToken}
	case h.Push:
		return []authcore.Method{authcore.MethodPush, authcore.MethodApp}
	}
	return []authcore.Method{authcore.MethodApp}
}

// Ways implements authcore.Devices.
func (w Ways) Ways(ctx context.Context, subject id.Subject) ([]authcore.Way, authcore.Method, error) {
	held, err := w.Desk.Held(ctx, subject)
	if err != nil {
		return nil, 0, err
	}
	number, serial, err := w.Choices.Choice(ctx, subject)
	if err != nil {
		return nil, 0, err
	}
	last := authcore.Method(number)
	var out []authcore.Way
	for _, h := range held {
		for _, m := range methods(h) {
			one := way(m, h.Device)
			one.Blocked, one.Last = h.Blocked(), last == m && serial == h.Serial
			out = append(out, one)
		}
	}
	return out, last, nil
}

// find returns the subject's device of that key.
func (w Ways) find(ctx context.Context, subject id.Subject, want string) (proof.Held, error) {
	held, err := w.Desk.Held(ctx, subject)
	if err != nil {
		return proof.Held{}, err
	}
	for _, h := range held {
		if key(h.Device) == want {
			return h, nil
		}
	}
	return proof.Held{}, fault.Newf(fault.Denied, "find device of "+subject.String(), "there is none of that key")
}

// Open implements authcore.Devices.
func (w Ways) Open(ctx context.Context, o authcore.Order) (id.ChallengeID, error) {
	h, err := w.find(ctx, o.Subject, o.Key)
	if err != nil {
		return id.ChallengeID{}, err
	}
	if o.Method == authcore.MethodPush {
		return w.Desk.Push(ctx, proof.PushOrder{Flow: o.Flow, Subject: o.Subject, Serial: h.Serial, SP: o.SP, SPName: o.SPName, Until: o.Until})
	}
	return w.Desk.Open(ctx, o.Flow, o.Subject, h.Serial, o.Until)
}

// Opened implements authcore.Devices.
func (w Ways) Opened(ctx context.Context, challenge id.ChallengeID) (authcore.Way, error) {
	c, d, err := w.Desk.Opened(ctx, challenge)
	if err != nil {
		return authcore.Way{}, err
	}
	m := authcore.MethodToken
	switch {
	case c.Pushed():
		m = authcore.MethodPush
	case d.Virtual:
		m = authcore.MethodApp
	}
	one := way(m, d)
	one.Number = c.Number
	return one, nil
}

// verdicts are the judgements in the words of the login; what is missing is wrong.
var verdicts = map[oath.Verdict]authcore.Verdict{
	oath.Accepted: authcore.VerdictRight, oath.Repeated: authcore.VerdictRepeated, oath.Blocked: authcore.VerdictBlocked,
}

// Verify implements authcore.Devices.
func (w Ways) Verify(ctx context.Context, challenge id.ChallengeID, f id.FlowID, s id.Subject, code string) (authcore.Judged, error) {
	verdict, left, err := w.Desk.Verify(ctx, challenge, f, s, code)
	if err != nil {
		return authcore.Judged{}, err
	}
	return authcore.Judged{Verdict: verdicts[verdict], Left: left}, nil
}

// Remember implements authcore.Devices.
func (w Ways) Remember(ctx context.Context, subject id.Subject, m authcore.Method, want string) error {
	serial := id.Serial{}
	if m != authcore.MethodSMS {
		h, err := w.find(ctx, subject, want)
		if err != nil {
			return err
		}
		serial = h.Serial
	}
	return w.Choices.SetChoice(ctx, subject, uint8(m), serial, w.Now())
}

// Matcher asks the token a seed's question. Binder is the key of the binding MACs.
type Matcher struct {
	Token  hsm.CodeMatcher
	Binder id.KeyLabel
}

var _ seed.Matcher = Matcher{}

// Match implements seed.Matcher.
func (m Matcher) Match(ctx context.Context, q seed.Question) ([]int, error) {
	return m.Token.MatchCodes(ctx, hsm.CodeQuery{
		KEK: q.KEK, Wrap: q.Wrap, KeyType: q.KeyType, MAC: q.MAC, Wrapped: q.Wrapped, Binder: m.Binder, Binding: q.Binding, BindingMAC: q.BindingMAC,
		Digits: q.Digits, Counters: q.Counters, Code: q.Code,
	})
}
