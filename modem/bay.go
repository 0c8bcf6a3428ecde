package modem

import (
	"context"
	"errors"
	"sync"
	"time"

	"custode/internal/fault"
	"custode/modem/at"
	"custode/modem/port"
)

// BayState is what a bay is doing.
type BayState string

// The bay states.
const (
	Absent      BayState = "absent"      // no port; will be tried again
	Starting    BayState = "starting"    // port open, initialising
	NoNetwork   BayState = "no-network"  // SIM ready, not registered
	Ready       BayState = "ready"       // waits for messages
	Transacting BayState = "sending"     // has one
	Quarantined BayState = "quarantined" // silent after a PDU left; listening
	NeedsHand   BayState = "needs-hand"  // SIM or PIN trouble, or a refused device: an operator must act
)

// BayStatus is a bay for a page or a metric. IMSI is masked; Signal is in dBm, 0
// when unknown; Registration is +CREG's stat.
type BayStatus struct {
	Name, Device                     string
	State                            BayState
	Since                            time.Time
	Manufacturer, Model, IMEI, IMSI  string
	Operator                         string
	Signal, Registration             int
	LastError                        string
	Sent, Refused, Doubtful, Reports uint64
	Unmatched                        uint64 // reports that belong to no message we know
	Opens, Resyncs                   uint64
	Handoff                          time.Duration // creation to Ctrl-Z of the last message
}

// bay is one modem position and its goroutine.
type bay struct {
	pool *Pool
	cfg  BayConfig
	wake chan struct{}

	// Guarded by Pool.mu.
	inService, busy bool
	coolUntil       time.Time

	statusMu sync.Mutex
	status   BayStatus

	// Owned by the actor.
	eng        *at.Engine
	identity   identity
	stat       int // registration
	again      bool
	streak     streak
	cooldowns  int
	reports    reportRing
	pinRefused string // ICCID (or "?") whose PIN was refused or left unanswered
}

func newBay(p *Pool, cfg BayConfig) *bay {
	return &bay{pool: p, cfg: cfg, wake: make(chan struct{}, 1),
		status: BayStatus{Name: cfg.Name, Device: cfg.Device, State: Absent}}
}

func (b *bay) snapshot() BayStatus {
	b.statusMu.Lock()
	defer b.statusMu.Unlock()
	return b.status
}

func (b *bay) update(f func(*BayStatus)) {
	b.statusMu.Lock()
	defer b.statusMu.Unlock()
	f(&b.status)
}

// enter changes the visible state; only Ready and Transacting are in service.
func (b *bay) enter(s BayState) {
	b.update(func(st *BayStatus) {
		if st.State != s {
			st.State, st.Since = s, b.pool.cfg.Now()
		}
	})
	b.pool.ready(b, s == Ready || s == Transacting)
}

// run opens the port again and again until ctx ends. The pause grows while
// nothing works and starts afresh after a session that did. A bay that needs an
// operator is looked at ever more rarely: each look of a barred card costs a
// message one of its attempts.
func (b *bay) run(ctx context.Context) {
	t := b.pool.cfg.Timing
	pause, hands := t.ReopenMin, t.ReopenMax
	for ctx.Err() == nil {
		began := time.Now()
		err := b.session(ctx)
		worked := time.Since(began)
		if ctx.Err() != nil {
			break
		}
		state := Absent
		wait := pause
		if fault.Is(err, fault.Fatal) {
			state, wait = NeedsHand, hands
			hands = min(2*hands, 20*t.ReopenMax)
		}
		b.update(func(st *BayStatus) { st.LastError = err.Error() })
		b.enter(state)
		b.pool.cfg.Log.Warn("modem lost", "bay", b.cfg.Name, "err", err, "pause", wait)
		if !sleep(ctx, wait) {
			break
		}
		pause = min(2*pause, t.ReopenMax)
		if worked > t.ReopenMax {
			pause = t.ReopenMin
		}
		if worked > 20*t.ReopenMax {
			hands = t.ReopenMax
		}
	}
	b.enter(Absent)
}

