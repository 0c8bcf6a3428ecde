package modem

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"custode/internal/fault"
	"custode/modem/at"
	"custode/modem/modemtest"
	"custode/modem/pdu"
)

// scripted runs a pool of scripted modems inside a synctest bubble, with the
// default timing. over[i] changes the answers of modem i.
func scripted(t *testing.T, cfg Config, react ...func(*modemtest.Port, string)) (*rig, func(int) *modemtest.Port) {
	t.Helper()
	var mu sync.Mutex
	ports := make([]*modemtest.Port, len(react))
	byName := map[string]int{}
	for i := range react {
		name := fmt.Sprintf("bay%d", i)
		byName[name] = i
		bay := BayConfig{Name: name, Device: "/dev/" + name}
		if len(cfg.Bays) > i {
			bay.SIMPIN = cfg.Bays[i].SIMPIN
			cfg.Bays[i] = bay
		} else {
			cfg.Bays = append(cfg.Bays, bay)
		}
	}
	cfg.OpenPort = func(b BayConfig) (at.Port, error) {
		i := byName[b.Name]
		mu.Lock()
		defer mu.Unlock()
		ports[i] = modemtest.New(react[i])
		return ports[i], nil
	}
	return start(t, cfg), func(i int) *modemtest.Port {
		mu.Lock()
		defer mu.Unlock()
		return ports[i]
	}
}

// silent answers a payload with silence.
func silent() func(*modemtest.Port, string) {
	return modemtest.Polite(map[string][]string{"PDU": {}})
}

func sentTexts(t *testing.T, p *modemtest.Port) (out []string) {
	t.Helper()
	for _, w := range p.Written() {
		if text, ok := strings.CutSuffix(w, "\x1a"); ok {
			s, err := pdu.DecodeSubmit(text)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, s.Text)
		}
	}
	return out
}

func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newFakeJournal()
		add := func(text string, c Class, life time.Duration) {
			m := message(t, phone1, text)
			m.Class, m.Expires = c, m.Created.Add(life)
			j.put(m, Queued)
		}
		add("bulk", Bulk, time.Minute)
		add("alert", Alert, 2*time.Minute)
		add("late code", OneTime, 4*time.Minute)
		add("code", OneTime, 3*time.Minute)
		r, ports := scripted(t, Config{Journal: j}, modemtest.Polite(nil))
		time.Sleep(3 * time.Second)
		if d := cmp.Diff([]string{"code", "late code", "alert", "bulk"}, sentTexts(t, ports(0))); d != "" {
			t.Error(d)
		}
		r.stop()
	})
}

func TestExpiredIsNeverSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, ports := scripted(t, Config{}, modemtest.Polite(map[string][]string{"AT+CREG?": {"+CREG: 1,2", "OK"}, "AT+CEREG?": {"+CEREG: 0,2", "OK"}}))
		m := r.submit(t, phone1, "tardi")
		time.Sleep(5*time.Minute + time.Second)
		if s := r.journal.state(m.ID); s != Expired {
			t.Errorf("state %v", s)
		}
		ports(0).Say("+CREG: 1")
		time.Sleep(time.Minute)
		if got := sentTexts(t, ports(0)); len(got) != 0 {
			t.Errorf("sent %v", got)
		}
		r.stop()
	})
}

func TestHandoverIsEventDriven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := scripted(t, Config{}, modemtest.Polite(nil))
		time.Sleep(2 * time.Second)
		began := time.Now()
		m := r.submit(t, phone1, "uno")
		r.journal.wait(t, m.ID, Sent)
		if took := time.Since(began); took != 0 {
			t.Errorf("an idle pool slept %v of virtual time", took)
		}
		r.stop()
	})
}

