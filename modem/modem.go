// Package modem sends SMS through a pool of GSM modems.
//
// One central queue (class, then deadline, then arrival), from which idle bays
// get the best message they may take: the fastest bay that works, whose card may
// still send (package budget), while bulk leaves a reserve. A bay that fails is
// tried without messages first (breaker.go). Admit tells the caller beforehand
// when a message would wait too long or a number got enough. The
// outbox itself is a Journal the caller provides; the pool is told of new rows
// with Wake and records every step, "Sending" before the PDU leaves, so that a
// crash knows which messages are in doubt. A message text reaches the pool
// wrapped and is opened only when a modem takes it.
//
// What becomes of a message: Sent means that the network accepted it (receipt),
// Delivered that the phone has it (status report, best effort: never wait for
// it). When the modem falls silent after the PDU left, nobody knows: that is
// MaybeSent, a state of its own; a one-time code is then tried once more on
// another modem. A message past its deadline is Expired, never sent late; one
// that the journal's owner Cancelled is dropped when a modem asks to send it. A
// refusal by the network is classified (verdict.go): the number, the network,
// the modem or the SIM is to blame, and only the first fails the message.
//
// A modem that stops answering is resynchronised; if that fails its port is
// reopened with a growing pause, for ever and without disturbing the others.
//
// The package is a leaf: cmd wires it to the store and the HSM. It logs bay
// names, message identifiers and codes; never numbers, texts or PINs.
package modem

import (
	"context"
	"log/slog"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/modem/at"
	"custode/modem/bay"
	"custode/modem/budget"
	"custode/modem/port"
	"custode/modem/profile"
)

// Class is what a message is for. Lower values go first. Journals store the
// numbers: they never change, and a new class takes the next free one (so it
// goes last).
type Class uint8

// The classes; append only.
const (
	OneTime Class = iota // somebody waits in front of a page
	Alert                // a notice to a person, or to an operator
	Bulk                 // may never delay the others
)

// State is where a message is. Journals store the numbers: they never change,
// and a new state takes the next free one.
type State uint8

// The states; append only. In Queued, Sending and MaybeSent a copy may still
// leave, in the others none; see allowed for the changes that are possible.
// Cancelled is never the pool's doing: who owns the journal writes it there when
// the text has lost its use, and refuses the next Sending.
const (
	Queued State = iota
	Sending
	Sent      // accepted by the network (receipt)
	Delivered // with the phone (report)
	Failed
	Expired
	MaybeSent // the PDU left and no answer came
	Cancelled // by the owner of the journal; no further copy leaves
)

var stateNames = [...]string{"queued", "sending", "sent", "delivered", "failed", "expired", "maybe-sent", "cancelled"}

// String returns the lower-case name.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return "unknown"
}

// Message is a row of the outbox. Wrapped is the text wrapped by its issuer with
// the message identifier as associated data. Attempts counts sendings so far.
// InDoubt marks what a dead process may have sent. OnlyBay pins an operator's
// test to one bay; "" is any.
type Message struct {
	ID       id.MessageID
	To       id.Phone
	Wrapped  []byte
	Class    Class
	Created  time.Time
	Expires  time.Time
	Attempts int
	InDoubt  bool
	OnlyBay  string
}

// Event is one step of a message. Detail holds neither text nor number. Card is
// the IMSI of the card in question, "" when there is none. Parts is how many SMS
// a step to Sending lets out. Handoff is acceptance to hand-over (Ctrl-Z),
// Submit hand-over to receipt; 0 when the step does not end such a span.
type Event struct {
	ID              id.MessageID
	State           State
	Bay             string
	Card            string
	Detail          string
	Parts           int
	Handoff, Submit time.Duration
	At              time.Time
}

// Journal is the durable outbox.
type Journal interface {
	// Queued returns messages accepted and not finished, by class and in a class
	// by deadline, so that limit never cuts off a code behind bulk rows.
	// A row in state MaybeSent is among them, as InDoubt and until its deadline, only
	// if Recover put it there; the pool then retries it once if it is a one-time
	// code. Rows the pool already has are skipped, so limit must exceed what is
	// usually waiting.
	Queued(ctx context.Context, limit int) ([]Message, error)
	// Record makes e durable before it returns. Sending counts an attempt and claims
	// the message for this process, as long as the process calls Recover.
	// fault.Conflict means that the row cannot become that any more, because
	// somebody else finished or cancelled the message: the pool lets go of it.
	// Every other error is trouble, and the step is tried again.
	Record(ctx context.Context, e Event) error
	// Recover is called before anything else and then every Timing.Lease: it renews
	// this process's claims; what a process left in Sending that does so no more
	// becomes MaybeSent (or Cancelled), what is past its deadline Expired.
	Recover(ctx context.Context, now time.Time) ([]Event, error)
}

// Opener unwraps a message text; aad is the message identifier. Errors of kind
// Invalid, Denied, NotFound or Conflict fail the message, others postpone it.
type Opener interface {
	Unwrap(ctx context.Context, blob, aad []byte) ([]byte, error)
}

// BayConfig is one modem position: machine facts.
type BayConfig = bay.Place

// BayStatus is a bay for a page or a metric.
type BayStatus = bay.Status

// BayState is what a bay is doing.
type BayState = bay.State

// The bay states; see package bay.
const (
	Absent      = bay.Absent
	Starting    = bay.Starting
	NoNetwork   = bay.NoNetwork
	Ready       = bay.Ready
	Transacting = bay.Transacting
	Quarantined = bay.Quarantined
	NeedsHand   = bay.NeedsHand
	Held        = bay.Held
)

