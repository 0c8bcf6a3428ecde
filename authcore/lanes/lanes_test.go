package lanes

import (
	"context"
	"testing"

	"custode/internal/fault"
)

func TestLanes(t *testing.T) {
	l := New(1)
	leave, err := l.Enter(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	other, err := l.Enter(t.Context(), "b") // another key does not wait
	if err != nil {
		t.Fatal(err)
	}
	other()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Enter(ctx, "a"); !fault.Is(err, fault.Busy) {
		t.Errorf("given up: %v", err)
	}
	entered := make(chan func())
	go func() {
		leave, err := l.Enter(t.Context(), "a")
		if err != nil {
			t.Error(err)
		}
		entered <- leave
	}()
	leave()
	(<-entered)()
	if !l.Idle() {
		t.Error("something is left behind")
	}
}
