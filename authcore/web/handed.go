package web

import (
	"context"
	"sync"
	"time"

	"custode/authcore"
	"custode/authcore/saml"
	"custode/internal/fault"
	"custode/internal/id"
)

const (
	handedLife = 30 * time.Second
	maxHanded  = 4096
)

// handed remembers for a moment which Response a flow ended with, for the same
// browser only. A double click on the last button makes the browser drop the
// first answer and ask again; without this the Response, signed and recorded,
// would never leave, and the login would be lost. The very same octets go out:
// nothing is signed twice.
//
// It also lets the answers of one flow pass one by one, so that the second
// click finds what the first one brought.
type handed struct {
	mu    sync.Mutex
	flows map[id.FlowID]*handedFlow
	swept time.Time
}

type handedFlow struct {
	busy     chan struct{} // holds one value while an answer is under way
	users    int
	browser  [32]byte
	response *saml.Signed
	until    time.Time
}

// enter waits for the flow's turn. The returned function must be called once;
// false when ctx ended or too many flows are being answered.
func (h *handed) enter(ctx context.Context, flow id.FlowID, now time.Time) (leave func(), ok bool) {
	h.mu.Lock()
	f := h.flows[flow]
	if f == nil {
		if !h.room(now) {
			h.mu.Unlock()
			return nil, false
		}
		f = &handedFlow{busy: make(chan struct{}, 1)}
		if h.flows == nil {
			h.flows = map[id.FlowID]*handedFlow{}
		}
		h.flows[flow] = f
	}
	f.users++
	h.mu.Unlock()
	out := func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if f.users--; f.users == 0 && f.response == nil {
			delete(h.flows, flow)
		}
	}
	select {
	case f.busy <- struct{}{}:
		return func() { <-f.busy; out() }, true
	case <-ctx.Done():
		out()
		return nil, false
	}
}

// room forgets what is over, and in a rush something that is not, and reports
// whether one more flow fits; h.mu is held.
func (h *handed) room(now time.Time) bool {
	if now.Sub(h.swept) >= time.Second || len(h.flows) >= maxHanded {
		h.swept = now
		for flow, f := range h.flows {
			if f.users == 0 && !now.Before(f.until) {
				delete(h.flows, flow)
			}
		}
	}
	if len(h.flows) < maxHanded {
		return true
	}
	for flow, f := range h.flows {
		if f.users == 0 {
			delete(h.flows, flow)
			return true
		}
	}
	return false
}

func (h *handed) keep(flow id.FlowID, browser [32]byte, r *saml.Signed, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f := h.flows[flow]; f != nil {
		f.browser, f.response, f.until = browser, r, now.Add(handedLife)
	}
}

func (h *handed) recall(flow id.FlowID, browser [32]byte, now time.Time) *saml.Signed {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.flows[flow]
	if f == nil || f.browser != browser || !now.Before(f.until) {
		return nil
	}
	return f.response
}

// answerOnce is Logins.Answer, except that an answer to a flow that just ended
// gives the Response it ended with.
func (s *Server) answerOnce(ctx context.Context, flow id.FlowID, v authcore.Visitor, a authcore.Answer) (authcore.Outcome, error) {
	leave, ok := s.handed.enter(ctx, flow, s.cfg.Now())
	if !ok {
		return authcore.Outcome{}, fault.Newf(fault.Busy, "answer in flow "+flow.String(), "no turn")
	}
	defer leave()
	out, err := s.cfg.Logins.Answer(ctx, flow, v, a)
	if fault.Is(err, fault.Conflict) {
		if r := s.handed.recall(flow, v.Browser, s.cfg.Now()); r != nil {
			return authcore.Outcome{Response: r}, nil
		}
	}
	if err == nil && out.Response != nil {
		s.handed.keep(flow, v.Browser, out.Response, s.cfg.Now())
	}
	return out, err
}
