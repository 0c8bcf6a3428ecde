// Package oath decides whether a one-time code of an OATH device is right: by
// event (HOTP, RFC 4226) or by time (TOTP, RFC 6238).
//
// It is a pure state machine. What a device's record must remember is a [State];
// [Rules.Check] takes a State and a typed code and returns a verdict and the
// State that must be durable before the verdict is told. The caller swaps the
// one for the other only if nobody else did meanwhile; [Rules.Verify] is the
// loop that does so over a [Cell]. Every counter and time step up to the accepted
// one is void afterwards, so that each is accepted once whatever the order of
// the submissions and however many processes there are.
//
// Neither the seed nor a code of the device is ever here: a [Matcher], which is the HSM
// in the product, is asked which of the candidates has the code that was typed. All
// candidates of a window are in one question (one unwrap of the seed, one message to
// the process that owns the HSM), always the same number of them, and the answer is looked
// at without an early exit, so that neither the time nor the calls tell which one fitted.
//
// Attempt limits are here too: wrong codes in a row block a device (State), and
// wrong codes per challenge end the challenge ([Attempts]).
//
// It is not a store, knows no subject and no HSM. It may be imported by the
// packages of otpvault, internal/store and cmd; it imports internal/fault and the standard
// library only.
package oath

import (
	"context"
	"time"

	"custode/internal/fault"
)

// Hash is the hash function of a device's HMAC. The numbers are stored.
type Hash uint8

// The hash functions of RFC 6238, 1.2.
const (
	SHA1 Hash = iota + 1
	SHA256
	SHA512
)

// Size returns the length of an HMAC in octets, 0 for an unknown hash.
func (h Hash) Size() int {
	switch h {
	case SHA1:
		return 20
	case SHA256:
		return 32
	case SHA512:
		return 64
	}
	return 0
}

// Block returns the length of the hash's block in octets, 0 for an unknown hash.
func (h Hash) Block() int {
	switch h {
	case SHA1, SHA256:
		return 64
	case SHA512:
		return 128
	}
	return 0
}

// String returns the name as the Key URI format writes it.
func (h Hash) String() string {
	switch h {
	case SHA1:
		return "SHA1"
	case SHA256:
		return "SHA256"
	case SHA512:
		return "SHA512"
	}
	return "unknown hash"
}

// Kind is what moves a device's counter. The numbers are stored.
type Kind uint8

// The kinds.
const (
	Event Kind = iota + 1 // HOTP: each press
	Time                  // TOTP: the clock
)

// String returns the name as the Key URI format writes it.
func (k Kind) String() string {
	switch k {
	case Event:
		return "hotp"
	case Time:
		return "totp"
	}
	return "unknown kind"
}

// Parameters are what a device and we must agree about, besides the seed.
type Parameters struct {
	Kind   Kind
	Hash   Hash
	Digits int           // 6 to 8
	Period time.Duration // of Time: 30 or 60 s; of Event: 0
}

// Check returns fault.Invalid for parameters that this package does not serve.
// Fewer than six digits are refused: the operating manual wants six at least.
func (p Parameters) Check() error {
	const op = "check one-time code parameters"
	switch {
	case p.Kind != Event && p.Kind != Time:
		return fault.Newf(fault.Invalid, op, "kind %d is neither by event nor by time", p.Kind)
	case p.Hash.Size() == 0:
		return fault.Newf(fault.Invalid, op, "hash %d is not known", p.Hash)
	case p.Digits < 6 || p.Digits > 8:
		return fault.Newf(fault.Invalid, op, "%d digits are not 6 to 8", p.Digits)
	case p.Kind == Event && p.Period != 0:
		return fault.Newf(fault.Invalid, op, "a device by event has no period")
	case p.Kind == Time && p.Period != 30*time.Second && p.Period != time.Minute:
		return fault.Newf(fault.Invalid, op, "period %v is neither 30 nor 60 s", p.Period)
	}
	return nil
}

// Matcher tells at which counters a device has a code. Seed, HMACs and codes stay where it
// computes them.
type Matcher interface {
	// Match returns the indices into counters at which the code of that many digits
	// (RFC 4226, 5.3) is code, in rising order. All are compared, in constant time. It is
	// asked about 4 096 counters at most.
	Match(ctx context.Context, counters []uint64, digits int, code string) ([]int, error)
}
