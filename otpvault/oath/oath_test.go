package oath

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"custode/internal/fault"
)

// soft computes in memory what the HSM computes in the product.
type soft struct {
	hash  Hash
	seed  []byte
	err   error
	bad   []int // given as an answer
	calls atomic.Int64
	asked atomic.Int64
}

func (s *soft) Match(_ context.Context, counters []uint64, digits int, code string) ([]int, error) {
	s.calls.Add(1)
	s.asked.Store(int64(len(counters)))
	if s.err != nil {
		return nil, s.err
	}
	if s.bad != nil {
		return s.bad, nil
	}
	var out []int
	for i, c := range counters {
		if codeOf(s, c, digits) == code {
			out = append(out, i)
		}
	}
	return out, nil
}

// code is what the device shows at counter.
func (s *soft) code(_ testing.TB, counter uint64, digits int) string {
	return codeOf(s, counter, digits)
}

var (
	noon   = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	byTime = Parameters{Kind: Time, Hash: SHA1, Digits: 6, Period: 30 * time.Second}
	byTurn = Parameters{Kind: Event, Hash: SHA1, Digits: 6}
	rfc    = []byte("12345678901234567890")
)

// exact looks at one counter or step only.
func exact() Rules { return Rules{PerChallenge: 3, InARow: 10} }

func mustCheck(t testing.TB, r Rules, m Matcher, p Parameters, s State, code string, now time.Time, want Verdict) State {
	t.Helper()
	v, after, err := r.Check(t.Context(), m, p, s, code, now)
	if err != nil {
		t.Fatal(err)
	}
	if v != want {
		t.Fatalf("code %s in state %+v: %v, want %v", code, s, v, want)
	}
	return after
}

// TestRFC4226 is the table of RFC 4226, appendix D.
func TestRFC4226(t *testing.T) {
	m := &soft{hash: SHA1, seed: rfc}
	s := Begin(0)
	for i, code := range []string{"755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"} {
		s = mustCheck(t, exact(), m, byTurn, s, code, noon, Accepted)
		if s.Next != uint64(i)+1 {
			t.Fatalf("next is %d after counter %d", s.Next, i)
		}
		mustCheck(t, exact(), m, byTurn, s, code, noon, Repeated)
	}
}

// TestRFC6238 is the table of RFC 6238, appendix B, with the seeds of its program.
func TestRFC6238(t *testing.T) {
	seeds := map[Hash][]byte{SHA1: rfc, SHA256: []byte("12345678901234567890123456789012"),
		SHA512: []byte("1234567890123456789012345678901234567890123456789012345678901234")}
	for at, codes := range map[int64][3]string{
		59:          {"94287082", "46119246", "90693936"},
		1111111109:  {"07081804", "68084774", "25091201"},
		1111111111:  {"14050471", "67062674", "99943326"},
		1234567890:  {"89005924", "91819424", "93441116"},
		2000000000:  {"69279037", "90698825", "38618901"},
		20000000000: {"65353130", "77737706", "47863826"},
	} {
		for i, code := range codes {
			h := Hash(i + 1)
			p := Parameters{Kind: Time, Hash: h, Digits: 8, Period: 30 * time.Second}
			s := mustCheck(t, exact(), &soft{hash: h, seed: seeds[h]}, p, Begin(0), code, time.Unix(at, 0), Accepted)
			if s.Next != uint64(at)/30+1 {
				t.Errorf("%v at %d: next is %d", h, at, s.Next)
			}
		}
	}
}

