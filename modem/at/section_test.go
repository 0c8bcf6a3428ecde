package at_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"custode/modem/at"
	"custode/modem/modemtest"
	"custode/modem/port"
)

// TestFinals is modem.md section 1.1: which lines end a transaction.
func TestFinals(t *testing.T) {
	for line, final := range map[string]bool{
		"OK": true, "ERROR": true, "+CME ERROR: 14": true, "+CME ERROR: SIM busy": true, "+CME ERROR:": true, "+CMS ERROR: 500": true, "+EXT ERROR: 3": true,
		"COMMAND NOT SUPPORT": true, "MODEM ERROR: 4": true, "NA": true, "NO CARRIER": true, "BUSY": true, "NO ANSWER": true, "NO DIALTONE": true, "CONNECT 9600": true,
		"OKAY": false, "+CMS ERRORS": false, "+CMGS: 4": false, "NAK": false, "0": false, "": false, "ok": false,
	} {
		if _, ok := at.ParseFinal(line); ok != final {
			t.Errorf("%q: %v", line, ok)
		}
	}
}

// TestManners: a modem that answers in digits (ATV0), or not at all (ATQ1), is told how.
func TestManners(t *testing.T) {
	for name, quiet := range map[string]string{"digits": "0", "silence": ""} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				polite := false
				e, _, _ := rig(func(p *modemtest.Port, got string) {
					switch {
					case strings.HasPrefix(got, "ATE0V1Q0"):
						polite = true
						p.Say("OK")
					case !polite && quiet != "":
						p.Say(quiet)
					case polite && strings.HasPrefix(got, "AT+CSQ"):
						p.Say("+CSQ: 20,0", "OK")
					case polite:
						p.Say("OK")
					}
				})
				if err := e.Resync(t.Context()); err != nil || e.Dirty() {
					t.Errorf("%v, dirty %v", err, e.Dirty())
				}
			})
		})
	}
}

// TestTwoLines: the second line of an announced PDU is taken only if it can be one.
func TestTwoLines(t *testing.T) {
	pdu := strings.Repeat("0A", 26)
	for name, c := range map[string]struct {
		lines []string
		pdu   string
	}{
		"length announced":     {[]string{"+CDS: 25", pdu}, pdu},
		"ZTE":                  {[]string{"+CDS: ,25", pdu}, pdu},
		"with alpha":           {[]string{`+CMT: "Rossi, M",25`, pdu}, pdu},
		"not a number":         {[]string{"+CDS: x", pdu}, pdu},
		"too short for it":     {[]string{"+CDS: 25", "8939010000000000"}, ""},
		"too long for it":      {[]string{"+CDS: 5", pdu}, ""},
		"cut by another":       {[]string{"+CDS: 25", "+CREG: 1"}, ""},
		"not hexadecimal":      {[]string{"+CMT: ,25", "ciao a tutti"}, ""},
		"broadcast is dropped": {[]string{"+CBM: 25", pdu}, pdu},
	} {
		t.Run(name, func(t *testing.T) {
			e, _, seen := rig(func(p *modemtest.Port, _ string) { p.Say(append(c.lines, "+CSQ: 1,0", "OK")...) })
			if _, err := e.Do(t.Context(), csq); err != nil {
				t.Fatal(err)
			}
			if len(*seen) == 0 || (*seen)[0].PDU != c.pdu {
				t.Errorf("%+v", *seen)
			}
		})
	}
}

