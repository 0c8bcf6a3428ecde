package authcore

import (
	"context"
	"sync"
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

// allowance is a token bucket. The zero value is full.
type allowance struct {
	mu    sync.Mutex
	spent int
	since time.Time // when spent was last counted down
}

// take reports whether one more may be had at now.
func (a *allowance) take(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if back := now.Sub(a.since); back < 0 || back >= replayRefusals*replayPause {
		a.spent, a.since = 0, now
	} else if n := int(back / replayPause); n > 0 {
		a.spent, a.since = max(0, a.spent-n), a.since.Add(time.Duration(n)*replayPause)
	}
	if a.spent >= replayRefusals {
		return false
	}
	a.spent++
	return true
}

// answeredBefore is the error of beginning a login for a request that has its
// answer: a refusal with anomaly 11 for the SP, or, when the policy says so or too
// many are asked for, the conflict itself, which costs nothing.
func (l *Login) answeredBefore(ctx context.Context, r saml.Request, names map[string]string, cause error) error {
	l.log.WarnContext(ctx, "request sent again after its answer", "sp", r.SP.String(), "request", r.ID)
	if l.policy.ReplayPage || !l.replays.take(l.now()) {
		return cause
	}
	reply := r.Reply()
	return &saml.Refusal{Code: saml.BadID, Reply: &reply, SPName: names, Err: fault.New(fault.Conflict, "begin login", cause)}
}
