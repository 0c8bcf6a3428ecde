package modemsim

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"custode/simulators/modemsim/dialect"
	"custode/simulators/modemsim/tpdu"
)

func TestIncoming(t *testing.T) {
	b, c := on(t, Config{})
	c.ask("AT+CPMS=\"SM\",\"SM\",\"SM\";+CNMI=2,1,0,1,0\r", "OK\r\n")
	if err := b.SendTo(0, "+393401112223", "STOP"); err != nil {
		t.Fatal(err)
	}
	c.ask("", "\r\n+CMTI: \"SM\",0\r\n")
	pdu := func(s string) string { return tpdu.WithCentre(s) }
	head := pdu("040C91931011223200"[:4])
	if got := c.ask("AT+CMGR=0\r", "OK\r\n"); !strings.HasPrefix(got, "\r\n+CMGR: 0,,23\r\n"+head) {
		t.Errorf("got %q", got)
	}
	if got := c.ask("AT+CMGL=4\r", "OK\r\n"); !strings.HasPrefix(got, "\r\n+CMGL: 0,1,,23\r\n"+head) {
		t.Errorf("got %q", got)
	}
	if got := c.ask("AT+CMGL=0\r", "OK\r\n"); got != "\r\nOK\r\n" {
		t.Errorf("read it stays unread: %q", got)
	}
	// Areas are apart.
	c.ask("AT+CPMS=\"ME\"\r", "+CPMS: 0,50,1,20,1,20\r\n\r\nOK\r\n")
	c.ask("AT+CMGR=0\r", "+CMS ERROR: 321\r\n")
	c.ask("AT+CPMS=\"SM\";+CMGD=0;+CPMS?\r", "+CPMS: \"SM\",0,20,\"SM\",0,20,\"SM\",0,20\r\n\r\nOK\r\n")
	// Straight to the host.
	c.ask("AT+CNMI=2,2\r", "OK\r\n")
	if err := b.SendTo(0, "TIM", strings.Repeat("a", 200)); err != nil {
		t.Fatal(err)
	}
	if got := c.ask("", "\r\n"); !strings.Contains(got, "+CMT: ,") {
		t.Errorf("got %q", got)
	}
	if n := b.Stored(0, "SM"); n != 0 {
		t.Errorf("%d stored", n)
	}
}

func TestAliasedAreas(t *testing.T) {
	b, c := on(t, Config{Profiles: []string{"sim800"}})
	c.ask("AT+CNMI=1,1,0,1,0\r", "OK\r\n")
	if err := b.SendTo(0, "+39340", "x"); err != nil {
		t.Fatal(err)
	}
	c.ask("", "+CMTI: \"SM\",1\r\n")
	for _, area := range []string{"SM", "SM_P", "MT"} {
		if b.Stored(0, area) != 1 {
			t.Errorf("%s does not show it", area)
		}
	}
	if b.Stored(0, "ME") != 0 {
		t.Error("ME shows it")
	}
}

func TestFullStore(t *testing.T) {
	b, c := on(t, Config{})
	c.ask("AT+CPMS=\"SM\",\"SM\",\"SM\";+CNMI=2,1,0,1,0\r", "OK\r\n")
	b.FillSIM(0)
	if err := b.SendTo(0, "+39340", "late"); err != nil {
		t.Fatal(err)
	}
	c.ask("", "^SMMEMFULL: \"SM\"\r\n")
	c.ask("AT+CMGD=7\r", "OK\r\n\r\n+CMTI: \"SM\",7\r\n")
	m66, d := on(t, Config{Profiles: []string{"m66"}})
	m66.FillSIM(0)
	d.ask("AT+CMGS=18\r", "> ")
	d.ask(hello+"\x1a", "+CMS ERROR: 322\r\n")
	d.ask("AT+CMGD=1,4\r", "OK\r\n")
	d.ask("AT+CMGS=18\r", "> ")
	d.ask(hello+"\x1a", "+CMGS: 1\r\n\r\nOK\r\n")
}