// TestOathtool compares 10 000 codes of random devices with another implementation.
// One call of it gives 20 codes of one device.
func TestOathtool(t *testing.T) {
	tool, err := exec.LookPath("oathtool")
	if err != nil {
		t.Fatal("oathtool is missing: install the Debian package oathtool")
	}
	const devices, each = 500, 20
	random := rand.New(rand.NewPCG(4226, 6238))
	for range devices {
		p := Parameters{Kind: Kind(1 + random.IntN(2)), Hash: SHA1, Digits: 6 + random.IntN(3)}
		seed := make([]byte, 10+random.IntN(70))
		for i := range seed {
			seed[i] = byte(random.Uint32())
		}
		args := []string{"--digits=" + strconv.Itoa(p.Digits), "--window=" + strconv.Itoa(each-1)}
		now := time.Unix(1+random.Int64N(1<<33), 0)
		first := random.Uint64N(1 << 40)
		if p.Kind == Time {
			p.Hash, p.Period = Hash(1+random.IntN(3)), time.Duration(1+random.IntN(2))*30*time.Second
			args = append(args, "--totp="+p.Hash.String(), "--now=@"+strconv.FormatInt(now.Unix(), 10), "--time-step-size="+p.Period.String())
		} else {
			args = append(args, "--hotp", "--counter="+strconv.FormatUint(first, 10))
		}
		cmd := exec.CommandContext(t.Context(), tool, append(args, "-")...)
		cmd.Stdin = strings.NewReader(hex.EncodeToString(seed) + "\n")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
		codes := strings.Fields(string(out))
		if len(codes) != each {
			t.Fatalf("%d codes, want %d: %s", len(codes), each, out)
		}
		m := &soft{hash: p.Hash, seed: seed}
		for i, code := range codes {
			s := Begin(first + uint64(i))
			if p.Kind == Time {
				s = Begin(0)
			}
			mustCheck(t, exact(), m, p, s, code, now.Add(time.Duration(i)*p.Period), Accepted)
		}
	}
}

func TestLookAhead(t *testing.T) {
	m := &soft{hash: SHA1, seed: rfc}
	r := NewRules()
	s := Begin(100)
	mustCheck(t, r, m, byTurn, s, m.code(t, 98, 6), noon, Wrong)
	mustCheck(t, r, m, byTurn, s, m.code(t, 110, 6), noon, Wrong)
	s = mustCheck(t, r, m, byTurn, s, m.code(t, 109, 6), noon, Accepted)
	if s != (State{Version: 2, Next: 110}) {
		t.Errorf("%+v", s)
	}
	for c := uint64(100); c < 109; c++ {
		mustCheck(t, r, m, byTurn, s, m.code(t, c, 6), noon, Wrong)
	}
}

func TestDrift(t *testing.T) {
	m := &soft{hash: SHA1, seed: rfc}
	r := NewRules()
	s := Begin(0)
	now := noon
	// A clock that gains a step a week is followed.
	for week := range int64(30) {
		step := uint64(now.Unix()/30 + week)
		if week <= int64(r.MaxDrift)+1 {
			s = mustCheck(t, r, m, byTime, s, m.code(t, step, 6), now, Accepted)
			if s.Drift != int(week) {
				t.Fatalf("drift %d in week %d", s.Drift, week)
			}
		} else {
			mustCheck(t, r, m, byTime, s, m.code(t, step, 6), now, Wrong)
		}
		now = now.Add(7 * 24 * time.Hour)
	}
	step := uint64(noon.Unix() / 30)
	for d := -3; d <= 3; d++ {
		want := Wrong
		if d >= -1 && d <= 1 {
			want = Accepted
		}
		mustCheck(t, r, m, byTime, Begin(0), m.code(t, step+uint64(int64(d)), 6), noon, want)
	}
	// The earlier step of the same window is void once the later one was accepted.
	s = mustCheck(t, r, m, byTime, Begin(0), m.code(t, step+1, 6), noon, Accepted)
	mustCheck(t, r, m, byTime, s, m.code(t, step, 6), noon, Wrong)
	mustCheck(t, r, m, byTime, s, m.code(t, step+1, 6), noon.Add(30*time.Second), Repeated)
}

