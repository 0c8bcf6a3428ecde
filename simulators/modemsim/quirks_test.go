package modemsim

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"custode/simulators/modemsim/dialect"
)

// on returns a terminal on a single modem of a make, with a card that is ready.
func on(t *testing.T, cfg Config) (*Bank, terminal) {
	t.Helper()
	if cfg.Pace == 0 {
		cfg.Pace = 1e-6
	}
	cfg.Tweak = func(_ int, p *dialect.Profile) { p.PlugLines = false }
	b := bank(t, cfg)
	c := dial(t, b, 0)
	if b.Profile(0).LateEcho {
		c.ask("ATE0\r", "ATE0\r")
	} else {
		c.ask("ATE0\r", "OK\r\n", "OK\r\r\n")
	}
	c.ask("AT+CMEE=1\r", "OK\r\n", "OK\r\r\n")
	return b, c
}

func TestDialects(t *testing.T) {
	type step struct{ say, want string }
	const ok, cr = "\r\nOK\r\n", "\r\n"
	line := func(l ...string) string { return cr + strings.Join(l, cr+cr) + cr }
	for make, steps := range map[string][]step{
		"generic": {
			{"AT+CPINR\r", line("+CPINR: SIM PIN,3,3", "+CPINR: SIM PUK,10,10", "OK")},
			{"AT+NONE\r", line("+CME ERROR: 4")},
			{"AT+CESQ\r", line("+CESQ: 99,99,255,255,16,42", "OK")},
			{"ATS3?\r", line("013", "OK")},
			{"ATV0\r", "0\r"},
			{"AT+CSQ\r", "+CSQ: 21,0\r\n0\r"},
			{"ATQ1\r AT+CSQ\r", "+CSQ: 21,0\r\n"},
			{"ATQ0V1\r", ok},
			{"ATS4=32\r", "\r OK\r "},
			{"ATS4=10\r", ok},
			{"ATZ\r", ok}, // with the echo on again from here
			{"AT\r", "AT\r" + ok},
		},
		"sim800": {
			{"AT+SPIC\r", line("+SPIC: 3,10,3,10", "OK")},
			{"AT+CNMI=2,1,0,1,0\r", line("+CMS ERROR: 303")},
			{"AT+CNMI=1,1,0,1,0\r", ok},
			{"AT+CNMI?\r", line("+CNMI: 1,1,0,1,0", "OK")},
			{"AT+CLAC\r", line("ERROR")},
			{"AT+CEREG?\r", line("ERROR")},
			{"AT+CNMA\r", line("ERROR")},
		},
		"sim7600": {
			{"AT+CREG?\r", line("+CREG: 0,6", "OK")},
			{"AT+ICCID\r", line("+ICCID: 8939000000000000000", "OK")},
		},
		"m66": {
			{"AT+CSMS=1\r", line("+CMS ERROR: 303")},
			{"AT+CSMS=?\r", line("+CSMS: (0,128)", "OK")},
			{"AT+CSMS=0\r", line("+CSMS: 1,1,1", "OK")},
			{"AT+CNMI=2,1,0,2,0\r", line("+CMS ERROR: 303")},
		},
		"ec25": {
			{"AT+QPINC?\r", line(`+QPINC: "SC",3,10`, `+QPINC: "P2",3,10`, "OK")},
			{`AT+QURCCFG="urcport","usbat"` + "\r", ok},
			{"AT+CMGR=3\r", ok},
		},
		"wavecom": {
			{"AT+CPIN?\r", line("+CPIN: READY")},
			{"AT+CPMS=?\r", line(`+CPMS: (("SM","BM","SR"),("SM"))`, "OK")},
			{`AT+CPMS="SM","SM","SM"` + "\r", line("+CMS ERROR: 303")},
			{`AT+CPMS="SM","SM"` + "\r", line("+CPMS: 0,10,0,10", "OK")},
			{"AT+CREG?\r", line("+CREG: 000,001", "OK")},
			{"AT+CFUN=4\r", ok},
			{"AT+CFUN=1\r", ok},
			{"AT+CSQ\r", line("+CME ERROR: 515")},
			{"AT+CSQ\r", line("+CME ERROR: 515")},
			{"AT+CSQ\r", line("+CSQ: 21,0", "OK")},
		},
		"ublox":   {{"AT+CMGS=18\r", "\r\n>"}, {"\x1b", ok}, {"AT+UPINCNT\r", line("+UPINCNT: 3,3,10,10", "OK")}},
		"novatel": {{"AT+CMGS=18\r", ">"}, {"\x1b", ok}},
		"telit":   {{"AT#PCT\r", line("#PCT: 3", "OK")}, {"AT#SELINT=2\r", ok}},
		"zte":     {{"AT+ZPINPUK=?\r", line("+ZPINPUK: 3,10", "OK")}},
		"qualcomm": {
			{"AT+CNMI=2,1,0,1,0\r", line("+CME ERROR: 4")},
			{"AT+CNMI=2,1,0,2,0\r", ok},
			{"AT+CPIN?\r", line(`+CPIN: "READY"`, "OK")},
			{"AT+CSMP=17,167,0,0\r", ok},
			{"AT+CSCA?\r", line(`+CSCA: "",145`, "OK")},
			{"AT+CMGS=18\r", "\r\n> "},
			{hello + "\x1a", line("+CMS ERROR: 330")},
		},
		"huawei": {
			{"AT+NONE\r", "\r\nCOMMAND NOT SUPPORT\r\r\n"},
			{"AT+CMMS=2\r", "\r\n+CMS ERROR: 500\r\r\n"},
			{"AT^CPIN?\r", "\r\n^CPIN: READY,3,10,3,10,3\r\r\n\r\nOK\r\r\n"},
		},
	} {
		t.Run(make, func(t *testing.T) {
			_, c := on(t, Config{Profiles: []string{make}})
			for _, s := range steps {
				if got := c.ask(s.say, s.want); got != s.want {
					t.Errorf("%q: got %q, want %q", s.say, got, s.want)
				}
			}
		})
	}
}

