package main

import (
	"context"
	"io"
	"time"

	"custode/internal/admin"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store"
	"custode/modem"
	"custode/modem/budget"
	"custode/otpvault"
)

// sealer wraps and unwraps message texts (an HSM key).
type sealer interface {
	otpvault.Wrapper
	modem.Opener
}

// newPool builds the modem pool over the outbox in the database. opener unwraps
// message texts just before they are sent.
func (a *appliance) newPool(opener modem.Opener) (*modem.Pool, error) {
	bays := make([]modem.BayConfig, len(a.machine.Modems))
	for i, m := range a.machine.Modems {
		bays[i] = modem.BayConfig{Name: m.Name, Device: m.Device, Baud: m.Baud, HardwareFlow: m.Flow, SIMPIN: m.SIMPINFile, IMEI: m.IMEI}
		if m.Centre != "" {
			var err error
			if bays[i].Centre, err = id.ParsePhone(m.Centre); err != nil {
				return nil, err
			}
		}
	}
	profiles, err := readProfiles(a.machine.ModemProfiles)
	if err != nil {
		return nil, err
	}
	numbers, err := id.ParseNumbering(a.policy.SMS.Countries)
	if err != nil {
		return nil, err
	}
	s := a.policy.SMS
	caps := modem.Caps{PerNumber: s.PerNumber, Window: s.PerNumberWindow}
	for _, c := range s.Prefixes {
		caps.Prefixes = append(caps.Prefixes, modem.PrefixCap{Prefix: c.Prefix, PerHour: c.PerHour})
	}
	return modem.New(modem.Config{
		Bays: bays, Journal: a.db, Accounts: a.db, Opener: opener, Now: time.Now, Log: a.log, Caps: caps,
		Profiles: profiles, Numbers: numbers,
		Budget:         budget.Limits{Burst: s.Burst, PerMinute: s.PerMinute, PerDay: s.PerDay, PerMonth: s.PerMonth, BulkPercent: s.BulkPercent},
		AllowSimulated: a.machine.AllowSimulatedModems, PINNotes: a.machine.StateDirectory, Forward: a.forward.Hook(),
	})
}

// The arguments of the administrative methods.
type (
	bayArgument struct {
		Bay   string `json:"bay"`
		What  string `json:"what,omitempty"` // power: on, off, cycle; ussd: the code
		Actor string `json:"actor"`
	}
	testArgument struct {
		Bay    string `json:"bay"`
		Number string `json:"number"`
		Actor  string `json:"actor"`
	}
	sendArgument struct {
		Numbers []string      `json:"numbers"`
		Class   string        `json:"class"` // alert or bulk
		Text    []byte        `json:"text"`
		Life    time.Duration `json:"life"`
		Actor   string        `json:"actor"`
	}
	logArgument struct {
		Since   time.Duration `json:"since"`
		Message string        `json:"message,omitempty"`
		After   int64         `json:"after,omitempty"`
	}
	optOutArgument struct {
		Number string `json:"number"`
		Undo   bool   `json:"undo"`
		Actor  string `json:"actor"`
	}
)

// sent names what a test or a send queued.
type sent struct {
	Messages []string `json:"messages"`
}

// maxSend bounds the numbers of one send.
const maxSend = 1000

// logPage bounds the entries of one answer, far below the socket's limit.
const logPage = 1000

func (a *appliance) modemMethods(random io.Reader) map[string]admin.Method {
	return map[string]admin.Method{
		"watch/modems":  func(context.Context, []byte) (any, error) { return a.overview(), nil },
		"watch/message": a.messageLog,
		"modem/log":     a.messageLog,
		"modem/inbox":   a.inbox,
		"modem/optout":  a.optOut,
		"modem/drain":   a.onBay("drain", func(_ context.Context, in bayArgument) (any, error) { return nil, a.pool.Drain(in.Bay, true) }),
		"modem/enable":  a.onBay("enable", func(_ context.Context, in bayArgument) (any, error) { return nil, a.pool.Drain(in.Bay, false) }),
		"modem/power":   a.onBay("power", func(ctx context.Context, in bayArgument) (any, error) { return nil, a.pool.Power(ctx, in.Bay, in.What) }),
		"modem/ussd":    a.onBay("ussd", func(ctx context.Context, in bayArgument) (any, error) { return a.pool.USSD(ctx, in.Bay, in.What) }),
		"modem/test":    func(ctx context.Context, arg []byte) (any, error) { return a.testBay(ctx, arg, random) },
		"modem/send":    func(ctx context.Context, arg []byte) (any, error) { return a.send(ctx, arg, random) },
	}
}

// acceptsNumber fails with fault.Denied when the policy lets no message go to a number.
func (a *appliance) acceptsNumber(to id.Phone) error {
	n, err := id.ParseNumbering(a.policy.SMS.Countries)
	if err != nil {
		return err
	}
	return n.Accept(to)
}

// overview is the pool without the histograms, which only metrics need.
func (a *appliance) overview() modem.Overview {
	o := a.pool.Overview()
	for i := range o.Bays {
		b := &o.Bays[i]
		b.HandoffSpan.Buckets, b.Submit.Buckets, b.Delivery.Buckets = nil, nil, nil
	}
	for k, h := range o.Handoff {
		h.Buckets = nil
		o.Handoff[k] = h
	}
	return o
}

// onBay decodes the argument and logs who acted.
func (a *appliance) onBay(what string, do func(context.Context, bayArgument) (any, error)) admin.Method {
	return func(ctx context.Context, arg []byte) (any, error) {
		var in bayArgument
		if err := admin.Decode(arg, &in); err != nil {
			return nil, err
		}
		result, err := do(ctx, in)
		a.log.Info("operator at a modem", "action", what, "bay", in.Bay, "actor", in.Actor, "ok", err == nil)
		return result, err
	}
}

