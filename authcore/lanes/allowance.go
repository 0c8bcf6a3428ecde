package lanes

import (
	"sync"
	"time"
)

// Allowance is a token bucket: Most at once, and one more after each Pause. It
// begins full. Safe for concurrent use.
type Allowance struct {
	Most  int
	Pause time.Duration

	mu    sync.Mutex
	spent int
	since time.Time // when spent was last counted down
}

// Take reports whether one more may be had at now.
func (a *Allowance) Take(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if back := now.Sub(a.since); back < 0 || back >= time.Duration(a.Most)*a.Pause {
		a.spent, a.since = 0, now
	} else if n := int(back / a.Pause); n > 0 {
		a.spent, a.since = max(0, a.spent-n), a.since.Add(time.Duration(n)*a.Pause)
	}
	if a.spent >= a.Most {
		return false
	}
	a.spent++
	return true
}
