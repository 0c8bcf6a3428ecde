package bay

import (
	"context"
	"errors"
	"time"

	"custode/internal/fault"
	"custode/modem/at"
)

// rung is a means against a modem that does not work, ever ruder. Rung 0, the
// resynchronisation, is taken by the engine's user at once.
type rung uint8

const (
	reopen    rung = 1 + iota // close the port, open it again, initialise
	radio                     // leave the network and come back
	restart                   // the modem's own restart command
	dtr                       // drop the line's DTR for a second
	supply                    // switch it off and on
	surrender                 // out of the pool: an operator must look
)

var rungNames = map[rung]string{reopen: "reopen", radio: "radio", restart: "restart", dtr: "dtr", supply: "power", surrender: "given up"}

// ladder remembers which rungs were taken in the present trouble.
type ladder struct {
	level   rung
	used    map[rung]time.Time
	deaf    int // sessions in a row whose modem did not answer
	absent  time.Time
	gaveUp  time.Time
	rounds  int
	losses  int // times in a row that the network was missing for too long
	planned rung
}

// next takes the next rung from low on that may be used now: those that restart the
// modem at most once in rest. After the last one the ladder is climbed again, ever
// more rarely.
func (l *ladder) next(low rung, now time.Time, rest time.Duration, power bool) rung {
	if l.used == nil {
		l.used = map[rung]time.Time{}
	}
	if l.level == surrender {
		if now.Sub(l.gaveUp) < rest<<min(l.rounds, 4) {
			return surrender
		}
		l.level = 0
		l.rounds++
	}
	for r := max(l.level+1, low); r < surrender; r++ {
		last, was := l.used[r]
		if r == supply && !power || r >= restart && was && now.Sub(last) < rest {
			continue
		}
		l.level, l.used[r] = r, now
		return r
	}
	l.level, l.gaveUp = surrender, now
	return surrender
}

// well forgets the trouble, but not when rungs were last used.
func (b *Bay) well() {
	b.ladder = ladder{used: b.ladder.used}
	b.update(func(st *Status) { st.Rung = "" })
}

// climb plans the next rung.
func (b *Bay) climb(low rung, why string) rung {
	r := b.ladder.next(low, time.Now(), b.cfg.Timing.RungRest, b.cfg.Power != nil)
	b.update(func(st *Status) { st.Rung = rungNames[r] })
	b.cfg.Log.Warn("modem recovery", "bay", b.cfg.Place.Name, "rung", rungNames[r], "why", why)
	if r == surrender {
		b.alarm(OutOfOrder, why)
	}
	return r
}

var (
	errGone    = errors.New("restarted by us")
	errGivenUp = errors.New("nothing helps")
)

// searching is called when no network is there; after a while, which doubles, it
// takes a rung.
func (b *Bay) searching(ctx context.Context) error {
	if b.lostAt.IsZero() || time.Since(b.lostAt) < b.cfg.Timing.Lost<<min(b.ladder.losses, 5) {
		return nil
	}
	b.ladder.losses++
	b.lostAt = time.Now()
	b.alarm(NotServed, "not registered for long")
	return b.perform(ctx, b.climb(radio, "not registered"))
}

// perform takes a rung while the port is open.
func (b *Bay) perform(ctx context.Context, r rung) error {
	op := "recover modem " + b.cfg.Place.Name
	switch r {
	case radio:
		b.enter(Starting)
		b.eng.Arm(false)
		for _, text := range []string{"AT+CFUN=4", "AT+CFUN=1"} {
			if _, _, err := b.try(ctx, at.Command{Text: text, Timeout: 15 * time.Second}); err != nil {
				return err
			}
		}
		b.again = true // settings may be lost
		return nil
	case restart, dtr, supply:
		b.ladder.planned = r
		return b.hardReset(ctx, r)
	case surrender:
		return fault.New(fault.Fatal, op, errGivenUp)
	}
	return fault.New(fault.Reopen, op, errGone)
}

// hardReset restarts the modem. The port is closed at once (an old descriptor would
// make it come back under another name) and left alone until it says that it is
// ready or its time is over.
func (b *Bay) hardReset(ctx context.Context, r rung) error {
	op := "restart modem " + b.cfg.Place.Name
	b.enter(Starting)
	b.ladder.planned = 0
	switch r {
	case restart:
		b.eng.Arm(false)
		// A modem that cannot answer may still obey.
		_ = b.eng.Shout(ctx, b.profile.Reset)
	case dtr:
		if line, ok := b.eng.Port().(interface{ SetDTR(bool) error }); ok && line.SetDTR(false) == nil {
			sleep(ctx, 1200*time.Millisecond)
			_ = line.SetDTR(true)
		}
	case supply:
		b.ladder.planned = supply // with the port closed
	}
	b.leaveAlone()
	return fault.New(fault.Reopen, op, errGone)
}

// leaveAlone begins the time in which a starting modem is not spoken to.
func (b *Bay) leaveAlone() {
	wait := b.cfg.Timing.Boot
	if wait == 0 {
		wait = b.profile.BootWait
	}
	b.bootUntil, b.booted = time.Now().Add(wait), false
}

