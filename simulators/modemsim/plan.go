package modemsim

import (
	"fmt"
	"time"
)

// planned draws the fate of a submission; d.mu is held.
func (d *device) planned() Outcome {
	o, hang := d.bank.cfg.Plan.Draw(d.rnd)
	switch {
	case o.Hang:
		o.Sent = d.rnd.Float64() < d.bank.cfg.Orphans
		d.bank.tell("modem %d hangs for %v", d.index, hang)
		d.later(hang, func() {
			d.faults.hung = false
			d.pump()
		})
	case o.Free:
		d.bank.tell("modem %d answers %v late", d.index, o.Delay)
	}
	return o
}

// startPlan sets the periodic faults going.
func (b *Bank) startPlan() {
	p := b.cfg.Plan
	b.every(p.UnplugEvery, func(i int) {
		b.tell("modem %d unplugged for %v", i, p.UnplugFor)
		b.Unplug(i)
		b.mu.Lock()
		name := ""
		if p.Rename {
			name = fmt.Sprintf("modem%d-%d", i, len(b.faultLog))
		}
		b.mu.Unlock()
		b.air.After(max(p.UnplugFor, time.Millisecond), func() {
			if err := b.PlugAs(i, name); err != nil {
				b.tell("modem %d does not come back: %v", i, err)
			}
		})
	})
	b.every(p.StormEvery, func(i int) {
		n := p.StormLines
		if n == 0 {
			n = 200
		}
		b.tell("modem %d storms with %d lines", i, n)
		b.Storm(i, n, time.Millisecond)
	})
	b.every(p.RebootEvery, func(i int) {
		b.tell("modem %d reboots", i)
		b.Reboot(i)
	})
	b.every(p.RegLossEvery, func(i int) {
		b.tell("modem %d loses the network for %v", i, p.RegLossFor)
		b.SetRegistration(i, 2)
		b.air.After(max(p.RegLossFor, time.Millisecond), func() { b.SetRegistration(i, b.devices[i].p.Registers) })
	})
}

// every lets something happen to a random modem again and again.
func (b *Bank) every(mean time.Duration, f func(i int)) {
	if mean <= 0 {
		return
	}
	b.mu.Lock()
	pause := time.Duration(b.rnd.ExpFloat64() * float64(mean))
	i := b.rnd.IntN(len(b.devices))
	b.mu.Unlock()
	b.air.After(max(pause, time.Millisecond), func() {
		f(i)
		b.every(mean, f)
	})
}

// tell notes what the plan does.
func (b *Bank) tell(format string, a ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.faultLog) < 10000 {
		b.faultLog = append(b.faultLog, time.Now().UTC().Format("15:04:05.000 ")+fmt.Sprintf(format, a...))
	}
}

// Faults returns what the plan has done, for the log of a test.
func (b *Bank) Faults() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.faultLog...)
}
