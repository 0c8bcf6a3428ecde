package authcore

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"custode/authcore/passhash"
	"custode/authcore/register"
	"custode/authcore/saml"
	"custode/internal/fault"
	"custode/internal/id"
)

// memory is an in-process store that keeps the contracts of Flows, Identities
// and Tallies: versions are compared, requests are claimed once.
type memory struct {
	mu       sync.Mutex
	flows    map[id.FlowID]Flow
	claimed  map[string]bool
	register []Answered
	ended    []Flow
	people   map[id.Subject]Identity
	tally    map[[32]byte]Tally
	calls    map[string]int
	early    func() // called inside FinishFlow, before it looks
	total    int
	failAt   int // the call, counted from 1, that fails once; 0: none
}

func newMemory() *memory {
	return &memory{flows: map[id.FlowID]Flow{}, claimed: map[string]bool{}, people: map[id.Subject]Identity{},
		tally: map[[32]byte]Tally{}, calls: map[string]int{}}
}

// called counts and locks; the caller unlocks.
func (m *memory) called(name string) func() {
	m.mu.Lock()
	m.calls[name]++
	return m.mu.Unlock
}

// failing fails the call failAt. A failed write did not happen.
func (m *memory) failing(ctx context.Context, name string) error {
	if ctx.Err() != nil {
		return fault.New(fault.Unavailable, name, ctx.Err())
	}
	if m.total++; m.total == m.failAt {
		return fault.Newf(fault.Unavailable, name, "store down")
	}
	return nil
}

func (m *memory) CreateFlow(ctx context.Context, f Flow) error {
	defer m.called("CreateFlow")()
	if err := m.failing(ctx, "CreateFlow"); err != nil {
		return err
	}
	if _, ok := m.flows[f.ID]; ok {
		return fault.Newf(fault.Conflict, "create flow", "exists")
	}
	if m.claimed[f.Request.SP.String()+" "+f.Request.ID] {
		return fault.Newf(fault.Conflict, "create flow", "request answered")
	}
	f.Version = 1
	m.flows[f.ID] = f
	return nil
}

func (m *memory) Flow(ctx context.Context, flow id.FlowID) (Flow, error) {
	defer m.called("Flow")()
	if err := m.failing(ctx, "Flow"); err != nil {
		return Flow{}, err
	}
	f, ok := m.flows[flow]
	if !ok {
		return Flow{}, fault.Newf(fault.NotFound, "read flow", "unknown")
	}
	return f, nil
}

func (m *memory) SaveFlow(ctx context.Context, f Flow) error {
	defer m.called("SaveFlow")()
	if err := m.failing(ctx, "SaveFlow"); err != nil {
		return err
	}
	return m.save(f)
}

func (m *memory) save(f Flow) error {
	if m.flows[f.ID].Version != f.Version {
		return fault.Newf(fault.Conflict, "save flow", "moved")
	}
	f.Version++
	m.flows[f.ID] = f
	return nil
}

func (m *memory) FinishFlow(ctx context.Context, f Flow, a Answered) error {
	defer m.called("FinishFlow")()
	if err := m.failing(ctx, "FinishFlow"); err != nil {
		return err
	}
	key := f.Request.SP.String() + " " + f.Request.ID
	if m.claimed[key] {
		return fault.Newf(fault.Conflict, "finish flow", "request answered")
	}
	if m.early != nil {
		m.early()
	}
	if f.Outcome == saml.Success && m.people[f.Subject].State != Active {
		return fault.Newf(fault.Denied, "finish flow", "not active")
	}
	if err := m.save(f); err != nil {
		return err
	}
	m.claimed[key] = true
	m.register = append(m.register, a)
	m.ended = append(m.ended, f)
	if f.Outcome == saml.Success {
		who := m.people[f.Subject]
		who.LastLogin = a.At
		m.people[f.Subject] = who
	}
	return nil
}

func (m *memory) IdentityByUsername(ctx context.Context, u id.Username) (Identity, error) {
	defer m.called("IdentityByUsername")()
	if err := m.failing(ctx, "IdentityByUsername"); err != nil {
		return Identity{}, err
	}
	for _, who := range m.people {
		if who.Username == u {
			return who, nil
		}
	}
	return Identity{}, fault.Newf(fault.NotFound, "read identity", "unknown")
}

