// Package otpvault issues and checks one-time codes. Today it knows one kind:
// six decimal digits sent by SMS, the second factor of SPID level 2.
//
// A [Vault] draws the code from the HSM's random numbers and keeps it only as a
// MAC made by an HSM key over (purpose, challenge, flow, subject, code): whoever
// reads the store cannot try the million codes without the HSM, and a MAC copied
// to another challenge, flow or subject fits nothing. The message text, which
// holds the code in clear, is wrapped by the HSM before it reaches the store and
// is opened again only by the sender of the message.
//
// A code is good for one success. The attempt is counted durably before the
// code is compared, and the challenge is burned durably before success is told,
// so that neither a crash nor a second process can lend anybody one more try or
// one more success.
//
// It is not a sender (package modem), not a store (internal/store implements
// [Store]) and not a policy: who may be sent a code and what a wrong one leads
// to is decided by authcore. It may be imported by cmd and internal/store; it
// imports internal/id, internal/fault and the standard library only.
package otpvault

import (
	"context"
	"io"
	"log/slog"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
)

// The defaults of a zero Config field.
const (
	DefaultLifetime = 5 * time.Minute
	DefaultAttempts = 3
	DefaultMessages = 5 // in DefaultWindow, to one subject
	DefaultWindow   = 10 * time.Minute
	// DefaultTemplate is in the GSM default alphabet; the code comes first so
	// that it can be read from a locked phone's preview.
	DefaultTemplate = "{code} è il codice SPID per accedere a {service}. Vale {minutes} minuti. Non comunicarlo a nessuno, nemmeno per telefono."
)

// MAC computes a message authentication code by a key that stays in the HSM. It
// must return at least 16 octets, the same for the same data.
type MAC interface {
	MAC(ctx context.Context, data []byte) ([]byte, error)
}

// Wrapper encrypts and authenticates by a key that stays in the HSM.
type Wrapper interface {
	Wrap(ctx context.Context, plaintext, aad []byte) ([]byte, error)
}

// Challenge is an issued code as the store keeps it.
type Challenge struct {
	ID      id.ChallengeID
	Flow    id.FlowID
	Subject id.Subject
	Message id.MessageID // that carries the code
	MAC     []byte       // of the code; see code.go for its input
	Left    int          // attempts that remain
	Created time.Time
	Expires time.Time // exclusive: at this instant it is too late
}

// Message is the SMS that carries a code. Wrapped is the UTF-8 text, every
// character of it in the GSM default alphabet, wrapped with the message
// identifier's text as additional authenticated data.
type Message struct {
	ID      id.MessageID
	To      id.Phone
	Wrapped []byte
	Created time.Time
	Expires time.Time // sending it later serves nobody
}

// Limit bounds the messages to one subject: fewer than Messages issued during
// the Window that ends now, or no further one is issued.
type Limit struct {
	Messages int
	Window   time.Duration
}

// Store keeps challenges. Every method is one transaction that is durable when
// it returns nil, and is safe against other processes on the same data.
type Store interface {
	// IssueChallenge checks the limit (fault.Exhausted), retires the open
	// challenges of the same flow, cancels their messages as far as these have not
	// left (a worthless code must not arrive after the good one), and inserts the
	// challenge and the message, queued for sending.
	IssueChallenge(ctx context.Context, c Challenge, m Message, l Limit) error
	// TakeAttempt takes one attempt off an open challenge and returns it, Left
	// being what remains after this one. fault.NotFound when it is unknown or of
	// another flow or subject, fault.Conflict when burned or retired,
	// fault.Exhausted when no attempt was left, fault.Expired.
	TakeAttempt(ctx context.Context, c id.ChallengeID, f id.FlowID, s id.Subject, now time.Time) (Challenge, error)
	// BurnChallenge closes an open challenge for good and cancels what has not left
	// of its message; fault.Conflict when it is not open (any more).
	BurnChallenge(ctx context.Context, c id.ChallengeID, now time.Time) error
}

// Config is what a Vault needs. MAC, Wrapper, Random, Store and Now are
// required; a zero Lifetime, Attempts, Limit or Template means the default.
type Config struct {
	MAC     MAC
	Wrapper Wrapper
	Random  io.Reader // the HSM's generator: codes and identifiers come from it
	Store   Store
	Now     func() time.Time
	Log     *slog.Logger // optional; sees identifiers only

	Lifetime time.Duration // of a code: whole minutes, 1 to 30
	Attempts int           // per challenge, 1 to 10
	Limit    Limit         // per subject
	// Template is the message text with {code} once, {service} at most once and
	// {minutes} at most once.
	Template string
	// Admit, when not nil, is asked before a code is made whether a message to the
	// number can leave within the life of a code. fault.Exhausted and fault.Busy
	// refuse it; of every other error only the kind of trouble remains.
	Admit func(ctx context.Context, to id.Phone, life time.Duration) error
	// Accepted, when not nil, is called after a message was stored: it wakes the
	// sender. It must not block.
	Accepted func()
}

// Vault issues and checks codes. It is safe for concurrent use and keeps no
// state of its own.
type Vault struct {
	cfg  Config
	text template
	log  *slog.Logger
}

// New checks the configuration, including that the longest text the template
// can give is one SMS. It fails with fault.Invalid.
func New(cfg Config) (*Vault, error) {
	const op = "configure one-time codes"
	if cfg.MAC == nil || cfg.Wrapper == nil || cfg.Random == nil || cfg.Store == nil || cfg.Now == nil {
		return nil, fault.Newf(fault.Invalid, op, "MAC, wrapper, random source, store and clock are all required")
	}
	if cfg.Lifetime == 0 {
		cfg.Lifetime = DefaultLifetime
	}
	if cfg.Attempts == 0 {
		cfg.Attempts = DefaultAttempts
	}
	if cfg.Limit == (Limit{}) {
		cfg.Limit = Limit{Messages: DefaultMessages, Window: DefaultWindow}
	}
	if cfg.Template == "" {
		cfg.Template = DefaultTemplate
	}
	switch {
	case cfg.Lifetime%time.Minute != 0 || cfg.Lifetime < time.Minute || cfg.Lifetime > 30*time.Minute:
		return nil, fault.Newf(fault.Invalid, op, "life time %v is not 1 to 30 whole minutes", cfg.Lifetime)
	case cfg.Attempts < 1 || cfg.Attempts > 10:
		return nil, fault.Newf(fault.Invalid, op, "%d attempts are not 1 to 10", cfg.Attempts)
	case cfg.Limit.Messages < 1 || cfg.Limit.Window <= 0 || cfg.Limit.Window > 24*time.Hour:
		return nil, fault.Newf(fault.Invalid, op, "limit of %d messages in %v: want at least 1 in at most 24 hours", cfg.Limit.Messages, cfg.Limit.Window)
	}
	text, err := parseTemplate(cfg.Template, int(cfg.Lifetime/time.Minute))
	if err != nil {
		return nil, err
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Vault{cfg: cfg, text: text, log: log}, nil
}