func TestRealign(t *testing.T) {
	m := &soft{hash: SHA1, seed: rfc}
	r := NewRules()
	step := uint64(noon.Unix() / 30)
	pair := func(p Parameters, s State, a, b uint64, want Verdict) State {
		t.Helper()
		v, after, err := r.Realign(t.Context(), m, p, s, m.code(t, a, 6), m.code(t, b, 6), noon)
		if err != nil || v != want {
			t.Fatalf("%d, %d: %v %v, want %v", a, b, v, err, want)
		}
		return after
	}
	if s := pair(byTurn, Begin(5), 105, 106, Accepted); s != (State{Version: 2, Next: 107}) {
		t.Errorf("%+v", s)
	}
	pair(byTurn, Begin(5), 5, 6, Accepted)
	pair(byTurn, Begin(5), 106, 107, Wrong)
	pair(byTurn, Begin(5), 4, 5, Wrong)
	pair(byTurn, Begin(5), 50, 52, Wrong)
	pair(byTurn, Begin(5), 51, 50, Wrong)
	if s := pair(byTime, Begin(0), step-20, step-19, Accepted); s != (State{Version: 2, Next: step - 18, Drift: -19}) {
		t.Errorf("%+v", s)
	}
	pair(byTime, Begin(0), step+19, step+20, Accepted)
	pair(byTime, Begin(0), step-21, step-20, Wrong)
	pair(byTime, State{Next: step + 1}, step, step+1, Wrong)
	if s := pair(byTime, State{Version: 7, Failures: 9}, step-21, step-20, Blocked); s != (State{Version: 8, Failures: 10, Blocked: true}) {
		t.Errorf("%+v", s)
	}
	pair(byTime, State{Blocked: true}, step, step+1, Blocked)
}

