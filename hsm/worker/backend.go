package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"custode/internal/fault"
)

// Source brings connections to one worker, and the worker itself if it has to.
type Source interface {
	// Open returns a new connection, whose other end was checked, or waits for one until ctx ends.
	// It is called again after the connection was lost.
	Open(ctx context.Context) (net.Conn, error)
	// Ended says why the worker behind the last connection ended, nil when that is not known or
	// was planned. With ErrForGood in its chain Open is not called again.
	Ended() error
}

// ErrForGood marks the end of a worker that must not be started again: its token refused the PIN.
var ErrForGood = errors.New("it is not started again")

// ErrUnclear marks an end that nobody explains, a crash for instance. A worker that crashes before its
// token is open may have spent a try of the PIN, so that happens maxUnclear times at most.
var ErrUnclear = errors.New("it ended without saying why")

const maxUnclear = 2

// The pace of starting again.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 3 * time.Second
	startLimit = 60 * time.Second // for a worker to open its token
)

// backend is one worker as the Client sees it. Its keeper alone makes connections.
type backend struct {
	name   string // primary or standby
	source Source
	c      *Client
	heard  time.Time // when the process last answered a probe; the keeper's own

	mu      sync.Mutex
	conn    *conn
	ready   bool          // conn's keys are those we know
	seen    int           // Client.version up to which they were compared
	trouble error         // why it cannot be used, or is not well; nil also while it is first started again
	forGood bool          // trouble is for ever
	misses  int           // probes in a row without a good answer
	late    int           // calls in a row that took too long
	well    time.Time     // since when it is well; zero: it is not
	changed chan struct{} // closed and replaced when one of these changed
	starts  uint64        // connections greeted
	lostAt  time.Time     // when the last connection was lost
	back    time.Duration // from the last loss to being ready again
	report  Report
}

// state is what a caller needs to know of a backend.
type state struct {
	conn    *conn // nil: not usable
	trouble error
	forGood bool
	well    bool
	changed <-chan struct{}
}

func (b *backend) state() state {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := state{trouble: b.trouble, forGood: b.forGood, well: !b.well.IsZero(), changed: b.changed}
	if b.ready {
		s.conn = b.conn
	}
	return s
}

// update changes the state and tells who waits. mu is not held.
func (b *backend) update(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
	close(b.changed)
	b.changed = make(chan struct{})
}

// keep holds a connection to a worker until ctx ends.
func (b *backend) keep(ctx context.Context) {
	pause, unclear := firstPause, 0
	for ctx.Err() == nil {
		greeted, lasted, err := b.once(ctx)
		if ctx.Err() != nil {
			return
		}
		why := b.source.Ended()
		if why == nil && !greeted {
			why = err
		}
		if lasted > 5*time.Second {
			pause = firstPause
		}
		if unclear++; greeted || !errors.Is(why, ErrUnclear) {
			unclear = 0
		}
		if unclear >= maxUnclear {
			why = fault.Newf(fault.Fatal, "start the worker of the "+b.name+" token", "%w: %d times it may have spent a try of the PIN: %w", ErrForGood, unclear, why)
		}
		forGood := errors.Is(why, ErrForGood)
		b.update(func() {
			// A worker that was lost is expected back at once; one that does not start is not.
			if b.trouble = nil; !greeted || forGood {
				b.trouble = why
			}
			b.forGood = forGood
		})
		b.c.cfg.Log.Warn("worker of the token lost", "token", b.name, "cause", why, "again", !forGood, "in", pause.String())
		if forGood {
			return
		}
		if !wait(ctx, pause) {
			return
		}
		pause = min(2*pause, lastPause)
	}
}

// once is the life of one connection. It reports whether the worker greeted and how long it lasted.
func (b *backend) once(ctx context.Context) (greeted bool, lasted time.Duration, err error) {
	limit, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	nc, err := b.source.Open(limit)
	if err != nil {
		return false, 0, err
	}
	k, err := greet(limit, nc, startLimit)
	if err != nil {
		return false, 0, errors.Join(err, nc.Close())
	}
	begun := time.Now()
	b.heard = begun
	b.update(func() { b.conn, b.ready, b.seen, b.misses, b.late, b.report = k, false, 0, 0, 0, Report{}; b.starts++ })
	b.c.cfg.Log.Info("worker of the token is there", "token", b.name)
	err = b.tend(ctx, k)
	k.close()
	var other *otherKey
	b.update(func() {
		b.conn, b.ready, b.well, b.lostAt = nil, false, time.Time{}, time.Now()
		if !errors.As(err, &other) { // a refusal holds until another token was compared
			b.trouble = nil
		}
	})
	return true, time.Since(begun), err
}