// Timing holds every wait. Zero fields take the default in parentheses; for some
// that is what the modem's profile says.
type Timing struct {
	Prompt     time.Duration // AT+CMGS to ">" (10 s)
	Hedge      time.Duration // Ctrl-Z to a second try of a one-time code elsewhere (12 s)
	Receipt    time.Duration // Ctrl-Z to doubt (profile, mostly 60 s)
	Listen     time.Duration // doubt to resynchronisation, listening for a late receipt (240 s)
	ListenOne  time.Duration // the same when the others cannot do without it (2 s)
	KeepAlive  time.Duration // idle check of signal and registration (30 s)
	Register   time.Duration // pause between looks for a network (5 s)
	Busy       time.Duration // how long a SIM may be busy at start (profile, mostly 60 s)
	Boot       time.Duration // how long a restarted modem is left alone (profile, mostly 30 s)
	Lost       time.Duration // without a network before something is done about it (90 s)
	Inbox      time.Duration // look for stored messages (5 min)
	RungRest   time.Duration // between two restarts of one modem by the same means (1 h)
	AlarmEvery time.Duration // between two alarms of one kind from one bay (1 h)
	ReopenMin  time.Duration // first pause before reopening a port (500 ms)
	ReopenMax  time.Duration // longest pause (30 s)
	Retry      time.Duration // first pause before a message meets the same modem again (2 s)
	Poll       time.Duration // safety look into the journal (5 s)
	Drain      time.Duration // what shutdown grants a transaction in progress (20 s)
	Record     time.Duration // bound of one Journal or Opener call (5 s)
	Lease      time.Duration // pause between renewals of this process's claims (10 s)
}

func (t Timing) withDefaults() Timing {
	for _, d := range []struct {
		field *time.Duration
		def   time.Duration
	}{
		{&t.Prompt, 10 * time.Second}, {&t.Hedge, 12 * time.Second},
		{&t.Listen, 240 * time.Second}, {&t.ListenOne, 2 * time.Second}, {&t.KeepAlive, 30 * time.Second},
		{&t.Register, 5 * time.Second}, {&t.ReopenMin, 500 * time.Millisecond},
		{&t.ReopenMax, 30 * time.Second}, {&t.Retry, 2 * time.Second}, {&t.Poll, 5 * time.Second},
		{&t.Drain, 20 * time.Second}, {&t.Record, 5 * time.Second}, {&t.Lease, 10 * time.Second},
		{&t.Lost, 90 * time.Second}, {&t.Inbox, 5 * time.Minute}, {&t.RungRest, time.Hour}, {&t.AlarmEvery, time.Hour},
	} {
		if *d.field <= 0 {
			*d.field = d.def
		}
	}
	return t
}

// Config builds a Pool. Journal, Opener, Log and at least one bay are required.
type Config struct {
	Bays        []BayConfig
	Journal     Journal
	Opener      Opener
	Log         *slog.Logger
	Now         func() time.Time // nil means time.Now
	Timing      Timing
	Accounts    Accounts      // nil: nothing is remembered over a restart, nobody opts out
	Budget      budget.Limits // of each card
	Caps        Caps
	Numbers     id.Numbering // who may get messages; zero: Italian mobiles
	MaxAttempts int          // refusals before a message fails (6)
	MaxParts    int          // parts of an alert or bulk text (4); a one-time code is always one
	QueueLimit  int          // rows held in memory (1000)
	// PINNotes is a folder for the notes of refused SIM PINs, so that a restart does
	// not spend another try; "" keeps them in memory only.
	PINNotes       string
	AllowSimulated bool // accept a modem whose manufacturer is SIMULATOR
	// OpenPort opens a bay's line; nil means modem/port. Tests replace it.
	OpenPort func(BayConfig) (at.Port, error)
	Profiles *profile.Set // nil means the built-in ones
	// Power returns the switch of a bay, nil when it has none. It may be nil.
	Power   func(bay string) bay.Power
	Forward Forward // may be nil
	// NewBay builds the bay of a place; nil means bay.New. Tests replace it.
	NewBay func(BayConfig, bay.Owner) Bay
}

func (c Config) validate() (Config, error) {
	bad := func(what string) (Config, error) {
		return Config{}, fault.Newf(fault.Invalid, "modem pool configuration", "%s", what)
	}
	if c.Journal == nil || c.Opener == nil || c.Log == nil || len(c.Bays) == 0 {
		return bad("journal, opener, log and a bay are required")
	}
	names, devices := map[string]bool{}, map[string]bool{}
	for _, b := range c.Bays {
		if b.Name == "" || b.Device == "" || names[b.Name] || devices[b.Device] {
			return bad("bay names and devices must be present and distinct")
		}
		names[b.Name], devices[b.Device] = true, true
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.OpenPort == nil {
		c.OpenPort = openSerial
	}
	c.Timing = c.Timing.withDefaults()
	c.Budget = c.Budget.WithDefaults()
	c.Caps = c.Caps.withDefaults()
	c.MaxAttempts = positive(c.MaxAttempts, 6)
	c.MaxParts = positive(c.MaxParts, 4)
	c.QueueLimit = positive(c.QueueLimit, 1000)
	if c.Profiles == nil {
		var err error
		if c.Profiles, err = profile.Parse("built in", nil); err != nil {
			return Config{}, err
		}
	}
	if c.NewBay == nil {
		c.NewBay = c.realBay
	}
	return c, nil
}

func positive(n, def int) int {
	if n > 0 {
		return n
	}
	return def
}

func openSerial(b BayConfig) (at.Port, error) {
	p, err := port.Open(port.Config{Device: b.Device, Baud: b.Baud, HardwareFlow: b.HardwareFlow})
	if err != nil {
		return nil, err // not p: a nil *Port in the interface would not be nil
	}
	return p, nil
}