func TestLimits(t *testing.T) {
	m := &soft{hash: SHA1, seed: rfc}
	r := NewRules()
	s := Begin(0)
	wrong := m.code(t, 1000, 6)
	for i := range 9 {
		s = mustCheck(t, r, m, byTurn, s, wrong, noon, Wrong)
		if s.Failures != i+1 {
			t.Fatalf("%+v", s)
		}
	}
	right := mustCheck(t, r, m, byTurn, s, m.code(t, 0, 6), noon, Accepted)
	if right.Failures != 0 {
		t.Errorf("failures survive a right code: %+v", right)
	}
	s = mustCheck(t, r, m, byTurn, s, wrong, noon, Blocked)
	calls := m.calls.Load()
	if after := mustCheck(t, r, m, byTurn, s, m.code(t, 0, 6), noon, Blocked); after != s {
		t.Errorf("a blocked state changed: %+v", after)
	}
	if m.calls.Load() != calls {
		t.Error("the MAC was asked for a blocked device")
	}
	s, err := Unblock(s)
	if err != nil || s.Failures != 0 || s.Blocked {
		t.Fatalf("%+v %v", s, err)
	}
	if _, err := Unblock(s); !fault.Is(err, fault.Conflict) {
		t.Errorf("unblocked twice: %v", err)
	}
	mustCheck(t, r, m, byTurn, s, m.code(t, 0, 6), noon, Accepted)

	a := r.Challenge()
	for range 3 {
		if a, err = a.Take(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err = a.Take(); !fault.Is(err, fault.Exhausted) {
		t.Errorf("fourth attempt: %v", err)
	}
}

// TestCount: codes that were pushed are counted with the counter's own.
func TestCount(t *testing.T) {
	r := NewRules()
	s := Begin(7)
	if r.Count(s, true) != s {
		t.Error("a right code without failures before it changed the state")
	}
	for range 9 {
		s = r.Count(s, false)
	}
	if right := r.Count(s, true); right != (State{Version: s.Version + 1, Next: 7}) || s.Blocked {
		t.Errorf("%+v after %+v", right, s)
	}
	s = r.Count(s, false)
	if !s.Blocked || s.Failures != 10 || r.Count(s, true) != s || r.Count(s, false) != s {
		t.Errorf("%+v", s)
	}
}

// TestNothingTellsThePlace: the number of candidates asked for does not depend on
// the code, on where it fits or on the state.
func TestNothingTellsThePlace(t *testing.T) {
	r := NewRules()
	for _, p := range []Parameters{byTurn, byTime} {
		m := &soft{hash: SHA1, seed: rfc}
		want := int64(r.Ahead + 2)
		base := uint64(7)
		if p.Kind == Time {
			want, base = int64(2*r.Steps+2), uint64(noon.Unix()/30)
		}
		for c := base - 3; c < base+12; c++ {
			code := m.code(t, c, 6)
			for _, next := range []uint64{0, base, base + 1} {
				before := m.calls.Load()
				if _, _, err := r.Check(t.Context(), m, p, Begin(next), code, noon); err != nil {
					t.Fatal(err)
				}
				if m.calls.Load() != before+1 || m.asked.Load() != want {
					t.Fatalf("%d calls for %d counters", m.calls.Load()-before, m.asked.Load())
				}
			}
		}
	}
}

// TestSameCodeTwice: two counters of the window have the same code; the code still
// opens once.
func TestSameCodeTwice(t *testing.T) {
	m := &twins{}
	r := NewRules()
	s := mustCheck(t, r, m, byTurn, Begin(10), "000042", noon, Accepted)
	if s.Next != 13 {
		t.Fatalf("%+v: not the earlier of 12 and 15", s)
	}
	mustCheck(t, r, m, byTurn, s, "000042", noon, Repeated)
}

// twins has the code 42 at the counters 12 and 15, else a code outside six digits' small numbers.
type twins struct{}

func (*twins) Match(_ context.Context, counters []uint64, digits int, code string) (out []int, _ error) {
	for i, c := range counters {
		shown := 500_000 + c
		if c == 12 || c == 15 {
			shown = 42
		}
		if fmt.Sprintf("%0*d", digits, shown) == code {
			out = append(out, i)
		}
	}
	return out, nil
}

func TestRefusals(t *testing.T) {
	m := &soft{hash: SHA1, seed: rfc}
	r := NewRules()
	for _, code := range []string{"", "12345", "1234567", "12345a", " 12345", "١٢٣", "-12345", "+12345", "12345\n"} {
		if _, after, err := r.Check(t.Context(), m, byTurn, Begin(1), code, noon); !fault.Is(err, fault.Invalid) || after != Begin(1) {
			t.Errorf("%q: %v %+v", code, err, after)
		}
		if _, _, err := r.Realign(t.Context(), m, byTurn, Begin(1), "123456", code, noon); !fault.Is(err, fault.Invalid) {
			t.Errorf("second %q: %v", code, err)
		}
	}
	for name, c := range map[string]struct {
		m    Matcher
		r    Rules
		p    Parameters
		s    State
		now  time.Time
		kind fault.Kind
	}{
		"HSM down":        {&soft{err: fault.New(fault.Unavailable, "x", nil)}, r, byTurn, State{}, noon, fault.Unavailable},
		"HSM refuses":     {&soft{err: fault.New(fault.Denied, "x", nil)}, r, byTurn, State{}, noon, fault.Internal},
		"cancelled":       {&soft{err: context.Canceled}, r, byTurn, State{}, noon, fault.Retry},
		"unknown":         {&soft{err: errors.New("x")}, r, byTurn, State{}, noon, fault.Internal},
		"index below":     {&soft{bad: []int{-1}}, r, byTurn, State{}, noon, fault.Fatal},
		"index above":     {&soft{bad: []int{r.Ahead + 2}}, r, byTurn, State{}, noon, fault.Fatal},
		"index twice":     {&soft{bad: []int{1, 1}}, r, byTurn, State{}, noon, fault.Fatal},
		"falling indices": {&soft{bad: []int{2, 1}}, r, byTurn, State{}, noon, fault.Fatal},
		"before 1970":     {m, r, byTime, State{}, time.Unix(-1, 0), fault.Internal},
		"in 1970":         {m, r, byTime, State{}, time.Unix(1, 0), fault.Internal},
		"counter":         {m, r, byTurn, State{Next: 1 << 63}, noon, fault.Internal},
		"five digits":     {m, r, Parameters{Kind: Event, Hash: SHA1, Digits: 5}, State{}, noon, fault.Invalid},
		"nine digits":     {m, r, Parameters{Kind: Event, Hash: SHA1, Digits: 9}, State{}, noon, fault.Invalid},
		"no kind":         {m, r, Parameters{Hash: SHA1, Digits: 6}, State{}, noon, fault.Invalid},
		"no hash":         {m, r, Parameters{Kind: Event, Digits: 6}, State{}, noon, fault.Invalid},
		"event, period":   {m, r, Parameters{Kind: Event, Hash: SHA1, Digits: 6, Period: time.Minute}, State{}, noon, fault.Invalid},
		"time, period":    {m, r, Parameters{Kind: Time, Hash: SHA1, Digits: 6, Period: 45 * time.Second}, State{}, noon, fault.Invalid},
		"zero rules":      {m, Rules{}, byTurn, State{}, noon, fault.Invalid},
		"look-ahead":      {m, Rules{Ahead: 51, Resync: 100, PerChallenge: 1, InARow: 1}, byTurn, State{}, noon, fault.Invalid},
		"narrow resync":   {m, Rules{Ahead: 5, Resync: 4, PerChallenge: 1, InARow: 1}, byTurn, State{}, noon, fault.Invalid},
		"row below tries": {m, Rules{PerChallenge: 3, InARow: 2}, byTurn, State{}, noon, fault.Invalid},
	} {
		code := "123456"
		v, after, err := c.r.Check(t.Context(), c.m, c.p, c.s, code, c.now)
		if !fault.Is(err, c.kind) || v != Wrong || after != c.s {
			t.Errorf("%s: %v %+v %v, want %v", name, v, after, err, c.kind)
		}
	}
}

// TestEachOnce submits the codes of random counters in random order at random
// times: no counter is accepted twice, none below an accepted one, and the state
// only moves forward.
func TestEachOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Parameters{Kind: rapid.SampledFrom([]Kind{Event, Time}).Draw(t, "kind"), Hash: rapid.SampledFrom([]Hash{SHA1, SHA256, SHA512}).Draw(t, "hash"),
			Digits: rapid.IntRange(6, 8).Draw(t, "digits")}
		r := Rules{Ahead: rapid.IntRange(0, 12).Draw(t, "ahead"), Resync: 40, Steps: rapid.IntRange(0, 3).Draw(t, "steps"), MaxDrift: 10, PerChallenge: 3, InARow: 100}
		base := uint64(0)
		if p.Kind == Time {
			p.Period = 30 * time.Second
			base = uint64(noon.Unix() / 30)
		}
		m := &soft{hash: p.Hash, seed: rapid.SliceOfN(rapid.Byte(), 1, 80).Draw(t, "seed")}
		s := Begin(0)
		accepted := map[uint64]bool{}
		highest := uint64(0)
		for range rapid.IntRange(1, 40).Draw(t, "submissions") {
			c := base + rapid.Uint64Range(0, 30).Draw(t, "counter")
			now := noon.Add(time.Duration(rapid.IntRange(0, 900).Draw(t, "second")) * time.Second)
			var v Verdict
			var after State
			var err error
			double := rapid.IntRange(0, 5).Draw(t, "pair") == 0
			code := codeOf(m, c, p.Digits)
			if double {
				v, after, err = r.Realign(context.Background(), m, p, s, code, codeOf(m, c+1, p.Digits), now)
				c++
			} else {
				v, after, err = r.Check(context.Background(), m, p, s, code, now)
			}
			if err != nil {
				t.Fatal(err)
			}
			if v == Accepted {
				// Another counter may have the same code, so the state says which was taken.
				took := after.Next - 1
				if accepted[took] || len(accepted) > 0 && took <= highest || codeOf(m, took, p.Digits) != codeOf(m, c, p.Digits) {
					t.Fatalf("counter %d accepted after %d", took, highest)
				}
				accepted[took], highest = true, took
			}
			if after.Next < s.Next || after != s && after.Version != s.Version+1 || after.Failures > s.Failures+1 {
				t.Fatalf("%+v after %+v", after, s)
			}
			s = after
		}
	})
}

