package worker

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
)

// Config is what a Client needs. Primary is required.
type Config struct {
	Primary, Standby Source // Standby nil: one token only
	Log              *slog.Logger
	OpTimeout        time.Duration // for calls without a deadline; 0: 10 s
	Probe            time.Duration // between two probes of a worker; 0: 250 ms
	ProbeLimit       time.Duration // for the answer of a probe; 0: 500 ms
	TryLimit         time.Duration // for one try of a call while the other token is well; 0: 700 ms
	Deaf             time.Duration // a worker whose process answers no probe for so long is given up; 0: 10 s
	Grace            time.Duration // tokens may be down for so long before calls are refused at once; 0: 1 s
	FailBack         time.Duration // the primary must have been well for so long; 0: 30 s
}

// Client uses the token of a worker, and of its standby, as a hsm.Token. It is safe for concurrent
// use. Calls are repeated on a lost worker until their deadline.
type Client struct {
	cfg      Config
	backends []*backend
	stop     context.CancelFunc
	keepers  sync.WaitGroup
	places   chan struct{} // calls at a time
	stats    stats

	mu      sync.Mutex
	known   map[string]known // by label, and by label and use for OATH keys
	version int              // counts additions to known
	kicks   map[*backend]chan struct{}
	active  int
	pinned  int // backend that an operator chose, -1: none
	moves   uint64
	movedAt time.Time
	downAt  time.Time // first call that found no token since the last that did
}

