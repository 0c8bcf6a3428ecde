package authcore

import (
	"context"
	"crypto/rand"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"custode/authcore/saml"
	"custode/internal/fault"
	"custode/internal/id"
)

type result struct {
	out Outcome
	err error
}

// together gives the same answer n times at once, to the nodes in turn.
func together(t *testing.T, nodes []*Login, flow id.FlowID, a Answer, n int) []result {
	t.Helper()
	results := make([]result, n)
	var wg sync.WaitGroup
	gate := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-gate
			results[i].out, results[i].err = nodes[i%len(nodes)].Answer(t.Context(), flow, visitor, a)
		})
	}
	close(gate)
	wg.Wait()
	return results
}

// TestOneResponse: however often and wherever consent is clicked at once, one
// Response is signed, registered and handed out; nobody gets another.
func TestOneResponse(t *testing.T) {
	for range 30 {
		b := newBench(t)
		nodes := []*Login{b.Login, b.node(Policy{})}
		flow := b.started(saml.L2, saml.Exact)
		b.do(flow, right, sms, code)
		ids := map[string]bool{}
		for _, r := range together(t, nodes, flow, ConsentAnswer{}, 6) {
			switch {
			case r.err == nil && r.out.Response != nil:
				ids[r.out.Response.ID] = true
			case fault.Is(r.err, fault.Conflict):
			case r.err == nil && r.out.View.Notice == NoticeBusy:
			default:
				t.Fatalf("%+v, %v", r.out, r.err)
			}
		}
		if _, register := b.store.finished(); len(ids) != 1 || len(register) != 1 {
			t.Fatalf("%d Responses left, %d registered", len(ids), len(register))
		}
	}
}

// TestDoubleWrong: wrong passwords that arrive together, here and on another
// node, are one wrong password of the flow; but each that was looked at is a
// failure of the username.
func TestDoubleWrong(t *testing.T) {
	b := newBench(t)
	nodes := []*Login{b.Login, b.node(Policy{})}
	flow := b.started(saml.L1, saml.Exact)
	// Both nodes are in the hash at the same time; what comes behind them on
	// the first waits for its turn and finds the flow moved.
	var both sync.WaitGroup
	both.Add(2)
	b.pepper.gate = func() { both.Done(); both.Wait() }
	results := together(t, nodes, flow, wrong, 2)
	for _, r := range results {
		if r.err != nil || r.out.View == nil || r.out.View.Step != StepCredentials {
			t.Fatalf("%+v, %v", r.out, r.err)
		}
	}
	if f := b.store.flows[flow]; f.WrongPassword != 1 {
		t.Errorf("%d wrong passwords in the flow, want 1", f.WrongPassword)
	}
	if n := b.store.tally[usernameKey("mario.rossi")].Failures; n != 2 {
		t.Errorf("%d failures of the username, want 2", n)
	}
}

// TestDoubleClickOnOneNode holds the first click inside the hash until the
// second waits behind it: the second is not looked at and gets the page the
// first led to.
func TestDoubleClickOnOneNode(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer Answer
		step   Step
		hashes int64
	}{
		{"wrong", wrong, StepCredentials, 1},
		{"right", right, StepMethod, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				flow := b.started(saml.L2, saml.Exact)
				hold := make(chan struct{})
				b.pepper.gate = func() { <-hold }
				before := b.hashes.Load()
				results := make(chan result, 2)
				for range 2 {
					go func() {
						out, err := b.Answer(t.Context(), flow, visitor, c.answer)
						results <- result{out, err}
					}()
					synctest.Wait()
				}
				close(hold)
				for range 2 {
					r := <-results
					if r.err != nil || r.out.View == nil || r.out.View.Step != c.step {
						t.Fatalf("%+v, %v", r.out, r.err)
					}
				}
				if n := b.hashes.Load() - before; n != c.hashes {
					t.Errorf("%d hashes, want %d", n, c.hashes)
				}
				if f := b.store.flows[flow]; f.WrongPassword > 1 {
					t.Errorf("%d wrong passwords", f.WrongPassword)
				}
			})
		})
	}
}

