package bay

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"custode/modem/modemtest"
	"custode/modem/pdu"
)

const phone1, phone2 = "+393401234567", "+393407654321"

// idle lets a fresh bay get ready and do its first chores.
func (r *rig) idle() {
	r.t.Helper()
	r.until(Ready)
	time.Sleep(2 * time.Second)
	synctest.Wait()
}

// TestSection14 is modem.md section 1.4: the states of one submission.
func TestSection14(t *testing.T) {
	after := func(d time.Duration, do func(p *modemtest.Port)) func(*modemtest.Port) {
		return func(p *modemtest.Port) { time.AfterFunc(d, func() { do(p) }) }
	}
	say := func(lines ...string) func(*modemtest.Port) { return func(p *modemtest.Port) { p.Say(lines...) } }
	for _, c := range []struct {
		row   string
		hook  func(*modemtest.Port, string) bool
		want  Outcome
		check func(t *testing.T, r *rig, m Message)
	}{
		{"WAIT_REF +CMGS and OK", nil, Outcome{Result: Accepted}, nil},
		{"WAIT_REF +CMGS with an acknowledgement", once(say("+CMGS: 7,25", "OK")), Outcome{Result: Accepted}, nil},
		{"WAIT_REF OK without +CMGS is accepted and flagged", once(say("OK")), Outcome{Result: Accepted, Detail: "accepted without a reference"}, nil},
		{"WAIT_REF +CMS ERROR", once(say("+CMS ERROR: 1")), Outcome{Result: Refused, Blame: OnNumber, Detail: "refused cms 1, blame number"}, nil},
		{"WAIT_REF ERROR", once(say("ERROR")), Outcome{Result: Refused, Blame: OnModem, Detail: "refused, blame modem (soft)"}, nil},
		{"WAIT_REF +CME ERROR", once(say("+CME ERROR: 30")), Outcome{Result: Refused, Blame: OnNetwork, Detail: "refused cme 30, blame network"}, nil},
		{"WAIT_REF boot line is ambiguous", once(say("RDY")), Outcome{Result: Doubtful, Detail: "the modem restarted"}, func(t *testing.T, r *rig, _ Message) { r.until(Ready) }},
		{"WAIT_REF unplug is ambiguous", once(func(p *modemtest.Port) { p.Die(errUnplugged) }), Outcome{Result: Doubtful, Detail: "the port is dead"}, func(t *testing.T, r *rig, _ Message) {
			r.until(Ready)
			if r.opens() != 2 {
				t.Errorf("%d openings", r.opens())
			}
		}},
		{"WAIT_REF silence is ambiguous, quarantine, late +CMGS", once(after(200*time.Second, say("+CMGS: 9", "OK"))), Outcome{Result: Doubtful, Detail: "no receipt"}, func(t *testing.T, r *rig, m Message) {
			if s := r.bay.Status().State; s != Quarantined {
				t.Errorf("state %s", s)
			}
			if o, _ := r.send(phone2, "altro"); o.Result != Untouched {
				t.Errorf("a quarantined bay took a message: %+v", o)
			}
			before := len(r.written())
			time.Sleep(130 * time.Second)
			synctest.Wait()
			if n := len(r.written()); n != before {
				t.Errorf("written while waiting: %q", r.written()[before:])
			}
			time.Sleep(20 * time.Second)
			if late := r.owner.heard(LateReceipt); len(late) != 1 || late[0].ID != m.ID {
				t.Errorf("late receipts %+v", late)
			}
			r.until(Ready)
		}},
		{"WAIT_REF silence for ever ends in a resynchronisation at 300 s", once(func(*modemtest.Port) {}), Outcome{Result: Doubtful, Detail: "no receipt"}, func(t *testing.T, r *rig, _ Message) {
			began := time.Now()
			r.until(Ready)
			if took := time.Since(began); took < 240*time.Second || took > 250*time.Second {
				t.Errorf("%v", took)
			}
			if n := len(r.owner.heard(LateReceipt)); n != 0 {
				t.Errorf("%d receipts from nowhere", n)
			}
		}},
		{"WAIT_REF a late no ends the quarantine", once(after(100*time.Second, say("+CMS ERROR: 38"))), Outcome{Result: Doubtful, Detail: "no receipt"}, func(t *testing.T, r *rig, _ Message) {
			r.until(Ready)
			if n := len(r.owner.heard(LateReceipt)); n != 0 {
				t.Errorf("%d receipts from a no", n)
			}
		}},
		{"WAIT_PROMPT refusal", func(p *modemtest.Port, cmd string) bool {
			if !strings.HasPrefix(cmd, "AT+CMGS=") {
				return false
			}
			p.Say("+CMS ERROR: 304")
			return true
		}, Outcome{Result: Refused, Blame: OnUs, Detail: "refused cms 304, blame us"}, func(t *testing.T, r *rig, _ Message) {
			if len(r.texts()) != 0 {
				t.Error("the PDU left")
			}
		}},
		{"WAIT_PROMPT silence is not sent, ESC, resync", func() func(*modemtest.Port, string) bool {
			used := false
			return func(_ *modemtest.Port, cmd string) bool {
				if used || !strings.HasPrefix(cmd, "AT+CMGS=") {
					return false
				}
				used = true
				return true
			}
		}(), Outcome{Result: NotSent, Detail: "not handed over: no prompt"}, func(t *testing.T, r *rig, _ Message) {
			r.until(Ready)
			w := r.written()
			for i := range w {
				if strings.HasPrefix(w[i], "AT+CMGS=") {
					if w[i+1] != "\x1b\r" || w[i+2] != "AT\r" || w[i+3] != "AT+CSQ\r" {
						t.Errorf("after the silence: %q", w[i:])
					}
				}
			}
			if o, _ := r.send(phone1, "due"); o.Result != Accepted {
				t.Errorf("afterwards: %+v", o)
			}
		}},
		{"WAIT_PROMPT indications are dispatched", func(p *modemtest.Port, cmd string) bool {
			if !strings.HasPrefix(cmd, "AT+CMGS=") {
				return false
			}
			p.Say("+CREG: 5", "^RSSI: 12", "+CDS: 25", reportPDU(200, phone2, 0))
			p.Prompt()
			return true
		}, Outcome{Result: Accepted}, func(t *testing.T, r *rig, _ Message) {
			if s := r.bay.Status(); s.Registration != 5 || s.Unmatched != 0 {
				t.Errorf("%+v", s)
			}
		}},
		{"WAIT_REF indications do not extend the deadline", func() func(*modemtest.Port, string) bool {
			return once(func(p *modemtest.Port) {
				go func() {
					for range 100 {
						time.Sleep(time.Second)
						p.Say("^BOOT: 1,0,0,0,0", "+CGEV: x")
					}
				}()
			})
		}(), Outcome{Result: Doubtful, Detail: "no receipt"}, func(*testing.T, *rig, Message) { time.Sleep(time.Minute) }},
		{"WAIT_REF echo of the PDU", func(p *modemtest.Port, cmd string) bool {
			if !isPDU(cmd) {
				return false
			}
			p.Say(strings.TrimSuffix(cmd, "\x1a"), "+CMGS: 3", "OK")
			return true
		}, Outcome{Result: Accepted}, nil},
		{"IDLE the final comes twice", once(say("+CMGS: 3", "OK", "OK")), Outcome{Result: Accepted}, func(t *testing.T, r *rig, _ Message) {
			time.Sleep(10 * time.Second)
			if o, _ := r.send(phone1, "due"); o.Result != Accepted {
				t.Errorf("afterwards: %+v", o)
			}
		}},
		{"storage full is no error of the message", once(say("+CMS ERROR: 322")), Outcome{Result: Refused, Blame: OnBusy, Detail: "refused cms 322, blame busy"}, func(t *testing.T, r *rig, _ Message) {
			time.Sleep(time.Second)
			if n := r.count("AT+CMGL=4"); n != 2 { // the first at the start
				t.Errorf("%d lists", n)
			}
		}},
	} {
		t.Run(c.row, func(t *testing.T) {
			bubble(t, &script{hook: c.hook}, func(t *testing.T, r *rig) {
				r.idle()
				o, m := r.send(phone1, "codice 123456")
				o.Submit = 0
				if o != c.want {
					t.Errorf("%+v, want %+v", o, c.want)
				}
				if c.check != nil {
					c.check(t, r, m)
				}
			})
		})
	}
}

