package bay

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"custode/internal/id"
	"custode/modem/modemtest"
)

// bubble runs f in virtual time with a bay on s and stops it.
func bubble(t *testing.T, s *script, f func(t *testing.T, r *rig), change ...func(*Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, s, change...)
		defer r.stop()
		f(t, r)
	})
}

// TestSection13 is modem.md section 1.3, one subtest a row.
func TestSection13(t *testing.T) {
	pin := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(pin, []byte("4321\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	withPIN := func(c *Config) { c.Place.SIMPIN = pin }
	ready := func(want ...string) func(*testing.T, *rig) {
		return func(t *testing.T, r *rig) {
			r.until(Ready)
			for _, w := range want {
				if r.count(w+"\r") == 0 {
					t.Errorf("%s was not sent: %q", w, r.written())
				}
			}
		}
	}
	vendor := func(manufacturer, model string, more map[string][]string) *script {
		over := map[string][]string{"AT+CGMI": {manufacturer, "OK"}, "AT+CGMM": {model, "OK"}}
		for k, v := range more {
			over[k] = v
		}
		return &script{over: over}
	}
	ok := &script{}
	answers := func(cmd string, lines ...string) *script { return &script{over: map[string][]string{cmd: lines}} }

	for _, c := range []struct {
		row    string
		script *script
		check  func(*testing.T, *rig)
		change func(*Config)
	}{
		{"row 0 escape, drain before anything", ok, func(t *testing.T, r *rig) {
			r.until(Ready)
			if w := r.written(); w[0] != "\x1b\r" || w[1] != "AT\r" {
				t.Errorf("begins with %q", w[:2])
			}
		}, nil},
		{"row 1 AT up to five times half a second apart", &script{hook: func() func(*modemtest.Port, string) bool {
			n := 0
			return func(_ *modemtest.Port, cmd string) bool {
				if strings.HasPrefix(cmd, "AT") {
					n++
				}
				return n < 5
			}
		}()}, func(t *testing.T, r *rig) {
			began := time.Now()
			r.until(Ready)
			if took := time.Since(began); took > 5*time.Second || r.opens() != 1 {
				t.Errorf("ready after %v and %d openings", took, r.opens())
			}
		}, nil},
		{"row 1 ERROR is an answer, too", &script{hook: func(p *modemtest.Port, cmd string) bool {
			if cmd != "AT" {
				return false
			}
			p.Say("ERROR")
			return true
		}}, func(t *testing.T, r *rig) { time.Sleep(20 * time.Second); r.until(Ready) }, nil},
		{"row 2 ATZ refused while the card is locked", answers("ATZ", "ERROR"), ready("ATZ"), nil},
		{"row 3 manners one by one", &script{over: map[string][]string{"ATE0V1Q0": {"ERROR"}}}, ready("ATE0", "ATV1", "ATQ0"), nil},
		{"row 4 CMEE 2 when 1 is refused", answers("AT+CMEE=1", "ERROR"), ready("AT+CMEE=2"), nil},
		{"row 5 profile and identity", vendor("Quectel", "EC25", nil), func(t *testing.T, r *rig) {
			r.until(Ready)
			if s := r.bay.Status(); s.Profile != "ec25" || s.IMEI != "350000000000001" || s.Model != "EC25" {
				t.Errorf("%+v", s)
			}
		}, nil},
		{"row 5 another modem than configured is refused", ok, func(t *testing.T, r *rig) {
			r.until(NeedsHand)
			if !slices.Contains(r.owner.alarms(), Impostor) {
				t.Error("no alarm")
			}
		}, func(c *Config) { c.Place.IMEI = "860000000000009" }},
		{"row 5 simulator refused by manufacturer", answers("AT+CGMI", "SIMULATOR", "OK"), func(_ *testing.T, r *rig) { r.until(NeedsHand) }, func(c *Config) { c.AllowSimulated = false }},
		{"row 5 simulator refused by revision", answers("AT+CGMR", "1.0 SIMULATOR", "OK"), func(_ *testing.T, r *rig) { r.until(NeedsHand) }, func(c *Config) { c.AllowSimulated = false }},
		{"row 6 leaves flight mode", answers("AT+CFUN?", "+CFUN: 4", "OK"), ready("AT+CFUN=1"), nil},
		{"row 6 515 for a while after CFUN", func() *script {
			n := 0
			return &script{hook: func(p *modemtest.Port, cmd string) bool {
				if cmd != "AT+CPIN?" || n >= 2 {
					return false
				}
				n++
				p.Say("+CME ERROR: 515")
				return true
			}}
		}(), ready(), nil},
		{"row 7 READY without OK", answers("AT+CPIN?", "+CPIN: READY"), ready(), nil},
		{"row 7 quoted READY", answers("AT+CPIN?", `+CPIN: "READY"`, "OK"), ready(), nil},
		{"row 7 PUK needs a hand", answers("AT+CPIN?", "+CPIN: SIM PUK", "OK"), func(_ *testing.T, r *rig) { r.until(NeedsHand) }, withPIN},
		{"row 7 card failure is retried for a minute", func() *script {
			n := 0
			return &script{hook: func(p *modemtest.Port, cmd string) bool {
				if cmd != "AT+CPIN?" || n >= 20 {
					return false
				}
				n++
				p.Say("+CME ERROR: 13")
				return true
			}}
		}(), ready(), nil},
		{"row 7 no card for ever needs a hand", answers("AT+CPIN?", "+CME ERROR: 10"), func(_ *testing.T, r *rig) { r.until(NeedsHand) }, nil},
		{"row 8 PIN once, after the tries left", answers("AT+CPIN?", "+CPIN: SIM PIN", "OK"), func(t *testing.T, r *rig) {
			r.until(Ready)
			if r.count("AT+CPINR") != 1 || r.count(`AT+CPIN="4321"`) != 1 {
				t.Errorf("%q", r.written())
			}
		}, withPIN},
		{"row 8 never with one try left", &script{over: map[string][]string{"AT+CPIN?": {"+CPIN: SIM PIN", "OK"}, "AT+CPINR": {"+CPINR: SIM PIN,1,3", "OK"}}}, func(t *testing.T, r *rig) {
			r.until(NeedsHand)
			if r.count(`AT+CPIN="`) != 0 {
				t.Error("the PIN was tried")
			}
		}, withPIN},
		{"row 8 a refused PIN is not tried again", &script{over: map[string][]string{"AT+CPIN?": {"+CPIN: SIM PIN", "OK"}, `AT+CPIN="4321"`: {"+CME ERROR: 16"}}}, func(t *testing.T, r *rig) {
			time.Sleep(2 * time.Hour)
			if n := r.count(`AT+CPIN="`); n != 1 || r.bay.Status().State != NeedsHand {
				t.Errorf("%d tries, %s", n, r.bay.Status().State)
			}
			if strings.Contains(r.log.String(), "4321") {
				t.Error("the PIN is in the log")
			}
		}, withPIN},
		{"row 9 card number by another command", answers("AT+CCID", "ERROR"), ready("AT+CIMI", "AT+ICCID"), nil},
		{"row 9 the test network is a simulator", answers("AT+CIMI", "001010000000001", "OK"), func(_ *testing.T, r *rig) { r.until(NeedsHand) }, func(c *Config) { c.AllowSimulated = false }},
		{"row 10 news of registration, refusals ignored", &script{over: map[string][]string{"AT+CREG=1": {"ERROR"}, "AT+CGREG=1": {"ERROR"}, "AT+CEREG=1": {"ERROR"}}}, ready("AT+CREG=2", "AT+CEREG=1"), nil},
		{"row 12 COPS refused", &script{over: map[string][]string{"AT+COPS=3,2": {"ERROR"}, "AT+COPS?": {"+CME ERROR: 4"}}}, ready(), nil},
		{"row 13 character set", answers(`AT+CSCS="GSM"`, "ERROR"), ready(`AT+CSCS="IRA"`), nil},
		{"row 14 CSMS 0 refused is no obstacle", answers("AT+CSMS=0", "+CMS ERROR: 303"), ready("AT+CMGF=0"), nil},
		{"row 14 a modem that cannot send", answers("AT+CSMS=0", "+CSMS: 1,0,1", "OK"), func(_ *testing.T, r *rig) { r.until(NeedsHand) }, nil},
		{"row 15 no PDU mode, no service", answers("AT+CMGF=0", "ERROR"), func(t *testing.T, r *rig) {
			time.Sleep(time.Minute)
			if s := r.bay.Status().State; s == Ready || r.opens() < 2 {
				t.Errorf("%s after %d openings", s, r.opens())
			}
		}, nil},
		{"row 16 the configured centre is set", ok, ready(`AT+CSCA="+393770001016",145`), func(c *Config) { c.Place.Centre = mustPhone("+393770001016") }},
		{"row 16 an empty centre is told", answers("AT+CSCA?", `+CSCA: "",129`, "OK"), func(t *testing.T, r *rig) {
			r.until(Ready)
			if !slices.Contains(r.owner.alarms(), OurMistake) {
				t.Error("no alarm")
			}
		}, nil},
		{"row 16 busy card", func() *script {
			n := 0
			return &script{hook: func(p *modemtest.Port, cmd string) bool {
				if cmd != "AT+CSCA?" || n >= 10 {
					return false
				}
				n++
				p.Say("+CME ERROR: 14")
				return true
			}}
		}(), ready(), nil},
		{"row 17 storage of the modem's choice", answers("AT+CPMS=?", `+CPMS: ("SM","MT"),("SM"),("SM")`, "OK"), ready(`AT+CPMS="SM","SM","SM"`), nil},
		{"row 17 two storages in an extra bracket", vendor("WAVECOM MODEM", "Q2", map[string][]string{"AT+CPMS=?": {`+CPMS: (("SM","BM","SR"),("SM"))`, "OK"}}), ready(`AT+CPMS="SM","SM"`), nil},
		{"row 17 odd lists", answers("AT+CPMS=?", `+CPMS: (), "ME" , ("SM" )`, "OK"), ready(`AT+CPMS="ME","ME","ME"`), nil},
		{"row 17 nothing offered", answers("AT+CPMS=?", "ERROR"), ready(), nil},
		{"row 18 what is stored is taken and deleted", answers("AT+CMGL=4", "+CMGL: 3,1,,24", deliverPDU("393401234567", "ciao", 0, 0), "OK"), func(t *testing.T, r *rig) {
			r.until(Ready)
			time.Sleep(time.Second)
			if got := r.owner.heard(Received); len(got) != 1 || got[0].Incoming.Text != "ciao" || r.count("AT+CMGD=3\r") != 1 {
				t.Errorf("%+v, %q", got, r.written())
			}
		}, nil},
		{"row 19 CNMI in order", &script{over: map[string][]string{"AT+CNMI=2,1,0,1,0": {"+CMS ERROR: 303"}, "AT+CNMI=1,1,0,1,0": {"ERROR"}}}, func(t *testing.T, r *rig) {
			ready("AT+CNMI=2,1,0,1,0", "AT+CNMI=1,1,0,1,0", "AT+CNMI=2,1,0,2,0", "AT+CNMI?")(t, r)
			if r.count("AT+CNMI=1,1,0,2,0") != 0 {
				t.Error("it went on after one was accepted")
			}
		}, nil},
		{"row 20 CMMS refused", answers("AT+CMMS=0", "+CMS ERROR: 500"), ready("AT+CMMS=0"), nil},
		{"row 21 extras of the profile", vendor("huawei", "E3372", map[string][]string{"AT^CURC=0": {"COMMAND NOT SUPPORT"}}), ready("AT^CURC=0", "AT^PORTSEL=1"), nil},
		{"row 22 99 is unknown, CESQ tells", &script{over: map[string][]string{"AT+CSQ": {"+CSQ: 99,99", "OK"}, "AT+CESQ": {"+CESQ: 99,99,255,255,20,41", "OK"}}}, func(t *testing.T, r *rig) {
			r.until(Ready)
			if s := r.bay.Status().Signal; s != -100 {
				t.Errorf("signal %d", s)
			}
		}, nil},
		{"budget responsive modem ready in less than 2 s", ok, func(t *testing.T, r *rig) {
			began := time.Now()
			r.until(Ready)
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("took %v", took)
			}
		}, nil},
	} {
		t.Run(c.row, func(t *testing.T) {
			var change []func(*Config)
			if c.change != nil {
				change = append(change, c.change)
			}
			bubble(t, c.script, c.check, change...)
		})
	}
}

// TestSection13Registration is row 11: which states let messages go.
func TestSection13Registration(t *testing.T) {
	for stat, want := range map[string]State{
		"0,1": Ready, "0,5": Ready, "0,6": Ready, "0,7": Ready, "0,9": Ready, "0,10": Ready, "000,001": Ready, `2,1,"00A1","0F5B",7`: Ready,
		"0,0": NoNetwork, "0,2": NoNetwork, "0,3": NoNetwork, "0,4": NoNetwork, "0,8": NoNetwork,
	} {
		t.Run("row 11 CREG "+stat, func(t *testing.T) {
			bubble(t, &script{over: map[string][]string{"AT+CREG?": {"+CREG: " + stat, "OK"}, "AT+CEREG?": {"+CEREG: 0,2", "OK"}}}, func(_ *testing.T, r *rig) { r.until(want) })
		})
	}
	t.Run("row 11 LTE side alone", func(t *testing.T) {
		bubble(t, &script{over: map[string][]string{"AT+CREG?": {"+CREG: 0,0", "OK"}, "AT+CEREG?": {"+CEREG: 0,1", "OK"}}}, func(_ *testing.T, r *rig) { r.until(Ready) })
	})
}

// TestTriesLeft: the vendors' answers to "how many tries are left".
func TestTriesLeft(t *testing.T) {
	pin := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(pin, []byte("4321\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ manufacturer, model, query, answer string }{
		{"SIMCOM", "SIM800L", "AT+SPIC", "+SPIC: %d,10,0,10"}, {"Quectel", "EC25", "AT+QPINC?", `+QPINC: "SC",%d,10`},
		{"huawei", "E173", "AT^CPIN?", "^CPIN: SIM PIN,%d,10,3,10,3"}, {"Telit", "LE910", "AT#PCT", "#PCT: %d"},
		{"u-blox", "SARA", "AT+UPINCNT", "+UPINCNT: %d,3,10,10"}, {"WAVECOM", "Q2", "AT+CPINC", "+CPINC: %d,3,10,10"}, {"ZTE", "MF190", "AT+CPINR", "+CPINR: SIM PIN,%d,3"},
	} {
		for left, want := range map[int]int{3: 1, 1: 0} {
			t.Run(fmt.Sprintf("%s %d", c.query, left), func(t *testing.T) {
				bubble(t, &script{over: map[string][]string{
					"AT+CGMI": {c.manufacturer, "OK"}, "AT+CGMM": {c.model, "OK"}, "AT+CPIN?": {"+CPIN: SIM PIN", "OK"},
					c.query: {fmt.Sprintf(c.answer, left), "OK"},
				}}, func(t *testing.T, r *rig) {
					time.Sleep(20 * time.Second)
					if n := r.count(`AT+CPIN="`); n != want {
						t.Errorf("%d tries, want %d", n, want)
					}
				}, func(c *Config) { c.Place.SIMPIN = pin })
			})
		}
	}
}

func mustPhone(s string) id.Phone {
	p, err := id.ParsePhone(s)
	if err != nil {
		panic(err)
	}
	return p
}
