package modem

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/modem/alarm"
	"custode/modem/budget"
	"custode/modem/modemtest"
	"custode/modem/pdu"
)

// radio is a modem whose answers to messages a test decides.
type radio struct {
	imsi string
	// answer returns what is said after how long; nil answers are silence.
	answer func(to, text string) (time.Duration, []string)

	mu  sync.Mutex
	ref int
	got []string // texts
	at  []time.Time
}

func (r *radio) react() func(*modemtest.Port, string) {
	over := map[string][]string{}
	if r.imsi != "" {
		over["AT+CIMI"] = []string{r.imsi, "OK"}
	}
	polite := modemtest.Polite(over)
	return func(p *modemtest.Port, got string) {
		text, ok := strings.CutSuffix(got, "\x1a")
		if !ok {
			polite(p, got)
			return
		}
		s, err := pdu.DecodeSubmit(text)
		if err != nil {
			p.Say("+CMS ERROR: 304")
			return
		}
		r.mu.Lock()
		r.ref++
		r.got = append(r.got, s.Text)
		r.at = append(r.at, time.Now())
		lines := []string{fmt.Sprintf("+CMGS: %d", r.ref%256), "OK"}
		r.mu.Unlock()
		wait := time.Second
		if r.answer != nil {
			if d, said := r.answer(s.To.Digits, s.Text); said == nil || len(said) > 0 {
				wait = d
				if said != nil {
					lines = said
				}
			} else {
				return // silence
			}
		}
		time.AfterFunc(wait, func() { p.Say(lines...) })
	}
}

func (r *radio) texts() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// after lets a modem take so long.
func after(d time.Duration) func(string, string) (time.Duration, []string) {
	return func(string, string) (time.Duration, []string) { return d, nil }
}

func refusing(code int) func(string, string) (time.Duration, []string) {
	return func(string, string) (time.Duration, []string) {
		return time.Second, []string{fmt.Sprintf("+CMS ERROR: %d", code)}
	}
}

func silence(string, string) (time.Duration, []string) { return 0, []string{} }

// bubble runs a pool on radios in virtual time and lets it become ready.
func bubble(t *testing.T, cfg Config, radios []*radio, do func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var react []func(*modemtest.Port, string)
		for _, m := range radios {
			react = append(react, m.react())
		}
		if cfg.Journal == nil {
			cfg.Journal = newFakeJournal()
		}
		r, _ := scripted(t, cfg, react...)
		time.Sleep(2 * time.Second)
		do(t, r)
		r.stop()
	})
}

// add queues a message of a class.
func (r *rig) add(t testing.TB, c Class, to, text string) Message {
	t.Helper()
	m := message(t, to, text)
	m.Class = c
	r.journal.put(m, Queued)
	r.pool.Wake()
	return m
}

func TestFasterBayIsChosen(t *testing.T) {
	slow, fast := &radio{answer: after(6 * time.Second)}, &radio{answer: after(time.Second)}
	bubble(t, Config{}, []*radio{slow, fast}, func(t *testing.T, r *rig) {
		for i := range 20 {
			m := r.submit(t, phone1, fmt.Sprint(i))
			r.journal.wait(t, m.ID, Sent)
			time.Sleep(10 * time.Second) // both are idle again
		}
		if n := len(slow.texts()); n > 2 {
			t.Errorf("the slow bay got %d of 20 messages", n)
		}
	})
}

// TestLoadIsSpread: of equal bays the one that sent less today is taken.
func TestLoadIsSpread(t *testing.T) {
	a, b := &radio{}, &radio{}
	bubble(t, Config{}, []*radio{a, b}, func(t *testing.T, r *rig) {
		for i := range 20 {
			r.journal.wait(t, r.submit(t, phone1, fmt.Sprint(i)).ID, Sent)
		}
		if n, m := len(a.texts()), len(b.texts()); n < 8 || m < 8 {
			t.Errorf("%d and %d", n, m)
		}
	})
}

