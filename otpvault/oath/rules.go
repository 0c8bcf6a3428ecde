package oath

import (
	"time"

	"custode/internal/fault"
)

// The defaults of NewRules.
const (
	DefaultAhead        = 9
	DefaultResync       = 100
	DefaultSteps        = 1
	DefaultMaxDrift     = 20
	DefaultPerChallenge = 3
	DefaultInARow       = 10
)

// Rules are the windows and limits, the same for all devices of a machine.
type Rules struct {
	// Ahead is how many counters beyond the expected one are tried (RFC 4226, 7.4):
	// presses of the button that nobody typed. 0 to 50.
	Ahead int
	// Resync is the same for two codes in a row, which are 10^6 times harder to
	// guess than one. Ahead to 1000.
	Resync int
	// Steps is how many time steps to either side of the expected one are tried
	// (RFC 6238, 5.2). 0 to 5.
	Steps int
	// MaxDrift is how many time steps from ours the middle of the window may lie, and the
	// window of a resynchronisation. Steps to 500.
	MaxDrift int
	// PerChallenge wrong codes end a challenge. 1 to 10.
	PerChallenge int
	// InARow wrong codes without a right one block the device. PerChallenge to 100.
	InARow int
}

// NewRules returns the default rules.
func NewRules() Rules {
	return Rules{
		Ahead: DefaultAhead, Resync: DefaultResync, Steps: DefaultSteps, MaxDrift: DefaultMaxDrift,
		PerChallenge: DefaultPerChallenge, InARow: DefaultInARow,
	}
}

// Validate returns fault.Invalid when a number is out of its range.
func (r Rules) Validate() error {
	for _, c := range []struct {
		name          string
		n, least, max int
	}{
		{"look-ahead", r.Ahead, 0, 50},
		{"resynchronisation window", r.Resync, r.Ahead, 1000},
		{"time steps", r.Steps, 0, 5},
		{"greatest drift", r.MaxDrift, r.Steps, 500},
		{"attempts per challenge", r.PerChallenge, 1, 10},
		{"wrong codes in a row", r.InARow, r.PerChallenge, 100},
	} {
		if c.n < c.least || c.n > c.max {
			return fault.Newf(fault.Invalid, "check one-time code rules", "%s %d is not %d to %d", c.name, c.n, c.least, c.max)
		}
	}
	return nil
}

// State is what the store keeps of a device between codes. Its zero value is a
// device that has shown no code yet.
type State struct {
	// Version goes up by one with every change: the store compares it.
	Version uint64
	// Next is the lowest counter, or time step, that may still be accepted.
	Next uint64
	// Drift is by how many steps the device's clock was ahead (behind: negative) at
	// the last right code. Always 0 for Event.
	Drift int
	// Failures counts wrong codes since the last right one.
	Failures int
	// Blocked devices accept nothing until Unblock.
	Blocked bool
}

// Begin returns the state of a device whose first acceptable counter is next: as
// its delivery file says, 0 for Time.
func Begin(next uint64) State { return State{Version: 1, Next: next} }

// maxCounter keeps sums of counters and windows from overflowing, and fits the signed
// 64 bits of a store.
const maxCounter = 1 << 62

// step returns the number of the time step at now (RFC 6238, 4.2).
func (p Parameters) step(now time.Time) (uint64, error) {
	s := now.Unix()
	if s < 0 {
		return 0, fault.Newf(fault.Internal, "count time steps", "the clock stands before 1970")
	}
	return uint64(s) / uint64(p.Period/time.Second), nil
}

// Unblock returns the state of a blocked device with its failures forgotten. The
// counter and the drift stay: nothing that was void becomes good. Who may ask
// for it is the caller's to know. fault.Conflict when it is not blocked.
func Unblock(s State) (State, error) {
	if !s.Blocked {
		return s, fault.Newf(fault.Conflict, "unblock device", "it is not blocked")
	}
	s.Version, s.Blocked, s.Failures = s.Version+1, false, 0
	return s, nil
}

// Attempts counts the wrong codes of one challenge. Its zero value is no
// challenge; Rules.Challenge begins one.
type Attempts struct{ Left int }

// Challenge returns a challenge with all its attempts.
func (r Rules) Challenge() Attempts { return Attempts{Left: r.PerChallenge} }

// Take takes one attempt, before the code is looked at. fault.Exhausted when
// none was left.
func (a Attempts) Take() (Attempts, error) {
	if a.Left <= 0 {
		return a, fault.Newf(fault.Exhausted, "take attempt", "none left")
	}
	return Attempts{Left: a.Left - 1}, nil
}
