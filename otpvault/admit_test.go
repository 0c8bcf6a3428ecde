package otpvault

import (
	"context"
	"testing"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
)

// TestAdmitRefuses: what the pool cannot carry makes no code; only the kinds that a
// page knows pass.
func TestAdmitRefuses(t *testing.T) {
	for kind, want := range map[fault.Kind]fault.Kind{
		fault.Busy: fault.Busy, fault.Exhausted: fault.Exhausted, fault.Unavailable: fault.Unavailable, fault.Denied: fault.Internal,
	} {
		asked := time.Duration(0)
		v := &Vault{cfg: Config{Lifetime: time.Minute, Admit: func(_ context.Context, _ id.Phone, life time.Duration) error {
			asked = life
			return fault.Newf(kind, "accept", "no")
		}}}
		var seed zeros
		flow, err := id.NewFlowID(seed)
		if err != nil {
			t.Fatal(err)
		}
		subject, err := id.NewSubject(seed)
		if err != nil {
			t.Fatal(err)
		}
		to, err := id.ParsePhone("+393401234567")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.Issue(t.Context(), flow, subject, to, "x"); !fault.Is(err, want) || asked != time.Minute {
			t.Errorf("%v: %v, asked for %v", kind, err, asked)
		}
	}
}

// zeros is no randomness at all: but for a first octet, that no identifier be zero.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 1
	}
	return len(p), nil
}
