package journal

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"custode/authcore/register"
	"custode/internal/certlog"
	"custode/internal/fault"
)

// Event is one record of the security log, JSON.
type Event struct {
	Format  int            `json:"format"` // 1
	At      time.Time      `json:"at"`     // UTC
	What    string         `json:"what"`
	Subject string         `json:"subject,omitempty"`
	SP      string         `json:"sp,omitempty"`
	Request string         `json:"request,omitempty"`
	Flow    string         `json:"flow,omitempty"`
	Code    int            `json:"code,omitempty"` // of the table of anomalies
	Address string         `json:"address,omitempty"`
	Agent   string         `json:"agent,omitempty"`
	Actor   string         `json:"actor,omitempty"` // an operator
	Detail  string         `json:"detail,omitempty"`
	Counts  map[string]int `json:"counts,omitempty"` // of what Summary stands for
}

// Summary is the What of a record that counts the incidents that were too many
// to be kept one by one, or could not be kept.
const Summary = "summary"

// Limits of the security log.
const (
	perSecond = 20                     // incidents of nobody in particular kept one by one
	waitMost  = 150 * time.Millisecond // that Note waits for the disk
	maxQueue  = 4096
	maxDetail = 1000 // octets
	maxText   = 512  // octets of any other text
	writers   = 8
	patience  = 10 * time.Second // for one record
)

// Security keeps incidents and administrative acts in the security log.
type Security struct {
	log    Log
	now    func() time.Time
	errors *slog.Logger
	queue  chan noted

	mu      sync.Mutex
	second  int64          // Unix time that kept counts
	kept    int            // incidents of nobody kept in that second
	skipped map[string]int // what was not kept, by what and code
}

var _ register.Watch = (*Security)(nil)

type noted struct {
	event Event
	done  chan struct{}
}

// NewSecurity keeps events in log. Note needs Run.
func NewSecurity(log Log, now func() time.Time, errors *slog.Logger) *Security {
	return &Security{log: log, now: now, errors: errors, queue: make(chan noted, maxQueue), skipped: map[string]int{}}
}

// Note implements register.Watch. Incidents of nobody in particular, which
// whoever can reach the server can cause, are kept one by one up to 20 a second
// and counted beyond; those of an identified subject are all kept.
func (s *Security) Note(ctx context.Context, i register.Incident) {
	e := Event{
		What: string(i.What), Subject: i.Subject.String(), SP: i.SP.String(), Request: i.Request, Code: int(i.Code),
		Agent: i.Agent, Detail: i.Detail,
	}
	if !i.Flow.IsZero() {
		e.Flow = i.Flow.String()
	}
	if i.Address.IsValid() {
		e.Address = i.Address.String()
	}
	// Only who had a session can end one.
	if i.Subject.IsZero() && i.What != register.LogoutTold && !s.allowed(e) {
		return
	}
	done := s.enqueue(e)
	if done == nil {
		return
	}
	limit := time.NewTimer(waitMost)
	defer limit.Stop()
	select {
	case <-done:
	case <-limit.C:
	case <-ctx.Done():
	}
}

// Later keeps an event without waiting: for those whose goroutine the log needs.
func (s *Security) Later(e Event) { s.enqueue(e) }

// Act keeps an administrative act durably before it may take effect. The error
// says that it must not.
func (s *Security) Act(ctx context.Context, e Event) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := s.append(ctx, s.complete(e)); err != nil {
		return fault.New(fault.Unavailable, "keep "+e.What+" in the security log: it is not done", err)
	}
	return nil
}

// Run appends what Note and Later were given until ctx ends, and then what is
// still waiting.
func (s *Security) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for {
				select {
				case n := <-s.queue:
					s.write(n)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.summarise()
		case <-ctx.Done():
			wg.Wait()
			for len(s.queue) > 0 {
				s.write(<-s.queue)
			}
			s.summarise()
			return nil
		}
	}
}

// allowed counts an incident of nobody and reports whether it is kept itself.
func (s *Security) allowed(e Event) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.now().Unix(); now != s.second {
		s.second, s.kept = now, 0
	}
	if s.kept++; s.kept <= perSecond {
		return true
	}
	s.skip(e)
	return false
}

// skip counts an event that is not kept; s.mu is held. Its names are ours, so
// the map stays small.
func (s *Security) skip(e Event) { s.skipped[fmt.Sprintf("%s/%d", e.What, e.Code)]++ }

func (s *Security) lost(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.skip(e)
}

// enqueue returns nil when there is no room.
func (s *Security) enqueue(e Event) <-chan struct{} {
	n := noted{s.complete(e), make(chan struct{})}
	select {
	case s.queue <- n:
		return n.done
	default:
		s.lost(e)
		return nil
	}
}

func (s *Security) write(n noted) {
	defer close(n.done)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.append(ctx, n.event); err != nil {
		s.lost(n.event)
	}
}

// summarise keeps the counts of what was not kept; when that fails they wait.
func (s *Security) summarise() {
	s.mu.Lock()
	counts := s.skipped
	s.skipped = map[string]int{}
	s.mu.Unlock()
	if len(counts) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := s.append(ctx, s.complete(Event{What: Summary, Counts: counts}))
	if err == nil {
		return
	}
	s.errors.Error("security log cannot be written", "waiting", slices.Sorted(maps.Keys(counts)), "error", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, n := range counts {
		s.skipped[k] += n
	}
}

// complete bounds every text: some of it came from outside.
func (s *Security) complete(e Event) Event {
	e.Format = 1
	if e.At.IsZero() {
		e.At = s.now()
	}
	e.At = e.At.UTC().Truncate(time.Millisecond)
	for _, text := range []*string{&e.Subject, &e.SP, &e.Request, &e.Flow, &e.Address, &e.Agent, &e.Actor} {
		*text = short(*text, maxText)
	}
	e.Detail = short(e.Detail, maxDetail)
	return e
}

func short(s string, most int) string { return strings.ToValidUTF8(s[:min(len(s), most)], "?") }

func (s *Security) append(ctx context.Context, e Event) error {
	data, err := json.Marshal(e)
	if err != nil {
		return fault.New(fault.Internal, "encode security event", err)
	}
	_, err = s.log.Append(ctx, certlog.Record{Tag: e.Subject, Data: data})
	return err
}
