package authcore

import (
	"crypto/rand"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"custode/authcore/register"
	"custode/authcore/saml"
	"custode/internal/fault"
	"custode/internal/id"
)

func TestLevel1(t *testing.T) {
	b := newBench(t)
	last := start.Add(-time.Hour)
	b.mario.LastLogin = last
	b.store.put(b.mario)
	flow := b.started(saml.L1, saml.Exact)
	v := b.page(flow, StepConsent, NoticeNone, right)
	want := []saml.Attribute{{Name: "fiscalNumber"}, {Name: "name", Value: "Mario"}, {Name: "spidCode", Value: "ABCD1234567890"},
		{Name: "mobilePhone", Value: "3331234567"}, {Name: "unheardOf"}}
	if diff := cmp.Diff(want, v.Attributes); diff != "" {
		t.Errorf("attributes on the page (-want +got):\n%s", diff)
	}
	if !v.LastLogin.Equal(last) || v.Level != saml.L1 || v.SPName["it"] != "Comune di Prova" {
		t.Errorf("page: %+v", v)
	}
	b.advance(time.Minute)
	r := b.response(flow, saml.Success, ConsentAnswer{})
	st := b.signer.statements[0]
	if diff := cmp.Diff(want, st.Attributes); diff != "" {
		t.Errorf("attributes asserted (-want +got):\n%s", diff)
	}
	if st.Level != saml.L1 || !st.AuthnInstant.Equal(start) || len(st.SessionIndex) != 33 || r.RelayState != "rs" {
		t.Errorf("statement %+v, relay state %q", st, r.RelayState)
	}
	if len(st.Request.Attributes) != len(want) {
		t.Errorf("the statement's request names %v", st.Request.Attributes)
	}
	ended, register := b.store.finished()
	if len(register) != 1 || register[0].SPIDCode != b.mario.SPIDCode || register[0].Response.ID != r.ID || ended[0].Outcome != saml.Success {
		t.Errorf("register %+v", register)
	}
	if !b.store.people[b.mario.Subject].LastLogin.Equal(start.Add(time.Minute)) {
		t.Error("last login not set")
	}
}

func TestLevel2(t *testing.T) {
	b := newBench(t)
	flow := b.started(saml.L2, saml.Minimum)
	v := b.page(flow, StepMethod, NoticeNone, right)
	if diff := cmp.Diff([]Way{{Method: MethodSMS, Name: "••• ••• 567", Digits: 6}}, v.Ways); diff != "" || v.Attributes != nil {
		t.Errorf("method page %+v", v)
	}
	v = b.page(flow, StepCode, NoticeCodeSent, sms)
	if !v.CanResend || v.Delivery != DeliverySent || v.Level != saml.L2 || b.vault.service != "Comune di Prova" {
		t.Errorf("code page %+v, service %q", v, b.vault.service)
	}
	b.page(flow, StepCode, NoticeMalformedCode, CodeAnswer{Code: "12"})
	v = b.page(flow, StepCode, NoticeWrongCode, miss)
	if v.AttemptsLeft != 2 {
		t.Errorf("attempts left %d, want 2", v.AttemptsLeft)
	}
	b.advance(time.Second)
	b.page(flow, StepConsent, NoticeNone, code)
	b.response(flow, saml.Success, ConsentAnswer{})
	st := b.signer.statements[0]
	if st.Level != saml.L2 || st.SessionIndex != "" || !st.AuthnInstant.Equal(start.Add(time.Second)) {
		t.Errorf("statement %+v", st)
	}
}

// TestSessionIndexByRequestedLevel: "better than level 1" is a level 1 request
// answered at level 2.
func TestSessionIndexByRequestedLevel(t *testing.T) {
	b := newBench(t)
	flow := b.started(saml.L1, saml.Better)
	b.response(flow, saml.Success, right, sms, code, ConsentAnswer{})
	if st := b.signer.statements[0]; st.Level != saml.L2 || st.SessionIndex == "" {
		t.Errorf("statement %+v", st)
	}
}

