package modemsim

import (
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// device is one modem. gen counts plugs and reboots: a timer of an older life
// does nothing.
type device struct {
	bank  *Bank
	index int
	link  string

	mu            sync.Mutex
	master, slave *os.File
	readerDone    chan struct{}
	gen           int
	set           settings
	faults        faults
	card          card
	line          []byte
	submit        *pendingSubmit // prompt is open
	busy          bool           // submission on the air: nothing may be written
	violations    int
	received      int
}

// settings are lost at every restart.
type settings struct {
	echo, verbose   bool
	cmee            int
	textMode        bool
	service         int // +CSMS
	mode, mt, ds    int // +CNMI
	regURC, eregURC int
	functional      int // +CFUN
	registered      int // +CREG stat
	rssi            int
}

type card struct {
	unlocked bool
	tries    int
	ref      byte
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
	return settings{echo: true, verbose: true, functional: 1, registered: 1, rssi: 21}
}

func newDevice(b *Bank, i int, link string) *device {
	return &device{bank: b, index: i, link: link, set: powerOn(), card: card{unlocked: b.cfg.SIMPIN == "", tries: 3}}
}

func (d *device) imei() string   { return fmt.Sprintf("35000000000%04d", d.index) }
func (d *device) imsi() string   { return fmt.Sprintf("00101000000%04d", d.index) }
func (d *device) iccid() string  { return fmt.Sprintf("893900000000000%04d", d.index) }
func (d *device) number() string { return fmt.Sprintf("+39320000%04d", d.index) }

// Plug connects modem i on a new pty under its old link. It does nothing when
// the modem is plugged.
func (b *Bank) Plug(i int) error {
	d := b.devices[i]
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.master != nil {
		return nil
	}
	master, slave, err := pty.Open()
	if err != nil {
		return fmt.Errorf("modemsim: %w", err)
	}
	// We hold the slave open too, or the master would read EIO whenever the
	// product has the port closed; and raw, or the line discipline would echo.
	if err := raw(slave); err != nil {
		return fmt.Errorf("modemsim: %w", err)
	}
	if master, err = pollable(master); err != nil {
		return fmt.Errorf("modemsim: %w", err)
	}
	_ = os.Remove(d.link)
	if err := os.Symlink(slave.Name(), d.link); err != nil {
		return fmt.Errorf("modemsim: %w", err)
	}
	d.master, d.slave, d.readerDone = master, slave, make(chan struct{})
	d.restart(d.set.registered)
	go d.read(master, d.readerDone)
	return nil
}

// restart forgets everything a power cycle forgets; d.mu is held.
func (d *device) restart(registered int) {
	d.gen++
	d.set = powerOn()
	d.set.registered = registered
	d.faults = faults{}
	d.card.unlocked = d.bank.cfg.SIMPIN == ""
	d.line, d.submit, d.busy = nil, nil, false
}

// pollable replaces f by a non-blocking duplicate, so that Close ends a Read and
// deadlines work.
func pollable(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	_ = f.Close()
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "ptmx"), nil
}

func raw(f *os.File) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var e error
	if err := c.Control(func(fd uintptr) {
		var t *unix.Termios
		if t, e = unix.IoctlGetTermios(int(fd), unix.TCGETS); e != nil {
			return
		}
		t.Iflag, t.Oflag, t.Lflag = unix.IGNPAR, 0, 0
		e = unix.IoctlSetTermios(int(fd), unix.TCSETS, t)
	}); err != nil {
		return err
	}
	return e
}

// unplug closes the pty and removes the link.
func (d *device) unplug() {
	d.mu.Lock()
	master, slave, done := d.master, d.slave, d.readerDone
	d.master, d.slave = nil, nil
	d.gen++
	d.submit, d.busy = nil, false
	d.mu.Unlock()
	if master == nil {
		return
	}
	_ = os.Remove(d.link)
	_ = master.Close()
	_ = slave.Close()
	<-done
}

func (d *device) read(master *os.File, done chan struct{}) {
	defer close(done)
	buf := make([]byte, 512)
	for {
		n, err := master.Read(buf)
		if err != nil {
			return
		}
		for _, c := range buf[:n] {
			d.mu.Lock()
			if d.master == master {
				d.input(c)
			}
			d.mu.Unlock()
		}
	}
}

// write sends text to the product; one that does not read loses it, like a
// UART without flow control.
func (d *device) write(text string) {
	if d.master == nil || d.faults.hung {
		return
	}
	_ = d.master.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	if !d.bank.cfg.Chop {
		_, _ = d.master.WriteString(text)
		return
	}
	for i := range len(text) {
		_, _ = d.master.WriteString(text[i : i+1])
	}
}

// say writes lines in verbose form, with chatter between them.
func (d *device) say(lines ...string) {
	for _, l := range lines {
		if d.bank.chance(d.bank.cfg.Chatter) {
			d.write("\r\n^RSSI: 17\r\n")
		}
		d.write("\r\n" + l + "\r\n")
	}
}

const (
	ctrlZ = 0x1a
	esc   = 0x1b
)

// input takes one octet; d.mu is held.
func (d *device) input(c byte) {
	d.received++
	if d.faults.hung {
		return
	}
	if d.busy {
		d.violations++
		return
	}
	if d.submit != nil {
		d.promptInput(c)
		return
	}
	if d.set.echo && c != esc {
		d.write(string(rune(c)))
	}
	switch {
	case c == '\r':
		line := string(d.line)
		d.line = d.line[:0]
		d.execute(line)
	case c == '\n':
	case c == esc:
		d.line = d.line[:0]
	case c == 8 && len(d.line) > 0:
		d.line = d.line[:len(d.line)-1]
	case len(d.line) < 560:
		d.line = append(d.line, c)
	}
}

func (d *device) promptInput(c byte) {
	switch {
	case c == esc:
		d.submit = nil
		d.say("OK")
	case c == ctrlZ:
		s := d.submit
		d.submit = nil
		d.send(s)
	case len(d.submit.hex) < 700:
		if d.set.echo {
			d.write(string(rune(c)))
		}
		d.submit.hex = append(d.submit.hex, c)
	}
}

// later runs f under the lock after delay, unless the modem restarted meanwhile.
func (d *device) later(delay time.Duration, f func()) {
	gen := d.gen
	if delay == 0 {
		f()
		return
	}
	d.bank.after(delay, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.gen == gen && d.master != nil {
			f()
		}
	})
}
