package network

import (
	"context"
	"math"
	"math/rand/v2"
	"time"
)

// Delay is a log-normal distribution: half of the draws are below Median; Spread
// is the standard deviation of the logarithm (0.5 is lively, 0 is constant). Draws
// over ten times Median are cut there. A share Slow of the draws, 0 to 1, is
// uniform between SlowMin and SlowMax instead. The zero value means no delay.
type Delay struct {
	Median           time.Duration
	Spread           float64
	Slow             float64
	SlowMin, SlowMax time.Duration
}

// Radio2G is a GSM network: median 4 s, 95 % within 7 s, 3 % of 8 to 20 s.
func Radio2G() Delay {
	return Delay{Median: 4 * time.Second, Spread: 0.34, Slow: 0.03, SlowMin: 8 * time.Second, SlowMax: 20 * time.Second}
}

// RadioLTE is an LTE network: median 1.8 s, 95 % within 4 s, 3 % of 8 to 20 s.
func RadioLTE() Delay {
	return Delay{Median: 1800 * time.Millisecond, Spread: 0.485, Slow: 0.03, SlowMin: 8 * time.Second, SlowMax: 20 * time.Second}
}

// Draw takes a delay from the distribution.
func (d Delay) Draw(rnd *rand.Rand) time.Duration {
	if d.Slow > 0 && rnd.Float64() < d.Slow {
		return d.SlowMin + time.Duration(rnd.Float64()*float64(d.SlowMax-d.SlowMin))
	}
	if d.Median == 0 {
		return 0
	}
	f := math.Exp(rnd.NormFloat64() * d.Spread)
	return time.Duration(float64(d.Median) * min(f, 10))
}

// until returns once ready, called under the lock, says so.
func (n *Network) until(ctx context.Context, ready func() bool) error {
	for {
		n.mu.Lock()
		done, changed := ready(), n.changed
		n.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// grew wakes the waiters; n.mu is held.
func (n *Network) grew() {
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *Network) draw(d Delay) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return d.Draw(n.rnd)
}

func (n *Network) chance(p float64) bool {
	if p <= 0 {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rnd.Float64() < p
}

// After runs f after d, at once when d is not positive; End waits for it.
func (a *Air) After(d time.Duration, f func()) {
	if d <= 0 {
		f()
		return
	}
	n := a.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	n.running.Add(1)
	var t *time.Timer
	t = time.AfterFunc(d, func() {
		defer n.running.Done()
		n.mu.Lock()
		delete(n.timers, t)
		closed := n.closed
		n.mu.Unlock()
		if !closed {
			f()
		}
	})
	n.timers[t] = true
}

// Go runs f on a goroutine that Wait waits for; false when the network has ended.
func (a *Air) Go(f func()) bool {
	a.n.mu.Lock()
	defer a.n.mu.Unlock()
	if !a.n.closed {
		a.n.running.Go(f)
	}
	return !a.n.closed
}

// End stops every timer; nothing starts any more.
func (a *Air) End() {
	a.n.mu.Lock()
	defer a.n.mu.Unlock()
	a.n.closed = true
	for t := range a.n.timers {
		if t.Stop() {
			a.n.running.Done()
		}
	}
	a.n.timers = nil
}

// Wait returns when everything started has finished.
func (a *Air) Wait() { a.n.running.Wait() }
