package modemsim

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func bank(t *testing.T, cfg Config) *Bank {
	t.Helper()
	cfg.Dir = filepath.Join(t.TempDir(), "bank")
	if cfg.Modems == 0 {
		cfg.Modems = 1
	}
	b, err := NewBank(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// terminal is a person with a terminal program.
type terminal struct {
	t *testing.T
	f *os.File
}

func dial(t *testing.T, b *Bank, i int) terminal {
	t.Helper()
	f, err := os.OpenFile(b.Device(i), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return terminal{t, f}
}

// ask writes s and reads until one of the ends appears.
func (c terminal) ask(s string, ends ...string) string {
	c.t.Helper()
	if _, err := io.WriteString(c.f, s); err != nil {
		c.t.Fatal(err)
	}
	var got strings.Builder
	buf := make([]byte, 256)
	for {
		if err := c.f.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			c.t.Fatal(err)
		}
		n, err := c.f.Read(buf)
		got.Write(buf[:n])
		for _, e := range ends {
			if strings.HasSuffix(got.String(), e) {
				return got.String()
			}
		}
		if err != nil {
			c.t.Fatalf("%q: %v after %q", s, err, got.String())
		}
	}
}

// hello is "hello" to +393401234567 with a report asked for.
const hello = "0021000C919343103254760000" + "05E8329BFD06"

func TestDialogue(t *testing.T) {
	b := bank(t, Config{})
	c := dial(t, b, 0)
	for _, step := range []struct{ say, want string }{
		{"AT\r", "AT\r\r\nOK\r\n"},
		{"ATE0V1Q0\r", "ATE0V1Q0\r\r\nOK\r\n"},
		{"AT+NOPE\r", "\r\nERROR\r\n"},
		{"AT+CMEE=1;+CREG=2\r", "\r\nOK\r\n"},
		{"AT+NOPE\r", "\r\n+CME ERROR: 4\r\n"},
		{"AT+CREG?;+CSQ\r", "\r\n+CREG: 2,1,\"00C3\",\"0001A2B3\",7\r\n\r\n+CSQ: 21,0\r\n\r\nOK\r\n"},
		{"AT+CGMI\r", "\r\nSIMULATOR\r\n\r\nOK\r\n"},
		{"AT+CMGS=3\r", "\r\n+CMS ERROR: 304\r\n"},
	} {
		end := "OK\r\n"
		if !strings.HasSuffix(step.want, end) {
			end = step.want
		}
		if got := c.ask(step.say, end); got != step.want {
			t.Errorf("%q: got %q, want %q", step.say, got, step.want)
		}
	}
}

func TestSubmitAndReport(t *testing.T) {
	b := bank(t, Config{})
	b.SetNextRef(0, 255)
	c := dial(t, b, 0)
	c.ask("ATE0\r", "OK\r\n")
	c.ask("AT+CMEE=1;+CNMI=2,1,0,1,0\r", "OK\r\n")
	for _, ref := range []string{"255", "0"} {
		c.ask("AT+CMGS=18\r", "> ")
		if got := c.ask(hello+"\x1a", "00\r\n"); !strings.Contains(got, "+CMGS: "+ref+"\r\n\r\nOK\r\n") || !strings.Contains(got, "+CDS: 25\r\n0006") {
			t.Errorf("got %q", got)
		}
	}
	c.ask("AT+CMGS=18\r", "> ")
	if got := c.ask("\x1b", "OK\r\n"); got != "\r\nOK\r\n" {
		t.Errorf("cancel: %q", got)
	}
	c.ask("AT+CMGS=17\r", "> ")
	c.ask(hello+"\x1a", "+CMS ERROR: 304\r\n")
	in, err := b.Wait(t.Context(), "+393401234567", 2)
	if err != nil || in[0].Text != "hello" || in[0].From != "+393200000000" {
		t.Fatalf("inbox %v, %v", in, err)
	}
	if l := b.Ledger(); len(l) != 2 || l[1].Ref != 0 || !l[1].Report {
		t.Errorf("ledger %+v", l)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := b.Wait(ctx, "+393401234567", 3); err == nil {
		t.Error("a third message was not sent")
	}
}

func TestCardPIN(t *testing.T) {
	b := bank(t, Config{SIMPIN: "4321"})
	c := dial(t, b, 0)
	c.ask("ATE0\r", "OK\r\n")
	c.ask("AT+CMEE=1\r", "OK\r\n")
	c.ask("AT+CPIN?\r", "+CPIN: SIM PIN\r\n\r\nOK\r\n")
	c.ask("AT+CIMI\r", "+CME ERROR: 11\r\n")
	c.ask("AT+CPIN=\"1111\"\r", "+CME ERROR: 16\r\n")
	if n := b.PINTries(0); n != 2 {
		t.Errorf("%d tries left", n)
	}
	c.ask("AT+CPIN=\"4321\"\r", "OK\r\n")
	c.ask("AT+CIMI\r", "001010000000000\r\n\r\nOK\r\n")
}

func TestUnplugAndPlug(t *testing.T) {
	b := bank(t, Config{})
	c := dial(t, b, 0)
	b.Unplug(0)
	if _, err := c.f.Read(make([]byte, 1)); err == nil {
		t.Error("read from an unplugged modem")
	}
	if _, err := os.Stat(b.Device(0)); !os.IsNotExist(err) {
		t.Errorf("the link stayed: %v", err)
	}
	if err := b.Plug(0); err != nil {
		t.Fatal(err)
	}
	dial(t, b, 0).ask("AT\r", "OK\r\n")
}

// Idle modems wait in the kernel.
func TestIdleCosts(t *testing.T) {
	bank(t, Config{Modems: 64})
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	const span = 500 * time.Millisecond
	before := used()
	time.Sleep(span)
	if took := used() - before; took > span/10 {
		t.Errorf("64 idle modems used %v of processor in %v", took, span)
	} else {
		t.Logf("%v in %v", took, span)
	}
}

// A closed bank leaves no link and no goroutine, whatever it was doing.
func TestCloseInTheMiddle(t *testing.T) {
	b := bank(t, Config{Modems: 3, Profiles: []string{"ec25"}, Pace: 1e-6, Glue: time.Millisecond, Latency: Delay{Median: time.Hour}})
	c := dial(t, b, 0)
	c.ask("", "PB DONE\r\n")
	c.ask("AT+CMGS=18\r", "> ")
	if _, err := io.WriteString(c.f, hello+"\x1a"); err != nil {
		t.Fatal(err)
	}
	b.Storm(1, 1000, time.Millisecond)
	b.Stall(2, true)
	b.Reset(1, "")
	path := b.Device(0)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the link stayed: %v", err)
	}
	if err := b.Plug(1); err == nil {
		t.Error("plugged into a closed bank")
	}
}