// tend compares keys and probes until the connection ends or a key is another one.
func (b *backend) tend(ctx context.Context, k *conn) error {
	tick := time.NewTicker(b.c.cfg.Probe)
	defer tick.Stop()
	stop := context.AfterFunc(ctx, k.close)
	defer stop()
	for {
		if err := b.look(ctx, k); err != nil {
			return err
		}
		select {
		case <-k.dead:
			return errLost
		case <-b.c.kick(b): // a key came into use
		case <-tick.C:
		}
	}
}

// look asks the process for its health, compares what has to be compared and probes the token. Its error
// ends the connection.
func (b *backend) look(ctx context.Context, k *conn) error {
	defer b.c.reconsider()
	limit, cancel := context.WithTimeout(ctx, b.c.cfg.ProbeLimit)
	_, err := k.ask(limit, message{code: byte(opHealth)})
	heard := limit.Err() == nil
	cancel()
	switch {
	case errors.Is(err, errLost) || ctx.Err() != nil:
		return nil // k.dead says so too
	case heard:
		b.heard = time.Now()
	default:
		if silent := time.Since(b.heard); silent > b.c.cfg.Deaf {
			return fault.Newf(fault.Unavailable, "probe the worker of the "+b.name+" token", "the process has not answered for %v", silent.Round(time.Millisecond))
		}
	}
	b.mu.Lock()
	seen, ready := b.seen, b.ready
	b.mu.Unlock()
	known, version := b.c.keys()
	if heard && (!ready || seen < version) {
		err := recognise(ctx, k, b.name, known, seen)
		var other *otherKey
		switch {
		case errors.As(err, &other):
			return b.refuse(ctx, k, err)
		case err != nil:
			b.update(func() { b.trouble, b.well, b.misses = err, time.Time{}, b.misses+1 })
			return nil
		}
		b.update(func() {
			if !b.ready && !b.lostAt.IsZero() {
				b.back = time.Since(b.lostAt)
			}
			b.ready, b.seen, b.trouble = true, version, nil
		})
	}
	if err != nil {
		b.judge(err, !heard, Report{})
		return nil
	}
	limit, cancel = context.WithTimeout(ctx, b.c.cfg.ProbeLimit)
	defer cancel()
	err = probe(limit, k, b.name, known)
	var other *otherKey
	switch {
	case errors.As(err, &other):
		return b.refuse(ctx, k, err)
	case errors.Is(err, errLost) || ctx.Err() != nil:
		return nil
	}
	var report Report
	if err == nil {
		report, err = ask(limit, k)
	}
	b.judge(err, limit.Err() != nil, report)
	return nil
}

// judge notes how a probe ended: a late answer twice in a row, or an error, is a token that is not well.
func (b *backend) judge(err error, late bool, report Report) {
	b.update(func() {
		if err == nil {
			b.misses, b.trouble, b.report = 0, nil, report
			if b.well.IsZero() {
				b.well = time.Now()
			}
			return
		}
		if late = late || fault.Is(err, fault.Exhausted); late {
			err = fault.Newf(fault.Unavailable, "probe the "+b.name+" token", "no answer within %v", b.c.cfg.ProbeLimit)
		}
		b.misses++
		if b.trouble = err; b.misses >= 2 || !late {
			b.well = time.Time{}
		}
	})
	if err == nil && b.c.inUse() == b {
		b.c.up()
	}
}

// refuse keeps a token that is not the one we know from being used. It keeps the connection for a
// while, so that callers are told why; then another worker may meet another token.
func (b *backend) refuse(ctx context.Context, k *conn, why error) error {
	b.c.cfg.Log.Error("TOKEN REFUSED", "token", b.name, "cause", why)
	b.update(func() { b.ready, b.trouble, b.well, b.misses = false, why, time.Time{}, b.misses+1 })
	b.c.reconsider()
	limit, cancel := context.WithTimeout(ctx, lastPause)
	defer cancel()
	select {
	case <-limit.Done():
	case <-k.dead:
	}
	return why
}

// tooLate notes that a call took longer than a try may, and reports whether that happens again and again.
func (b *backend) tooLate() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.late++
	return b.late >= 2
}

func (b *backend) inTime() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.late = 0
}

// otherKey is the error of a token that holds another key than the one in use.
type otherKey struct{ cause *fault.Error }

func (o *otherKey) Error() string { return o.cause.Error() }

// Unwrap keeps the fault visible.
func (o *otherKey) Unwrap() error { return o.cause }

func another(token, label, format string, args ...any) error {
	return &otherKey{fault.New(fault.Fatal, "recognise key "+label, fmt.Errorf("the "+token+" token "+format, args...))}
}

// wait reports whether so much time passed before ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