// TestAnomalies walks every way to the anomalies 19 to 25.
func TestAnomalies(t *testing.T) {
	inactive := func(s State) func(*bench) {
		return func(b *bench) { b.mario.State = s; b.store.put(b.mario) }
	}
	noPhone := func(b *bench) { b.mario.Phone = id.Phone{}; b.store.put(b.mario) }
	late := func(b *bench) { b.advance(8 * time.Minute) }
	for _, c := range []struct {
		name       string
		level      saml.Level
		comparison saml.Comparison
		before     []Answer
		meanwhile  func(*bench)
		last       Answer
		want       saml.Code
		named      bool // the register knows the subject
	}{
		{"three wrong passwords", 1, saml.Exact, []Answer{wrong, wrong}, nil, wrong, 19, false},
		{"three unknown usernames", 1, saml.Exact, []Answer{PasswordAnswer{"x", "y"}, PasswordAnswer{"y", "z"}}, nil, PasswordAnswer{"", ""}, 19, false},
		{"three wrong codes", 2, saml.Exact, []Answer{right, sms, miss, miss}, nil, miss, 19, true},
		{"three wrong codes over two challenges", 2, saml.Exact, []Answer{right, sms, miss, miss, ResendAnswer{}}, nil, miss, 19, true},
		{"level 3", 3, saml.Exact, nil, nil, right, 20, true},
		{"at least level 3", 3, saml.Minimum, nil, nil, right, 20, true},
		{"better than level 2", 2, saml.Better, nil, nil, right, 20, true},
		{"level 2 without a phone", 2, saml.Exact, nil, noPhone, right, 20, true},
		{"phone removed meanwhile", 2, saml.Exact, []Answer{right}, noPhone, sms, 20, true},
		{"late for the password", 1, saml.Exact, nil, late, right, 21, false},
		{"late for the method", 2, saml.Exact, []Answer{right}, late, sms, 21, true},
		{"late for the code", 2, saml.Exact, []Answer{right, sms}, late, code, 21, true},
		{"late for consent", 1, saml.Exact, []Answer{right}, late, ConsentAnswer{}, 21, true},
		{"late to cancel", 1, saml.Exact, nil, late, CancelAnswer{}, 21, false},
		{"late and suspended", 1, saml.Exact, []Answer{right}, func(b *bench) { late(b); inactive(Suspended)(b) }, ConsentAnswer{}, 21, true},
		{"refused", 1, saml.Exact, []Answer{right}, nil, RefuseAnswer{}, 22, true},
		{"refused at level 2", 2, saml.Exact, []Answer{right, sms, code}, nil, RefuseAnswer{}, 22, true},
		{"suspended", 1, saml.Exact, nil, inactive(Suspended), right, 23, true},
		{"revoked", 1, saml.Exact, nil, inactive(Revoked), right, 23, true},
		{"suspended without the level", 3, saml.Exact, nil, inactive(Suspended), right, 23, true},
		{"suspended before the method", 2, saml.Exact, []Answer{right}, inactive(Suspended), sms, 23, true},
		{"suspended before the code", 2, saml.Exact, []Answer{right, sms}, inactive(Suspended), code, 23, true},
		{"suspended before consent", 1, saml.Exact, []Answer{right}, inactive(Revoked), ConsentAnswer{}, 23, true},
		{"cancelled at credentials", 1, saml.Exact, nil, nil, CancelAnswer{}, 25, false},
		{"cancelled at method", 2, saml.Exact, []Answer{right}, nil, CancelAnswer{}, 25, true},
		{"cancelled at code", 2, saml.Exact, []Answer{right, sms}, nil, CancelAnswer{}, 25, true},
		{"cancelled at consent", 1, saml.Exact, []Answer{right}, nil, CancelAnswer{}, 25, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			flow := b.started(c.level, c.comparison)
			b.do(flow, c.before...)
			if c.meanwhile != nil {
				c.meanwhile(b)
			}
			r := b.response(flow, c.want, c.last)
			_, register := b.store.finished()
			if len(register) != 1 || register[0].Response.ID != r.ID || register[0].SPIDCode.IsZero() == c.named {
				t.Errorf("register %+v", register)
			}
			if len(b.signer.statements) != 0 {
				t.Error("a success was signed")
			}
			if _, err := b.View(t.Context(), flow, visitor); !fault.Is(err, fault.Conflict) {
				t.Errorf("view of a finished flow: %v", err)
			}
		})
	}
}