// TestSection14Prompt: the PDU leaves in one write as soon as the prompt is there,
// upper case, without blanks, with its length announced; or after ctrlz_gap.
func TestSection14Prompt(t *testing.T) {
	t.Run("one write", func(t *testing.T) {
		bubble(t, &script{}, func(t *testing.T, r *rig) {
			r.idle()
			began := time.Now()
			if o, _ := r.send(phone1, "ciao"); o.Result != Accepted || time.Since(began) != 0 {
				t.Errorf("%+v after %v", o, time.Since(began))
			}
			for _, w := range r.written() {
				if text, ok := strings.CutSuffix(w, "\x1a"); ok && (strings.ToUpper(text) != text || strings.Contains(text, " ") || !strings.HasPrefix(text, "00")) {
					t.Errorf("%q", w)
				}
				if strings.Contains(w, "\n") || !strings.HasSuffix(w, "\r") && !strings.HasSuffix(w, "\x1a") {
					t.Errorf("command ended by %q", w)
				}
			}
		})
	})
	t.Run("ctrlz_gap", func(t *testing.T) {
		extra := "profiles:\n  - {name: slow, manufacturer: Generic, model: '.*', ctrlz_gap: 100ms, command_gap: 50ms}\n"
		bubble(t, &script{hook: func(p *modemtest.Port, cmd string) bool {
			if cmd == "\x1a" {
				p.Say("+CMGS: 1", "OK")
				return true
			}
			return strings.HasPrefix(cmd, "00")
		}}, func(t *testing.T, r *rig) {
			r.idle()
			began := time.Now()
			if o, _ := r.send(phone1, "ciao"); o.Result != Accepted || time.Since(began) != 150*time.Millisecond {
				t.Errorf("%+v after %v", o, time.Since(began))
			}
		}, func(c *Config) { c.Profiles = withExtra(t, extra) })
	})
}

