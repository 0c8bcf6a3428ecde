package hsmcmd

import (
	"context"
	"errors"
	"strings"
	"testing"

	"custode/hsm/pkcs11"
	"custode/hsm/worker"
	"custode/internal/fault"
)

// TestEnding: what a worker says when it ends under a call that hangs, and what its status is.
func TestEnding(t *testing.T) {
	b := newBench(t)
	t.Setenv("SOFTHSM2_CONF", b.Conf)
	// A refusal as the pool says it.
	_, pin := pkcs11.Open(t.Context(), pkcs11.Config{URI: strings.Replace(b.URI(), "%2Fpin", "%2Fsoftotp", 1)})
	if pin == nil || pkcs11.IsPINRefusal(pin) {
		t.Fatalf("a missing PIN file: %v", pin)
	}
	if err := writePIN(b, "000000"); err != nil {
		t.Fatal(err)
	}
	if _, pin = pkcs11.Open(t.Context(), pkcs11.Config{URI: b.URI()}); !pkcs11.IsPINRefusal(pin) {
		t.Fatal(pin)
	}
	stuck := func() bool { return true }
	never := func() bool { return false }
	full := func(err error) chan error { c := make(chan error, 1); c <- err; return c }
	lost := errors.New("lost")
	for name, c := range map[string]struct {
		got    error
		status int // 0: none of its own
	}{
		"orderly":              {ending(errParent, full(errParent), never), 0},
		"cancelled":            {ending(context.Canceled, full(context.Canceled), never), 0},
		"something":            {ending(lost, full(lost), never), 0},
		"hung":                 {ending(errParent, make(chan error), stuck), statusHung},
		"PIN":                  {ending(pin, full(pin), never), statusPIN},
		"PIN and a hung call":  {ending(pin, make(chan error), stuck), statusPIN},
		"both, as Run says it": {errors.Join(pin, worker.ErrHung), statusPIN},
		"grown":                {fault.Newf(fault.Unavailable, "watch", "%w", worker.ErrGrown), statusGrown},
	} {
		var own ended
		if got := status(c.got); errors.As(got, &own) != (c.status != 0) || own.status != c.status {
			t.Errorf("%s: %v, status %d, want %d", name, got, own.status, c.status)
		}
	}
}
