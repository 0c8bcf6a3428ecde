package bay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"custode/internal/fault"
	"custode/modem/modemtest"
)

// switchboard is a Power for tests.
type switchboard struct {
	mu      sync.Mutex
	calls   []string
	offErr  error
	changed func(on bool)
}

func (s *switchboard) note(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, what)
}

func (s *switchboard) Off(context.Context) error {
	s.note("off")
	if s.changed != nil {
		s.changed(false)
	}
	return s.offErr
}

func (s *switchboard) On(context.Context) error {
	s.note("on")
	if s.changed != nil {
		s.changed(true)
	}
	return nil
}

func (s *switchboard) Pulse(context.Context) error { s.note("pulse"); return nil }

func (s *switchboard) list() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

var notServed = map[string][]string{"AT+CREG?": {"+CREG: 0,2", "OK"}, "AT+CEREG?": {"+CEREG: 0,2", "OK"}}

// TestSection18 is modem.md section 1.8: each command's time-out.
func TestSection18(t *testing.T) {
	// A command that is never answered is given up after its time, the line is
	// resynchronised, it is asked once more, and the session ends.
	for _, c := range []struct {
		row, cmd string
		limit    time.Duration
	}{
		{"ATE0 2 s", "ATE0V1Q0", 2 * time.Second}, {"CMEE 2 s", "AT+CMEE=1", 2 * time.Second}, {"CMGF 2 s", "AT+CMGF=0", 2 * time.Second},
		{"CPIN? 10 s", "AT+CPIN?", 10 * time.Second}, {"CSCA? 10 s", "AT+CSCA?", 10 * time.Second}, {"CPMS 10 s", "AT+CPMS=?", 10 * time.Second},
		{"CREG? 5 s", "AT+CREG?", 5 * time.Second}, {"CMGL 120 s", "AT+CMGL=4", 120 * time.Second}, {"CUSD 30 s", `AT+CUSD=1,"*123#",15`, 30 * time.Second},
	} {
		t.Run(c.row, func(t *testing.T) {
			var asked, next time.Time
			bubble(t, &script{hook: func(_ *modemtest.Port, cmd string) bool {
				if cmd == c.cmd && asked.IsZero() {
					asked = time.Now()
					return true
				}
				if !asked.IsZero() && next.IsZero() {
					next = time.Now()
				}
				return false
			}}, func(t *testing.T, r *rig) {
				if strings.Contains(c.cmd, "CUSD") {
					r.idle()
					_, _ = r.bay.USSD(t.Context(), "*123#")
				}
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				if got := next.Sub(asked); got != c.limit {
					t.Errorf("given up after %v, want %v", got, c.limit)
				}
				r.until(Ready)
			})
		})
	}
	t.Run("PDU to +CMGS by profile", func(t *testing.T) {
		bubble(t, &script{over: map[string][]string{"AT+CGMI": {"u-blox", "OK"}}, hook: once(func(*modemtest.Port) {})}, func(t *testing.T, r *rig) {
			r.idle()
			if o, _ := r.send(phone1, "x"); o.Result != Doubtful || o.Submit != 180*time.Second {
				t.Errorf("%+v", o)
			}
		})
	})
	t.Run("a write that is not taken is a hang", func(t *testing.T) {
		bubble(t, &script{}, func(t *testing.T, r *rig) {
			r.idle()
			r.line(-1).Break(fault.New(fault.Retry, "write", context.DeadlineExceeded))
			o, _ := r.send(phone1, "x")
			if o.Result != NotSent {
				t.Errorf("%+v", o)
			}
			r.until(Ready)
			if r.opens() != 2 {
				t.Errorf("%d openings", r.opens())
			}
		})
	})
}

