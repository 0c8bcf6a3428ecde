package pkcs11

import (
	"context"
	"slices"
	"time"

	p11 "github.com/miekg/pkcs11"

	"custode/hsm/pkcs11/rv"
	"custode/internal/fault"
)

const (
	// maxAttempts bounds how often one operation meets a repaired token.
	maxAttempts = 4
	// sessionWait is the pause when other processes hold every session of the
	// token and none of ours can come back.
	sessionWait = 50 * time.Millisecond
)

// call is one operation as the pool runs it: use works on a session of g;
// canary, when not nil, tells a working device from a broken one with the same
// key.
type call struct {
	op     string
	use    func(g *generation, s p11.SessionHandle) error
	canary func(g *generation, s p11.SessionHandle) error
	// ownFault means that an ambiguous error is probably the request's fault: it
	// is met twice while the canary lives before it is believed, but no stronger
	// repair is tried in between.
	ownFault bool
}

// do runs c on a borrowed session until it succeeds, is refused, or ctx ends; a
// ctx without a deadline is given OpTimeout.
// c.use runs in a goroutine of its own (without CallersWait), since a call into the module cannot be
// interrupted: what it captures must not be touched by others until do returns
// nil.
func (t *Token) do(ctx context.Context, c call) error {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t.cfg.OpTimeout)
		defer cancel()
	}
	var last error
	doubted := false
	for attempt := 0; attempt < maxAttempts; {
		g, err := t.current(ctx, c.op)
		if err != nil {
			return err
		}
		l, err := t.borrow(ctx, g, c.op)
		if err != nil {
			return err
		}
		if l == nil {
			continue // g ended meanwhile
		}
		if err = t.inside(ctx, g, l, c); err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return waited(c.op, ctx)
		}
		if rv.Is(err, p11.CKR_SESSION_COUNT) {
			if !l.parked {
				t.pause(ctx, sessionWait)
			}
			continue // bounded by ctx: waiting is not an attempt
		}
		last = err
		kind := rv.Kind(err)
		if kind != fault.Retry && kind != fault.Reopen {
			return fault.New(kind, c.op, err)
		}
		level := levelSession
		if kind == fault.Reopen {
			level = levelDevice
		}
		// What a first repair did not cure wants the next stronger one.
		level = min(level+repairLevel(attempt), levelRestart)
		alive := t.mend(ctx, g, trouble{level: level, cause: err, canary: c.canary})
		if alive && rv.Ambiguous(err) {
			if attempt > 0 || doubted {
				return fault.New(fault.Invalid, c.op, err)
			}
			// Once may be the device's passing fault, and would condemn
			// somebody's good row.
			if doubted = c.ownFault; doubted {
				continue
			}
		}
		attempt++
	}
	return outward(c.op, last)
}

func (t *Token) pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// current returns the generation in force. While a repair is about to give one
// it waits; while the token is known to be down it refuses at once, and starts
// a re-opening when one is due.
func (t *Token) current(ctx context.Context, op string) (*generation, error) {
	for {
		if ctx.Err() != nil {
			return nil, waited(op, ctx)
		}
		t.mu.Lock()
		g, r, down := t.gen, t.repair, t.down
		var refusal error
		switch {
		case t.dead != nil:
			refusal = t.dead
		case t.closed:
			refusal = fault.Newf(fault.Unavailable, op, "the token is closed")
		case g == nil && down != nil && (r != nil || t.cfg.Now().Before(t.retryAt)):
			refusal = down
		}
		t.mu.Unlock()
		switch {
		case refusal != nil:
			return nil, fault.New(fault.KindOf(refusal), op, refusal)
		case g != nil:
			return g, nil
		case r != nil:
			select {
			case <-r.done:
			case <-ctx.Done():
			}
		default:
			t.mend(ctx, nil, trouble{level: levelRestart})
		}
	}
}