// TestStateIsToldAfterThePasswordOnly: before, a suspended identity looks like
// any other, and like none.
func TestStateIsToldAfterThePasswordOnly(t *testing.T) {
	b := newBench(t)
	b.mario.State = Suspended
	b.store.put(b.mario)
	flow := b.started(saml.L2, saml.Exact)
	v := b.page(flow, StepCredentials, NoticeWrongCredentials, wrong)
	u := b.page(b.started(saml.L2, saml.Exact), StepCredentials, NoticeWrongCredentials, PasswordAnswer{"nobody.here", "not it"})
	if v.AttemptsLeft != 2 { // the flow's count: no username has one of its own
		t.Errorf("attempts left %d, want 2", v.AttemptsLeft)
	}
	u.Flow = v.Flow
	if diff := cmp.Diff(v, u, cmp.Comparer(func(a, b id.FlowID) bool { return a == b }), cmp.Comparer(func(a, b id.EntityID) bool { return a == b })); diff != "" {
		t.Errorf("a suspended and an unknown subject differ:\n%s", diff)
	}
}

// TestSameWork counts the work done for a known and an unknown username.
func TestSameWork(t *testing.T) {
	b := newBench(t)
	count := func(a PasswordAnswer) map[string]int {
		flow := b.started(saml.L1, saml.Exact)
		b.store.calls = map[string]int{}
		hashes, macs := b.hashes.Load(), b.pepper.calls.Load()
		b.page(flow, StepCredentials, NoticeWrongCredentials, a)
		got := maps.Clone(b.store.calls)
		got["argon2"], got["pepper"] = int(b.hashes.Load()-hashes), int(b.pepper.calls.Load()-macs)
		return got
	}
	known := count(wrong)
	if known["argon2"] != 1 || known["pepper"] != 1 || known["CountFailure"] != 2 || known["IdentityByUsername"] != 1 {
		t.Fatalf("work for a known username: %v", known)
	}
	noPassword := b.person("luigi", "ABCD1234567891", "")
	noPassword.Password = ""
	b.store.put(noPassword)
	for name, a := range map[string]PasswordAnswer{
		"unknown":         {"nobody.here", "not it"},
		"malformed":       {"<script>", "not it"},
		"no username":     {"", "not it"},
		"no password set": {"luigi", rightPassword},
	} {
		if diff := cmp.Diff(known, count(a)); diff != "" {
			t.Errorf("%s: other work than for a known username (-known +got):\n%s", name, diff)
		}
	}
}

func TestSlowDown(t *testing.T) {
	b := newBench(t)
	for range 3 {
		b.do(b.started(saml.L1, saml.Exact), wrong)
	}
	for _, who := range []PasswordAnswer{right, wrong, {"MARIO.ROSSI ", "x"}} {
		flow := b.started(saml.L1, saml.Exact)
		hashes := b.hashes.Load()
		v := b.page(flow, StepCredentials, NoticeWait, who)
		if v.RetryAfter != time.Second || b.hashes.Load() != hashes {
			t.Errorf("retry after %v, %d hashes", v.RetryAfter, b.hashes.Load()-hashes)
		}
		if f := b.store.flows[flow]; f.WrongPassword != 0 || f.Version != 1 {
			t.Errorf("a delayed attempt was counted: %+v", f)
		}
	}
	if n := b.store.tally[usernameKey("mario.rossi")].Failures; n != 3 {
		t.Errorf("%d failures counted, want 3", n)
	}
	b.advance(time.Second)
	b.page(b.started(saml.L1, saml.Exact), StepConsent, NoticeNone, right)
	if n := b.store.tally[usernameKey("mario.rossi")].Failures; n != 0 {
		t.Errorf("%d failures after a right password, want 0", n)
	}
	if n := b.store.tally[networkKey(visitor.Address)].Failures; n != 3 {
		t.Errorf("%d failures of the network, want 3 still", n)
	}

	// An unknown username is slowed down in the same way.
	for range 3 {
		b.do(b.started(saml.L1, saml.Exact), PasswordAnswer{"nobody.here", "x"})
	}
	b.page(b.started(saml.L1, saml.Exact), StepCredentials, NoticeWait, PasswordAnswer{"nobody.here", "x"})

	// A decayed tally begins anew.
	b.advance(24 * time.Hour)
	b.do(b.started(saml.L1, saml.Exact), PasswordAnswer{"nobody.here", "x"})
	if n := b.store.tally[usernameKey("nobody.here")].Failures; n != 1 {
		t.Errorf("%d failures after a day, want 1", n)
	}
}

