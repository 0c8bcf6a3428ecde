package authcore

import (
	"context"
	"fmt"
	"maps"

	"custode/authcore/register"
	"custode/authcore/saml"
	"custode/internal/fault"
	"custode/internal/id"
)

// answer dispatches on the answer; f is the caller's to move.
func (l *Login) answer(ctx context.Context, f Flow, who Identity, v Visitor, a Answer) (Outcome, error) {
	if a, ok := a.(PasswordAnswer); ok {
		if f.Step != StepCredentials {
			return l.show(ctx, f, who, note{}), nil
		}
		return l.answerPassword(ctx, f, v, a)
	}
	ctx, cancel := settle(ctx)
	defer cancel()
	switch a := a.(type) {
	case MethodAnswer:
		return l.choose(ctx, f, who, a.Method, a.Key)
	case OtherAnswer:
		return l.apply(ctx, f, who, act{event: otherMethod, at: l.now()}, note{})
	case ResendAnswer:
		return l.again(ctx, f, who)
	case CodeAnswer:
		return l.answerCode(ctx, f, who, a)
	case ConsentAnswer:
		return l.consent(ctx, f, who, v)
	case RefuseAnswer:
		return l.apply(ctx, f, who, act{event: refused, at: l.now()}, note{})
	case CancelAnswer:
		return l.apply(ctx, f, who, act{event: cancelled, at: l.now()}, note{})
	}
	return Outcome{}, fault.Newf(fault.Invalid, "answer flow "+f.ID.String(), "no such answer")
}

// answerPassword is the credentials page. Nothing before the comparison of the
// hashes depends on whether the username exists: the same reads, the same
// hash, the same writes.
func (l *Login) answerPassword(ctx context.Context, f Flow, v Visitor, a PasswordAnswer) (Outcome, error) {
	nobody := Identity{State: Active}
	key := usernameKey(a.Username)
	leave, err := l.guesses.Enter(ctx, string(key[:]))
	if fault.Is(err, fault.Busy) {
		return l.show(ctx, f, nobody, note{notice: NoticeBusy}), nil
	}
	if err != nil {
		return Outcome{}, err
	}
	defer leave()
	others, end := l.networks.Begin(networkKey(v.Address))
	defer end()
	g, wait, err := l.readTallies(ctx, a.Username, v.Address, others)
	if err != nil {
		return Outcome{}, err
	}
	if wait > 0 {
		l.log.InfoContext(ctx, "password not looked at", "flow", f.ID.String(), "wait", wait)
		return l.show(ctx, f, nobody, note{notice: NoticeWait, retryAfter: wait}), nil
	}
	who, err := l.lookup(ctx, a.Username)
	if err != nil {
		return Outcome{}, err
	}
	err = l.passwords.Check(ctx, who.Subject, who.Password, a.Password)
	ctx, cancel := settle(ctx)
	defer cancel()
	switch {
	case err == nil:
		return l.passwordRight(ctx, f, who, g)
	case fault.Is(err, fault.Denied):
		return l.passwordWrong(ctx, f, who, g)
	case fault.Is(err, fault.Busy):
		return l.show(ctx, f, nobody, note{notice: NoticeBusy}), nil
	}
	return Outcome{}, err
}

// lookup returns the identity of a typed username, the zero one when there is
// none. What cannot be a username is looked up like one that is nobody's.
func (l *Login) lookup(ctx context.Context, typed string) (Identity, error) {
	u, err := id.ParseUsername(typed)
	if err != nil {
		u, err = id.ParseUsername("nobody")
		if err != nil {
			return Identity{}, err
		}
		if _, err := l.identities.IdentityByUsername(ctx, u); err != nil && !fault.Is(err, fault.NotFound) {
			return Identity{}, err
		}
		return Identity{}, nil
	}
	who, err := l.identities.IdentityByUsername(ctx, u)
	if fault.Is(err, fault.NotFound) {
		return Identity{}, nil
	}
	return who, err
}

