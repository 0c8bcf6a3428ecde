package spsim

import (
	"container/list"
	"sync"
	"time"
)

// sent is what the SP remembers about a request until it is answered.
type sent struct {
	id      string
	request Request
	// relayState is what the answer has to echo.
	relayState string
	issued     time.Time // millisecond precision, as stated in the request
	xml        []byte
	expires    time.Time
	answered   bool
	gone       *list.Element
}

// requestBook remembers requests, and the identifiers of answers already seen,
// up to a bound; the oldest entries go first.
type requestBook struct {
	mu    sync.Mutex
	max   int
	byID  map[string]*sent
	order *list.List // of *sent, oldest first
	seen  map[string]struct{}
	trail *list.List // of string, the keys of seen, oldest first
}

func newRequestBook(limit int) *requestBook {
	return &requestBook{
		max: limit, byID: map[string]*sent{}, order: list.New(),
		seen: map[string]struct{}{}, trail: list.New(),
	}
}

func (b *requestBook) put(s *sent, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if old, ok := b.byID[s.id]; ok {
		b.order.Remove(old.gone)
	}
	s.gone = b.order.PushBack(s)
	b.byID[s.id] = s
	for e := b.order.Front(); e != nil; e = b.order.Front() {
		oldest := e.Value.(*sent)
		if b.order.Len() <= b.max && now.Before(oldest.expires) {
			return
		}
		b.order.Remove(e)
		delete(b.byID, oldest.id)
	}
}

// take finds the request that is being answered and marks it answered. The
// second result tells a replay (answered before) from an unknown request.
func (b *requestBook) take(id, browser string, now time.Time) (s *sent, replay bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.byID[id]
	if !ok || s.request.Browser != browser || !now.Before(s.expires) {
		return nil, false
	}
	if s.answered {
		return nil, true
	}
	s.answered = true
	return s, false
}

// first reports whether key (an ID or a NameID of an answer) is new, and
// remembers it.
func (b *requestBook) first(key string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.seen[key]; ok {
		return false
	}
	b.seen[key] = struct{}{}
	b.trail.PushBack(key)
	for b.trail.Len() > 4*b.max {
		delete(b.seen, b.trail.Remove(b.trail.Front()).(string))
	}
	return true
}
