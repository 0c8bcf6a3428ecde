package bay

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"custode/modem/at"
	"custode/modem/modemtest"
	"custode/modem/pdu"
)

// TestSection15Reports is modem.md section 1.5: status reports.
func TestSection15Reports(t *testing.T) {
	type ctx struct {
		t *testing.T
		r *rig
		m Message
	}
	cds := func(c ctx, text string) { c.r.line(-1).Say("+CDS: 25", text); time.Sleep(time.Second) }
	reported := func(c ctx, fate pdu.Fate, n int) {
		c.t.Helper()
		got := c.r.owner.heard(Reported)
		if len(got) != n || n > 0 && (got[n-1].ID != c.m.ID || got[n-1].Fate != fate) {
			c.t.Errorf("reports %+v, want %d of %v", got, n, fate)
		}
	}
	for _, c := range []struct {
		row    string
		script *script
		check  func(c ctx)
	}{
		{"+CDS international", nil, func(c ctx) { cds(c, reportPDU(1, phone1, 0)); reported(c, pdu.Delivered, 1) }},
		{"+CDS national number", nil, func(c ctx) { cds(c, reportPDU(1, "3401234567", 0)); reported(c, pdu.Delivered, 1) }},
		{"+CDS ZTE form", nil, func(c ctx) {
			c.r.line(-1).Say("+CDS: ,25", reportPDU(1, phone1, 0))
			time.Sleep(time.Second)
			reported(c, pdu.Delivered, 1)
		}},
		{"status 01 02 delivered", nil, func(c ctx) { cds(c, reportPDU(1, phone1, 2)); reported(c, pdu.Delivered, 1) }},
		{"status 20-3F still trying, final one counts", nil, func(c ctx) {
			cds(c, reportPDU(1, phone1, 0x30))
			reported(c, pdu.Trying, 0)
			cds(c, reportPDU(1, phone1, 0))
			reported(c, pdu.Delivered, 1)
		}},
		{"status 40-7F given up", nil, func(c ctx) { cds(c, reportPDU(1, phone1, 0x46)); reported(c, pdu.Undone, 1) }},
		{"status 80-FF unknown", nil, func(c ctx) { cds(c, reportPDU(1, phone1, 0x90)); reported(c, pdu.Trying, 0) }},
		{"other number is unmatched", nil, func(c ctx) {
			cds(c, reportPDU(1, phone2, 0))
			reported(c, 0, 0)
			if n := c.r.bay.Status().Unmatched; n != 1 {
				c.t.Errorf("%d unmatched", n)
			}
		}},
		{"twice counts once", nil, func(c ctx) {
			cds(c, reportPDU(1, phone1, 0))
			cds(c, reportPDU(1, phone1, 0))
			reported(c, pdu.Delivered, 1)
		}},
		{"reference wraps: the ring has 256 places, the old message is forgotten", nil, func(c ctx) {
			for range 255 {
				c.r.send(phone2, "x")
			}
			_, last := c.r.send(phone1, "x") // reference 1 again (256 -> 0, 257 -> 1)
			c.m = last
			cds(c, reportPDU(1, phone1, 0))
			reported(c, pdu.Delivered, 1)
		}},
		{"text formatted by providers is ignored", nil, func(c ctx) { cds(c, "Message to 340 delivered"); reported(c, 0, 0) }},
		{"stored report: CPMS SR, CMGR, CMGD, back", &script{over: map[string][]string{"AT+CMGR=4": {"+CMGR: ,,25", reportPDU(1, phone1, 0), "OK"}}}, func(c ctx) {
			c.r.line(-1).Say(`+CDSI: "SR",4`)
			time.Sleep(time.Second)
			reported(c, pdu.Delivered, 1)
			w := c.r.written()
			at := slices.Index(w, "AT+CPMS=\"SR\"\r")
			if at < 0 || w[at+1] != "AT+CMGR=4\r" || w[at+2] != "AT+CMGD=4\r" || w[at+3] != "AT+CPMS=\"ME\"\r" {
				c.t.Errorf("%q", w[max(at, 0):])
			}
		}},
		{"EC25 says SM and means SR", &script{over: map[string][]string{"AT+CGMI": {"Quectel", "OK"}, "AT+CGMM": {"EC25", "OK"}, "AT+CMGR=0": {"+CMGR: 0,,25", reportPDU(1, phone1, 0), "OK"}}}, func(c ctx) {
			c.r.line(-1).Say(`+CDSI: "SM",0`)
			time.Sleep(time.Second)
			reported(c, pdu.Delivered, 1)
			if !slices.Contains(c.r.written(), "AT+CPMS=\"SR\"\r") {
				c.t.Error("SR was not selected")
			}
		}},
		{"SIM7600: CMGR answers 321", &script{over: map[string][]string{"AT+CMGR=8": {"+CMS ERROR: 321"}}}, func(c ctx) {
			c.r.line(-1).Say(`+CDSI: "SR",8`)
			time.Sleep(time.Second)
			reported(c, 0, 0)
			if o, _ := c.r.send(phone1, "x"); o.Result != Accepted || c.r.count("AT+CMGD=8") != 0 {
				c.t.Errorf("%+v", o)
			}
		}},
		{"an empty place answers OK alone", nil, func(c ctx) {
			c.r.line(-1).Say(`+CDSI: "SR",9`)
			time.Sleep(time.Second)
			if c.r.count("AT+CMGD=9") != 0 {
				c.t.Error("deleted what was not read")
			}
		}},
	} {
		t.Run(c.row, func(t *testing.T) {
			s := c.script
			if s == nil {
				s = &script{}
			}
			bubble(t, s, func(t *testing.T, r *rig) {
				r.idle()
				o, m := r.send(phone1, "codice")
				if o.Result != Accepted {
					t.Fatalf("%+v", o)
				}
				c.check(ctx{t, r, m})
			})
		})
	}
	t.Run("before its receipt", func(t *testing.T) {
		bubble(t, &script{hook: once(func(p *modemtest.Port) { p.Say("+CDS: 25", reportPDU(9, phone1, 0), "+CMGS: 9", "OK") })}, func(t *testing.T, r *rig) {
			r.idle()
			_, m := r.send(phone1, "x")
			if got := r.owner.heard(Reported); len(got) != 1 || got[0].ID != m.ID {
				t.Errorf("%+v", got)
			}
		})
	})
	t.Run("BG96 is not asked for reports", func(t *testing.T) {
		bubble(t, &script{over: map[string][]string{"AT+CGMI": {"Quectel", "OK"}, "AT+CGMM": {"BG96", "OK"}}}, func(t *testing.T, r *rig) {
			r.idle()
			r.send(phone1, "x")
			for _, w := range r.written() {
				if text, ok := strings.CutSuffix(w, "\x1a"); ok {
					if s, err := pdu.DecodeSubmit(text); err != nil || s.Report {
						t.Errorf("%+v, %v", s, err)
					}
				}
			}
		})
	})
	t.Run("reference unknown: one candidate only", func(t *testing.T) {
		bubble(t, &script{over: map[string][]string{"PDU": {"OK"}}}, func(t *testing.T, r *rig) {
			r.idle()
			_, a := r.send(phone1, "x")
			r.send(phone2, "x")
			r.send(phone2, "y")
			line := r.line(-1)
			line.Say("+CDS: 25", reportPDU(200, phone2, 0)) // two messages could be meant
			time.Sleep(time.Second)
			line.Say("+CDS: 25", reportPDU(201, phone1, 0))
			time.Sleep(time.Second)
			if got := r.owner.heard(Reported); len(got) != 1 || got[0].ID != a.ID {
				t.Errorf("%+v", got)
			}
		})
	})
	t.Run("window: validity and a day", func(t *testing.T) {
		bubble(t, &script{}, func(t *testing.T, r *rig) {
			r.idle()
			r.send(phone1, "x")
			time.Sleep(24*time.Hour + 6*time.Minute)
			r.until(Ready)
			r.line(-1).Say("+CDS: 25", reportPDU(1, phone1, 0))
			time.Sleep(time.Second)
			if got := r.owner.heard(Reported); len(got) != 0 {
				t.Errorf("%+v", got)
			}
		})
	})
	t.Run("another card, another ring", func(t *testing.T) {
		s := &script{over: map[string][]string{}}
		bubble(t, s, func(t *testing.T, r *rig) {
			r.idle()
			r.send(phone1, "x")
			s.answer("AT+CIMI", "222880000000009", "OK")
			r.line(-1).Die(errUnplugged)
			time.Sleep(time.Second)
			r.idle()
			r.line(-1).Say("+CDS: 25", reportPDU(1, phone1, 0))
			time.Sleep(time.Second)
			if got := r.owner.heard(Reported); len(got) != 0 {
				t.Errorf("%+v", got)
			}
			if r.bay.Card() != "222880000000009" || strings.Contains(r.bay.Status().IMSI, "0000000") {
				t.Errorf("card %s, shown %s", r.bay.Card(), r.bay.Status().IMSI)
			}
		})
	})
}