func (m *memory) Identity(ctx context.Context, s id.Subject) (Identity, error) {
	defer m.called("Identity")()
	if err := m.failing(ctx, "Identity"); err != nil {
		return Identity{}, err
	}
	who, ok := m.people[s]
	if !ok {
		return Identity{}, fault.Newf(fault.NotFound, "read identity", "unknown")
	}
	return who, nil
}

func (m *memory) Tally(ctx context.Context, key [32]byte) (Tally, error) {
	defer m.called("Tally")()
	if err := m.failing(ctx, "Tally"); err != nil {
		return Tally{}, err
	}
	return m.tally[key], nil
}

func (m *memory) CountFailure(ctx context.Context, key [32]byte, now time.Time) (Tally, error) {
	defer m.called("CountFailure")()
	if err := m.failing(ctx, "CountFailure"); err != nil {
		return Tally{}, err
	}
	t := m.tally[key]
	t.Failures++
	t.Last = now
	m.tally[key] = t
	return t, nil
}

func (m *memory) ClearTally(ctx context.Context, key [32]byte) error {
	defer m.called("ClearTally")()
	if err := m.failing(ctx, "ClearTally"); err != nil {
		return err
	}
	delete(m.tally, key)
	return nil
}

func (m *memory) put(who Identity) {
	defer m.called("put")()
	m.people[who.Subject] = who
}

func (m *memory) finished() ([]Flow, []Answered) {
	defer m.called("finished")()
	return append([]Flow(nil), m.ended...), append([]Answered(nil), m.register...)
}

// vault issues the code rightCode and keeps the contract of Codes.
type vault struct {
	mu       sync.Mutex
	issued   map[id.ChallengeID]*issue
	attempts int
	refuse   error // of Issue
	broken   error // of Verify
	service  string
	delivery Delivery
}

type issue struct {
	flow    id.FlowID
	subject id.Subject
	left    int
	closed  bool
	expired bool
}

const rightCode = "314159"

func (v *vault) Issue(_ context.Context, flow id.FlowID, subject id.Subject, to id.Phone, service string) (id.ChallengeID, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.refuse != nil {
		return id.ChallengeID{}, v.refuse
	}
	if to.IsZero() {
		return id.ChallengeID{}, fault.Newf(fault.Invalid, "issue", "no phone")
	}
	for _, old := range v.issued {
		if old.flow == flow {
			old.closed = true
		}
	}
	c, err := id.NewChallengeID(rand.Reader)
	v.issued[c], v.service = &issue{flow: flow, subject: subject, left: v.attempts}, service
	return c, err
}

func (v *vault) Verify(_ context.Context, c id.ChallengeID, flow id.FlowID, subject id.Subject, code string) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	is := v.issued[c]
	if v.broken != nil {
		return 0, v.broken
	}
	switch {
	case is == nil || is.flow != flow || is.subject != subject:
		return 0, fault.Newf(fault.NotFound, "verify", "unknown")
	case len(code) != 6:
		return is.left, fault.Newf(fault.Invalid, "verify", "not six digits")
	case is.closed:
		return 0, fault.Newf(fault.Conflict, "verify", "used")
	case is.expired:
		return 0, fault.Newf(fault.Expired, "verify", "late")
	case code == rightCode:
		is.closed = true
		return is.left, nil
	}
	if is.left--; is.left == 0 {
		is.closed = true
		return 0, fault.Newf(fault.Exhausted, "verify", "wrong")
	}
	return is.left, fault.Newf(fault.Denied, "verify", "wrong")
}

func (v *vault) Delivery(context.Context, id.ChallengeID) (Delivery, error) { return v.delivery, nil }

// signer makes Responses of their bare facts.
type signer struct {
	made       atomic.Int64
	mu         sync.Mutex
	statements []saml.Statement
	fail       error
	gate       func()
	lie        bool // say success whatever was asked for
}