// TestBadNumbersDelayNobody: ten bad numbers among ten good ones on one modem. A
// good one waits for the first tries before it, and for nothing else.
func TestBadNumbersDelayNobody(t *testing.T) {
	for _, code := range []int{38, 27, 1, 21} {
		const service = 3 * time.Second
		one := &radio{answer: func(to, _ string) (time.Duration, []string) {
			if strings.HasPrefix(to, "39340111") {
				return service, []string{fmt.Sprintf("+CMS ERROR: %d", code)}
			}
			return service, nil
		}}
		bubble(t, Config{}, []*radio{one}, func(t *testing.T, r *rig) {
			began := time.Now()
			var good []Message
			for i := range 10 {
				for n, to := range []string{"+3934011100%02d", "+3934022200%02d"} {
					m := message(t, fmt.Sprintf(to, i), "testo")
					m.Expires = m.Expires.Add(time.Duration(2*i+n) * time.Millisecond) // their order
					r.journal.put(m, Queued)
					if n == 1 {
						good = append(good, m)
					}
				}
			}
			r.pool.Wake()
			for i, m := range good {
				r.journal.waitFor(t, 10*time.Minute, m.ID, Sent)
				if took, most := time.Since(began), time.Duration(2*i+2)*service+2*time.Second; took > most {
					t.Errorf("code %d: good message %d was sent after %v, want %v", code, i, took, most)
				}
			}
		})
	}
}

// TestHedgeTakesAnotherOperator: the second copy leaves through another network
// although a bay of the same one is idle and faster.
func TestHedgeTakesAnotherOperator(t *testing.T) {
	tim := &radio{imsi: "222010000000001", answer: silence}
	sister := &radio{imsi: "222010000000002", answer: silence}
	wind := &radio{imsi: "222880000000003", answer: after(5 * time.Second)}
	bubble(t, Config{}, []*radio{tim, sister, wind}, func(t *testing.T, r *rig) {
		// The first copy may take any bay; when it took wind, there is no second.
		for range 3 {
			m := r.submit(t, phone1, "codice")
			time.Sleep(5 * time.Minute)
			if s := r.journal.state(m.ID); s != Sent {
				t.Errorf("state %v, history %v", s, r.journal.states(m.ID))
			}
		}
		if n := len(tim.texts()) + len(sister.texts()); n > 3 || n == 0 {
			t.Errorf("the silent network got %d copies of 3 messages", n)
		}
	})
}

// TestHedgeComesSoonerOnAFastBay: after a hundred samples a bay's own p99 decides.
func TestHedgeComesSoonerOnAFastBay(t *testing.T) {
	var mu sync.Mutex
	mute := false
	a := &radio{answer: func(_, text string) (time.Duration, []string) {
		mu.Lock()
		defer mu.Unlock()
		if mute {
			return silence("", "")
		}
		return time.Second, nil
	}}
	b := &radio{answer: after(20 * time.Second)}
	bubble(t, Config{}, []*radio{a, b}, func(t *testing.T, r *rig) {
		for i := range 110 {
			r.journal.wait(t, r.submit(t, phone1, fmt.Sprint(i)).ID, Sent)
			time.Sleep(time.Second)
		}
		time.Sleep(time.Minute)
		mu.Lock()
		mute = true
		mu.Unlock()
		before := len(b.texts())
		m := r.submit(t, phone1, "lento")
		r.journal.wait(t, m.ID, Sending)
		time.Sleep(3900 * time.Millisecond)
		if len(b.texts()) != before {
			t.Error("hedged before a third of the longest wait")
		}
		time.Sleep(time.Second)
		if len(b.texts()) != before+1 {
			t.Errorf("%d copies on the other bay after 5 s, history %v", len(b.texts())-before, r.journal.states(m.ID))
		}
	})
}

// TestBreakerTriesNoCode: a bay whose network fails is probed without messages, and
// then gets others' messages before it gets a code.
func TestBreakerTriesNoCode(t *testing.T) {
	sick := &radio{imsi: "222010000000001", answer: refusing(42)}
	well := &radio{imsi: "222880000000001"}
	bubble(t, Config{}, []*radio{sick, well}, func(t *testing.T, r *rig) {
		for i := range 60 {
			r.journal.wait(t, r.submit(t, phone1, fmt.Sprintf("codice %d", i)).ID, Sent)
			time.Sleep(5 * time.Second)
		}
		if n := len(sick.texts()); n > 1 {
			t.Errorf("the failing bay got %d codes while another one served: %v", n, sick.texts())
		}
		o := r.pool.Overview()
		if o.Bays[0].Breaker != "trial" || o.Bays[1].Breaker != "closed" {
			t.Errorf("breakers %s and %s", o.Bays[0].Breaker, o.Bays[1].Breaker)
		}
		// An alert is what it is tried with; it comes back and leaves elsewhere.
		m := r.add(t, Alert, phone2, "avviso")
		busy := r.submit(t, phone1, "insieme")
		r.journal.wait(t, m.ID, Sent)
		r.journal.wait(t, busy.ID, Sent)
	})
}

