// Package socket has the Unix sockets of the token's worker: who may be at the other end, a place to
// listen at, a way to get there, and frames as they come. What is said in them is hsm/worker's. Only that package,
// cmd/custode/hsmcmd and tests import it.
package socket

import (
	"net"
	"os"

	"golang.org/x/sys/unix"

	"custode/internal/fault"
)

// Peer is who may be at the other end of a connection.
type Peer struct {
	UID int // effective user, as the kernel says
	PID int // process; 0: any
}

// Self is this process's own user.
func Self() Peer { return Peer{UID: os.Geteuid()} }

// Check reads the credentials of c's other end, a Unix socket, and compares them:
// fault.Denied for anybody else.
func (p Peer) Check(c net.Conn) error {
	const op = "check who is at the other end of the worker's socket"
	u, ok := c.(*net.UnixConn)
	if !ok {
		return fault.Newf(fault.Denied, op, "not a Unix socket")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return fault.New(fault.Denied, op, err)
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return fault.New(fault.Denied, op, err)
	}
	if credErr != nil {
		return fault.New(fault.Denied, op, credErr)
	}
	if int(cred.Uid) != p.UID || p.PID != 0 && int(cred.Pid) != p.PID {
		return fault.Newf(fault.Denied, op, "user %d, process %d; wanted user %d, process %d (0: any)", cred.Uid, cred.Pid, p.UID, p.PID)
	}
	return nil
}
