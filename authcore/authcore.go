// Package authcore is the login: who may pass, by which steps, with what proof.
//
// A [Flow] is one login in progress, from a verified AuthnRequest to the
// Response. Its rules are a pure state machine (machine.go: no I/O, no clock);
// [Login] drives it: it checks passwords, has codes issued and checked, asks for
// consent and has the Response signed, keeping the flow in a store so that any
// process (or the same one after a crash) can take the next step.
//
// It knows nothing of HTTP (authcore/web), of SMS, of the HSM or of SQL: those
// meet it in cmd/ through the small interfaces declared here.
package authcore

import (
	"context"
	"net/netip"
	"time"

	"custode/authcore/register"
	"custode/authcore/saml"
	"custode/internal/id"
)

// Step is where a flow stands: what the subject is asked next.
type Step uint8

// The steps, in order. Appended to, never renumbered: they are stored.
const (
	StepCredentials Step = 1 // username and password
	StepMethod      Step = 2 // which second factor
	StepCode        Step = 3 // the code received
	StepConsent     Step = 4 // attributes with values; authorise or refuse
	StepDone        Step = 5 // answered; nothing more is accepted
)

// Method is a second factor.
type Method uint8

// The methods. Appended to, never renumbered: they are stored.
const (
	MethodNone  Method = 0
	MethodSMS   Method = 1
	MethodToken Method = 2 // a code that a hardware device shows
	MethodApp   Method = 3 // a code that an app shows
	MethodPush  Method = 4 // a code that an app gets
)

// Flow is one login in progress. It is a value: the machine's functions take
// one and return the next.
type Flow struct {
	ID            id.FlowID
	Browser       [32]byte // SHA-256 of the browser's cookie secret
	Request       saml.Request
	SPName        map[string]string // OrganizationDisplayName by language at Begin
	Step          Step
	Started       time.Time
	Deadline      time.Time // Started + life time, under 10 minutes
	WrongPassword int       // wrong credentials in this flow
	WrongCode     int       // wrong codes in this flow, over all its challenges
	Subject       id.Subject
	Method        Method
	Challenge     id.ChallengeID
	CodesIssued   int
	Performed     saml.Level // zero until the level is reached
	Authenticated time.Time  // when it was reached; Resumed: when the session's subject did
	Session       string     // index of the browser session it is answered from; "": none
	Resumed       bool       // so no password was asked in this flow
	Outcome       saml.Code  // zero until StepDone
	Version       int64      // of the stored row; compare-and-swap
}

// State is the state of a digital identity (manual 9.2).
type State uint8

// The states. Revoked is final.
const (
	Active    State = 1
	Suspended State = 2
	Revoked   State = 3
)

// Identity is a digital identity with its level 1 credential.
type Identity struct {
	Subject    id.Subject
	Username   id.Username
	SPIDCode   id.SPIDCode
	Type       IdentityType
	State      State
	Reason     string            // why it is not active; for operators
	Phone      id.Phone          // verified mobile number; zero: no SMS credential
	Attributes map[string]string // SPID attribute name -> value, wire format
	Password   string            // see package passhash for the encoding; never the password
	Created    time.Time
	LastLogin  time.Time // zero: never
	Ways       []Way     // of level 2; Login fills it in, nobody stores it
}

// Flows keeps flows. Every write is durable before it returns.
type Flows interface {
	// CreateFlow stores a new flow with Version 1. fault.Conflict when the
	// request was answered before, fault.Exhausted when it began too many flows.
	CreateFlow(ctx context.Context, f Flow) error
	// Flow returns the stored flow; fault.NotFound.
	Flow(ctx context.Context, flow id.FlowID) (Flow, error)
	// SaveFlow replaces the row whose version is f.Version and stores
	// Version+1; fault.Conflict when somebody else was faster.
	SaveFlow(ctx context.Context, f Flow) error
	// FinishFlow does what SaveFlow does and, in the same transaction, claims
	// the request (SP, request ID) for this answer and keeps the record of the
	// transaction register. When a success is recorded it also sets the
	// identity's LastLogin. fault.Conflict when the flow moved or the request
	// was answered before, fault.Denied when a success is to be recorded for an
	// identity that is not active any more: then nothing may leave. It joins the
	// session of a.Joining; fault.Expired when that has ended.
	FinishFlow(ctx context.Context, f Flow, a Answered) error
}

// Answered is the transaction register's triple and index (technical rules,
// register of transactions; manual 12.1).
type Answered struct {
	SPIDCode id.SPIDCode // zero when no subject was identified
	Response saml.Signed
	At       time.Time
	Joining  *Joining // nil: the answer belongs to no session
	Floor    uint64   // records the certified register is known to hold, without this answer's
}

// Identities finds identities; fault.NotFound.
type Identities interface {
	IdentityByUsername(ctx context.Context, u id.Username) (Identity, error)
	Identity(ctx context.Context, s id.Subject) (Identity, error)
}

// Passwords judges typed passwords (passhash.Hasher).
type Passwords interface {
	// Check returns nil when stored was made of password for the subject. Else
	// fault.Denied: wrong, or nothing is stored, after the same work; fault.Busy: no capacity.
	Check(ctx context.Context, subject id.Subject, stored, password string) error
}

// Tallies counts failed passwords per key (a hash of a username or of a
// network); they survive a restart.
type Tallies interface {
	Tally(ctx context.Context, key [32]byte) (Tally, error) // zero Tally when unknown
	CountFailure(ctx context.Context, key [32]byte, now time.Time) (Tally, error)
	ClearTally(ctx context.Context, key [32]byte) error
}

// Tally is the failures counted for a key and the time of the last one.
type Tally struct {
	Failures int
	Last     time.Time
}

