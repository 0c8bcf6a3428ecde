package notifier

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
)

func serial(t *testing.T) id.Serial {
	t.Helper()
	s, err := id.ParseSerial("APP-1")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestNotify(t *testing.T) {
	var got posted
	var auth string
	status := http.StatusAccepted
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		auth = r.Header.Get("Authorization")
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
		if status == http.StatusFound {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(status)
	}))
	defer s.Close()
	h := New(s.URL+"/hook?key=geheim", "bearer-geheim")
	if err := h.Notify(t.Context(), serial(t), []byte{1, 2, 0}); err != nil || got.Serial != "APP-1" || string(got.Message) != "\x01\x02\x00" || auth != "Bearer bearer-geheim" {
		t.Errorf("%v %+v %q", err, got, auth)
	}
	for _, status = range []int{http.StatusFound, http.StatusInternalServerError, http.StatusUnauthorized} {
		if err := h.Notify(t.Context(), serial(t), nil); !fault.Is(err, fault.Unavailable) {
			t.Errorf("HTTP %d: %v", status, err)
		}
	}
	s.Close()
	err := h.Notify(t.Context(), serial(t), nil)
	if !fault.Is(err, fault.Unavailable) || strings.Contains(err.Error(), "geheim") {
		t.Errorf("nobody there: %v", err)
	}
}

// TestBounds: a service that hangs holds no login longer than its context, and no more than so many.
func TestBounds(t *testing.T) {
	inside, release := make(chan struct{}, atOnce), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		inside <- struct{}{}
		<-release
	}))
	defer s.Close()
	h := New(s.URL, "")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	done := make(chan error, atOnce)
	for range atOnce {
		go func() { done <- h.Notify(ctx, serial(t), nil) }()
	}
	for range atOnce {
		<-inside
	}
	if err := h.Notify(ctx, serial(t), nil); !fault.Is(err, fault.Busy) {
		t.Errorf("one more: %v", err)
	}
	cancel()
	for range atOnce {
		if err := <-done; !fault.Is(err, fault.Unavailable) {
			t.Errorf("%v", err)
		}
	}
	close(release)
}