// borrow takes a permit and a session of g, or nil when g is over. A lease
// without a session has to open one.
func (t *Token) borrow(ctx context.Context, g *generation, op string) (*lease, error) {
	select {
	case <-t.permits:
	case <-ctx.Done():
		return nil, waited(op, ctx)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gen != g || t.closed {
		t.permits <- struct{}{}
		return nil, nil
	}
	l := &lease{since: t.cfg.Now()}
	if n := len(g.idle); n > 0 { // last in, first out: the others may go stale
		l.session, l.opened = g.idle[n-1], true
		g.idle = g.idle[:n-1]
	}
	g.busy[l] = struct{}{}
	return l, nil
}

// inside runs c.use in the module and waits for it or for ctx.
func (t *Token) inside(ctx context.Context, g *generation, l *lease, c call) error {
	if t.cfg.CallersWait {
		err := t.enter(g, l, c.use)
		t.giveBack(g, l, err)
		return err
	}
	done := make(chan error, 1)
	go func() {
		err := t.enter(g, l, c.use)
		t.giveBack(g, l, err)
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t *Token) enter(g *generation, l *lease, use func(*generation, p11.SessionHandle) error) error {
	if !l.opened {
		// Read-only: an operation needs no right to change the token.
		s, err := t.mod.OpenSession(g.slot, p11.CKF_SERIAL_SESSION)
		if err != nil {
			return inCall("C_OpenSession", err)
		}
		l.session, l.opened = s, true
	}
	if t.inject != nil {
		if err := t.inject(l.session); err != nil {
			return err
		}
	}
	return use(g, l.session)
}

// giveBack ends a lease: only a session without any error is used again.
func (t *Token) giveBack(g *generation, l *lease, err error) {
	keep := err == nil
	if !keep && l.opened {
		// Before the lease ends: a drain must wait for this call too.
		t.closeSession(l.session)
	}
	if keep {
		t.sweep()
	}
	t.mu.Lock()
	delete(g.busy, l)
	delete(t.hung, l)
	if keep {
		g.idle = append(g.idle, l.session) // a retired generation closes it with the rest
	}
	if g.retired && len(g.busy) == 0 {
		close(g.drained)
	}
	// The token has no session to spare: fewer operations at a time, as long
	// as one of ours is left to come back.
	if rv.Is(err, p11.CKR_SESSION_COUNT) && len(g.busy)+len(g.idle) > 0 {
		l.parked = true
		t.parked++
	} else {
		t.permits <- struct{}{}
	}
	t.mu.Unlock()
}

// unpark lets the pool grow again. Token.mu is held.
func (t *Token) unpark() {
	for ; t.parked > 0; t.parked-- {
		t.permits <- struct{}{}
	}
}

// retire ends g: nothing borrows from it any more, and once no call is inside
// the module its sessions are closed. It reports whether that came to pass
// within CallLimit; if not, the module must not be finalised.
func (t *Token) retire(g *generation) bool {
	t.mu.Lock()
	if t.gen == g {
		t.gen = nil
	}
	if !g.retired {
		g.retired = true
		if len(g.busy) == 0 {
			close(g.drained)
		}
	}
	t.mu.Unlock()
	timer := time.NewTimer(t.cfg.CallLimit)
	defer timer.Stop()
	select {
	case <-g.drained:
	case <-timer.C:
		t.mu.Lock()
		defer t.mu.Unlock()
		for l := range g.busy {
			t.hung[l] = struct{}{}
		}
		return len(g.busy) == 0
	}
	t.mu.Lock()
	idle := g.idle
	g.idle = nil
	t.unpark()
	t.mu.Unlock()
	for _, s := range append(idle, g.anchor) {
		t.closeSession(s)
	}
	return true
}

// maxUnclosed bounds what is remembered of sessions that did not close.
const maxUnclosed = 256

// closeSession closes s. That a session is gone already is what is wanted; one
// that the token did not want to close just now is kept for sweep, or it would
// be held until the module is finalised.
func (t *Token) closeSession(s p11.SessionHandle) {
	err := t.mod.CloseSession(s)
	if err == nil || rv.Is(err, p11.CKR_SESSION_HANDLE_INVALID, p11.CKR_SESSION_CLOSED, p11.CKR_CRYPTOKI_NOT_INITIALIZED) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.unclosed) < maxUnclosed {
		t.unclosed = append(t.unclosed, s)
	}
}

// sweep closes some of the sessions that did not close before. It runs after an
// operation that went well, on that operation's lease.
func (t *Token) sweep() {
	t.mu.Lock()
	n := min(len(t.unclosed), 4)
	some := slices.Clone(t.unclosed[:n])
	t.unclosed = t.unclosed[n:]
	t.mu.Unlock()
	for _, s := range some {
		t.closeSession(s)
	}
}
