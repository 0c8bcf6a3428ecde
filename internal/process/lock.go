package process

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"custode/internal/fault"
)

// lockFile is the name in the state directory of the file that marks its owner.
const lockFile = "custode.lock"

// LockState makes this process the only one that serves or migrates the state in
// folder, until it ends or closes the result: a second daemon would take the
// messages that the first is sending for those of a dead process. Another
// owner is fault.Conflict.
func LockState(folder string) (*os.File, error) {
	op := "lock state directory " + folder
	f, err := os.OpenFile(filepath.Join(folder, lockFile), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fault.New(fault.Fatal, op, err)
	}
	// The kernel drops the lock of a process that died, however it died.
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case err == nil:
		return f, nil
	case errors.Is(err, unix.EWOULDBLOCK):
		err = fault.Newf(fault.Conflict, op, "another custode serves or migrates it")
	default:
		err = fault.New(fault.Fatal, op, err)
	}
	return nil, errors.Join(err, f.Close())
}