// sleep waits d; false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// session is one life of the port: open, initialise, serve, close.
func (b *bay) session(ctx context.Context) error {
	line, err := b.pool.cfg.OpenPort(b.cfg)
	if err != nil {
		return err
	}
	b.eng = at.New(line, at.Config{Indication: b.indication})
	defer func() {
		b.enter(Absent)
		if err := line.Close(); err != nil {
			b.pool.cfg.Log.Error("modem port not closed", "bay", b.cfg.Name, "err", err)
		}
	}()
	b.update(func(st *BayStatus) { st.Opens++ })
	b.again = true
	for ctx.Err() == nil {
		if b.again {
			b.again = false
			b.enter(Starting)
			b.eng.Arm(false)
			if err := b.start(ctx); err != nil {
				return err
			}
			b.eng.Arm(true)
		}
		if err := b.serve(ctx); err != nil {
			return err
		}
	}
	return nil
}

// serve does one thing: send a message, handle what the modem says, or check it.
func (b *bay) serve(ctx context.Context) error {
	t := b.pool.cfg.Timing
	wait := t.KeepAlive
	if registered(b.stat) {
		b.enter(Ready)
		if j := b.pool.take(b); j != nil {
			return b.transact(ctx, j)
		}
	} else {
		b.enter(NoNetwork)
		wait = t.Register
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return nil
	case tok := <-b.eng.Tokens():
		return b.listen(ctx, tok)
	case <-b.wake:
		return nil
	case <-timer.C:
		return b.check(ctx)
	}
}

// listen handles a token between commands.
func (b *bay) listen(ctx context.Context, tok port.Token) error {
	err := b.eng.Idle(tok)
	switch {
	case errors.Is(err, at.ErrRestarted):
		b.pool.cfg.Log.Warn("modem restarted", "bay", b.cfg.Name)
		b.again = true
		return nil
	case err != nil:
		return err
	case b.eng.Dirty():
		return b.resync(ctx)
	}
	return nil
}

// resync is the first rung of the recovery ladder; the next is the end of the
// session, which reopens the port.
func (b *bay) resync(ctx context.Context) error {
	b.update(func(st *BayStatus) { st.Resyncs++ })
	err := b.eng.Resync(ctx)
	if errors.Is(err, at.ErrRestarted) {
		b.again = true
		return nil
	}
	return err
}

// check asks an idle modem for signal and registration; a silent one gets a
// resynchronisation.
func (b *bay) check(ctx context.Context) error {
	err := b.signal(ctx)
	if err == nil {
		err = b.registration(ctx)
	}
	switch {
	case err == nil:
		return nil
	case asRefusal(err) != nil:
		b.again = true // it lost its mind, not its line
		if !sleep(ctx, b.pool.cfg.Timing.ReopenMin) {
			return nil
		}
		return nil
	case errors.Is(err, at.ErrRestarted):
		b.again = true
		return nil
	case errors.Is(err, at.ErrTimeout), errors.Is(err, at.ErrDirty):
		return b.resync(ctx)
	}
	return err
}

// indication handles unsolicited lines, in the actor's goroutine.
func (b *bay) indication(i at.Indication) {
	if i.Boot == at.BootSoft {
		b.again = b.eng != nil && b.initialised()
		return
	}
	if i.PDU != "" {
		b.incoming(i)
		return
	}
	if m := regIndication.FindStringSubmatch(i.Line); m != nil {
		b.setStat(atoi(m[1]))
	}
}

// initialised reports that initialisation is over: a late "SMS Ready" then means
// that something was reset.
func (b *bay) initialised() bool {
	switch b.snapshot().State {
	case Ready, Transacting, NoNetwork:
		return true
	}
	return false
}

func (b *bay) setStat(stat int) {
	b.stat = stat
	b.update(func(st *BayStatus) { st.Registration = stat })
}
