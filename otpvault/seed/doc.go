// Package seed is the stored form of an OATH device's secret: wrapped by a key of
// the HSM that can only wrap and unwrap, and bound by the MAC of a second HSM key
// to the subject, the serial number and the parameters it belongs to.
//
// Three formats live here:
//
//   - [Sealed]: a header that says how to unwrap (format, mechanism, key type, hash,
//     block, label of the wrapping key) and the wrapped octets;
//   - [Binding]: the octets over which the second key's MAC is computed;
//   - [Escrow]: a copy for a recovery key that is kept off line, made at enrolment.
//
// The wrapping knows no additional data, so without the binding whoever can
// write the database could give one subject's device to another. Every [Question]
// carries binding and MAC, and the HSM verifies them before it unwraps: it never
// unwraps what nobody vouches for. HMACs and codes stay there, too; the answer is which
// counters have the code that was typed.
//
// Before it is wrapped, a seed is padded with zeros to the block of its hash
// ([Pad]). HMAC does the same, so the codes do not change; and tokens that refuse
// short HMAC keys accept it, the wrapped octets tell nothing about its length,
// and no padding wrap mode is needed, of which tokens disagree.
//
// The seed in clear passes through here once, at enrolment ([Seal]), and is
// wiped. It may be imported by the packages of otpvault, internal/store and cmd;
// it imports internal/id, internal/fault and the standard library only.
package seed

import (
	"context"

	"custode/internal/id"
)

// Wrapper wraps a secret under a key of the HSM.
type Wrapper interface {
	// WrapSecret makes secret a session object of keyType (CKK), wraps it with the
	// key kek by mechanism wrap (CKM) and destroys the object. It keeps no reference to secret.
	WrapSecret(ctx context.Context, kek id.KeyLabel, wrap, keyType uint32, secret []byte) ([]byte, error)
}

// Question asks which of the counters have the code, by a wrapped secret.
type Question struct {
	KEK        id.KeyLabel // the key that wrapped the secret
	Wrap       uint32      // CKM it was wrapped by
	KeyType    uint32      // CKK of the secret
	MAC        uint32      // CKM of the HMAC
	Wrapped    []byte
	Binding    []byte // octets the binding MAC is over, which end with Wrapped
	BindingMAC []byte
	Digits     int
	Counters   []uint64
	Code       string
}

// Matcher answers questions in the HSM.
type Matcher interface {
	// Match returns the indices into q.Counters at which the code is q.Code, in rising
	// order, comparing all in constant time. It verifies BindingMAC by the Binder's key
	// first, and unwraps nothing when it is wrong (fault.Denied). fault.Invalid when a sound
	// token cannot unwrap the secret, which is a session object that is sensitive, not
	// extractable, can only sign, and is destroyed before the answer.
	Match(ctx context.Context, q Question) ([]int, error)
}

// Binder computes a MAC of at least 32 octets by a key that stays in the HSM, is
// used for nothing else, and can only sign and verify.
type Binder interface {
	MAC(ctx context.Context, data []byte) ([]byte, error)
}
