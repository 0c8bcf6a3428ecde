package authcore

import (
	"crypto/subtle"
	"fmt"
	"time"

	"custode/authcore/saml"
	"custode/internal/fault"
	"custode/internal/id"
)

// strongest is the highest level this node can perform: a password and a code.
const strongest = saml.L2

// event is what happened to a flow, after every check that needed a device, a
// store or a hash was made elsewhere.
type event uint8

const (
	passwordWrong event = iota + 1
	passwordRight       // act.who is the subject
	codeReserved        // act.method; a code is about to be issued, counted before it costs an SMS
	codeIssued          // act.challenge
	codeNotIssued       // the vault refused
	codeWrong           // attempts remain in the challenge
	codeExhausted       // wrong, and the challenge has no attempt left
	codeRight           // act.challenge was burned for act.who
	authorised          // consent given; reached through authorise only
	refused             // consent refused
	cancelled           // "Annulla"
	phoneGone           // the subject has no phone any more to send a code to
	notActive           // the subject's identity was suspended or revoked meanwhile
	sessionHeld         // act.who's session act.session is open in this browser
	sessionGone         // the session the flow stands on has ended
	otherMethod         // back to the choice of method
)

var eventNames = [...]string{"", "password wrong", "password right", "code reserved", "code issued", "code not issued",
	"code wrong", "code exhausted", "code right", "authorised", "refused", "cancelled", "phone gone", "not active", "session held", "session gone", "other method"}

func (e event) String() string {
	if int(e) < len(eventNames) {
		return eventNames[e]
	}
	return fmt.Sprintf("event(%d)", uint8(e))
}

// act is one event with its facts.
type act struct {
	event     event
	at        time.Time
	policy    Policy
	who       Identity       // passwordRight: the subject whose password it was; codeRight: the flow's
	method    Method         // codeIssued
	challenge id.ChallengeID // codeIssued, codeRight
	subject   id.Subject     // codeRight: whom the code was verified for
	session   Session        // sessionHeld
}

// place is a row of the transition table.
type place struct {
	step  Step
	event event
}

// table is every transition there is; what is not in it is refused. Two rules
// stand above it, in next: a flow at StepDone takes nothing, and a flow whose
// deadline has come ends with anomaly 21 whatever happened.
//
// Cancelling (25) is possible on every page, the consent page included; the
// refusal of consent (22) is another button, on that page only (interface
// guidelines; manual, Appendix A).
var table = map[place]func(Flow, act) (Flow, error){
	{StepCredentials, passwordWrong}: countWrongPassword,
	{StepCredentials, passwordRight}: admit,
	{StepCredentials, sessionHeld}:   resume,
	{StepCredentials, cancelled}:     ends(saml.Cancelled),

	{StepMethod, codeReserved}: reserveCode,
	{StepMethod, cancelled}:    ends(saml.Cancelled),
	{StepMethod, phoneGone}:    ends(saml.NoCredentials),
	{StepMethod, notActive}:    ends(saml.NotActive),

	{StepCode, codeReserved}:  reserveCode,
	{StepCode, codeIssued}:    awaitCode,
	{StepCode, codeNotIssued}: forgetCode,
	{StepCode, codeWrong}:     countWrongCode,
	{StepCode, codeExhausted}: ends(saml.TooManyAttempts),
	{StepCode, codeRight}:     acceptCode,
	{StepCode, otherMethod}:   chooseAgain,
	{StepCode, cancelled}:     ends(saml.Cancelled),
	{StepCode, phoneGone}:     ends(saml.NoCredentials),
	{StepCode, notActive}:     ends(saml.NotActive),

	{StepConsent, authorised}: ends(saml.Success),
	{StepConsent, refused}:    ends(saml.ConsentRefused),
	{StepConsent, cancelled}:  ends(saml.Cancelled),
	{StepConsent, notActive}:  ends(saml.NotActive),

	{StepConsent, sessionGone}: forgetSession,
}

// due reports whether the flow's time is over.
func (f Flow) due(now time.Time) bool { return !now.Before(f.Deadline) }

// next returns the flow after a. fault.Conflict when the flow is done,
// fault.Invalid when the step does not take the event; then f did not change.
func (f Flow) next(a act) (Flow, error) {
	op := fmt.Sprintf("apply %q to flow %s", a.event, f.ID)
	if f.Step == StepDone {
		return f, fault.Newf(fault.Conflict, op, "it was answered already")
	}
	if f.due(a.at) {
		return f.end(saml.TimedOut), nil
	}
	move, ok := table[place{f.Step, a.event}]
	if !ok {
		return f, fault.Newf(fault.Invalid, op, "step %d does not take it", f.Step)
	}
	n, err := move(f, a)
	if err != nil {
		return f, fault.New(fault.Internal, op, err)
	}
	return n, nil
}