// TestLateReceipt: a late +CMGS is the right message's or nobody's.
func TestLateReceipt(t *testing.T) {
	alone := func(r *rig) { r.owner.mu.Lock(); r.owner.alone = true; r.owner.mu.Unlock() }
	t.Run("before the next prompt", func(t *testing.T) {
		n := 0
		bubble(t, &script{hook: func(p *modemtest.Port, cmd string) bool {
			if !isPDU(cmd) {
				return false
			}
			if n++; n == 2 {
				return true // silence
			}
			p.Say("+CMGS: "+string(rune('0'+n)), "OK")
			return true
		}}, func(t *testing.T, r *rig) {
			r.idle()
			alone(r)
			r.send(phone1, "uno") // reference 1: 2 is the next
			o, second := r.send(phone1, "due")
			if o.Result != Doubtful {
				t.Fatalf("%+v", o)
			}
			r.until(Ready)
			r.line(-1).Say("+CMGS: 2", "OK") // nobody waits
			time.Sleep(5 * time.Second)
			if late := r.owner.heard(LateReceipt); len(late) != 1 || late[0].ID != second.ID {
				t.Errorf("%+v", late)
			}
			if o, _ := r.send(phone1, "tre"); o.Result != Accepted {
				t.Errorf("third: %+v", o)
			}
		})
	})
	for name, c := range map[string]struct {
		answers func(p *modemtest.Port)
		want    Result
		late    int
	}{
		"both in the next transaction": {func(p *modemtest.Port) { p.Say("+CMGS: 2", "OK", "+CMGS: 3", "OK") }, Accepted, 1},
		"only one, the earlier's turn": {func(p *modemtest.Port) { p.Say("+CMGS: 2", "OK") }, Doubtful, 0},
		"only one, its own":            {func(p *modemtest.Port) { p.Say("+CMGS: 3", "OK") }, Accepted, 0},
		"only an OK":                   {func(p *modemtest.Port) { p.Say("OK") }, Doubtful, 0},
	} {
		t.Run(name, func(t *testing.T) {
			n := 0
			bubble(t, &script{hook: func(p *modemtest.Port, cmd string) bool {
				if !isPDU(cmd) {
					return false
				}
				switch n++; n {
				case 1:
					p.Say("+CMGS: 1", "OK")
				case 3:
					c.answers(p)
				}
				return true
			}}, func(t *testing.T, r *rig) {
				r.idle()
				alone(r)
				r.send(phone1, "uno")
				_, second := r.send(phone1, "due")
				r.until(Ready)
				o, third := r.send(phone2, "tre")
				late := r.owner.heard(LateReceipt)
				if o.Result != c.want || len(late) != c.late {
					t.Errorf("%+v, late %+v", o, late)
				}
				for _, l := range late {
					if l.ID != second.ID || l.ID == third.ID {
						t.Errorf("credited to the wrong message")
					}
				}
			})
		})
	}
}

