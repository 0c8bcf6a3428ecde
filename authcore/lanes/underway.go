package lanes

import "sync"

// UnderWay counts, for each key, what was begun and has not ended. The zero value
// is ready. Safe for concurrent use.
type UnderWay[K comparable] struct {
	mu    sync.Mutex
	byKey map[K]int // none is zero
}

// Begin returns how many others there are; the caller must call end, once.
func (u *UnderWay[K]) Begin(key K) (others int, end func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.byKey == nil {
		u.byKey = map[K]int{}
	}
	others = u.byKey[key]
	u.byKey[key]++
	return others, func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.byKey[key]--; u.byKey[key] == 0 {
			delete(u.byKey, key)
		}
	}
}