// TestSection15Incoming: messages for our card.
func TestSection15Incoming(t *testing.T) {
	ciao := deliverPDU("393407654321", "ciao", 0, 0)
	read := func(index int, text string) map[string][]string {
		return map[string][]string{fmt.Sprintf("AT+CMGR=%d", index): {"+CMGR: 0,,24", text, "OK"}}
	}
	t.Run("+CMTI read, kept, deleted", func(t *testing.T) {
		bubble(t, &script{over: read(2, ciao)}, func(t *testing.T, r *rig) {
			r.idle()
			r.line(-1).Say(`+CMTI: "ME",2`)
			time.Sleep(time.Second)
			got := r.owner.heard(Received)
			if len(got) != 1 || got[0].Incoming.Text != "ciao" || got[0].Incoming.From != "+393407654321" || got[0].Incoming.Stop || r.count("AT+CMGD=2\r") != 1 {
				t.Errorf("%+v", got)
			}
		})
	})
	t.Run("not deleted before it is kept, offered again", func(t *testing.T) {
		s := &script{over: read(2, ciao)}
		bubble(t, s, func(t *testing.T, r *rig) {
			r.idle()
			r.owner.mu.Lock()
			r.owner.refuse = errNotKept
			r.owner.mu.Unlock()
			r.line(-1).Say(`+CMTI: "ME",2`)
			time.Sleep(time.Second)
			if r.count("AT+CMGD=2\r") != 0 {
				t.Error("deleted, though nobody has it")
			}
			r.owner.mu.Lock()
			r.owner.refuse = nil
			r.owner.mu.Unlock()
			s.answer("AT+CMGL=4", "+CMGL: 2,1,,24", ciao, "OK")
			time.Sleep(6 * time.Minute) // the poll finds it
			if len(r.owner.heard(Received)) != 1 || r.count("AT+CMGD=2\r") == 0 {
				t.Errorf("%+v", r.owner.heard(Received))
			}
		})
	})
	t.Run("+CMT is offered again, too", func(t *testing.T) {
		bubble(t, &script{}, func(t *testing.T, r *rig) {
			r.idle()
			r.owner.mu.Lock()
			r.owner.refuse = errNotKept
			r.owner.mu.Unlock()
			r.line(-1).Say("+CMT: ,24", ciao)
			time.Sleep(time.Second)
			r.owner.mu.Lock()
			r.owner.refuse = nil
			r.owner.mu.Unlock()
			time.Sleep(time.Minute)
			if got := r.owner.heard(Received); len(got) != 1 {
				t.Errorf("%+v", got)
			}
		})
	})
	t.Run("the same message in two places, or not deletable, counts once", func(t *testing.T) {
		s := &script{over: map[string][]string{"AT+CMGL=4": {"+CMGL: 1,1,,24", ciao, "+CMGL: 5,1,,24", ciao, "OK"}, "AT+CMGD=1": {"+CMS ERROR: 320"}}}
		bubble(t, s, func(t *testing.T, r *rig) {
			r.idle()
			time.Sleep(16 * time.Minute)
			if got := r.owner.heard(Received); len(got) != 1 {
				t.Errorf("%d times", len(got))
			}
		})
	})
	t.Run("poll every five minutes", func(t *testing.T) {
		bubble(t, &script{}, func(t *testing.T, r *rig) {
			r.idle()
			before := r.count("AT+CMGL=4")
			time.Sleep(16 * time.Minute)
			if n := r.count("AT+CMGL=4") - before; n != 3 {
				t.Errorf("%d polls in 16 minutes", n)
			}
		})
	})
	t.Run("a slow modem is polled rarely", func(t *testing.T) {
		bubble(t, &script{hook: func(p *modemtest.Port, cmd string) bool {
			if cmd != "AT+CMGL=4" {
				return false
			}
			time.AfterFunc(90*time.Second, func() { p.Say("OK") })
			return true
		}}, func(t *testing.T, r *rig) {
			r.idle()
			time.Sleep(50 * time.Minute)
			if n := r.count("AT+CMGL=4"); n != 1 {
				t.Errorf("%d polls", n)
			}
		})
	})
	t.Run("class 0 and type 0 are dropped", func(t *testing.T) {
		bubble(t, &script{}, func(t *testing.T, r *rig) {
			r.idle()
			r.line(-1).Say("+CMT: ,24", deliverPDU("393407654321", "flash", 0, 0x10))
			r.line(-1).Say("+CMT: ,24", deliverPDU("393407654321", "muto", 0x40, 0))
			time.Sleep(time.Second)
			if got := r.owner.heard(Received); len(got) != 0 {
				t.Errorf("%+v", got)
			}
		})
	})
	t.Run("CNMA only with CSMS 1", func(t *testing.T) {
		for csms, want := range map[int]int{0: 0, 1: 2} {
			extra := fmt.Sprintf("profiles:\n  - {name: x, manufacturer: Generic, model: '.*', csms: %d}\n", csms)
			bubble(t, &script{}, func(t *testing.T, r *rig) {
				r.idle()
				r.line(-1).Say("+CMT: ,24", ciao, "+CDS: 25", reportPDU(1, phone1, 0))
				time.Sleep(time.Second)
				if n := r.count("AT+CNMA"); n != want {
					t.Errorf("CSMS %d: %d acknowledgements", csms, n)
				}
			}, func(c *Config) { c.Profiles = withExtra(t, extra) })
		}
	})
	t.Run("storage full: purge at four fifths, alarm", func(t *testing.T) {
		bubble(t, &script{over: map[string][]string{"AT+CPMS?": {`+CPMS: "ME",8,10,"ME",8,10,"ME",8,10`, "OK"}}}, func(t *testing.T, r *rig) {
			r.idle()
			if s := r.bay.Status(); s.Stored != 8 || s.StoreSize != 10 || !slices.Contains(r.owner.alarms(), StorageFull) || r.count("AT+CMGD=1,1") != 1 {
				t.Errorf("%+v %v", s, r.owner.alarms())
			}
		})
	})
	t.Run("^SMMEMFULL purges", func(t *testing.T) {
		bubble(t, &script{}, func(t *testing.T, r *rig) {
			r.idle()
			before := r.count("AT+CMGL=4")
			r.line(-1).Say(`^SMMEMFULL: "SM"`)
			time.Sleep(time.Second)
			if r.count("AT+CMGL=4") != before+1 || !slices.Contains(r.owner.alarms(), StorageFull) {
				t.Error("nothing happened")
			}
		})
	})
	t.Run("odd announcements lead to a look at everything", func(t *testing.T) {
		for _, line := range []string{`+CMTI: "ME"`, `+CMTI: ,3`, `+CMTI: "ME",x`, `+CMTI: "ME",0`, `+CMTI: "M\"",1`, `+CMTI: "ME",99999999999`} {
			bubble(t, &script{}, func(t *testing.T, r *rig) {
				r.idle()
				before := r.count("AT+CMGL=4")
				r.line(-1).Say(line)
				time.Sleep(time.Second)
				if r.count("AT+CMGL=4") != before+1 || r.count("AT+CMGR") != 0 {
					t.Errorf("%s: %q", line, r.written())
				}
			})
		}
	})
}

