package worker

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"sync"
	"time"

	"custode/internal/fault"
)

// Listen serves on a Unix socket at path until ctx ends, and waits for the connections. Only
// peer is answered. open lets other users of the machine reach the socket: peer's, who is then
// another than this process's. A socket that a dead process left is replaced.
func (s *Server) Listen(ctx context.Context, path string, peer Peer, open bool) error {
	op := "open the worker's socket " + path
	if err := removeStale(path); err != nil {
		return err
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fault.New(fault.Fatal, op, err)
	}
	defer ln.Close()
	// Whoever came before the mode was set meets the check of the peer like everybody.
	mode := fs.FileMode(0o600)
	if open {
		mode = 0o666
	}
	if err := os.Chmod(path, mode); err != nil {
		return fault.New(fault.Fatal, op, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = ln.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var all sync.WaitGroup
	defer all.Wait()
	for {
		c, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = c.Close()
			}
			return nil
		case err != nil:
			return fault.New(fault.Unavailable, op, err)
		}
		all.Go(func() {
			if err := s.Serve(ctx, c, peer); err != nil {
				s.cfg.Log.Warn("a connection ended", "error", err)
			}
		})
	}
}

// removeStale removes the socket of a dead process, and nothing else.
func removeStale(path string) error {
	op := "open the worker's socket " + path
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fault.New(fault.Fatal, op, err)
	case info.Mode().Type() != fs.ModeSocket:
		return fault.Newf(fault.Fatal, op, "there is a file that is no socket")
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		_ = c.Close()
		return fault.Newf(fault.Conflict, op, "another process serves it")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Fatal, op, err)
	}
	return nil
}

// Dialer is the Source of a worker that somebody else runs.
type Dialer struct {
	Path string
	Peer Peer
}

// Open implements Source. It waits for the socket until ctx ends.
func (d Dialer) Open(ctx context.Context) (net.Conn, error) {
	op := "reach the worker at " + d.Path
	for {
		c, err := net.DialTimeout("unix", d.Path, time.Second)
		if err == nil {
			if err := d.Peer.Check(c); err != nil {
				return nil, errors.Join(fault.New(fault.Fatal, op, err), c.Close())
			}
			return c, nil
		}
		if !wait(ctx, 50*time.Millisecond) {
			return nil, fault.New(fault.Unavailable, op, err)
		}
	}
}

// Ended implements Source: only who runs it knows.
func (d Dialer) Ended() error { return nil }

// wait reports whether so much time passed before ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