// TestLatenessIsLearned: one hang of a modem whose hung message used no reference costs
// one doubt, not one for each message that follows.
func TestLatenessIsLearned(t *testing.T) {
	n, ref := 0, 0
	bubble(t, &script{hook: func(p *modemtest.Port, cmd string) bool {
		if !isPDU(cmd) {
			return false
		}
		if n++; n == 2 {
			return true
		}
		ref++
		p.Say(fmt.Sprintf("+CMGS: %d", ref), "OK")
		return true
	}}, func(t *testing.T, r *rig) {
		r.idle()
		r.owner.mu.Lock()
		r.owner.alone = true
		r.owner.mu.Unlock()
		var got []Result
		for range 8 {
			o, _ := r.send(phone1, "x")
			got = append(got, o.Result)
			r.until(Ready)
		}
		if want := []Result{Accepted, Doubtful, Doubtful, Accepted, Accepted, Accepted, Accepted, Accepted}; !slices.Equal(got, want) {
			t.Errorf("%v", got)
		}
	})
}

// TestParts: the parts of a long message go back to back on one link.
func TestParts(t *testing.T) {
	bubble(t, &script{}, func(t *testing.T, r *rig) {
		r.idle()
		m := newMessage(t, phone1, strings.Repeat("x", 300))
		m.MaxParts, m.Ref = 2, 77
		if o := r.sendMessage(m); o.Result != Accepted {
			t.Fatalf("%+v", o)
		}
		var trail []string
		for _, w := range r.written() {
			switch {
			case strings.HasPrefix(w, "AT+CMMS="):
				trail = append(trail, strings.TrimSpace(w))
			case isPDU(w):
				trail = append(trail, "PDU")
			}
		}
		if got := strings.Join(trail[1:], " "); got != "AT+CMMS=2 PDU PDU AT+CMMS=0" {
			t.Errorf("%s", got)
		}
		// Delivered when the last part is.
		line := r.line(-1)
		line.Say("+CDS: 25", reportPDU(1, phone1, 0))
		time.Sleep(time.Second)
		if n := len(r.owner.heard(Reported)); n != 0 {
			t.Errorf("%d reports after the first part", n)
		}
		line.Say("+CDS: 25", reportPDU(2, phone1, 0))
		time.Sleep(time.Second)
		if n := r.owner.heard(Reported); len(n) != 1 || n[0].ID != m.ID || n[0].Fate != pdu.Delivered {
			t.Errorf("%+v", n)
		}
	})
}

// TestSlowAndWritten: the callbacks come at their moments, the transaction goes on.
func TestSlowAndWritten(t *testing.T) {
	bubble(t, &script{hook: once(func(p *modemtest.Port) { time.AfterFunc(20*time.Second, func() { p.Say("+CMGS: 1", "OK") }) })}, func(t *testing.T, r *rig) {
		r.idle()
		m := newMessage(t, phone1, "x")
		var written, slow time.Duration
		began := time.Now()
		m.SlowAfter = 12 * time.Second
		m.Written = func() { written = time.Since(began) }
		m.Slow = func() { slow = time.Since(began) }
		o := r.sendMessage(m)
		if o.Result != Accepted || written != 0 || slow != 12*time.Second || o.Submit != 20*time.Second {
			t.Errorf("%+v written %v slow %v", o, written, slow)
		}
	})
}

// TestRemedies: what is tried at once before anybody is blamed.
func TestRemedies(t *testing.T) {
	refusing := func(code string) func(*modemtest.Port, string) bool {
		return once(func(p *modemtest.Port) { p.Say("+CMS ERROR: " + code) })
	}
	for _, c := range []struct {
		name, code string
		flash      bool
		centre     bool
		want       Result
		check      func(t *testing.T, first, second pdu.Sent)
	}{
		{"128 flash is left out", "128", true, false, Accepted, func(t *testing.T, a, b pdu.Sent) {
			if a.DCS != 0x10 || b.DCS != 0 {
				t.Errorf("DCS %#x then %#x", a.DCS, b.DCS)
			}
		}},
		{"128 nothing to leave out", "128", false, false, Refused, nil},
		{"199 validity is left out", "199", false, false, Accepted, func(t *testing.T, a, b pdu.Sent) {
			if a.Validity == 0 || b.Validity != 0 {
				t.Errorf("validity %v then %v", a.Validity, b.Validity)
			}
		}},
		{"512 once more", "512", false, false, Accepted, nil},
		{"330 with the configured centre", "330", false, true, Accepted, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, &script{hook: refusing(c.code)}, func(t *testing.T, r *rig) {
				r.idle()
				m := newMessage(t, phone1, "x")
				m.Flash = c.flash
				o := r.sendMessage(m)
				if o.Result != c.want {
					t.Fatalf("%+v", o)
				}
				var sent []pdu.Sent
				for _, w := range r.written() {
					if text, ok := strings.CutSuffix(w, "\x1a"); ok {
						s, err := pdu.DecodeSubmit(text)
						if err != nil {
							t.Fatal(err)
						}
						sent = append(sent, s)
					}
				}
				if want := map[Result]int{Accepted: 2, Refused: 1}[c.want]; len(sent) != want {
					t.Fatalf("%d submissions", len(sent))
				}
				if c.check != nil {
					c.check(t, sent[0], sent[1])
				}
			}, func(cfg *Config) {
				if c.centre {
					cfg.Place.Centre = mustPhone("+393770001016")
				}
			})
		})
	}
}

