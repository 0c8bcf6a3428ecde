package script

import (
	"math/rand/v2"
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

// Draw decides the fate of a submission; hang is how long a Hang lasts.
func (p Plan) Draw(rnd *rand.Rand) (o Outcome, hang time.Duration) {
	v := rnd.Float64()
	hit := func(share float64) bool {
		v -= share
		return v < 0
	}
	switch {
	case hit(p.Hang):
		if p.HangFor == 0 {
			return Outcome{Hang: true}, time.Minute
		}
		return Outcome{Hang: true}, p.HangFor
	case hit(p.Slow):
		return Outcome{Delay: p.SlowMin + time.Duration(rnd.Float64()*float64(p.SlowMax-p.SlowMin))}, 0
	case hit(p.OKOnly):
		return Outcome{NoRef: true}, 0
	case hit(p.Twice):
		return Outcome{Twice: true}, 0
	case hit(p.Late):
		return Outcome{Free: true, Delay: p.LateBy}, 0
	}
	return Outcome{}, 0
}
