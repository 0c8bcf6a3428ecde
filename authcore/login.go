package authcore

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"time"

	"custode/authcore/lanes"
	"custode/authcore/register"
	"custode/authcore/saml"
	"custode/internal/fault"
	"custode/internal/id"
)

// Config is what New needs. Everything but Policy is required.
type Config struct {
	Flows      Flows
	Identities Identities
	Tallies    Tallies
	Codes      Codes
	Deliveries Deliveries
	Devices    Devices // nil: SMS is the only second factor
	Responses  Responses
	Register   register.Register
	Watch      register.Watch
	Sessions   Sessions // nil: every login is fresh and begins no session
	Passwords  Passwords
	Random     io.Reader        // flow identifiers and session indexes
	Now        func() time.Time // wall clock
	Log        *slog.Logger     // the audit lines of each login; never a secret or an attribute value
	Policy     Policy
}

// Login drives flows. Between calls it keeps only turns and, for a moment, the
// Responses that left: any process with the same store can take the next step. Safe for concurrent use.
type Login struct {
	flows      Flows
	identities Identities
	tallies    Tallies
	codes      Codes
	deliveries Deliveries
	devices    Devices // may be nil
	responses  Responses
	register   register.Register
	watch      register.Watch
	sessions   Sessions // may be nil
	passwords  Passwords
	random     io.Reader
	now        func() time.Time
	log        *slog.Logger
	policy     Policy
	turns      *lanes.Lanes // by flow
	guesses    *lanes.Lanes // by usernameKey, and by codeKey
	gone       departures
	networks   *lanes.UnderWay[[32]byte] // attempts begun and not yet counted as a failure or let pass
	refusals   *lanes.Lanes              // one key
	replays    *lanes.Allowance
}

const (
	// The impatient hammer a button that is slow; more waiting is an attack.
	waitPerFlow = 8
	// Attempts at one username wait for each other, so that each sees the
	// failures of the one before.
	waitPerUsername = 8
	// Anybody can send an old signed request again; refusing it costs a
	// signature, and logins need the HSM too.
	waitToRefuse = 32
	// settleTime bounds recording what was decided, once the person's
	// connection no longer matters.
	settleTime = 15 * time.Second
)

// New checks the configuration; fault.Invalid.
func New(c Config) (*Login, error) {
	const op = "configure login"
	for name, missing := range map[string]bool{
		"flows": c.Flows == nil, "identities": c.Identities == nil, "tallies": c.Tallies == nil,
		"codes": c.Codes == nil, "deliveries": c.Deliveries == nil, "responses": c.Responses == nil, "register": c.Register == nil, "watch": c.Watch == nil,
		"passwords": c.Passwords == nil, "random": c.Random == nil, "now": c.Now == nil, "log": c.Log == nil,
	} {
		if missing {
			return nil, fault.Newf(fault.Invalid, op, "no %s", name)
		}
	}
	policy, err := c.Policy.complete()
	if err != nil {
		return nil, err
	}
	return &Login{flows: c.Flows, identities: c.Identities, tallies: c.Tallies, codes: c.Codes,
		deliveries: c.Deliveries, devices: c.Devices, responses: c.Responses, register: c.Register, watch: c.Watch, sessions: c.Sessions, passwords: c.Passwords, random: c.Random,
		now: c.Now, log: c.Log, policy: policy,
		turns: lanes.New(waitPerFlow), guesses: lanes.New(waitPerUsername), refusals: lanes.New(waitToRefuse),
		networks: &lanes.UnderWay[[32]byte]{}, gone: departures{Life: departureLife, Most: maxDepartures}, replays: &lanes.Allowance{Most: replayRefusals, Pause: replayPause}}, nil
}

// Begin stores a new flow for a verified request, bound to the visitor's
// browser. fault.Invalid for a zero request, fault.Denied for a visitor without
// a cookie and fault.Exhausted for a request that began too many flows. One that was
// answered before is a *saml.Refusal with anomaly 11, or fault.Conflict (Policy.ReplayPage).
func (l *Login) Begin(ctx context.Context, vr saml.VerifiedRequest, v Visitor) (id.FlowID, error) {
	if vr.SP() == nil {
		return id.FlowID{}, fault.Newf(fault.Invalid, "begin login", "no verified request")
	}
	return l.begin(ctx, vr.Request(), vr.SP().DisplayName, v)
}

