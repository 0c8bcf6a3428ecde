// Package lanes lets one caller at a time work under a key. It is a queue in
// memory, per process; nothing is kept when nobody waits. It is not a lock
// between nodes: what must hold there is compared and swapped in the store.
// Imported by authcore and authcore/session.
package lanes

import (
	"context"
	"sync"

	"custode/internal/fault"
)

// Lanes lets one caller at a time work under a key, the others waiting in the
// order they came. It is what makes a double click harmless on one node and
// what keeps parallel guesses at one username from overtaking its tally; across
// nodes the version of the flow does the first and each node its own second.
type Lanes struct {
	mu      sync.Mutex
	byKey   map[string]*lane
	waiting int // most callers waiting under one key
}

// lane is the queue of one key; it exists while somebody is in it.
type lane struct {
	turn  chan struct{} // holds one element while somebody works
	users int           // working and waiting; guarded by Lanes.mu
}

// New returns empty lanes with room for that many callers waiting under one key.
func New(waiting int) *Lanes { return &Lanes{byKey: map[string]*lane{}, waiting: waiting} }

// Enter waits for the key's turn. Its only error is fault.Busy: too many wait,
// or ctx ended. The caller must call leave, once.
func (l *Lanes) Enter(ctx context.Context, key string) (leave func(), err error) {
	l.mu.Lock()
	ln := l.byKey[key]
	if ln == nil {
		ln = &lane{turn: make(chan struct{}, 1)}
		l.byKey[key] = ln
	}
	if ln.users > l.waiting {
		l.mu.Unlock()
		return nil, fault.Newf(fault.Busy, "wait for a turn", "%d are waiting", l.waiting)
	}
	ln.users++
	l.mu.Unlock()

	select {
	case ln.turn <- struct{}{}:
		return func() { <-ln.turn; l.drop(key, ln) }, nil
	case <-ctx.Done():
		l.drop(key, ln)
		return nil, fault.New(fault.Busy, "wait for a turn", ctx.Err())
	}
}

func (l *Lanes) drop(key string, ln *lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ln.users--; ln.users == 0 {
		delete(l.byKey, key)
	}
}

// Idle reports whether nobody works or waits.
func (l *Lanes) Idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.byKey) == 0
}
