package authcore

import (
	"errors"
	"slices"
	"testing"

	"custode/authcore/register"
	"custode/authcore/saml"
	"custode/internal/fault"
)

// TestRecordedBeforeItLeaves: each Response that left is in the register, with
// the octets of both messages, after the store took the claim.
func TestRecordedBeforeItLeaves(t *testing.T) {
	b := newBench(t)
	flow := b.started(saml.L2, saml.Exact)
	b.do(flow, right, sms, code)
	b.ledger.recording = func() {
		if len(b.store.register) != 1 {
			t.Error("recorded before the request was claimed")
		}
		if _, ok := b.gone.Recall(flow, b.time()); ok {
			t.Error("can be sent again before it was recorded")
		}
	}
	out, err := b.Answer(t.Context(), flow, visitor, ConsentAnswer{})
	if err != nil || !register.Proved(out.Proof) {
		t.Fatalf("%+v, %v", out, err)
	}
	if len(b.ledger.kept) != 1 {
		t.Fatalf("%d records", len(b.ledger.kept))
	}
	k := b.ledger.kept[0]
	if k.SPIDCode != b.mario.SPIDCode || k.Level != saml.L2 || !slices.Equal(k.Credentials, []string{"password", "sms"}) ||
		string(k.Response.XML) != string(out.Response.XML) || k.RequestID == "" {
		t.Errorf("recorded: %+v", k)
	}
	// The second click gets the first proof; nothing is recorded twice.
	again, err := b.Answer(t.Context(), flow, visitor, ConsentAnswer{})
	if err != nil || again.Proof != out.Proof || len(b.ledger.kept) != 1 {
		t.Errorf("second click: %+v, %v, %d records", again, err, len(b.ledger.kept))
	}
}

// TestRegisterFails: no proof, no Response, neither at once nor later.
func TestRegisterFails(t *testing.T) {
	for name, breaks := range map[string]func(*ledger){
		"append": func(r *ledger) { r.fails = errors.New("disk full") },
		"proof":  func(r *ledger) { r.noProof = true },
	} {
		for _, a := range []Answer{ConsentAnswer{}, CancelAnswer{}} {
			b := newBench(t)
			flow := b.started(saml.L1, saml.Exact)
			b.do(flow, right)
			breaks(&b.ledger)
			out, err := b.Answer(t.Context(), flow, visitor, a)
			if !fault.Is(err, fault.Internal) || out.Response != nil {
				t.Errorf("%s, %T: %+v, %v", name, a, out, err)
			}
			b.ledger.fails, b.ledger.noProof = nil, false
			if out, err := b.Answer(t.Context(), flow, visitor, a); !fault.Is(err, fault.Conflict) || out.Response != nil {
				t.Errorf("%s, %T, again: %+v, %v", name, a, out, err)
			}
			if !slices.ContainsFunc(b.ledger.noted, func(i register.Incident) bool { return i.What == register.NotRecorded }) {
				t.Errorf("%s, %T: not noted: %v", name, a, b.ledger.noted)
			}
		}
		b := newBench(t)
		breaks(&b.ledger)
		r := b.request(saml.L1, saml.Exact)
		to := r.Reply()
		if out, err := b.Refuse(t.Context(), &saml.Refusal{Code: saml.Passive, Reply: &to}); !fault.Is(err, fault.Internal) || out.Response != nil {
			t.Errorf("%s, refusal: %+v, %v", name, out, err)
		}
	}
}

// TestRegisterDown: nothing begins, and what is under way does not spend its
// request: it ends well when the register is back.
func TestRegisterDown(t *testing.T) {
	b := newBench(t)
	flow := b.started(saml.L1, saml.Exact)
	b.do(flow, right)
	b.ledger.down = errors.New("cannot be written")
	if _, err := b.begin(t.Context(), b.request(saml.L1, saml.Exact), spNames, visitor); !fault.Is(err, fault.Internal) {
		t.Errorf("begin: %v", err)
	}
	if out, err := b.Answer(t.Context(), flow, visitor, ConsentAnswer{}); !fault.Is(err, fault.Internal) || out.Response != nil {
		t.Errorf("consent: %+v, %v", out, err)
	}
	b.ledger.down = nil
	if out, err := b.Answer(t.Context(), flow, visitor, ConsentAnswer{}); err != nil || out.Response == nil || out.Response.Code != saml.Success {
		t.Errorf("after it came back: %+v, %v", out, err)
	}
}

// TestIncidents: failures are noted with the visitor, never with what was typed.
func TestIncidents(t *testing.T) {
	b := newBench(t)
	flow := b.started(saml.L2, saml.Exact)
	b.do(flow, wrong, right, sms, CodeAnswer{"271828"})
	b.response(flow, saml.Cancelled, CancelAnswer{})
	var what []register.Happening
	for _, i := range b.ledger.noted {
		what = append(what, i.What)
		if i.Address != visitor.Address || i.Flow != flow || i.SP.IsZero() {
			t.Errorf("noted: %+v", i)
		}
	}
	if !slices.Equal(what, []register.Happening{register.PasswordWrong, register.CodeWrong, register.LoginFailed}) {
		t.Errorf("noted %v", what)
	}
	if last := b.ledger.noted[2]; last.Code != saml.Cancelled || last.Subject != b.mario.Subject {
		t.Errorf("the end: %+v", last)
	}
}