// TestMessageGoesFirst: what can wait waits.
func TestMessageGoesFirst(t *testing.T) {
	bubble(t, &script{}, func(t *testing.T, r *rig) {
		r.idle()
		for i := range 50 {
			r.line(-1).Say(fmt.Sprintf(`+CMTI: "ME",%d`, i+1))
		}
		synctest.Wait()
		began := time.Now()
		if o, _ := r.send(phone1, "x"); o.Result != Accepted || time.Since(began) != 0 {
			t.Errorf("%+v after %v", o, time.Since(began))
		}
	})
}

// FuzzIncoming: nothing a modem hands over upsets the bay.
func FuzzIncoming(f *testing.F) {
	f.Add("+CDS: 25", reportPDU(1, phone1, 0))
	f.Add(`+CMTI: "SM",3`, "")
	f.Add(`+CPMS: "ME",8,10`, deliverPDU("393401234567", "ciao", 0, 0))
	f.Add("+CREG: 2,1,\"00\"", "+CMGS: 1")
	f.Add(`+CUSD: 0,"00430069",72`, "^SMMEMFULL")
	set := profiles(f)
	f.Fuzz(func(t *testing.T, line, text string) {
		b := New(Config{Place: Place{Name: "a"}, Owner: &owner{}, Log: discard, Now: time.Now, Timing: defaults, Profiles: set})
		b.indication(indicationOf(line, text))
		b.registrationNews(line)
		b.direct(text)
		_ = pdu.USSD(at.USSD(line))
		_, _ = at.Reference(line)
		if len(b.inbox.todo) > todoRoom {
			t.Error("memory grows")
		}
		for _, s := range b.inbox.todo {
			if len(s.store) != 2 || strings.Trim(s.store, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
				t.Errorf("storage %q would stand in a command", s.store)
			}
		}
	})
}

