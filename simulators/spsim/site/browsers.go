package site

import (
	"container/list"
	"sync"
	"time"

	"custode/simulators/spsim"
)

// visit is what the site knows about one browser: the outcome of its last
// login, both nil before the first.
type visit struct {
	cookie  string
	login   *spsim.Login
	failure error
	expires time.Time
}

// browserBook is the site's server-side session map, bounded and expiring.
type browserBook struct {
	mu       sync.Mutex
	max      int
	ttl      time.Duration
	byCookie map[string]*list.Element
	order    *list.List // of visit, least recently put first
}

func newBrowserBook(limit int, ttl time.Duration) *browserBook {
	return &browserBook{max: limit, ttl: ttl, byCookie: map[string]*list.Element{}, order: list.New()}
}

// get returns the living visit of the cookie.
func (b *browserBook) get(cookie string, now time.Time) (visit, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.byCookie[cookie]
	if !ok || !now.Before(e.Value.(visit).expires) {
		return visit{}, false
	}
	return e.Value.(visit), true
}

// put replaces what is known under v's cookie; its time starts anew.
func (b *browserBook) put(v visit, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop(v.cookie)
	v.expires = now.Add(b.ttl)
	b.byCookie[v.cookie] = b.order.PushBack(v)
	for {
		oldest := b.order.Front().Value.(visit)
		if b.order.Len() <= b.max && now.Before(oldest.expires) {
			return
		}
		b.drop(oldest.cookie)
	}
}

func (b *browserBook) forget(cookie string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop(cookie)
}

func (b *browserBook) drop(cookie string) {
	if e, ok := b.byCookie[cookie]; ok {
		b.order.Remove(e)
		delete(b.byCookie, cookie)
	}
}
