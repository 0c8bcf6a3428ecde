package admin

import (
	"context"
	"encoding/json"
	"log/slog"
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
