// Package hsm says what Custode needs from a hardware security module and
// which keys may live in one. It is vocabulary and policy: key roles with the
// exact attributes each key must have, the three small interfaces through
// which keys are used, the format of a wrapped blob, and the plan of a key
// ceremony. It talks to no device: hsm/pkcs11 does, and hsm/hsmtest holds the
// one conformance suite for every token.
//
// # Roles
//
// A key has exactly one role, and the role decides every usage flag (Rules):
//
//	sign   RSA key pair, 2048 to 4096 bits; the private key may SIGN and nothing else
//	mac    generic secret of 256 bits; SIGN and VERIFY, for HMAC-SHA-256
//	wrap   AES-256; ENCRYPT and DECRYPT, for AES-GCM with additional data
//	seed   AES-256; WRAP and UNWRAP, for AES key wrap (RFC 3394) of OATH secrets,
//	       with an unwrap template: what it unwraps is sensitive and never extractable
//
// All are sensitive, never extractable, made inside the token, and limited to
// one mechanism; a token that cannot say the last two may be tolerated by name
// (Lacks). The wrap role protects bytes, not key objects: it has neither
// WRAP nor UNWRAP, so no session can use it to bring another key out. The seed
// role is its opposite: it has neither ENCRYPT nor DECRYPT, so what it wrapped
// comes back as a key object that only computes HMACs, never as bytes.
//
// # Blob
//
// What a Wrapper returns is self-describing, so that a key may be rotated while
// old blobs stay readable:
//
//	octet 0        version, 1
//	octet 1        algorithm, 1 = AES-256-GCM, 96-bit IV, 128-bit tag
//	octet 2        n, length of the key label, 2 to 64
//	octets 3..     key label, n octets
//	12 octets      IV
//	rest           ciphertext followed by the tag, 16 to 16 + MaxPlaintext octets
//
// The additional authenticated data given to the token is octets 0 to 2+n of
// the blob followed by the caller's own data: the header is authenticated, and
// delimits itself.
//
// Everything outside hsm/pkcs11 may import this package; it imports
// internal/id, internal/fault, the standard library and a YAML decoder.
package hsm

import (
	"context"
	"crypto"
	"crypto/x509"
	"io"

	"custode/internal/id"
)

// MAC computes HMAC-SHA-256 with a key that never leaves the token.
type MAC interface {
	// MAC returns the 32 octets of HMAC-SHA-256 over data, which is at most
	// MaxMACInput octets long (else fault.Invalid). It waits for a free
	// session until ctx ends.
	MAC(ctx context.Context, data []byte) ([]byte, error)
}

// Wrapper protects small secrets with a key that never leaves the token.
type Wrapper interface {
	// Wrap encrypts plaintext (at most MaxPlaintext octets) and binds it to aad
	// (at most MaxAAD octets); the result is a blob as in the package comment.
	Wrap(ctx context.Context, plaintext, aad []byte) ([]byte, error)
	// Unwrap reverses Wrap. A blob that is damaged, was made with other aad or
	// by another key gives fault.Invalid; nothing else does.
	Unwrap(ctx context.Context, blob, aad []byte) ([]byte, error)
}

// SecretKey keeps OATH secrets for a database: it wraps them so that only the token
// can use them again.
type SecretKey interface {
	// WrapSecret makes secret a session object of keyType (CKK), wraps it under the
	// key kek by mechanism wrap (CKM) and destroys the object. It keeps no reference to secret.
	WrapSecret(ctx context.Context, kek id.KeyLabel, wrap, keyType uint32, secret []byte) ([]byte, error)
}

// CodeMatcher looks for a typed code among those of a wrapped OATH secret.
type CodeMatcher interface {
	// MatchCodes returns the indices into q.Counters whose HOTP value (RFC 4226, section
	// 5.3) is q.Code, ascending; every value is compared, in constant time. It unwraps
	// nothing before q.BindingMAC has proved to be the MAC of q.Binding. fault.Denied when
	// it is not, fault.Invalid when a sound token cannot unwrap q.Wrapped.
	MatchCodes(ctx context.Context, q CodeQuery) ([]int, error)
}

// CodeQuery is one question to a CodeMatcher. The secret becomes a session object that is
// sensitive, not extractable and can only sign, and is destroyed after the answer.
type CodeQuery struct {
	KEK        id.KeyLabel // seed key that wrapped the secret
	Wrap       uint32      // CKM it was wrapped by
	KeyType    uint32      // CKK of the secret
	MAC        uint32      // CKM of the HMAC
	Wrapped    []byte
	Binder     id.KeyLabel // mac key of the binding
	Binding    []byte      // octets the binding MAC is over; it must end with Wrapped
	BindingMAC []byte
	Digits     int      // 6 to 8
	Counters   []uint64 // 1 to MaxCounters
	Code       string   // Digits decimal digits
}

// ContextSigner is implemented by signers whose waiting can be bounded by the
// caller. Assert it once, when the signer is obtained.
type ContextSigner interface {
	crypto.Signer
	// SignContext is crypto.Signer's Sign with a deadline. digest must have
	// the length of hash, one of SHA-256, SHA-384 and SHA-512.
	SignContext(ctx context.Context, digest []byte, hash crypto.Hash) ([]byte, error)
}

// Token is one opened token. hsm/pkcs11 has the real one; the interface is here
// because the conformance suite runs against several.
type Token interface {
	// Signer returns the RSA key called label; its Sign makes PKCS #1 v1.5
	// signatures. A key that breaks the policy gives fault.Fatal.
	Signer(label id.KeyLabel) (crypto.Signer, error)
	// Certificate returns the certificate stored beside the sign key label.
	Certificate(label id.KeyLabel) (*x509.Certificate, error)
	// MAC returns the mac key called label.
	MAC(label id.KeyLabel) (MAC, error)
	// Wrapper returns the wrap key called label.
	Wrapper(label id.KeyLabel) (Wrapper, error)
	// Random reads from the token's random number generator.
	Random() io.Reader
}

// Limits of what is sent into a token.
const (
	MaxPlaintext = 16 << 10 // octets in one Wrap
	MaxAAD       = 4 << 10  // octets of additional data
	MaxMACInput  = 64 << 10 // octets in one MAC
	MaxCounters  = 4096     // counters in one CodeQuery
)