// TestSendOutOfService: nobody waits for a bay that cannot send.
func TestSendOutOfService(t *testing.T) {
	bubble(t, &script{over: map[string][]string{"AT+CREG?": {"+CREG: 0,2", "OK"}, "AT+CEREG?": {"+CEREG: 0,2", "OK"}}}, func(t *testing.T, r *rig) {
		r.until(NoNetwork)
		began := time.Now()
		if o, _ := r.send(phone1, "x"); o.Result != Untouched || time.Since(began) != 0 {
			t.Errorf("%+v after %v", o, time.Since(began))
		}
		r.line(-1).Say("+CREG: 1")
		r.until(Ready)
		if o, _ := r.send(phone1, "x"); o.Result != Accepted {
			t.Errorf("%+v", o)
		}
	})
}

// TestShutdownInEveryState: Run ends at once wherever the bay is.
func TestShutdownInEveryState(t *testing.T) {
	deaf := func(*modemtest.Port, string) bool { return true }
	for state, s := range map[State]*script{
		Starting: {hook: deaf}, Ready: {}, NeedsHand: {over: map[string][]string{"AT+CPIN?": {"+CPIN: SIM PUK", "OK"}}},
		NoNetwork:   {over: map[string][]string{"AT+CREG?": {"+CREG: 0,2", "OK"}, "AT+CEREG?": {"+CEREG: 0,2", "OK"}}},
		Quarantined: {hook: once(func(*modemtest.Port) {})},
		Transacting: {hook: once(func(p *modemtest.Port) { time.AfterFunc(5*time.Second, func() { p.Say("+CMGS: 1", "OK") }) })},
	} {
		t.Run(string(state), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, s)
				done := make(chan Outcome, 1)
				if state == Quarantined || state == Transacting {
					r.idle()
					p, err := NewParcel(newMessage(t, phone1, "x"))
					if err != nil {
						t.Fatal(err)
					}
					go func() { done <- r.bay.Send(context.Background(), p) }()
				} else {
					done <- Outcome{}
				}
				r.until(state)
				began := time.Now()
				r.stop()
				limit := 300 * time.Millisecond
				if state == Transacting {
					limit += 5 * time.Second // a transaction is not cut in two
				}
				if took := time.Since(began); took > limit {
					t.Errorf("stopped after %v", took)
				}
				if o := <-done; state == Transacting && o.Result != Accepted {
					t.Errorf("%+v", o)
				}
			})
		})
	}
}

// TestHalfALongMessage: when a later part is refused, or never handed over, the message
// is in doubt: what was accepted must not go out again as if nothing had.
func TestHalfALongMessage(t *testing.T) {
	for name, c := range map[string]struct {
		hook func(n int) func(*modemtest.Port, string) bool
		want string
	}{
		"refused": {func(n int) func(*modemtest.Port, string) bool {
			return func(p *modemtest.Port, cmd string) bool {
				if isPDU(cmd) {
					if n++; n == 2 {
						p.Say("+CMS ERROR: 42")
						return true
					}
				}
				return false
			}
		}, "only a part was accepted: refused cms 42, blame network"},
		"no prompt": {func(n int) func(*modemtest.Port, string) bool {
			return func(_ *modemtest.Port, cmd string) bool {
				if strings.HasPrefix(cmd, "AT+CMGS=") {
					n++
					return n == 2
				}
				return false
			}
		}, "only a part was accepted: not handed over: no prompt"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, &script{hook: c.hook(0)})
				defer r.stop()
				r.idle()
				m := newMessage(t, phone1, strings.Repeat("lungo ", 40))
				m.MaxParts = 2
				o := r.sendMessage(m)
				if o.Result != Doubtful || o.Detail != c.want {
					t.Errorf("%+v", o)
				}
				r.until(Ready)
				if o, _ := r.send(phone2, "altro"); o.Result != Accepted {
					t.Errorf("the next message: %+v", o)
				}
			})
		})
	}
}
