package modem

import (
	"container/heap"
	"sync"
	"time"

	"custode/modem/bay"
)

// job is a message the pool knows: waiting, with a bay, or lately finished (kept
// so that an old snapshot of the journal cannot bring it back). Fields are
// guarded by Pool.mu, except those of the record.
type job struct {
	msg      Message
	seq      uint64
	index    int // in the heap, -1 outside
	tried    map[*lane]bool
	retryAt  time.Time
	refusals int
	inFlight int
	hedged   bool  // a second copy was granted
	doubts   int   // copies whose fate is unknown
	waiting  *lane // the bay whose slow attempt granted the second copy; counted in doubts
	done     bool
	doneAt   time.Time
	reports  []bay.News // came before the end of the sending was recorded

	rec     sync.Mutex // orders the records of this message
	state   State
	pending *Event // last one the journal did not take
}

// jobHeap orders by class, deadline, arrival.
type jobHeap []*job

func (h jobHeap) Len() int { return len(h) }
func (h jobHeap) Less(i, j int) bool {
	a, b := h[i], h[j]
	if a.msg.Class != b.msg.Class {
		return a.msg.Class < b.msg.Class
	}
	if !a.msg.Expires.Equal(b.msg.Expires) {
		return a.msg.Expires.Before(b.msg.Expires)
	}
	return a.seq < b.seq
}
func (h jobHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push is for container/heap.
func (h *jobHeap) Push(x any) {
	j := x.(*job)
	j.index = len(*h)
	*h = append(*h, j)
}

// Pop is for container/heap.
func (h *jobHeap) Pop() any {
	old := *h
	j := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	j.index = -1
	return j
}

// enqueue puts j into the heap; p.mu is held.
func (p *Pool) enqueue(j *job) {
	if j.index < 0 && !j.done {
		heap.Push(&p.queue, j)
	}
}

// take gives l the best message it may send, or nil.
func (p *Pool) take(l *lane) *job {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.cfg.Now()
	var skipped []*job
	var found *job
	for found == nil && len(p.queue) > 0 {
		j := heap.Pop(&p.queue).(*job)
		if j.done {
			continue
		}
		if p.eligible(l, j, now) {
			found = j
			break
		}
		skipped = append(skipped, j)
	}
	for _, j := range skipped {
		heap.Push(&p.queue, j)
	}
	if found != nil {
		found.inFlight++
		l.busy = true
	}
	return found
}

// eligible says whether l may send j now; p.mu is held.
func (p *Pool) eligible(l *lane, j *job, now time.Time) bool {
	if now.Before(j.retryAt) || !now.Before(j.msg.Expires) || p.cooling(l, now) {
		return false
	}
	if j.msg.Class == Bulk && !p.bulkAllowed() {
		return false
	}
	if !j.tried[l] {
		return true
	}
	// The second copy of a message in doubt never goes through the same modem;
	// a refused one may come back when nobody else is left to try.
	return j.doubts == 0 && !p.otherCouldTry(l, j, now)
}

// otherCouldTry reports that some bay fit to send has not tried j; p.mu is held.
func (p *Pool) otherCouldTry(l *lane, j *job, now time.Time) bool {
	for _, o := range p.lanes {
		if o != l && o.inService && !j.tried[o] && !now.Before(o.coolUntil) {
			return true
		}
	}
	return false
}

// cooling reports that l rests after a network failure while another bay is fit
// to send; when all rest, nobody does. p.mu is held.
func (p *Pool) cooling(l *lane, now time.Time) bool {
	if !now.Before(l.coolUntil) {
		return false
	}
	for _, o := range p.lanes {
		if o != l && o.inService && !now.Before(o.coolUntil) {
			return true
		}
	}
	return false
}

func (p *Pool) othersInService(l *lane) int {
	n := 0
	for _, o := range p.lanes {
		if o != l && o.inService {
			n++
		}
	}
	return n
}

// bulkAllowed keeps a reserve of idle bays from bulk: one in six, at least one
// when there is more than one; p.mu is held.
func (p *Pool) bulkAllowed() bool {
	serving, idle := 0, 0
	for _, l := range p.lanes {
		if l.inService {
			serving++
			if !l.busy {
				idle++
			}
		}
	}
	return serving < 2 || idle > (serving+5)/6
}

// nextMoment returns when a waiting job next needs attention (its deadline, the
// end of its pause, or of a bay's rest); p.mu is held.
func (p *Pool) nextMoment(now time.Time) (time.Time, bool) {
	var next time.Time
	sooner := func(at time.Time) {
		if now.Before(at) && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	for _, j := range p.queue {
		sooner(j.retryAt)
		sooner(j.msg.Expires)
	}
	if len(p.queue) > 0 {
		for _, l := range p.lanes {
			sooner(l.coolUntil)
		}
	}
	return next, !next.IsZero()
}

// expired removes and returns the waiting jobs past their deadline; p.mu is held.
func (p *Pool) expired(now time.Time) []*job {
	var out []*job
	for _, j := range append([]*job(nil), p.queue...) {
		if !now.Before(j.msg.Expires) {
			heap.Remove(&p.queue, j.index)
			out = append(out, j)
		}
	}
	return out
}
