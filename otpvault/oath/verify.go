package oath

import (
	"context"
	"errors"
	"time"

	"custode/internal/fault"
)

// Cell is where the state of one device is kept.
type Cell interface {
	// Load returns the state as it is now; fault.Denied when the device may not be used.
	Load(ctx context.Context) (State, error)
	// Swap makes after the state, durably, if the one there still has before's
	// version; fault.Conflict if it has not.
	Swap(ctx context.Context, before, after State) error
}

// maxSwaps bounds how often Verify begins anew because somebody else changed the
// state. Only right codes and the first wrong ones change it: with
// a blocked device, or a code that was used, nobody swaps any more.
const maxSwaps = 256

// Verify checks code against the state in cell until its own change, if there is
// one, went in, and only then returns the verdict. The errors are those of Check
// and of cell; fault.Busy when others were always faster. On any error nothing is
// known about the code.
func (r Rules) Verify(ctx context.Context, cell Cell, m Matcher, p Parameters, code string, now time.Time) (Verdict, error) {
	return settle(ctx, cell, func(s State) (Verdict, State, error) { return r.Check(ctx, m, p, s, code, now) })
}

// VerifyPair is Verify for Realign.
func (r Rules) VerifyPair(ctx context.Context, cell Cell, m Matcher, p Parameters, first, second string, now time.Time) (Verdict, error) {
	return settle(ctx, cell, func(s State) (Verdict, State, error) { return r.Realign(ctx, m, p, s, first, second, now) })
}

// Tally is Verify for a code that was not made from the counter and was found right or
// wrong: it is counted in cell. Accepted, Wrong or Blocked.
func (r Rules) Tally(ctx context.Context, cell Cell, right bool) (Verdict, error) {
	return settle(ctx, cell, func(s State) (Verdict, State, error) {
		after := r.Count(s, right)
		switch {
		case s.Blocked || after.Blocked:
			return Blocked, after, nil
		case right:
			return Accepted, after, nil
		}
		return Wrong, after, nil
	})
}

func settle(ctx context.Context, cell Cell, judge func(State) (Verdict, State, error)) (Verdict, error) {
	const op = "verify one-time code"
	for range maxSwaps {
		before, err := cell.Load(ctx)
		if fault.Is(err, fault.Denied) {
			return Wrong, fault.New(fault.Denied, op, err)
		}
		if err != nil {
			return Wrong, fault.New(trouble(err), op, err)
		}
		verdict, after, err := judge(before)
		if err != nil {
			return Wrong, err
		}
		if after == before {
			return verdict, nil
		}
		err = cell.Swap(ctx, before, after)
		switch {
		case err == nil:
			return verdict, nil
		case fault.Is(err, fault.Conflict):
			continue
		default:
			return Wrong, fault.New(trouble(err), op, err)
		}
	}
	return Wrong, fault.Newf(fault.Busy, op, "the state changed %d times meanwhile", maxSwaps)
}

// trouble is the kind of a failed device or store call. The kinds that speak of
// the code must not leak in from below: a refusal by the HSM is no wrong code.
func trouble(err error) fault.Kind {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fault.Retry
	}
	switch k := fault.KindOf(err); k {
	case fault.Busy, fault.Retry, fault.Reopen, fault.Fatal, fault.Unavailable, fault.NotFound:
		return k
	default:
		return fault.Internal
	}
}

// fit checks the rules and the parameters.
func (r Rules) fit(p Parameters) error {
	if err := r.Validate(); err != nil {
		return err
	}
	return p.Check()
}
