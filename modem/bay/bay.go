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
// modem/pdu, devices by modem/profile. It logs bay names, message identifiers and codes; never numbers,
// texts, IMSIs or PINs. Only package modem may import it.
package bay

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"custode/internal/id"
	"custode/modem/at"
	"custode/modem/port"
	"custode/modem/profile"
	"custode/modem/report"
	"custode/modem/verdict"
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
	IMEI         string   // the modem that belongs here, 14 to 16 digits; "" takes any
	Centre       id.Phone // service centre to set when the card has another or none; zero leaves it
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
	NeedsHand   State = "needs-hand"  // SIM or PIN trouble, a refused device, or nothing helps: an operator must act
	Held        State = "held"        // an operator has taken the modem away from us
)

// Status is a bay for a page or a metric. IMSI is masked (its first five or six
// digits are the home network); Bay.Card has it whole. Signal is in dBm, 0 when unknown; Registration is +CREG's stat.
type Status struct {
	Name, Device                     string
	State                            State
	Since                            time.Time
	Manufacturer, Model, IMEI, IMSI  string
	Profile                          string
	Operator                         string
	Signal, Registration             int
	Reporting                        string // ds of +CNMI: "1" reports come at once, "2" they are stored, "0" none
	LastError                        string
	Sent, Refused, Doubtful, Reports uint64
	Received                         uint64 // messages for our card
	Unmatched                        uint64 // reports that belong to no message we know
	Opens, Resyncs                   uint64
	Stored, StoreSize                int           // places taken and there are in the storage
	Rung                             string        // last rung of the recovery ladder taken, "" while well
	Handoff                          time.Duration // creation to Ctrl-Z of the last message (the pool's measure)
}

// Timing holds every wait of a bay. Fields marked * may be 0: the profile decides.
type Timing struct {
	Prompt     time.Duration // * AT+CMGS to ">"
	Receipt    time.Duration // * Ctrl-Z to doubt
	Listen     time.Duration // doubt to resynchronisation, listening for a late receipt
	ListenOne  time.Duration // the same when no other modem is ready
	KeepAlive  time.Duration // idle check of signal and registration
	Register   time.Duration // pause between looks for a network
	Busy       time.Duration // * how long a SIM may be busy at start
	Boot       time.Duration // * how long a restarted modem is left alone, unless it says that it is ready
	Lost       time.Duration // without a network before the ladder is climbed; doubles
	Inbox      time.Duration // look for stored messages that nobody announced
	RungRest   time.Duration // between two uses of a rung that restarts the modem
	ReopenMin  time.Duration // first pause before reopening a port
	ReopenMax  time.Duration // longest pause
	AlarmEvery time.Duration // between two alarms of one kind
}

// Config builds a Bay. Power, PINNotes and AllowSimulated may be zero.
type Config struct {
	Place          Place
	Owner          Owner
	Log            *slog.Logger
	Now            func() time.Time
	Timing         Timing
	Profiles       *profile.Set
	Power          Power
	PINNotes       string // folder for the notes of tried SIM PINs; "" keeps them in memory
	AllowSimulated bool   // accept a modem whose manufacturer is SIMULATOR
	Open           func(Place) (at.Port, error)
}

// Bay is one modem position and its goroutine.
type Bay struct {
	cfg      Config
	requests chan request
	orders   chan order

	gate    sync.Mutex
	serving bool
	out     chan struct{} // closed while out of service

	statusMu sync.Mutex
	status   Status
	card     string // IMSI

	// Owned by the actor.
	eng        *at.Engine
	profile    profile.Profile
	identity   identity
	stat       int       // registration
	lostAt     time.Time // zero while registered
	nextCheck  time.Time
	wellSince  time.Time
	again      bool // initialise before anything else
	submitting bool // a PDU is on its way: reports may come before their receipt
	held       bool
	bootUntil  time.Time // leave the modem alone until then
	booted     bool      // it said that it is ready
	csms       int
	lastRef    int // TP-MR of the last accepted part, -1 unknown
	doubts     []doubt
	late       lateness
	streak     verdict.Streak
	spam       int // anti-spam rests in a row
	reports    report.Ring
	inbox      inbox
	ladder     ladder
	lastLine   string // answer to a USSD request
	alarms     map[Alarm]time.Time
	pinBusy    bool   // the card was too busy to look at its PIN, once
	pinRefused string // ICCID (or "?") whose PIN was refused or left unanswered
}

// New builds a bay; nothing is opened before Run.
func New(cfg Config) *Bay {
	out := make(chan struct{})
	close(out)
	return &Bay{cfg: cfg, requests: make(chan request), orders: make(chan order), out: out, profile: cfg.Profiles.Generic(),
		lastRef: -1, alarms: map[Alarm]time.Time{}, status: Status{Name: cfg.Place.Name, Device: cfg.Place.Device, State: Absent}}
}

// Card returns the IMSI of the card, "" while none is known: a key for counters, not
// for logs or pages.
func (b *Bay) Card() string {
	b.statusMu.Lock()
	defer b.statusMu.Unlock()
	return b.card
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
	b.admit(s == Ready || s == Transacting)
}

