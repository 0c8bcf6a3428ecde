package journal

import (
	"slices"
	"sync"
	"time"
)

// waitBounds are the upper bounds of a Waits' buckets: fine around the 20 ms that
// the register may cost a login.
var waitBounds = [...]time.Duration{
	500 * time.Microsecond, time.Millisecond, 2 * time.Millisecond, 3 * time.Millisecond, 4 * time.Millisecond, 5 * time.Millisecond,
	6 * time.Millisecond, 8 * time.Millisecond, 10 * time.Millisecond, 12 * time.Millisecond, 15 * time.Millisecond, 20 * time.Millisecond,
	25 * time.Millisecond, 30 * time.Millisecond, 40 * time.Millisecond, 50 * time.Millisecond, 75 * time.Millisecond, 100 * time.Millisecond,
	150 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 10 * time.Second,
}

// Waits is how long appends took, of those that a login waited for. The zero value
// is ready; it is safe for concurrent use.
type Waits struct {
	mu     sync.Mutex
	counts [len(waitBounds) + 1]uint64
	sum    time.Duration
}

func (w *Waits) add(d time.Duration) {
	i, _ := slices.BinarySearch(waitBounds[:], d)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[i]++
	w.sum += d
}

// Each gives the cumulative count up to each bound, a negative one for the last,
// and returns count and sum of all.
func (w *Waits) Each(visit func(bound time.Duration, count uint64)) (count uint64, sum time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, n := range w.counts {
		count += n
		bound := time.Duration(-1)
		if i < len(waitBounds) {
			bound = waitBounds[i]
		}
		visit(bound, count)
	}
	return count, w.sum
}
