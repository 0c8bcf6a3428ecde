package soft

import (
	"bytes"
	"sync"

	"custode/internal/fault"
)

// Borrowed is a copy of a secret that a call inside the module may still be looking at when
// its caller has left.
type Borrowed struct {
	mu     sync.Mutex
	secret []byte // nil once wiped
}

// Borrow copies a secret.
func Borrow(secret []byte) *Borrowed { return &Borrowed{secret: bytes.Clone(secret)} }

// Use runs f with the secret; once it was wiped, fault.Unavailable.
func (b *Borrowed) Use(f func(secret []byte) error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.secret == nil {
		return fault.Newf(fault.Unavailable, "use a secret", "its owner has left")
	}
	return f(b.secret)
}

// Wipe clears the copy: now, or when the call that uses it returns. It does not wait.
func (b *Borrowed) Wipe() {
	if b.mu.TryLock() {
		b.wiped()
		return
	}
	go func() {
		b.mu.Lock()
		b.wiped()
	}()
}

func (b *Borrowed) wiped() {
	clear(b.secret)
	b.secret = nil
	b.mu.Unlock()
}