func TestNetworkSlowDown(t *testing.T) {
	b := newBenchWith(t, Policy{NetworkFree: 4})
	for _, u := range []string{"a", "b", "c", "d"} {
		b.do(b.started(saml.L1, saml.Exact), PasswordAnswer{u, "x"})
	}
	b.page(b.started(saml.L1, saml.Exact), StepCredentials, NoticeWait, right)
}

func TestNotices(t *testing.T) {
	b := newBench(t)
	flow := b.started(saml.L2, saml.Exact)
	b.do(flow, right)
	b.vault.refuse = fault.Newf(fault.Exhausted, "issue", "too many")
	b.page(flow, StepMethod, NoticeTooManyCodes, sms)
	b.vault.refuse = fault.Newf(fault.Busy, "issue", "full")
	b.page(flow, StepMethod, NoticeBusy, sms)
	b.vault.refuse = fault.Newf(fault.Unavailable, "issue", "down")
	if _, err := b.Answer(t.Context(), flow, visitor, sms); !fault.Is(err, fault.Unavailable) {
		t.Errorf("issue failed: %v", err)
	}
	b.vault.refuse = nil
	b.page(flow, StepCode, NoticeCodeSent, sms)
	for _, is := range b.vault.issued {
		is.expired = true
	}
	b.page(flow, StepCode, NoticeExpiredCode, code)
	v := b.page(flow, StepCode, NoticeCodeSent, ResendAnswer{})
	if v.CanResend {
		t.Error("a sixth code is offered")
	}
	b.page(flow, StepCode, NoticeTooManyCodes, ResendAnswer{})
	for _, is := range b.vault.issued {
		is.closed = true
	}
	b.page(flow, StepCode, NoticeUsedCode, code)
}

// TestStalePages: answers to other steps change nothing.
func TestStalePages(t *testing.T) {
	all := []Answer{right, sms, ResendAnswer{}, code, ConsentAnswer{}, RefuseAnswer{}}
	fits := map[Step][]int{StepCredentials: {0}, StepMethod: {1}, StepCode: {2, 3}, StepConsent: {4, 5}}
	walk := map[Step][]Answer{StepCredentials: nil, StepMethod: {right}, StepCode: {right, sms}, StepConsent: {right, sms, code}}
	for step, before := range walk {
		b := newBench(t)
		flow := b.started(saml.L2, saml.Exact)
		b.do(flow, before...)
		was := b.store.flows[flow]
		for i, a := range all {
			fit := false
			for _, j := range fits[step] {
				fit = fit || i == j
			}
			if fit {
				continue
			}
			b.page(flow, step, NoticeNone, a)
			if b.store.flows[flow].Version != was.Version {
				t.Errorf("%T moved a flow at step %d", a, step)
			}
		}
		for _, a := range []Answer{nil, MethodAnswer{Method: 7}} {
			if _, err := b.Answer(t.Context(), flow, visitor, a); !fault.Is(err, fault.Invalid) {
				t.Errorf("%#v at step %d: %v", a, step, err)
			}
		}
	}
}

func TestWhoseFlow(t *testing.T) {
	b := newBench(t)
	flow := b.started(saml.L1, saml.Exact)
	unknown, err := id.NewFlowID(rand.Reader)
	must(t, unknown, err)
	other := visitor
	other.Browser[31] ^= 1
	for _, c := range []struct {
		name string
		flow id.FlowID
		v    Visitor
		want fault.Kind
	}{
		{"another browser", flow, other, fault.Denied},
		{"no cookie", flow, Visitor{}, fault.Denied},
		{"unknown", unknown, visitor, fault.NotFound},
		{"none", id.FlowID{}, visitor, fault.NotFound},
	} {
		if _, err := b.View(t.Context(), c.flow, c.v); !fault.Is(err, c.want) {
			t.Errorf("%s: view: %v, want %v", c.name, err, c.want)
		}
		if _, err := b.Answer(t.Context(), c.flow, c.v, right); !fault.Is(err, c.want) {
			t.Errorf("%s: answer: %v, want %v", c.name, err, c.want)
		}
	}
	// A row without a browser opens to nobody.
	f := b.store.flows[flow]
	f.Browser = [32]byte{}
	b.store.flows[flow] = f
	if _, err := b.View(t.Context(), flow, Visitor{}); !fault.Is(err, fault.Denied) {
		t.Errorf("flow without a browser: %v", err)
	}
	if _, err := b.begin(t.Context(), b.request(1, 0), nil, Visitor{}); !fault.Is(err, fault.Denied) {
		t.Errorf("begin without a cookie: %v", err)
	}
	if _, err := b.Begin(t.Context(), saml.VerifiedRequest{}, visitor); !fault.Is(err, fault.Invalid) {
		t.Errorf("begin without a verified request: %v", err)
	}
}