func (l *Login) passwordWrong(ctx context.Context, f Flow, who Identity, g gauge) (Outcome, error) {
	nobody := Identity{State: Active} // whoever it was, they did not identify themselves
	// Logged by subject, never by what was typed: people type passwords there.
	l.log.WarnContext(ctx, "password wrong", "flow", f.ID.String(), "subject", who.Subject.String())
	l.note(ctx, register.Incident{What: register.PasswordWrong, Flow: f.ID, Subject: who.Subject, SP: f.Request.SP})
	// First, and whatever becomes of the flow: one that cannot move (its request
	// was answered in another flow, another node was faster) must not give
	// guesses away.
	if err := l.countFailure(ctx, g); err != nil {
		return Outcome{}, err
	}
	n, err := f.next(act{event: passwordWrong, at: l.now(), policy: l.policy})
	if err != nil {
		return Outcome{}, err
	}
	// The count is the flow's, whatever was typed: it tells nothing about a username.
	out, err := l.commit(ctx, n, nobody, note{notice: NoticeWrongCredentials, left: l.policy.WrongPasswords - n.WrongPassword})
	if fault.Is(err, fault.Conflict) {
		return l.overtaken(ctx, f, err)
	}
	return out, err
}

func (l *Login) passwordRight(ctx context.Context, f Flow, who Identity, g gauge) (Outcome, error) {
	l.log.InfoContext(ctx, "password right", "flow", f.ID.String(), "subject", who.Subject.String())
	who, err := l.withWays(ctx, who) // not before: for an unknown username it would be no work
	if err != nil {
		return Outcome{}, err
	}
	out, err := l.apply(ctx, f, who, act{event: passwordRight, at: l.now(), who: who}, note{})
	if err != nil {
		return Outcome{}, err
	}
	if out.Response != nil && who.State == Active && who.stuck() && out.Response.Code == saml.NotActive {
		l.note(ctx, register.Incident{What: register.CodesBlocked, Flow: f.ID, Subject: who.Subject, SP: f.Request.SP, Detail: "every method"})
	}
	if err := l.clearFailures(ctx, g); err != nil {
		// The tally stays: the next attempt is slower than it need be.
		l.log.ErrorContext(ctx, "failures not cleared", "flow", f.ID.String(), "error", err)
	}
	return out, nil
}

// issueCode has a code sent and goes to the code page. The code is counted in
// the flow, durably, before it is issued: of two nodes that are asked at the
// same time only one sends, and a crash costs a code of the limit, not an SMS.
func (l *Login) issueCode(ctx context.Context, f Flow, who Identity, w Way) (Outcome, error) {
	if w.Blocked {
		return l.blocked(ctx, f, who, w.Method)
	}
	if f.CodesIssued >= l.policy.Codes {
		return l.show(ctx, f, who, note{notice: NoticeTooManyCodes}), nil
	}
	n, err := f.next(act{event: codeReserved, at: l.now(), policy: l.policy, method: w.Method})
	if err != nil {
		return Outcome{}, err
	}
	if n.Step == StepDone { // time is over
		return l.commit(ctx, n, who, note{})
	}
	if err := l.flows.SaveFlow(ctx, n); fault.Is(err, fault.Conflict) {
		return l.overtaken(ctx, f, err)
	} else if err != nil {
		return Outcome{}, err
	}
	n.Version++
	challenge, err := l.send(ctx, n, who, w)
	if err != nil {
		return l.codeNotIssued(ctx, n, who, err)
	}
	l.log.InfoContext(ctx, "code issued", "flow", n.ID.String(), "subject", who.Subject.String(),
		"challenge", challenge.String(), "number", n.CodesIssued, "method", w.Method.String())
	told := note{}
	if w.Method.sent() {
		told.notice = NoticeCodeSent
	}
	return l.apply(ctx, n, who, act{event: codeIssued, at: l.now(), challenge: challenge}, told)
}

