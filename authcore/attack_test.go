package authcore

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"custode/authcore/saml"
	"custode/internal/fault"
	"custode/internal/id"
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
	if n := b.store.tally[usernameKey("mario.rossi")].Failures; n != 3 {
		t.Errorf("%d failures were counted, want 3", n)
	}
}

// TestSprayingTakesTurns: guesses at many usernames that arrive together from one
// network see each other, not only what was counted before them.
func TestSprayingTakesTurns(t *testing.T) {
	b := newBenchWith(t, Policy{NetworkFree: 5})
	const tries = 40
	flows := make([]id.FlowID, tries)
	for i := range flows {
		flows[i] = b.started(saml.L1, saml.Exact)
	}
	hold := make(chan struct{})
	b.pepper.gate = func() { <-hold }
	before := b.hashes.Load()
	var looked, waited atomic.Int64
	var wg sync.WaitGroup
	for i, flow := range flows {
		wg.Go(func() {
			a := PasswordAnswer{Username: fmt.Sprintf("user%d", i), Password: "the same for all"}
			out, err := b.Answer(t.Context(), flow, visitor, a)
			switch {
			case err != nil:
				t.Error(err)
			case out.View.Notice == NoticeWait:
				if waited.Add(1) == tries-5 {
					close(hold)
				}
			default:
				looked.Add(1)
			}
		})
	}
	go func() { // without the limit nobody would ever be told to wait
		for b.pepper.calls.Load() < tries {
			if waited.Load() > 0 {
				return
			}
			runtime.Gosched()
		}
		close(hold)
	}()
	wg.Wait()
	if n := b.hashes.Load() - before; n > 5 {
		t.Errorf("%d passwords were looked at, want 5", n)
	}
}

// TestLoopbackIsNoNetwork: behind a TLS terminator on the same box everybody
// comes from 127.0.0.1; thirty wrong passwords must not slow everybody down.
func TestLoopbackIsNoNetwork(t *testing.T) {
	b := newBench(t)
	local := Visitor{Browser: visitor.Browser, Address: netip.MustParseAddr("::ffff:127.0.0.1")}
	for i := range 40 {
		flow := b.started(saml.L1, saml.Exact)
		a := PasswordAnswer{Username: fmt.Sprintf("user%d", i), Password: "wrong"}
		if out, err := b.Answer(t.Context(), flow, local, a); err != nil || out.View.Notice != NoticeWrongCredentials {
			t.Fatalf("%d: %+v %v", i, out.View, err)
		}
	}
}

// TestWrongCodesBlock: whoever has the password and begins login after login may
// not guess codes for ever (rule F2: ten in a row block the credential).
func TestWrongCodesBlock(t *testing.T) {
	b := newBench(t)
	for range 3 {
		flow := b.started(saml.L2, saml.Exact)
		b.do(flow, right, sms)
		b.response(flow, saml.TooManyAttempts, CodeAnswer{Code: "000000"}, CodeAnswer{Code: "000001"}, CodeAnswer{Code: "000002"})
	}
	open := b.started(saml.L2, saml.Exact)
	b.do(open, right, sms)
	b.page(open, StepCode, NoticeWrongCode, CodeAnswer{Code: "000000"})
	b.response(open, saml.NotActive, code)
	b.response(b.started(saml.L2, saml.Exact), saml.NotActive, right, sms)
	b.response(b.started(saml.L1, saml.Exact), saml.Success, right, ConsentAnswer{})
	b.advance(tallyLife)
	b.response(b.started(saml.L2, saml.Exact), saml.Success, right, sms, code, ConsentAnswer{})
	if n := b.store.tally[codeKey(b.mario.Subject)].Failures; n != 0 {
		t.Errorf("%d failures remain after a right code", n)
	}
}

// TestRefusalsLeaveRoom: an old request, rightly signed and sent again and again,
// has us sign an error Response each time. That must not take the HSM from the
// logins: one at a time, a bounded queue, the rest is told to come back.
func TestRefusalsLeaveRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		hold := make(chan struct{})
		var signing atomic.Int64
		b.signer.gate = func() { signing.Add(1); <-hold }
		r := b.request(saml.L1, saml.Exact)
		to := r.Reply()
		var busy atomic.Int64
		for range 100 {
			go func() {
				_, err := b.Refuse(t.Context(), &saml.Refusal{Code: saml.BadIssueInstant, Reply: &to, Err: errors.New("old")})
				if fault.Is(err, fault.Busy) {
					busy.Add(1)
				} else if err != nil {
					t.Error(err)
				}
			}()
		}
		synctest.Wait()
		if n := signing.Load(); n != 1 || busy.Load() != 100-1-waitToRefuse {
			t.Errorf("%d refusals are being signed, %d were turned away", n, busy.Load())
		}
		close(hold)
	})
}

// TestDeadFlowSignsNothing: a flow whose request was answered in another flow is
// over; it must not have the HSM sign one more useless Response per click.
func TestDeadFlowSignsNothing(t *testing.T) {
	for _, late := range []time.Duration{0, time.Hour} {
		b := newBench(t)
		r := b.request(saml.L1, saml.Exact)
		first, dead := b.startedWith(r), b.startedWith(r)
		b.response(first, saml.Cancelled, CancelAnswer{})
		b.advance(late)
		for range 10 {
			_, err := b.Answer(t.Context(), dead, visitor, CancelAnswer{})
			if !fault.Is(err, fault.Conflict) {
				t.Fatalf("got %v", err)
			}
			if _, err = b.View(t.Context(), dead, visitor); !fault.Is(err, fault.Conflict) {
				t.Fatalf("got %v", err)
			}
		}
		if n := b.signer.made.Load(); n > 2 {
			t.Errorf("%d Responses were signed for two flows", n)
		}
	}
}
