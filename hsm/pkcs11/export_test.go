package pkcs11

import (
	"context"

	p11 "github.com/miekg/pkcs11"
)

// Inject has f run before each operation, on its session; a non-nil error takes
// the operation's place.
func (t *Token) Inject(f func(s p11.SessionHandle) error) { t.inject = f }

// Module gives tests what another part of the process could do to the module.
func (t *Token) Module() *p11.Ctx { return t.mod }

// Slot is where the token is now.
func (t *Token) Slot() uint {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.gen.slot
}

// Generation tells one login from another.
func (t *Token) Generation() any {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.gen
}

// LogoutBehind ends the login as another part of the process could.
func (t *Token) LogoutBehind() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mod.Logout(t.gen.anchor)
}

// FitForLogin is tested from outside.
var FitForLogin = fitForLogin

// LateMend asks for a new login because of g, as Generation returned it.
func (t *Token) LateMend(g any) {
	t.mend(context.Background(), g.(*generation), trouble{level: levelLogin})
}

// Permits is the number of operations that may begin now.
func (t *Token) Permits() int { return len(t.permits) }

// Sessions is the number of sessions that the Token knows to be open: the
// anchor's, the idle ones, and those in use.
func (t *Token) Sessions() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gen == nil {
		return 0
	}
	n := 1 + len(t.gen.idle)
	for l := range t.gen.busy {
		if l.opened {
			n++
		}
	}
	return n
}
