package oath

import (
	"context"
	"crypto/subtle"
	"time"

	"custode/internal/fault"
)

// Verdict is what a typed code turned out to be.
type Verdict uint8

// The verdicts. Only Accepted lets anybody in; the zero value does not.
const (
	Wrong    Verdict = iota // no acceptable counter has this code
	Accepted                // right, and now void
	// Repeated is the code that was accepted last, typed again: a second click, or
	// somebody who looked over a shoulder. It does not count towards blocking (who has
	// it learns nothing by it) but does against the challenge.
	Repeated
	Blocked // the device accepts nothing, or does not any more after this wrong code
)

// String returns the verdict for logs.
func (v Verdict) String() string {
	switch v {
	case Wrong:
		return "wrong"
	case Accepted:
		return "accepted"
	case Repeated:
		return "repeated"
	case Blocked:
		return "blocked"
	}
	return "unknown verdict"
}

// Check judges code, which must be exactly as many ASCII digits as the device
// shows, else fault.Invalid; such a code is not counted. It returns the state
// that must replace s, durably and only if s is still there, before the verdict
// is told; the states are equal when there is nothing to store. An error of m, or an answer
// that cannot be one (fault.Fatal), leaves the state as it is.
func (r Rules) Check(ctx context.Context, m Matcher, p Parameters, s State, code string, now time.Time) (Verdict, State, error) {
	window, err := r.window(p, s, now, false)
	if err != nil {
		return Wrong, s, err
	}
	if err := checkCode(code, p.Digits); err != nil {
		return Wrong, s, err
	}
	if s.Blocked {
		return Blocked, s, nil
	}
	hits, err := window.matches(ctx, m, p, code)
	if err != nil {
		return Wrong, s, err
	}
	// From the highest to the lowest: of two counters with the same code the
	// earlier one is taken. The later one is not thereby open to a repetition, since
	// the code of the last accepted counter is Repeated whatever else it fits.
	found, at := 0, 0
	for i := len(hits) - 1; i > 0; i-- {
		hit := hits[i] & window.open(i)
		at = subtle.ConstantTimeSelect(hit, i, at)
		found |= hit
	}
	repeated := hits[0] & window.spent
	switch {
	case repeated == 1:
		return Repeated, s, nil
	case found == 1:
		return Accepted, s.accepted(p, window, window.counters[at]), nil
	}
	s = r.failed(s)
	if s.Blocked {
		return Blocked, s, nil
	}
	return Wrong, s, nil
}

// Realign finds a device that is further off than Check looks, by two codes that
// it showed one after the other (RFC 4226, 7.4 and E.4). Both are void
// afterwards. A wrong pair counts as one wrong code; a blocked device stays blocked. The states and
// errors are those of Check; Repeated is never returned.
func (r Rules) Realign(ctx context.Context, m Matcher, p Parameters, s State, first, second string, now time.Time) (Verdict, State, error) {
	window, err := r.window(p, s, now, true)
	if err != nil {
		return Wrong, s, err
	}
	if err := checkCode(first, p.Digits); err != nil {
		return Wrong, s, err
	}
	if err := checkCode(second, p.Digits); err != nil {
		return Wrong, s, err
	}
	if s.Blocked {
		return Blocked, s, nil
	}
	hits, err := window.matches(ctx, m, p, first)
	if err != nil {
		return Wrong, s, err
	}
	next, err := window.matches(ctx, m, p, second)
	if err != nil {
		return Wrong, s, err
	}
	found, at := 0, 0
	for i := len(hits) - 2; i > 0; i-- {
		hit := hits[i] & next[i+1] & window.open(i)
		at = subtle.ConstantTimeSelect(hit, i+1, at)
		found |= hit
	}
	if found == 1 {
		return Accepted, s.accepted(p, window, window.counters[at]), nil
	}
	s = r.failed(s)
	if s.Blocked {
		return Blocked, s, nil
	}
	return Wrong, s, nil
}

// accepted is the state after counter was accepted.
func (s State) accepted(p Parameters, w window, counter uint64) State {
	s.Version, s.Failures, s.Next = s.Version+1, 0, counter+1
	if p.Kind == Time {
		s.Drift = int(int64(counter) - int64(w.clock))
	}
	return s
}

// Count is the state after a code that was not made from the counter (one that was
// pushed to the app) was right or wrong. A blocked state stays as it is.
func (r Rules) Count(s State, right bool) State {
	switch {
	case s.Blocked || right && s.Failures == 0:
		return s
	case right:
		s.Version, s.Failures = s.Version+1, 0
		return s
	}
	return r.failed(s)
}

func (r Rules) failed(s State) State {
	s.Version, s.Failures = s.Version+1, s.Failures+1
	s.Blocked = s.Failures >= r.InARow
	return s
}

// window is the counters of one check. counters[0] is the one that was accepted
// last, the others are candidates in rising order.
type window struct {
	counters []uint64
	next     uint64 // below it nothing is open
	spent    int    // 1 when counters[0] stands for a counter at all
	clock    uint64 // the time step now, of Time
}

// open returns 1 when counter i may be accepted, else 0.
func (w window) open(i int) int {
	if w.counters[i] >= w.next {
		return 1
	}
	return 0
}

// window lists the counters to try. Their number depends on the rules and the
// kind only.
func (r Rules) window(p Parameters, s State, now time.Time, resync bool) (window, error) {
	const op = "choose candidates"
	if err := r.fit(p); err != nil {
		return window{}, err
	}
	if s.Next > maxCounter {
		return window{}, fault.Newf(fault.Internal, op, "counter is beyond its range")
	}
	w := window{next: s.Next, counters: []uint64{0}}
	if s.Next > 0 {
		w.counters[0], w.spent = s.Next-1, 1
	}
	first, count := s.Next, r.Ahead+1
	switch {
	case p.Kind == Event && resync:
		count = r.Resync + 2
	case p.Kind == Time:
		var err error
		if w.clock, err = p.step(now); err != nil {
			return window{}, err
		}
		drift, reach := max(-r.MaxDrift, min(r.MaxDrift, s.Drift)), r.Steps
		if resync {
			drift, reach = 0, r.MaxDrift
		}
		low := int64(w.clock) + int64(drift-reach)
		if low < 0 {
			return window{}, fault.Newf(fault.Internal, op, "the clock stands in 1970")
		}
		first, count = uint64(low), 2*reach+1
	}
	for i := range count {
		w.counters = append(w.counters, first+uint64(i))
	}
	return w, nil
}

// matches returns, for each counter of the window, 1 when code is its code, else 0.
func (w window) matches(ctx context.Context, m Matcher, p Parameters, code string) ([]int, error) {
	const op = "compare one-time code"
	found, err := m.Match(ctx, w.counters, p.Digits, code)
	if err != nil {
		return nil, fault.New(trouble(err), op, err)
	}
	hits := make([]int, len(w.counters))
	for i, at := range found {
		if at < 0 || at >= len(hits) || i > 0 && at <= found[i-1] {
			return nil, fault.Newf(fault.Fatal, op, "the answer names no candidates in rising order")
		}
		hits[at] = 1
	}
	return hits, nil
}

// checkCode wants exactly digits ASCII digits.
func checkCode(code string, digits int) error {
	ok := len(code) == digits
	for _, c := range []byte(code) {
		ok = ok && c >= '0' && c <= '9'
	}
	if !ok {
		return fault.Newf(fault.Invalid, "read one-time code", "not %d digits", digits)
	}
	return nil
}
