package authcore

import (
	"fmt"
	"time"

	"custode/internal/fault"
)

// Policy holds the numbers of a login. A zero field takes its default.
type Policy struct {
	// FlowLife is the time from request to answer, after which the login ends
	// with anomaly 21: default 8 minutes, under 10 (service providers refuse
	// a Response more than 10 minutes younger than its request).
	FlowLife time.Duration
	// WrongPasswords in one flow end it with anomaly 19: default 3, 1 to 10.
	WrongPasswords int
	// WrongCodes in one flow, over all its challenges, end it with anomaly
	// 19: default 3, 1 to 3 (manual 10.2.2).
	WrongCodes int
	// Codes is how many codes one flow may have issued: default 5, 1 to 20.
	Codes int
	// BlockCodes is how many wrong codes in a row, over all flows of a subject,
	// block its codes until 24 hours after the last: default 10, 1 to 100.
	BlockCodes int
	// UsernameFree is how many failed passwords a username may collect before
	// further attempts are slowed down: default 3, 1 to 100.
	UsernameFree int
	// NetworkFree is the same for a network: default 30, 1 to 100000.
	NetworkFree int
	// ReplayPage answers a request that is sent again after its answer with a
	// page for the person (fault.Conflict) instead of anomaly 11 for the SP.
	ReplayPage bool
	// OmitEmpty leaves attributes without a value out of the assertion instead
	// of sending them empty.
	OmitEmpty bool
}

// complete fills in the defaults and checks the ranges.
func (p Policy) complete() (Policy, error) {
	if p.FlowLife == 0 {
		p.FlowLife = 8 * time.Minute
	}
	if p.FlowLife < time.Second || p.FlowLife >= 10*time.Minute {
		return p, fault.Newf(fault.Invalid, "read login policy", "flow life %v is not within 1s and under 10m", p.FlowLife)
	}
	for _, n := range []struct {
		name          string
		value         *int
		normal, limit int
	}{
		{"wrong passwords", &p.WrongPasswords, 3, 10},
		{"wrong codes", &p.WrongCodes, 3, 3},
		{"codes", &p.Codes, 5, 20},
		{"wrong codes that block", &p.BlockCodes, 10, 100},
		{"username free failures", &p.UsernameFree, 3, 100},
		{"network free failures", &p.NetworkFree, 30, 100_000},
	} {
		if *n.value == 0 {
			*n.value = n.normal
		}
		if *n.value < 1 || *n.value > n.limit {
			return p, fault.New(fault.Invalid, "read login policy", fmt.Errorf("%s is %d, not 1 to %d", n.name, *n.value, n.limit))
		}
	}
	return p, nil
}