// powerCycle switches the modem off and on while its port is closed.
func (b *Bay) powerCycle(ctx context.Context) error {
	if b.cfg.Power == nil {
		return fault.Newf(fault.Unavailable, "switch modem "+b.cfg.Place.Name, "this bay's power cannot be switched")
	}
	pctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	err := b.cfg.Power.Off(pctx)
	if err != nil {
		err = b.cfg.Power.Pulse(pctx)
	} else if sleep(pctx, 3*time.Second) {
		err = b.cfg.Power.On(pctx)
	} else {
		// Never leave it off.
		err = b.cfg.Power.On(context.WithoutCancel(ctx))
	}
	b.leaveAlone()
	if err != nil {
		return fault.New(fault.Unavailable, "switch modem "+b.cfg.Place.Name, err)
	}
	return nil
}

// Run opens the port again and again until ctx ends; a Send in progress is
// finished first. The pause grows while nothing works and starts afresh after a
// session that did. A bay that needs an operator is looked at ever more rarely:
// each look of a barred card costs a message one of its attempts.
func (b *Bay) Run(ctx context.Context) {
	t := b.cfg.Timing
	pause, hands := t.ReopenMin, t.ReopenMax
	for ctx.Err() == nil {
		began := time.Now()
		err := b.session(ctx)
		worked := time.Since(began)
		if ctx.Err() != nil {
			break
		}
		if worked > t.ReopenMax {
			pause = t.ReopenMin
		}
		if worked > 20*t.ReopenMax {
			hands = t.ReopenMax
		}
		state, wait := Absent, pause
		switch {
		case b.held:
			state = Held
		case errors.Is(err, errGone):
			wait = t.ReopenMin
		case fault.Is(err, fault.Fatal):
			state, wait = NeedsHand, hands
			hands = min(2*hands, 20*t.ReopenMax)
		}
		if err != nil {
			b.update(func(st *Status) { st.LastError = err.Error() })
			b.cfg.Log.Warn("modem lost", "bay", b.cfg.Place.Name, "err", err, "pause", wait)
		}
		b.enter(state)
		if b.ladder.planned == supply {
			b.ladder.planned = 0
			if err := b.powerCycle(ctx); err != nil {
				b.cfg.Log.Error("modem not power-cycled", "bay", b.cfg.Place.Name, "err", err)
			}
		}
		if !b.rest(ctx, wait) {
			break
		}
		pause = min(2*pause, t.ReopenMax)
	}
	b.enter(Absent)
}

// rest waits between two sessions; operators are obeyed meanwhile. A held bay rests
// until it is released. False when ctx ended.
func (b *Bay) rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	over := timer.C
	for {
		if b.held {
			over = nil
		}
		select {
		case <-over:
			return true
		case o := <-b.orders:
			was := b.held
			_ = b.obey(o, false)
			if was != b.held || b.ladder.planned != 0 {
				return true
			}
		case <-ctx.Done():
			return false
		}
	}
}

// session is one life of the port: open, initialise, serve, close.
func (b *Bay) session(ctx context.Context) error {
	if b.held {
		return nil
	}
	line, err := b.cfg.Open(b.cfg.Place)
	if err != nil {
		b.missing()
		return err
	}
	b.ladder.absent = time.Time{}
	b.eng = at.New(line, at.Config{Indication: b.indication})
	b.take(b.profile)
	defer func() {
		b.enter(Absent)
		if err := line.Close(); err != nil {
			b.cfg.Log.Error("modem port not closed", "bay", b.cfg.Place.Name, "err", err)
		}
	}()
	b.update(func(st *Status) { st.Opens++ })
	b.again, b.wellSince = true, time.Time{}
	b.enter(Starting)
	if err := b.letBoot(ctx); err != nil {
		return err
	}
	for ctx.Err() == nil && !b.held {
		if b.again {
			b.again = false
			b.enter(Starting)
			b.eng.Arm(false)
			if err := b.start(ctx); err != nil {
				return b.failed(ctx, err)
			}
			b.eng.Arm(true)
			b.ladder.deaf, b.wellSince = 0, time.Now()
		}
		if err := b.serve(ctx); err != nil {
			return b.failed(ctx, err)
		}
	}
	return nil
}

// letBoot leaves a modem alone that was restarted, until it says that it is ready.
func (b *Bay) letBoot(ctx context.Context) error {
	left := time.Until(b.bootUntil)
	if left <= 0 || b.booted {
		return nil
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	for !b.booted {
		select {
		case tok := <-b.eng.Tokens():
			if err := b.eng.Idle(tok); err != nil {
				return err
			}
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// failed decides, at the end of a session, whether the next rung is due: the second
// time that a modem with an open port does not answer.
func (b *Bay) failed(ctx context.Context, err error) error {
	silent := errors.Is(err, at.ErrTimeout) || errors.Is(err, at.ErrDirty)
	if ctx.Err() != nil || !silent || fault.Is(err, fault.Fatal) {
		return err
	}
	b.ladder.deaf++
	if b.ladder.deaf < 2 {
		return err
	}
	if r := b.climb(restart, "does not answer"); r != surrender {
		return b.perform(ctx, r)
	}
	return fault.New(fault.Fatal, "recover modem "+b.cfg.Place.Name, errors.Join(errGivenUp, err))
}

// missing is called when the port is not there. A modem that stays away is switched
// off and on, where that is possible.
func (b *Bay) missing() {
	now := time.Now()
	if b.ladder.absent.IsZero() {
		b.ladder.absent = now
	}
	if b.cfg.Power == nil || now.Sub(b.ladder.absent) < 5*time.Minute {
		return
	}
	b.ladder.absent = now
	if b.climb(supply, "the port is gone") == supply {
		b.ladder.planned = supply
	}
}
