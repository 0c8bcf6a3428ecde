package modemsim

import (
	"os"
	"strings"
	"time"

	"custode/simulators/modemsim/ptyport"
)

const (
	ctrlZ = 0x1a
	esc   = 0x1b
)

// read takes octets from the pty until it is closed.
func (d *device) read(master *os.File) {
	buf := make([]byte, 512)
	for {
		n, err := master.Read(buf)
		if err != nil {
			return
		}
		d.mu.Lock()
		for d.stall != nil && d.master == master {
			over := d.stall
			d.mu.Unlock()
			<-over
			d.mu.Lock()
		}
		for _, c := range buf[:n] {
			if d.master == master {
				d.input(c)
			}
		}
		d.mu.Unlock()
	}
}

// Stall lets modem i stop reading its port: who writes to it blocks, as on a
// UART whose CTS is low. Unplugging ends it.
func (b *Bank) Stall(i int, on bool) {
	b.with(i, func(d *device) {
		switch {
		case on && d.stall == nil && d.master != nil:
			d.stall = make(chan struct{})
			ptyport.Hold(d.slave)
		case !on:
			d.unstall()
		}
	})
}

func (d *device) unstall() {
	if d.stall != nil {
		close(d.stall)
		d.stall = nil
		if d.slave != nil {
			ptyport.Release(d.slave)
		}
	}
}

// write sends text to the product; one that does not read loses it, like a
// UART without flow control.
func (d *device) write(text string) {
	if d.master == nil || d.faults.hung || text == "" {
		return
	}
	if glue := d.bank.cfg.Glue; glue > 0 {
		if d.out == nil {
			d.later(glue, func() {
				d.put(string(d.out))
				d.out = nil
			})
		}
		d.out = append(d.out, text...)
		return
	}
	d.put(text)
}

func (d *device) put(text string) {
	_ = d.master.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	if !d.bank.cfg.Chop {
		_, _ = d.master.WriteString(text)
		return
	}
	for i := range len(text) {
		_, _ = d.master.WriteString(text[i : i+1])
	}
}

// say writes lines in one go, with chatter between them.
func (d *device) say(lines ...string) {
	var out strings.Builder
	for _, l := range lines {
		if c := d.chatter(); c != "" {
			out.WriteString(d.form(c))
		}
		out.WriteString(d.form(l))
	}
	d.write(out.String())
}

func (d *device) chatter() string {
	if p := d.bank.cfg.Chatter; p > 0 && !d.set.muted && len(d.p.Chatter) > 0 && d.rnd.Float64() < p {
		return d.p.Chatter[d.rnd.IntN(len(d.p.Chatter))]
	}
	return ""
}

// form gives a line its ends (V.250 section 5.7.1).
func (d *device) form(l string) string {
	end := string([]byte{d.set.s3, d.set.s4})
	final := l == "OK" || l == "ERROR"
	switch {
	case final && d.set.quiet:
		return ""
	case final && !d.set.verbose:
		return map[string]string{"OK": "0", "ERROR": "4"}[l] + end[:1]
	case !d.set.verbose:
		return l + end
	case end == "\r\n":
		return end + l + d.p.LineEnd
	}
	return end + l + end
}

// input takes one octet; d.mu is held.
func (d *device) input(c byte) {
	d.received++
	switch {
	case d.faults.hung:
	case d.busy:
		d.violations++
	case d.working:
		if len(d.waiting) < 1024 {
			d.waiting = append(d.waiting, c)
		}
	case d.submit != nil:
		d.promptInput(c)
	default:
		d.lineInput(c)
	}
}

func (d *device) lineInput(c byte) {
	if len(d.line) == 0 && c > ' ' {
		d.inject(BeforeEcho)
	}
	if d.set.echo && c != esc {
		if d.p.LateEcho {
			d.heldEcho = append(d.heldEcho, c)
		} else {
			d.write(string([]byte{c}))
		}
	}
	switch {
	case c == d.set.s3:
		line := string(d.line)
		d.line = d.line[:0]
		d.execute(line)
	case c == d.set.s4:
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
		if !d.p.EscMute {
			d.say("OK")
		}
	case c == ctrlZ:
		s := d.submit
		d.submit = nil
		d.send(s)
	case len(d.submit.hex) < 700:
		if d.set.echo {
			d.write(string([]byte{c}))
		}
		d.submit.hex = append(d.submit.hex, c)
	}
}

// settled goes on with what was written while a command was at work.
func (d *device) settled() {
	d.working = false
	w := d.waiting
	d.waiting = nil
	for _, c := range w {
		d.received--
		d.input(c)
	}
}
