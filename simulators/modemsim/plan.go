package modemsim

import (
	"fmt"
	"time"
)

// Plan is random trouble, drawn from the bank's seed. Shares, 0 to 1, are per
// submission; periods are means over the whole bank, of a Poisson process.
type Plan struct {
	Hang             float64 // deaf and mute for HangFor (60 s when zero); the message is lost
	HangFor          time.Duration
	Slow             float64 // latency uniform between SlowMin and SlowMax
	SlowMin, SlowMax time.Duration
	OKOnly           float64 // OK without +CMGS
	Twice            float64 // OK twice
	Late             float64 // +CMGS after LateBy, other commands served meanwhile
	LateBy           time.Duration
	// UnplugEvery pulls a modem for UnplugFor; with Rename it comes back under
	// another link.
	UnplugEvery, UnplugFor time.Duration
	Rename                 bool
	StormEvery             time.Duration // StormLines (200 when zero) lines, one per millisecond
	StormLines             int
	RebootEvery            time.Duration
	RegLossEvery           time.Duration // registration is lost for RegLossFor
	RegLossFor             time.Duration
}

// Soak is the trouble of a long test: 1 % hangs of 60 s, 3 % slow messages, a
// modem unplugged for five seconds every minute and a storm every five.
func Soak() Plan {
	return Plan{
		Hang: 0.01, HangFor: time.Minute, Slow: 0.03, SlowMin: 8 * time.Second, SlowMax: 20 * time.Second,
		UnplugEvery: time.Minute, UnplugFor: 5 * time.Second, StormEvery: 5 * time.Minute, StormLines: 2000,
	}
}

// planned draws the fate of a submission; d.mu is held.
func (d *device) planned() Outcome {
	p := d.bank.cfg.Plan
	v := d.rnd.Float64()
	hit := func(share float64) bool {
		v -= share
		return v < 0
	}
	switch {
	case p == Plan{}:
	case hit(p.Hang):
		length := p.HangFor
		if length == 0 {
			length = time.Minute
		}
		d.bank.tell("modem %d hangs for %v", d.index, length)
		d.later(length, func() { d.faults.hung = false })
		return Outcome{Hang: true}
	case hit(p.Slow):
		return Outcome{Delay: p.SlowMin + time.Duration(d.rnd.Float64()*float64(p.SlowMax-p.SlowMin))}
	case hit(p.OKOnly):
		return Outcome{NoRef: true}
	case hit(p.Twice):
		return Outcome{Twice: true}
	case hit(p.Late):
		d.bank.tell("modem %d answers %v late", d.index, p.LateBy)
		return Outcome{Free: true, Delay: p.LateBy}
	}
	return Outcome{}
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
		b.after(max(p.UnplugFor, time.Millisecond), func() {
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
		b.after(max(p.RegLossFor, time.Millisecond), func() { b.SetRegistration(i, b.devices[i].p.Registers) })
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
	b.after(max(pause, time.Millisecond), func() {
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
