package socket

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

// Listen opens a Unix socket at path and has serve answer each connection, until ctx ends; then it waits
// for those. open lets other users of the machine reach the socket: serve asks who they are. A
// socket that a dead process left is replaced.
func Listen(ctx context.Context, path string, open bool, serve func(net.Conn)) error {
	op := "open the worker's socket " + path
	if err := removeStale(path); err != nil {
		return err
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fault.New(fault.Fatal, op, err)
	}
	defer ln.Close()
	// Whoever came before the mode was set meets serve's question like everybody.
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
		all.Go(func() { serve(c) })
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

// Dialer is the worker.Source of a worker that somebody else runs.
type Dialer struct {
	Path string
	Peer Peer
}

// Open implements worker.Source. It waits for the socket until ctx ends.
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
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, fault.New(fault.Unavailable, op, err)
		}
	}
}

// Ended implements worker.Source: only who runs it knows.
func (d Dialer) Ended() error { return nil }