// codeNotIssued takes the reservation of a code back; the count stays.
func (l *Login) codeNotIssued(ctx context.Context, f Flow, who Identity, cause error) (Outcome, error) {
	l.log.WarnContext(ctx, "code not issued", "flow", f.ID.String(), "subject", who.Subject.String(), "error", cause)
	n := note{}
	switch fault.KindOf(cause) {
	case fault.Exhausted:
		n.notice = NoticeTooManyCodes
	case fault.Busy:
		n.notice = NoticeBusy
	case fault.Denied: // blocked since the page was shown
		n.notice = NoticeBlockedMethod
	}
	out, err := l.apply(ctx, f, who, act{event: codeNotIssued, at: l.now()}, n)
	if err == nil && n.notice == NoticeNone && out.Response == nil {
		return Outcome{}, cause
	}
	return out, err
}

// answerCode has the code checked. The vault burns a right one before it says
// so; the flow moves after that. A crash between the two costs the subject one
// code, never a second use of it.
func (l *Login) answerCode(ctx context.Context, f Flow, who Identity, a CodeAnswer) (Outcome, error) {
	if f.Step != StepCode {
		return l.show(ctx, f, who, note{}), nil
	}
	if f.Challenge.IsZero() { // still being issued, or its issuer crashed
		return l.show(ctx, f, who, note{notice: NoticeUsedCode}), nil
	}
	j, err := l.judge(ctx, f, a.Code)
	if err != nil {
		return l.notJudged(ctx, f, who, err)
	}
	with := act{at: l.now(), policy: l.policy, who: who, challenge: f.Challenge, subject: f.Subject}
	if j.Verdict == VerdictRight {
		with.event = codeRight
		l.log.InfoContext(ctx, "code right", "flow", f.ID.String(), "subject", f.Subject.String(), "challenge", f.Challenge.String(), "method", f.Method.String())
		if f.Method == MethodSMS {
			if err := l.ForgiveCodes(ctx, f.Subject); err != nil {
				// The tally stays: the codes are blocked sooner than they need be.
				l.log.ErrorContext(ctx, "wrong codes not cleared", "flow", f.ID.String(), "error", err)
			}
		}
		l.remember(ctx, f, l.way(ctx, f, who))
		return l.apply(ctx, f, who, with, note{})
	}
	if j.Verdict == VerdictBlocked {
		return l.blocked(ctx, f, who, f.Method)
	}
	with.event = codeWrong
	if j.Left <= 0 {
		with.event = codeExhausted
	}
	notice := NoticeWrongCode
	if j.Verdict == VerdictRepeated {
		notice = NoticeRepeatedCode
	}
	l.note(ctx, register.Incident{What: register.CodeWrong, Flow: f.ID, Subject: f.Subject, SP: f.Request.SP, Detail: f.Method.String()})
	l.log.WarnContext(ctx, "code wrong", "flow", f.ID.String(), "subject", f.Subject.String(), "challenge", f.Challenge.String(), "method", f.Method.String())
	return l.apply(ctx, f, who, with, note{notice: notice, left: min(j.Left, l.policy.WrongCodes-f.WrongCode-1)})
}

// notJudged answers when nothing was learned about a code.
func (l *Login) notJudged(ctx context.Context, f Flow, who Identity, cause error) (Outcome, error) {
	switch kind := fault.KindOf(cause); kind {
	case fault.Exhausted: // another node was faster with the last attempt
		return l.apply(ctx, f, who, act{event: codeExhausted, at: l.now()}, note{})
	case fault.Expired:
		return l.show(ctx, f, who, note{notice: NoticeExpiredCode}), nil
	case fault.Invalid:
		return l.show(ctx, f, who, note{notice: NoticeMalformedCode}), nil
	case fault.Conflict, fault.NotFound:
		// Used: perhaps by the same click on another node.
		l.log.WarnContext(ctx, "code not open", "flow", f.ID.String(), "challenge", f.Challenge.String(), "kind", kind.String())
		now, err := l.flows.Flow(ctx, f.ID)
		if err != nil {
			return Outcome{}, err
		}
		if now.Version != f.Version {
			return l.current(ctx, now)
		}
		return l.show(ctx, f, who, note{notice: NoticeUsedCode}), nil
	}
	return Outcome{}, cause
}