func TestMissedWakeIsPolled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := scripted(t, Config{}, modemtest.Polite(nil))
		time.Sleep(2 * time.Second)
		m := message(t, phone1, "uno")
		r.journal.put(m, Queued)
		time.Sleep(6 * time.Second)
		if s := r.journal.state(m.ID); s != Sent {
			t.Errorf("state %v", s)
		}
		r.stop()
	})
}

// TestHedge: a one-time code without a receipt after 12 s goes out once more elsewhere.
func TestHedge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func() func(*modemtest.Port, string) {
			polite := silent()
			return func(p *modemtest.Port, got string) {
				polite(p, got)
				if strings.HasSuffix(got, "\x1a") {
					time.AfterFunc(30*time.Second, func() { p.Say("+CMGS: 9", "OK") })
				}
			}
		}
		r, ports := scripted(t, Config{}, slow(), slow())
		time.Sleep(2 * time.Second)
		m := r.submit(t, phone1, "uno")
		time.Sleep(20 * time.Second)
		if d := cmp.Diff([]State{Sending, MaybeSent, Sending}, r.journal.states(m.ID)); d != "" {
			t.Error(d)
		}
		time.Sleep(time.Minute)
		if d := cmp.Diff([]State{Sending, MaybeSent, Sending, Sent}, r.journal.states(m.ID)); d != "" {
			t.Error(d)
		}
		if n := len(sentTexts(t, ports(0))) + len(sentTexts(t, ports(1))); n != 2 {
			t.Errorf("%d copies", n)
		}
		r.stop()
	})
}

// TestHedgeBothRefused: doubt ends when both answers are in.
func TestHedgeBothRefused(t *testing.T) {
	for code, want := range map[int]State{1: Failed, 42: Sent} {
		synctest.Test(t, func(t *testing.T) {
			polite, first := modemtest.Polite(nil), true
			slow := func(p *modemtest.Port, got string) {
				if !strings.HasSuffix(got, "\x1a") || !first {
					polite(p, got)
					return
				}
				first = false
				time.AfterFunc(20*time.Second, func() { p.Say(fmt.Sprintf("+CMS ERROR: %d", code)) })
			}
			// Bay 1 comes into service late, so that bay 0 has the first copy.
			refuse := modemtest.Polite(map[string][]string{"PDU": {fmt.Sprintf("+CMS ERROR: %d", code)}})
			began := time.Now()
			r, ports := scripted(t, Config{}, slow, func(p *modemtest.Port, got string) {
				switch since := time.Since(began); {
				case since > 25*time.Second: // both copies are answered; any bay may have the third
					polite(p, got)
				case since > 5*time.Second:
					refuse(p, got)
				}
			})
			time.Sleep(2 * time.Second)
			m := r.submit(t, phone1, "uno")
			r.waitBay(t, 1, isReady)
			time.Sleep(3 * time.Minute)
			if s := r.journal.state(m.ID); s != want {
				t.Errorf("code %d: %v, history %v", code, s, r.journal.states(m.ID))
			}
			if n := len(sentTexts(t, ports(1))); n == 0 {
				t.Error("no second copy")
			}
			r.stop()
		})
	}
}

// TestDoubtIsSentOnceMore: never a third copy, and never for other classes.
func TestDoubtIsSentOnceMore(t *testing.T) {
	for class, copies := range map[Class]int{OneTime: 2, Alert: 1} {
		synctest.Test(t, func(t *testing.T) {
			r, ports := scripted(t, Config{}, silent(), silent(), silent())
			time.Sleep(2 * time.Second)
			m := message(t, phone1, "uno")
			m.Class, m.Expires = class, m.Created.Add(time.Hour)
			r.journal.put(m, Queued)
			r.pool.Wake()
			time.Sleep(30 * time.Minute)
			n := 0
			for i := range 3 {
				n += len(sentTexts(t, ports(i)))
			}
			if n != copies || r.journal.state(m.ID) != MaybeSent {
				t.Errorf("class %d: %d copies, state %v", class, n, r.journal.state(m.ID))
			}
			r.stop()
		})
	}
}

