package modem

import (
	"context"
	"hash/maphash"
	"slices"
	"strings"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/modem/budget"
)

// Caps bound what is accepted, against people who make the box send messages for
// the money of it (SMS pumping). Zero fields take the default in parentheses; a
// negative number means no limit.
type Caps struct {
	PerNumber int           // messages to one number within Window (3)
	Window    time.Duration // (10 m)
	// Prefixes limit the messages to all numbers that begin alike, per hour.
	Prefixes []PrefixCap
}

// PrefixCap limits a country or a range: + and digits.
type PrefixCap struct {
	Prefix  string
	PerHour int
}

func (c Caps) withDefaults() Caps {
	if c.PerNumber == 0 {
		c.PerNumber = 3
	}
	if c.Window <= 0 {
		c.Window = 10 * time.Minute
	}
	return c
}

// Admit says whether the pool can carry one more code to a number within its
// life, and about how long it will wait for a modem. fault.Denied: no messages go to
// such numbers. fault.Exhausted: the number,
// or the range it is in, got enough for now. fault.Busy: more than half of its
// life would be over before a modem takes it; fault.Unavailable: the count of
// accepted messages cannot be read. It reserves nothing.
func (p *Pool) Admit(ctx context.Context, to id.Phone, life time.Duration) (wait time.Duration, err error) {
	const op = "accept SMS"
	if err := p.cfg.Numbers.Accept(to); err != nil {
		return 0, err
	}
	if err := p.withinCaps(ctx, to); err != nil {
		return 0, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.cfg.Now()
	wait, known := p.predict(now)
	if !known {
		if !p.dark.IsZero() && now.Sub(p.dark) > life/2 {
			return 0, fault.Newf(fault.Busy, op, "no modem in service for %v", now.Sub(p.dark).Round(time.Second))
		}
		return 0, nil
	}
	if wait > life/2 {
		return wait, fault.Newf(fault.Busy, op, "it would wait %v for a modem", wait.Round(time.Second))
	}
	return wait, nil
}

func (p *Pool) withinCaps(ctx context.Context, to id.Phone) error {
	const op = "accept SMS"
	if p.cfg.Accounts == nil {
		return nil
	}
	count := func(number string, prefix bool, window time.Duration) (int, error) {
		n, err := p.cfg.Accounts.Accepted(ctx, number, prefix, p.cfg.Now().Add(-window))
		if err != nil {
			return 0, fault.New(fault.Unavailable, op, err)
		}
		return n, nil
	}
	if limit := p.cfg.Caps.PerNumber; limit > 0 {
		n, err := count(to.String(), false, p.cfg.Caps.Window)
		if err != nil {
			return err
		}
		if n >= limit {
			return fault.Newf(fault.Exhausted, op, "%d messages to the number within %v", n, p.cfg.Caps.Window)
		}
	}
	for _, c := range p.cfg.Caps.Prefixes {
		if c.PerHour < 0 || !strings.HasPrefix(to.String(), c.Prefix) {
			continue
		}
		n, err := count(c.Prefix, true, time.Hour)
		if err != nil {
			return err
		}
		if n >= c.PerHour {
			return fault.Newf(fault.Exhausted, op, "%d messages to %s within an hour", n, c.Prefix)
		}
	}
	return nil
}

// predict estimates how long a code accepted now waits for a modem: the codes
// before it are dealt to the bays as they become free and as their cards may
// send; p.mu is held. known is false when no bay serves.
func (p *Pool) predict(now time.Time) (wait time.Duration, known bool) {
	type slot struct {
		free time.Duration
		each time.Duration
	}
	var slots []slot
	for _, l := range p.lanes {
		if !l.fit() || l.purse == nil {
			continue
		}
		s := slot{each: time.Duration(l.submitTime.Value * float64(time.Second))}
		if l.busy {
			s.free = s.each / 2
		}
		if ok, at := l.purse.CanSpend(false, now); !ok {
			s.free = max(s.free, at.Sub(now))
			if per := p.cfg.Budget.PerMinute; per > 0 {
				s.each = max(s.each, time.Duration(float64(time.Minute)/per))
			}
		}
		slots = append(slots, s)
	}
	if len(slots) == 0 {
		return 0, false
	}
	waiting := 0
	for _, j := range p.queue {
		if j.msg.Class == OneTime && !j.done {
			waiting++
		}
	}
	for n := 0; ; n++ {
		first := 0
		for i := range slots {
			if slots[i].free < slots[first].free {
				first = i
			}
		}
		if n == waiting {
			return slots[first].free, true
		}
		slots[first].free += slots[first].each
	}
}

// loadAllowed is the share of bays that codes may keep busy while 95 of 100 find
// one within 3 s, by simulation with service times between 3 and 5 s.
var loadAllowed = []struct {
	bays  int
	share float64
}{{1, 0.14}, {2, 0.31}, {3, 0.46}, {4, 0.55}, {6, 0.65}, {8, 0.71}, {16, 0.80}}

// allowedLoad is how many of that many bays codes may keep busy.
func allowedLoad(bays int) float64 {
	i := slices.IndexFunc(loadAllowed, func(e struct {
		bays  int
		share float64
	}) bool {
		return e.bays > bays
	})
	switch {
	case bays < 1:
		return 0
	case i < 0:
		return 0.80 * float64(bays)
	}
	return loadAllowed[i-1].share * float64(bays)
}

// seed makes the hashes by which marks knows numbers: none need lie in memory for a day.
var seed = maphash.MakeSeed()

func markOf(to id.Phone) uint64 { return maphash.String(seed, to.String()) }

// marks remembers numbers that two operators refused: a further message gets one
// try, and its refusal tells nothing about a bay. Guarded by Pool.mu.
type marks map[uint64]*mark

type mark struct {
	operators []string
	until     time.Time
}

const (
	markLife = 24 * time.Hour
	maxMarks = 4096
)

// note takes a refusal of a number by an operator's network; true when the number
// is marked, by this or before.
func (m *marks) note(to id.Phone, operator string, now time.Time) bool {
	if *m == nil {
		*m = marks{}
	}
	k := (*m)[markOf(to)]
	if k == nil || !now.Before(k.until) {
		if len(*m) >= maxMarks {
			m.sweep(now)
		}
		k = &mark{}
		(*m)[markOf(to)] = k
	}
	k.until = now.Add(markLife)
	if !slices.Contains(k.operators, operator) {
		k.operators = append(k.operators, operator)
	}
	return len(k.operators) > 1
}

// bad reports that a number is marked.
func (m marks) bad(to id.Phone, now time.Time) bool {
	k := m[markOf(to)]
	return k != nil && len(k.operators) > 1 && now.Before(k.until)
}

// clear forgets what was noted of a number that took a message.
func (m marks) clear(to id.Phone) { delete(m, markOf(to)) }

// sweep makes room: what is over, else any.
func (m marks) sweep(now time.Time) {
	for k, v := range m {
		if !now.Before(v.until) {
			delete(m, k)
		}
	}
	for k := range m {
		if len(m) < maxMarks {
			return
		}
		delete(m, k)
	}
}

// openPurse brings the count of a card's messages from the accounts when the card
// is new in its bay. Until that worked the bay gets no message.
func (p *Pool) openPurse(ctx context.Context, l *lane) {
	card := l.bay.Status().IMSI
	if b, ok := l.bay.(carded); ok {
		card = b.Card()
	}
	p.mu.Lock()
	known := l.purse != nil && l.card == card
	if !known {
		l.card, l.operator, l.purse = card, card[:min(len(card), 5)], nil
	}
	p.mu.Unlock()
	if known {
		return
	}
	now, limits := p.cfg.Now(), p.cfg.Budget
	purse := budget.New(limits, now)
	if p.cfg.Accounts != nil && card != "" {
		var err error
		if purse, err = p.spent(ctx, card, now); err != nil {
			p.trouble(ctx, "count of a card not read", err)
			return
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.card == card {
		l.purse = purse
	}
}

func (p *Pool) spent(ctx context.Context, card string, now time.Time) (*budget.Purse, error) {
	actx, cancel := context.WithTimeout(ctx, p.cfg.Timing.Record)
	defer cancel()
	var counts [3]budget.Count
	for i, since := range []time.Time{now.Add(-p.cfg.Budget.Window()), budget.DayStart(now), budget.MonthStart(now)} {
		all, bulk, err := p.cfg.Accounts.Spent(actx, card, since)
		if err != nil {
			return nil, err
		}
		counts[i] = budget.Count{All: all, Bulk: bulk}
	}
	return budget.Restore(p.cfg.Budget, now, counts[0].All, counts[1], counts[2]), nil
}

// openPurses repeats what failed.
func (p *Pool) openPurses(ctx context.Context) {
	for _, l := range p.lanes {
		p.mu.Lock()
		missing := l.inService && l.purse == nil
		p.mu.Unlock()
		if missing {
			p.openPurse(ctx, l)
		}
	}
}