func (l *Login) begin(ctx context.Context, r saml.Request, names map[string]string, v Visitor) (id.FlowID, error) {
	const op = "begin login"
	switch {
	case r.ID == "" || r.SP.IsZero() || r.ACS == "" || r.Level < saml.L1 || r.Level > saml.L3:
		return id.FlowID{}, fault.Newf(fault.Invalid, op, "incomplete request")
	case v.Browser == [32]byte{}:
		return id.FlowID{}, fault.Newf(fault.Denied, op, "visitor without a cookie")
	}
	if _, err := l.ready(op); err != nil {
		return id.FlowID{}, err // at the end of the login it would be too late to say so
	}
	flow, err := id.NewFlowID(l.random)
	if err != nil {
		return id.FlowID{}, err
	}
	r.Attributes = distinct(r) // metadata may name one twice; it is sent once
	now := l.now()
	f := Flow{ID: flow, Browser: v.Browser, Request: r, SPName: maps.Clone(names), Step: StepCredentials,
		Started: now, Deadline: now.Add(l.policy.FlowLife), Version: 1}
	if err := l.flows.CreateFlow(ctx, f); fault.Is(err, fault.Conflict) {
		return id.FlowID{}, l.answeredBefore(ctx, r, names, err)
	} else if err != nil {
		return id.FlowID{}, err
	}
	l.log.InfoContext(ctx, "login begun", "flow", flow.String(), "sp", r.SP.String(), "request", r.ID,
		"level", r.Level, "comparison", r.Comparison)
	return flow, nil
}

// View returns the page of the flow's current step, or the Response with
// anomaly 21 when its time is over (23 when the identity was suspended
// meanwhile). fault.NotFound: unknown; fault.Denied: another browser's;
// fault.Conflict: answered already.
func (l *Login) View(ctx context.Context, flow id.FlowID, v Visitor) (Outcome, error) {
	ctx = withVisitor(ctx, v)
	f, err := l.open(ctx, flow, v)
	if err != nil {
		return Outcome{}, err
	}
	if f.Step == StepDone { // the way back is closed
		return Outcome{}, fault.Newf(fault.Conflict, "view flow "+flow.String(), "answered already")
	}
	who, err := l.subject(ctx, f)
	if err != nil {
		return Outcome{}, err
	}
	if !f.due(l.now()) && who.State == Active && !f.inSession(v) {
		return l.show(ctx, f, who, note{}), nil
	}
	return l.inTurn(ctx, f, v, func(ctx context.Context, f Flow, who Identity) (Outcome, error) {
		return l.resumeOrShow(ctx, f, who, v)
	})
}

// Answer takes what the subject did on the page of the current step and returns
// the next page or the Response. An answer to another step than the current
// one (a stale page, a double click) changes nothing and gets the current page,
// or for a moment after the end the Response that left. Errors as View; a request that was answered before is fault.Conflict and
// nothing leaves.
func (l *Login) Answer(ctx context.Context, flow id.FlowID, v Visitor, a Answer) (Outcome, error) {
	ctx = withVisitor(ctx, v)
	f, err := l.open(ctx, flow, v)
	if err != nil {
		return Outcome{}, err
	}
	if f.Step == StepDone {
		return l.current(ctx, f)
	}
	return l.inTurn(ctx, f, v, func(ctx context.Context, f Flow, who Identity) (Outcome, error) {
		return l.answer(ctx, f, who, v, a)
	})
}

