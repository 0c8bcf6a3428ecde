package storetest

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"custode/authcore"
	"custode/authcore/saml"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store"
)

// identifiers compares the types of internal/id, whose fields are unexported.
var identifiers = cmp.Options{
	cmp.Comparer(func(a, b id.FlowID) bool { return a == b }), cmp.Comparer(func(a, b id.Subject) bool { return a == b }),
	cmp.Comparer(func(a, b id.ChallengeID) bool { return a == b }), cmp.Comparer(func(a, b id.MessageID) bool { return a == b }),
	cmp.Comparer(func(a, b id.EntityID) bool { return a == b }), cmp.Comparer(func(a, b id.SPIDCode) bool { return a == b }),
	cmp.Comparer(func(a, b id.LogoutID) bool { return a == b }), cmp.Comparer(func(a, b id.Username) bool { return a == b }), cmp.Comparer(func(a, b id.Phone) bool { return a == b }), cmp.Comparer(func(a, b id.Serial) bool { return a == b }),
}

func testFlowRoundTrip(t *testing.T, b *Bench) {
	f := NewFlow(t, b.Now)
	must(t, b.DB.CreateFlow(b.ctx, f))
	if diff := cmp.Diff(f, get(b.DB.Flow(b.ctx, f.ID))(t), identifiers); diff != "" {
		t.Errorf("created -> read:\n%s", diff)
	}
	wantKind(t, "create again", b.DB.CreateFlow(b.ctx, f), fault.Conflict)

	f.Step, f.Deadline, f.WrongPassword, f.WrongCode = authcore.StepConsent, f.Deadline.Add(time.Second), 4, 5
	f.Subject, f.Challenge, f.CodesIssued = newID(t, id.NewSubject), id.ChallengeID{}, 6
	f.Method, f.Performed, f.Authenticated, f.Outcome, f.Browser[0] = authcore.MethodNone, saml.L1, time.Time{}, 0, 77
	must(t, b.DB.SaveFlow(b.ctx, f))
	f.Version = 2
	if diff := cmp.Diff(f, get(b.DB.Flow(b.ctx, f.ID))(t), identifiers); diff != "" {
		t.Errorf("saved -> read:\n%s", diff)
	}
	wantKind(t, "unknown flow", discard(b.DB.Flow(b.ctx, newID(t, id.NewFlowID))), fault.NotFound)
	wantKind(t, "zero flow", b.DB.CreateFlow(b.ctx, authcore.Flow{}), fault.Invalid)

	bare := authcore.Flow{ID: newID(t, id.NewFlowID), Version: 1}
	bare.Request.SP, bare.Request.ID = f.Request.SP, "_1"
	must(t, b.DB.CreateFlow(b.ctx, bare))
	if got := get(b.DB.Flow(b.ctx, bare.ID))(t); !got.Started.IsZero() || len(got.Request.Raw) != 0 || !got.Subject.IsZero() {
		t.Errorf("bare flow came back as %+v", got)
	}
}

// testFlowsPerRequest: a signed request is not a licence to fill the disk, and one
// that was answered begins nothing.
func testFlowsPerRequest(t *testing.T, b *Bench) {
	f := NewFlow(t, b.Now)
	again := func() error {
		f.ID = newID(t, id.NewFlowID)
		return b.DB.CreateFlow(b.ctx, f)
	}
	for range 8 {
		must(t, again())
	}
	wantKind(t, "ninth flow of a request", again(), fault.Exhausted)
	f.Request.ID = "_other"
	must(t, again())
	f.Step, f.Outcome = authcore.StepDone, saml.Cancelled
	a := NewAnswered(f, id.SPIDCode{}, b.Now)
	a.Response.Code = saml.Cancelled
	must(t, b.DB.FinishFlow(b.ctx, f, a))
	wantKind(t, "request answered before", again(), fault.Conflict)
}

func testFlowConflict(t *testing.T, b *Bench) {
	f := NewFlow(t, b.Now)
	wantKind(t, "save before create", b.DB.SaveFlow(b.ctx, f), fault.Conflict)
	must(t, b.DB.CreateFlow(b.ctx, f))
	must(t, b.DB.SaveFlow(b.ctx, f))
	stale := f
	stale.WrongCode = 0
	wantKind(t, "stale version", b.DB.SaveFlow(b.ctx, stale), fault.Conflict)
	f.Version = 2
	other := f
	other.Request.ID = "_other"
	wantKind(t, "another request", b.DB.SaveFlow(b.ctx, other), fault.Conflict)
	other = f
	other.Request.SP = parse(t, id.ParseEntityID, "https://evil.example")
	wantKind(t, "another SP", b.DB.SaveFlow(b.ctx, other), fault.Conflict)
	if got := get(b.DB.Flow(b.ctx, f.ID))(t); got.Version != 2 || got.WrongCode != f.WrongCode {
		t.Errorf("version %d, wrong codes %d: a refused save left something", got.Version, got.WrongCode)
	}
}

func testFlowRace(t *testing.T, b *Bench) {
	f := NewFlow(t, b.Now)
	must(t, b.DB.CreateFlow(b.ctx, f))
	oneWinner(t, race(50, func(int) error { return b.DB.SaveFlow(b.ctx, f) }), fault.Conflict)
}

// started stores an identity and a flow of it.
func started(t *testing.T, b *Bench, n int) (authcore.Identity, authcore.Flow) {
	t.Helper()
	i := NewIdentity(t, n, b.Now)
	must(t, b.DB.AddIdentity(b.ctx, i, change(b)))
	f := NewFlow(t, b.Now)
	f.Subject = i.Subject
	must(t, b.DB.CreateFlow(b.ctx, f))
	return i, f
}

