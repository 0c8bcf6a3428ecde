package modem

import (
	"time"

	"custode/modem/bay"
)

// breaker keeps messages from a bay that fails. It opens at once when the network
// is to blame, and when the modem failed three times in a row; it rests for a
// growing pause and is then tried with a probe (signal and registration), never
// with somebody's code. After a good probe the bay is on trial: until something
// was accepted, a code takes it only when no other bay is idle. What a number is
// to blame for does not count. Guarded by Pool.mu.
type breaker struct {
	failures int // in a row
	opens    int // in a row, without an acceptance between
	until    time.Time
	probed   time.Time
	open     bool
	trial    bool
}

// The names operators see.
const (
	breakerClosed = "closed"
	breakerOpen   = "open"
	breakerTrial  = "trial"
)

func (b *breaker) String() string {
	switch {
	case b.open:
		return breakerOpen
	case b.trial:
		return breakerTrial
	}
	return breakerClosed
}

// failuresToOpen in a row, when only the modem is to blame.
const failuresToOpen = 3

// trip opens the breaker for at least d, or for the growing pause that base
// begins.
func (b *breaker) trip(now time.Time, base, d time.Duration) {
	b.opens = min(b.opens+1, 6)
	b.open, b.trial, b.failures = true, false, 0
	b.until = now.Add(max(d, base<<(b.opens-1)))
}

// count takes the end of an attempt. blameless says that the number is known to be
// bad, so that its refusal tells nothing about the bay.
func (b *breaker) count(end bay.Outcome, blameless bool, now time.Time, base time.Duration) {
	switch {
	case end.Result == bay.Accepted:
		*b = breaker{}
	case end.Result == bay.Untouched:
	case end.Result == bay.Refused && (end.Blame == bay.OnNumber || end.Blame == bay.OnRoute):
		b.failures = 0 // it does talk to the network
	case end.Result == bay.Refused && (end.Blame == bay.OnNetwork || end.Blame == bay.OnBusy):
		if !blameless {
			b.trip(now, base, end.Rest)
		}
	default: // the modem, the line, doubt
		if b.failures++; b.failures >= failuresToOpen {
			b.trip(now, base, end.Rest)
		}
	}
}

// dueProbe reports that an open breaker should be tried now. alone says that
// messages wait and no other bay may take them: then only a second passes
// between probes.
func (b *breaker) dueProbe(now time.Time, alone bool) bool {
	if !b.open {
		return false
	}
	return !now.Before(b.until) || alone && now.Sub(b.probed) >= time.Second
}

// nextProbe is when dueProbe will hold, for the clerk's timer.
func (b *breaker) nextProbe(alone bool) time.Time {
	if again := b.probed.Add(time.Second); alone && again.Before(b.until) {
		return again
	}
	return b.until
}

// probedWell and probedBadly take the end of a probe.
func (b *breaker) probedWell() { b.open, b.trial = false, true }

func (b *breaker) probedBadly(now time.Time, base time.Duration) { b.trip(now, base, 0) }