func TestViewOfExpiredFlow(t *testing.T) {
	b := newBench(t)
	flow := b.started(saml.L1, saml.Exact)
	b.advance(8*time.Minute - 1)
	if out, err := b.View(t.Context(), flow, visitor); err != nil || out.View == nil {
		t.Fatalf("view before the deadline: %+v, %v", out, err)
	}
	b.advance(1)
	out, err := b.View(t.Context(), flow, visitor)
	if err != nil || out.Response == nil || out.Response.Code != saml.TimedOut {
		t.Fatalf("view at the deadline: %+v, %v", out, err)
	}
}

// TestResponseGoesWithNameAndLevel: the page that hands a Response over shows
// what the pages before it showed.
func TestResponseGoesWithNameAndLevel(t *testing.T) {
	for _, c := range []struct {
		requested saml.Level
		answers   []Answer
		code      saml.Code
		shown     saml.Level
	}{
		{saml.L1, []Answer{right, ConsentAnswer{}}, saml.Success, saml.L1},
		{saml.L2, []Answer{right, sms, code, ConsentAnswer{}}, saml.Success, saml.L2},
		{saml.L2, []Answer{CancelAnswer{}}, saml.Cancelled, saml.L2},
		{saml.L3, []Answer{right}, saml.NoCredentials, saml.L3},
	} {
		b := newBench(t)
		out := b.do(b.started(c.requested, saml.Exact), c.answers...)
		if out.Response == nil || out.Response.Code != c.code || out.Level != c.shown || out.SPName["en"] != spNames["en"] {
			t.Errorf("level %d: %+v", c.requested, out)
		}
	}
}

// TestReplayedRequest: of two flows for one request only one is answered.
func TestReplayedRequest(t *testing.T) {
	b := newBench(t)
	r := b.request(saml.L1, saml.Exact)
	one, two := b.startedWith(r), b.startedWith(r)
	b.do(one, right)
	b.do(two, right)
	b.response(one, saml.Success, ConsentAnswer{})
	for _, a := range []Answer{ConsentAnswer{}, CancelAnswer{}, RefuseAnswer{}} {
		if out, err := b.Answer(t.Context(), two, visitor, a); !fault.Is(err, fault.Conflict) || out.Response != nil {
			t.Errorf("%T in the second flow: %+v, %v", a, out, err)
		}
	}
	if _, register := b.store.finished(); len(register) != 1 {
		t.Errorf("%d answers registered", len(register))
	}
}

// TestNothingLeavesUnregistered: when signing or the store fails there is no
// Response and the flow can go on.
func TestNothingLeavesUnregistered(t *testing.T) {
	b := newBench(t)
	flow := b.started(saml.L1, saml.Exact)
	b.do(flow, right)
	b.signer.fail = fault.Newf(fault.Unavailable, "sign", "token gone")
	if out, err := b.Answer(t.Context(), flow, visitor, ConsentAnswer{}); !fault.Is(err, fault.Unavailable) || !out.empty() {
		t.Fatalf("%+v, %v", out, err)
	}
	b.signer.fail = nil
	b.response(flow, saml.Success, ConsentAnswer{})
}

// TestWrongIsCountedWhenSigningFails: who can make anomaly 19 fail must not get
// guesses for nothing.
func TestWrongIsCountedWhenSigningFails(t *testing.T) {
	b := newBench(t)
	flow := b.started(saml.L1, saml.Exact)
	b.do(flow, wrong, wrong)
	b.signer.fail = errors.New("token gone")
	if _, err := b.Answer(t.Context(), flow, visitor, wrong); err == nil {
		t.Fatal("no error")
	}
	if n := b.store.tally[usernameKey("mario.rossi")].Failures; n != 3 {
		t.Errorf("%d failures counted, want 3", n)
	}
}

