package modem

import (
	"container/heap"
	"math"
	"slices"
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
	left     bool  // a copy was handed to a modem
	done     bool
	doneAt   time.Time
	sentAt   time.Time
	reports  []bay.News // came before the end of the sending was recorded

	rec     sync.Mutex // orders the records of this message
	state   State
	pending *Event // last one the journal did not take
}

// jobHeap orders by class; in it what was not refused yet (a bad number's further
// tries delay nobody else's first), deadline, arrival.
type jobHeap []*job

func (h jobHeap) Len() int { return len(h) }
func (h jobHeap) Less(i, j int) bool {
	a, b := h[i], h[j]
	if a.msg.Class != b.msg.Class {
		return a.msg.Class < b.msg.Class
	}
	if x, y := a.refusals > 0, b.refusals > 0; x != y {
		return y
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

// dispatch gives waiting messages, best first, to idle bays, and probes to bays
// whose breaker is due. Nothing is ever given to a bay that is busy.
func (p *Pool) dispatch() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.cfg.Now()
	p.probe(now)
	idle := make([]*lane, 0, len(p.lanes))
	for _, l := range p.lanes {
		if l.idle() {
			idle = append(idle, l)
		}
	}
	var skipped []*job
	for len(idle) > 0 && len(p.queue) > 0 {
		j := heap.Pop(&p.queue).(*job)
		if j.done {
			continue
		}
		l := p.choose(idle, j, now)
		if l == nil {
			skipped = append(skipped, j)
			if j.msg.Class == Bulk && !p.bulkAllowed(now) {
				break // and so are all that follow
			}
			continue
		}
		j.inFlight++
		l.busy = true
		l.work <- task{job: j} // room for one: l was not busy
		idle = slices.DeleteFunc(idle, func(o *lane) bool { return o == l })
	}
	for _, j := range skipped {
		heap.Push(&p.queue, j)
	}
}

// probe gives due bays their probe; p.mu is held.
func (p *Pool) probe(now time.Time) {
	alone := p.stuck()
	for _, l := range p.lanes {
		if l.inService && !l.busy && l.breaker.dueProbe(now, alone) {
			l.busy = true
			l.breaker.probed = now
			l.work <- task{probe: true}
		}
	}
}

// stuck reports that messages wait and no bay is fit to take any; p.mu is held.
func (p *Pool) stuck() bool {
	return len(p.queue) > 0 && !slices.ContainsFunc(p.lanes, func(l *lane) bool { return l.fit() })
}

// choose returns the idle lane that will have j out soonest, or nil; p.mu is held.
func (p *Pool) choose(idle []*lane, j *job, now time.Time) *lane {
	var best *lane
	for _, l := range idle {
		if !p.eligible(l, j, now) {
			continue
		}
		if best == nil || p.better(l, best, j, now) {
			best = l
		}
	}
	return best
}

// better reports that l is the better choice than o for j: for a code one that is
// not on trial, another operator for a second copy, then the shorter expected
// time (a tenth is no difference), then the card that has sent less today.
func (p *Pool) better(l, o *lane, j *job, now time.Time) bool {
	if a, b := l.breaker.trial, o.breaker.trial; a != b && j.msg.Class == OneTime {
		return b
	}
	if j.doubts > 0 {
		if a, b := j.sameOperator(l), j.sameOperator(o); a != b {
			return b
		}
	}
	average := p.averageScore()
	a, b := l.score(average, now), o.score(average, now)
	if math.Abs(a-b) > 0.1*min(a, b) {
		return a < b
	}
	return l.spentToday(now) < o.spentToday(now)
}

// averageScore is of the measured bays; p.mu is held.
func (p *Pool) averageScore() float64 {
	sum, n := 0.0, 0.0
	for _, l := range p.lanes {
		if !l.measured.IsZero() {
			sum, n = sum+l.score(0, l.measured), n+1
		}
	}
	if n == 0 {
		return priorSubmit
	}
	return sum / n
}

// sameOperator reports that a bay of l's operator has tried j.
func (j *job) sameOperator(l *lane) bool {
	for o := range j.tried {
		if o.operator == l.operator {
			return true
		}
	}
	return false
}

// eligible says whether l, which is fit and idle, may send j now; p.mu is held.
func (p *Pool) eligible(l *lane, j *job, now time.Time) bool {
	switch {
	case now.Before(j.retryAt) || !now.Before(j.msg.Expires):
		return false
	case j.msg.OnlyBay != "" && j.msg.OnlyBay != l.place.Name:
		return false
	case j.msg.Class == Bulk && !p.bulkAllowed(now):
		return false
	case !l.affords(j.msg.Class == Bulk, now):
		return false
	case !j.tried[l]:
		return true
	}
	// The second copy of a message in doubt never goes through the same modem;
	// a refused one may come back when nobody else is left to try.
	return j.doubts == 0 && !p.otherCouldTry(l, j, now)
}

// othersFit reports that some bay besides l is fit and answers to also; p.mu is held.
func (p *Pool) othersFit(l *lane, also func(*lane) bool) bool {
	return slices.ContainsFunc(p.lanes, func(o *lane) bool { return o != l && o.fit() && also(o) })
}

// otherCouldTry reports that some bay fit to send has not tried j; p.mu is held.
func (p *Pool) otherCouldTry(l *lane, j *job, now time.Time) bool {
	return p.othersFit(l, func(o *lane) bool {
		return !j.tried[o] && (j.msg.OnlyBay == "" || j.msg.OnlyBay == o.place.Name) && o.affords(j.msg.Class == Bulk, now)
	})
}

// serving counts the bays fit to send, and the idle ones among them; p.mu is held.
func (p *Pool) serving() (fit, idle int) {
	for _, l := range p.lanes {
		if l.fit() {
			fit++
			if l.idle() {
				idle++
			}
		}
	}
	return fit, idle
}

// reserve is how many idle bays bulk must leave: one in six, at least one, and half
// as many again as the codes of the last minute keep busy; all of them when codes
// come near to what so many bays carry well. p.mu is held.
func (p *Pool) reserve(fit int, now time.Time) int {
	if fit < 2 {
		return 0
	}
	load := p.codeLoad(now)
	if load > 0.8*allowedLoad(fit) {
		return fit
	}
	return max(1, (fit+5)/6, int(math.Ceil(1.5*load-0.25)))
}

// codeLoad is how many bays the codes of the last minute keep busy; p.mu is held.
func (p *Pool) codeLoad(now time.Time) float64 { return p.codes.At(now) * p.meanSubmit() }

// meanSubmit is the expected time of one submission, in seconds; p.mu is held.
func (p *Pool) meanSubmit() float64 {
	sum, n := 0.0, 0
	for _, l := range p.lanes {
		if l.fit() {
			sum += l.submitTime.Value
			n++
		}
	}
	if n == 0 {
		return priorSubmit
	}
	return sum / float64(n)
}

// bulkAllowed keeps a reserve of idle bays from bulk; p.mu is held.
func (p *Pool) bulkAllowed(now time.Time) bool {
	fit, idle := p.serving()
	return idle > p.reserve(fit, now)
}

// nextMoment returns when a waiting job next needs attention (its deadline, the
// end of its pause, of a bay's rest, of a card's pause); p.mu is held.
func (p *Pool) nextMoment(now time.Time) (time.Time, bool) {
	next := p.renewal
	sooner := func(at time.Time) {
		if now.Before(at) && at.Before(next) {
			next = at
		}
	}
	for _, j := range p.queue {
		sooner(j.retryAt)
		sooner(j.msg.Expires)
	}
	alone := p.stuck()
	for _, l := range p.lanes {
		if !l.inService || l.busy {
			continue
		}
		if l.breaker.open {
			sooner(l.breaker.nextProbe(alone))
		} else if len(p.queue) > 0 && l.purse != nil {
			_, at := l.purse.CanSpend(p.queue[0].msg.Class == Bulk, now)
			sooner(at)
		}
	}
	return next, true
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
