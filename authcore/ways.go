package authcore

import (
	"context"
	"time"

	"custode/authcore/register"
	"custode/internal/fault"
	"custode/internal/id"
)

// Way is a second factor that a subject holds.
type Way struct {
	Method  Method
	Key     string // tells ways of one method apart within a subject; "" for SMS
	Name    string // for the person: the number or the device's serial number, masked
	Digits  int    // of its codes
	Blocked bool   // held, and takes no code now
	Last    bool   // the subject logged in by it last
	Number  string // of an open challenge by MethodPush: two digits that page and app show
}

// Order is what a device's challenge is opened for.
type Order struct {
	Flow    id.FlowID
	Subject id.Subject
	Method  Method
	Key     string // of the way
	SP      id.EntityID
	SPName  string
	Until   time.Time // when the flow ends
}

// Judged is what became of a typed code.
type Judged struct {
	Verdict Verdict
	Left    int // attempts that remain in the challenge
}

// Verdict is a judgement of a code.
type Verdict uint8

// The verdicts. The zero value lets nobody in.
const (
	VerdictWrong    Verdict = iota // Judged.Left attempts remain
	VerdictRight                   // and void now, durably
	VerdictRepeated                // of the device, and accepted before; counts as wrong in the challenge
	VerdictBlocked                 // the device takes no codes, or does not any more after this one
)

// Devices are the second factors that are things of the subject's: OATH devices that show
// codes and apps that codes are pushed to.
type Devices interface {
	// Ways lists what the subject could log in with, blocked ones too, and which method
	// was used last; its Last is set when it is among them.
	Ways(ctx context.Context, subject id.Subject) (ways []Way, last Method, err error)
	// Open opens a challenge to the way, and pushes a code if it is by MethodPush.
	// fault.Denied when the way takes no codes any more, fault.Exhausted when too much
	// was pushed, fault.Busy.
	Open(ctx context.Context, o Order) (id.ChallengeID, error)
	// Opened returns the way of a challenge; fault.NotFound.
	Opened(ctx context.Context, challenge id.ChallengeID) (Way, error)
	// Verify judges a code. VerdictRight is returned once for a challenge and once for a
	// code of a device, whatever the number of processes. Nothing is known about the code after
	// an error: fault.Expired too late, fault.Exhausted no attempt was left, fault.Conflict the challenge is not open any more,
	// fault.Invalid not the device's digits (not counted), fault.NotFound unknown or of
	// another flow or subject.
	Verify(ctx context.Context, challenge id.ChallengeID, flow id.FlowID, subject id.Subject, code string) (Judged, error)
	// Remember keeps by which way the subject logged in.
	Remember(ctx context.Context, subject id.Subject, m Method, key string) error
}

var methodNames = [...]string{"none", "sms", "otp-token", "otp-app", "otp-push"}

// String returns the method's name, for logs and the register of transactions.
func (m Method) String() string {
	if int(m) < len(methodNames) {
		return methodNames[m]
	}
	return "unknown method"
}

func (m Method) known() bool { return m > MethodNone && int(m) < len(methodNames) }

// smsDigits is the length of the codes that are sent (manual, 10.2.2).
const smsDigits = 6

// withWays returns the identity with its second factors.
func (l *Login) withWays(ctx context.Context, who Identity) (Identity, error) {
	var ways []Way
	if !who.Phone.IsZero() {
		blocked, err := l.codesBlocked(ctx, who.Subject)
		if err != nil {
			return Identity{}, err
		}
		ways = []Way{{Method: MethodSMS, Name: who.Phone.Masked(), Digits: smsDigits, Blocked: blocked}}
	}
	if l.devices != nil {
		more, last, err := l.devices.Ways(ctx, who.Subject)
		if err != nil {
			return Identity{}, err
		}
		if len(ways) > 0 {
			ways[0].Last = last == MethodSMS
		}
		ways = append(ways, more...)
	}
	who.Ways = ways
	return who, nil
}

// stuck reports whether every second factor is blocked.
func (i Identity) stuck() bool {
	for _, w := range i.Ways {
		if !w.Blocked {
			return false
		}
	}
	return len(i.Ways) > 0
}

// choose takes the way that the person chose.
func (l *Login) choose(ctx context.Context, f Flow, who Identity, m Method, key string) (Outcome, error) {
	if !m.known() {
		return Outcome{}, fault.Newf(fault.Invalid, "choose method in flow "+f.ID.String(), "method %d is not offered", m)
	}
	if f.Step != StepMethod {
		return l.show(ctx, f, who, note{}), nil
	}
	if len(who.Ways) == 0 {
		return l.apply(ctx, f, who, act{event: phoneGone, at: l.now()}, note{})
	}
	for _, w := range who.Ways {
		if w.Method != m || w.Key != key {
			continue
		}
		return l.issueCode(ctx, f, who, w)
	}
	return l.show(ctx, f, who, note{}), nil // it is gone: the page says what there is
}