// Every make can be opened, tells who it is without being taken for real, and sends.
func TestEveryMakeSends(t *testing.T) {
	for _, name := range dialect.Names() {
		t.Run(name, func(t *testing.T) {
			b, c := on(t, Config{Profiles: []string{name}})
			p := b.Profile(0)
			if !strings.Contains(p.Manufacturer+p.Revision, "SIMULATOR") {
				t.Error("could be taken for a real modem")
			}
			if got := c.ask("AT+CGMI;+CGMM;+CGMR;+CGSN\r", "OK"+p.LineEnd); !strings.Contains(got, p.Model) || !strings.Contains(got, b.IMEI(0)) {
				t.Errorf("identity %q", got)
			}
			c.ask("AT+CMGS=18\r", ">", "> ")
			c.ask(hello+"\x1a", "OK"+p.LineEnd)
			if l, err := b.WaitLedger(t.Context(), 1); err != nil || l[0].To != "+393401234567" || l[0].Text != "hello" || !l[0].Told {
				t.Errorf("%+v %v", l, err)
			}
			if _, err := b.Wait(t.Context(), "+393401234567", 1); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestEscMute(t *testing.T) {
	_, c := on(t, Config{Profiles: []string{"qualcomm"}})
	c.ask("AT+CMGS=18\r", "> ")
	if got := c.ask("\x1bAT\r", "OK\r\n"); got != "\r\nOK\r\n" {
		t.Errorf("got %q", got)
	}
}

func TestLateEcho(t *testing.T) {
	quiet := func(_ int, p *dialect.Profile) { p.Boot = nil } // its last boot line may come after the echo
	b := bank(t, Config{Profiles: []string{"ublox"}, Pace: 1e-6, Tweak: quiet})
	c := dial(t, b, 0)
	if got := c.ask("AT+CSQ\r", "AT+CSQ\r"); !strings.HasSuffix(got, "\r\n+CSQ: 21,0\r\n\r\nOK\r\nAT+CSQ\r") {
		t.Errorf("got %q", got)
	}
}

func TestPlaces(t *testing.T) {
	for at, want := range map[Place]string{
		BeforeEcho:      "\r\nX\r\n\r\n> |\r\n+CMGS: 1\r\n\r\nOK\r\n",
		AfterEcho:       "\r\nX\r\n\r\n> |\r\n+CMGS: 1\r\n\r\nOK\r\n",
		BeforePrompt:    "\r\nX\r\n\r\n> |\r\n+CMGS: 1\r\n\r\nOK\r\n",
		AfterPrompt:     "\r\n> \r\nX\r\n|\r\n+CMGS: 1\r\n\r\nOK\r\n",
		BeforeRef:       "\r\n> |\r\nX\r\n\r\n+CMGS: 1\r\n\r\nOK\r\n",
		BetweenRefAndOK: "\r\n> |\r\n+CMGS: 1\r\n\r\nX\r\n\r\nOK\r\n",
		AfterFinal:      "\r\n> |\r\n+CMGS: 1\r\n\r\nOK\r\n\r\nX\r\n",
	} {
		b, c := on(t, Config{})
		b.Inject(0, at, 1, "X")
		prompt, end, _ := strings.Cut(want, "|")
		got := c.ask("AT+CMGS=18\r", prompt) + "|" + c.ask(strings.Replace(hello, "0021", "0001", 1)+"\x1a", end)
		if got != want {
			t.Errorf("place %d: got %q, want %q", at, got, want)
		}
	}
	for at, want := range map[Place]string{
		BeforeInfo:  "\r\nX\r\n\r\n+CSQ: 21,0\r\n\r\nOK\r\n",
		BeforeFinal: "\r\n+CSQ: 21,0\r\n\r\nX\r\n\r\nOK\r\n",
	} {
		b, c := on(t, Config{})
		b.Inject(0, at, 1, "X")
		if got := c.ask("AT+CSQ\r", want); got != want {
			t.Errorf("place %d: got %q, want %q", at, got, want)
		}
		c.ask("AT+CSQ\r", "\r\n+CSQ: 21,0\r\n\r\nOK\r\n")
	}
}

func TestOutcomes(t *testing.T) {
	b, c := on(t, Config{})
	quiet := strings.Replace(hello, "0021", "0001", 1)
	send := func(want string) string {
		c.ask("AT+CMGS=18\r", "> ")
		return c.ask(quiet+"\x1a", want)
	}
	for code := 1; code < 515; code++ {
		b.Script(0, Outcome{CMS: code})
		want := fmt.Sprintf("\r\n+CMS ERROR: %d\r\n", code)
		if got := send(want); got != want {
			t.Fatalf("got %q", got)
		}
	}
	accepted := 0
	for _, x := range []struct {
		o    Outcome
		want string
		took int
	}{
		{Outcome{CME: 30}, "\r\n+CME ERROR: 30\r\n", 0},
		{Outcome{Final: "ERROR"}, "\r\nERROR\r\n", 0},
		{Outcome{Final: "+CMGS:\nCOMMAND NOT SUPPORT"}, "\r\n+CMGS:\r\n\r\nCOMMAND NOT SUPPORT\r\n", 0},
		{Outcome{CMS: 332, Sent: true}, "\r\n+CMS ERROR: 332\r\n", 1},
		{Outcome{NoRef: true}, "\r\nOK\r\n", 1},
		{Outcome{Twice: true}, "\r\n+CMGS: 3\r\n\r\nOK\r\n\r\nOK\r\n", 1},
		{Outcome{}, "\r\n+CMGS: 4\r\n\r\nOK\r\n", 1},
		{Outcome{BrownOut: true}, "\r\nUNDER-VOLTAGE WARNNING\r\n\r\nRDY\r\n\r\n+CPIN: READY\r\n\r\nSMS Ready\r\n", 0},
	} {
		b.Script(0, x.o)
		if got := send(x.want); got != x.want {
			t.Errorf("%+v: got %q", x.o, got)
		}
		accepted += x.took
		if n := len(b.Ledger()); n != accepted {
			t.Errorf("%+v: %d in the ledger, want %d", x.o, n, accepted)
		}
	}
	c.ask("ATE0\r", "OK\r\n")
	// Free: the modem answers other commands, and the receipt comes late.
	b.Script(0, Outcome{Free: true, Delay: 50 * time.Millisecond})
	c.ask("AT+CMGS=18\r", "> ")
	if got := c.ask(quiet+"\x1aAT+CSQ\r", "+CMGS: 5\r\n\r\nOK\r\n"); !strings.HasPrefix(got, "\r\n+CSQ: 21,0\r\n\r\nOK\r\n") {
		t.Errorf("got %q", got)
	}
	// Silence: other commands still work, and the network has the message.
	b.Script(0, Outcome{Silent: true, Sent: true})
	c.ask("AT+CMGS=18\r", "> ")
	if got := c.ask(quiet+"\x1aAT\r", "OK\r\n"); got != "\r\nOK\r\n" {
		t.Errorf("got %q", got)
	}
	if l, err := b.WaitLedger(t.Context(), accepted+2); err != nil || l[len(l)-1].Told || !l[len(l)-2].Told {
		t.Errorf("%+v %v", l, err)
	}
	if h := b.Handoffs(); len(h) != 514+8+2 || h[0].Accepted || !h[len(h)-1].Accepted {
		t.Errorf("%d hand-offs", len(h))
	}
}

func TestReply(t *testing.T) {
	b, c := on(t, Config{})
	b.Reply(0, "+CREG?", 2, "+CREG: 000,001", "OK", "OK")
	for _, want := range []string{"+CREG: 000,001\r\n\r\nOK\r\n\r\nOK\r\n", "+CREG: 000,001\r\n\r\nOK\r\n\r\nOK\r\n", "+CREG: 0,1\r\n\r\nOK\r\n"} {
		c.ask("AT+CREG?\r", want)
	}
	b.Reply(0, "E1", 1)
	if got := c.ask("ATE1\rAT\r", "OK\r\n"); got != "\r\nOK\r\n" {
		t.Errorf("silence is %q", got)
	}
	c.ask("AT+CPIN=\"9999\"\r", "+CME ERROR: 3\r\n")
	cmds := b.Commands(0)
	if last := cmds[len(cmds)-1]; last != "AT+CPIN=****" || cmds[0] != "ATE0" {
		t.Errorf("commands %q", cmds)
	}
	b.Noise(0, 32)
	b.Say(0, "END")
	if got := c.ask("", "END\r\n"); len(got) < 32+5 {
		t.Errorf("noise %q", got)
	}
}