// TestCrash: what a dead process left in "sending" is in doubt; a text that is no
// code is then not sent again, and nothing is forgotten.
func TestCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newFakeJournal()
		doubt, late, waiting := message(t, phone1, "dubbio"), message(t, phone1, "tardi"), message(t, phone1, "in coda")
		late.Expires = late.Created.Add(-time.Second)
		doubt.Class = Alert
		j.put(doubt, Sending)
		j.put(late, Queued)
		j.put(waiting, Queued)
		r, ports := scripted(t, Config{Journal: j}, modemtest.Polite(nil))
		time.Sleep(10 * time.Second)
		if d := cmp.Diff([]string{"in coda"}, sentTexts(t, ports(0))); d != "" {
			t.Error(d)
		}
		if a, b, c := j.state(doubt.ID), j.state(late.ID), j.state(waiting.ID); a != MaybeSent || b != Expired || c != Sent {
			t.Errorf("states %v %v %v", a, b, c)
		}
		r.stop()
	})
}

// TestCrashWithDoubtOffered: a journal may offer what is in doubt; a code is then
// sent once more, other texts are not, and nothing is sent a third time.
func TestCrashWithDoubtOffered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newFakeJournal()
		code, notice := message(t, phone1, "codice"), message(t, phone1, "avviso")
		notice.Class = Alert
		j.put(code, Sending)
		j.put(notice, Sending)
		r, ports := scripted(t, Config{Journal: j}, silent(), silent())
		time.Sleep(10 * time.Minute)
		got := append(sentTexts(t, ports(0)), sentTexts(t, ports(1))...)
		if d := cmp.Diff([]string{"codice"}, got); d != "" {
			t.Error(d)
		}
		if a, b := j.state(code.ID), j.state(notice.ID); a != MaybeSent || b != MaybeSent {
			t.Errorf("states %v %v", a, b)
		}
		r.stop()
	})
}

func TestRecoveryFailureStopsThePool(t *testing.T) {
	pool, err := New(Config{Bays: []BayConfig{{Name: "a", Device: "/dev/a"}}, Journal: brokenJournal{}, Opener: fakeOpener{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := pool.Run(t.Context()); !fault.Is(err, fault.Unavailable) {
		t.Errorf("run: %v", err)
	}
	if err := pool.Run(t.Context()); !fault.Is(err, fault.Conflict) {
		t.Errorf("second run: %v", err)
	}
}

type brokenJournal struct{}

func (brokenJournal) Queued(context.Context, int) ([]Message, error) { return nil, errors.New("no") }
func (brokenJournal) Record(context.Context, Event) error            { return errors.New("no") }
func (brokenJournal) Recover(context.Context, time.Time) ([]Event, error) {
	return nil, fault.New(fault.Unavailable, "recover", nil)
}

func TestUnwrapFailures(t *testing.T) {
	for kind, want := range map[fault.Kind]State{fault.Denied: Failed, fault.Unavailable: Queued} {
		synctest.Test(t, func(t *testing.T) {
			r, ports := scripted(t, Config{Opener: fakeOpener{fault.New(kind, "unwrap", nil)}}, modemtest.Polite(nil))
			m := r.submit(t, phone1, "uno")
			time.Sleep(10 * time.Second)
			if s := r.journal.state(m.ID); s != want || len(sentTexts(t, ports(0))) != 0 {
				t.Errorf("%v: %v", kind, s)
			}
			r.stop()
		})
	}
	synctest.Test(t, func(t *testing.T) {
		r, _ := scripted(t, Config{}, modemtest.Polite(nil))
		long := r.submit(t, phone1, strings.Repeat("x", 161)) // a code must fit one part
		swapped := message(t, phone1, "uno")
		swapped.Wrapped = wrap(long.ID, "uno")
		r.journal.put(swapped, Queued)
		r.pool.Wake()
		time.Sleep(10 * time.Second)
		if a, b := r.journal.state(long.ID), r.journal.state(swapped.ID); a != Failed || b != Failed {
			t.Errorf("states %v %v", a, b)
		}
		r.stop()
	})
}

func TestRefusalsUseUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, ports := scripted(t, Config{}, modemtest.Polite(map[string][]string{"PDU": {"+CMS ERROR: 27"}}))
		m := r.submit(t, phone1, "uno")
		time.Sleep(4 * time.Minute)
		if s, n := r.journal.state(m.ID), len(sentTexts(t, ports(0))); s != Failed || n != 3 {
			t.Errorf("%v after %d attempts", s, n)
		}
		for _, e := range r.journal.events {
			if strings.Contains(e.Detail, "340") {
				t.Errorf("detail %q", e.Detail)
			}
		}
		r.stop()
	})
}

