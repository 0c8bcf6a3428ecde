// Package ptyport makes the pseudo-terminals simulated modems live on: raw, linked
// under a stable name, held open on both sides, and able to block a writer.
// Only modemsim imports it. Linux only.
package ptyport

import (
	"os"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// Open makes a pty whose product side is linked under a stable name.
func Open(link string) (master, slave *os.File, err error) {
	if master, slave, err = pty.Open(); err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			_ = slave.Close()
			if master != nil {
				_ = master.Close()
			}
		}
	}()
	// We hold the slave open too, or the master would read EIO whenever the
	// product has the port closed; and raw, or the line discipline would echo.
	if err = raw(slave); err != nil {
		return master, slave, err
	}
	if master, err = pollable(master); err != nil {
		return nil, slave, err
	}
	_ = os.Remove(link)
	return master, slave, os.Symlink(slave.Name(), link)
}

// pollable replaces f by a non-blocking duplicate, so that Close ends a Read and
// deadlines work.
func pollable(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	_ = f.Close()
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "ptmx"), nil
}

func raw(f *os.File) error {
	return control(f, func(fd int) error {
		t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil {
			return err
		}
		t.Iflag, t.Oflag, t.Lflag = unix.IGNPAR, 0, 0
		return unix.IoctlSetTermios(fd, unix.TCSETS, t)
	})
}

func control(f *os.File, do func(fd int) error) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var e error
	if err := c.Control(func(fd uintptr) { e = do(int(fd)) }); err != nil {
		return err
	}
	return e
}

// Hold stops what the product writes, so that a writer blocks at once; the kernel
// would otherwise take some 10 kB before. Release lets it go on.
func Hold(slave *os.File) { flow(slave, unix.TCOOFF) }

// Release ends Hold.
func Release(slave *os.File) { flow(slave, unix.TCOON) }

func flow(slave *os.File, action int) {
	_ = control(slave, func(fd int) error { return unix.IoctlSetInt(fd, unix.TCXONC, action) })
}
