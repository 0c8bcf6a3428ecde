package worker

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"custode/internal/fault"
)

// bounds of the histograms.
var bounds = [...]time.Duration{50 * time.Microsecond, 100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond, time.Millisecond,
	2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond,
	250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second}

// Histogram is a distribution of times. Counts are cumulative; the last bucket has no end.
type Histogram struct {
	Bounds []time.Duration
	Counts []uint64
	Sum    time.Duration
	Count  uint64
}

func (h *Histogram) add(d time.Duration) {
	if h.Counts == nil {
		h.Bounds, h.Counts = bounds[:], make([]uint64, len(bounds)+1)
	}
	for i := range h.Counts {
		if i == len(bounds) || d <= bounds[i] {
			h.Counts[i]++
		}
	}
	h.Sum += d
	h.Count++
}

func (h Histogram) clone() Histogram {
	h.Counts = slices.Clone(h.Counts)
	return h
}

// stats are counted by the Client: what a caller saw.
type stats struct {
	again atomic.Uint64

	mu       sync.Mutex
	spans    [operations]Histogram
	outcomes map[outcome]uint64
	recovery Histogram
}

type outcome struct {
	op            Operation
	token, result string
}

func (s *stats) count(op Operation, token string, d time.Duration, err error) {
	result := "ok"
	if err != nil {
		result = strings.ReplaceAll(fault.KindOf(err).String(), " ", "-")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.outcomes == nil {
		s.outcomes = map[outcome]uint64{}
	}
	s.outcomes[outcome{op, token, result}]++
	s.spans[op].add(d)
}

func (s *stats) recovered(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recovery.add(d)
}

// Calls counts calls of one operation with one outcome.
type Calls struct {
	Operation, Token string
	Result           string // ok or the kind of the error
	Count            uint64
}

// Span is the time that callers waited for one operation.
type Span struct {
	Operation string
	Time      Histogram
}

// Figures are what a Client counted since it was opened.
type Figures struct {
	Calls    []Calls
	Spans    []Span
	Repeated uint64    // tries that were made again
	Recovery Histogram // from the first call that found no token to the next that did
	Moves    uint64    // changes of the token in use
	Tokens   []Status
}

// Status is how one token is.
type Status struct {
	Name     string        `json:"name"`
	InUse    bool          `json:"inUse"`
	Pinned   bool          `json:"pinned,omitempty"` // chosen by an operator
	Ready    bool          `json:"ready"`            // connected, and its keys are those in use
	Well     bool          `json:"well"`             // and it answers probes
	Since    *time.Time    `json:"since,omitempty"`
	Trouble  string        `json:"trouble,omitempty"`
	ForGood  bool          `json:"forGood,omitempty"` // it is not started again
	Starts   uint64        `json:"starts"`
	Recovery time.Duration `json:"recovery,omitempty"` // from the last loss to being ready, nanoseconds
	Worker   *Report       `json:"worker,omitempty"`
}

// Status returns how the tokens are, the primary first.
func (c *Client) Status() []Status {
	c.mu.Lock()
	active, pinned := c.active, c.pinned
	c.mu.Unlock()
	var all []Status
	for i, b := range c.backends {
		b.mu.Lock()
		s := Status{Name: b.name, InUse: i == active, Pinned: i == pinned, Ready: b.ready, Well: !b.well.IsZero(), ForGood: b.forGood, Starts: b.starts, Recovery: b.back}
		if s.Well {
			since := b.well
			s.Since = &since
		}
		if b.trouble != nil {
			s.Trouble = b.trouble.Error()
		}
		if b.conn != nil && b.report.PID != 0 {
			report := b.report
			s.Worker = &report
		}
		b.mu.Unlock()
		all = append(all, s)
	}
	return all
}

// Figures returns what was counted.
func (c *Client) Figures() Figures {
	f := Figures{Repeated: c.stats.again.Load(), Tokens: c.Status()}
	c.mu.Lock()
	f.Moves = c.moves
	c.mu.Unlock()
	s := &c.stats
	s.mu.Lock()
	defer s.mu.Unlock()
	f.Recovery = s.recovery.clone()
	for op, h := range s.spans {
		if h.Count > 0 {
			f.Spans = append(f.Spans, Span{Operation(op).String(), h.clone()})
		}
	}
	for o, n := range s.outcomes {
		f.Calls = append(f.Calls, Calls{o.op.String(), o.token, o.result, n})
	}
	slices.SortFunc(f.Calls, func(a, b Calls) int {
		return strings.Compare(a.Operation+" "+a.Token+" "+a.Result, b.Operation+" "+b.Token+" "+b.Result)
	})
	return f
}

// Key is a key in use.
type Key struct {
	Label string `json:"label"`
	Role  string `json:"role"` // sign, mac, wrap or seed
	// Fingerprint is 10 octets in hexadecimal of the SHA-256 of the public key, or of a known answer.
	Fingerprint string   `json:"fingerprint,omitempty"`
	Compared    []string `json:"compared"` // tokens in which it was found to be this key
}

// Keys lists the keys in use.
func (c *Client) Keys() []Key {
	all, _ := c.keys()
	out := make([]Key, 0, len(all))
	for _, k := range all {
		key := Key{Label: k.label, Role: k.role, Fingerprint: k.fingerprint(), Compared: []string{}}
		for _, b := range c.backends {
			b.mu.Lock()
			if b.ready && b.seen >= k.version {
				key.Compared = append(key.Compared, b.name)
			}
			b.mu.Unlock()
		}
		out = append(out, key)
	}
	slices.SortFunc(out, func(a, b Key) int { return strings.Compare(a.Label+a.Role, b.Label+b.Role) })
	return out
}
