package oath

import (
	"context"
	"crypto/subtle"
	"encoding/binary"
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
// is told; the states are equal when there is nothing to store. An error of mac, or a MAC of the
// wrong length (fault.Fatal), leaves the state as it is.
func (r Rules) Check(ctx context.Context, mac MAC, p Parameters, s State, code string, now time.Time) (Verdict, State, error) {
	window, err := r.window(p, s, now, false)
	if err != nil {
		return Wrong, s, err
	}
	typed, err := parseCode(code, p.Digits)
	if err != nil {
		return Wrong, s, err
	}
	if s.Blocked {
		return Blocked, s, nil
	}
	codes, err := window.codes(ctx, mac, p)
	if err != nil {
		return Wrong, s, err
	}
	// From the highest to the lowest: of two counters with the same code the
	// earlier one is taken. The later one is not thereby open to a repetition, since
	// the code of the last accepted counter is Repeated whatever else it fits.
	found, at := 0, 0
	for i := len(codes) - 1; i > 0; i-- {
		hit := subtle.ConstantTimeEq(codes[i], typed) & window.open(i)
		at = subtle.ConstantTimeSelect(hit, i, at)
		found |= hit
	}
	repeated := subtle.ConstantTimeEq(codes[0], typed) & window.spent
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
func (r Rules) Realign(ctx context.Context, mac MAC, p Parameters, s State, first, second string, now time.Time) (Verdict, State, error) {
	window, err := r.window(p, s, now, true)
	if err != nil {
		return Wrong, s, err
	}
	typed1, err := parseCode(first, p.Digits)
	if err != nil {
		return Wrong, s, err
	}
	typed2, err := parseCode(second, p.Digits)
	if err != nil {
		return Wrong, s, err
	}
	if s.Blocked {
		return Blocked, s, nil
	}
	codes, err := window.codes(ctx, mac, p)
	if err != nil {
		return Wrong, s, err
	}
	found, at := 0, 0
	for i := len(codes) - 2; i > 0; i-- {
		hit := subtle.ConstantTimeEq(codes[i], typed1) & subtle.ConstantTimeEq(codes[i+1], typed2) & window.open(i)
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

// codes returns the code of each counter of the window as a number.
func (w window) codes(ctx context.Context, mac MAC, p Parameters) ([]int32, error) {
	const op = "compute one-time codes"
	macs, err := mac.MACs(ctx, w.counters)
	if err != nil {
		return nil, fault.New(trouble(err), op, err)
	}
	defer func() {
		for _, m := range macs {
			clear(m)
		}
	}()
	if len(macs) != len(w.counters) {
		return nil, fault.Newf(fault.Fatal, op, "%d MACs for %d counters", len(macs), len(w.counters))
	}
	codes := make([]int32, len(macs))
	for i, m := range macs {
		if len(m) != p.Hash.Size() {
			return nil, fault.Newf(fault.Fatal, op, "a MAC has %d octets, not %d", len(m), p.Hash.Size())
		}
		codes[i] = truncate(m, p.Digits)
	}
	return codes, nil
}

// truncate is the dynamic truncation of RFC 4226, 5.3.
func truncate(mac []byte, digits int) int32 {
	at := mac[len(mac)-1] & 0x0f
	v := binary.BigEndian.Uint32(mac[at:]) & 0x7fffffff
	switch digits {
	case 6:
		return int32(v % 1_000_000)
	case 7:
		return int32(v % 10_000_000)
	default:
		return int32(v % 100_000_000)
	}
}

// parseCode reads exactly digits ASCII digits.
func parseCode(code string, digits int) (int32, error) {
	if len(code) != digits {
		return 0, fault.Newf(fault.Invalid, "read one-time code", "not %d digits", digits)
	}
	v := int32(0)
	for i := range len(code) {
		c := code[i]
		if c < '0' || c > '9' {
			return 0, fault.Newf(fault.Invalid, "read one-time code", "not %d digits", digits)
		}
		v = v*10 + int32(c-'0')
	}
	return v, nil
}
