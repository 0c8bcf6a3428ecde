package store_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store"
	"custode/internal/store/storetest"
	"custode/modem"
	"custode/modem/at"
	"custode/modem/budget"
	"custode/modem/modemtest"
	"custode/modem/pdu"
)

// plainTexts stands for the HSM: what is stored is the text itself.
type plainTexts struct{}

func (plainTexts) Unwrap(_ context.Context, blob, _ []byte) ([]byte, error) {
	return bytes.Clone(blob), nil
}

// aether counts the copies of each text that modems took.
type aether struct {
	mu     sync.Mutex
	copies map[string]int
}

func (a *aether) react() func(*modemtest.Port, string) {
	polite := modemtest.Polite(nil)
	return func(p *modemtest.Port, got string) {
		if text, ok := strings.CutSuffix(got, "\x1a"); ok {
			if s, err := pdu.DecodeSubmit(text); err == nil {
				a.mu.Lock()
				a.copies[s.Text]++
				a.mu.Unlock()
			}
		}
		polite(p, got)
	}
}

// runPool runs a pool of two modems on db until the test ends.
func runPool(t *testing.T, db *store.DB, a *aether) *modem.Pool {
	t.Helper()
	pool, err := modem.New(modem.Config{
		Bays:    []modem.BayConfig{{Name: "a", Device: "/dev/a"}, {Name: "b", Device: "/dev/b"}},
		Journal: db, Accounts: db, Opener: plainTexts{}, Log: slog.New(slog.DiscardHandler),
		Budget:   budget.Limits{Burst: -1, PerDay: -1, PerMonth: -1},
		Timing:   modem.Timing{Lease: 20 * time.Millisecond, Poll: 20 * time.Millisecond},
		OpenPort: func(modem.BayConfig) (at.Port, error) { return modemtest.New(a.react()), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- pool.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return pool
}

func enqueue(t *testing.T, db *store.DB, text string) id.MessageID {
	t.Helper()
	k, err := id.NewMessageID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	to, err := id.ParsePhone("+393401234567")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if err := db.Enqueue(t.Context(), modem.Message{ID: k, To: to, Wrapped: []byte(text), Class: modem.Alert, Created: now, Expires: now.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	return k
}

// TestTwoPoolsOneStore: two processes race for the messages of one file, each
// recovering what it takes for the other's leavings; every message leaves once.
func TestTwoPoolsOneStore(t *testing.T) {
	path := migrated(t)
	first, second := mustOpen(t, path), mustOpen(t, path)
	a := &aether{copies: map[string]int{}}
	const messages = 60
	var all []id.MessageID
	for i := range messages / 2 {
		all = append(all, enqueue(t, first, fmt.Sprintf("testo %d", i)))
	}
	one, two := runPool(t, first, a), runPool(t, second, a)
	for i := range messages / 2 {
		all = append(all, enqueue(t, second, fmt.Sprintf("testo %d", messages/2+i)))
		one.Wake()
		two.Wake()
	}
	limit := time.Now().Add(30 * time.Second)
	for _, m := range all {
		for {
			steps, err := first.TrailOf(t.Context(), m)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(steps); n > 0 && steps[n-1].State == modem.Sent {
				if n != 2 {
					t.Errorf("%d steps: %v", n, steps)
				}
				break
			}
			if time.Now().After(limit) {
				t.Fatalf("not sent: %v", steps)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.copies) != messages {
		t.Errorf("%d texts left, want %d", len(a.copies), messages)
	}
	for text, n := range a.copies {
		if n != 1 {
			t.Errorf("%q left %d times", text, n)
		}
	}
	shared := 0
	for _, p := range []*modem.Pool{one, two} {
		if p.Overview().Steps["sent"] > 0 {
			shared++
		}
	}
	if shared == 0 {
		t.Error("no pool counts what it sent")
	}
}

// TestKilledWhileSending: the claim of a killed process lasts as long as its lease
// for others, and not at all for one that knows it is alone.
func TestKilledWhileSending(t *testing.T) {
	path := migrated(t)
	db := mustOpen(t, path)
	m := enqueue(t, db, "testo")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	killed(t, 1, "claim", path, m.String())
	requireWAL(t, path)
	other := mustOpen(t, path)
	if events, err := other.Recover(t.Context(), time.Now()); err != nil || len(events) != 0 {
		t.Errorf("taken at once: %v, %v", events, err)
	}
	if err := other.Record(t.Context(), modem.Event{ID: m, State: modem.Sending, At: time.Now()}); !fault.Is(err, fault.Conflict) {
		t.Errorf("sent beside the claim: %v", err)
	}
	alone, err := store.Open(t.Context(), store.Config{Path: path, Alone: true, Keys: storetest.Keys("records")})
	if err != nil {
		t.Fatal(err)
	}
	defer alone.Close()
	events, err := alone.Recover(t.Context(), time.Now())
	if err != nil || len(events) != 1 || events[0].ID != m || events[0].State != modem.MaybeSent {
		t.Errorf("not recovered: %v, %v", events, err)
	}
	queued, err := alone.Queued(t.Context(), 10)
	if err != nil || len(queued) != 1 || !queued[0].InDoubt {
		t.Errorf("queued %v, %v", queued, err)
	}
}
