package otpvault

import (
	"bytes"
	"context"
	"crypto/subtle"

	"custode/internal/fault"
	"custode/internal/id"
)

// Issue makes a code for (flow, subject), stores its challenge and, in the same
// transaction, the message to the phone; earlier codes of the flow are retired.
// service is the SP's name for the text, in any alphabet and of any length. It
// fails with fault.Exhausted when the subject or the number was sent too many
// messages lately, fault.Busy when the message would leave too late,
// fault.Invalid for a zero identifier, else with a kind of trouble.
func (v *Vault) Issue(ctx context.Context, flow id.FlowID, subject id.Subject, to id.Phone, service string) (id.ChallengeID, error) {
	const op = "issue code"
	if flow.IsZero() || subject.IsZero() || to.IsZero() {
		return id.ChallengeID{}, fault.Newf(fault.Invalid, op, "flow, subject or phone missing")
	}
	if v.cfg.Admit != nil {
		if err := v.cfg.Admit(ctx, to, v.cfg.Lifetime); err != nil {
			return id.ChallengeID{}, fault.New(refusal(err), op, err)
		}
	}
	challenge, err := id.NewChallengeID(v.cfg.Random)
	if err != nil {
		return id.ChallengeID{}, err
	}
	message, err := id.NewMessageID(v.cfg.Random)
	if err != nil {
		return id.ChallengeID{}, err
	}
	var code [codeDigits]byte
	defer clear(code[:])
	if err := drawCode(&code, v.cfg.Random); err != nil {
		return id.ChallengeID{}, err
	}
	mac, err := v.codeMAC(ctx, challenge, flow, subject, &code)
	if err != nil {
		return id.ChallengeID{}, err
	}
	wrapped, err := v.wrap(ctx, message, &code, service)
	if err != nil {
		return id.ChallengeID{}, err
	}
	now := v.cfg.Now().UTC()
	expires := now.Add(v.cfg.Lifetime)
	err = v.cfg.Store.IssueChallenge(ctx,
		Challenge{ID: challenge, Flow: flow, Subject: subject, Message: message, MAC: mac, Left: v.cfg.Attempts, Created: now, Expires: expires},
		Message{ID: message, To: to, Wrapped: wrapped, Created: now, Expires: expires},
		v.cfg.Limit)
	if err != nil {
		return id.ChallengeID{}, fault.New(refusal(err), op, err)
	}
	v.log.DebugContext(ctx, "code issued", "flow", flow.String(), "challenge", challenge.String(), "message", message.String())
	if v.cfg.Accepted != nil {
		v.cfg.Accepted()
	}
	return challenge, nil
}

// refusal is the kind of a failed Admit or IssueChallenge.
func refusal(err error) fault.Kind {
	if fault.Is(err, fault.Exhausted) {
		return fault.Exhausted
	}
	return trouble(err)
}

// wrap renders the text and has the HSM wrap it.
func (v *Vault) wrap(ctx context.Context, message id.MessageID, code *[codeDigits]byte, service string) ([]byte, error) {
	const op = "wrap message text"
	text := v.text.render(code, service)
	defer func() { clear(text[:cap(text)]) }()
	wrapped, err := v.cfg.Wrapper.Wrap(ctx, text, []byte(message.String()))
	if err != nil {
		return nil, fault.New(trouble(err), op, err)
	}
	// A wrapper that passes the text through would write codes to the disk.
	if len(wrapped) < len(text) || bytes.Contains(wrapped, text) {
		return nil, fault.Newf(fault.Fatal, op, "what the wrapper returned is not wrapped")
	}
	return wrapped, nil
}

// Verify returns nil exactly once for the right code of an open challenge, after
// the challenge was burned durably. Else it returns fault.Denied for a wrong code
// with attempts left (their number is left), fault.Exhausted when none is left,
// fault.Expired when it is too late, fault.Conflict when the code was used or
// replaced, fault.Invalid when code is not six ASCII digits (not counted),
// fault.NotFound when the challenge is unknown or of another flow or subject.
// Every other kind is trouble, and the attempt may have been counted.
func (v *Vault) Verify(ctx context.Context, challenge id.ChallengeID, flow id.FlowID, subject id.Subject, code string) (left int, err error) {
	const op = "verify code"
	var typed [codeDigits]byte
	defer clear(typed[:])
	if !parseCode(&typed, code) {
		return 0, fault.Newf(fault.Invalid, op, "not %d digits", codeDigits)
	}
	// Before the attempt is taken, so that an HSM that is down costs the subject
	// no attempt. Nothing is compared yet.
	mac, err := v.codeMAC(ctx, challenge, flow, subject, &typed)
	if err != nil {
		return 0, err
	}
	c, err := v.cfg.Store.TakeAttempt(ctx, challenge, flow, subject, v.cfg.Now().UTC())
	if err != nil {
		return 0, fault.New(verdict(err), op, err)
	}
	if c.ID != challenge || c.Flow != flow || c.Subject != subject || c.Left < 0 || len(c.MAC) < minMAC {
		return 0, fault.Newf(fault.Internal, op, "the store returned another challenge than %s", challenge)
	}
	if subtle.ConstantTimeCompare(mac, c.MAC) != 1 {
		if c.Left == 0 {
			return 0, fault.Newf(fault.Exhausted, op, "wrong code, no attempt left on %s", challenge)
		}
		return c.Left, fault.Newf(fault.Denied, op, "wrong code for %s", challenge)
	}
	if err := v.cfg.Store.BurnChallenge(ctx, challenge, v.cfg.Now().UTC()); err != nil {
		kind := trouble(err)
		if fault.Is(err, fault.Conflict) {
			kind = fault.Conflict // another request was faster
		}
		return 0, fault.New(kind, op, err)
	}
	v.log.DebugContext(ctx, "code verified", "flow", flow.String(), "challenge", challenge.String())
	return 0, nil
}

// parseCode copies code when it is exactly six ASCII digits.
func parseCode(typed *[codeDigits]byte, code string) bool {
	if len(code) != codeDigits {
		return false
	}
	for i := range codeDigits {
		if code[i] < '0' || code[i] > '9' {
			return false
		}
		typed[i] = code[i]
	}
	return true
}

// verdict is the kind of a refused attempt: what the store may say about the
// challenge, else trouble.
func verdict(err error) fault.Kind {
	switch k := fault.KindOf(err); k {
	case fault.NotFound, fault.Conflict, fault.Exhausted, fault.Expired:
		return k
	default:
		return trouble(err)
	}
}
