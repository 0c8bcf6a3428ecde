package at_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"custode/internal/fault"
	"custode/modem/at"
	"custode/modem/modemtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig builds an engine on a scripted port and collects its indications.
func rig(react func(*modemtest.Port, string)) (*at.Engine, *modemtest.Port, *[]at.Indication) {
	p := modemtest.New(react)
	var seen []at.Indication
	return at.New(p, at.Config{Indication: func(i at.Indication) { seen = append(seen, i) }}), p, &seen
}

func says(lines ...string) func(*modemtest.Port, string) {
	return func(p *modemtest.Port, _ string) { p.Say(lines...) }
}

var csq = at.Command{Text: "AT+CSQ", Prefix: "+CSQ:"}

func TestAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		cmd  at.Command
		says []string
		want []string
		seen []at.Indication
	}{
		"plain":            {at.Command{Text: "AT"}, []string{"OK"}, nil, nil},
		"prefixed":         {csq, []string{"+CSQ: 20,0", "OK"}, []string{"+CSQ: 20,0"}, nil},
		"echo":             {csq, []string{"AT+CSQ", "+CSQ: 20,0", "OK"}, []string{"+CSQ: 20,0"}, nil},
		"indications":      {csq, []string{"RING", "+CSQ: 20,0", `+CMTI: "SM",1`, "OK"}, []string{"+CSQ: 20,0"}, []at.Indication{{Line: "RING"}, {Line: `+CMTI: "SM",1`}}},
		"two lines inside": {csq, []string{"+CDS: 4", "0006AB12", "+CSQ: 20,0", "OK"}, []string{"+CSQ: 20,0"}, []at.Indication{{Line: "+CDS: 4", PDU: "0006AB12"}}},
		"cut short":        {csq, []string{"+CDS: 4", "+CSQ: 20,0", "OK"}, []string{"+CSQ: 20,0"}, []at.Indication{{Line: "+CDS: 4"}}},
		"bare":             {at.Command{Text: "AT+CGSN", Bare: true}, []string{"^RSSI: 12", "350000000000001", "OK"}, []string{"350000000000001"}, []at.Indication{{Line: "^RSSI: 12"}}},
		"narrowed": {at.Command{Text: "AT+CREG?", Prefix: "+CREG:", Accept: func(l string) bool { return len(at.Fields(l, "+CREG:")) > 1 }},
			[]string{"+CREG: 5", "+CREG: 1,1", "OK"}, []string{"+CREG: 1,1"}, []at.Indication{{Line: "+CREG: 5"}}},
		"boot before armed": {csq, []string{"RDY", "+CSQ: 9,0", "OK"}, []string{"+CSQ: 9,0"}, []at.Indication{{Line: "RDY", Boot: at.BootHard}}},
	} {
		t.Run(name, func(t *testing.T) {
			e, _, seen := rig(says(c.says...))
			r, err := e.Do(t.Context(), c.cmd)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, r.Lines); d != "" {
				t.Error("answer", d)
			}
			if d := cmp.Diff(c.seen, *seen); d != "" {
				t.Error("indications", d)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	for line, want := range map[string]at.Refusal{
		"ERROR":               {Set: at.Plain, Code: -1},
		"+CME ERROR: 14":      {Set: at.CME, Code: 14},
		"+CMS ERROR: 38":      {Set: at.CMS, Code: 38},
		"+CME ERROR: no SIM":  {Set: at.CME, Code: -1},
		"COMMAND NOT SUPPORT": {Set: at.Plain, Code: -1},
		"MODEM ERROR: 7":      {Set: at.Other, Code: 7},
		"NO CARRIER":          {Set: at.Plain, Code: -1},
	} {
		e, _, _ := rig(says(line))
		_, err := e.Do(t.Context(), csq)
		var got *at.Refusal
		if !errors.As(err, &got) {
			t.Errorf("%s: %v", line, err)
			continue
		}
		want.Text = line
		if *got != want {
			t.Errorf("%s: %+v", line, *got)
		}
		if e.Dirty() {
			t.Errorf("%s: a refusal is an answer, the engine stays clean", line)
		}
	}
}

func TestLateReplyIsNotTheNextAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := true
		e, _, _ := rig(func(p *modemtest.Port, got string) {
			switch {
			case strings.HasPrefix(got, "AT+CGSN") && slow:
				slow = false
				time.AfterFunc(3*time.Second, func() { p.Say("111111111111111", "OK") })
			case strings.HasPrefix(got, "AT+CGMM"):
				p.Say("M1", "OK")
			case strings.HasPrefix(got, "AT+CSQ"):
				p.Say("+CSQ: 20,0", "OK")
			case strings.HasPrefix(got, "AT"), got == "\x1b\r":
				p.Say("OK")
			}
		})
		_, err := e.Do(t.Context(), at.Command{Text: "AT+CGSN", Bare: true, Timeout: time.Second})
		if !errors.Is(err, at.ErrTimeout) || !fault.Is(err, fault.Retry) {
			t.Fatalf("silent modem: %v", err)
		}
		if _, err := e.Do(t.Context(), at.Command{Text: "AT+CGMM", Bare: true}); !errors.Is(err, at.ErrDirty) {
			t.Fatalf("dirty engine took a command: %v", err)
		}
		if err := e.Resync(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second) // the late reply comes while nobody waits
		_, err = e.Do(t.Context(), at.Command{Text: "AT+CGMM", Bare: true})
		if !errors.Is(err, at.ErrDirty) {
			t.Fatalf("a stray OK went unnoticed: %v", err)
		}
		if err := e.Resync(t.Context()); err != nil {
			t.Fatal(err)
		}
		r, err := e.Do(t.Context(), at.Command{Text: "AT+CGMM", Bare: true})
		if err != nil || !cmp.Equal(r.Lines, []string{"M1"}) {
			t.Errorf("after two resynchronisations: %v %v", r.Lines, err)
		}
	})
}

