package authcore

import (
	"context"
	"time"

	"custode/authcore/saml"
	"custode/internal/fault"
)

const (
	// A signed request can be sent again by whoever saw it, as often as they like
	// while its IssueInstant is fresh. Each refusal costs a signature that logins
	// need too, so these are few for the whole node: a person with an impatient
	// browser gets theirs, a flood gets pages.
	replayRefusals = 20                     // at once
	replayPause    = 500 * time.Millisecond // until one more
)

// answeredBefore is the error of beginning a login for a request that has its
// answer: a refusal with anomaly 11 for the SP, or, when the policy says so or too
// many are asked for, the conflict itself, which costs nothing.
func (l *Login) answeredBefore(ctx context.Context, r saml.Request, names map[string]string, cause error) error {
	l.log.WarnContext(ctx, "request sent again after its answer", "sp", r.SP.String(), "request", r.ID)
	if l.policy.ReplayPage || !l.replays.Take(l.now()) {
		return cause
	}
	reply := r.Reply()
	return &saml.Refusal{Code: saml.BadID, Reply: &reply, SPName: names, Raw: r.Raw, Err: fault.New(fault.Conflict, "begin login", cause)}
}