// admit opens or closes the way for messages.
func (b *Bay) admit(on bool) {
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

// tell gives news to the owner: what is in hand is recorded, shutdown or not.
func (b *Bay) tell(n News) bool {
	if err := b.cfg.Owner.Heard(context.Background(), b.cfg.Place.Name, n); err != nil {
		b.cfg.Log.Error("news of a modem not kept", "bay", b.cfg.Place.Name, "err", err)
		return false
	}
	return true
}

// alarm tells of a condition, at most once in a while.
func (b *Bay) alarm(a Alarm, detail string) {
	now := b.cfg.Now()
	if last, ok := b.alarms[a]; ok && now.Sub(last) < b.cfg.Timing.AlarmEvery {
		return
	}
	b.alarms[a] = now
	b.cfg.Log.Warn("modem alarm", "bay", b.cfg.Place.Name, "alarm", string(a), "detail", detail)
	b.tell(News{Kind: Alarmed, Alarm: a, Detail: detail})
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

// serve does one thing: send a message, handle what the modem says, fetch what it
// keeps, obey an operator, or check it.
func (b *Bay) serve(ctx context.Context) error {
	t := b.cfg.Timing
	requests := b.requests
	if at.Registered(b.stat) {
		b.enter(Ready)
	} else {
		b.enter(NoNetwork)
		requests = nil
	}
	select { // a message goes before everything that can wait
	case r := <-requests:
		return b.transact(ctx, r)
	default:
	}
	if did, err := b.chores(ctx); did || err != nil {
		return b.broken(ctx, err)
	}
	now := time.Now()
	if b.nextCheck.IsZero() || b.nextCheck.Sub(now) > t.KeepAlive {
		b.nextCheck = now.Add(t.KeepAlive)
	}
	if requests == nil && b.nextCheck.Sub(now) > t.Register {
		b.nextCheck = now.Add(t.Register)
	}
	// The moment is fixed: what the modem says by itself does not put it off.
	timer := time.NewTimer(b.nextCheck.Sub(now))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return nil
	case tok := <-b.eng.Tokens():
		return b.listen(ctx, tok)
	case r := <-requests:
		return b.transact(ctx, r)
	case o := <-b.orders:
		return b.obey(o, true)
	case <-timer.C:
		b.nextCheck = time.Time{}
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

// resync is the lowest rung of the recovery ladder; the next is the end of the
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
// resynchronisation, one without a network the next rung.
func (b *Bay) check(ctx context.Context) error {
	b.offerAgain()
	err := b.signal(ctx)
	if err == nil {
		err = b.registration(ctx)
	}
	if verdict.AsRefusal(err) != nil {
		b.again = true // it lost its mind, not its line
		sleep(ctx, b.cfg.Timing.ReopenMin)
		return nil
	}
	if err != nil {
		return b.broken(ctx, err)
	}
	if at.Registered(b.stat) {
		if !b.wellSince.IsZero() && time.Since(b.wellSince) > 10*time.Minute {
			b.well()
		}
		return nil
	}
	return b.searching(ctx)
}

// broken brings the line back after a command that failed: a restarted modem is
// initialised, a dead port ends the session, anything else is resynchronised.
func (b *Bay) broken(ctx context.Context, err error) error {
	switch {
	case err == nil, ctx.Err() != nil:
		return nil
	case errors.Is(err, at.ErrRestarted):
		b.again = true
		return nil
	case errors.Is(err, at.ErrTimeout), errors.Is(err, at.ErrDirty), errors.Is(err, at.ErrUnclear), errors.Is(err, context.Canceled):
		b.enter(Starting)
		return b.resync(ctx)
	}
	return err
}

// indication handles unsolicited lines, in the actor's goroutine. It never writes.
func (b *Bay) indication(i at.Indication) {
	line := i.Line
	switch {
	case strings.HasPrefix(line, "UNDER-VOLTAGE"):
		b.alarm(UnderVoltage, "the modem's supply dropped")
	case strings.HasPrefix(line, "^SMMEMFULL"):
		b.alarm(StorageFull, "the modem says that its storage is full")
		b.inbox.look = true
	}
	switch {
	case i.Boot == at.BootSoft:
		b.booted = true
		b.again = b.again || b.initialised()
	case strings.HasPrefix(line, "+CMT:"), strings.HasPrefix(line, "+CDS:"):
		if i.PDU != "" {
			b.direct(i.PDU)
		}
	case strings.HasPrefix(line, "+CMTI:"), strings.HasPrefix(line, "+CDSI:"):
		b.announced(line)
	case strings.HasPrefix(line, "+CUSD:"):
		b.lastLine = line
	case strings.HasPrefix(line, "+CMGS:"):
		// Between commands only a message in doubt can be meant.
		if ref, ok := at.Reference(line); ok && !b.submitting {
			b.credit(ref)
		}
	default:
		b.registrationNews(line)
	}
}

// registrationNews takes +CREG: stat. The LTE side alone can bring a modem into
// service, never out of it: the next check asks both.
func (b *Bay) registrationNews(line string) {
	switch side, stat := at.RegistrationNews(line); {
	case side == "CREG" || side == "CEREG" && at.Registered(stat):
		b.setStat(stat)
	case side == "CEREG":
		b.nextCheck = time.Now()
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
	switch {
	case at.Registered(stat):
		b.lostAt = time.Time{}
	case b.lostAt.IsZero():
		b.lostAt = time.Now()
	}
	b.update(func(st *Status) { st.Registration = stat })
}