// testBay queues a message that only one bay may send.
func (a *appliance) testBay(ctx context.Context, arg []byte, random io.Reader) (any, error) {
	var in testArgument
	if err := admin.Decode(arg, &in); err != nil {
		return nil, err
	}
	to, err := id.ParsePhone(in.Number)
	if err != nil {
		return nil, err
	}
	if err := a.acceptsNumber(to); err != nil {
		return nil, err
	}
	k, err := id.NewMessageID(random)
	if err != nil {
		return nil, err
	}
	m, err := a.pool.NewTest(in.Bay, k, to)
	if err != nil {
		return nil, err
	}
	a.log.Info("operator tests a modem", "bay", in.Bay, "message", k.String(), "actor", in.Actor)
	return sent{[]string{k.String()}}, a.queue(ctx, m, []byte("Custode: prova del modem "+in.Bay+"."))
}

// send queues one text for many numbers.
func (a *appliance) send(ctx context.Context, arg []byte, random io.Reader) (any, error) {
	const op = "send messages"
	var in sendArgument
	if err := admin.Decode(arg, &in); err != nil {
		return nil, err
	}
	defer clear(in.Text)
	class, ok := map[string]modem.Class{"alert": modem.Alert, "bulk": modem.Bulk}[in.Class]
	switch {
	case !ok:
		return nil, fault.Newf(fault.Invalid, op, "class is alert or bulk")
	case len(in.Numbers) == 0 || len(in.Numbers) > maxSend:
		return nil, fault.Newf(fault.Invalid, op, "1 to %d numbers", maxSend)
	case in.Life < time.Minute || in.Life > 7*24*time.Hour:
		return nil, fault.Newf(fault.Invalid, op, "a life of 1 minute to 7 days")
	}
	list := make([]modem.Message, len(in.Numbers))
	now := time.Now()
	for i, n := range in.Numbers {
		to, err := id.ParsePhone(n)
		if err != nil {
			return nil, err
		}
		if err := a.acceptsNumber(to); err != nil {
			return nil, fault.Newf(fault.KindOf(err), op, "number %d of %d: %w", i+1, len(in.Numbers), err)
		}
		k, err := id.NewMessageID(random)
		if err != nil {
			return nil, err
		}
		list[i] = modem.Message{ID: k, To: to, Class: class, Created: now, Expires: now.Add(in.Life)}
	}
	if err := a.pool.Fits(in.Text, class); err != nil {
		return nil, err
	}
	var out sent
	for _, m := range list {
		if err := a.queue(ctx, m, in.Text); err != nil {
			return out, err
		}
		out.Messages = append(out.Messages, m.ID.String())
	}
	a.log.Info("operator sends messages", "class", in.Class, "messages", len(list), "actor", in.Actor)
	return out, nil
}

func (a *appliance) queue(ctx context.Context, m modem.Message, text []byte) (err error) {
	if m.Wrapped, err = a.outbox.Wrap(ctx, text, []byte(m.ID.String())); err != nil {
		return err
	}
	if err := a.db.Enqueue(ctx, m); err != nil {
		return err
	}
	a.pool.Wake()
	return nil
}

// logEntry is a step of a message as operators see it.
type logEntry struct {
	Number  int64         `json:"number"`
	Message string        `json:"message"`
	To      string        `json:"to"`
	Class   string        `json:"class"`
	State   string        `json:"state"`
	Bay     string        `json:"bay,omitempty"`
	Card    string        `json:"card,omitempty"`
	Detail  string        `json:"detail,omitempty"`
	Parts   int           `json:"parts,omitempty"`
	Handoff time.Duration `json:"handoff,omitempty"`
	Submit  time.Duration `json:"submit,omitempty"`
	At      time.Time     `json:"at"`
}

func (a *appliance) messageLog(ctx context.Context, arg []byte) (any, error) {
	var in logArgument
	if err := admin.Decode(arg, &in); err != nil {
		return nil, err
	}
	list, err := func() ([]store.TrailEntry, error) {
		if in.Message == "" {
			return a.db.Trail(ctx, time.Now().Add(-in.Since), in.After, logPage)
		}
		m, err := id.ParseMessageID(in.Message)
		if err != nil {
			return nil, err
		}
		return a.db.TrailOf(ctx, m)
	}()
	if err != nil {
		return nil, err
	}
	out := make([]logEntry, 0, len(list))
	for _, t := range list {
		out = append(out, logEntry{Number: t.Number, Message: t.ID.String(), To: t.Recipient.String(), Class: t.Class.String(), State: t.State.String(),
			Bay: t.Bay, Card: t.Card, Detail: t.Detail, Parts: t.Parts, Handoff: t.Handoff, Submit: t.Submit, At: t.At})
	}
	return out, nil
}

func (a *appliance) inbox(ctx context.Context, arg []byte) (any, error) {
	var in logArgument
	if err := admin.Decode(arg, &in); err != nil {
		return nil, err
	}
	return a.db.Incoming(ctx, time.Now().Add(-in.Since), 200)
}

func (a *appliance) optOut(ctx context.Context, arg []byte) (any, error) {
	var in optOutArgument
	if err := admin.Decode(arg, &in); err != nil {
		return nil, err
	}
	a.log.Info("operator notes an opt-out", "undo", in.Undo, "actor", in.Actor)
	return nil, a.db.OptOut(ctx, in.Number, !in.Undo, time.Now())
}
