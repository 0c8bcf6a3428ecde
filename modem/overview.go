package modem

import (
	"fmt"
	"time"

	"custode/modem/alarm"
	"custode/modem/bay"
	"custode/modem/meter"
)

// classes is how many there are.
const classes = int(Bulk) + 1

// classNames are for operators and metrics.
var classNames = [classes]string{"code", "alert", "bulk"}

// String returns the lower-case name.
func (c Class) String() string {
	if int(c) < classes {
		return classNames[c]
	}
	return "unknown"
}

// BayView is a bay with what the pool knows of it.
type BayView struct {
	BayStatus
	Drained bool
	Breaker string // closed, open or trial
	// Tokens of the card's burst, and what its day and month have left (negative
	// without a limit; all 0 while the card is not known). Used is the larger share
	// of both that is spent.
	Tokens              float64
	DayLeft, MonthLeft  int
	Used                float64
	SubmitSeconds       float64 // expected time of a submission
	ErrorShare          float64 // of the latest attempts, the bay's fault
	Hedges              uint64  // second copies that its slowness caused
	HandoffSpan, Submit meter.Snapshot
	Delivery            meter.Snapshot
}

// Overview is the pool at a moment, for pages, terminals and metrics. No number,
// text, PIN or whole IMSI is in it.
type Overview struct {
	At       time.Time
	Bays     []BayView
	Waiting  map[string]int // by class
	OnTheAir int
	CodeRate float64 // codes per minute, of the last minute
	Load     float64 // bays that codes keep busy
	Allowed  float64 // load at which 95 of 100 codes still leave within 3 s
	Reserve  int     // idle bays that bulk must leave
	Handoff  map[string]meter.Snapshot
	Steps    map[string]uint64 // recorded since start, by state
	Alarms   []alarm.Alarm
}

// Overview returns the pool as it is.
func (p *Pool) Overview() Overview {
	status := make([]BayStatus, len(p.lanes))
	for i, l := range p.lanes {
		status[i] = l.bay.Status()
	}
	p.lookAround()
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.cfg.Now()
	fit, _ := p.serving()
	o := Overview{At: now, Waiting: map[string]int{}, CodeRate: p.codes.At(now) * 60, Load: p.codeLoad(now), Allowed: allowedLoad(fit),
		Reserve: p.reserve(fit, now), Handoff: map[string]meter.Snapshot{}, Steps: map[string]uint64{}, Alarms: p.alarms.List()}
	for i, l := range p.lanes {
		o.Bays = append(o.Bays, l.view(status[i], now))
	}
	for _, j := range p.queue {
		o.Waiting[j.msg.Class.String()]++
	}
	for _, l := range p.lanes {
		if l.busy {
			o.OnTheAir++
		}
	}
	for c := range classes {
		o.Handoff[classNames[c]] = p.handoff[c].Snapshot()
	}
	for s, n := range p.ends {
		o.Steps[State(s).String()] = n
	}
	return o
}

func (l *lane) view(s BayStatus, now time.Time) BayView {
	s.Handoff = l.lastHandoff
	v := BayView{BayStatus: s, Drained: l.drained, Breaker: l.breaker.String(), SubmitSeconds: l.submitTime.Value,
		ErrorShare: l.errors.Value, Hedges: l.hedges, HandoffSpan: l.handoff.Snapshot(), Submit: l.submit.Snapshot(), Delivery: l.delivery.Snapshot()}
	if l.purse != nil {
		left := l.purse.Left(now)
		v.Tokens, v.DayLeft, v.MonthLeft, v.Used = left.Tokens, left.Day, left.Month, left.Used
	}
	return v
}

// alarm raises or clears, and logs the change once.
func (p *Pool) alarm(n alarm.Name, bayName string, on bool, detail string) {
	if !p.alarms.Put(n, bayName, on, detail, p.cfg.Now()) {
		return
	}
	if on {
		p.cfg.Log.Warn("alarm", "alarm", string(n), "bay", bayName, "detail", detail)
	} else {
		p.cfg.Log.Info("alarm over", "alarm", string(n), "bay", bayName)
	}
}

// Alarms returns what is raised.
func (p *Pool) Alarms() []alarm.Alarm { return p.alarms.List() }

// fadingAlarm is one that a bay tells when it begins and nobody when it ends.
type fadingAlarm struct {
	name alarm.Name
	bay  string
}

// fadeAfter ends such an alarm: a bay that still has the trouble tells it every hour.
const fadeAfter = 75 * time.Minute

// fade raises an alarm that ends by itself.
func (p *Pool) fade(n alarm.Name, bayName, detail string) {
	p.mu.Lock()
	p.fading[fadingAlarm{n, bayName}] = p.cfg.Now()
	p.mu.Unlock()
	p.alarm(n, bayName, true, detail)
}

// patience is how long a bay may be away or without a network before that is an
// alarm: an unplug or a restart is over by then.
const patience = 90 * time.Second

// lookAround raises and clears the alarms that follow from the state of things.
func (p *Pool) lookAround() {
	type finding struct {
		name   alarm.Name
		bay    string
		on     bool
		detail string
	}
	var found []finding
	now := p.cfg.Now()
	status := make([]BayStatus, len(p.lanes))
	for i, l := range p.lanes {
		status[i] = l.bay.Status()
	}
	p.mu.Lock()
	fit, _ := p.serving()
	for i, l := range p.lanes {
		s := status[i]
		since := s.Since
		if since.Before(p.began) {
			since = p.began
		}
		long := now.Sub(since) > patience
		name := l.place.Name
		found = append(found,
			finding{alarm.BayDown, name, s.State == bay.NeedsHand || long && (s.State == bay.Absent || s.State == bay.Starting), string(s.State)},
			finding{alarm.NotRegistered, name, s.State == bay.NoNetwork && long, fmt.Sprintf("registration %d", s.Registration)},
			finding{alarm.BreakerOpen, name, l.breaker.open && l.breaker.opens > 1, fmt.Sprintf("%d times in a row", l.breaker.opens)})
		if l.purse != nil {
			left := l.purse.Left(now)
			found = append(found,
				finding{alarm.BudgetNear, name, left.Used >= 0.8 && left.Used < 1, fmt.Sprintf("%.0f %% spent", left.Used*100)},
				finding{alarm.BudgetSpent, name, left.Used >= 1, fmt.Sprintf("%d left today, %d this month", left.Day, left.Month)})
		}
		if s.State == bay.Ready || s.State == bay.Transacting {
			delete(p.fading, fadingAlarm{alarm.NotRegistered, name})
		}
	}
	load := p.codeLoad(now)
	if load <= allowedLoad(fit) || fit == 0 {
		p.calm = now
	}
	dark := !p.dark.IsZero() && now.Sub(p.dark) > 10*time.Second
	found = append(found, finding{alarm.AllDown, "", dark, "no bay serves"},
		finding{alarm.Overload, "", now.Sub(p.calm) > patience, fmt.Sprintf("codes keep %.1f of %d bays busy", load, fit)})
	over := map[fadingAlarm]bool{}
	for k, since := range p.fading {
		if over[k] = now.Sub(since) > fadeAfter; over[k] {
			delete(p.fading, k)
		}
	}
	p.mu.Unlock()
	for _, f := range found {
		if _, told := over[fadingAlarm{f.name, f.bay}]; told && !f.on && !over[fadingAlarm{f.name, f.bay}] {
			continue // the bay said so itself
		}
		p.alarm(f.name, f.bay, f.on, f.detail)
	}
	for k, ended := range over {
		if ended {
			p.alarm(k.name, k.bay, false, "")
		}
	}
}
