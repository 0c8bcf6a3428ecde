package web

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"custode/authcore"
	"custode/authcore/saml"
	"custode/internal/fault"
	"custode/internal/id"
)

// TestDoubleClickOnTheLastButton sends the consent twice at once: the flow is
// answered once, and both requests get the same Response.
func TestDoubleClickOnTheLastButton(t *testing.T) {
	room := newRoom(t, nil)
	now := testNow
	room.cfg.Now = func() time.Time { return now }
	inside, release := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	calls := 0
	room.logins.answer = func(id.FlowID, authcore.Visitor, authcore.Answer) (authcore.Outcome, error) {
		mu.Lock()
		calls++
		first := calls == 1
		mu.Unlock()
		if !first {
			return authcore.Outcome{}, fault.New(fault.Conflict, "answer", nil)
		}
		close(inside)
		<-release
		return authcore.Outcome{Response: testSigned(saml.Success)}, nil
	}
	consent := func(f url.Values, _ *request) { f.Set("action", "consent") }
	got := make(chan answer, 2)
	go func() { got <- postFlow(t, room, consent) }()
	<-inside
	go func() { got <- postFlow(t, room, consent) }()
	close(release)
	value := map[string]int{}
	for range 2 {
		a := <-got
		if a.status != http.StatusOK {
			t.Fatalf("%d", a.status)
		}
		value[between(t, string(a.body), `name="SAMLResponse" value="`, `"`)]++
	}
	if len(value) != 1 || calls != 2 {
		t.Errorf("%d Responses, %d calls", len(value), calls)
	}

	// Another browser gets nothing, and after a moment nobody does.
	flow := mustFlow(t, testFlowText)
	other, _ := newSecret(&counter{n: 5})
	c, _, _ := strings.Cut(other.cookie(flow, time.Minute), ";")
	a := postFlow(t, room, func(f url.Values, r *request) {
		consent(f, r)
		f.Set("token", other.formToken(flow))
		r.cookies = c
	})
	if a.status != http.StatusSeeOther {
		t.Errorf("another browser: %d", a.status)
	}
	now = now.Add(handedLife)
	if a := postFlow(t, room, consent); a.status != http.StatusSeeOther {
		t.Errorf("later: %d", a.status)
	}
}

func TestHandedIsBounded(t *testing.T) {
	var h handed
	flowOf := func(n uint64) id.FlowID {
		f, err := id.NewFlowID(&counter{n: n})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	for i := range maxHanded {
		leave, ok := h.enter(t.Context(), flowOf(uint64(i)*2), testNow)
		if !ok {
			t.Fatalf("flow %d was refused", i)
		}
		h.keep(flowOf(uint64(i)*2), [32]byte{1}, testSigned(saml.Success), testNow)
		leave()
	}
	extra := flowOf(1 << 20)
	leave, ok := h.enter(t.Context(), extra, testNow)
	if !ok || len(h.flows) != maxHanded {
		t.Fatalf("in a rush an old one goes: %v, %d", ok, len(h.flows))
	}
	leave()
	leave, ok = h.enter(t.Context(), extra, testNow.Add(handedLife))
	if !ok || len(h.flows) != 1 {
		t.Fatalf("what is over was kept: %d", len(h.flows))
	}
	// Waiting for a turn ends with the request.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, ok := h.enter(ctx, extra, testNow); ok {
		t.Error("two answers at once")
	}
	var leaves []func()
	for i := range maxHanded - 1 {
		leave, ok := h.enter(t.Context(), flowOf(uint64(i)*2), testNow)
		if !ok {
			t.Fatalf("flow %d was refused", i)
		}
		leaves = append(leaves, leave)
	}
	if _, ok := h.enter(t.Context(), flowOf(1<<21), testNow); ok {
		t.Error("more answers at once than the limit")
	}
	for _, l := range append(leaves, leave) {
		l()
	}
	if len(h.flows) != 0 {
		t.Errorf("%d flows are kept without a Response", len(h.flows))
	}
}
