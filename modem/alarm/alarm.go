// Package alarm is the small set of conditions an operator must know of, each
// raised and cleared by name and place. Raising what is raised changes nothing,
// so that whoever looks may say what he sees as often as he looks; a change is
// told once.
//
// It holds names, times and details without numbers or texts of messages; it does
// not send, log or decide anything. The names are stable: documents and metrics
// carry them.
package alarm

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// Name says what is wrong.
type Name string

// The alarms. Those of a bay have a place, the others "".
const (
	SIMFull       Name = "sim-full"       // storage of the card or the modem is full: reports and answers are lost
	NoCredit      Name = "no-credit"      // the card is barred or has no credit
	NotRegistered Name = "not-registered" // no network for long
	UnderVoltage  Name = "under-voltage"  // the modem warns of its supply
	BayDown       Name = "bay-down"       // no port, no answer, or it needs an operator
	BreakerOpen   Name = "breaker-open"   // the bay fails too often and is tested without messages
	BudgetNear    Name = "budget-near"    // a card has spent most of its day or month
	BudgetSpent   Name = "budget-spent"   // a card may send no more for now
	AllDown       Name = "all-down"       // no bay is in service
	Overload      Name = "overload"       // more codes than this many modems carry within 3 s
	Impostor      Name = "impostor"       // another modem answers where one was
	Configuration Name = "configuration"  // a modem or a network finds fault with our messages or settings
	Storage       Name = "storage"        // the outbox cannot be read or written
)

// Names lists all alarms, for metrics that show what is not raised, too.
var names = []Name{SIMFull, NoCredit, NotRegistered, UnderVoltage, BayDown, BreakerOpen, BudgetNear, BudgetSpent, AllDown, Overload, Impostor, Configuration, Storage}

// Names returns every name.
func Names() []Name { return slices.Clone(names) }

// Alarm is one raised condition.
type Alarm struct {
	Name   Name
	Bay    string // "" when it is about the whole pool
	Detail string
	Since  time.Time
}

type key struct {
	name Name
	bay  string
}

// Set is the raised alarms; its zero value is empty. It is safe for concurrent use.
type Set struct {
	mu     sync.Mutex
	raised map[key]Alarm
}

// Put raises (on) or clears an alarm and reports whether that changed anything.
// The detail of a raised alarm is kept up to date.
func (s *Set) Put(n Name, bay string, on bool, detail string, now time.Time) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := key{n, bay}
	a, was := s.raised[k]
	switch {
	case on && !was:
		if s.raised == nil {
			s.raised = map[key]Alarm{}
		}
		s.raised[k] = Alarm{n, bay, detail, now}
	case on:
		a.Detail = detail
		s.raised[k] = a
	case was:
		delete(s.raised, k)
	}
	return on != was
}

// List returns what is raised, by name and bay.
func (s *Set) List() []Alarm {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Alarm, 0, len(s.raised))
	for _, a := range s.raised {
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b Alarm) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Bay, b.Bay)) })
	return out
}