// TestOneMessage: a double click on the method sends one code, and the code
// that was sent is the one that counts.
func TestOneMessage(t *testing.T) {
	for range 30 {
		b := newBench(t)
		nodes := []*Login{b.Login, b.node(Policy{})}
		flow := b.started(saml.L2, saml.Exact)
		b.do(flow, right)
		for _, r := range together(t, nodes, flow, sms, 4) {
			if r.err != nil || r.out.View == nil {
				t.Fatalf("%+v, %v", r.out, r.err)
			}
		}
		if n := len(b.vault.issued); n != 1 {
			t.Fatalf("%d codes issued, want 1", n)
		}
		b.page(flow, StepConsent, NoticeNone, code)
	}
}

// TestOneCode: a right code that is sent twice at once opens the consent page
// and is never told to be used up on the node that burned it.
func TestOneCode(t *testing.T) {
	for range 30 {
		b := newBench(t)
		flow := b.started(saml.L2, saml.Exact)
		b.do(flow, right, sms)
		for _, r := range together(t, []*Login{b.Login}, flow, code, 3) {
			if r.err != nil || r.out.View == nil || r.out.View.Step != StepConsent {
				t.Fatalf("%+v, %v", r.out, r.err)
			}
		}
	}
}

// TestParallelGuesses: guesses at one username from many flows at once go one
// by one, and stop being looked at where the slow-down begins.
func TestParallelGuesses(t *testing.T) {
	b := newBench(t)
	before := b.hashes.Load()
	var wg sync.WaitGroup
	for range 8 {
		flow := b.started(saml.L1, saml.Exact)
		wg.Go(func() {
			if out, err := b.Answer(t.Context(), flow, visitor, wrong); err != nil || out.View == nil {
				t.Errorf("%+v, %v", out, err)
			}
		})
	}
	wg.Wait()
	if n := b.hashes.Load() - before; n != 3 {
		t.Errorf("%d guesses were looked at, want 3", n)
	}
}

// TestHangingUpDoesNotUndo: a person who hangs up during the hash is counted.
func TestHangingUpDoesNotUndo(t *testing.T) {
	b := newBench(t)
	flow := b.started(saml.L1, saml.Exact)
	ctx, hangUp := context.WithCancel(t.Context())
	b.pepper.gate = hangUp
	if _, err := b.Answer(ctx, flow, visitor, wrong); err != nil {
		t.Fatal(err)
	}
	if n := b.store.tally[usernameKey("mario.rossi")].Failures; n != 1 || b.store.flows[flow].WrongPassword != 1 {
		t.Errorf("%d failures counted, want 1", n)
	}
}

// TestSecondClickGetsTheResponse: the browser drops the answer to the first
// click on the last button; the second, waiting behind it, must carry the same
// Response or the login is lost.
func TestSecondClickGetsTheResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		flow := b.started(saml.L1, saml.Exact)
		b.do(flow, right)
		hold := make(chan struct{})
		b.signer.gate = func() { <-hold }
		results := make(chan result, 3)
		for _, a := range []Answer{ConsentAnswer{}, ConsentAnswer{}, RefuseAnswer{}} {
			go func() {
				out, err := b.Answer(t.Context(), flow, visitor, a)
				results <- result{out, err}
			}()
			synctest.Wait()
		}
		close(hold)
		for range 3 {
			if r := <-results; r.err != nil || r.out.Response == nil || r.out.Response.ID != "_r1" || r.out.Response.Code != saml.Success {
				t.Fatalf("%+v, %v", r.out, r.err)
			}
		}
		if _, register := b.store.finished(); len(register) != 1 {
			t.Errorf("%d registered", len(register))
		}
	})
}

