package modem

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/modem/budget"
)

// fakeJournal is an outbox in memory with the semantics Journal asks for.
type fakeJournal struct {
	mu      sync.Mutex
	rows    map[id.MessageID]*fakeRow
	events  []Event
	refuse  func(Event) error
	broken  error // of Recover and Queued
	asked   int   // calls of Recover
	changed chan struct{}
}

type fakeRow struct {
	msg     Message
	state   State
	claimed bool // by the pool under test, which lives
}

func newFakeJournal() *fakeJournal {
	return &fakeJournal{rows: map[id.MessageID]*fakeRow{}, changed: make(chan struct{})}
}

func (f *fakeJournal) Queued(_ context.Context, limit int) ([]Message, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken != nil {
		return nil, f.broken
	}
	var out []Message
	for _, r := range f.rows {
		if r.state == Queued || r.state == MaybeSent && r.msg.InDoubt {
			out = append(out, r.msg)
		}
	}
	slices.SortFunc(out, func(a, b Message) int {
		return cmp.Or(a.Expires.Compare(b.Expires), cmp.Compare(a.ID.String(), b.ID.String()))
	})
	return out[:min(len(out), limit)], nil
}

func (f *fakeJournal) Record(_ context.Context, e Event) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse != nil {
		if err := f.refuse(e); err != nil {
			return err
		}
	}
	r := f.rows[e.ID]
	if r == nil {
		return fault.Newf(fault.NotFound, "record", "no such message")
	}
	r.state = e.State
	r.msg.InDoubt = false
	if e.State == Sending {
		r.msg.Attempts++
		r.claimed = true
	}
	f.events = append(f.events, e)
	close(f.changed)
	f.changed = make(chan struct{})
	return nil
}

func (f *fakeJournal) Recover(_ context.Context, now time.Time) ([]Event, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if f.broken != nil {
		return nil, f.broken
	}
	var out []Event
	for k, r := range f.rows {
		switch {
		case r.state == Sending && !r.claimed:
			r.state = MaybeSent
			r.msg.InDoubt = true
		case r.state == Queued && !now.Before(r.msg.Expires):
			r.state = Expired
		default:
			continue
		}
		out = append(out, Event{ID: k, State: r.state, At: now})
	}
	return out, nil
}

func (f *fakeJournal) setRefuse(refuse func(Event) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse = refuse
}

// setBroken lets Recover and Queued fail; it returns how often Recover was asked.
func (f *fakeJournal) setBroken(err error) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken = err
	return f.asked
}

func (f *fakeJournal) put(m Message, s State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rows[m.ID] = &fakeRow{msg: m, state: s}
}

func (f *fakeJournal) state(k id.MessageID) State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rows[k].state
}

// states returns the recorded states of a message in order.
func (f *fakeJournal) states(k id.MessageID) (out []State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.events {
		if e.ID == k {
			out = append(out, e.State)
		}
	}
	return out
}

// wait blocks until the message is in one of the states.
func (f *fakeJournal) wait(t testing.TB, k id.MessageID, want ...State) State {
	t.Helper()
	return f.waitFor(t, 20*time.Second, k, want...)
}

func (f *fakeJournal) waitFor(t testing.TB, most time.Duration, k id.MessageID, want ...State) State {
	t.Helper()
	limit := time.After(most)
	for {
		f.mu.Lock()
		s, changed := f.rows[k].state, f.changed
		f.mu.Unlock()
		if slices.Contains(want, s) {
			return s
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("message is %v after %v, want %v; history %v", s, most, want, f.states(k))
		}
	}
}

// fakeOpener "wraps" by prefixing the associated data.
type fakeOpener struct{ err error }

func wrap(k id.MessageID, text string) []byte { return []byte(k.String() + "|" + text) }

func (o fakeOpener) Unwrap(_ context.Context, blob, aad []byte) ([]byte, error) {
	if o.err != nil {
		return nil, o.err
	}
	text, ok := bytes.CutPrefix(blob, append(aad, '|'))
	if !ok {
		return nil, fault.Newf(fault.Invalid, "unwrap", "not for this message")
	}
	return bytes.Clone(text), nil
}

// message builds a one-time code that lives five minutes.
func message(t testing.TB, to, text string) Message {
	t.Helper()
	k, err := id.NewMessageID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	phone, err := id.ParsePhone(to)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	return Message{ID: k, To: phone, Wrapped: wrap(k, text), Class: OneTime, Created: now, Expires: now.Add(5 * time.Minute)}
}

// lockedBuffer collects the log.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// rig runs a pool until the test ends.
type rig struct {
	pool    *Pool
	journal *fakeJournal
	log     *lockedBuffer
	stop    func()
}

func start(t testing.TB, cfg Config) *rig {
	t.Helper()
	r := &rig{log: &lockedBuffer{}}
	if cfg.Journal == nil {
		cfg.Journal = newFakeJournal()
	}
	r.journal = cfg.Journal.(*fakeJournal)
	if cfg.Opener == nil {
		cfg.Opener = fakeOpener{}
	}
	if cfg.Budget == (budget.Limits{}) {
		cfg.Budget = budget.Limits{Burst: -1, PerDay: -1, PerMonth: -1}
	}
	cfg.Log = slog.New(slog.NewTextHandler(r.log, nil))
	pool, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.pool = pool
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- pool.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		if t.Failed() {
			t.Log(r.log.String())
		}
	})
	t.Cleanup(r.stop)
	return r
}

// submit puts a message into the outbox and wakes the pool.
func (r *rig) submit(t testing.TB, to, text string) Message {
	t.Helper()
	m := message(t, to, text)
	r.journal.put(m, Queued)
	r.pool.Wake()
	return m
}

// waitBay polls a bay's state until ok.
func (r *rig) waitBay(t testing.TB, i int, ok func(BayStatus) bool) BayStatus {
	t.Helper()
	limit := time.Now().Add(20 * time.Second)
	for {
		s := r.pool.Bays()[i]
		if ok(s) {
			return s
		}
		if time.Now().After(limit) {
			t.Fatalf("bay %d: %+v\n%s", i, s, r.log)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func isReady(s BayStatus) bool { return s.State == Ready }
