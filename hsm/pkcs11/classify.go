package pkcs11

import (
	"context"
	"errors"
	"fmt"

	p11 "github.com/miekg/pkcs11"

	"custode/internal/fault"
)

// classify says whose fault an error inside the module is: fault.Invalid the
// request's, fault.Retry the session's, fault.Reopen the device's, fault.Fatal
// an operator's. An error that is already a *fault.Error keeps its kind.
func classify(err error) fault.Kind {
	var fe *fault.Error
	if errors.As(err, &fe) {
		return fe.Kind
	}
	var rv p11.Error
	if !errors.As(err, &rv) {
		return fault.Internal
	}
	switch rv {
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
	if rv >= p11.CKR_VENDOR_DEFINED {
		return fault.Reopen
	}
	return fault.Invalid
}

// isRV reports whether err is one of the given return values.
func isRV(err error, rvs ...uint) bool {
	var rv p11.Error
	if !errors.As(err, &rv) {
		return false
	}
	for _, want := range rvs {
		if uint(rv) == want {
			return true
		}
	}
	return false
}

// sessionOnly reports whether err says that one session died while the login
// and the object handles may well be alive.
func sessionOnly(err error) bool {
	return isRV(err, p11.CKR_SESSION_HANDLE_INVALID, p11.CKR_SESSION_CLOSED, p11.CKR_OPERATION_ACTIVE, p11.CKR_OPERATION_NOT_INITIALIZED)
}

// beforePIN reports whether an answer to C_Login is about the session, the
// device or the module. An answer that only the vendor knows, or that makes no
// sense, may be a refusal of the PIN; a token that counts it must not meet it
// twice.
func beforePIN(err error) bool {
	var rv p11.Error
	if !errors.As(err, &rv) || rv >= p11.CKR_VENDOR_DEFINED {
		return false
	}
	kind := classify(err)
	return kind == fault.Retry || kind == fault.Reopen || isRV(err, p11.CKR_USER_ALREADY_LOGGED_IN, p11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN)
}

// ambiguous reports whether err may be the device's fault or the request's:
// SoftHSM answers a damaged ciphertext with CKR_GENERAL_ERROR.
func ambiguous(err error) bool {
	return isRV(err, p11.CKR_GENERAL_ERROR, p11.CKR_FUNCTION_FAILED)
}

// inCall names the PKCS #11 function that failed.
func inCall(function string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", function, err)
}

// waited turns the end of a context into an error of the house.
func waited(op string, ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fault.New(fault.Exhausted, op, ctx.Err())
	}
	return fault.New(fault.Unavailable, op, ctx.Err())
}