// TestSection19 is modem.md section 1.9: detection and the rungs.
func TestSection19(t *testing.T) {
	deafAfter := func(quiet *atomic.Bool) func(*modemtest.Port, string) bool {
		return func(*modemtest.Port, string) bool { return quiet.Load() }
	}
	t.Run("detect: keep-alive every 30 s", func(t *testing.T) {
		bubble(t, &script{}, func(t *testing.T, r *rig) {
			r.idle()
			before := r.count("AT+CSQ")
			time.Sleep(5 * time.Minute)
			if n := r.count("AT+CSQ") - before; n < 9 || n > 11 {
				t.Errorf("%d checks in five minutes", n)
			}
		})
	})
	t.Run("detect: keep-alive also during a flood of indications", func(t *testing.T) {
		bubble(t, &script{}, func(t *testing.T, r *rig) {
			r.idle()
			before := r.count("AT+CSQ")
			for range 600 {
				r.line(-1).Say("^RSSI: 12", "+CREG: 1")
				time.Sleep(500 * time.Millisecond)
			}
			if n := r.count("AT+CSQ") - before; n < 9 {
				t.Errorf("%d checks in five minutes", n)
			}
		})
	})
	t.Run("L0 resynchronisation after a stray final", func(t *testing.T) {
		bubble(t, &script{}, func(t *testing.T, r *rig) {
			r.idle()
			before := r.bay.Status().Resyncs
			r.line(-1).Say("OK")
			time.Sleep(10 * time.Second)
			if s := r.bay.Status(); s.Resyncs != before+1 || s.State != Ready || s.Opens != 1 {
				t.Errorf("%+v", s)
			}
		})
	})
	t.Run("L1 close, reopen", func(t *testing.T) {
		bubble(t, &script{}, func(t *testing.T, r *rig) {
			r.idle()
			r.line(-1).Die(errUnplugged)
			time.Sleep(200 * time.Millisecond)
			if s := r.bay.Status().State; s != Absent {
				t.Errorf("state %s", s)
			}
			r.until(Ready)
			if r.opens() != 2 {
				t.Errorf("%d openings", r.opens())
			}
		})
	})
	t.Run("L1 growing pauses, no busy loop, no rung for an absent port", func(t *testing.T) {
		bubble(t, &script{}, func(t *testing.T, r *rig) {
			r.idle()
			tries := 0
			r.mu.Lock()
			r.open = func() error { tries++; return fault.New(fault.Unavailable, "open", errUnplugged) }
			r.mu.Unlock()
			r.line(-1).Die(errUnplugged)
			time.Sleep(10 * time.Minute)
			r.mu.Lock()
			if tries < 15 || tries > 40 {
				t.Errorf("%d attempts to open in ten minutes", tries)
			}
			r.open = nil
			r.mu.Unlock()
			r.until(Ready)
		})
	})
	t.Run("L2 radio cycle after 90 s without a network", func(t *testing.T) {
		bubble(t, &script{over: notServed}, func(t *testing.T, r *rig) {
			r.until(NoNetwork)
			time.Sleep(80 * time.Second)
			if r.count("AT+CFUN=4") != 0 {
				t.Error("too early")
			}
			time.Sleep(20 * time.Second)
			if r.count("AT+CFUN=4") != 1 || r.count("AT+CFUN=1\r") != 1 || !slices.Contains(r.owner.alarms(), NotServed) {
				t.Errorf("%q", r.written())
			}
			if n := r.count("AT+CMGF=0"); n < 2 {
				t.Error("not initialised after the cycle")
			}
		})
	})
	t.Run("L3 restart next, port closed at once, left alone until the boot is over", func(t *testing.T) {
		bubble(t, &script{over: notServed}, func(t *testing.T, r *rig) {
			r.until(NoNetwork)
			time.Sleep(5 * time.Minute)
			if r.count("AT+CFUN=1,1") != 1 || r.opens() != 2 {
				t.Fatalf("%d restarts, %d openings", r.count("AT+CFUN=1,1"), r.opens())
			}
			w := r.line(0).Written()
			if w[len(w)-1] != "AT+CFUN=1,1\r" {
				t.Errorf("the port stayed open: %q", w[len(w)-3:])
			}
		})
	})
	t.Run("L3 the boot ends with SMS DONE", func(t *testing.T) {
		bubble(t, &script{}, func(t *testing.T, r *rig) {
			r.idle()
			if err := r.bay.Reset(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
			if n := len(r.line(1).Written()); n != 0 || r.opens() != 2 {
				t.Fatalf("spoken to while it boots: %q", r.line(1).Written())
			}
			r.line(1).Say("RDY", "+CPIN: READY", "SMS DONE")
			began := time.Now()
			r.until(Ready)
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("%v after SMS DONE", took)
			}
		})
	})
	t.Run("L3 by the profile's command", func(t *testing.T) {
		bubble(t, &script{over: map[string][]string{"AT+CGMI": {"SIMCOM", "OK"}, "AT+CGMM": {"SIM7600E", "OK"}}}, func(t *testing.T, r *rig) {
			r.idle()
			if err := r.bay.Reset(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if r.count("AT+CRESET") != 1 {
				t.Errorf("%q", r.written())
			}
		})
	})
	t.Run("deaf modem: L3, L4, L5 in turn, then a hand, each at most once an hour", func(t *testing.T) {
		var quiet atomic.Bool
		power := &switchboard{}
		bubble(t, &script{hook: deafAfter(&quiet)}, func(t *testing.T, r *rig) {
			r.idle()
			quiet.Store(true)
			time.Sleep(50 * time.Minute)
			if n := r.count("AT+CFUN=1,1"); n != 1 {
				t.Errorf("%d restarts", n)
			}
			if got := power.list(); !slices.Equal(got, []string{"off", "on"}) {
				t.Errorf("power %v", got)
			}
			if !slices.Contains(r.owner.alarms(), OutOfOrder) {
				t.Error("no alarm")
			}
			if s := r.bay.Status(); s.State != NeedsHand && s.State != Starting || s.Rung != "given up" {
				t.Errorf("%s %s", s.State, s.Rung)
			}
			time.Sleep(70 * time.Minute)
			if n := r.count("AT+CFUN=1,1"); n != 2 {
				t.Errorf("%d restarts in two hours", n)
			}
			quiet.Store(false)
			r.until(Ready)
			if o, _ := r.send(phone1, "x"); o.Result != Accepted || r.bay.Status().Rung != "" {
				t.Errorf("%+v, rung %q", o, r.bay.Status().Rung)
			}
		}, func(c *Config) { c.Power = power })
	})
	t.Run("L5 for a port that stays away", func(t *testing.T) {
		power := &switchboard{}
		bubble(t, &script{}, func(t *testing.T, r *rig) {
			r.idle()
			var mu sync.Mutex
			gone := true
			power.changed = func(on bool) { mu.Lock(); gone = gone && !on; mu.Unlock() }
			r.mu.Lock()
			r.open = func() error {
				mu.Lock()
				defer mu.Unlock()
				if gone {
					return fault.New(fault.Unavailable, "open", errUnplugged)
				}
				return nil
			}
			r.mu.Unlock()
			r.line(-1).Die(errUnplugged)
			time.Sleep(10 * time.Minute)
			r.until(Ready)
			if got := power.list(); !slices.Equal(got, []string{"off", "on"}) {
				t.Errorf("power %v", got)
			}
		}, func(c *Config) { c.Power = power })
	})
	t.Run("L5 key pulse where the supply cannot be cut", func(t *testing.T) {
		power := &switchboard{offErr: errors.New("no such relay")}
		bubble(t, &script{}, func(t *testing.T, r *rig) {
			r.idle()
			if err := r.bay.PowerCycle(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if got := power.list(); !slices.Equal(got, []string{"off", "pulse"}) {
				t.Errorf("%v", got)
			}
			r.until(Ready)
		}, func(c *Config) { c.Power = power })
	})
	t.Run("identify by IMEI after reopening", func(t *testing.T) {
		s := &script{over: map[string][]string{}}
		bubble(t, s, func(t *testing.T, r *rig) {
			r.idle()
			s.answer("AT+CGSN", "860000000000009", "OK")
			r.line(-1).Die(errUnplugged)
			time.Sleep(time.Second)
			r.idle()
			if !slices.Contains(r.owner.alarms(), Impostor) {
				t.Error("no alarm")
			}
		})
	})
	t.Run("under-voltage is an alarm", func(t *testing.T) {
		bubble(t, &script{}, func(t *testing.T, r *rig) {
			r.idle()
			r.line(-1).Say("UNDER-VOLTAGE WARNNING")
			time.Sleep(3 * time.Second)
			r.until(Ready)
			if !slices.Contains(r.owner.alarms(), UnderVoltage) {
				t.Error("no alarm")
			}
		})
	})
}

// TestLadder: the order of the rungs and their rests.
func TestLadder(t *testing.T) {
	now := time.Now()
	var l ladder
	for i, want := range []rung{radio, restart, dtr, supply, surrender, surrender} {
		if got := l.next(radio, now, time.Hour, true); got != want {
			t.Errorf("step %d: %s, want %s", i, rungNames[got], rungNames[want])
		}
	}
	if got := l.next(radio, now.Add(30*time.Minute), time.Hour, true); got != surrender {
		t.Errorf("too early: %s", rungNames[got])
	}
	now = now.Add(61 * time.Minute)
	if got := l.next(restart, now, time.Hour, true); got != restart {
		t.Errorf("an hour later: %s", rungNames[got])
	}
	l = ladder{used: l.used} // the trouble is over, but the restart was just now
	if got := l.next(restart, now, time.Hour, false); got != dtr {
		t.Errorf("%s", rungNames[got])
	}
}

// TestSection12Boot: lines of a modem that restarts, while it should work.
func TestSection12Boot(t *testing.T) {
	for _, line := range []string{"RDY", "+CFUN: 1", "+CPIN: NOT READY", "NORMAL POWER DOWN", "POWERED DOWN", "UNDER-VOLTAGE POWER DOWN", "OVER-VOLTAGE WARNNING", "*ATREADY: 1", "SMS Ready", "SMS DONE", "+QIND: SMS DONE", "Call Ready", "PB DONE"} {
		t.Run(line, func(t *testing.T) {
			bubble(t, &script{}, func(t *testing.T, r *rig) {
				r.idle()
				before := r.count("AT+CMGF=0")
				r.line(-1).Say(line)
				time.Sleep(3 * time.Second)
				r.until(Ready)
				if n := r.count("AT+CMGF=0"); n != before+1 || r.opens() != 1 {
					t.Errorf("%d initialisations, %d openings", n, r.opens())
				}
			})
		})
	}
	t.Run("^BOOT repeated means nothing, changed means a restart", func(t *testing.T) {
		bubble(t, &script{}, func(t *testing.T, r *rig) {
			r.idle()
			for range 20 {
				r.line(-1).Say("^BOOT:29543410,0,0,0,75")
				time.Sleep(30 * time.Second)
			}
			if n := r.count("AT+CMGF=0"); n != 1 {
				t.Errorf("%d initialisations", n)
			}
			r.line(-1).Say("^BOOT:11111111,0,0,0,75")
			time.Sleep(3 * time.Second)
			if n := r.count("AT+CMGF=0"); n != 2 {
				t.Errorf("%d initialisations", n)
			}
		})
	})
}

// TestSection12Ignored: noise of vendors changes nothing.
func TestSection12Ignored(t *testing.T) {
	bubble(t, &script{}, func(t *testing.T, r *rig) {
		r.idle()
		writes := len(r.written())
		for _, line := range []string{"^RSSI: 12", `^HCSQ:"LTE",46,51,100,20`, "^MODE: 5,4", "^DSFLOWRPT:0,0,0,0,0,0,0", "^CSNR:-59,-2", "^SRVST:2", "^STIN: 0,0,0", "^NWTIME: 26/11/21", "^RSSILVL: 99",
			"^HRSSILVL:1,1", "^NDISSTAT:1", "^EONS:1", "^LWURC:1", "QCRDY", "+NITZ: x", "*PSUTTZ: 2026", "DST: 0", "+QUSIM: 1", "#STN: 237", "#QSS: 1", "+WIND: 4", "+ZUSIMR:2", "+ZEND", "_OSIGQ: 3,0", "_OBS: 1",
			"RING", "+CRING: VOICE", `+CLIP: "+39340",145`, "NITZ"} {
			r.line(-1).Say(line)
		}
		synctest.Wait()
		time.Sleep(time.Second)
		if s := r.bay.Status(); s.State != Ready || len(r.written()) != writes {
			t.Errorf("%+v, wrote %q", s, r.written()[writes:])
		}
	})
}

// TestSection12Registration: +CREG by itself, in its shapes.
func TestSection12Registration(t *testing.T) {
	for _, c := range []struct {
		line string
		want int
	}{
		{"+CREG: 2", 2}, {"+CREG: 5", 5}, {"+CREG:6", 6}, {`+CREG: 5,"00A1","0F5B"`, 5}, {`+CREG: 5,"00A1","00000F5B",7`, 5}, {"+CREG: 5,00A1,0F5B", 5}, {"+CREG: 005", 5},
		{"+CEREG: 5", 5}, {"+CEREG: 2", 1}, {"+CGREG: 2", 1}, {"+CREG: x", 1}, {"+CREG: 2,1", 1},
	} {
		t.Run(c.line, func(t *testing.T) {
			bubble(t, &script{}, func(t *testing.T, r *rig) {
				r.idle()
				r.line(-1).Say(c.line)
				synctest.Wait()
				if n := r.bay.Status().Registration; n != c.want {
					t.Errorf("registration %d, want %d", n, c.want)
				}
			})
		})
	}
	t.Run("between question and answer", func(t *testing.T) {
		bubble(t, &script{over: map[string][]string{"AT+CREG?": {`+CREG: 5,"00A1","0F5B"`, `+CREG: 2,1,"00A1","0F5B",7`, "OK"}}}, func(t *testing.T, r *rig) {
			r.until(Ready)
			if n := r.bay.Status().Registration; n != 1 {
				t.Errorf("registration %d", n)
			}
		})
	})
}

// TestOperatorsOrders: what people may ask of a bay.
func TestOperatorsOrders(t *testing.T) {
	t.Run("USSD", func(t *testing.T) {
		for answer, want := range map[string]string{`+CUSD: 0,"Credito 5 EUR",15`: "Credito 5 EUR", `+CUSD: 2,"00430072006500640069007400F2",72`: "Creditò", `+CUSD: 4`: "", `+CUSD: 0,"a` + "\x1b" + `b",15`: "ab"} {
			bubble(t, &script{hook: func(p *modemtest.Port, cmd string) bool {
				if !strings.HasPrefix(cmd, "AT+CUSD=") {
					return false
				}
				p.Say("OK")
				time.AfterFunc(5*time.Second, func() { p.Say(answer) })
				return true
			}}, func(t *testing.T, r *rig) {
				r.idle()
				if got, err := r.bay.USSD(t.Context(), "*123#"); err != nil || got != want {
					t.Errorf("%q, %v", got, err)
				}
			})
		}
		bubble(t, &script{}, func(t *testing.T, r *rig) {
			r.idle()
			if _, err := r.bay.USSD(t.Context(), "*123#"); !fault.Is(err, fault.Unavailable) {
				t.Errorf("no answer: %v", err)
			}
			if _, err := r.bay.USSD(t.Context(), `1";+CMGD=1,4`); !fault.Is(err, fault.Invalid) {
				t.Errorf("injection: %v", err)
			}
		})
	})
	t.Run("hold and release", func(t *testing.T) {
		bubble(t, &script{}, func(t *testing.T, r *rig) {
			r.idle()
			if err := r.bay.Hold(t.Context(), true); err != nil {
				t.Fatal(err)
			}
			r.until(Held)
			time.Sleep(time.Hour)
			if r.opens() != 1 || r.bay.Status().State != Held {
				t.Errorf("%d openings, %s", r.opens(), r.bay.Status().State)
			}
			if err := r.bay.Check(t.Context()); !fault.Is(err, fault.Unavailable) {
				t.Errorf("check: %v", err)
			}
			if err := r.bay.Hold(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			r.until(Ready)
		})
	})
	t.Run("power off and on", func(t *testing.T) {
		power := &switchboard{}
		bubble(t, &script{}, func(t *testing.T, r *rig) {
			r.idle()
			if err := r.bay.PowerOff(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.until(Held)
			if err := r.bay.PowerOn(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.until(Ready)
			if got := fmt.Sprint(power.list()); got != "[off on]" {
				t.Error(got)
			}
		}, func(c *Config) { c.Power = power })
		bubble(t, &script{}, func(t *testing.T, r *rig) {
			r.idle()
			for _, err := range []error{r.bay.PowerOff(t.Context()), r.bay.PowerOn(t.Context()), r.bay.PowerCycle(t.Context())} {
				if !fault.Is(err, fault.Unavailable) {
					t.Errorf("%v", err)
				}
			}
		})
	})
	t.Run("check", func(t *testing.T) {
		s := &script{over: map[string][]string{}}
		bubble(t, s, func(t *testing.T, r *rig) {
			r.idle()
			s.answer("AT+CSQ", "+CSQ: 10,0", "OK")
			if err := r.bay.Check(t.Context()); err != nil || r.bay.Status().Signal != -93 {
				t.Errorf("%v, signal %d", err, r.bay.Status().Signal)
			}
		})
	})
}
