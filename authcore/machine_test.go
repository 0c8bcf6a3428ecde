package authcore

import (
	"crypto/rand"
	"testing"
	"time"

	"pgregory.net/rapid"

	"custode/authcore/saml"
	"custode/internal/fault"
	"custode/internal/id"
)

var steps = []Step{StepCredentials, StepMethod, StepCode, StepConsent, StepDone}

var events = []event{passwordWrong, passwordRight, codeReserved, codeIssued, codeNotIssued, codeWrong, codeExhausted,
	codeRight, authorised, refused, cancelled, phoneGone, notActive, otherMethod}

func policy(t testing.TB) Policy {
	t.Helper()
	p, err := Policy{}.complete()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func newSubject(t testing.TB) id.Subject {
	t.Helper()
	s, err := id.NewSubject(rand.Reader)
	return must(t, s, err)
}

func freshFlow(t testing.TB, level saml.Level, c saml.Comparison, p Policy) Flow {
	t.Helper()
	flow, err := id.NewFlowID(rand.Reader)
	must(t, flow, err)
	return Flow{ID: flow, Browser: visitor.Browser, Step: StepCredentials, Started: start, Deadline: start.Add(p.FlowLife), Version: 1,
		Request: saml.Request{ID: "_q", SP: entity(t, "https://sp.example/meta"), Level: level, Comparison: c}}
}

// TestLevelFor is the table of comparisons (technical rules; SAML Core 3.3.2.2.1).
func TestLevelFor(t *testing.T) {
	for _, c := range []struct {
		requested  saml.Level
		comparison saml.Comparison
		available  saml.Level
		want       saml.Level
		ok         bool
	}{
		{1, saml.Exact, 1, 1, true}, {1, saml.Exact, 2, 1, true}, {2, saml.Exact, 2, 2, true}, {2, saml.Exact, 1, 2, false}, {3, saml.Exact, 2, 3, false},
		{1, saml.Minimum, 2, 1, true}, {2, saml.Minimum, 1, 2, false}, {3, saml.Minimum, 2, 3, false},
		{1, saml.Better, 2, 2, true}, {1, saml.Better, 1, 2, false}, {2, saml.Better, 2, 3, false}, {3, saml.Better, 2, 4, false},
		{1, saml.Maximum, 2, 1, true}, {2, saml.Maximum, 1, 1, true}, {2, saml.Maximum, 2, 2, true}, {3, saml.Maximum, 2, 2, true}, {3, saml.Maximum, 1, 1, true},
		{0, saml.Exact, 2, 0, false}, {1, saml.Comparison(9), 2, 1, false},
	} {
		got, ok := levelFor(c.requested, c.comparison, c.available)
		if got != c.want || ok != c.ok {
			t.Errorf("levelFor(%d, %d, %d) = %d, %v; want %d, %v", c.requested, c.comparison, c.available, got, ok, c.want, c.ok)
		}
		if ok && !satisfies(got, c.requested, c.comparison) {
			t.Errorf("level %d does not satisfy %d, comparison %d", got, c.requested, c.comparison)
		}
	}
}

// TestNothingIsAcceptedWhenDone drives every event into a finished flow.
func TestNothingIsAcceptedWhenDone(t *testing.T) {
	p := policy(t)
	for _, e := range events {
		f := freshFlow(t, saml.L1, saml.Exact, p).end(saml.Cancelled)
		n, err := f.next(act{event: e, at: start.Add(time.Hour), policy: p})
		if !fault.Is(err, fault.Conflict) || n.Outcome != saml.Cancelled {
			t.Errorf("%v at StepDone: outcome %d, error %v", e, n.Outcome, err)
		}
	}
}

// TestDeadlineWins checks every step and event at the instant of the deadline.
func TestDeadlineWins(t *testing.T) {
	p := policy(t)
	for _, s := range steps[:4] {
		for _, e := range events {
			f := freshFlow(t, saml.L1, saml.Exact, p)
			f.Step = s
			n, err := f.next(act{event: e, at: f.Deadline, policy: p})
			if err != nil || n.Step != StepDone || n.Outcome != saml.TimedOut {
				t.Errorf("%v at step %d after the deadline: outcome %d, error %v", e, s, n.Outcome, err)
			}
		}
		f := freshFlow(t, saml.L1, saml.Exact, p)
		f.Step = s
		n, passed, err := f.authorise(f.Deadline, p)
		if err != nil || n.Outcome != saml.TimedOut || passed != (Passed{}) {
			t.Errorf("authorise at step %d after the deadline: outcome %d, error %v", s, n.Outcome, err)
		}
	}
}

// TestCancelAndRefuse: cancelling is possible at every step, refusing on the
// consent page only.
func TestCancelAndRefuse(t *testing.T) {
	p := policy(t)
	for _, s := range steps[:4] {
		f := freshFlow(t, saml.L2, saml.Exact, p)
		f.Step = s
		if n, err := f.next(act{event: cancelled, at: start, policy: p}); err != nil || n.Outcome != saml.Cancelled {
			t.Errorf("cancel at step %d: outcome %d, error %v", s, n.Outcome, err)
		}
		n, err := f.next(act{event: refused, at: start, policy: p})
		if s == StepConsent {
			if err != nil || n.Outcome != saml.ConsentRefused {
				t.Errorf("refuse at consent: outcome %d, error %v", n.Outcome, err)
			}
		} else if !fault.Is(err, fault.Invalid) || n.Step != s || n.Outcome != 0 {
			t.Errorf("refuse at step %d: outcome %d, error %v", s, n.Outcome, err)
		}
	}
}

// TestProofIsNotForTheForged: a row that claims what did not happen passes
// nobody, and a proof fits no other flow.
func TestProofIsNotForTheForged(t *testing.T) {
	p := policy(t)
	whole := func() Flow {
		f := freshFlow(t, saml.L2, saml.Exact, p)
		s, err1 := id.NewSubject(rand.Reader)
		c, err2 := id.NewChallengeID(rand.Reader)
		f.Subject, f.Challenge = must(t, s, err1), must(t, c, err2)
		f.Step, f.Method, f.Performed, f.Authenticated = StepConsent, MethodSMS, saml.L2, start.Add(time.Second)
		return f
	}
	now := start.Add(time.Minute)
	for name, spoil := range map[string]func(*Flow){
		"no subject":      func(f *Flow) { f.Subject = id.Subject{} },
		"no challenge":    func(f *Flow) { f.Challenge = id.ChallengeID{} },
		"no method":       func(f *Flow) { f.Method = MethodNone },
		"level too low":   func(f *Flow) { f.Performed = saml.L1 },
		"level 3":         func(f *Flow) { f.Performed = saml.L3 },
		"nothing reached": func(f *Flow) { f.Performed = 0 },
		"before start":    func(f *Flow) { f.Authenticated = start.Add(-time.Second) },
		"no request":      func(f *Flow) { f.Request.ID = "" },
		"no SP":           func(f *Flow) { f.Request.SP = id.EntityID{} },
	} {
		f := whole()
		spoil(&f)
		if _, passed, err := f.authorise(now, p); err == nil || passed != (Passed{}) {
			t.Errorf("%s: passed", name)
		}
	}
	f := whole()
	done, passed, err := f.authorise(now, p)
	if err != nil {
		t.Fatal(err)
	}
	who := Identity{Subject: f.Subject, Type: NaturalPerson, State: Active}
	if !passed.admits(done, who) {
		t.Fatal("the proof does not fit its own flow")
	}
	if (Passed{}).admits(done, who) {
		t.Error("the zero proof passes")
	}
	for name, spoil := range map[string]func(*Flow, *Identity){
		"other version":   func(f *Flow, _ *Identity) { f.Version++ },
		"other request":   func(f *Flow, _ *Identity) { f.Request.ID = "_other" },
		"other SP":        func(f *Flow, _ *Identity) { f.Request.SP = entity(t, "https://other.example") },
		"other flow":      func(f *Flow, _ *Identity) { f.ID = whole().ID },
		"other challenge": func(f *Flow, _ *Identity) { f.Challenge = whole().Challenge },
		"other level":     func(f *Flow, _ *Identity) { f.Performed = saml.L1 },
		"other subject":   func(_ *Flow, w *Identity) { w.Subject = whole().Subject },
		"suspended":       func(_ *Flow, w *Identity) { w.State = Suspended },
		"not done":        func(f *Flow, _ *Identity) { f.Step = StepConsent },
		"not success":     func(f *Flow, _ *Identity) { f.Outcome = saml.Cancelled },
	} {
		d, w := done, who
		spoil(&d, &w)
		if passed.admits(d, w) {
			t.Errorf("%s: the proof passes", name)
		}
	}
}

// TestCodeOfAnotherChallenge: a right code counts for the flow's own open
// challenge and subject only.
func TestCodeOfAnotherChallenge(t *testing.T) {
	p := policy(t)
	one, err1 := id.NewChallengeID(rand.Reader)
	two, err2 := id.NewChallengeID(rand.Reader)
	must(t, one, err1)
	must(t, two, err2)
	f := freshFlow(t, saml.L2, saml.Exact, p)
	f.Step, f.Method, f.Challenge, f.Subject = StepCode, MethodSMS, one, newSubject(t)
	if n, err := f.next(act{event: codeRight, at: start, policy: p, challenge: one, subject: f.Subject, who: Identity{Subject: f.Subject, Type: NaturalPerson}}); err != nil || n.Step != StepConsent {
		t.Fatalf("own challenge: %v", err)
	}
	closed := f
	closed.Challenge = id.ChallengeID{}
	for name, c := range map[string]struct {
		f Flow
		a act
	}{
		"another challenge": {f, act{challenge: two, subject: f.Subject}},
		"another subject":   {f, act{challenge: one, subject: newSubject(t)}},
		"no challenge":      {closed, act{subject: f.Subject}},
	} {
		c.a.event, c.a.at, c.a.policy = codeRight, start, p
		if n, err := c.f.next(c.a); !fault.Is(err, fault.Internal) || n.Step != StepCode || n.Performed != 0 {
			t.Errorf("%s: step %d, %v", name, n.Step, err)
		}
	}
}

// TestMachineProperties drives the machine with any sequence of events and
// holds it against what was really done.
func TestMachineProperties(t *testing.T) {
	p := policy(t)
	phone, err := id.ParsePhone("+393331234567")
	must(t, phone, err)
	subject, err := id.NewSubject(rand.Reader)
	must(t, subject, err)
	rapid.Check(t, func(r *rapid.T) {
		level := saml.Level(rapid.IntRange(1, 3).Draw(r, "level"))
		cmp := saml.Comparison(rapid.IntRange(0, 3).Draw(r, "comparison"))
		f := freshFlow(t, level, cmp, p)
		now := start
		var knows, has bool // a right password, a right code of this flow
		outcomes, wrongPasswords, wrongCodes := 0, 0, 0
		for range rapid.IntRange(1, 40).Draw(r, "length") {
			now = now.Add(rapid.SampledFrom([]time.Duration{0, 0, 0, time.Second, time.Minute}).Draw(r, "pause"))
			a := act{event: rapid.SampledFrom(events).Draw(r, "event"), at: now, policy: p, subject: f.Subject, method: MethodSMS}
			a.who = Identity{Subject: subject, Type: NaturalPerson, State: State(rapid.SampledFrom([]int{1, 1, 1, 2, 3}).Draw(r, "state"))}
			if rapid.Bool().Draw(r, "phone") {
				a.who.Phone = phone
			}
			a.challenge = f.Challenge
			foreign := rapid.IntRange(0, 4).Draw(r, "foreign") == 0
			if a.event == codeIssued || foreign {
				c, err := id.NewChallengeID(rand.Reader)
				a.challenge = must(t, c, err)
			}
			var n Flow
			var passed Passed
			var err error
			if a.event == authorised {
				n, passed, err = f.authorise(now, p)
			} else {
				n, err = f.next(a)
			}
			if err != nil {
				if n.Step != f.Step || n.Outcome != f.Outcome || n.WrongCode != f.WrongCode {
					r.Fatalf("%v changed the flow and failed: %v", a.event, err)
				}
				continue
			}
			switch {
			case f.due(now):
			case a.event == passwordRight && n.Step != StepDone:
				knows = true
			case a.event == codeRight:
				has = !foreign
			case a.event == passwordWrong:
				wrongPasswords++
			case a.event == codeWrong:
				wrongCodes++
			}
			if n.Outcome != f.Outcome {
				outcomes++
			}
			if n.Outcome == saml.Success && (passed == (Passed{}) || !knows || (n.Performed >= saml.L2 && !has) ||
				a.event != authorised || !satisfies(n.Performed, level, cmp) || n.Performed > saml.L2) {
				r.Fatalf("success without its reasons: %+v", n)
			}
			if passed != (Passed{}) && n.Outcome != saml.Success {
				r.Fatalf("a proof without success: %+v", n)
			}
			if (n.Step == StepDone) != (n.Outcome != 0) || outcomes > 1 {
				r.Fatalf("step %d, outcome %d, set %d times", n.Step, n.Outcome, outcomes)
			}
			if n.Step != StepDone && (wrongPasswords >= p.WrongPasswords || wrongCodes >= p.WrongCodes) {
				r.Fatalf("going on after %d wrong passwords and %d wrong codes", wrongPasswords, wrongCodes)
			}
			if n.CodesIssued > p.Codes {
				r.Fatalf("%d codes issued", n.CodesIssued)
			}
			f = n
		}
	})
}

func TestPolicyBounds(t *testing.T) {
	for name, p := range map[string]Policy{
		"ten minutes":  {FlowLife: 10 * time.Minute},
		"negative":     {FlowLife: -1},
		"four codes":   {WrongCodes: 4},
		"no passwords": {WrongPasswords: -1},
		"many codes":   {Codes: 21},
	} {
		if _, err := p.complete(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if p := policy(t); p.FlowLife != 8*time.Minute || p.WrongCodes != 3 || p.WrongPasswords != 3 {
		t.Errorf("defaults %+v", p)
	}
}