// TestSlowListHoldsNoMessageUp: while a modem lists its storage for a minute, a message
// is told so at once.
func TestSlowListHoldsNoMessageUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &script{}
		slow.hook = func(p *modemtest.Port, cmd string) bool {
			if cmd == "AT+CMGL=4" {
				time.AfterFunc(time.Minute, func() { p.Say("OK") })
				return true
			}
			return false
		}
		r := newRig(t, slow)
		defer r.stop()
		r.until(Ready)
		for r.count("AT+CMGL") == 0 {
			time.Sleep(100 * time.Millisecond)
		}
		began := time.Now()
		if o, _ := r.send(phone1, "codice"); o.Result != Untouched || time.Since(began) > time.Second {
			t.Errorf("%+v after %v", o, time.Since(began))
		}
		time.Sleep(2 * time.Minute)
		if o, _ := r.send(phone1, "codice"); o.Result != Accepted {
			t.Errorf("after the list: %+v", o)
		}
	})
}

// TestIncomingFlood: a modem that invents messages fills neither memory nor the
// owner's disk; later ones are taken again.
func TestIncomingFlood(t *testing.T) {
	b, o := still(t)
	now := time.Now()
	b.cfg.Now = func() time.Time { return now }
	for i := range 5000 {
		b.direct(deliverPDU("393401234567", fmt.Sprint(i), 0, 0))
	}
	if n := len(o.heard(Received)); n != floodRoom || len(b.inbox.unkept) > unkeptRoom {
		t.Errorf("%d messages were given to the owner, %d are kept", n, len(b.inbox.unkept))
	}
	now = now.Add(floodSpan)
	b.direct(deliverPDU("393401234567", "dopo", 0, 0))
	if n := len(o.heard(Received)); n != floodRoom+1 {
		t.Errorf("%d after the flood", n)
	}
}
