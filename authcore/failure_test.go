package authcore

import (
	"errors"
	"testing"

	"custode/authcore/saml"
	"custode/internal/fault"
)

// TestStoreFailsAnywhere lets each single call to the store fail during a whole
// login at level 2. The person who tries again always arrives, with exactly one
// Response registered and handed out, and no failure is held against them.
func TestStoreFailsAnywhere(t *testing.T) {
	failed := 0
	for n := 1; n < 60; n++ {
		b := newBench(t)
		flow := b.started(saml.L2, saml.Exact)
		b.store.total, b.store.failAt = 0, n
		var got *saml.Signed
		hit := false
		var next Answer = right
		for range 12 {
			out, err := b.Answer(t.Context(), flow, visitor, next)
			if err != nil {
				if !fault.Is(err, fault.Unavailable) || hit {
					t.Fatalf("call %d: %v", n, err)
				}
				hit = true
				if out, err = b.View(t.Context(), flow, visitor); err != nil {
					t.Fatalf("call %d, view: %v", n, err)
				}
			}
			if got = out.Response; got != nil {
				break
			}
			next = answerTo(*out.View)
		}
		_, register := b.store.finished()
		if got == nil || got.Code != saml.Success || len(register) != 1 || register[0].Response.ID != got.ID {
			t.Fatalf("call %d: Response %+v, %d registered", n, got, len(register))
		}
		if b.store.tally[usernameKey("mario.rossi")].Failures != 0 {
			t.Errorf("call %d: a failure was counted", n)
		}
		if hit {
			failed++
		}
	}
	if failed < 15 {
		t.Errorf("only %d calls failed: the test does not reach the end", failed)
	}
}

// answerTo is what a patient person does on a page.
func answerTo(v View) Answer {
	switch {
	case v.Step == StepCredentials:
		return right
	case v.Step == StepMethod:
		return sms
	case v.Step == StepCode && v.Notice == NoticeUsedCode:
		return ResendAnswer{}
	case v.Step == StepCode:
		return code
	}
	return ConsentAnswer{}
}

// TestTroubleIsNotAnAnswer: what fails for other reasons than the person's is
// neither a wrong password nor a wrong code.
func TestTroubleIsNotAnAnswer(t *testing.T) {
	b := newBench(t)
	flow := b.started(saml.L2, saml.Exact)
	b.pepper.fail = fault.Newf(fault.Unavailable, "mac", "token gone")
	for _, a := range []Answer{right, wrong, PasswordAnswer{"nobody.here", "x"}} {
		if _, err := b.Answer(t.Context(), flow, visitor, a); !fault.Is(err, fault.Unavailable) {
			t.Errorf("password without a token: %v", err)
		}
	}
	b.pepper.fail = fault.Newf(fault.Busy, "mac", "queue full")
	b.page(flow, StepCredentials, NoticeBusy, right)
	b.pepper.fail = nil
	b.do(flow, right, sms)
	b.vault.broken = errors.New("token gone")
	if _, err := b.Answer(t.Context(), flow, visitor, code); err == nil {
		t.Error("a code was judged without a token")
	}
	b.vault.broken = nil
	if f := b.store.flows[flow]; f.WrongPassword != 0 || f.WrongCode != 0 || len(b.store.tally) != 0 {
		t.Errorf("trouble was counted: %+v", f)
	}
	b.response(flow, saml.Success, code, ConsentAnswer{})
}

// TestSubjectVanished: a flow whose subject is gone is not an unknown flow.
func TestSubjectVanished(t *testing.T) {
	b := newBench(t)
	flow := b.started(saml.L1, saml.Exact)
	b.do(flow, right)
	delete(b.store.people, b.mario.Subject)
	if _, err := b.View(t.Context(), flow, visitor); !fault.Is(err, fault.Internal) {
		t.Errorf("view: %v", err)
	}
	if _, err := b.Answer(t.Context(), flow, visitor, ConsentAnswer{}); !fault.Is(err, fault.Internal) {
		t.Errorf("answer: %v", err)
	}
}

// TestMalformedRow: a stored password nobody wrote opens nothing and is an
// error for an operator, not a wrong password.
func TestMalformedRow(t *testing.T) {
	b := newBench(t)
	b.mario.Password = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub+b"
	b.store.put(b.mario)
	if out, err := b.Answer(t.Context(), b.started(saml.L1, saml.Exact), visitor, right); !fault.Is(err, fault.Internal) || !out.empty() {
		t.Errorf("%+v, %v", out, err)
	}
}

// TestResponseMustSayTheOutcome: a signer that answers something else than was
// asked for is not believed.
func TestResponseMustSayTheOutcome(t *testing.T) {
	b := newBench(t)
	flow := b.started(saml.L1, saml.Exact)
	b.signer.lie = true
	if out, err := b.Answer(t.Context(), flow, visitor, CancelAnswer{}); !fault.Is(err, fault.Internal) || !out.empty() {
		t.Errorf("%+v, %v", out, err)
	}
	if _, register := b.store.finished(); len(register) != 0 {
		t.Error("a lie was registered")
	}
}

// TestSuccessTakesAProof: the ways out of a flow refuse a success that the
// machine did not prove, whoever calls them.
func TestSuccessTakesAProof(t *testing.T) {
	b := newBench(t)
	flow, other := b.started(saml.L1, saml.Exact), b.started(saml.L1, saml.Exact)
	b.do(flow, right)
	b.do(other, right)
	f := b.store.flows[flow]
	done, _, err := f.authorise(b.time(), b.policy)
	must(t, done, err)
	_, foreign, err := b.store.flows[other].authorise(b.time(), b.policy)
	must(t, foreign, err)
	for name, p := range map[string]Passed{"none": {}, "another flow's": foreign} {
		if out, err := b.succeed(t.Context(), done, b.mario, p, Visitor{}); !fault.Is(err, fault.Internal) || !out.empty() {
			t.Errorf("proof %s: %+v, %v", name, out, err)
		}
	}
	if out, err := b.commit(t.Context(), done, b.mario, note{}); !fault.Is(err, fault.Internal) || !out.empty() {
		t.Errorf("committed without a proof: %+v, %v", out, err)
	}
	if len(b.signer.statements) != 0 || b.store.flows[flow].Step != StepConsent {
		t.Error("something was signed or stored")
	}
}

// TestSuspendedAtTheLastMoment: between reading the identity and recording the
// success it is suspended; the store notices, and 23 leaves instead.
func TestSuspendedAtTheLastMoment(t *testing.T) {
	b := newBench(t)
	flow := b.started(saml.L1, saml.Exact)
	b.do(flow, right)
	b.store.early = func() {
		who := b.store.people[b.mario.Subject]
		who.State = Suspended
		b.store.people[b.mario.Subject] = who
	}
	b.response(flow, saml.NotActive, ConsentAnswer{})
	ended, register := b.store.finished()
	if len(register) != 1 || ended[0].Outcome != saml.NotActive {
		t.Errorf("register %+v", register)
	}
}

// TestBusyIsNotCounted: overload costs nobody an attempt.
func TestBusyIsNotCounted(t *testing.T) {
	b := newBench(t)
	flow := b.started(1, 0)
	b.full.Store(true)
	b.page(flow, StepCredentials, NoticeBusy, right)
	if len(b.store.tally) != 0 || b.store.flows[flow].Version != 1 {
		t.Error("a busy answer was counted")
	}
}
