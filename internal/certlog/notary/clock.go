package notary

import (
	"context"

	"golang.org/x/sys/unix"

	"custode/internal/fault"
)

// KernelClock is a Notary.Clock: nil when the kernel's clock is synchronised within a second
// (adjtimex(2): what chrony or ntpd told it).
func KernelClock(context.Context) error {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return fault.New(fault.Unavailable, "ask the kernel's clock", err)
	}
	return judgeClock(state, &t)
}

func judgeClock(state int, t *unix.Timex) error {
	const op, second = "check the kernel's clock", 1_000_000
	switch {
	case state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0:
		return fault.Newf(fault.Unavailable, op, "it is not synchronised")
	case t.Maxerror > second:
		return fault.Newf(fault.Unavailable, op, "it may be wrong by %d µs", t.Maxerror)
	}
	return nil
}
