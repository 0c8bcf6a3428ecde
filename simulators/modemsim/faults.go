package modemsim

import (
	"fmt"
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

// Unhang ends Hang.
func (b *Bank) Unhang(i int) { b.with(i, func(d *device) { d.faults = faults{} }) }

// Unplug pulls modem i out: the pty hangs up and the link vanishes. A message on
// the air is lost.
func (b *Bank) Unplug(i int) { b.devices[i].unplug() }

// Reboot restarts modem i: RDY, and every setting is lost.
func (b *Bank) Reboot(i int) { b.with(i, func(d *device) { d.reboot() }) }

// FailNext answers the next n submissions on modem i with +CMS ERROR: code.
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

// SetRegistration sets +CREG's stat of modem i and tells of it when asked to.
func (b *Bank) SetRegistration(i, stat int) {
	b.with(i, func(d *device) {
		d.set.registered = stat
		if d.set.regURC > 0 {
			d.say(fmt.Sprintf("+CREG: %d", stat))
		}
	})
}

// SetNextRef sets the message reference the next submission on modem i gets.
func (b *Bank) SetNextRef(i int, ref byte) { b.with(i, func(d *device) { d.card.ref = ref - 1 }) }

// SetSignal sets +CSQ's rssi of modem i (0 to 31, 99 unknown).
func (b *Bank) SetSignal(i, rssi int) { b.with(i, func(d *device) { d.set.rssi = rssi }) }

// PINTries returns how many PIN tries the card of modem i has left.
func (b *Bank) PINTries(i int) (n int) {
	b.with(i, func(d *device) { n = d.card.tries })
	return n
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
