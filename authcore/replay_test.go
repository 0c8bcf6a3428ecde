package authcore

import (
	"errors"
	"strings"
	"testing"
	"time"

	"custode/authcore/saml"
	"custode/internal/fault"
)

// replayed sends a request again that has its answer.
func replayed(t *testing.T, p Policy) (*bench, saml.Request) {
	t.Helper()
	b := newBenchWith(t, p)
	r := b.request(saml.L1, saml.Exact)
	b.response(b.startedWith(r), saml.Success, right, ConsentAnswer{})
	return b, r
}

// TestAnsweredRequestSentAgain: the SP is told with anomaly 11, at the place its
// request chose, and there is no second login.
func TestAnsweredRequestSentAgain(t *testing.T) {
	b, r := replayed(t, Policy{})
	flow, err := b.begin(t.Context(), r, spNames, visitor)
	var refused *saml.Refusal
	if !errors.As(err, &refused) || refused.Code != saml.BadID || !flow.IsZero() || refused.Reply.InResponseTo != r.ID ||
		refused.Reply.ACS != r.ACS || refused.Reply.RelayState != r.RelayState || !refused.Reply.HasRelayState {
		t.Fatalf("%v, %+v", err, refused)
	}
	if signed, err := b.Refuse(t.Context(), refused); err != nil || signed.Response.Code != saml.BadID {
		t.Errorf("%+v, %v", signed, err)
	}
	if !strings.Contains(b.logged.String(), "request sent again after its answer") {
		t.Error("not logged")
	}
}

// TestReplayPage is the other setting: a page for the person, nothing signed.
func TestReplayPage(t *testing.T) {
	b, r := replayed(t, Policy{ReplayPage: true})
	var refused *saml.Refusal
	if _, err := b.begin(t.Context(), r, spNames, visitor); !fault.Is(err, fault.Conflict) || errors.As(err, &refused) {
		t.Error(err)
	}
}

// TestFloodOfReplays: a request sent again and again has few answers signed; the
// rest cost none. After a pause there are more.
func TestFloodOfReplays(t *testing.T) {
	b, r := replayed(t, Policy{})
	count := func(n int) (refusals int) {
		for range n {
			_, err := b.begin(t.Context(), r, spNames, visitor)
			var refused *saml.Refusal
			if errors.As(err, &refused) {
				refusals++
			} else if !fault.Is(err, fault.Conflict) {
				t.Fatal(err)
			}
		}
		return refusals
	}
	if n := count(1000); n != replayRefusals {
		t.Errorf("%d refusals at once", n)
	}
	b.advance(3 * replayPause)
	if n := count(1000); n != 3 {
		t.Errorf("%d refusals after three pauses", n)
	}
	b.advance(replayPause / 2)
	b.advance(replayPause / 2)
	if n := count(1000); n != 1 {
		t.Errorf("%d refusals after two halves of a pause", n)
	}
	b.advance(time.Hour)
	if n := count(1000); n != replayRefusals {
		t.Errorf("%d refusals after an hour", n)
	}
	b.advance(-time.Hour) // a clock set back must not close it for good
	if n := count(1000); n != replayRefusals {
		t.Errorf("%d refusals with the clock set back", n)
	}
	if flows := len(b.store.flows); flows != 1 {
		t.Errorf("%d flows", flows)
	}
}

// TestOmitEmpty: by the policy, attributes without a value are sent empty or left
// out; the page shows what is sent.
func TestOmitEmpty(t *testing.T) {
	for omit, want := range map[bool]string{false: "fiscalNumber name spidCode mobilePhone unheardOf", true: "name spidCode mobilePhone"} {
		b := newBenchWith(t, Policy{OmitEmpty: omit})
		flow := b.started(saml.L1, saml.Exact)
		shown := b.page(flow, StepConsent, NoticeNone, right).Attributes
		b.response(flow, saml.Success, ConsentAnswer{})
		st := b.signer.statements[0]
		if got := names(shown); got != want || names(st.Attributes) != want {
			t.Errorf("omit %v: shown %q, asserted %q", omit, got, names(st.Attributes))
		}
		if got := strings.Join(st.Omitted, " "); omit && got != "fiscalNumber unheardOf" || !omit && got != "" {
			t.Errorf("omit %v: omitted %q", omit, got)
		}
		if !strings.Contains(b.logged.String(), "attributes without a value") {
			t.Error("not logged")
		}
	}
}

func names(all []saml.Attribute) string {
	var list []string
	for _, a := range all {
		list = append(list, a.Name)
	}
	return strings.Join(list, " ")
}
