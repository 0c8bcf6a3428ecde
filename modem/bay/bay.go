// Package bay is the life of one modem position: open the port, find out what is
// plugged in, initialise it, unlock its card, wait for a network, send one message
// at a time, listen to what the modem says by itself, and bring it back when it
// falls silent.
//
// A Bay has one goroutine (Run) which alone talks to the device; Send and the
// other calls hand it work and wait. It knows nothing of queues, of other bays or
// of a database: an Owner gives it messages and takes its news. It decides, from a
// refusal, who is to blame (verdict.go); what follows for the message is the
// Owner's matter.
//
// Formats: AT commands of 3GPP TS 27.007 and 27.005 through modem/at, PDUs through
// modem/pdu. It logs bay names, message identifiers and codes; never numbers,
// texts, IMSIs or PINs. Only package modem may import it.
package bay

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/modem/at"
	"custode/modem/pdu"
	"custode/modem/port"
)

// Place is one modem position: machine facts. Device is a stable path
// (/dev/serial/by-path/...). SIMPIN is a file whose first line is the card's PIN
// and that others may not read, or "".
type Place struct {
	Name         string
	Device       string
	Baud         int // 0 means 115200
	HardwareFlow bool
	SIMPIN       string
}

// State is what a bay is doing.
type State string

// The bay states.
const (
	Absent      State = "absent"      // no port; will be tried again
	Starting    State = "starting"    // port open, initialising
	NoNetwork   State = "no-network"  // SIM ready, not registered
	Ready       State = "ready"       // waits for messages
	Transacting State = "sending"     // has one
	Quarantined State = "quarantined" // silent after a PDU left; listening
	NeedsHand   State = "needs-hand"  // SIM or PIN trouble, or a refused device: an operator must act
)