func (s *signer) Success(st saml.Statement, now time.Time) (saml.Signed, error) {
	if s.gate != nil {
		s.gate()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.statements = append(s.statements, st)
	return s.signed(saml.Success, st.Request.Reply(), now)
}

func (s *signer) Anomaly(c saml.Code, to saml.Reply, now time.Time) (saml.Signed, error) {
	if s.gate != nil {
		s.gate()
	}
	return s.signed(c, to, now)
}

func (s *signer) signed(c saml.Code, to saml.Reply, now time.Time) (saml.Signed, error) {
	if s.fail != nil {
		return saml.Signed{}, s.fail
	}
	if s.lie {
		c = saml.Success
	}
	return saml.Signed{Code: c, ID: fmt.Sprintf("_r%d", s.made.Add(1)), ACS: to.ACS, IssueInstant: now,
		RelayState: to.RelayState, HasRelayState: to.HasRelayState}, nil
}

// pepper is HMAC in software; gate, when set, is called before each answer.
type pepper struct {
	calls atomic.Int64
	gate  func()
	fail  error
}

func (p *pepper) MAC(_ context.Context, data []byte) ([]byte, error) {
	p.calls.Add(1)
	if p.gate != nil {
		p.gate()
	}
	if p.fail != nil {
		return nil, p.fail
	}
	m := hmac.New(sha256.New, []byte("test pepper"))
	m.Write(data)
	return m.Sum(nil), nil
}

// hasher counts the hashes of a real one; full, when set, has no capacity.
type hasher struct {
	*passhash.Hasher
	count *atomic.Int64
	full  *atomic.Bool
}

func (h hasher) Check(ctx context.Context, s id.Subject, stored, password string) error {
	if h.full.Load() {
		return fault.Newf(fault.Busy, "check", "full")
	}
	h.count.Add(1)
	return h.Hasher.Check(ctx, s, stored, password)
}

func (h hasher) Hash(ctx context.Context, s id.Subject, password string) (string, error) {
	h.count.Add(1)
	return h.Hasher.Hash(ctx, s, password)
}

// bench is a Login with all its fakes, a clock and one person.
type bench struct {
	ledger ledger
	*Login
	t      testing.TB
	store  *memory
	vault  *vault
	signer *signer
	pepper *pepper
	hashes atomic.Int64
	full   atomic.Bool // no capacity for hashes
	logged *safeBuffer
	clock  atomic.Int64 // nanoseconds since start
	mario  Identity
	serial atomic.Int64
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

const rightPassword = "Tr0ub4dor&zwölf"

var (
	start   = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	visitor = Visitor{Browser: sha256.Sum256([]byte("cookie")), Address: netip.MustParseAddr("192.0.2.7")}
)

func (b *bench) time() time.Time         { return start.Add(time.Duration(b.clock.Load())) }
func (b *bench) advance(d time.Duration) { b.clock.Add(int64(d)) }

func newBench(t testing.TB) *bench { return newBenchWith(t, Policy{}) }

func newBenchWith(t testing.TB, p Policy) *bench {
	t.Helper()
	b := &bench{t: t, store: newMemory(), signer: &signer{}, pepper: &pepper{}, logged: &safeBuffer{}}
	b.vault = &vault{issued: map[id.ChallengeID]*issue{}, attempts: 3, delivery: DeliverySent}
	b.Login = b.node(p)
	b.mario = b.person("mario.rossi", "ABCD1234567890", "+393331234567")
	return b
}

// node is one more process on the same store.
func (b *bench) node(p Policy) *Login {
	b.t.Helper()
	h, err := passhash.New(passhash.Config{Pepper: b.pepper, Random: rand.Reader, Cost: passhash.Cost{Memory: 8, Time: 1, Threads: 1}})
	if err != nil {
		b.t.Fatal(err)
	}
	passwords := hasher{h, &b.hashes, &b.full}
	l, err := New(Config{Register: &b.ledger, Watch: &b.ledger, Flows: b.store, Identities: b.store, Tallies: b.store, Codes: b.vault, Deliveries: b.vault,
		Responses: b.signer, Passwords: passwords, Random: rand.Reader, Now: b.time,
		Log: slog.New(slog.NewTextHandler(b.logged, &slog.HandlerOptions{Level: slog.LevelDebug})), Policy: p})
	if err != nil {
		b.t.Fatal(err)
	}
	return l
}

func (b *bench) person(username, code, phone string) Identity {
	b.t.Helper()
	who, err := NewIdentity(NewIdentityInput{Username: username, SPIDCode: code, Phone: phone, Random: rand.Reader, Now: start,
		Attributes: map[string]string{"name": "Mario", "familyName": "Rossi", "email": "mario@example.org", "dateOfBirth": "1980-02-01"}})
	if err != nil {
		b.t.Fatal(err)
	}
	if who.Password, err = b.passwords.(hasher).Hash(b.t.Context(), who.Subject, rightPassword); err != nil {
		b.t.Fatal(err)
	}
	b.store.put(who)
	return who
}

func entity(t testing.TB, s string) id.EntityID {
	t.Helper()
	e, err := id.ParseEntityID(s)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// request is a fresh request of the level.
func (b *bench) request(level saml.Level, c saml.Comparison) saml.Request {
	return saml.Request{ID: fmt.Sprintf("_q%d", b.serial.Add(1)), SP: entity(b.t, "https://sp.example/meta"), IssueInstant: b.time(),
		Level: level, Comparison: c, ACS: "https://sp.example/acs", HasAttributes: true,
		Attributes: []string{"fiscalNumber", "name", "spidCode", "mobilePhone", "unheardOf", "name"}, RelayState: "rs", HasRelayState: true}
}

var spNames = map[string]string{"it": "Comune di Prova", "en": "Test Town"}

func (b *bench) started(level saml.Level, c saml.Comparison) id.FlowID {
	b.t.Helper()
	return b.startedWith(b.request(level, c))
}

func (b *bench) startedWith(r saml.Request) id.FlowID {
	b.t.Helper()
	flow, err := b.begin(b.t.Context(), r, spNames, visitor)
	if err != nil {
		b.t.Fatal(err)
	}
	return flow
}

// do answers and returns the outcome; the test ends on an error.
func (b *bench) do(flow id.FlowID, answers ...Answer) Outcome {
	b.t.Helper()
	var out Outcome
	for _, a := range answers {
		var err error
		if out, err = b.Answer(b.t.Context(), flow, visitor, a); err != nil {
			b.t.Fatalf("%T: %v", a, err)
		}
	}
	return out
}

func (b *bench) page(flow id.FlowID, step Step, n Notice, answers ...Answer) View {
	b.t.Helper()
	out := b.do(flow, answers...)
	if out.View == nil {
		b.t.Fatalf("got a Response (code %d), want the page of step %d", out.Response.Code, step)
	}
	if out.View.Step != step || out.View.Notice != n {
		b.t.Fatalf("got step %d notice %d, want step %d notice %d", out.View.Step, out.View.Notice, step, n)
	}
	return *out.View
}

func (b *bench) response(flow id.FlowID, code saml.Code, answers ...Answer) saml.Signed {
	b.t.Helper()
	out := b.do(flow, answers...)
	if out.Response == nil {
		b.t.Fatalf("got the page of step %d (notice %d), want a Response with code %d", out.View.Step, out.View.Notice, code)
	}
	if out.Response.Code != code {
		b.t.Fatalf("got code %d, want %d", out.Response.Code, code)
	}
	return *out.Response
}

var (
	right = PasswordAnswer{Username: "mario.rossi", Password: rightPassword}
	wrong = PasswordAnswer{Username: "mario.rossi", Password: "not it"}
	sms   = MethodAnswer{Method: MethodSMS}
	code  = CodeAnswer{Code: rightCode}
	miss  = CodeAnswer{Code: "000000"}
)

func (o Outcome) empty() bool { return o.View == nil && o.Response == nil }

// ledger is a register and a watch.
type ledger struct {
	mu        sync.Mutex
	kept      []register.Transaction
	noted     []register.Incident
	down      error // of Ready
	fails     error // of Record
	noProof   bool
	recording func()
}

type receipt int

func (r receipt) IsZero() bool   { return r == 0 }
func (r receipt) String() string { return fmt.Sprintf("record %d", int(r)) }

func (r *ledger) Ready() (uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return uint64(len(r.kept)), r.down
}

func (r *ledger) Record(ctx context.Context, t register.Transaction) (register.Proof, error) {
	if r.recording != nil {
		r.recording()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := errors.Join(r.fails, ctx.Err()); err != nil {
		return nil, err
	}
	if r.noProof {
		return receipt(0), nil
	}
	r.kept = append(r.kept, t)
	return receipt(len(r.kept)), nil
}

func (r *ledger) Note(_ context.Context, i register.Incident) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.noted = append(r.noted, i)
}