// TestBreakerAlone: the only bay is probed at once, and its messages do not wait
// for the growing pauses.
func TestBreakerAlone(t *testing.T) {
	left := 5
	one := &radio{answer: func(string, string) (time.Duration, []string) {
		if left--; left >= 0 {
			return time.Second, []string{"+CMS ERROR: 42"}
		}
		return time.Second, nil
	}}
	bubble(t, Config{MaxAttempts: 10}, []*radio{one}, func(t *testing.T, r *rig) {
		began := time.Now()
		r.journal.waitFor(t, 4*time.Minute, r.submit(t, phone1, "uno").ID, Sent)
		// Its own pauses are 2, 4, 8, 16 and 32 s.
		if took := time.Since(began); took > 75*time.Second {
			t.Errorf("sent after %v", took)
		}
	})
}

// TestTwoOperatorsMarkANumber: what two networks refuse fails at once, and the next
// message to it has one try.
func TestTwoOperatorsMarkANumber(t *testing.T) {
	a := &radio{imsi: "222010000000001", answer: refusing(27)}
	b := &radio{imsi: "222880000000001", answer: refusing(27)}
	bubble(t, Config{MaxAttempts: 20}, []*radio{a, b}, func(t *testing.T, r *rig) {
		r.journal.wait(t, r.submit(t, phone1, "uno").ID, Failed)
		if n := len(a.texts()) + len(b.texts()); n != 2 {
			t.Errorf("%d tries, want one on each network", n)
		}
		r.journal.wait(t, r.submit(t, phone1, "due").ID, Failed)
		if n := len(a.texts()) + len(b.texts()); n != 3 {
			t.Errorf("%d tries after the second message", n)
		}
	})
}

// fakeAccounts remembers in memory.
type fakeAccounts struct {
	mu       sync.Mutex
	spent    map[string][]time.Time
	accepted map[string]int
	out      map[string]bool
	kept     []Received
	err      error
}

func (f *fakeAccounts) Spent(_ context.Context, card string, since time.Time) (all, bulk int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, at := range f.spent[card] {
		if !at.Before(since) {
			all++
		}
	}
	return all, 0, f.err
}

func (f *fakeAccounts) Accepted(_ context.Context, number string, _ bool, _ time.Time) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.accepted[number], f.err
}

func (f *fakeAccounts) OptedOut(_ context.Context, to id.Phone) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.out[to.String()], f.err
}

func (f *fakeAccounts) OptOut(_ context.Context, number string, out bool, _ time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.out[number] = out
	return f.err
}

func (f *fakeAccounts) Receive(_ context.Context, m Received) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kept = append(f.kept, m)
	return true, f.err
}

func (f *fakeAccounts) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// TestBudgetPaces: a burst, then the sustained rate; over a restart the purse is
// what the accounts say.
func TestBudgetPaces(t *testing.T) {
	const card = "222010000000001"
	one := &radio{imsi: card, answer: after(100 * time.Millisecond)}
	accounts := &fakeAccounts{spent: map[string][]time.Time{}}
	limits := budget.Limits{Burst: 3, PerMinute: 10, PerDay: 6, PerMonth: -1}
	bubble(t, Config{Budget: limits, Accounts: accounts}, []*radio{one}, func(t *testing.T, r *rig) {
		began := time.Now()
		var all []Message
		for i := range 8 {
			m := message(t, phone1, fmt.Sprint(i))
			m.Expires = m.Created.Add(40 * time.Hour)
			r.journal.put(m, Queued)
			all = append(all, m)
		}
		r.pool.Wake()
		time.Sleep(5 * time.Second)
		if n := len(one.texts()); n != 3 {
			t.Errorf("%d left in a burst of 3", n)
		}
		time.Sleep(time.Minute)
		if n := len(one.texts()); n != 6 {
			t.Errorf("%d left on a day of 6", n)
		}
		alarms := r.pool.Overview().Alarms
		if !slices.ContainsFunc(alarms, func(a alarm.Alarm) bool { return a.Name == alarm.BudgetSpent }) {
			t.Errorf("no alarm: %v", alarms)
		}
		one.mu.Lock()
		for i, at := range one.at[3:] {
			if d := at.Sub(began); d < time.Duration(i+1)*6*time.Second-time.Second {
				t.Errorf("message %d after %v", i+3, d)
			}
		}
		accounts.spent[card] = slices.Clone(one.at)
		one.mu.Unlock()
		time.Sleep(24 * time.Hour) // virtual midnight: the next day has room
		for i, m := range all {
			if s := r.journal.state(m.ID); s != Sent {
				t.Errorf("message %d is %v", i, s)
			}
		}
	})
	// The same card in a new process on the same day (the bubble's clock starts
	// again): the day is spent.
	bubble(t, Config{Budget: limits, Accounts: accounts}, []*radio{one}, func(t *testing.T, r *rig) {
		before := len(one.texts())
		r.submit(t, phone1, "dopo")
		time.Sleep(time.Minute)
		if n := len(one.texts()); n != before {
			t.Error("a restart filled the purse")
		}
	})
}