func TestAcknowledgement(t *testing.T) {
	b, c := on(t, Config{})
	c.ask("AT+CSMS=1;+CNMI=2,2,0,1,0\r", "OK\r\n")
	c.ask("AT+CNMA\r", "+CMS ERROR: 340\r\n")
	for range 2 {
		if err := b.SendTo(0, "+39340", "x"); err != nil {
			t.Fatal(err)
		}
	}
	c.ask("", "0178\r\n")
	// The second comes only when the first is acknowledged; it is not, and the
	// modem stops routing.
	if got := c.ask("AT+CNMA\r", "0178\r\n"); !strings.HasPrefix(got, "\r\nOK\r\n\r\n+CMT") {
		t.Errorf("got %q", got)
	}
	deadline := time.Now().Add(5 * time.Second)
	for !strings.Contains(c.ask("AT+CNMI?\r", "OK\r\n"), "+CNMI: 2,0,0,0,0") {
		if time.Now().After(deadline) {
			t.Fatal("routing goes on without acknowledgement")
		}
	}
}

// send submits hello and returns what follows the receipt, up to end.
func (c terminal) send(end string) string {
	c.t.Helper()
	c.ask("AT+CMGS=18\r", ">", "> ")
	return c.ask(hello+"\x1a", end)
}

func TestReportRoutes(t *testing.T) {
	for _, x := range []struct{ make, cnmi, want, then, ends, gives string }{
		{"generic", "2,1,0,1,0", "+CDS: 25\r\n0006010C91934310325476", "", "", ""},
		{"generic", "2,1,0,2,0", "+CDSI: \"SR\",0\r\n", "AT+CPMS=\"SR\";+CMGR=0\r", "OK\r\n", "+CMGR: 0,,25\r\n079193930000001006010C91"},
		{"zte", "2,1,0,1,0", "+CDS: ,25\r\n0006", "", "", ""},
		{"zte", "2,1,0,2,0", "+CDSI: \"SR\",0\r\n", "AT+CPMS=\"SR\";+CMGR=0\r", "OK\r\n", "+CMGR: ,,25\r\n"},
		{"ec25", "2,1,0,2,0", "+CDSI: \"SM\",0\r\n", "AT+CPMS=\"SM\";+CMGR=0\r", "OK\r\n", ""},
		{"ec25", "2,1,0,2,0", "+CDSI: \"SM\",0\r\n", "AT+CPMS=\"SR\";+CMGR=0\r", "OK\r\n", "+CMGR: 0,,25\r\n"},
		{"sim7600", "2,1,0,2,0", "+CDSI:\"SR\",0\r\n", "AT+CPMS=\"SR\";+CMGR=0\r", "321\r\n", "+CMS ERROR: 321"},
	} {
		t.Run(x.make+x.cnmi, func(t *testing.T) {
			_, c := on(t, Config{Profiles: []string{x.make}})
			c.ask("AT+CNMI="+x.cnmi+"\r", "OK\r\n")
			if x.then == "" {
				if got := c.send("00\r\n"); !strings.Contains(got, x.want) {
					t.Errorf("got %q", got)
				}
				return
			}
			c.send(x.want)
			if got := c.ask(x.then, x.ends); !strings.Contains(got, x.gives) || x.gives == "" && strings.Contains(got, "CMGR") {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestReportsThatHarm(t *testing.T) {
	b, c := on(t, Config{Profiles: []string{"novatel"}})
	c.ask("AT+CNMI=2,1,0,1,0\r", "OK\r\n")
	c.send("00\r\n") // the report
	deadline := time.Now().Add(5 * time.Second)
	for hung := false; !hung; {
		b.with(0, func(d *device) { hung = d.faults.hung })
		if time.Now().After(deadline) {
			t.Fatal("it survived")
		}
		time.Sleep(5 * time.Millisecond)
	}
	none, d := on(t, Config{Profiles: []string{"bg96"}})
	d.ask("AT+CNMI=2,1,0,1,0\r", "OK\r\n")
	d.send("OK\r\n")
	if _, err := none.Wait(t.Context(), "+393401234567", 1); err != nil {
		t.Fatal(err)
	}
	none.Say(0, "END")
	if got := d.ask("", "END\r\n"); got != "\r\nEND\r\n" {
		t.Errorf("a report: %q", got)
	}
}

func TestPhoneStates(t *testing.T) {
	b, c := on(t, Config{NationalRA: true})
	const to = "+393401234567"
	c.ask("AT+CNMI=2,1,0,1,0\r", "OK\r\n")
	if got := c.send("00\r\n"); !strings.Contains(got, "0006010A814310325476") {
		t.Errorf("not national: %q", got)
	}
	b.SetPhone(to, Phone{Off: true})
	c.send("+CMGS: 2\r\n\r\nOK\r\n")
	b.SetPhone(to, Phone{})
	c.ask("", "00\r\n")
	b.SetPhone(to, Phone{Gone: true})
	c.send("43\r\n")
	b.SetPhone(to, Phone{Status: 0x46})
	c.send("46\r\n")
	if n := len(b.Inbox(to)); n != 2 {
		t.Errorf("%d messages", n)
	}
}

func TestReferences(t *testing.T) {
	b, c := on(t, Config{})
	b.SetNextRef(0, 255)
	b.SkipZeroRef(0, true)
	c.send("+CMGS: 255\r\n\r\nOK\r\n")
	c.send("+CMGS: 1\r\n\r\nOK\r\n")
}

func TestRegistrationStates(t *testing.T) {
	b, c := on(t, Config{})
	c.ask("AT+CREG=1;+CEREG=2\r", "OK\r\n")
	for stat := range 11 {
		b.SetRegistration(0, stat)
		c.ask("", fmt.Sprintf("+CEREG: %d\r\n", stat), fmt.Sprintf("+CEREG: %d,\"00C3\",\"0001A2B3\",7\r\n", stat))
		c.ask("AT+CMGS=18\r", "> ")
		got := c.ask(hello+"\x1a", "OK\r\n", "331\r\n")
		if sent := strings.Contains(got, "+CMGS"); sent != strings.Contains(" 1 5 6 7 9 10 ", fmt.Sprintf(" %d ", stat)) {
			t.Errorf("stat %d: %q", stat, got)
		}
	}
}

func TestPUK(t *testing.T) {
	b := bank(t, Config{SIMPIN: "4321"})
	c := dial(t, b, 0)
	c.ask("ATE0;+CMEE=1\r", "OK\r\n")
	for range 3 {
		c.ask("AT+CPIN=\"0000\"\r", "+CME ERROR: 16\r\n")
	}
	c.ask("AT+CPIN?\r", "+CPIN: SIM PUK\r\n\r\nOK\r\n")
	c.ask("AT+CPIN=\"4321\"\r", "+CME ERROR: 12\r\n")
	c.ask("AT+CMGS=18\r", "+CMS ERROR: 316\r\n")
	c.ask("AT+CPIN=\"00000000\",\"1111\"\r", "+CME ERROR: 16\r\n")
	if n := b.PUKTries(0); n != 9 {
		t.Errorf("%d PUK tries", n)
	}
	c.ask("AT+CPIN=\""+PUK+"\",\"1111\"\r", "OK\r\n")
	c.ask("AT+CPIN?\r", "+CPIN: READY\r\n\r\nOK\r\n")
	b.Reboot(0)
	c.ask("", "SMS Ready\r\n")
	c.ask("ATE0\r", "OK\r\n")
	c.ask("AT+CPIN=\"1111\"\r", "OK\r\n")
}

func TestCardTroubles(t *testing.T) {
	b, c := on(t, Config{})
	b.SetSIM(0, SIMMissing)
	c.ask("AT+CPIN?\r", "+CME ERROR: 10\r\n")
	c.ask("AT+CMGS=18\r", "+CMS ERROR: 310\r\n")
	b.SetSIM(0, SIMBusy)
	c.ask("AT+CSCA?\r", "+CME ERROR: 14\r\n")
	c.ask("AT+CMGS=18\r", "+CMS ERROR: 314\r\n")
	b.SetSIM(0, SIMReady)
	b.SetCredit(0, 1)
	c.send("OK\r\n")
	c.send("+CMS ERROR: 50\r\n")
	c.ask("AT+CUSD=1,\"*123#\",15\r", "+CUSD: 0,\"Credito residuo: 0 messaggi\",15\r\n")
	b.SwapSIM(0, "001010000009999")
	c.ask("AT+CIMI\r", "001010000009999\r\n\r\nOK\r\n")
	slow, d := on(t, Config{Profiles: []string{"zte"}, Pace: 0.01})
	d.ask("AT+CSCA?\r", "+CME ERROR: 14\r\n")
	deadline := time.Now().Add(5 * time.Second)
	for !strings.Contains(d.ask("AT+CSCA?\r", "OK\r\n", "14\r\n"), "OK") {
		if time.Now().After(deadline) {
			t.Fatal("the card stays busy")
		}
		time.Sleep(10 * time.Millisecond)
	}
	_ = slow
}

func TestAntiSpam(t *testing.T) {
	_, c := on(t, Config{AntiSpam: AntiSpam{PerMinute: 2, Code: 38, Cool: 400 * time.Millisecond}})
	c.send("OK\r\n")
	c.send("OK\r\n")
	c.send("+CMS ERROR: 38\r\n")
	c.send("+CMS ERROR: 38\r\n")
	time.Sleep(500 * time.Millisecond) // the cooling itself is what is tested
	c.send("OK\r\n")
}

func TestNumbers(t *testing.T) {
	b, c := on(t, Config{})
	b.OnNumber("+393401234567", &Outcome{CMS: 27})
	c.send("+CMS ERROR: 27\r\n")
	b.OnNumber("+393401234567", nil)
	b.BadNumber("+393401234567", 1)
	c.send("+CMS ERROR: 1\r\n")
	b.BadNumber("+393401234567", 0)
	c.send("OK\r\n")
}

// reopen waits for a path to appear and dials it.
func reopen(t *testing.T, b *Bank) terminal {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		if _, err := os.Stat(b.Device(0)); err == nil {
			return dial(t, b, 0)
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not come back")
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func TestReset(t *testing.T) {
	b, c := on(t, Config{Profiles: []string{"ec25"}, Pace: 0.002})
	old := b.Device(0)
	b.ResetName(0, "modem9")
	c.ask("AT+CFUN=1,1\r", "OK\r\n")
	c.gone()
	for b.Device(0) == old {
		time.Sleep(time.Millisecond)
	}
	if _, err := os.Lstat(old); !os.IsNotExist(err) {
		t.Errorf("the old link stayed: %v", err)
	}
	c = reopen(t, b)
	c.ask("ATE0\r", "OK\r\n")
	b.Power(0).Off()
	c.gone()
	if err := b.Plug(0); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(b.Device(0)); !os.IsNotExist(err) {
		t.Error("a port without power")
	}
	if err := b.Power(0).Set(t.Context(), true); err != nil || b.Power(0).Cycles() != 1 {
		t.Error(err)
	}
	reopen(t, b).ask("AT\r", "OK\r\n")
	b.Unplug(0)
	if err := b.PlugAs(0, "other"); err != nil || !strings.HasSuffix(b.Device(0), "other") {
		t.Errorf("%v %s", err, b.Device(0))
	}
	dial(t, b, 0).ask("AT\r", "OK\r\n")
}

// gone waits for the port to hang up.
func (c terminal) gone() {
	c.t.Helper()
	buf := make([]byte, 64)
	for {
		if err := c.f.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			c.t.Fatal(err)
		}
		if _, err := c.f.Read(buf); os.IsTimeout(err) {
			c.t.Fatal("the port stays")
		} else if err != nil {
			return
		}
	}
}

func TestBootLines(t *testing.T) {
	b := bank(t, Config{Profiles: []string{"ec25"}, Pace: 0.001})
	c := dial(t, b, 0)
	got := c.ask("", "+QIND: PB DONE\r\n")
	for _, l := range []string{"RDY", "+CPIN: READY", "+QIND: SMS DONE"} {
		if !strings.Contains(got, "\r\n"+l+"\r\n") {
			t.Errorf("no %s in %q", l, got)
		}
	}
}

func TestStall(t *testing.T) {
	b, c := on(t, Config{})
	b.Stall(0, true)
	if err := c.f.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.f.WriteString("AT\r"); !os.IsTimeout(err) {
		t.Errorf("the write did not block: %v", err)
	}
	b.Stall(0, false)
	if err := c.f.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	c.ask("AT\r", "OK\r\n")
}

func TestFlood(t *testing.T) {
	b, c := on(t, Config{})
	stop, err := b.Flood(0, []string{"^RSSI: 9"}, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.ask("AT+CSQ\r", "OK\r\n"); !strings.Contains(got, "+CSQ: 21,0") {
		t.Errorf("got %q", got)
	}
	c.ask("", "^RSSI: 9\r\n^RSSI: 9\r\n", "^RSSI: 9\r\n\r\n^RSSI: 9\r\n")
	stop()
	if _, err := b.Flood(0, nil, 0); err == nil {
		t.Error("an empty flood")
	}
}

func TestPlan(t *testing.T) {
	b := bank(t, Config{Modems: 4, Seed: 3, Plan: Plan{
		Hang: 0.3, HangFor: time.Millisecond, OKOnly: 0.3, UnplugEvery: 5 * time.Millisecond, UnplugFor: 2 * time.Millisecond, Rename: true,
		StormEvery: 5 * time.Millisecond, StormLines: 3, RebootEvery: 5 * time.Millisecond, RegLossEvery: 5 * time.Millisecond, RegLossFor: time.Millisecond,
	}})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, word := range []string{"unplugged", "storms", "reboots", "loses"} {
		for !strings.Contains(strings.Join(b.Faults(), "\n"), word) {
			if ctx.Err() != nil {
				t.Fatalf("no %s in %q", word, b.Faults())
			}
			time.Sleep(time.Millisecond)
		}
	}
	draws := func() (out []Outcome) {
		d := newDevice(b, 2, b.Profile(2), "")
		for range 50 {
			out = append(out, d.planned())
		}
		return out
	}
	b.cfg.Plan.HangFor = time.Hour
	if a, z := fmt.Sprint(draws()), fmt.Sprint(draws()); a != z || !strings.Contains(a, "true") {
		t.Errorf("not reproducible: %s\n%s", a, z)
	}
}

func TestConfigRefused(t *testing.T) {
	for _, c := range []Config{{}, {Dir: t.TempDir(), Modems: 65}, {Dir: t.TempDir(), Modems: 1, Profiles: []string{"nokia"}}} {
		if b, err := NewBank(c); err == nil {
			t.Errorf("accepted %+v", c)
			b.Close()
		}
	}
	if _, ok := dialect.Get("nokia"); ok {
		t.Error("a profile for nokia")
	}
}

// A modem that goes away in the middle leaves the ambiguous case behind.
func TestOrphans(t *testing.T) {
	for _, end := range []func(b *Bank){
		func(b *Bank) { b.Unplug(0) }, func(b *Bank) { b.Reboot(0) }, func(b *Bank) { b.Power(0).Off() }, func(b *Bank) { b.Reset(0, "x") },
	} {
		for share := range 2 {
			b, c := on(t, Config{Orphans: float64(share), Latency: Delay{Median: time.Hour}})
			c.ask("AT+CMGS=18\r", "> ")
			if _, err := c.f.WriteString(hello + "\x1a"); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(5 * time.Second); len(b.Handoffs()) == 0; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("no hand-off")
				}
			}
			end(b)
			if l := b.Ledger(); len(l) != share || share == 1 && l[0].Told {
				t.Errorf("share %d: %+v", share, l)
			}
		}
	}
}