// Open brings the workers up and returns when one of them can be used: the primary if it can be. The
// error is the primary's, and the standby's.
func Open(ctx context.Context, cfg Config) (*Client, error) {
	for _, d := range []struct {
		p   *time.Duration
		def time.Duration
	}{{&cfg.OpTimeout, 10 * time.Second}, {&cfg.Probe, 250 * time.Millisecond}, {&cfg.ProbeLimit, 500 * time.Millisecond},
		{&cfg.TryLimit, 700 * time.Millisecond}, {&cfg.Deaf, 10 * time.Second}, {&cfg.Grace, time.Second}, {&cfg.FailBack, 30 * time.Second}} {
		if *d.p <= 0 {
			*d.p = d.def
		}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Client{cfg: cfg, known: map[string]known{}, kicks: map[*backend]chan struct{}{}, pinned: -1, places: make(chan struct{}, maxConcurrent/2)}
	for i, s := range []Source{cfg.Primary, cfg.Standby} {
		if s == nil {
			continue
		}
		b := &backend{name: [...]string{"primary", "standby"}[i], source: s, c: c, changed: make(chan struct{})}
		c.backends = append(c.backends, b)
		c.kicks[b] = make(chan struct{}, 1)
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	c.stop = stop
	for _, b := range c.backends {
		c.keepers.Go(func() { b.keep(run) })
	}
	if err := c.await(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// await returns when the primary can be used, or has failed and the standby can be.
func (c *Client) await(ctx context.Context) error {
	for {
		var troubles []error
		for i, b := range c.backends {
			s := b.state()
			if s.conn != nil {
				c.mu.Lock()
				c.active = i
				c.mu.Unlock()
				return nil
			}
			if s.trouble == nil {
				break // it is still starting
			}
			troubles = append(troubles, s.trouble)
		}
		if len(troubles) == len(c.backends) {
			return errors.Join(troubles...)
		}
		s := c.backends[len(troubles)].state()
		if s.conn != nil || s.trouble != nil {
			continue
		}
		select {
		case <-s.changed:
		case <-ctx.Done():
			return fault.New(fault.Unavailable, "start the worker of the token", ctx.Err())
		}
	}
}

// Run waits until ctx ends (nil) or every token is lost for good (why).
func (c *Client) Run(ctx context.Context) error {
	for {
		var lost []error
		var changed <-chan struct{}
		for _, b := range c.backends {
			s := b.state()
			if !s.forGood {
				changed = s.changed
				break
			}
			lost = append(lost, s.trouble)
		}
		if changed == nil {
			return errors.Join(lost...)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// Close ends the connections, and with them the workers that serve nobody else.
func (c *Client) Close() error {
	c.stop()
	c.keepers.Wait()
	var errs []error
	for _, b := range c.backends {
		if err := b.source.Ended(); err != nil && !errors.Is(err, ErrForGood) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Health returns nil when the token in use answers probes. Errors: as hsm/pkcs11's Token.Health.
func (c *Client) Health() error {
	b := c.inUse()
	s := b.state()
	switch {
	case s.conn != nil && s.well:
		return nil
	case s.trouble != nil:
		return s.trouble
	}
	return fault.Newf(fault.Unavailable, "check the "+b.name+" token", "its worker is being started")
}

func (c *Client) inUse() *backend {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.backends[c.active]
}

// keys returns the known keys, in a stable order, and their version.
func (c *Client) keys() ([]known, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]known, 0, len(c.known))
	for _, k := range c.known {
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b known) int { return a.version - b.version })
	return all, c.version
}

func (c *Client) kick(b *backend) <-chan struct{} {
	return c.kicks[b] // the map is not written after Open
}

// remember takes a key into use. When it is known already, the answer must be the same.
func (c *Client) remember(as string, k known) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.known[as]; ok {
		if old.role != k.role {
			return fault.Newf(fault.Invalid, "open "+k.role+" key "+k.label, "it is in use as a %s key", old.role)
		}
		if string(old.want) != string(k.want) {
			return another(c.backends[c.active].name, k.label, "holds another key than the one in use")
		}
		return nil
	}
	c.version++
	k.version = c.version
	c.known[as] = k
	for _, kick := range c.kicks {
		select {
		case kick <- struct{}{}:
		default:
		}
	}
	return nil
}

// do asks q of the token in use until it is answered, refused, or ctx ends. The caller wipes the answer.
func (c *Client) do(ctx context.Context, op string, q message) (a answer, err error) {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.cfg.OpTimeout)
		defer cancel()
	}
	begun := time.Now()
	b := c.inUse()
	defer func() { c.stats.count(Operation(q.code), b.name, time.Since(begun), err) }()
	select {
	case c.places <- struct{}{}:
		defer func() { <-c.places }()
	case <-ctx.Done():
		return a, waited(op, ctx)
	}
	var next *backend // to try instead of the one in use
	refusals := 0
	for ctx.Err() == nil {
		if b = next; b == nil {
			b = c.inUse()
		}
		next = nil
		s := b.state()
		if s.conn == nil {
			if c.leave(b, s.trouble) {
				continue
			}
			if s.trouble != nil && !c.grace(ctx, s.trouble) {
				return a, fault.New(fault.KindOf(s.trouble), op, s.trouble)
			}
			if s.trouble == nil { // its worker is being started
				c.down()
				select {
				case <-s.changed:
				case <-ctx.Done():
				}
			}
			continue
		}
		a, err = c.try(ctx, b, s.conn, q)
		switch {
		case err == nil:
			c.up()
			return a, nil
		case ctx.Err() != nil:
			return a, waited(op, ctx)
		case errors.Is(err, errLost):
			c.down()
			if !c.leave(b, err) { // until the keeper has noticed
				wait(ctx, time.Millisecond)
			}
		case errors.Is(err, context.DeadlineExceeded): // the try's, not the caller's
			if next = c.other(b); b.tooLate() {
				c.leave(b, err)
			}
		case !theTokens(err):
			return a, err
		default:
			refusals++
			if (refusals >= len(c.backends) || !c.leave(b, err)) && !c.grace(ctx, err) {
				return a, err
			}
		}
		c.stats.again.Add(1)
	}
	return a, waited(op, ctx)
}

// try asks once. While another token is well, it waits no longer than TryLimit.
func (c *Client) try(ctx context.Context, b *backend, k *conn, q message) (answer, error) {
	if c.other(b) != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.cfg.TryLimit)
		defer cancel()
	}
	a, err := k.ask(ctx, q)
	if err == nil {
		b.inTime()
	}
	if fault.Is(err, fault.Exhausted) { // the worker's clock was a little faster
		err = context.DeadlineExceeded
	}
	return a, err
}

// theTokens reports whether an error may be this token's own, so that another could do better.
func theTokens(err error) bool {
	switch fault.KindOf(err) {
	case fault.Unavailable, fault.Fatal, fault.Retry, fault.Reopen, fault.Busy, fault.Internal:
		return true
	}
	return false
}

func waited(op string, ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fault.New(fault.Exhausted, op, ctx.Err())
	}
	return fault.New(fault.Unavailable, op, ctx.Err())
}

// grace notes that the tokens are down, and pauses while that may be a passing trouble. It reports
// whether to try again.
func (c *Client) grace(ctx context.Context, why error) bool {
	c.down()
	c.mu.Lock()
	since := c.downAt
	c.mu.Unlock()
	switch fault.KindOf(why) {
	case fault.Unavailable, fault.Retry, fault.Reopen:
		return time.Since(since) < c.cfg.Grace && wait(ctx, 20*time.Millisecond)
	}
	return false
}

// down and up take the time without a token, of which somebody took notice.
func (c *Client) down() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.downAt.IsZero() {
		c.downAt = time.Now()
	}
}

func (c *Client) up() {
	c.mu.Lock()
	since := c.downAt
	c.downAt = time.Time{}
	c.mu.Unlock()
	if !since.IsZero() {
		c.stats.recovered(time.Since(since))
	}
}

func labelled(label id.KeyLabel, role string) error {
	if label.IsZero() {
		return fault.Newf(fault.Invalid, "open "+role+" key", "no label")
	}
	return nil
}