func codeOf(m *soft, counter uint64, digits int) string {
	mac := hmac.New(map[Hash]func() hash.Hash{SHA1: sha1.New, SHA256: sha256.New, SHA512: sha512.New}[m.hash], m.seed)
	_ = binary.Write(mac, binary.BigEndian, counter)
	sum := mac.Sum(nil)
	v := uint64(binary.BigEndian.Uint32(sum[sum[len(sum)-1]&15:]) & 0x7fffffff) // RFC 4226, 5.3
	text := fmt.Sprintf("%010d", v)
	return text[len(text)-digits:]
}

// cell is the contract of Cell over memory.
type cell struct {
	mu    sync.Mutex
	state State
	swaps int
	err   error
}

func (c *cell) Load(context.Context) (State, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state, c.err
}

func (c *cell) Swap(_ context.Context, before, after State) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.Version != before.Version {
		return fault.New(fault.Conflict, "swap", nil)
	}
	c.state = after
	c.swaps++
	return nil
}

// TestRace submits one right code 1 000 times at once, by look-ahead and by time.
func TestRace(t *testing.T) {
	for name, p := range map[string]Parameters{"event": byTurn, "time": byTime} {
		t.Run(name, func(t *testing.T) {
			m := &soft{hash: SHA1, seed: rfc}
			counter := uint64(4)
			if p.Kind == Time {
				counter = uint64(noon.Unix() / 30)
			}
			code := m.code(t, counter, 6)
			c := &cell{state: Begin(0)}
			count := submit(t, 1000, func(int) (Verdict, error) { return NewRules().Verify(t.Context(), c, m, p, code, noon) })
			if count[Accepted] != 1 || count[Repeated] != 999 || c.swaps != 1 {
				t.Errorf("%v, %d swaps", count, c.swaps)
			}
			if c.state.Next != counter+1 || c.state.Failures != 0 {
				t.Errorf("%+v", c.state)
			}
		})
	}
}

