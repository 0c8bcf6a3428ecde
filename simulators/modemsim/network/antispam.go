package network

import (
	"slices"
	"time"
)

// AntiSpam is the network's patience with one card: more than PerMinute accepted
// messages within 60 s, and everything is refused with +CMS ERROR: Code (21 when
// zero) until no attempt was made for Cool. PerMinute 0 is endless patience.
type AntiSpam struct {
	PerMinute int
	Code      int
	Cool      time.Duration
}

// Patience is what the network remembers of one card. The zero value is a new card.
type Patience struct {
	recent []time.Time // accepted within the last minute
	barred time.Time
}

// Accepted notes a message of the card.
func (p *Patience) Accepted(now time.Time) {
	p.recent = append(slices.DeleteFunc(p.recent, func(t time.Time) bool { return now.Sub(t) > time.Minute }), now)
}

// Judge returns 0 or the code an attempt now is refused with.
func (a AntiSpam) Judge(p *Patience, now time.Time) int {
	if a.PerMinute == 0 {
		return 0
	}
	p.recent = slices.DeleteFunc(p.recent, func(t time.Time) bool { return now.Sub(t) > time.Minute })
	switch {
	case now.Before(p.barred): // trying again prolongs it
	case !p.barred.IsZero():
		*p = Patience{}
		return 0
	case len(p.recent) < a.PerMinute:
		return 0
	}
	p.barred = now.Add(a.Cool)
	if a.Code == 0 {
		return 21
	}
	return a.Code
}