func TestResyncIgnoresStaleFinals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _, _ := rig(func(p *modemtest.Port, got string) {
			switch got {
			case "AT+CSQ\r":
				p.Say("OK", "+CMS ERROR: 500", "ERROR") // all late
				time.AfterFunc(time.Second, func() { p.Say("+CSQ: 20,0", "OK") })
			case "AT\r":
				p.Say("ERROR")
				p.Say("OK")
			}
		})
		if err := e.Resync(t.Context()); err != nil || e.Dirty() {
			t.Fatalf("resync: %v, dirty %v", err, e.Dirty())
		}
	})
}

func TestResyncFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, p, _ := rig(nil)
		start := time.Now()
		if err := e.Resync(t.Context()); !errors.Is(err, at.ErrTimeout) {
			t.Errorf("a mute modem resynchronised: %v", err)
		}
		if took := time.Since(start); took > 15*time.Second {
			t.Errorf("took %v", took)
		}
		for _, w := range p.Written() {
			if strings.Contains(w, "\x1a") {
				t.Error("Ctrl-Z sent to get out of a prompt")
			}
		}
	})
}

func TestIndicationsDoNotMoveTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, p, _ := rig(nil)
		stop := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					p.Say("^RSSI: 12")
				case <-stop:
					return
				}
			}
		}()
		start := time.Now()
		_, err := e.Do(t.Context(), at.Command{Text: "AT+CSQ", Prefix: "+CSQ:", Timeout: time.Second})
		if !errors.Is(err, at.ErrTimeout) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		close(stop)
		<-done
	})
}

func submit(steps *[]at.Step) at.Command {
	return at.Command{Text: "AT+CMGS=14", Prefix: "+CMGS:", Payload: []byte("0011000B919343214365F70000AA0141"), Timeout: time.Minute,
		SlowAfter: 12 * time.Second, OnStep: func(s at.Step) { *steps = append(*steps, s) }}
}

func TestPayload(t *testing.T) {
	for name, c := range map[string]struct {
		react func(p *modemtest.Port, got string)
		lines []string
		cause error
		left  bool
		steps []at.Step
	}{
		"accepted": {func(p *modemtest.Port, got string) {
			if strings.HasSuffix(got, "\x1a") {
				p.Say("0011000B919343214365F70000AA0141", "+CREG: 1", "+CMGS: 7", "OK")
				return
			}
			p.Say("AT+CMGS=14", "^RSSI: 12")
			p.Prompt()
		}, []string{"+CMGS: 7"}, nil, true, []at.Step{at.Prompted, at.Written}},
		"no prompt":                {nil, nil, at.ErrNoPrompt, false, nil},
		"OK instead of the prompt": {func(p *modemtest.Port, _ string) { p.Say("OK") }, nil, at.ErrNoPrompt, false, nil},
		"no receipt": {func(p *modemtest.Port, got string) {
			if !strings.HasSuffix(got, "\x1a") {
				p.Prompt()
			}
		}, nil, at.ErrTimeout, true, []at.Step{at.Prompted, at.Written, at.Slow}},
		"port dies": {func(p *modemtest.Port, got string) {
			if strings.HasSuffix(got, "\x1a") {
				p.Die(errors.New("unplugged"))
				return
			}
			p.Prompt()
		}, nil, at.ErrDead, true, []at.Step{at.Prompted, at.Written}},
		"restart": {func(p *modemtest.Port, got string) {
			if strings.HasSuffix(got, "\x1a") {
				p.Say("RDY")
				return
			}
			p.Prompt()
		}, nil, at.ErrRestarted, true, []at.Step{at.Prompted, at.Written}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, _, _ := rig(c.react)
				e.Arm(true)
				var steps []at.Step
				r, err := e.Do(t.Context(), submit(&steps))
				if !errors.Is(err, c.cause) {
					t.Errorf("error %v, want %v", err, c.cause)
				}
				if r.PayloadLeft != c.left || !cmp.Equal(r.Lines, c.lines) || !cmp.Equal(steps, c.steps) {
					t.Errorf("left %v, lines %v, steps %v", r.PayloadLeft, r.Lines, steps)
				}
				if e.Dirty() != (c.cause != nil) {
					t.Errorf("dirty: %v", e.Dirty())
				}
			})
		})
	}
}

func TestResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _, _ := rig(func(p *modemtest.Port, got string) {
			if strings.HasSuffix(got, "\x1a") {
				time.AfterFunc(90*time.Second, func() { p.Say("+CMGS: 9", "OK") })
				return
			}
			p.Prompt()
		})
		var steps []at.Step
		if _, err := e.Do(t.Context(), submit(&steps)); !errors.Is(err, at.ErrTimeout) {
			t.Fatal(err)
		}
		if _, err := e.Resume(t.Context(), 10*time.Second); !errors.Is(err, at.ErrTimeout) {
			t.Fatal(err)
		}
		r, err := e.Resume(t.Context(), time.Minute)
		if err != nil || !cmp.Equal(r.Lines, []string{"+CMGS: 9"}) {
			t.Errorf("late receipt: %v %v", r.Lines, err)
		}
		if !e.Dirty() {
			t.Error("clean without a resynchronisation")
		}
		if _, err := e.Resume(t.Context(), time.Second); !fault.Is(err, fault.Internal) {
			t.Errorf("nothing to resume: %v", err)
		}
	})
}

func TestRefusesControlCharacters(t *testing.T) {
	e, p, _ := rig(says("OK"))
	for _, s := range []string{"", "AT\rAT+CMGS=1", "AT\x1a", "ATè"} {
		if _, err := e.Do(t.Context(), at.Command{Text: s}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", s, err)
		}
	}
	if len(p.Written()) != 0 {
		t.Errorf("wrote %q", p.Written())
	}
}

func TestSecretStaysOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _, _ := rig(nil)
		_, err := e.Do(t.Context(), at.Command{Text: `AT+CPIN="1234"`, Secret: true})
		if err == nil || strings.Contains(err.Error(), "1234") {
			t.Errorf("got %v", err)
		}
	})
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	e, _, _ := rig(func(*modemtest.Port, string) { cancel() })
	if _, err := e.Do(ctx, csq); !errors.Is(err, context.Canceled) || !e.Dirty() {
		t.Errorf("%v, dirty %v", err, e.Dirty())
	}
}

func TestFields(t *testing.T) {
	for in, want := range map[string][]string{
		`+X: 1,"a,b" , c`: {"1", "a,b", "c"}, "+X:": nil, `+X: ,26`: {"", "26"}, `+X: "open`: {`"open`},
	} {
		if got := at.Fields(in, "+X:"); !cmp.Equal(got, want) {
			t.Errorf("%s: %q", in, got)
		}
	}
}

func FuzzLines(f *testing.F) {
	for _, s := range []string{"OK", "+CME ERROR: 14", "+CMS ERROR: 99999", "+CDS: 26\n0006", "+CREG: 1,\"00", "CONNECT 9600", "+CMGS: 7\nOK"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if fin, ok := at.ParseFinal(s); ok && fin.Refused != nil && (len(fin.Refused.Text) > 80 || fin.Refused.Code < -1) {
			t.Fatalf("%+v", fin.Refused)
		}
		if n := len(at.Fields(s, "+CREG:")); n > len(s)+1 {
			t.Fatal(n)
		}
		lines := strings.Split(s, "\n")
		if len(lines) > 500 {
			return
		}
		e, p, _ := rig(func(p *modemtest.Port, _ string) { p.Say(lines...); p.Die(errors.New("end")) })
		r, err := e.Do(t.Context(), csq)
		if err == nil && !strings.Contains(s, "OK") {
			t.Fatalf("success without OK: %q", s)
		}
		for _, l := range r.Lines {
			if !strings.HasPrefix(l, "+CSQ:") {
				t.Fatalf("%q taken for an answer to AT+CSQ", l)
			}
		}
		p.Close()
	})
}