// TestRaceOfGuesses: of 1 000 wrong codes at once ten are looked at.
func TestRaceOfGuesses(t *testing.T) {
	m := &soft{hash: SHA1, seed: rfc}
	c := &cell{state: Begin(0)}
	wrong := m.code(t, 5000, 6)
	count := submit(t, 1000, func(int) (Verdict, error) { return NewRules().Verify(t.Context(), c, m, byTurn, wrong, noon) })
	if count[Wrong] != 9 || count[Blocked] != 991 || c.state.Failures != 10 || !c.state.Blocked || c.swaps != 10 {
		t.Errorf("%v, %+v, %d swaps", count, c.state, c.swaps)
	}
}

func submit(t *testing.T, n int, f func(i int) (Verdict, error)) map[Verdict]int {
	t.Helper()
	var mu sync.Mutex
	count := map[Verdict]int{}
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			v, err := f(i)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			count[v]++
		})
	}
	close(start)
	wg.Wait()
	return count
}

func TestVerifyTrouble(t *testing.T) {
	m := &soft{hash: SHA1, seed: rfc}
	for name, c := range map[string]struct {
		cell Cell
		kind fault.Kind
	}{
		"store down":     {&cell{err: fault.New(fault.Unavailable, "x", nil)}, fault.Unavailable},
		"unknown":        {&cell{err: fault.New(fault.NotFound, "x", nil)}, fault.NotFound},
		"always late":    {late{fault.New(fault.Conflict, "x", nil)}, fault.Busy},
		"swap fails":     {late{fault.New(fault.Exhausted, "x", nil)}, fault.Internal},
		"swap cancelled": {late{context.DeadlineExceeded}, fault.Retry},
	} {
		v, err := NewRules().Verify(t.Context(), c.cell, m, byTurn, m.code(t, 0, 6), noon)
		if !fault.Is(err, c.kind) || v == Accepted {
			t.Errorf("%s: %v %v", name, v, err)
		}
		v, err = NewRules().VerifyPair(t.Context(), c.cell, m, byTurn, m.code(t, 0, 6), m.code(t, 1, 6), noon)
		if !fault.Is(err, c.kind) || v == Accepted {
			t.Errorf("%s, pair: %v %v", name, v, err)
		}
	}
}

// late is a cell whose Swap always fails.
type late struct{ err error }

func (late) Load(context.Context) (State, error)        { return State{}, nil }
func (l late) Swap(context.Context, State, State) error { return l.err }

// TestErrorsHoldNoCode looks for the typed code in every error text.
func TestErrorsHoldNoCode(t *testing.T) {
	for _, m := range []Matcher{&soft{hash: SHA1, seed: rfc, err: errors.New("x")}, &soft{bad: []int{99}}} {
		for _, code := range []string{"731904", "7319041", "73190x"} {
			_, _, err := NewRules().Check(t.Context(), m, byTurn, State{}, code, noon)
			if err == nil || bytes.Contains([]byte(err.Error()), []byte("7319")) {
				t.Errorf("%v", err)
			}
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	m := &soft{hash: SHA1, seed: rfc}
	r := NewRules()
	for b.Loop() {
		if _, _, err := r.Check(b.Context(), m, byTurn, State{}, "123456", noon); err != nil {
			b.Fatal(err)
		}
	}
}