// Status is a bay for a page or a metric. IMSI is masked; Signal is in dBm, 0
// when unknown; Registration is +CREG's stat.
type Status struct {
	Name, Device                     string
	State                            State
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

// NewsKind says what a bay has to tell.
type NewsKind uint8

// The kinds of news.
const (
	LateReceipt NewsKind = iota // a Doubtful message was accepted after all
	Reported                    // a status report: Fate
)

// News is what a bay learns outside of a Send. Detail holds neither text nor number.
type News struct {
	Kind   NewsKind
	ID     id.MessageID
	Fate   pdu.Fate
	Detail string
}

// Owner is who gives a bay work. Its methods are called in the bay's goroutine:
// while they run, the modem waits.
type Owner interface {
	// Serving tells that the bay came into service or left it. A bay that leaves
	// says so before the Send in progress returns.
	Serving(bay string, on bool)
	// Heard takes news. An error means that they are not durable.
	Heard(ctx context.Context, bay string, n News) error
	// Alone reports that no other bay is in service.
	Alone(bay string) bool
}

// Timing holds every wait of a bay; all must be set (see modem.Timing).
type Timing struct {
	Prompt    time.Duration // AT+CMGS to ">"
	Receipt   time.Duration // Ctrl-Z to doubt
	Listen    time.Duration // doubt to resynchronisation, listening for a late receipt
	ListenOne time.Duration // the same when no other modem is ready
	KeepAlive time.Duration // idle check of signal and registration
	Register  time.Duration // pause between looks for a network
	Busy      time.Duration // how long a SIM may be busy at start
	ReopenMin time.Duration // first pause before reopening a port
	ReopenMax time.Duration // longest pause
}

// Config builds a Bay. Everything but PINNotes and AllowSimulated is required.
type Config struct {
	Place          Place
	Owner          Owner
	Log            *slog.Logger
	Now            func() time.Time
	Timing         Timing
	PINNotes       string // folder for the notes of refused SIM PINs; "" keeps them in memory
	AllowSimulated bool   // accept a modem whose manufacturer is SIMULATOR
	Open           func(Place) (at.Port, error)
}

// Bay is one modem position and its goroutine.
type Bay struct {
	cfg      Config
	requests chan request

	gate    sync.Mutex
	serving bool
	out     chan struct{} // closed while out of service

	statusMu sync.Mutex
	status   Status

	// Owned by the actor.
	eng        *at.Engine
	identity   identity
	stat       int // registration
	again      bool
	streak     streak
	reports    reportRing
	pinRefused string // ICCID (or "?") whose PIN was refused or left unanswered
}

// New builds a bay; nothing is opened before Run.
func New(cfg Config) *Bay {
	out := make(chan struct{})
	close(out)
	return &Bay{cfg: cfg, requests: make(chan request), out: out,
		status: Status{Name: cfg.Place.Name, Device: cfg.Place.Device, State: Absent}}
}

// OpenSerial opens the place's line with modem/port.
func OpenSerial(p Place) (at.Port, error) {
	line, err := port.Open(port.Config{Device: p.Device, Baud: p.Baud, HardwareFlow: p.HardwareFlow})
	if err != nil {
		return nil, err // not line: a nil *Port in the interface would not be nil
	}
	return line, nil
}

// Status returns what the bay is doing.
func (b *Bay) Status() Status {
	b.statusMu.Lock()
	defer b.statusMu.Unlock()
	return b.status
}

func (b *Bay) update(f func(*Status)) {
	b.statusMu.Lock()
	defer b.statusMu.Unlock()
	f(&b.status)
}

// enter changes the visible state; only Ready and Transacting are in service.
func (b *Bay) enter(s State) {
	b.update(func(st *Status) {
		if st.State != s {
			st.State, st.Since = s, b.cfg.Now()
		}
	})
	on := s == Ready || s == Transacting
	b.gate.Lock()
	changed := b.serving != on
	b.serving = on
	if changed && on {
		b.out = make(chan struct{})
	} else if changed {
		close(b.out)
	}
	b.gate.Unlock()
	if changed {
		b.cfg.Owner.Serving(b.cfg.Place.Name, on)
	}
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
		state := Absent
		wait := pause
		if fault.Is(err, fault.Fatal) {
			state, wait = NeedsHand, hands
			hands = min(2*hands, 20*t.ReopenMax)
		}
		b.update(func(st *Status) { st.LastError = err.Error() })
		b.enter(state)
		b.cfg.Log.Warn("modem lost", "bay", b.cfg.Place.Name, "err", err, "pause", wait)
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
func (b *Bay) session(ctx context.Context) error {
	line, err := b.cfg.Open(b.cfg.Place)
	if err != nil {
		return err
	}
	b.eng = at.New(line, at.Config{Indication: b.indication})
	defer func() {
		b.enter(Absent)
		if err := line.Close(); err != nil {
			b.cfg.Log.Error("modem port not closed", "bay", b.cfg.Place.Name, "err", err)
		}
	}()
	b.update(func(st *Status) { st.Opens++ })
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
func (b *Bay) serve(ctx context.Context) error {
	t := b.cfg.Timing
	wait := t.KeepAlive
	requests := b.requests
	if registered(b.stat) {
		b.enter(Ready)
	} else {
		b.enter(NoNetwork)
		requests, wait = nil, t.Register
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return nil
	case tok := <-b.eng.Tokens():
		return b.listen(ctx, tok)
	case r := <-requests:
		return b.transact(ctx, r)
	case <-timer.C:
		return b.check(ctx)
	}
}

// listen handles a token between commands.
func (b *Bay) listen(ctx context.Context, tok port.Token) error {
	err := b.eng.Idle(tok)
	switch {
	case errors.Is(err, at.ErrRestarted):
		b.cfg.Log.Warn("modem restarted", "bay", b.cfg.Place.Name)
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
func (b *Bay) resync(ctx context.Context) error {
	b.update(func(st *Status) { st.Resyncs++ })
	err := b.eng.Resync(ctx)
	if errors.Is(err, at.ErrRestarted) {
		b.again = true
		return nil
	}
	return err
}

// check asks an idle modem for signal and registration; a silent one gets a
// resynchronisation.
func (b *Bay) check(ctx context.Context) error {
	err := b.signal(ctx)
	if err == nil {
		err = b.registration(ctx)
	}
	switch {
	case err == nil:
		return nil
	case asRefusal(err) != nil:
		b.again = true // it lost its mind, not its line
		if !sleep(ctx, b.cfg.Timing.ReopenMin) {
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
func (b *Bay) indication(i at.Indication) {
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
func (b *Bay) initialised() bool {
	switch b.Status().State {
	case Ready, Transacting, NoNetwork:
		return true
	}
	return false
}

func (b *Bay) setStat(stat int) {
	b.stat = stat
	b.update(func(st *Status) { st.Registration = stat })
}
