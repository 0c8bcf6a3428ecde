package modemsim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"custode/simulators/modemsim/dialect"
	"custode/simulators/modemsim/memory"
	"custode/simulators/modemsim/ptyport"
	"custode/simulators/modemsim/script"
)

// device is one modem. gen counts plugs and reboots: a timer of an older life
// does nothing.
type device struct {
	bank  *Bank
	index int
	p     dialect.Profile

	mu            sync.Mutex
	link          string
	resetName     string // link after the next reset by command
	plugged, off  bool   // in its socket; power line cut
	cycles        int    // power line, off to on
	master, slave *os.File
	stall         chan struct{} // non-nil while the pty is not read
	gen           int
	rnd           *rand.Rand
	set           settings
	faults        faults
	script        script.Script
	card          card
	areas         []*memory.Area
	line          []byte
	heldEcho      []byte         // of a LateEcho profile
	waiting       []byte         // octets that came while a command was at work
	working       bool           // a command takes its time
	submit        *pendingSubmit // prompt is open
	busy          bool           // submission on the air: nothing may be written
	air           *flight        // that submission
	out           []byte         // gathered output
	shelf         []string       // indications held back by +CNMI mode 0
	ackDue        *inbound       // what +CNMA saves from being sent again
	full          bool           // the store, and it was said
	plmn, ussd    string
	violations    int
	received      int
	commands      []string
}

// settings are lost at every restart.
type settings struct {
	echo, verbose, quiet bool
	s3, s4               byte
	cmee                 int
	textMode             bool
	service              int    // +CSMS
	mode, mt, ds, bfr    int    // +CNMI
	mem                  [3]int // +CPMS: places in areas
	charset              string // +CSCS
	longNames            bool   // +COPS format
	reg                  map[string]int
	deregistered         bool // AT+COPS=2
	functional           int  // +CFUN
	registered           int  // +CREG stat
	rssi                 int
	muted                bool
	awake                time.Time // when the card is ready
	refusals             int       // commands still to be answered 515
	hold                 time.Duration
	prompted             bool
}

type faults struct {
	hung       bool
	failNext   int
	failCode   int
	okOnly     int
	noPrompt   int
	lateNext   time.Duration
	hangOnSend bool
}

func powerOn() settings {
	return settings{echo: true, verbose: true, s3: '\r', s4: '\n', functional: 1, rssi: 21, charset: "GSM", reg: map[string]int{}}
}

func newDevice(b *Bank, i int, p dialect.Profile, link string) *device {
	d := &device{bank: b, index: i, p: p, link: link, set: powerOn(), rnd: rand.New(rand.NewPCG(b.cfg.Seed, uint64(i)))}
	d.set.registered = p.Registers
	d.plmn, d.ussd = "00101", "Credito residuo 10,00 EUR"
	if ops := b.cfg.Operators; len(ops) > 0 {
		d.plmn = ops[i%len(ops)]
	}
	d.card = newCard(b.cfg.SIMPIN, fmt.Sprintf("%s%0*d", d.plmn, 15-len(d.plmn), i), i)
	d.areas = memory.Areas(p.Areas)
	return d
}

func (d *device) imei() string   { return fmt.Sprintf("35000000000%04d", d.index) }
func (d *device) number() string { return fmt.Sprintf("+39320000%04d", d.index) }

// Plug connects modem i on a new pty under its old link. It does nothing when
// the modem is plugged.
func (b *Bank) Plug(i int) error { return b.PlugAs(i, "") }

// PlugAs connects modem i on a new pty under another name in the bank's
// directory, as a stick in another socket; Device follows.
func (b *Bank) PlugAs(i int, name string) (err error) {
	b.with(i, func(d *device) {
		d.plugged = true
		if d.master == nil && !d.off {
			err = d.attach(name)
		}
	})
	return err
}

// attach opens a pty and starts the modem on it; d.mu is held.
func (d *device) attach(name string) error {
	if name != "" {
		d.link = filepath.Join(d.bank.cfg.Dir, name)
	}
	master, slave, err := ptyport.Open(d.link)
	if err != nil {
		return fmt.Errorf("modemsim: %w", err)
	}
	d.master, d.slave = master, slave
	if !d.bank.air.Go(func() { d.read(master) }) {
		d.detach()
		return errors.New("modemsim: the bank is closed")
	}
	d.restart()
	if d.p.PlugLines {
		d.bootLines()
	}
	return nil
}

// detach closes the pty and removes the link; d.mu is held.
func (d *device) detach() {
	d.gen++
	d.orphan()
	d.submit, d.busy, d.working = nil, false, false
	d.unstall()
	if d.master == nil {
		return
	}
	_ = os.Remove(d.link)
	_ = d.master.Close()
	_ = d.slave.Close()
	d.master, d.slave = nil, nil
}

// restart forgets everything a power cycle forgets; d.mu is held.
func (d *device) restart() {
	d.gen++
	d.orphan()
	registered := d.set.registered
	d.set = powerOn()
	d.set.registered = registered
	d.set.awake = time.Now().Add(d.pace(d.p.SIMBusy))
	d.faults = faults{}
	d.card.unlocked = d.card.pin == ""
	d.line, d.heldEcho, d.waiting, d.out, d.shelf = nil, nil, nil, nil, nil
	d.submit, d.busy, d.working, d.ackDue, d.full = nil, false, false, nil, false
	d.later(max(d.pace(d.p.SIMBusy), time.Microsecond), d.pump)
}

// bootLines says what the make says after power-on, in order; d.mu is held.
func (d *device) bootLines() { d.bootLine(0, 0) }

func (d *device) bootLine(n int, since time.Duration) {
	if n == len(d.p.Boot) {
		return
	}
	l := d.p.Boot[n]
	d.later(d.pace(l.After-since), func() {
		text := l.Text
		if strings.Contains(text, "%PIN") {
			text = strings.ReplaceAll(text, "%PIN", d.pinState())
		}
		d.say(text)
		d.bootLine(n+1, l.After)
	})
}

// pace scales a time of the profile.
func (d *device) pace(t time.Duration) time.Duration {
	return time.Duration(float64(t) * d.bank.cfg.Pace)
}

// reboot restarts and says so; the port stays; d.mu is held.
func (d *device) reboot() {
	d.restart()
	d.bootLines()
}

// reset is a restart that takes the port of a USB modem away for its boot time;
// d.mu is held.
func (d *device) reset(name string) {
	if !d.p.USB && name == "" {
		d.reboot()
		return
	}
	d.detach()
	d.comeBack(d.pace(d.p.BootTime), name)
}

// comeBack attaches after delay, unless something else happens to the modem.
func (d *device) comeBack(delay time.Duration, name string) {
	gen := d.gen
	d.bank.air.After(max(delay, time.Microsecond), func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.gen == gen && d.plugged && !d.off && d.master == nil {
			// Without ptys the modem stays away, which the test will notice.
			_ = d.attach(name)
		}
	})
}

// later runs f under the lock after delay, unless the modem restarted meanwhile.
func (d *device) later(delay time.Duration, f func()) {
	gen := d.gen
	if delay <= 0 {
		f()
		return
	}
	d.bank.air.After(delay, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.gen == gen && d.master != nil {
			f()
		}
	})
}