func testFinishFlow(t *testing.T, b *Bench) {
	i, f := started(t, b, 1)
	f.Step, f.Outcome = authcore.StepDone, saml.Success
	a := NewAnswered(f, i.SPIDCode, b.Now.Add(time.Minute))

	stale := f
	stale.Version = 7
	wantKind(t, "stale flow", b.DB.FinishFlow(b.ctx, stale, a), fault.Conflict)
	wantKind(t, "nothing recorded", discard(b.DB.Answer(b.ctx, f.Request.SP, f.Request.ID)), fault.NotFound)

	g := NewFlow(t, b.Now)
	g.Request.ID, g.Subject = f.Request.ID, i.Subject
	must(t, b.DB.CreateFlow(b.ctx, g))
	must(t, b.DB.FinishFlow(b.ctx, f, a))
	f.Version = 2
	if diff := cmp.Diff(f, get(b.DB.Flow(b.ctx, f.ID))(t), identifiers); diff != "" {
		t.Errorf("finished flow:\n%s", diff)
	}
	want := store.Answer{
		Flow: f.ID, SP: f.Request.SP, RequestID: f.Request.ID, RequestIssued: f.Request.IssueInstant, Code: saml.Success,
		ResponseID: a.Response.ID, ResponseIssued: a.Response.IssueInstant, ResponseIssuer: parse(t, id.ParseEntityID, Issuer),
		AssertionID: a.Response.AssertionID, Answered: a.At,
	}
	if diff := cmp.Diff(want, get(b.DB.Answer(b.ctx, f.Request.SP, f.Request.ID))(t), identifiers); diff != "" {
		t.Errorf("register:\n%s", diff)
	}
	if got := get(b.DB.Identity(b.ctx, i.Subject))(t); !got.LastLogin.Equal(a.At) {
		t.Errorf("last login %v, want %v", got.LastLogin, a.At)
	}

	// The same again, then the same request by another flow.
	wantKind(t, "finish again", b.DB.FinishFlow(b.ctx, f, a), fault.Conflict)
	wantKind(t, "replayed request", b.DB.FinishFlow(b.ctx, g, NewAnswered(g, i.SPIDCode, b.Now.Add(time.Hour))), fault.Conflict)
	if got := get(b.DB.Flow(b.ctx, g.ID))(t); got.Version != 1 {
		t.Errorf("the refused flow moved to version %d", got.Version)
	}
	if got := get(b.DB.Identity(b.ctx, i.Subject))(t); !got.LastLogin.Equal(a.At) {
		t.Errorf("the refused answer changed the last login to %v", got.LastLogin)
	}

	// The same request identifier of another SP is another request.
	h := NewFlow(t, b.Now)
	h.Request.ID, h.Request.SP = f.Request.ID, parse(t, id.ParseEntityID, "https://other.example.it")
	must(t, b.DB.CreateFlow(b.ctx, h))
	failure := NewAnswered(h, id.SPIDCode{}, b.Now)
	failure.Response.Code, failure.Response.AssertionID, failure.Response.NameID = saml.Cancelled, "", ""
	must(t, b.DB.FinishFlow(b.ctx, h, failure))
	if got := get(b.DB.Answer(b.ctx, h.Request.SP, h.Request.ID))(t); got.Code != saml.Cancelled {
		t.Errorf("failure recorded as %+v", got)
	}
}

func testFinishFlowRace(t *testing.T, b *Bench) {
	i, f := started(t, b, 1)
	oneWinner(t, race(20, func(n int) error {
		a := NewAnswered(f, i.SPIDCode, b.Now)
		return b.DB.FinishFlow(b.ctx, f, a)
	}), fault.Conflict)

	// Two flows of one request, as after a double click at the SP.
	flows := make([]authcore.Flow, 8)
	for n := range flows {
		flows[n] = NewFlow(t, b.Now)
		flows[n].Request.ID, flows[n].Subject = "_same", i.Subject
		must(t, b.DB.CreateFlow(b.ctx, flows[n]))
	}
	oneWinner(t, race(len(flows), func(n int) error {
		return b.DB.FinishFlow(b.ctx, flows[n], NewAnswered(flows[n], i.SPIDCode, b.Now))
	}), fault.Conflict)
}

func testFinishInactive(t *testing.T, b *Bench) {
	i, f := started(t, b, 1)
	must(t, b.DB.SetIdentityState(b.ctx, i.Username, authcore.Active, authcore.Suspended, change(b)))
	wantKind(t, "suspended meanwhile", b.DB.FinishFlow(b.ctx, f, NewAnswered(f, i.SPIDCode, b.Now)), fault.Denied)
	g := NewFlow(t, b.Now)
	must(t, b.DB.CreateFlow(b.ctx, g))
	wantKind(t, "unknown subject", b.DB.FinishFlow(b.ctx, g, NewAnswered(g, i.SPIDCode, b.Now)), fault.Denied)
	wantKind(t, "success without a SPID code", b.DB.FinishFlow(b.ctx, f, NewAnswered(f, id.SPIDCode{}, b.Now)), fault.Invalid)
	wantKind(t, "nothing recorded", discard(b.DB.Answer(b.ctx, f.Request.SP, f.Request.ID)), fault.NotFound)
	if got := get(b.DB.Flow(b.ctx, f.ID))(t); got.Version != 1 {
		t.Errorf("the flow moved to version %d", got.Version)
	}
	// That it was refused for code 23 is recorded all the same.
	a := NewAnswered(f, i.SPIDCode, b.Now)
	a.Response.Code = saml.NotActive
	must(t, b.DB.FinishFlow(b.ctx, f, a))
	if got := get(b.DB.Identity(b.ctx, i.Subject))(t); !got.LastLogin.Equal(i.LastLogin) {
		t.Error("a failure changed the last login")
	}
}
