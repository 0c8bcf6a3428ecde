package authcore

import (
	"context"
	"time"

	"custode/authcore/saml"
	"custode/internal/fault"
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
	Credentials   []string    // that reached it: password, sms, session
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

// Incident is something that went wrong for a visitor, or that a visitor did
// wrong. It never holds a secret, nor what somebody typed.
type Incident struct {
	What    Happening
	Visitor Visitor
	Flow    id.FlowID
	Subject id.Subject
	SP      id.EntityID
	Request string
	Code    saml.Code
	Detail  string // for operators; at most 300 octets are kept
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
	NotRecorded    Happening = "not-recorded" // a Response that did not leave because the register failed
)

// visitorKey carries the Visitor of a call to where an incident is noted.
type visitorKey struct{}

func withVisitor(ctx context.Context, v Visitor) context.Context {
	return context.WithValue(ctx, visitorKey{}, v)
}

func (l *Login) note(ctx context.Context, i Incident) {
	i.Visitor, _ = ctx.Value(visitorKey{}).(Visitor)
	l.watch.Note(ctx, i)
}

// ready is nil when the register takes records. The error ends with anomaly 3.
func (l *Login) ready(op string) (uint64, error) {
	records, err := l.register.Ready()
	if err != nil {
		return 0, fault.New(fault.Internal, op, err)
	}
	return records, nil
}

// record has the transaction kept, whoever hung up meanwhile. The error ends
// with anomaly 3.
func (l *Login) record(ctx context.Context, op string, t Transaction) (Proof, error) {
	ctx, cancel := settle(ctx)
	defer cancel()
	p, err := l.register.Record(ctx, t)
	if err == nil && !Proved(p) {
		err = fault.Newf(fault.Internal, op, "the register gave no proof")
	}
	if err != nil {
		l.log.ErrorContext(ctx, "response not recorded: it does not leave", "request", t.RequestID, "sp", t.SP.String(), "response", t.Response.ID, "error", err)
		l.note(ctx, Incident{What: NotRecorded, SP: t.SP, Request: t.RequestID, Code: t.Response.Code})
		return nil, fault.New(fault.Internal, op, err)
	}
	return p, nil
}

// transaction is what the register keeps of a finished flow.
func (f Flow) transaction(who Identity, signed saml.Signed, at time.Time) Transaction {
	t := Transaction{At: at, SPIDCode: who.SPIDCode, Level: f.Performed, SP: f.Request.SP, SPName: f.spName(), Requested: f.Request.Attributes,
		RequestID: f.Request.ID, RequestIssued: f.Request.IssueInstant, Request: f.Request.Raw, Response: signed}
	switch {
	case f.Performed == 0:
	case f.Resumed:
		t.Credentials = []string{"session"}
	case f.Performed == saml.L1:
		t.Credentials = []string{"password"}
	default:
		t.Credentials = []string{"password", "sms"}
	}
	return t
}