// TestStale: an earlier transaction's answer inside a later one.
func TestStale(t *testing.T) {
	stale := func(line string) bool { return line == "+CMGS: 1" }
	for name, c := range map[string]struct {
		says []string
		want string
		err  error
	}{
		"then our own":     {[]string{"+CMGS: 1", "OK", "+CMGS: 2", "OK"}, "[+CMGS: 2]", nil},
		"alone":            {[]string{"+CMGS: 1", "OK"}, "[]", at.ErrUnclear},
		"our own only":     {[]string{"+CMGS: 2", "OK"}, "[+CMGS: 2]", nil},
		"then our refusal": {[]string{"+CMGS: 1", "OK", "+CMS ERROR: 42"}, "[]", &at.Refusal{}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, _, _ := rig(func(p *modemtest.Port, got string) {
					if strings.HasSuffix(got, "\x1a") {
						p.Say(c.says...)
						return
					}
					p.Prompt()
				})
				began := time.Now()
				r, err := e.Do(t.Context(), at.Command{Text: "AT+CMGS=1", Prefix: "+CMGS:", Payload: []byte("00"), Timeout: time.Minute, Stale: stale, StaleGrace: 10 * time.Second})
				var refusal *at.Refusal
				switch {
				case c.err == nil && err != nil, errors.Is(c.err, at.ErrUnclear) && (!errors.Is(err, at.ErrUnclear) || time.Since(began) != 10*time.Second || !e.Dirty()):
					t.Errorf("%v after %v", err, time.Since(began))
				case errors.As(c.err, &refusal) && !errors.As(err, &refusal):
					t.Errorf("%v", err)
				}
				if got := fmt.Sprint(r.Lines); got != c.want {
					t.Errorf("%s", got)
				}
			})
		})
	}
}

// TestLineReaders: announcements and references.
func TestLineReaders(t *testing.T) {
	for line, want := range map[string]string{
		`+CMTI: "SM",3`: "SM 3 true", `+CDSI:"SR",12`: "SR 12 true", `+CMTI: ME,0`: "ME 0 true", `+CMTI: "sm",1`: "SM 1 true",
		`+CMTI: "SM"`: " 0 false", `+CMTI: "S;",1`: " 0 false", `+CMTI: "SM",-1`: " 0 false", `+CMTI: "SM",70000`: " 0 false",
	} {
		if store, n, ok := at.Stored(line); fmt.Sprint(store, " ", n, " ", ok) != want {
			t.Errorf("%s: %s %d %v", line, store, n, ok)
		}
	}
	for line, want := range map[string]string{"+CMGS: 0": "0 true", "+CMGS: 255,12": "255 true", "+CMGS:7": "7 true", "+CMGS: 256": "255 false", "+CMGS:": "0 false", "+CMGR: 1": "0 false"} {
		if n, ok := at.Reference(line); fmt.Sprint(n, ok) != want && fmt.Sprint(n, " ", ok) != want {
			t.Errorf("%s: %d %v, want %s", line, n, ok, want)
		}
	}
	for line, want := range map[string]int{"+CREG: 0,6": 6, "+CREG: 000,001": 1, `+CEREG: 2,5,"00A1","0F5B",7`: 5, "+CREG: 5": 0, `+CREG: 5,"00A1","0F5B"`: 0} {
		if n := at.Registration(line); n != want {
			t.Errorf("%s: %d", line, n)
		}
	}
}

// floodPort says a line whenever somebody listens: a modem (or a wrong baud rate) that
// never stops.
type floodPort struct {
	tokens chan port.Token
	stop   chan struct{}
}

func newFloodPort() *floodPort {
	f := &floodPort{tokens: make(chan port.Token, 64), stop: make(chan struct{})}
	go func() {
		defer close(f.tokens)
		for {
			select {
			case f.tokens <- port.Token{Kind: port.Line, Text: "^RSSI: 12"}:
			case <-f.stop:
				return
			}
		}
	}()
	return f
}

func (f *floodPort) Write(context.Context, []byte) error { return nil }
func (f *floodPort) Tokens() <-chan port.Token           { return f.tokens }
func (f *floodPort) Close() error                        { close(f.stop); return nil }

// TestFloodBeforeACommand: lines that come faster than they are handled hold no command
// (and no shutdown) up for ever.
func TestFloodBeforeACommand(t *testing.T) {
	f := newFloodPort()
	defer f.Close()
	for len(f.tokens) < cap(f.tokens) {
		time.Sleep(time.Millisecond)
	}
	slow := func(at.Indication) { time.Sleep(200 * time.Microsecond) }
	e := at.New(f, at.Config{Indication: slow})
	done := make(chan error, 1)
	go func() {
		_, err := e.Do(t.Context(), at.Command{Text: "AT", Timeout: 100 * time.Millisecond})
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil {
			t.Error("answered by nobody")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the command never began")
	}
}
