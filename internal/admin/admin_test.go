package admin

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"custode/internal/fault"
)

func serve(t *testing.T, methods map[string]Method) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.sock")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- NewServer(path, methods, slog.New(slog.DiscardHandler)).Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	deadline := time.Now().Add(5 * time.Second)
	for {
		if err := Call(path, "ping", nil, nil); err == nil || !fault.Is(err, fault.Unavailable) {
			return path
		}
		if time.Now().After(deadline) {
			t.Fatal("the socket did not open")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestCall(t *testing.T) {
	path := serve(t, map[string]Method{
		"echo": func(_ context.Context, arg []byte) (any, error) { return json.RawMessage(arg), nil },
		"fail": func(context.Context, []byte) (any, error) {
			return nil, fault.Newf(fault.Conflict, "add identity", "username is taken")
		},
	})
	var out map[string]string
	if err := Call(path, "echo", map[string]string{"a": "<b>"}, &out); err != nil || out["a"] != "<b>" {
		t.Errorf("echo: %v %v", out, err)
	}
	if err := Call(path, "fail", nil, nil); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "username is taken") {
		t.Errorf("fail: %v", err)
	}
	if err := Call(path, "nothing", nil, nil); !fault.Is(err, fault.NotFound) {
		t.Errorf("unknown method: %v", err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket mode: %v %v", st.Mode(), err)
	}
	err := NewServer(path, nil, slog.New(slog.DiscardHandler)).Run(context.Background())
	if !fault.Is(err, fault.Conflict) {
		t.Errorf("second server on the same socket: %v", err)
	}
}

func TestNoDaemon(t *testing.T) {
	if err := Call(filepath.Join(t.TempDir(), "none"), "x", nil, nil); !fault.Is(err, fault.Unavailable) {
		t.Errorf("got %v", err)
	}
}

// TestPathIsNotASocket: a mistyped path must not cost the file it names.
func TestPathIsNotASocket(t *testing.T) {
	dir := t.TempDir()
	file, folder := filepath.Join(dir, "custode.db"), filepath.Join(dir, "empty")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for _, path := range []string{file, folder} {
		if err := NewServer(path, nil, slog.New(slog.DiscardHandler)).Run(ctx); !fault.Is(err, fault.Fatal) {
			t.Errorf("serving at %s: %v", path, err)
		}
		if _, err := os.Stat(path); err != nil {
			t.Errorf("the file is gone: %v", err)
		}
	}
}

// TestStaleSocket: what a killed daemon left is replaced.
func TestStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ln.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- NewServer(path, nil, slog.New(slog.DiscardHandler)).Run(ctx) }()
	deadline := time.Now().Add(5 * time.Second)
	for Call(path, "ping", nil, nil) == nil || !fault.Is(Call(path, "ping", nil, nil), fault.NotFound) {
		if time.Now().After(deadline) {
			t.Fatal("the stale socket was not replaced")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestShutdownWaitsForMethod: Run must not return, and so let its caller close
// the database, while a method is at work.
func TestShutdownWaitsForMethod(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	ctx, cancel := context.WithCancel(t.Context())
	entered, leave, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	methods := map[string]Method{"slow": func(ctx context.Context, _ []byte) (any, error) {
		close(entered)
		<-leave
		return "ok", ctx.Err()
	}}
	go func() { done <- NewServer(path, methods, slog.New(slog.DiscardHandler)).Run(ctx) }()
	answered := make(chan error, 1)
	go func() {
		var err error
		for range 1000 {
			if err = Call(path, "slow", nil, nil); !fault.Is(err, fault.Unavailable) {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		answered <- err
	}()
	<-entered
	cancel()
	select {
	case err := <-done:
		t.Fatalf("Run returned (%v) while a method was at work", err)
	case <-time.After(200 * time.Millisecond):
	}
	close(leave)
	if err := <-answered; err != nil {
		t.Errorf("the method in progress: %v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