// countCode adds a wrong code to the subject's tally; a decayed one begins anew.
func (l *Login) countCode(ctx context.Context, f Flow) error {
	key := codeKey(f.Subject)
	g := gauge{keys: [][32]byte{key}, tally: make([]Tally, 1)}
	var err error
	if g.tally[0], err = l.tallies.Tally(ctx, key); err != nil {
		return err
	}
	return l.countFailure(ctx, g)
}

// consent is the last page's positive answer.
func (l *Login) consent(ctx context.Context, f Flow, who Identity, v Visitor) (Outcome, error) {
	if f.Step != StepConsent {
		return l.show(ctx, f, who, note{}), nil
	}
	n, passed, err := f.authorise(l.now(), l.policy)
	if err != nil {
		return Outcome{}, err
	}
	var out Outcome
	if n.Outcome == saml.Success {
		out, err = l.succeed(ctx, n, who, passed, v)
	} else {
		out, err = l.commit(ctx, n, who, note{})
	}
	switch {
	case fault.Is(err, fault.Conflict):
		return l.overtaken(ctx, f, err)
	case f.Resumed && fault.Is(err, fault.Expired):
		return l.apply(ctx, f, Identity{State: Active}, act{event: sessionGone, at: l.now()}, note{})
	case fault.Is(err, fault.Denied):
		// The store refuses a success for who is not active any more.
		who, e := l.subject(ctx, f)
		if e == nil && who.State != Active {
			return l.apply(ctx, f, who, act{event: notActive, at: l.now()}, note{})
		}
	}
	return out, err
}

// apply moves the flow by one event and commits. An event the step does not
// take, and a flow that somebody else moved, get the current page.
func (l *Login) apply(ctx context.Context, f Flow, who Identity, a act, n note) (Outcome, error) {
	a.policy = l.policy
	next, err := f.next(a)
	if fault.Is(err, fault.Invalid) {
		return l.show(ctx, f, who, note{}), nil
	}
	if err != nil {
		return Outcome{}, err
	}
	out, err := l.commit(ctx, next, who, n)
	if fault.Is(err, fault.Conflict) {
		return l.overtaken(ctx, f, err)
	}
	return out, err
}

// overtaken answers after a lost compare-and-swap: with the page the winner
// led to, or with the conflict itself when the flow is answered or did not
// move (then it is the request that was answered before, in another flow, and
// this one is closed).
func (l *Login) overtaken(ctx context.Context, was Flow, lost error) (Outcome, error) {
	f, err := l.flows.Flow(ctx, was.ID)
	if err != nil {
		return Outcome{}, err
	}
	if f.Version == was.Version {
		// Nothing can come of this flow any more: let it not sign again.
		if err := l.flows.SaveFlow(ctx, f.end(saml.BadID)); err != nil {
			l.log.ErrorContext(ctx, "dead flow not closed", "flow", f.ID.String(), "error", err)
		}
		return Outcome{}, lost
	}
	return l.current(ctx, f)
}

// commit makes the next flow durable and shows it, or finishes it with its
// anomaly. It never finishes with success: that takes a Passed.
func (l *Login) commit(ctx context.Context, next Flow, who Identity, n note) (Outcome, error) {
	if next.Step != StepDone {
		if err := l.flows.SaveFlow(ctx, next); err != nil {
			return Outcome{}, err
		}
		next.Version++
		return l.show(ctx, next, who, n), nil
	}
	if next.Outcome <= saml.Success {
		return Outcome{}, fault.Newf(fault.Internal, "finish flow "+next.ID.String(), "outcome %d without a proof", next.Outcome)
	}
	signed, err := l.responses.Anomaly(next.Outcome, next.Request.Reply(), l.now())
	if err != nil {
		return Outcome{}, fault.New(internal(err), "end flow "+next.ID.String(), err)
	}
	return l.finish(ctx, next, who, signed, nil)
}

