// Package budget holds what a card may spend: token buckets per SIM (a burst, a
// rate per minute, a number per day and per month) with a share of the day and
// of the month for bulk messages. Operators bar cards that send like machines;
// contracts name a day's and a month's number.
//
// It is pure arithmetic: moments are arguments, there is no lock and nothing is
// durable. Who owns a Purse restores it from a durable count (Restore) when a
// card appears. Days and months are calendar ones in the location of the moments
// given, as contracts count them.
package budget

import (
	"math"
	"time"
)

// Limits bound one card. A zero field takes the default in parentheses; a
// negative one means no limit.
type Limits struct {
	Burst     int     // SMS at once (3)
	PerMinute float64 // sustained (10)
	PerDay    int     // (200)
	PerMonth  int     // (3000)
	// BulkPercent of day and month that bulk messages may use (50). Bulk never
	// takes the last of a burst.
	BulkPercent int
}

// WithDefaults fills in zero fields.
func (l Limits) WithDefaults() Limits {
	if l.Burst == 0 {
		l.Burst = 3
	}
	if l.PerMinute == 0 {
		l.PerMinute = 10
	}
	if l.PerDay == 0 {
		l.PerDay = 200
	}
	if l.PerMonth == 0 {
		l.PerMonth = 3000
	}
	if l.BulkPercent == 0 {
		l.BulkPercent = 50
	}
	l.BulkPercent = min(max(l.BulkPercent, 0), 100)
	return l
}

// Window is how far back Restore must look for the burst: a bucket that nobody
// used for so long is full.
func (l Limits) Window() time.Duration {
	if l.Burst < 0 || l.PerMinute <= 0 {
		return 0
	}
	return time.Duration(float64(l.Burst) / l.PerMinute * float64(time.Minute))
}

// DayStart and MonthStart are the beginnings of the calendar spans of a moment.
func DayStart(now time.Time) time.Time {
	y, m, d := now.Date()
	return time.Date(y, m, d, 0, 0, 0, 0, now.Location())
}

// MonthStart is the first instant of now's month.
func MonthStart(now time.Time) time.Time {
	y, m, _ := now.Date()
	return time.Date(y, m, 1, 0, 0, 0, 0, now.Location())
}

// Count is a number of SMS and how many of them were bulk.
type Count struct{ All, Bulk int }

// Purse is what one card has left. It is made by New or Restore.
type Purse struct {
	limits     Limits
	tokens     float64
	filled     time.Time
	day, month Count
	dayOf      time.Time
	monthOf    time.Time
}

// New returns a full purse.
func New(l Limits, now time.Time) *Purse { return Restore(l, now, 0, Count{}, Count{}) }

// Restore returns the purse of a card that has spent: lately (within
// l.Window()), today and this month.
func Restore(l Limits, now time.Time, lately int, day, month Count) *Purse {
	l = l.WithDefaults()
	return &Purse{limits: l, tokens: max(float64(l.Burst-lately), 0), filled: now,
		day: day, month: month, dayOf: DayStart(now), monthOf: MonthStart(now)}
}

// roll lets time pass.
func (p *Purse) roll(now time.Time) {
	if d := now.Sub(p.filled); d > 0 {
		p.tokens = min(p.tokens+d.Minutes()*p.limits.PerMinute, float64(p.limits.Burst))
		p.filled = now
	}
	// A clock that was ahead and is set right takes nothing back, but the span ends
	// with today: else a card that was used in 2036 would rest until then.
	if d := DayStart(now); d.After(p.dayOf) {
		p.dayOf, p.day = d, Count{}
	} else {
		p.dayOf = d
	}
	if m := MonthStart(now); m.After(p.monthOf) {
		p.monthOf, p.month = m, Count{}
	} else {
		p.monthOf = m
	}
}

// Spend takes the price of n SMS that leave now. What leaves is counted whatever
// is left: the question was CanSpend.
func (p *Purse) Spend(n int, bulk bool, now time.Time) {
	p.roll(now)
	p.tokens -= float64(n)
	p.day.All += n
	p.month.All += n
	if bulk {
		p.day.Bulk += n
		p.month.Bulk += n
	}
}

// CanSpend reports whether one more message may leave now, and if not, when to
// ask again.
func (p *Purse) CanSpend(bulk bool, now time.Time) (bool, time.Time) {
	p.roll(now)
	if over(p.limits.PerMonth, p.limits.BulkPercent, p.month, bulk) {
		return false, p.monthOf.AddDate(0, 1, 0)
	}
	if over(p.limits.PerDay, p.limits.BulkPercent, p.day, bulk) {
		return false, p.dayOf.AddDate(0, 0, 1)
	}
	if p.limits.Burst < 0 || p.limits.PerMinute <= 0 {
		return true, now
	}
	need := 1.0
	if bulk && p.limits.Burst > 1 {
		need = 2 // a code may come at any moment
	}
	if p.tokens >= need-1e-9 {
		return true, now
	}
	wait := time.Duration(math.Ceil((need - p.tokens) / p.limits.PerMinute * float64(time.Minute)))
	return false, now.Add(wait)
}

func over(limit, percent int, c Count, bulk bool) bool {
	if limit < 0 {
		return false
	}
	return c.All >= limit || bulk && c.Bulk >= limit*percent/100
}

// Left is what a purse holds. What has no limit is negative.
type Left struct {
	Tokens     float64 // of the burst
	Day, Month int
	SpentDay   int
	// Used is the larger share of day and month that is spent, 0 to 1.
	Used float64
}

// Left returns what is left at a moment.
func (p *Purse) Left(now time.Time) Left {
	p.roll(now)
	l := Left{Tokens: max(p.tokens, 0), Day: -1, Month: -1, SpentDay: p.day.All}
	if p.limits.Burst < 0 || p.limits.PerMinute <= 0 {
		l.Tokens = -1
	}
	if p.limits.PerDay > 0 {
		l.Day = max(p.limits.PerDay-p.day.All, 0)
		l.Used = float64(p.day.All) / float64(p.limits.PerDay)
	}
	if p.limits.PerMonth > 0 {
		l.Month = max(p.limits.PerMonth-p.month.All, 0)
		l.Used = max(l.Used, float64(p.month.All)/float64(p.limits.PerMonth))
	}
	return l
}