// Codes issues and checks one-time codes (otpvault).
type Codes interface {
	// Issue makes a code for (flow, subject), stores its challenge and, in the
	// same transaction, the message to the phone. service is the SP's name for
	// the message text. fault.Exhausted when the subject was sent too many.
	Issue(ctx context.Context, flow id.FlowID, subject id.Subject, to id.Phone, service string) (id.ChallengeID, error)
	// Verify returns nil exactly once for the right code, after it was burned
	// durably. Else: fault.Denied wrong (left > 0 attempts remain),
	// fault.Exhausted wrong and no attempt left, fault.Expired too late,
	// fault.Conflict used or replaced, fault.Invalid not six digits (not
	// counted), fault.NotFound unknown or of another flow or subject.
	Verify(ctx context.Context, challenge id.ChallengeID, flow id.FlowID, subject id.Subject, code string) (left int, err error)
}

// Deliveries tells how the message of a challenge fares, for the page.
type Deliveries interface {
	Delivery(ctx context.Context, challenge id.ChallengeID) (Delivery, error)
}

// Delivery is the state of the message that carries a code.
type Delivery uint8

// The delivery states a page distinguishes.
const (
	DeliveryUnknown   Delivery = 0
	DeliveryQueued    Delivery = 1 // accepted, waiting for a modem
	DeliverySent      Delivery = 2 // the network took it (receipt)
	DeliveryDelivered Delivery = 3 // the phone has it (report)
	DeliveryFailed    Delivery = 4 // it will not arrive
	DeliveryUncertain Delivery = 5 // it may have been sent
)

// Responses builds and signs Responses (saml.Issuer).
type Responses interface {
	Success(s saml.Statement, now time.Time) (saml.Signed, error)
	Anomaly(c saml.Code, to saml.Reply, now time.Time) (saml.Signed, error)
}

// Visitor is who sent an HTTP request, as far as the login cares.
type Visitor struct {
	Browser    [32]byte   // SHA-256 of the cookie secret; zero when there was no cookie
	Address    netip.Addr // peer address, for the network tally
	Agent      string     // User-Agent, for the security log
	Session    [32]byte   // SHA-256 of the session cookie's secret; zero for none
	NewSession [32]byte   // what Session will be if a session begins; zero: none can
}

// Answer is what the subject did on a page: exactly one of the Answer types.
type Answer interface{ answer() }

// The answers.
type (
	// PasswordAnswer is the credentials page.
	PasswordAnswer struct{ Username, Password string }
	// MethodAnswer chooses a second factor and has a code issued.
	MethodAnswer struct {
		Method Method
		Key    string // of the way
	}
	// OtherAnswer goes back from the code page to the choice of method.
	OtherAnswer struct{}
	// ResendAnswer asks for a new code by the same method.
	ResendAnswer struct{}
	// CodeAnswer is the code page.
	CodeAnswer struct{ Code string }
	// ConsentAnswer authorises the sending of the attributes.
	ConsentAnswer struct{}
	// RefuseAnswer refuses consent (anomaly 22).
	RefuseAnswer struct{}
	// CancelAnswer cancels the login (anomaly 25), at any step, the consent
	// page included.
	CancelAnswer struct{}
)

func (PasswordAnswer) answer() {}
func (MethodAnswer) answer()   {}
func (OtherAnswer) answer()    {}
func (ResendAnswer) answer()   {}
func (CodeAnswer) answer()     {}
func (ConsentAnswer) answer()  {}
func (RefuseAnswer) answer()   {}
func (CancelAnswer) answer()   {}

// Notice is what a page must tell about the previous answer.
type Notice uint8

// The notices.
const (
	NoticeNone             Notice = 0
	NoticeWrongCredentials Notice = 1 // wrong username or password, not which: View.AttemptsLeft
	NoticeWait             Notice = 2 // too many failures: View.RetryAfter
	NoticeWrongCode        Notice = 3 // View.AttemptsLeft
	NoticeExpiredCode      Notice = 4 // ask for a new one
	NoticeUsedCode         Notice = 5 // used or replaced: ask for a new one
	NoticeMalformedCode    Notice = 6 // not View.Way.Digits digits; not counted
	NoticeCodeSent         Notice = 7
	NoticeTooManyCodes     Notice = 8  // no more messages for now
	NoticeBusy             Notice = 9  // overload: try again in a moment
	NoticeRepeatedCode     Notice = 10 // of the device, but it was used: wait for the next one; View.AttemptsLeft
	NoticeBlockedMethod    Notice = 11 // choose another one
)

// View is all that the page of the current step shows.
type View struct {
	Flow         id.FlowID
	Step         Step
	SP           id.EntityID
	SPName       map[string]string // by language
	Level        saml.Level        // that will be performed
	Deadline     time.Time
	Notice       Notice
	RetryAfter   time.Duration // with NoticeWait
	AttemptsLeft int           // with NoticeWrongCode, NoticeRepeatedCode and NoticeWrongCredentials
	Ways         []Way         // StepMethod
	Way          Way           // StepCode, StepConsent at level 2
	CanChange    bool          // StepCode: there is another way
	Delivery     Delivery      // StepCode
	CanResend    bool          // StepCode, for codes that are sent
	Attributes   []saml.Attribute
	LastLogin    time.Time // StepConsent; zero: first login
	Resumed      bool      // StepConsent: no password was asked, a session is open
}

// Outcome is the result of an answer: either the next page or a Response.
type Outcome struct {
	View     *View
	Response *saml.Signed
	Proof    register.Proof // that Response is in the register; without it nothing may leave
	// What the page that hands the Response over shows besides; see View.
	SPName map[string]string
	Level  saml.Level
	// SessionBegan: the browser is to keep the cookie of Visitor.NewSession.
	SessionBegan bool
}