// internal is the kind of err, with Internal for what blames an input of ours.
func internal(err error) fault.Kind {
	if k := fault.KindOf(err); k != fault.Invalid && k != fault.Conflict {
		return k
	}
	return fault.Internal
}

// succeed redeems the proof for a Response with an assertion.
func (l *Login) succeed(ctx context.Context, done Flow, who Identity, p Passed, v Visitor) (Outcome, error) {
	op := "finish flow " + done.ID.String()
	if !p.admits(done, who) {
		return Outcome{}, fault.Newf(fault.Internal, op, "the proof is not for this flow and subject")
	}
	attributes, empty := l.attributes(who, done.Request)
	if len(empty) > 0 {
		l.log.InfoContext(ctx, "attributes without a value", "flow", done.ID.String(), "names", empty, "omitted", l.policy.OmitEmpty)
	}
	s := saml.Statement{Request: done.Request, Level: p.level, AuthnInstant: p.at, Attributes: attributes}
	if l.policy.OmitEmpty {
		s.Omitted = empty
	}
	// By the level requested, not the one performed (Avviso 3).
	var joining *Joining
	if done.Request.Level == saml.L1 {
		var err error
		if s.SessionIndex, joining, err = l.join(ctx, done, v); err != nil {
			return Outcome{}, err
		}
	}
	signed, err := l.responses.Success(s, l.now())
	if err != nil {
		// Whatever is wrong with the statement, the person cannot mend it by
		// answering again: this is not their Invalid.
		return Outcome{}, fault.New(internal(err), op, err)
	}
	return l.finish(ctx, done, who, signed, joining)
}

// finish lets a Response leave only after the store took the flow's end and the
// claim of the request in one transaction, and the register proved that it holds
// the answer. What crashes between the two has answered the request and let
// nothing leave.
func (l *Login) finish(ctx context.Context, done Flow, who Identity, signed saml.Signed, j *Joining) (Outcome, error) {
	op := "finish flow " + done.ID.String()
	if signed.Code != done.Outcome {
		return Outcome{}, fault.Newf(fault.Internal, op, "the Response says %d, the flow %d", signed.Code, done.Outcome)
	}
	floor, err := l.ready(op)
	if err != nil {
		return Outcome{}, err // before the request is spent
	}
	now := l.now()
	if err := l.flows.FinishFlow(ctx, done, Answered{SPIDCode: who.SPIDCode, Response: signed, At: now, Joining: j, Floor: floor}); err != nil {
		l.log.ErrorContext(ctx, "login not finished", "flow", done.ID.String(), "code", done.Outcome, "error", err)
		return Outcome{}, err
	}
	proof, err := l.record(ctx, op, done.transaction(who, signed, now))
	if err != nil {
		return Outcome{}, err
	}
	if done.Outcome != saml.Success {
		l.note(ctx, register.Incident{What: register.LoginFailed, Flow: done.ID, Subject: done.Subject, SP: done.Request.SP, Request: done.Request.ID, Code: done.Outcome})
	}
	l.log.InfoContext(ctx, "login finished", "flow", done.ID.String(), "code", done.Outcome, "sp", done.Request.SP.String(),
		"request", done.Request.ID, "response", signed.ID, "assertion", signed.AssertionID,
		"subject", done.Subject.String(), "level", fmt.Sprint(done.Performed), "record", proof.String())
	out := Outcome{Response: &signed, Proof: proof, SPName: maps.Clone(done.SPName), Level: done.shownLevel(who), SessionBegan: j != nil && j.Begin}
	l.gone.Keep(done.ID, out, l.now())
	return out, nil
}
