package authcore

import (
	"context"
	"crypto/sha256"
	"net/netip"
	"strings"
	"time"

	"custode/internal/id"
)

const (
	// tallyLife is how long a failed password slows further ones down.
	tallyLife = 24 * time.Hour
	// longestDelay keeps the slow-down a slow-down: whoever guesses at
	// somebody's password must not be able to lock them out (manual 13.2).
	longestDelay = 30 * time.Second
)

// delay is the slow-down after so many failures: none below free, then 1, 2, 4,
// 8, 16 and at most 30 seconds.
func delay(failures, free int) time.Duration {
	over := failures - free
	switch {
	case over < 0:
		return 0
	case over >= 5:
		return longestDelay
	}
	return time.Second << over
}

// decayed reports whether the tally's failures are too old to count.
func (t Tally) decayed(now time.Time) bool { return now.Sub(t.Last) >= tallyLife }

// wait is how long from now until an attempt under the tally is looked at; zero
// when at once. A last failure in the future (a clock set back) delays no
// longer than one that just happened.
func (t Tally) wait(now time.Time, free int) time.Duration {
	if t.decayed(now) {
		return 0
	}
	d := delay(t.Failures, free)
	return max(0, min(d, d-now.Sub(t.Last)))
}

// The keys under which failures are counted are hashes: the table does not tell
// which usernames were tried. Known and unknown usernames differ in nothing.
// The texts before the NUL keep the two name spaces apart.
const (
	usernameDomain = "custode tally 1 username\x00"
	networkDomain  = "custode tally 1 network\x00"
	codeDomain     = "custode tally 1 code\x00"
)

// usernameKey counts what was typed as a username. Text that cannot be one
// counts under itself, bounded, so that it is slowed down in the same way.
func usernameKey(typed string) [32]byte {
	if u, err := id.ParseUsername(typed); err == nil {
		typed = u.String()
	} else {
		typed = strings.ToLower(typed[:min(len(typed), 256)])
	}
	return sha256.Sum256([]byte(usernameDomain + typed))
}

// networkKey counts a peer's network: /24 for IPv4, /48 for IPv6. Peers without
// an address (tests, a local socket) share one.
func networkKey(peer netip.Addr) [32]byte {
	peer = peer.Unmap().WithZone("")
	bits := 48
	if peer.Is4() {
		bits = 24
	}
	text := "none"
	if n, err := peer.Prefix(bits); err == nil {
		text = n.String()
	}
	return sha256.Sum256([]byte(networkDomain + text))
}

// codeKey counts the wrong codes of a subject, over all its flows.
func codeKey(s id.Subject) [32]byte { return sha256.Sum256([]byte(codeDomain + s.String())) }

// codesBlocked reports whether the subject's codes are blocked (manual 10.2.2;
// rule F2): too many wrong ones in a row, the last within tallyLife. Only
// somebody who has the password gets that far.
func (l *Login) codesBlocked(ctx context.Context, s id.Subject) (bool, error) {
	t, err := l.tallies.Tally(ctx, codeKey(s))
	return err == nil && t.Failures >= l.policy.BlockCodes && !t.decayed(l.now()), err
}

// gauge is the tallies an attempt falls under, as read before it: the username's
// and, unless the peer is this box, the network's.
type gauge struct {
	keys  [][32]byte
	tally []Tally
}

// readTallies reads the tallies and how long the attempt has to wait. others is
// how many attempts of the network are under way: any of them may be a failure,
// so beyond what is free they go one by one.
//
// A TLS terminator on this box makes everybody come from a loopback address,
// which therefore is no network: one guesser would slow everybody down.
func (l *Login) readTallies(ctx context.Context, typed string, peer netip.Addr, others int) (gauge, time.Duration, error) {
	g := gauge{keys: [][32]byte{usernameKey(typed)}}
	if !peer.Unmap().IsLoopback() {
		g.keys = append(g.keys, networkKey(peer))
	}
	free := [2]int{l.policy.UsernameFree, l.policy.NetworkFree}
	now, wait := l.now(), time.Duration(0)
	for i := range g.keys {
		t, err := l.tallies.Tally(ctx, g.keys[i])
		if err != nil {
			return g, 0, err
		}
		g.tally = append(g.tally, t)
		wait = max(wait, t.wait(now, free[i]))
		if t.decayed(now) {
			t.Failures = 0
		}
		if i == 1 && others > 0 && t.Failures+others >= free[i] {
			wait = max(wait, time.Second)
		}
	}
	return g, wait, nil
}

// countFailure adds one failure to each tally; a decayed one begins anew.
func (l *Login) countFailure(ctx context.Context, g gauge) error {
	now := l.now()
	for i, key := range g.keys {
		if g.tally[i].Failures > 0 && g.tally[i].decayed(now) {
			if err := l.tallies.ClearTally(ctx, key); err != nil {
				return err
			}
		}
		if _, err := l.tallies.CountFailure(ctx, key, now); err != nil {
			return err
		}
	}
	return nil
}

// clearFailures forgives the username, and only it: one right password must not
// let a network go on guessing at other usernames.
func (l *Login) clearFailures(ctx context.Context, g gauge) error {
	if g.tally[0].Failures == 0 {
		return nil
	}
	return l.tallies.ClearTally(ctx, g.keys[0])
}
