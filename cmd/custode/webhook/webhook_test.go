package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"custode/modem"
)

func received(mark string) modem.Received {
	return modem.Received{Mark: mark, From: "+393471234567", Text: "dove siete?", Bay: "bay-1", At: time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)}
}

// TestForward: a hook that fails at first gets the message at the next try; one
// that never takes it does not keep the next message waiting for ever, and
// neither text nor number is in the log.
func TestForward(t *testing.T) {
	calls := map[string]int{}
	taken := make(chan forwarded, 4)
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var m forwarded
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil || r.Method != http.MethodPost {
			t.Errorf("%s: %v", r.Method, err)
		}
		calls[m.ID]++
		if m.ID == "never" || calls[m.ID] == 1 {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
			return
		}
		taken <- m
	}))
	defer hook.Close()
	var log bytes.Buffer
	f := New(hook.URL, slog.New(slog.NewTextHandler(&log, nil)))
	f.pauses = []time.Duration{time.Millisecond, time.Millisecond}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	give := f.Hook()
	give(received("never"))
	give(received("once"))
	select {
	case m := <-taken:
		if m.ID != "once" || m.Text != "dove siete?" || m.From != "+393471234567" || m.Bay != "bay-1" || m.At.IsZero() {
			t.Errorf("the hook got %+v", m)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the hook got nothing")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if calls["never"] != 3 || calls["once"] != 2 {
		t.Errorf("tries: %v", calls)
	}
	if out := log.String(); !strings.Contains(out, "HTTP 302") || strings.Contains(out, "dove") || strings.Contains(out, "347123") {
		t.Errorf("log: %s", out)
	}
}

// TestForwardNeverWaits: the modem's goroutine is not the hook's.
func TestForwardNeverWaits(t *testing.T) {
	var log bytes.Buffer
	f := New("http://127.0.0.1:1/", slog.New(slog.NewTextHandler(&log, nil)))
	give := f.Hook()
	for range cap(f.queue) + 1 {
		give(received("x")) // nobody runs it
	}
	if !strings.Contains(log.String(), "too many wait") {
		t.Error("nothing is said of what was dropped")
	}
	if New("", nil).Hook() != nil || New("", nil).Run(t.Context()) != nil {
		t.Error("without a URL there is something to call")
	}
}

// TestAddressIsNotLogged: what an operator put into the address stays there.
func TestAddressIsNotLogged(t *testing.T) {
	var log bytes.Buffer
	f := New("http://127.0.0.1:1/hook?token=geheim", slog.New(slog.NewTextHandler(&log, nil)))
	f.pauses = nil
	f.forward(t.Context(), received("x"))
	if out := log.String(); !strings.Contains(out, "not forwarded") || strings.Contains(out, "geheim") {
		t.Errorf("log: %s", out)
	}
}
