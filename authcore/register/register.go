// Package register is the words by which the login speaks to the certified
// register and the security log: what a transaction and an incident are, and the
// proof without which no Response leaves. It has no code to run: internal/journal
// keeps what is said here, authcore and authcore/web say it.
package register

import (
	"context"
	"net/netip"
	"time"

	"custode/authcore/saml"
	"custode/internal/id"
)

// Register is the certified register of transactions (manual, 12.1): what is in
// it can be proved for ever, and no Response leaves that is not in it.
type Register interface {
	// Ready returns how many records it is known to hold, or why it takes none now.
	Ready() (records uint64, err error)
	// Record keeps the transaction durably before it returns.
	Record(ctx context.Context, t Transaction) (Proof, error)
}

// Proof says that a transaction is in the register. Only a Register makes one
// that is not zero.
type Proof interface {
	IsZero() bool
	String() string // log, number and hash of the record
}

// Proved reports whether p proves anything.
func Proved(p Proof) bool { return p != nil && !p.IsZero() }

// Transaction is a request and the Response to it, success or not.
type Transaction struct {
	At            time.Time
	SPIDCode      id.SPIDCode // zero when no subject was identified
	Level         saml.Level  // performed; zero: none
	Credentials   []string    // that reached it: password, sms, otp-token, otp-app, otp-push, session
	SP            id.EntityID // issuer of the request
	SPName        string
	Requested     []string // names of attributes
	RequestID     string   // "" when the request had no usable one
	RequestIssued time.Time
	Request       []byte // the document as received
	Response      saml.Signed
}

// Watch keeps incidents in the security log. It may wait for the disk, within
// a bound, and never fails its caller.
type Watch interface {
	Note(ctx context.Context, i Incident)
}

// Incident is something that went wrong for a visitor, that a visitor did wrong, or
// the end of a session. It never holds a secret, nor what somebody typed.
type Incident struct {
	What    Happening
	Address netip.Addr
	Agent   string // User-Agent
	Flow    id.FlowID
	Subject id.Subject
	SP      id.EntityID
	Request string
	Code    saml.Code
	Detail  string // for operators; at most 1000 octets are kept
}

// Happening is the kind of an Incident.
type Happening string

// The happenings.
const (
	PasswordWrong  Happening = "password-wrong"
	CodeWrong      Happening = "code-wrong"
	CodesBlocked   Happening = "codes-blocked"
	LoginFailed    Happening = "login-failed" // Code says how
	RequestRefused Happening = "request-refused"
	FlowDenied     Happening = "flow-denied" // a flow asked for by another browser
	LogoutRefused  Happening = "logout-refused"
	AppRefused     Happening = "app-refused"   // the activation of an OATH app
	SessionEnded   Happening = "session-ended" // no failure: by the subject, a service provider, or time
	LogoutTold     Happening = "logout-told"   // what came of telling the others of it
	NotRecorded    Happening = "not-recorded"  // a Response that did not leave because the register failed
)
