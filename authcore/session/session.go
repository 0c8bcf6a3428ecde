// Package session is browser single sign-on and single logout: how long a
// [authcore.Session] may be used, and what happens when it ends (implementing
// regulation, art. 28; SPID Avviso 3; technical rules, single logout).
//
// A session begins and is joined by logins (authcore, in the transaction that
// records the answer); here it is found again, within its idle and absolute
// limits, and ended: by the person on the session page, by a LogoutRequest of an
// SP that took part, or by time. An end by a person or an SP closes the session
// first, durably, and then becomes a [Logout]: each other SP is told once, those
// with a SOAP endpoint directly, the others through the browser, one after the
// other; the SP that asked is answered last. A Logout is kept in the store after
// every step, so that any process can go on with it and a service provider that
// does not answer stops nothing.
//
// It knows no HTTP server (authcore/web), no XML (authcore/saml/logout) and no
// SQL; what goes out directly goes through a [Channel]. Imported by authcore/web,
// internal/store and cmd/custode.
package session

import (
	"context"
	"io"
	"log/slog"
	"time"

	"custode/authcore"
	"custode/authcore/lanes"
	"custode/authcore/register"
	"custode/authcore/saml"
	"custode/authcore/saml/logout"
	"custode/internal/fault"
	"custode/internal/id"
)

// Record is a stored session.
type Record struct {
	Index         string // SessionIndex; the key
	Subject       id.Subject
	Authenticated time.Time // the original event
	Created       time.Time
	Used          time.Time // last answer given; never moves back
	Ended         time.Time // zero while open
}

// Participant is an SP that was sent an assertion of a session.
type Participant struct {
	SP     id.EntityID
	NameID string
	Names  map[string]string // OrganizationDisplayName by language
	Joined time.Time
}

// State is how far telling one SP has come.
type State uint8

// The states. Appended to, never renumbered: they are stored.
const (
	Waiting State = 1 // not told yet
	Sent    State = 2 // the browser was sent there and has not come back
	Done    State = 3 // it confirmed
	Failed  State = 4 // it refused, could not be reached or was passed over
)

// Part is one SP to be told.
type Part struct {
	SP      id.EntityID
	Names   map[string]string
	NameID  string
	Binding saml.Binding // how: SOAP, Redirect or Post; 0: it has no usable endpoint
	Request string       // identifier of the LogoutRequest
	State   State
}

// Initiator is the SP that asked for a logout and waits for the answer.
type Initiator struct {
	SP            id.EntityID // zero: the person asked us
	Request       string      // identifier of its LogoutRequest
	Binding       saml.Binding
	Silent        bool // it wants no answer
	RelayState    string
	HasRelayState bool
}

// Logout is the end of one session being told. It is a value.
type Logout struct {
	ID        id.LogoutID
	Version   int64    // of the stored row; compare-and-swap
	Session   string   // index of the session that ended
	Browser   [32]byte // SHA-256 of the browser's cookie secret; zero: over SOAP
	Deadline  time.Time
	Initiator Initiator
	Parts     []Part
}

// Records keeps sessions; fault.NotFound. They are written by the store's
// FinishFlow.
type Records interface {
	SessionByCookie(ctx context.Context, cookie [32]byte) (Record, error)
	// SessionByName finds the session in which the SP was given the NameID.
	SessionByName(ctx context.Context, sp id.EntityID, nameID string) (Record, error)
	// Participants lists who took part, in the order they joined.
	Participants(ctx context.Context, index string) ([]Participant, error)
}

// Logouts keeps logouts. Every write is durable before it returns.
type Logouts interface {
	// EndSession ends the session and stores the logout, if its ID is not zero,
	// as Version 1, in one transaction. fault.Conflict when it had ended.
	EndSession(ctx context.Context, index string, at time.Time, l Logout) error
	Logout(ctx context.Context, l id.LogoutID) (Logout, error)           // fault.NotFound
	LogoutOfSession(ctx context.Context, index string) (Logout, error)   // fault.NotFound
	LogoutOfRequest(ctx context.Context, request string) (Logout, error) // by Part.Request; fault.NotFound
	// SaveLogout replaces the row whose version is l.Version; fault.Conflict.
	SaveLogout(ctx context.Context, l Logout) error
}

// Messages builds signed logout messages (logout.Issuer).
type Messages interface {
	NewID() (string, error)
	Request(to saml.Endpoint, e logout.Ended, now time.Time) (logout.Message, error)
	Response(to saml.Endpoint, r logout.Reply, now time.Time) (logout.Message, error)
}

// Answers verifies what an SP answers over SOAP (logout.Reader).
type Answers interface {
	SOAPAnswer(envelope []byte, now time.Time) (logout.Verified, error)
}

// Channel carries a SOAP envelope to a location of an SP's metadata and brings
// the answer's body.
type Channel interface {
	Send(ctx context.Context, location string, envelope []byte) ([]byte, error)
}

// Identities finds identities; fault.NotFound.
type Identities interface {
	Identity(ctx context.Context, s id.Subject) (authcore.Identity, error)
}

// Policy holds the numbers. A zero field takes its default.
type Policy struct {
	Idle     time.Duration // since the last answer: default 30 minutes, 1 minute to 24 hours
	Absolute time.Duration // since the beginning: default 2 hours, at least Idle, at most 24 hours
	PerSP    time.Duration // for one SP's answer over SOAP: default 4 s, 100 ms to 10 s
	Total    time.Duration // for all SPs over SOAP: default 10 s, at least PerSP, at most 15 s
}