// again issues one more code by the method that was chosen: those that are sent.
func (l *Login) again(ctx context.Context, f Flow, who Identity) (Outcome, error) {
	if f.Step != StepCode || !f.Method.sent() {
		return l.show(ctx, f, who, note{}), nil
	}
	w := l.way(ctx, f, who)
	for _, held := range who.Ways {
		if held.Method == w.Method && held.Key == w.Key {
			return l.issueCode(ctx, f, who, held)
		}
	}
	if len(who.Ways) == 0 {
		return l.apply(ctx, f, who, act{event: phoneGone, at: l.now()}, note{})
	}
	return l.apply(ctx, f, who, act{event: otherMethod, at: l.now()}, note{})
}

// sent reports whether codes of the method are sent to the subject, and so can be again.
func (m Method) sent() bool { return m == MethodSMS || m == MethodPush }

// send has a code issued by a way.
func (l *Login) send(ctx context.Context, f Flow, who Identity, w Way) (id.ChallengeID, error) {
	if w.Method == MethodSMS {
		return l.codes.Issue(ctx, f.ID, who.Subject, who.Phone, f.spName())
	}
	return l.devices.Open(ctx, Order{Flow: f.ID, Subject: who.Subject, Method: w.Method, Key: w.Key,
		SP: f.Request.SP, SPName: f.spName(), Until: f.Deadline})
}

// way is the second factor that the flow's code page is about, as far as it is known: a page must
// come up even when nobody can tell.
func (l *Login) way(ctx context.Context, f Flow, who Identity) Way {
	if f.Method != MethodSMS && l.devices != nil && !f.Challenge.IsZero() {
		w, err := l.devices.Opened(ctx, f.Challenge)
		if err == nil {
			return w
		}
		if !fault.Is(err, fault.NotFound) {
			l.log.WarnContext(ctx, "device unknown", "flow", f.ID.String(), "challenge", f.Challenge.String(), "error", err)
		}
	}
	for _, w := range who.Ways {
		if w.Method == f.Method {
			return w
		}
	}
	return Way{Method: f.Method, Digits: smsDigits}
}

// judge has a code judged by what issued its challenge.
func (l *Login) judge(ctx context.Context, f Flow, code string) (Judged, error) {
	if f.Method != MethodSMS {
		if l.devices == nil {
			return Judged{}, fault.Newf(fault.Internal, "judge code in flow "+f.ID.String(), "no devices are configured")
		}
		return l.devices.Verify(ctx, f.Challenge, f.ID, f.Subject, code)
	}
	// One of a subject's flows at a time: each sees the wrong codes of those before.
	key := codeKey(f.Subject)
	leave, err := l.guesses.Enter(ctx, string(key[:]))
	if err != nil {
		return Judged{}, err
	}
	defer leave()
	if blocked, err := l.codesBlocked(ctx, f.Subject); err != nil || blocked {
		return Judged{Verdict: VerdictBlocked}, err
	}
	left, err := l.codes.Verify(ctx, f.Challenge, f.ID, f.Subject, code)
	if err == nil {
		return Judged{Verdict: VerdictRight}, nil
	}
	if k := fault.KindOf(err); k != fault.Denied && k != fault.Exhausted {
		return Judged{}, err
	}
	return Judged{Verdict: VerdictWrong, Left: left}, l.countCode(ctx, f)
}

// remember keeps what the subject logged in with, for the next choice.
func (l *Login) remember(ctx context.Context, f Flow, w Way) {
	if l.devices == nil {
		return
	}
	if err := l.devices.Remember(ctx, f.Subject, w.Method, w.Key); err != nil {
		l.log.ErrorContext(ctx, "choice of method not kept", "flow", f.ID.String(), "error", err)
	}
}

// blocked ends a flow whose subject's second factor is blocked (anomaly 23). Another one may be
// chosen while the login is still at the choice.
func (l *Login) blocked(ctx context.Context, f Flow, who Identity, m Method) (Outcome, error) {
	l.note(ctx, register.Incident{What: register.CodesBlocked, Flow: f.ID, Subject: f.Subject, SP: f.Request.SP, Detail: m.String()})
	l.log.WarnContext(ctx, "codes blocked", "flow", f.ID.String(), "subject", f.Subject.String(), "method", m.String())
	if f.Step == StepMethod && !who.stuck() {
		return l.show(ctx, f, who, note{notice: NoticeBlockedMethod}), nil
	}
	return l.apply(ctx, f, who, act{event: notActive, at: l.now()}, note{})
}

// ForgiveCodes forgets the wrong SMS codes of a subject, so that one that was blocked may
// get codes again (rule F2: after a check by the help desk).
func (l *Login) ForgiveCodes(ctx context.Context, s id.Subject) error {
	return l.tallies.ClearTally(ctx, codeKey(s))
}
