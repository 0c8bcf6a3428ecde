package worker

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"custode/hsm"
	"custode/internal/fault"
)

// two opens a Client with a primary and a standby that are copies, and a mac key in use in both.
func two(t *testing.T) (primary, standby *fakeWorker, c *Client, m hsm.MAC) {
	t.Helper()
	primary, standby = newFake(t, 1), newFake(t, 1)
	c = open(t, Config{Primary: primary, Standby: standby})
	m, err := c.MAC(macLabel)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "both well", func() bool { return bothWell(c) })
	return primary, standby, c, m
}

func bothWell(c *Client) bool {
	for _, s := range c.Status() {
		if !s.Well {
			return false
		}
	}
	keys := c.Keys()
	return len(keys) > 0 && len(keys[0].Compared) == 2
}

func inUse(c *Client) string { return c.inUse().name }

func TestFailOver(t *testing.T) {
	for name, ill := range map[string]func(*fakeWorker){
		"crash": func(w *fakeWorker) {
			w.change(func() { w.refuse = fault.Newf(fault.Unavailable, "open token", "it is away") })
			w.crash()
		},
		"error": func(w *fakeWorker) { w.token.fail(fault.Newf(fault.Unavailable, "work", "the token is away")) },
		"fatal": func(w *fakeWorker) { w.token.fail(fault.Newf(fault.Fatal, "work", "a key is missing")) },
		"hang":  func(w *fakeWorker) { c := make(chan struct{}); w.token.stall.Store(&c) },
		"sick":  func(w *fakeWorker) { err := errors.New("sick"); w.token.ill.Store(&err) },
	} {
		t.Run(name, func(t *testing.T) {
			primary, _, c, m := two(t)
			want, err := m.MAC(t.Context(), []byte("x"))
			if err != nil {
				t.Fatal(err)
			}
			ill(primary)
			begun := time.Now()
			for inUse(c) == "primary" || time.Since(begun) < 50*time.Millisecond {
				if got, err := m.MAC(t.Context(), []byte("x")); err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%x, %v", got, err)
				}
				if time.Since(begun) > 5*time.Second {
					t.Fatal("no fail-over")
				}
			}
			if err := c.Health(); err != nil {
				t.Errorf("with the standby: %v", err)
			}
			// Well again, and in use again after FailBack.
			primary.change(func() { primary.refuse = nil })
			primary.token.fail(nil)
			primary.token.ill.Store(nil)
			if s := primary.token.stall.Swap(nil); s != nil {
				close(*s)
			}
			eventually(t, "back", func() bool { return inUse(c) == "primary" })
			if got, err := m.MAC(t.Context(), []byte("x")); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%x, %v", got, err)
			}
		})
	}
}

// TestStandbyWithOtherKeys: it is refused by name and never used.
func TestStandbyWithOtherKeys(t *testing.T) {
	primary, standby := newFake(t, 1), newFake(t, 2)
	c := open(t, Config{Primary: primary, Standby: standby})
	m, err := c.MAC(macLabel)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "refused by name", func() bool {
		s := c.Status()[1]
		return !s.Ready && strings.Contains(s.Trouble, "recognise key "+macLabel.String()) && strings.Contains(s.Trouble, "standby")
	})
	primary.token.fail(fault.Newf(fault.Unavailable, "work", "away"))
	if _, err := m.MAC(t.Context(), nil); !fault.Is(err, fault.Unavailable) || inUse(c) != "primary" {
		t.Errorf("%v, in use %s", err, inUse(c))
	}
	if err := c.Failover("standby"); !fault.Is(err, fault.Conflict) {
		t.Errorf("an operator's wish: %v", err)
	}
}

// TestBothRefuse: an error that both tokens give is given at once, not until the deadline.
func TestBothRefuse(t *testing.T) {
	primary, standby, _, m := two(t)
	err := fault.Newf(fault.Fatal, "work", "the key breaks the policy")
	primary.token.fail(err)
	standby.token.fail(err)
	begun := time.Now()
	if _, err := m.MAC(t.Context(), nil); !fault.Is(err, fault.Fatal) || time.Since(begun) > 2*time.Second {
		t.Errorf("%v after %v", err, time.Since(begun))
	}
}

// TestPinned: an operator's choice holds while that token is well.
func TestPinned(t *testing.T) {
	_, standby, c, m := two(t)
	if err := c.Failover("standby"); err != nil {
		t.Fatal(err)
	}
	// Longer than FailBack.
	for end := time.Now().Add(400 * time.Millisecond); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if inUse(c) != "standby" || !c.Status()[1].Pinned {
			t.Fatal("it moved by itself")
		}
	}
	standby.token.fail(fault.Newf(fault.Unavailable, "work", "away"))
	if _, err := m.MAC(t.Context(), nil); err != nil || inUse(c) != "primary" {
		t.Errorf("%v, in use %s", err, inUse(c))
	}
	if c.Status()[1].Pinned {
		t.Error("still pinned")
	}
	if err := c.Failover("third"); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

// TestStartOnStandby: the appliance starts although the primary is away.
func TestStartOnStandby(t *testing.T) {
	primary, standby := newFake(t, 1), newFake(t, 1)
	primary.refuse = fault.Newf(fault.Unavailable, "open token", "away")
	c := open(t, Config{Primary: primary, Standby: standby})
	if inUse(c) != "standby" {
		t.Errorf("in use: %s", inUse(c))
	}
	standby.refuse = primary.refuse
	if _, err := Open(t.Context(), Config{Primary: primary, Standby: standby}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("both away: %v", err)
	}
}

// TestDeaf: a process that does not answer at all is given up and another one started.
func TestDeaf(t *testing.T) {
	w := newFake(t, 1)
	c := open(t, Config{Primary: w, Deaf: 300 * time.Millisecond})
	m, err := c.MAC(macLabel)
	if err != nil {
		t.Fatal(err)
	}
	// The answers are held back: its only writer waits.
	w.mu.Lock()
	server := w.server
	w.mu.Unlock()
	server.mu.Lock()
	var stopped *served
	for k := range server.conns {
		stopped = k
	}
	server.mu.Unlock()
	stopped.write.Lock()
	defer stopped.write.Unlock()
	if _, err := m.MAC(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if n := w.opened(); n != 2 {
		t.Errorf("%d starts", n)
	}
}