// TestNoPurseNoMessage: without the card's count nothing leaves; the count is asked
// for again.
func TestNoPurseNoMessage(t *testing.T) {
	one := &radio{}
	accounts := &fakeAccounts{}
	accounts.fail(fault.Newf(fault.Unavailable, "count", "disk"))
	bubble(t, Config{Accounts: accounts}, []*radio{one}, func(t *testing.T, r *rig) {
		m := r.submit(t, phone1, "uno")
		time.Sleep(20 * time.Second)
		if n := len(one.texts()); n != 0 {
			t.Errorf("%d left", n)
		}
		accounts.fail(nil)
		time.Sleep(10 * time.Second)
		if s := r.journal.state(m.ID); s != Sent {
			t.Errorf("state %v", s)
		}
	})
}

func TestOptedOutGetsNoBulk(t *testing.T) {
	one := &radio{}
	accounts := &fakeAccounts{out: map[string]bool{phone1: true}}
	bubble(t, Config{Accounts: accounts}, []*radio{one}, func(t *testing.T, r *rig) {
		bulk, code := r.add(t, Bulk, phone1, "pubblicità"), r.add(t, OneTime, phone1, "codice")
		r.journal.wait(t, bulk.ID, Failed)
		r.journal.wait(t, code.ID, Sent)
		if d := cmp.Diff([]string{"codice"}, one.texts()); d != "" {
			t.Error(d)
		}
	})
}

func TestDrainAndOnlyBay(t *testing.T) {
	a, b := &radio{}, &radio{}
	bubble(t, Config{}, []*radio{a, b}, func(t *testing.T, r *rig) {
		if err := r.pool.Drain("bay0", true); err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			r.journal.wait(t, r.submit(t, phone1, fmt.Sprint(i)).ID, Sent)
		}
		if len(a.texts()) != 0 || len(b.texts()) != 5 {
			t.Errorf("%d and %d", len(a.texts()), len(b.texts()))
		}
		k := message(t, phone1, "prova")
		m, err := r.pool.NewTest("bay0", k.ID, k.To)
		if err != nil {
			t.Fatal(err)
		}
		m.Wrapped = k.Wrapped
		r.journal.put(m, Queued)
		r.pool.Wake()
		time.Sleep(10 * time.Second)
		if s := r.journal.state(m.ID); s != Queued {
			t.Errorf("a test for a drained bay is %v", s)
		}
		if err := r.pool.Drain("bay0", false); err != nil {
			t.Fatal(err)
		}
		r.journal.wait(t, m.ID, Sent)
		if d := cmp.Diff([]string{"prova"}, a.texts()); d != "" {
			t.Error(d)
		}
		if err := r.pool.Drain("bay9", true); !fault.Is(err, fault.NotFound) {
			t.Error(err)
		}
	})
}

