package lanes

import (
	"sync"
	"time"
)

// Recent remembers a value for each key for Life, and at most Most of them. The
// zero value with both set is ready. Safe for concurrent use.
type Recent[K comparable, V any] struct {
	Life time.Duration
	Most int

	mu    sync.Mutex
	byKey map[K]recent[V]
	order []K // oldest first
}

type recent[V any] struct {
	value V
	until time.Time
}

// Keep remembers v; it is called once for each key.
func (r *Recent[K, V]) Keep(k K, v V, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(now, r.Most-1)
	if r.byKey == nil {
		r.byKey = map[K]recent[V]{}
	}
	r.byKey[k] = recent[V]{v, now.Add(r.Life)}
	r.order = append(r.order, k)
}

// Recall returns what Keep was given for k.
func (r *Recent[K, V]) Recall(k K, now time.Time) (V, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(now, r.Most)
	one, ok := r.byKey[k]
	return one.value, ok
}

// Sweep drops what is over: without it the last values would stay until the next call.
func (r *Recent[K, V]) Sweep(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(now, r.Most)
	if len(r.order) == 0 {
		r.order = nil
	}
}

// forget drops what is over, and the oldest beyond most; r.mu is held.
func (r *Recent[K, V]) forget(now time.Time, most int) {
	for len(r.order) > 0 && (len(r.order) > most || !now.Before(r.byKey[r.order[0]].until)) {
		delete(r.byKey, r.order[0])
		r.order = r.order[1:]
	}
}
