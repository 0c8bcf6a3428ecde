package modemsim

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// with runs f under the lock of modem i.
func (b *Bank) with(i int, f func(d *device)) {
	d := b.devices[i]
	d.mu.Lock()
	defer d.mu.Unlock()
	f(d)
}

// Hang makes modem i deaf and mute until Unhang, Reboot or a new Plug.
func (b *Bank) Hang(i int) { b.with(i, func(d *device) { d.faults.hung = true }) }

// HangOnSend hangs modem i right after the next Ctrl-Z; the message is lost.
func (b *Bank) HangOnSend(i int) { b.with(i, func(d *device) { d.faults.hangOnSend = true }) }

// Unhang ends Hang and forgets the other one-shot faults.
func (b *Bank) Unhang(i int) {
	b.with(i, func(d *device) {
		d.faults = faults{}
		d.later(time.Microsecond, d.pump)
	})
}

// Unplug pulls modem i out: the pty hangs up and the link vanishes. A message on
// the air is lost.
func (b *Bank) Unplug(i int) {
	b.with(i, func(d *device) {
		d.plugged = false
		d.detach()
	})
}

// Reboot restarts modem i: boot lines, and every setting is lost; the port stays.
func (b *Bank) Reboot(i int) { b.with(i, func(d *device) { d.reboot() }) }

// Reset does what AT+CFUN=1,1 does: the port of a USB profile vanishes for its
// boot time. A name other than "" lets any modem come back as that link in the
// bank's directory.
func (b *Bank) Reset(i int, name string) { b.with(i, func(d *device) { d.reset(name) }) }

// ResetName lets modem i come back under another name from the next reset by
// command, as a stick whose old port was still held open.
func (b *Bank) ResetName(i int, name string) { b.with(i, func(d *device) { d.resetName = name }) }

// BrownOut lets the supply of modem i sag: a word about it, and a restart.
func (b *Bank) BrownOut(i int) { b.with(i, func(d *device) { d.brownOut() }) }

func (d *device) brownOut() {
	if d.p.UnderVoltage != "" {
		d.say(d.p.UnderVoltage)
	}
	d.reboot()
}

// Line is the switch of a modem's supply, as a relay or a hub's port has one.
type Line struct {
	bank  *Bank
	index int
}

// Power returns the supply switch of modem i.
func (b *Bank) Power(i int) *Line { return &Line{b, i} }

// Off cuts the supply: the port vanishes.
func (l *Line) Off() {
	l.bank.with(l.index, func(d *device) {
		d.off = true
		d.detach()
	})
}

// On gives it back: the port is there after the profile's boot time.
func (l *Line) On() {
	l.bank.with(l.index, func(d *device) {
		if d.off {
			d.off = false
			d.cycles++
			d.comeBack(d.pace(d.p.BootTime), "")
		}
	})
}

// Set switches; it fails only with ctx's error.
func (l *Line) Set(ctx context.Context, on bool) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("modemsim: power of modem %d: %w", l.index, err)
	}
	if on {
		l.On()
	} else {
		l.Off()
	}
	return nil
}

// Cycles counts how often the supply came back.
func (l *Line) Cycles() (n int) {
	l.bank.with(l.index, func(d *device) { n = d.cycles })
	return n
}

// FailNext answers the next n submissions on modem i with +CMS ERROR: code, at once.
func (b *Bank) FailNext(i, n, code int) {
	b.with(i, func(d *device) { d.faults.failNext, d.faults.failCode = n, code })
}

// OKWithoutRef answers the next n submissions on modem i with a bare OK.
func (b *Bank) OKWithoutRef(i, n int) { b.with(i, func(d *device) { d.faults.okOnly = n }) }

// NoPrompt answers the next n AT+CMGS on modem i with silence.
func (b *Bank) NoPrompt(i, n int) { b.with(i, func(d *device) { d.faults.noPrompt = n }) }

// LateReceipt lets modem i accept the next message but answer only after delay;
// other commands are served meanwhile, as some firmware does.
func (b *Bank) LateReceipt(i int, delay time.Duration) {
	b.with(i, func(d *device) { d.faults.lateNext = delay })
}

// Say lets modem i say unsolicited lines now.
func (b *Bank) Say(i int, urc ...string) { b.with(i, func(d *device) { d.say(urc...) }) }

// Noise lets modem i write n random octets.
func (b *Bank) Noise(i, n int) {
	b.with(i, func(d *device) {
		junk := make([]byte, n)
		for k := range junk {
			junk[k] = byte(d.rnd.IntN(256))
		}
		d.write(string(junk))
	})
}

// Storm lets modem i say n unsolicited lines, one every pause.
func (b *Bank) Storm(i, n int, pause time.Duration) {
	b.with(i, func(d *device) { d.storm(n, pause) })
}

func (d *device) storm(n int, pause time.Duration) {
	if n == 0 {
		return
	}
	d.write(fmt.Sprintf("\r\n^RSSI: %d\r\n", n%32))
	d.later(max(pause, time.Microsecond), func() { d.storm(n-1, pause) })
}

// Flood lets modem i say lines in turn, one every period, until stop is called or
// the modem restarts.
func (b *Bank) Flood(i int, lines []string, every time.Duration) (stop func(), err error) {
	if len(lines) == 0 || every <= 0 || strings.TrimSpace(strings.Join(lines, "")) == "" {
		return nil, errors.New("modemsim: a flood needs lines and a period")
	}
	over := false
	var next func(d *device, n int)
	next = func(d *device, n int) {
		if !over {
			d.say(lines[n%len(lines)])
			d.later(every, func() { next(d, n+1) })
		}
	}
	b.with(i, func(d *device) { next(d, 0) })
	return func() { b.with(i, func(*device) { over = true }) }, nil
}

// Violations counts octets written to modem i while it had a message on the
// air, when 27.005 modems want silence.
func (b *Bank) Violations(i int) (n int) {
	b.with(i, func(d *device) { n = d.violations })
	return n
}

// Received counts octets modem i was sent.
func (b *Bank) Received(i int) (n int) {
	b.with(i, func(d *device) { n = d.received })
	return n
}
