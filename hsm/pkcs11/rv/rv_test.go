package rv_test

import (
	"testing"

	p11 "github.com/miekg/pkcs11"

	"custode/hsm/pkcs11/rv"
	"custode/internal/fault"
)

func TestKind(t *testing.T) {
	for v, want := range map[uint]fault.Kind{
		p11.CKR_PIN_INCORRECT: fault.Fatal, p11.CKR_PIN_LOCKED: fault.Fatal,
		0xB3: fault.Retry, 0xB0: fault.Retry, 0x90: fault.Retry, 0x91: fault.Retry, 0x82: fault.Retry, 0x60: fault.Retry, 0x101: fault.Retry, 0xB1: fault.Retry, 0x63: fault.Retry, 0x68: fault.Retry,
		0x30: fault.Reopen, 0x31: fault.Reopen, 0x32: fault.Reopen, 0xE0: fault.Reopen, 0x5: fault.Reopen, 0x6: fault.Reopen, 0x190: fault.Reopen, 0x3: fault.Reopen,
		p11.CKR_VENDOR_DEFINED + 7: fault.Reopen,
		p11.CKR_KEY_SIZE_RANGE:     fault.Invalid, p11.CKR_DATA_LEN_RANGE: fault.Invalid, p11.CKR_MECHANISM_INVALID: fault.Invalid,
	} {
		if got := rv.Kind(p11.Error(v)); got != want {
			t.Errorf("%#x: %v, want %v", v, got, want)
		}
	}
}
