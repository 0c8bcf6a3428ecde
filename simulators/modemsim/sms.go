package modemsim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"custode/simulators/modemsim/network"
	"custode/simulators/modemsim/tpdu"
)

type pendingSubmit struct {
	length int // announced by AT+CMGS
	keep   bool
	hex    []byte
}

// flight is a submission between Ctrl-Z and its answer.
type flight struct {
	m     tpdu.Submit
	o     Outcome
	hand  int // place among the hand-offs
	entry int // place in the ledger, -1 before
	ref   byte
}

func cms(code int) string { return fmt.Sprintf("+CMS ERROR: %d", code) }

// send puts a message on the air; d.mu is held.
func (d *device) send(p *pendingSubmit) {
	m, err := tpdu.ParseSubmit(string(p.hex), p.length)
	switch {
	case err != nil:
		d.say(cms(304))
		return
	case p.keep:
		d.keep(m)
		return
	}
	x := &flight{m: m, hand: d.bank.air.Handoff(d.index, m.To), entry: -1}
	f := &d.faults
	switch {
	case f.failNext > 0:
		f.failNext--
		d.say(cms(f.failCode))
		return
	case f.hangOnSend:
		f.hung = true
		return
	}
	var scripted bool
	x.o, scripted = d.outcome(m.To)
	if !scripted {
		if code := d.deviceRefusal(); code != 0 {
			d.say(cms(code))
			return
		}
	}
	if f.lateNext > 0 {
		x.o = Outcome{Free: true, Delay: f.lateNext}
		f.lateNext = 0
	}
	d.fly(x)
}

// outcome finds what tests or the fault plan want of this submission.
func (d *device) outcome(to string) (Outcome, bool) {
	if q := d.script.Outcomes; len(q) > 0 {
		d.script.Outcomes = q[1:]
		return q[0], true
	}
	d.bank.mu.Lock()
	o, ok := d.bank.byNumber[to]
	d.bank.mu.Unlock()
	if ok {
		return o, true
	}
	return d.planned(), false
}

// deviceRefusal is what the modem itself has against sending: a CMS code or 0.
func (d *device) deviceRefusal() int {
	if code := d.messageRefusal(); code != 0 {
		return code
	}
	switch {
	case !d.onNet():
		return 331
	case d.card.sca == "":
		return 330
	case d.p.FullCode != 0 && !slices.Contains(d.mem(3).Store.Slots, nil):
		return d.p.FullCode
	case d.card.credit == 0:
		return d.p.NoCredit
	}
	return 0
}

// fly starts what the outcome wants; d.mu is held.
func (d *device) fly(x *flight) {
	delay := x.o.Delay
	if delay == 0 {
		delay = d.bank.latency(d)
	}
	switch {
	case x.o.Hang:
		if x.o.Sent {
			d.accept(x)
		}
		d.faults.hung = true
	case x.o.Silent:
		if x.o.Sent {
			d.later(delay, func() { d.accept(x) })
		}
	case x.o.Free:
		// The network has it; the modem is free but tells late.
		if d.refusal(x.o) == "" {
			if code := d.judge(x.m.To); code != 0 {
				x.o.CMS = code
			} else {
				d.accept(x)
			}
		}
		d.later(delay, func() { d.answer(x) })
	default:
		d.busy, d.air = true, x
		d.later(delay, func() {
			d.busy, d.air = false, nil
			d.land(x)
		})
	}
}

// orphan decides about a submission whose modem went away: the network may have
// had it already; d.mu is held.
func (d *device) orphan() {
	x := d.air
	d.air = nil
	if x != nil && d.rnd.Float64() < d.bank.cfg.Orphans && d.judge(x.m.To) == 0 {
		d.accept(x)
	}
}

// land ends a submission on the air; d.mu is held.
func (d *device) land(x *flight) {
	if !x.o.Lost() {
		d.answer(x)
		return
	}
	if x.o.Sent {
		d.accept(x)
	}
	switch {
	case x.o.Unplug:
		d.plugged = false
		d.detach()
	case x.o.BrownOut:
		d.brownOut()
	default:
		d.reboot()
	}
}

// answer says how it went.
func (d *device) answer(x *flight) {
	bad := d.refusal(x.o)
	if bad == "" && x.entry < 0 {
		if code := d.judge(x.m.To); code != 0 {
			bad = cms(code)
		}
	}
	d.inject(BeforeRef)
	if bad != "" {
		if x.o.Sent {
			d.accept(x)
		}
		d.say(append(strings.Split(bad, "\n"), d.script.Take(AfterFinal)...)...)
		return
	}
	fresh := x.entry < 0
	if fresh {
		d.enter(x)
	}
	var lines []string
	if !x.o.NoRef && d.faults.okOnly == 0 {
		lines = append(lines, fmt.Sprintf("+CMGS: %d", x.ref))
		if d.master != nil && !d.faults.hung {
			d.bank.air.Told(x.entry)
		}
	} else if d.faults.okOnly > 0 {
		d.faults.okOnly--
	}
	if between := d.script.Take(BetweenRefAndOK); between != nil {
		d.say(lines...)
		lines = between
	}
	lines = append(lines, "OK")
	if x.o.Twice {
		lines = append(lines, "OK")
	}
	d.say(append(lines, d.script.Take(AfterFinal)...)...)
	if fresh { // the receipt leaves before the report can
		d.transmit(x)
	}
}

// accept lets the network take a message and carry it.
func (d *device) accept(x *flight) {
	d.enter(x)
	d.transmit(x)
}

// enter numbers a message and enters it into the ledger.
func (d *device) enter(x *flight) {
	c := &d.card
	c.ref++
	if c.ref == 0 && c.skipZero {
		c.ref = 1
	}
	if c.credit > 0 {
		c.credit--
	}
	c.patience.Accepted(time.Now())
	x.ref = c.ref
	x.entry = d.bank.air.Note(network.Submission{Modem: d.index, IMSI: c.imsi, Ref: c.ref}, x.m, x.hand)
}

// transmit sends an accepted message to its phone, and the report back.
func (d *device) transmit(x *flight) {
	sent, imsi := time.Now(), d.card.imsi
	carry := &network.Delivery{From: d.number(), M: x.m}
	if x.m.Report {
		carry.Report = func(st byte, national bool) {
			pdu := tpdu.Report(x.ref, x.m.To, national, sent, time.Now(), st)
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.card.imsi == imsi {
				d.card.inbound = append(d.card.inbound, inbound{tpdu: pdu, report: true})
				d.pump()
			}
		}
	}
	d.bank.air.Deliver(carry)
}

// judge is the network's verdict on a submission: 0 or a CMS code.
func (d *device) judge(to string) int {
	b := d.bank
	if b.cfg.Reject > 0 && d.rnd.Float64() < b.cfg.Reject {
		return 42 // congestion
	}
	if code := b.cfg.AntiSpam.Judge(&d.card.patience, time.Now()); code != 0 {
		return code
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.barred[to]
}
