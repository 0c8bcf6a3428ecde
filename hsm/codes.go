package hsm

import (
	"bytes"
	"crypto/subtle"
	"encoding/binary"
	"strings"

	"custode/internal/fault"
)

// The PKCS #11 numbers (pkcs11t.h) that a CodeQuery and WrapSecret know.
const (
	MechanismAESKeyWrap uint32 = 0x2109 // CKM_AES_KEY_WRAP: by a key of RoleSeed; the secret stays in the token
	MechanismAESGCM     uint32 = 0x1087 // CKM_AES_GCM: by a key of RoleWrap; the secret comes into our memory
	KeyTypeGeneric      uint32 = 0x10   // CKK_GENERIC_SECRET
	keyTypeSHA1         uint32 = 0x28   // CKK_SHA_1_HMAC
	keyTypeSHA256       uint32 = 0x2B
	keyTypeSHA512       uint32 = 0x2D
	MechanismSHA1       uint32 = 0x221 // CKM_SHA_1_HMAC
	MechanismSHA256     uint32 = 0x251
	MechanismSHA512     uint32 = 0x271
)

// Limits of an OATH secret. The least is what SoftHSM wants of an HMAC-SHA-256 key;
// callers pad with zeros to the hash's block, which HMAC does by itself.
const (
	MinSecret  = 32
	MaxSecret  = 256
	maxWrapped = 12 + MaxSecret + 16
)

// HMAC returns the HMAC mechanism of a key type that is one hash's alone, and SHA-256's for
// KeyTypeGeneric; false for any other type.
func HMAC(keyType uint32) (mechanism uint32, known bool) {
	switch keyType {
	case keyTypeSHA1:
		return MechanismSHA1, true
	case keyTypeSHA256, KeyTypeGeneric:
		return MechanismSHA256, true
	case keyTypeSHA512:
		return MechanismSHA512, true
	}
	return 0, false
}

// KeyTypeOf returns the key type that is the HMAC mechanism's alone, 0 for an unknown one.
func KeyTypeOf(mechanism uint32) uint32 {
	switch mechanism {
	case MechanismSHA1:
		return keyTypeSHA1
	case MechanismSHA256:
		return keyTypeSHA256
	case MechanismSHA512:
		return keyTypeSHA512
	}
	return 0
}

// HMACSize returns the length in octets of what an HMAC mechanism computes, 0 for an unknown one.
func HMACSize(mechanism uint32) int {
	switch mechanism {
	case MechanismSHA1:
		return 20
	case MechanismSHA256:
		return 32
	case MechanismSHA512:
		return 64
	}
	return 0
}

// Check returns fault.Invalid for a question that no CodeMatcher answers.
func (q CodeQuery) Check() error {
	const op = "check a question for a code"
	bad := func(format string, args ...any) error { return fault.Newf(fault.Invalid, op, format, args...) }
	switch {
	case q.KEK.IsZero() || q.Binder.IsZero():
		return bad("a key has no label")
	case q.Wrap != MechanismAESKeyWrap && q.Wrap != MechanismAESGCM:
		return bad("wrap mechanism %#x is not known", q.Wrap)
	case HMACSize(q.MAC) == 0:
		return bad("HMAC mechanism %#x is not known", q.MAC)
	case q.KeyType != KeyTypeGeneric && q.KeyType != KeyTypeOf(q.MAC):
		return bad("key type %#x does not go with mechanism %#x", q.KeyType, q.MAC)
	case len(q.Wrapped) < MinSecret || len(q.Wrapped) > maxWrapped:
		return bad("%d wrapped octets are not %d to %d", len(q.Wrapped), MinSecret, maxWrapped)
	case len(q.Binding) > MaxMACInput || !bytes.HasSuffix(q.Binding, q.Wrapped):
		return bad("the binding is longer than %d octets, or is not of this secret", MaxMACInput)
	case q.Digits < 6 || q.Digits > 8 || len(q.Code) != q.Digits || strings.Trim(q.Code, "0123456789") != "":
		return bad("the code is not %d digits, or not 6 to 8", q.Digits)
	case len(q.Counters) < 1 || len(q.Counters) > MaxCounters:
		return bad("%d counters are not 1 to %d", len(q.Counters), MaxCounters)
	}
	return nil
}

// IsCode returns 1 if the HOTP value (RFC 4226, section 5.3) of an HMAC is code, which has 6 to
// 8 decimal digits; else 0. The time it takes does not depend on the octets of either.
// An HMAC shorter than 20 octets has no value.
func IsCode(mac []byte, code string) int {
	if len(mac) < 20 || len(code) < 6 || len(code) > 8 {
		return 0
	}
	at := mac[len(mac)-1] & 0xf
	value := binary.BigEndian.Uint32(mac[at:]) & 0x7fffffff
	var digits [8]byte
	for i := len(code) - 1; i >= 0; i-- {
		digits[i] = '0' + byte(value%10)
		value /= 10
	}
	same := subtle.ConstantTimeCompare(digits[:len(code)], []byte(code))
	clear(digits[:])
	return same
}
