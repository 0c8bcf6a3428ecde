package modemsim

import (
	"fmt"
	"strings"
	"time"

	"custode/simulators/modemsim/network"
)

// SIMState says what a modem finds in its card holder.
type SIMState int

// States of a card holder.
const (
	SIMReady   SIMState = iota
	SIMMissing          // +CME ERROR: 10
	SIMBusy             // +CME ERROR: 14 until another state is set
)

const (
	pinTries, pukTries = 3, 10
	// PUK unblocks every simulated card.
	PUK = "12345678"
)

// card is the SIM: it outlives power cycles.
type card struct {
	state     SIMState
	busyUntil time.Time
	pin       string
	unlocked  bool
	tries     int
	puks      int
	imsi      string
	iccid     string
	sca       string
	ref       byte
	skipZero  bool
	credit    int // messages left; negative is endless
	inbound   []inbound
	patience  network.Patience
}

func newCard(pin, imsi string, index int) card {
	return card{
		pin: pin, unlocked: pin == "", tries: pinTries, puks: pukTries, imsi: imsi,
		iccid: fmt.Sprintf("893900000000000%04d", index), sca: "+393900000001", credit: -1,
	}
}

// needsCard are the commands a modem refuses as long as the card cannot be read.
func needsCard(name string) bool {
	switch name {
	case "+CIMI", "+CSCA", "+CPMS", "+CMGL", "+CMGR", "+CMGD", "+CNMI", "+COPS", "+CUSD", "+CNUM", "+CLCK":
		return true
	}
	return false
}

// trouble is why the card cannot be used, as a +CME code, or 0.
func (d *device) trouble() (int, string) {
	c := &d.card
	switch {
	case c.state == SIMMissing:
		return 10, "SIM not inserted"
	case c.state == SIMBusy || time.Now().Before(c.busyUntil) || time.Now().Before(d.set.awake):
		return d.p.SIMBusyCode, "SIM busy"
	case c.puks == 0:
		return 13, "SIM failure"
	case c.tries == 0:
		return 12, "SIM PUK required"
	case !c.unlocked:
		return 11, "SIM PIN required"
	}
	return 0, ""
}

func (d *device) cardRefusal(name string) (int, string) {
	code, text := d.trouble()
	switch {
	case name == "+CPIN" && (code == 11 || code == 12):
		return 0, ""
	case name == "+CPIN" || needsCard(name):
		return code, text
	}
	return 0, ""
}

// messageRefusal is the same for a command that answers with +CMS codes.
func (d *device) messageRefusal() int {
	code, _ := d.trouble()
	switch code {
	case 0:
		return 0
	case 10, 11, 12, 13:
		return map[int]int{10: 310, 11: 311, 12: 316, 13: 313}[code]
	}
	return 314
}

func (d *device) pinState() string {
	switch code, _ := d.trouble(); code {
	case 10:
		return "NOT INSERTED"
	case 12:
		return "SIM PUK"
	case 11:
		return "SIM PIN"
	case 13:
		return "PH-SIM PIN"
	}
	if !d.card.unlocked {
		return "SIM PIN"
	}
	return "READY"
}

func (d *device) pinCounters() []string {
	return strings.Split(fmt.Sprintf(d.p.PINCountersFmt, d.card.tries, d.card.puks, d.pinState()), "\n")
}

func (d *device) cpin(arg string) ([]string, string) {
	if arg == "?" {
		state := d.pinState()
		if d.p.PINQuoted {
			state = `"` + state + `"`
		}
		if d.p.PINWithoutOK {
			return []string{"+CPIN: " + state}, silent
		}
		return []string{"+CPIN: " + state}, ""
	}
	c := &d.card
	words := strings.Split(strings.TrimPrefix(arg, "="), ",")
	for i := range words {
		words[i] = strings.Trim(words[i], ` "`)
	}
	switch {
	case c.unlocked && c.tries > 0:
		return nil, d.refuse(3, "operation not allowed")
	case c.tries == 0 && len(words) < 2:
		return nil, d.refuse(12, "SIM PUK required")
	case c.tries == 0 && words[0] != PUK:
		c.puks--
		return nil, d.refuse(16, "incorrect password")
	case c.tries == 0:
		c.pin, c.puks = words[1], pukTries
	case words[0] != c.pin:
		c.tries--
		return nil, d.refuse(16, "incorrect password")
	}
	c.unlocked, c.tries = true, pinTries
	d.later(time.Millisecond, func() {
		d.announce()
		d.pump()
	})
	return nil, ""
}

// SetSIM puts the card holder of modem i into a state.
func (b *Bank) SetSIM(i int, s SIMState) {
	b.with(i, func(d *device) {
		d.card.state = s
		d.later(time.Microsecond, d.pump)
	})
}

// SIMBusyFor lets card commands of modem i be refused for a while.
func (b *Bank) SIMBusyFor(i int, t time.Duration) {
	b.with(i, func(d *device) { d.card.busyUntil = time.Now().Add(t) })
}

// SwapSIM puts another card, with the same PIN, into modem i; the modem must be
// restarted to notice, as real ones without hot swap.
func (b *Bank) SwapSIM(i int, imsi string) {
	b.with(i, func(d *device) {
		d.card = newCard(b.cfg.SIMPIN, imsi, i+5000)
		if s := d.store("SM"); s != nil {
			clear(s.Slots)
		}
	})
}

// SetCredit sets how many messages the card of modem i can pay; negative is endless.
func (b *Bank) SetCredit(i, n int) { b.with(i, func(d *device) { d.card.credit = n }) }

// SetPIN changes the PIN of modem i's card, as its owner could elsewhere.
func (b *Bank) SetPIN(i int, pin string) { b.with(i, func(d *device) { d.card.pin = pin }) }

// PINTries returns how many PIN tries the card of modem i has left.
func (b *Bank) PINTries(i int) (n int) {
	b.with(i, func(d *device) { n = d.card.tries })
	return n
}

// PUKTries returns how many PUK tries the card of modem i has left.
func (b *Bank) PUKTries(i int) (n int) {
	b.with(i, func(d *device) { n = d.card.puks })
	return n
}

// SetNextRef sets the message reference the next submission on modem i gets.
func (b *Bank) SetNextRef(i int, ref byte) { b.with(i, func(d *device) { d.card.ref = ref - 1 }) }

// SkipZeroRef lets the references of modem i go from 255 to 1.
func (b *Bank) SkipZeroRef(i int, on bool) { b.with(i, func(d *device) { d.card.skipZero = on }) }