// TestPIN: the card's PIN is offered once, and never again after a refusal,
// however often the port is reopened.
func TestPIN(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(file, []byte("1234\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		over  map[string][]string
		tries int
		state BayState
	}{
		"accepted":  {map[string][]string{}, 1, Ready},
		"refused":   {map[string][]string{`AT+CPIN="1234"`: {"+CME ERROR: 16"}}, 1, NeedsHand},
		"no answer": {map[string][]string{`AT+CPIN="1234"`: {}}, 1, NeedsHand},
		// A card that is busy saw no PIN, says the code; a modem that says so each time may lie.
		"always busy":        {map[string][]string{`AT+CPIN="1234"`: {"+CME ERROR: 14"}}, 2, NeedsHand},
		"busy, tries hidden": {map[string][]string{`AT+CPIN="1234"`: {"+CME ERROR: 14"}, "AT+CPINR": {"ERROR"}}, 1, NeedsHand},
		"one try left":       {map[string][]string{"AT+CPINR": {"+CPINR: SIM PIN,1,3", "OK"}}, 0, NeedsHand},
		"PUK":                {map[string][]string{"AT+CPIN?": {"+CPIN: SIM PUK", "OK"}}, 0, NeedsHand},
		"no card":            {map[string][]string{"AT+CPIN?": {"+CME ERROR: 10"}}, 0, NeedsHand},
		"already ready":      {map[string][]string{"AT+CPIN?": {"+CPIN: READY", "OK"}}, 0, Ready},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if c.over["AT+CPIN?"] == nil {
					c.over["AT+CPIN?"] = []string{"+CPIN: SIM PIN", "OK"}
				}
				polite, tries := modemtest.Polite(c.over), 0
				r, _ := scripted(t, Config{Bays: []BayConfig{{SIMPIN: file}}}, func(p *modemtest.Port, got string) {
					if strings.HasPrefix(got, "AT+CPIN=") {
						tries++
					}
					polite(p, got)
				})
				time.Sleep(10 * time.Minute)
				if s := r.pool.Bays()[0].State; tries != c.tries || s != c.state {
					t.Errorf("%d tries, bay %v (%s)", tries, s, r.pool.Bays()[0].LastError)
				}
				r.stop()
				if strings.Contains(r.log.String(), "1234") {
					t.Error("the PIN is in the log")
				}
			})
		})
	}
}

// TestMissingPortDisturbsNobody: one bay has no device, the other works.
func TestMissingPortDisturbsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opens := 0
		cfg := Config{Bays: []BayConfig{{Name: "gone", Device: "/dev/gone"}, {Name: "here", Device: "/dev/here"}}}
		cfg.OpenPort = func(b BayConfig) (at.Port, error) {
			if b.Name == "gone" {
				opens++
				return nil, fault.New(fault.Unavailable, "open", os.ErrNotExist)
			}
			return modemtest.New(modemtest.Polite(nil)), nil
		}
		r := start(t, cfg)
		time.Sleep(10 * time.Minute)
		m := r.submit(t, phone1, "uno")
		r.journal.wait(t, m.ID, Sent)
		if opens < 15 || opens > 40 {
			t.Errorf("%d attempts to open in ten minutes", opens)
		}
		r.stop()
	})
}

func TestBulkLeavesAReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func() func(*modemtest.Port, string) {
			polite := silent()
			return func(p *modemtest.Port, got string) {
				polite(p, got)
				if strings.HasSuffix(got, "\x1a") {
					time.AfterFunc(5*time.Second, func() { p.Say("+CMGS: 9", "OK") })
				}
			}
		}
		r, _ := scripted(t, Config{}, slow(), slow())
		time.Sleep(2 * time.Second)
		for range 10 {
			m := message(t, phone2, "pubblicità")
			m.Class, m.Expires = Bulk, m.Created.Add(time.Hour)
			r.journal.put(m, Queued)
		}
		r.pool.Wake()
		time.Sleep(7 * time.Second)
		began := time.Now()
		m := r.submit(t, phone1, "codice")
		r.journal.wait(t, m.ID, Sending)
		if waited := time.Since(began); waited > 0 {
			t.Errorf("a code waited %v behind bulk", waited)
		}
		r.stop()
	})
}

func TestConfigRefusals(t *testing.T) {
	good := Config{Bays: []BayConfig{{Name: "a", Device: "/dev/a"}}, Journal: newFakeJournal(), Opener: fakeOpener{}, Log: slog.New(slog.DiscardHandler)}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Config){
		"no journal": func(c *Config) { c.Journal = nil }, "no bay": func(c *Config) { c.Bays = nil },
		"no device": func(c *Config) { c.Bays = []BayConfig{{Name: "a"}} },
		"twice":     func(c *Config) { c.Bays = []BayConfig{{Name: "a", Device: "/x"}, {Name: "b", Device: "/x"}} },
	} {
		c := good
		spoil(&c)
		if _, err := New(c); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestStates(t *testing.T) {
	for _, c := range []struct {
		from, to State
		ok       bool
	}{
		{Queued, Sending, true}, {Sending, Queued, true}, {Sent, Queued, false}, {Sent, Delivered, true}, {Sent, Sending, false},
		{MaybeSent, Queued, false}, {MaybeSent, Sending, true}, {MaybeSent, Sent, true}, {Delivered, Sent, false}, {Expired, Sending, false},
		{Cancelled, Sending, false}, {Cancelled, Queued, false}, {Cancelled, Sent, true}, {Cancelled, Delivered, true},
	} {
		if allowed(c.from, c.to) != c.ok {
			t.Errorf("%v to %v", c.from, c.to)
		}
	}
	if Cancelled.String() != "cancelled" || State(len(stateNames)).String() != "unknown" {
		t.Errorf("names: %v, %v", Cancelled, State(len(stateNames)))
	}
}

// TestJobIsNotTakenTwice: a stale snapshot of the journal must not bring back a
// message that was just finished.
func TestJobIsNotTakenTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, ports := scripted(t, Config{}, modemtest.Polite(nil))
		m := r.submit(t, phone1, "uno")
		r.journal.wait(t, m.ID, Sent)
		r.journal.put(m, Queued) // as if the reader had been slow
		r.pool.Wake()
		time.Sleep(10 * time.Second)
		if n := len(sentTexts(t, ports(0))); n != 1 {
			t.Errorf("%d copies", n)
		}
		r.stop()
	})
}

func TestPoolKeepsNoGoroutineBeforeRun(t *testing.T) {
	// goleak in TestMain sees to it: New only builds.
	for range 3 {
		if _, err := New(Config{Bays: []BayConfig{{Name: "a", Device: "/dev/a"}}, Journal: newFakeJournal(), Opener: fakeOpener{}, Log: slog.New(slog.DiscardHandler)}); err != nil {
			t.Fatal(err)
		}
	}
}
