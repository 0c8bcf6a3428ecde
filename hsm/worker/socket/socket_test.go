package socket

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"custode/internal/fault"
)

func TestListenAndOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	hello := func(c net.Conn) {
		if Self().Check(c) == nil {
			_, _ = c.Write([]byte("hello"))
		}
		c.Close()
	}
	go func() { done <- Listen(ctx, path, false, hello) }()
	limit, end := context.WithTimeout(ctx, 5*time.Second)
	defer end()
	c, err := Dialer{Path: path, Peer: Self()}.Open(limit)
	if err != nil {
		t.Fatal(err)
	}
	if said, err := io.ReadAll(c); err != nil || string(said) != "hello" {
		t.Errorf("%q, %v", said, err)
	}
	c.Close()
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	for name, p := range map[string]Peer{"of another user": {UID: os.Geteuid() + 1}, "of another process": {UID: os.Geteuid(), PID: os.Getpid() + 1}} {
		if _, err := (Dialer{Path: path, Peer: p}).Open(limit); !fault.Is(err, fault.Fatal) {
			t.Errorf("a worker %s: %v", name, err)
		}
	}
	if err := Listen(ctx, path, false, hello); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second one at the same socket: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	late, stop := context.WithTimeout(t.Context(), 60*time.Millisecond)
	defer stop()
	if _, err := (Dialer{Path: path, Peer: Self()}).Open(late); !fault.Is(err, fault.Unavailable) {
		t.Errorf("nobody there: %v", err)
	}
	// What a killed process left is replaced.
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	over, cut := context.WithCancel(t.Context())
	cut()
	if err := Listen(over, path, true, hello); err != nil {
		t.Errorf("at a stale socket: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	if err := Self().Check(&net.TCPConn{}); !fault.Is(err, fault.Denied) {
		t.Errorf("TCP: %v", err)
	}
	file := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Listen(t.Context(), file, false, nil); !fault.Is(err, fault.Fatal) {
		t.Errorf("at a file: %v", err)
	}
	if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
		t.Error("the file is gone")
	}
}
