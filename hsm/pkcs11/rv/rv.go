// Package rv judges the return values of PKCS #11 calls (section 11.1 of v2.40): whose fault each is, and
// what it says about the session, the login and the PIN. It calls nothing. Only hsm/pkcs11 imports it.
package rv

import (
	"errors"

	p11 "github.com/miekg/pkcs11"

	"custode/internal/fault"
)

// Kind says whose fault an error inside the module is: fault.Invalid the
// request's, fault.Retry the session's, fault.Reopen the device's, fault.Fatal
// an operator's. An error that is already a *fault.Error keeps its kind.
func Kind(err error) fault.Kind {
	var fe *fault.Error
	if errors.As(err, &fe) {
		return fe.Kind
	}
	var v p11.Error
	if !errors.As(err, &v) {
		return fault.Internal
	}
	switch v {
	case p11.CKR_PIN_INCORRECT, p11.CKR_PIN_INVALID, p11.CKR_PIN_LEN_RANGE, p11.CKR_PIN_EXPIRED, p11.CKR_PIN_LOCKED,
		p11.CKR_USER_PIN_NOT_INITIALIZED:
		return fault.Fatal
	case p11.CKR_SESSION_HANDLE_INVALID, p11.CKR_SESSION_CLOSED, p11.CKR_OPERATION_ACTIVE, p11.CKR_OPERATION_NOT_INITIALIZED,
		p11.CKR_OBJECT_HANDLE_INVALID, p11.CKR_KEY_HANDLE_INVALID, p11.CKR_USER_NOT_LOGGED_IN, p11.CKR_SESSION_COUNT,
		// We use a key only for what it was seen to be fit for, so this is about
		// another object: NSS 3.87 answers so with a handle from before a logout.
		p11.CKR_KEY_TYPE_INCONSISTENT, p11.CKR_KEY_FUNCTION_NOT_PERMITTED,
		p11.CKR_WRAPPING_KEY_HANDLE_INVALID, p11.CKR_WRAPPING_KEY_TYPE_INCONSISTENT,
		p11.CKR_UNWRAPPING_KEY_HANDLE_INVALID, p11.CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT:
		return fault.Retry
	case p11.CKR_GENERAL_ERROR, p11.CKR_FUNCTION_FAILED, p11.CKR_HOST_MEMORY, p11.CKR_SLOT_ID_INVALID,
		p11.CKR_DEVICE_ERROR, p11.CKR_DEVICE_MEMORY, p11.CKR_DEVICE_REMOVED,
		p11.CKR_TOKEN_NOT_PRESENT, p11.CKR_TOKEN_NOT_RECOGNIZED, p11.CKR_CRYPTOKI_NOT_INITIALIZED,
		p11.CKR_FUNCTION_CANCELED, p11.CKR_CANT_LOCK, p11.CKR_MUTEX_BAD, p11.CKR_MUTEX_NOT_LOCKED:
		return fault.Reopen
	}
	// What is left complains about what was asked (data length, key size,
	// mechanism, attribute); a code no standard knows is the device's.
	if v >= p11.CKR_VENDOR_DEFINED {
		return fault.Reopen
	}
	return fault.Invalid
}

// Is reports whether err is one of the given return values.
func Is(err error, values ...uint) bool {
	var v p11.Error
	if !errors.As(err, &v) {
		return false
	}
	for _, want := range values {
		if uint(v) == want {
			return true
		}
	}
	return false
}

// Session reports whether err says that one session died while the login
// and the object handles may well be alive.
func Session(err error) bool {
	return Is(err, p11.CKR_SESSION_HANDLE_INVALID, p11.CKR_SESSION_CLOSED, p11.CKR_OPERATION_ACTIVE, p11.CKR_OPERATION_NOT_INITIALIZED)
}

// BeforePIN reports whether an answer to C_Login is about the session, the
// device or the module. An answer that only the vendor knows, or that makes no
// sense, may be a refusal of the PIN; a token that counts it must not meet it
// twice.
func BeforePIN(err error) bool {
	var v p11.Error
	if !errors.As(err, &v) || v >= p11.CKR_VENDOR_DEFINED {
		return false
	}
	kind := Kind(err)
	return kind == fault.Retry || kind == fault.Reopen || Is(err, p11.CKR_USER_ALREADY_LOGGED_IN, p11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN)
}

// Ambiguous reports whether err may be the device's fault or the request's:
// SoftHSM answers a damaged ciphertext with CKR_GENERAL_ERROR.
func Ambiguous(err error) bool {
	return Is(err, p11.CKR_GENERAL_ERROR, p11.CKR_FUNCTION_FAILED)
}
