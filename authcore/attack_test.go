package authcore

import (
	"fmt"
	"testing"

	"custode/authcore/saml"
	"custode/internal/fault"
)

// TestAnsweredRequestBuysNoGuesses: two flows of one request, the first is
// cancelled. The third wrong password of the second cannot end it any more (the
// request is answered), so the flow stands still; the failures must count all
// the same, or whoever arranges this guesses without limit.
func TestAnsweredRequestBuysNoGuesses(t *testing.T) {
	b := newBench(t)
	r := b.request(saml.L1, saml.Exact)
	burned, flow := b.startedWith(r), b.startedWith(r)
	b.response(burned, saml.Cancelled, CancelAnswer{})
	before := b.hashes.Load()
	const tries = 20
	for i := range tries {
		a := PasswordAnswer{Username: "mario.rossi", Password: fmt.Sprintf("guess %d", i)}
		if out, err := b.Answer(t.Context(), flow, visitor, a); err == nil && out.Response != nil {
			t.Fatalf("a Response: %+v", out.Response)
		} else if err != nil && !fault.Is(err, fault.Conflict) {
			t.Fatal(err)
		}
	}
	if n := b.hashes.Load() - before; n > 3 {
		t.Errorf("%d of %d passwords were looked at without a pause, want 3", n, tries)
	}
}

// TestPurposeIsNotIgnored: who asks for a professional or a legal person must
// not be answered with a citizen (SPID Avviso 18 v2; anomaly 30), and is told so
// after the password only.
func TestPurposeIsNotIgnored(t *testing.T) {
	for _, purpose := range []string{"P", "LP", "PG", "PF", "PX"} {
		b := newBench(t)
		r := b.request(saml.L1, saml.Exact)
		r.Purpose = purpose
		flow := b.startedWith(r)
		b.page(flow, StepCredentials, NoticeWrongCredentials, wrong)
		b.response(flow, saml.WrongIdentityType, right)
	}
}
