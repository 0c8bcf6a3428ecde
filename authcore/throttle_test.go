package authcore

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestDelay(t *testing.T) {
	want := []int{0, 0, 0, 1, 2, 4, 8, 16, 30, 30, 30}
	for failures, seconds := range want {
		if got := delay(failures, 3); got != time.Duration(seconds)*time.Second {
			t.Errorf("delay after %d failures is %v, want %ds", failures, got, seconds)
		}
	}
	if delay(29, 30) != 0 || delay(30, 30) != time.Second || delay(1<<62, 30) != longestDelay {
		t.Error("the network's delays are wrong")
	}
}

func TestWait(t *testing.T) {
	for _, c := range []struct {
		name     string
		failures int
		ago      time.Duration
		want     time.Duration
	}{
		{"none", 0, 0, 0},
		{"free", 2, 0, 0},
		{"just now", 4, 0, 2 * time.Second},
		{"a moment ago", 4, 1500 * time.Millisecond, 500 * time.Millisecond},
		{"over", 4, 2 * time.Second, 0},
		{"many", 100, time.Second, 29 * time.Second},
		{"clock set back", 100, -time.Hour, 30 * time.Second},
		{"decayed", 100, 24 * time.Hour, 0},
	} {
		if got := (Tally{Failures: c.failures, Last: start.Add(-c.ago)}).wait(start, 3); got != c.want {
			t.Errorf("%s: wait %v, want %v", c.name, got, c.want)
		}
	}
	if (Tally{}).wait(start, 1) != 0 {
		t.Error("an unknown key waits")
	}
}

func TestWaitIsBounded(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		tally := Tally{Failures: rapid.Int().Draw(r, "failures"), Last: time.Unix(rapid.Int64().Draw(r, "last"), 0)}
		if w := tally.wait(time.Unix(rapid.Int64().Draw(r, "now"), 0), rapid.IntRange(1, 1000).Draw(r, "free")); w < 0 || w > longestDelay {
			r.Fatalf("wait %v", w)
		}
	})
}

func TestKeys(t *testing.T) {
	same := func(a, b [32]byte, want bool, what string) {
		t.Helper()
		if (a == b) != want {
			t.Errorf("%s: same key is %v, want %v", what, a == b, want)
		}
	}
	net := func(s string) [32]byte { return networkKey(netip.MustParseAddr(s)) }
	same(usernameKey("mario"), usernameKey(" MARIO "), true, "letter case and blanks")
	same(usernameKey("mario"), usernameKey("maria"), false, "two usernames")
	same(usernameKey("<x>"), usernameKey("<y>"), false, "two malformed usernames")
	same(usernameKey(strings.Repeat("x", 1<<20)), usernameKey(strings.Repeat("x", 300)), true, "endless usernames")
	same(net("192.0.2.1"), net("192.0.2.254"), true, "one /24")
	same(net("192.0.2.1"), net("192.0.3.1"), false, "two /24")
	same(net("192.0.2.1"), net("::ffff:192.0.2.9"), true, "IPv4 in IPv6")
	same(net("2001:db8:1::1"), net("2001:db8:1:ffff::1"), true, "one /48")
	same(net("2001:db8:1::1"), net("2001:db8:2::1"), false, "two /48")
	same(net("fe80::1%eth0"), net("fe80::1"), true, "zones")
	same(networkKey(netip.Addr{}), networkKey(netip.Addr{}), true, "no address")
	same(usernameKey("192.0.2.0/24"), net("192.0.2.0"), false, "a username that looks like a network")
}