// TestLateSecondClick: the first answer may have left when the second click
// comes. For a moment the same browser gets the same Response again, on the node
// that signed it; nobody else does, nor anybody by asking for the page.
func TestLateSecondClick(t *testing.T) {
	b := newBench(t)
	flow := b.started(saml.L1, saml.Exact)
	first := b.response(flow, saml.Success, right, ConsentAnswer{})
	other := visitor
	other.Browser[0]++
	for _, a := range []Answer{ConsentAnswer{}, CancelAnswer{}} {
		if again := b.response(flow, saml.Success, a); again.ID != first.ID {
			t.Errorf("another Response: %s, %s", first.ID, again.ID)
		}
		if out, err := b.Answer(t.Context(), flow, other, a); !fault.Is(err, fault.Denied) || !out.empty() {
			t.Errorf("another browser: %+v, %v", out, err)
		}
		if out, err := b.Answer(t.Context(), flow, Visitor{}, a); !fault.Is(err, fault.Denied) || !out.empty() {
			t.Errorf("no cookie: %+v, %v", out, err)
		}
		if _, err := b.node(Policy{}).Answer(t.Context(), flow, visitor, a); !fault.Is(err, fault.Conflict) {
			t.Errorf("another node: %v", err)
		}
		if _, err := b.View(t.Context(), flow, visitor); !fault.Is(err, fault.Conflict) {
			t.Errorf("the page: %v", err)
		}
	}
	if _, register := b.store.finished(); len(register) != 1 || b.signer.made.Load() != 1 {
		t.Errorf("%d registered, %d signed", len(register), b.signer.made.Load())
	}
	b.advance(departureLife)
	if out, err := b.Answer(t.Context(), flow, visitor, ConsentAnswer{}); !fault.Is(err, fault.Conflict) || !out.empty() {
		t.Errorf("later: %+v, %v", out, err)
	}
}

func TestDeparturesAreBounded(t *testing.T) {
	d := departures{Life: departureLife, Most: maxDepartures}
	var flows []id.FlowID
	for range maxDepartures + 1 {
		flow, err := id.NewFlowID(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		flows = append(flows, flow)
		d.Keep(flow, Outcome{}, start)
	}
	if _, ok := d.Recall(flows[0], start); ok {
		t.Error("more are kept than may be")
	}
	if _, ok := d.Recall(flows[1], start.Add(departureLife-1)); !ok {
		t.Error("the second is gone")
	}
	if _, ok := d.Recall(flows[1], start.Add(departureLife)); ok {
		t.Error("kept too long")
	}
}

// TestTooManyClicks: whoever clicks more than a person does is told at once
// that the node is busy, and nothing is left behind in the lanes.
func TestTooManyClicks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		flow := b.started(saml.L1, saml.Exact)
		hold := make(chan struct{})
		b.pepper.gate = func() { <-hold }
		results := make(chan result, waitPerFlow+2)
		for range waitPerFlow + 2 {
			go func() {
				out, err := b.Answer(t.Context(), flow, visitor, wrong)
				results <- result{out, err}
			}()
		}
		synctest.Wait()
		r := <-results
		if r.err != nil || r.out.View == nil || r.out.View.Notice != NoticeBusy {
			t.Fatalf("%+v, %v", r.out, r.err)
		}
		close(hold)
		for range waitPerFlow + 1 {
			<-results
		}
		if !b.turns.Idle() || !b.guesses.Idle() {
			t.Error("lanes left")
		}
	})
}

// gated is a vault that looks at codes only when the gate opens.
type gated struct {
	*vault
	looked atomic.Int32
	gate   chan struct{}
}

func (g *gated) Verify(ctx context.Context, c id.ChallengeID, f id.FlowID, s id.Subject, code string) (int, error) {
	g.looked.Add(1)
	<-g.gate
	return g.vault.Verify(ctx, c, f, s, code)
}

// TestTenthWrongCodeOfManyFlows: the wrong code that blocks a subject's codes is looked at alone, however many of their
// flows ask at the same moment.
func TestTenthWrongCodeOfManyFlows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		g := &gated{vault: b.vault, gate: make(chan struct{})}
		b.Login.codes = g
		var flows []id.FlowID
		for range 5 {
			flow := b.started(saml.L2, saml.Exact)
			b.do(flow, right, sms)
			flows = append(flows, flow)
		}
		for range b.policy.BlockCodes - 1 {
			if _, err := b.store.CountFailure(t.Context(), codeKey(b.mario.Subject), b.time()); err != nil {
				t.Fatal(err)
			}
		}
		for _, flow := range flows {
			go func() {
				if _, err := b.Answer(t.Context(), flow, visitor, CodeAnswer{Code: "000000"}); err != nil {
					t.Error(err)
				}
			}()
		}
		synctest.Wait()
		close(g.gate)
		synctest.Wait()
		if n := g.looked.Load(); n != 1 {
			t.Errorf("%d codes were looked at", n)
		}
	})
}