func TestRefuse(t *testing.T) {
	b := newBench(t)
	req := b.request(saml.L1, saml.Exact)
	to := req.Reply()
	r, err := b.Refuse(t.Context(), &saml.Refusal{Code: saml.Passive, Reply: &to, Raw: []byte("<raw/>"), Err: errors.New("passive")})
	if err != nil || r.Response == nil || r.Response.Code != saml.Passive || r.Response.ACS != to.ACS || !register.Proved(r.Proof) {
		t.Errorf("%+v, %v", r, err)
	}
	if kept := b.ledger.kept; len(kept) != 1 || kept[0].Response.ID != r.Response.ID || string(kept[0].Request) != "<raw/>" {
		t.Errorf("recorded: %+v", kept)
	}
	for _, bad := range []*saml.Refusal{nil, {Code: saml.BadIssuer}, {Code: saml.Success, Reply: &to}} {
		if _, err := b.Refuse(t.Context(), bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("refuse %+v: %v", bad, err)
		}
	}
}

// TestLogIsComplete: each login leaves its audit lines, and no secret is among
// them.
func TestLogIsComplete(t *testing.T) {
	b := newBench(t)
	flow := b.started(saml.L2, saml.Exact)
	b.do(flow, PasswordAnswer{"typed-secret-as-username", "Wr0ng!secret"}, wrong, right, sms, CodeAnswer{"271828"}, code)
	b.response(flow, saml.Success, ConsentAnswer{})
	log := b.logged.String()
	for _, want := range []string{"login begun", "password wrong", "password right", "code issued", "code wrong", "code right",
		"attributes without a value", "login finished", "code=1", flow.String(), b.mario.Subject.String()} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q", want)
		}
	}
	for _, secret := range []string{rightPassword, "not it", "Wr0ng", "typed-secret", rightCode, "271828", "Mario", "Rossi", "example.org", "333123", "cookie"} {
		if strings.Contains(log, secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

func TestNewDemandsEverything(t *testing.T) {
	if _, err := New(Config{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("empty configuration: %v", err)
	}
}

// TestLoginProperties throws any answers at whole logins: success is signed
// only for whom a right password, a right code (at level 2) and consent were
// given, and every flow is answered at most once.
func TestLoginProperties(t *testing.T) {
	answers := []Answer{right, wrong, PasswordAnswer{"nobody.here", "x"}, sms, ResendAnswer{}, code, miss, CodeAnswer{"1"},
		ConsentAnswer{}, RefuseAnswer{}, CancelAnswer{}}
	rapid.Check(t, func(r *rapid.T) {
		b := newBench(t)
		level := saml.Level(rapid.IntRange(1, 3).Draw(r, "level"))
		flow := b.started(level, saml.Comparison(rapid.IntRange(0, 3).Draw(r, "comparison")))
		var password, factor, consent bool
		responses := map[string]bool{} // by ID: a late second click gets the same one
		for range rapid.IntRange(1, 25).Draw(r, "length") {
			b.advance(rapid.SampledFrom([]time.Duration{0, time.Second, 40 * time.Second}).Draw(r, "pause"))
			i := rapid.IntRange(0, len(answers)-1).Draw(r, "answer")
			step := b.store.flows[flow].Step
			out, err := b.Answer(t.Context(), flow, visitor, answers[i])
			if err != nil {
				if !fault.Is(err, fault.Conflict) || len(responses) != 1 {
					r.Fatalf("%T: %v", answers[i], err)
				}
				continue
			}
			password = password || (i == 0 && step == StepCredentials)
			factor = factor || (i == 5 && step == StepCode)
			consent = consent || (i == 8 && step == StepConsent)
			if out.Response == nil {
				continue
			}
			responses[out.Response.ID] = true
			if out.Response.Code == saml.Success {
				performed := b.signer.statements[0].Level
				if !password || !consent || (performed >= saml.L2 && !factor) {
					r.Fatalf("success at level %d: password %v, code %v, consent %v", performed, password, factor, consent)
				}
			}
		}
		if _, register := b.store.finished(); len(responses) > 1 || len(register) != len(responses) || len(b.signer.statements) > 1 {
			r.Fatalf("%d responses, %d registered, %d signed", len(responses), len(register), len(b.signer.statements))
		}
	})
}