// complete fills in the defaults and checks the ranges.
func (p Policy) complete() (Policy, error) {
	for _, n := range []struct {
		name                string
		value               *time.Duration
		normal, least, most time.Duration
	}{
		{"idle limit", &p.Idle, 30 * time.Minute, time.Minute, 24 * time.Hour},
		{"absolute limit", &p.Absolute, 2 * time.Hour, time.Minute, 24 * time.Hour},
		{"time for one service provider", &p.PerSP, 4 * time.Second, 100 * time.Millisecond, 10 * time.Second},
		{"time for all service providers", &p.Total, 10 * time.Second, 100 * time.Millisecond, 15 * time.Second},
	} {
		if *n.value == 0 {
			*n.value = n.normal
		}
		if *n.value < n.least || *n.value > n.most {
			return p, fault.Newf(fault.Invalid, "read session policy", "%s %v is not %v to %v", n.name, *n.value, n.least, n.most)
		}
	}
	if p.Absolute < p.Idle || p.Total < p.PerSP {
		return p, fault.Newf(fault.Invalid, "read session policy", "the wider limit is the shorter one")
	}
	return p, nil
}

// Config is what New needs. Everything but Policy is required.
type Config struct {
	Records    Records
	Logouts    Logouts
	Ends       Ends
	Watch      register.Watch // the security log: each session's end
	Identities Identities
	SPs        saml.SPs // where to tell them
	Messages   Messages
	Answers    Answers
	Channel    Channel
	Random     io.Reader        // logout identifiers
	Now        func() time.Time // wall clock
	Log        *slog.Logger     // the audit lines of each session's end; never a secret
	Policy     Policy
}

// Sessions finds and ends sessions. Between calls it keeps turns only: any
// process with the same store can take the next step. Safe for concurrent use.
type Sessions struct {
	Config
	turns    *lanes.Lanes // by logout
	nothings *lanes.Lanes // one key: answers to requests that end nothing
}

// waitPerLogout: the impatient reload a page that is slow.
const waitPerLogout = 4

// New checks the configuration; fault.Invalid.
func New(c Config) (*Sessions, error) {
	if c.Records == nil || c.Logouts == nil || c.Ends == nil || c.Watch == nil || c.Identities == nil || c.SPs == nil || c.Messages == nil || c.Answers == nil ||
		c.Channel == nil || c.Random == nil || c.Now == nil || c.Log == nil {
		return nil, fault.Newf(fault.Invalid, "configure sessions", "a required part is missing")
	}
	var err error
	if c.Policy, err = c.Policy.complete(); err != nil {
		return nil, err
	}
	return &Sessions{Config: c, turns: lanes.New(waitPerLogout), nothings: lanes.New(waitToAnswer)}, nil
}

// clockSlack is how far the clock may be behind what a session has seen already:
// nodes differ by less. Beyond that the clock was set back, and a session must
// not be lengthened by it.
const clockSlack = 2 * time.Minute

// open reports whether the session may be used at now.
func (p Policy) open(r Record, now time.Time) bool {
	return r.Ended.IsZero() && now.Sub(r.Created) < p.Absolute && now.Sub(r.Used) < p.Idle && r.Used.Sub(now) <= clockSlack
}

// Current implements authcore.Sessions.
func (s *Sessions) Current(ctx context.Context, cookie [32]byte) (authcore.Session, error) {
	r, err := s.byCookie(ctx, cookie)
	if err != nil {
		return authcore.Session{}, err
	}
	return authcore.Session{Index: r.Index, Subject: r.Subject, Authenticated: r.Authenticated}, nil
}

func (s *Sessions) byCookie(ctx context.Context, cookie [32]byte) (Record, error) {
	const op = "find session"
	if cookie == [32]byte{} {
		return Record{}, fault.Newf(fault.NotFound, op, "no cookie")
	}
	r, err := s.Records.SessionByCookie(ctx, cookie)
	if err != nil {
		return Record{}, err
	}
	if !s.Policy.open(r, s.Now()) {
		return Record{}, fault.Newf(fault.NotFound, op, "it has ended")
	}
	return r, nil
}

// View is what the session page shows.
type View struct {
	Name  string // of the person
	Since time.Time
	Until time.Time // the latest moment it can be used without a further login
	SPs   []Participant
}

// View describes the session of the browser with that cookie. fault.NotFound
// when there is none.
func (s *Sessions) View(ctx context.Context, cookie [32]byte) (View, error) {
	r, err := s.byCookie(ctx, cookie)
	if err != nil {
		return View{}, err
	}
	who, err := s.Identities.Identity(ctx, r.Subject)
	if err != nil {
		return View{}, fault.New(fault.Internal, "read subject of session", err)
	}
	v := View{Name: who.Name(), Since: r.Authenticated, Until: r.Used.Add(s.Policy.Idle)}
	if end := r.Created.Add(s.Policy.Absolute); end.Before(v.Until) {
		v.Until = end
	}
	if v.SPs, err = s.participants(ctx, r.Index); err != nil {
		return View{}, err
	}
	return v, nil
}

// participants returns each SP once, with its latest NameID: a login at an SP
// replaces the one before.
func (s *Sessions) participants(ctx context.Context, index string) ([]Participant, error) {
	all, err := s.Records.Participants(ctx, index)
	if err != nil {
		return nil, err
	}
	var each []Participant
	at := map[id.EntityID]int{}
	for _, p := range all {
		if i, seen := at[p.SP]; seen {
			each[i] = p
			continue
		}
		at[p.SP] = len(each)
		each = append(each, p)
	}
	return each, nil
}