// end sets the outcome. It is reached from next, so once, and for a flow whose
// request was answered in another one.
func (f Flow) end(c saml.Code) Flow {
	f.Step, f.Outcome = StepDone, c
	return f
}

func ends(c saml.Code) func(Flow, act) (Flow, error) {
	return func(f Flow, _ act) (Flow, error) { return f.end(c), nil }
}

func countWrongPassword(f Flow, a act) (Flow, error) {
	f.WrongPassword++
	if f.WrongPassword >= a.policy.WrongPasswords {
		return f.end(saml.TooManyAttempts), nil
	}
	return f, nil
}

// admit decides everything a right password decides. Nothing of it may be
// learned without one: whether the identity is active, what it can do.
func admit(f Flow, a act) (Flow, error) {
	if a.who.Subject.IsZero() {
		return f, fmt.Errorf("right password of nobody")
	}
	f.Subject = a.who.Subject
	if a.who.State != Active {
		return f.end(saml.NotActive), nil
	}
	level, ok := levelFor(f.Request.Level, f.Request.Comparison, a.who.available())
	switch {
	case !ok:
		return f.end(saml.NoCredentials), nil
	case level == saml.L1:
		return f.reach(saml.L1, a), nil
	case a.who.stuck():
		return f.end(saml.NotActive), nil
	}
	f.Step = StepMethod
	return f, nil
}

// reserveCode goes to the code page before there is a challenge. Whoever clicks
// again meanwhile, here or on another node, finds the choice made.
func reserveCode(f Flow, a act) (Flow, error) {
	if f.CodesIssued >= a.policy.Codes {
		return f, fmt.Errorf("%d codes were issued already", f.CodesIssued)
	}
	if !a.method.known() {
		return f, fmt.Errorf("code by method %d", a.method)
	}
	if a.method != f.Method {
		f.Challenge = id.ChallengeID{} // a code answers the method that was chosen last
	}
	f.CodesIssued++
	f.Step, f.Method = StepCode, a.method
	return f, nil
}

func awaitCode(f Flow, a act) (Flow, error) {
	if a.challenge.IsZero() {
		return f, fmt.Errorf("code issued without a challenge")
	}
	f.Challenge = a.challenge
	return f, nil
}

// forgetCode goes back to the choice of method, unless an earlier code is open.
func forgetCode(f Flow, _ act) (Flow, error) {
	if f.Challenge.IsZero() {
		f.Step, f.Method = StepMethod, MethodNone
	}
	return f, nil
}

// chooseAgain drops the challenge: only one by the next choice will be answered. Wrong codes
// stay counted.
func chooseAgain(f Flow, _ act) (Flow, error) {
	f.Step, f.Method, f.Challenge = StepMethod, MethodNone, id.ChallengeID{}
	return f, nil
}

// countWrongCode counts over all challenges of the flow: asking for another
// code does not buy further guesses.
func countWrongCode(f Flow, a act) (Flow, error) {
	f.WrongCode++
	if f.WrongCode >= a.policy.WrongCodes {
		return f.end(saml.TooManyAttempts), nil
	}
	return f, nil
}

func acceptCode(f Flow, a act) (Flow, error) {
	if f.Challenge.IsZero() || a.challenge != f.Challenge || f.Subject.IsZero() || a.subject != f.Subject {
		return f, fmt.Errorf("the code answers another challenge")
	}
	if a.who.Subject != f.Subject {
		return f, fmt.Errorf("the code is another subject's")
	}
	return f.reach(saml.L2, a), nil
}

// reach records that a level was performed; the consent page comes next. Only
// now is the identity's type held against the request's Purpose: what type it is
// shall be learned by nobody who did not authenticate to the end.
func (f Flow) reach(l saml.Level, a act) Flow {
	if !a.who.Type.Accepts(f.Request.Purpose) {
		return f.end(saml.WrongIdentityType)
	}
	f.Step, f.Performed, f.Authenticated = StepConsent, l, a.at
	return f
}

// available is the strongest level the identity has credentials for.
func (i Identity) available() saml.Level {
	if i.Phone.IsZero() && len(i.Ways) == 0 {
		return saml.L1
	}
	return strongest
}