func TestAdmit(t *testing.T) {
	const life = 5 * time.Minute
	to := message(t, phone1, "").To
	admit := func(t *testing.T, r *rig, what string, want fault.Kind) {
		t.Helper()
		_, err := r.pool.Admit(t.Context(), to, life)
		if (want == fault.Internal) != (err == nil) || err != nil && !fault.Is(err, want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	const fine = fault.Internal
	accounts := &fakeAccounts{accepted: map[string]int{}}
	cfg := Config{Accounts: accounts, Caps: Caps{Prefixes: []PrefixCap{{"+3934", 20}, {"+44", 0}}}}
	one := &radio{answer: after(10 * time.Second)}
	bubble(t, cfg, []*radio{one}, func(t *testing.T, r *rig) {
		admit(t, r, "at rest", fine)
		accounts.accepted[phone1] = 3
		admit(t, r, "the number's fourth", fault.Exhausted)
		accounts.accepted[phone1] = 2
		accounts.accepted["+3934"] = 20
		admit(t, r, "the range's 21st", fault.Exhausted)
		accounts.accepted["+3934"] = 0
		accounts.fail(fault.Newf(fault.Unavailable, "count", "disk"))
		admit(t, r, "uncounted", fault.Unavailable)
		accounts.fail(nil)
		for i := range 60 {
			r.submit(t, fmt.Sprintf("+393400000%03d", i), "coda")
		}
		time.Sleep(time.Second)
		admit(t, r, "behind sixty", fault.Busy)
	})
	gone := &radio{}
	bubble(t, Config{Accounts: accounts}, []*radio{gone}, func(t *testing.T, r *rig) {
		if err := r.pool.Drain("bay0", true); err != nil {
			t.Fatal(err)
		}
		admit(t, r, "drained now", fine)
		r.pool.mu.Lock()
		r.pool.dark = time.Now().Add(-3 * time.Minute)
		r.pool.mu.Unlock()
		admit(t, r, "nobody for long", fault.Busy)
	})
}

// TestReserveGrowsWithCodes: bulk waits while codes need the bays.
func TestReserveGrowsWithCodes(t *testing.T) {
	var radios []*radio
	for range 4 {
		radios = append(radios, &radio{answer: after(4 * time.Second)})
	}
	bubble(t, Config{}, radios, func(t *testing.T, r *rig) {
		for i := range 200 {
			m := message(t, phone2, fmt.Sprintf("massa %d", i))
			m.Class, m.Expires = Bulk, m.Created.Add(10*time.Hour)
			r.journal.put(m, Queued)
		}
		r.pool.Wake()
		time.Sleep(time.Minute)
		if o := r.pool.Overview(); o.Reserve != 1 || o.OnTheAir != 3 {
			t.Errorf("without codes: reserve %d, %d on the air", o.Reserve, o.OnTheAir)
		}
		for i := range 66 { // two minutes at 33 a minute
			m := r.submit(t, phone1, fmt.Sprint(i))
			began := time.Now()
			r.journal.wait(t, m.ID, Sending)
			if waited := time.Since(began); i > 36 && waited > 100*time.Millisecond {
				t.Errorf("code %d waited %v", i, waited)
			}
			time.Sleep(time.Minute/33 - time.Since(began))
		}
		if o := r.pool.Overview(); o.Reserve < 2 {
			t.Errorf("with codes: reserve %d, load %.1f", o.Reserve, o.Load)
		}
	})
}

func TestAlarmsRiseAndFall(t *testing.T) {
	one := &radio{}
	bubble(t, Config{}, []*radio{one}, func(t *testing.T, r *rig) {
		raised := func() (out []alarm.Name) {
			for _, a := range r.pool.Overview().Alarms {
				out = append(out, a.Name)
			}
			return out
		}
		if got := raised(); len(got) != 0 {
			t.Errorf("at rest: %v", got)
		}
		if err := r.pool.Drain("bay0", true); err != nil {
			t.Fatal(err)
		}
		desk{r.pool}.Serving("bay0", false)
		time.Sleep(time.Minute)
		if d := cmp.Diff([]alarm.Name{alarm.AllDown}, raised()); d != "" {
			t.Error(d)
		}
		if err := r.pool.Drain("bay0", false); err != nil {
			t.Fatal(err)
		}
		desk{r.pool}.Serving("bay0", true)
		if got := raised(); len(got) != 0 {
			t.Errorf("afterwards: %v", got)
		}
		if n := strings.Count(r.log.String(), "alarm=all-down"); n != 2 {
			t.Errorf("told %d times, want once each way", n)
		}
	})
}

// TestMarksAreBounded: somebody who tries every number fills no memory.
func TestMarksAreBounded(t *testing.T) {
	var m marks
	now := time.Now()
	for i := range 3 * maxMarks {
		to, err := id.ParsePhone(fmt.Sprintf("+39340%07d", i))
		if err != nil {
			t.Fatal(err)
		}
		m.note(to, "22201", now)
	}
	if len(m) > maxMarks {
		t.Errorf("%d marks", len(m))
	}
}

func TestAllowedLoad(t *testing.T) {
	for bays, want := range map[int]float64{0: 0, 1: 0.14, 4: 2.2, 5: 2.75, 16: 12.8, 64: 51.2} {
		if got := allowedLoad(bays); got < want-0.001 || got > want+0.001 {
			t.Errorf("%d bays: %v, want %v", bays, got, want)
		}
	}
}
