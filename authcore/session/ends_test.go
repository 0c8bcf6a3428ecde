package session

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"custode/authcore/saml"
	"custode/authcore/saml/logout"
	"custode/internal/fault"
	"custode/internal/id"
)

func (b *bench) wantNotes(when string, want ...string) {
	b.t.Helper()
	if diff := cmp.Diff(want, b.store.noted()); diff != "" {
		b.t.Errorf("%s: %s", when, diff)
	}
}

// TestEndsAreNoted: each end of a session is in the security log with its session,
// who is told, and later what came of it.
func TestEndsAreNoted(t *testing.T) {
	b := newBench(t, Policy{})
	b.session("_s", spRedir, spNone)
	ctx := WithVisitor(t.Context(), netip.MustParseAddr("192.0.2.7"), "a browser")
	which, err := b.Leave(ctx, cookie("_s"), cookie("browser"))
	if err != nil {
		t.Fatal(err)
	}
	if n := b.store.notes; len(n) != 1 || n[0].Subject != b.who || n[0].Address.String() != "192.0.2.7" || n[0].Agent != "a browser" {
		t.Errorf("%+v", n)
	}
	b.wantNotes("by the subject", "session-ended  session _s: by the subject; 2 others to be told: "+spRedir+" "+spNone)
	b.step(which, Go)
	b.wantNotes("under way")
	if _, err := b.noted(t.Context(), logout.Response{SP: entity(spRedir), InResponseTo: b.part(which, spRedir).Request, Status: "urn:oasis:names:tc:SAML:2.0:status:Success"}); err != nil {
		t.Fatal(err)
	}
	b.wantNotes("told", "logout-told  session _s; not confirmed: "+spNone+"; confirmed: "+spRedir)
	b.step(which, Go)
	b.wantNotes("once")
}

func (b *bench) part(which id.LogoutID, sp string) Part {
	b.t.Helper()
	l, err := b.store.Logout(b.t.Context(), which)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, p := range l.Parts {
		if p.SP.String() == sp {
			return p
		}
	}
	b.t.Fatalf("%s is not told", sp)
	return Part{}
}

// TestSweep: what ends without a word is noted too, and what a crash kept from
// the log is noted later.
func TestSweep(t *testing.T) {
	b := newBench(t, Policy{Idle: 30 * time.Minute, Absolute: 2 * time.Hour})
	sweep := func(when string, want ...string) {
		t.Helper()
		if err := b.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.wantNotes(when, want...)
	}
	b.session("_idle", spRedir)
	sweep("young")
	b.now = b.now.Add(31 * time.Minute)
	sweep("idle", "session-ended  session _idle: its time was over; nobody is told")
	sweep("once")
	if _, err := b.Current(t.Context(), cookie("_idle")); !fault.Is(err, fault.NotFound) {
		t.Errorf("%v", err)
	}
	b.session("_replaced", spRedir)
	if err := b.store.EndSession(t.Context(), "_replaced", b.now, Logout{}); err != nil {
		t.Fatal(err)
	}
	sweep("just now")
	b.now = b.now.Add(time.Minute)
	sweep("replaced", "session-ended  session _replaced: another person logged in in the same browser, or its time was over; nobody is told")
	sweep("replaced, once")

	b.session("_s", spRedir)
	l, err := b.end(t.Context(), b.store.sessions["_s"], Initiator{SP: entity(spPost), Request: "_q", Binding: saml.Post}, cookie("browser"))
	if err != nil {
		t.Fatal(err)
	}
	b.store.noted()
	b.store.unnoted["_s"] = true // as if the process had died in between
	b.now = b.now.Add(time.Minute)
	sweep("after a crash", "session-ended "+spPost+" session _s: by a service provider; 1 others to be told: "+spRedir)
	b.now = l.Deadline.Add(time.Second)
	sweep("abandoned", "logout-told "+spPost+" session _s; not confirmed: "+spRedir+"; confirmed: none")
	sweep("abandoned, once")
}