// levelFor returns the level to perform for a RequestedAuthnContext: the least
// that satisfies it, save that "maximum" takes the strongest available not
// above the one requested (SAML Core 3.3.2.2.1). It is false when no available
// level will do.
func levelFor(requested saml.Level, c saml.Comparison, available saml.Level) (saml.Level, bool) {
	level := requested
	switch c {
	case saml.Exact, saml.Minimum:
	case saml.Better:
		level++
	case saml.Maximum:
		level = min(requested, available)
	default:
		return level, false
	}
	return level, level >= saml.L1 && level <= available
}

// satisfies reports whether a performed level answers the request. A higher
// level than asked for is never a failure (technical rules, AuthnRequest).
func satisfies(performed, requested saml.Level, c saml.Comparison) bool {
	switch c {
	case saml.Exact, saml.Minimum:
		return performed >= requested
	case saml.Better:
		return performed > requested
	case saml.Maximum:
		return performed >= saml.L1
	}
	return false
}

// Passed is the proof that a subject reached the level a request demands and
// then consented. Only the machine makes one; it is bound to the flow and its
// version, to the subject, to the challenge that was burned and to the request,
// and is redeemed once: FinishFlow compares and swaps that version. The zero
// value proves nothing.
type Passed struct {
	flow      id.FlowID
	version   int64
	subject   id.Subject
	challenge id.ChallengeID // zero at level 1
	sp        id.EntityID
	request   string
	level     saml.Level
	at        time.Time
}

// authorise is the consent page's positive answer: the finished flow and, when
// its outcome is success, the proof that finishing demands. The flow ends
// without a proof when its time is over.
func (f Flow) authorise(now time.Time, p Policy) (Flow, Passed, error) {
	n, err := f.next(act{event: authorised, at: now, policy: p})
	if err != nil || n.Outcome != saml.Success {
		return n, Passed{}, err
	}
	if err := f.proven(); err != nil {
		return f, Passed{}, fault.New(fault.Internal, fmt.Sprintf("authorise flow %s", f.ID), err)
	}
	return n, Passed{flow: f.ID, version: f.Version, subject: f.Subject, challenge: f.Challenge,
		sp: f.Request.SP, request: f.Request.ID, level: f.Performed, at: f.Authenticated}, nil
}

// proven checks again, on the flow as it was read back, what the transitions
// established: a row that does not hold together passes nobody.
func (f Flow) proven() error {
	switch {
	case f.ID.IsZero() || f.Subject.IsZero() || f.Request.ID == "" || f.Request.SP.IsZero():
		return fmt.Errorf("flow without subject or request")
	case !satisfies(f.Performed, f.Request.Level, f.Request.Comparison):
		return fmt.Errorf("level %d performed, %d requested (comparison %d)", f.Performed, f.Request.Level, f.Request.Comparison)
	case f.Performed > strongest:
		return fmt.Errorf("level %d cannot be performed here", f.Performed)
	case f.Performed == saml.L2 && (f.Challenge.IsZero() || f.Method == MethodNone):
		return fmt.Errorf("level 2 without a challenge")
	case f.Performed == saml.L1 && !f.Challenge.IsZero():
		return fmt.Errorf("level 1 with a challenge")
	case f.Resumed && (f.Session == "" || f.Performed != saml.L1 || !fromSession(&f.Request)):
		return fmt.Errorf("a session does not answer this request")
	case !f.Resumed && f.Authenticated.Before(f.Started) || f.Authenticated.IsZero() || f.Authenticated.After(f.Deadline):
		return fmt.Errorf("authenticated out of the flow's time")
	}
	return nil
}

// admits reports whether the proof is for this finished flow and this subject.
func (p Passed) admits(done Flow, who Identity) bool {
	return !p.flow.IsZero() && p.flow == done.ID && p.version == done.Version &&
		done.Step == StepDone && done.Outcome == saml.Success &&
		p.subject == done.Subject && p.subject == who.Subject && who.State == Active && who.Type.Accepts(done.Request.Purpose) &&
		p.challenge == done.Challenge && p.sp == done.Request.SP && p.request == done.Request.ID &&
		p.level == done.Performed && p.at.Equal(done.Authenticated)
}

// openBy reports whether the visitor is the browser the flow began in. Nobody
// is a visitor without a cookie.
func (f Flow) openBy(v Visitor) bool {
	var none [32]byte
	same := subtle.ConstantTimeCompare(f.Browser[:], v.Browser[:])
	return same == 1 && subtle.ConstantTimeCompare(v.Browser[:], none[:]) == 0
}
