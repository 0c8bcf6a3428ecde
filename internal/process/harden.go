package process

import (
	"errors"

	"golang.org/x/sys/unix"

	"custode/internal/fault"
)

// LockMemory keeps this process's memory out of swap, pages as they come into use. With a limit on
// locked memory nothing is locked, and the error says so: a runtime that meets the limit later ends.
func LockMemory() error {
	const op = "lock memory"
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return fault.New(fault.Unavailable, op, err)
	}
	if limit.Cur != unix.RLIM_INFINITY {
		all := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &all); err != nil {
			return fault.Newf(fault.Unavailable, op, "the limit is %d octets (systemd: LimitMEMLOCK=infinity): %w", limit.Cur, err)
		}
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return fault.New(fault.Unavailable, op, errors.Join(errors.New("systemd: LimitMEMLOCK=infinity"), err))
	}
	return nil
}