// Refuse signs the error Response to a request that was refused before a flow
// began. fault.Invalid when the refusal is to be told to the person only,
// fault.Busy when too many are waiting for theirs.
func (l *Login) Refuse(ctx context.Context, r *saml.Refusal) (Outcome, error) {
	if r == nil || r.Reply == nil || r.Code == saml.Success {
		return Outcome{}, fault.Newf(fault.Invalid, "refuse request", "no answer goes to a service provider")
	}
	leave, err := l.refusals.Enter(ctx, "")
	if err != nil {
		return Outcome{}, err
	}
	defer leave()
	if _, err := l.ready("refuse request"); err != nil {
		return Outcome{}, err
	}
	signed, err := l.responses.Anomaly(r.Code, *r.Reply, l.now())
	if err != nil {
		return Outcome{}, err
	}
	proof, err := l.record(ctx, "refuse request", register.Transaction{At: l.now(), SP: r.Reply.SP, SPName: (&saml.SP{EntityID: r.Reply.SP, DisplayName: r.SPName}).Name("it"), RequestID: r.Reply.InResponseTo,
		RequestIssued: r.Reply.RequestIssued, Request: r.Raw, Response: signed})
	if err != nil {
		return Outcome{}, err
	}
	l.log.WarnContext(ctx, "request refused", "code", r.Code, "sp", r.Reply.SP.String(),
		"request", r.Reply.InResponseTo, "response", signed.ID, "cause", fmt.Sprint(r.Err), "record", proof.String())
	return Outcome{Response: &signed, Proof: proof}, nil
}

// open loads a flow that began in the visitor's browser.
func (l *Login) open(ctx context.Context, flow id.FlowID, v Visitor) (Flow, error) {
	op := "open flow " + flow.String()
	if flow.IsZero() {
		return Flow{}, fault.Newf(fault.NotFound, op, "no flow")
	}
	f, err := l.flows.Flow(ctx, flow)
	if err != nil {
		return Flow{}, err
	}
	if !f.openBy(v) {
		return Flow{}, fault.Newf(fault.Denied, op, "another browser's")
	}
	return f, nil
}

// subject loads the flow's subject; before the password nobody, who is Active
// in the sense that nothing is held against them.
func (l *Login) subject(ctx context.Context, f Flow) (Identity, error) {
	if f.Subject.IsZero() {
		return Identity{State: Active}, nil
	}
	who, err := l.identities.Identity(ctx, f.Subject)
	if fault.Is(err, fault.NotFound) {
		// Identities are revoked, never removed; it is not the flow that is unknown.
		return Identity{}, fault.New(fault.Internal, "read subject of flow "+f.ID.String(), err)
	}
	if err != nil {
		return who, err
	}
	return l.withWays(ctx, who)
}

// inTurn runs work on the flow when the callers before it have finished, unless
// they moved the flow on: then work was meant for a page that is gone, and the
// caller gets what they got. It also ends a flow whose time is over or whose
// subject may no longer log in, and begins anew when the session it stands on has
// ended.
func (l *Login) inTurn(ctx context.Context, seen Flow, v Visitor, work func(context.Context, Flow, Identity) (Outcome, error)) (Outcome, error) {
	leave, err := l.turns.Enter(ctx, seen.ID.String())
	if err != nil {
		who, e := l.subject(ctx, seen)
		if e != nil {
			return Outcome{}, e
		}
		return l.show(ctx, seen, who, note{notice: NoticeBusy}), nil
	}
	defer leave()
	f, err := l.flows.Flow(ctx, seen.ID)
	if err != nil {
		return Outcome{}, err
	}
	if f.Version != seen.Version {
		return l.current(ctx, f)
	}
	who, err := l.subject(ctx, f)
	if err != nil {
		return Outcome{}, err
	}
	now := l.now()
	switch {
	case f.due(now), who.State != Active:
		// next lets the deadline win.
		return l.apply(ctx, f, who, act{event: notActive, at: now}, note{})
	}
	if gone, err := l.sessionEnded(ctx, f, v); err != nil {
		return Outcome{}, err
	} else if gone {
		return l.apply(ctx, f, Identity{State: Active}, act{event: sessionGone, at: now}, note{})
	}
	return work(ctx, f, who)
}

// current shows a flow that somebody else moved on, or with what it ended.
func (l *Login) current(ctx context.Context, f Flow) (Outcome, error) {
	if f.Step == StepDone {
		if out, ok := l.gone.Recall(f.ID, l.now()); ok {
			return out, nil
		}
		return Outcome{}, fault.Newf(fault.Conflict, "continue flow "+f.ID.String(), "answered already")
	}
	who, err := l.subject(ctx, f)
	if err != nil {
		return Outcome{}, err
	}
	return l.show(ctx, f, who, note{}), nil
}

// settle keeps a decision from being lost, or kept from being counted, because
// the person who asked for it hung up.
func settle(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), settleTime)
}
