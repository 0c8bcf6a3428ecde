package worker

import (
	"context"
	"errors"
	"maps"
	"net"
	"sync"
	"testing"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
)

// rereading is a Server whose configuration the test changes.
type rereading struct {
	*Server
	mu    sync.Mutex
	uses  map[id.KeyLabel]Use
	err   error
	reads int
	gate  chan struct{} // nil: reading is quick
}

func newRereading(uses map[id.KeyLabel]Use) *rereading {
	r := &rereading{uses: uses}
	r.Server = NewServer(ServerConfig{Token: &fakeToken{seed: 1}, Keys: uses, Reread: r.read})
	return r
}

func (r *rereading) read() (map[id.KeyLabel]Use, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reads++
	if r.gate != nil {
		<-r.gate
	}
	return r.uses, r.err
}

func (r *rereading) change(uses map[id.KeyLabel]Use, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.uses, r.err = uses, err
	r.Server.reread.at = time.Time{} // as if a second had passed
}

func (r *rereading) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reads
}

// mac asks for a MAC with the key.
func (r *rereading) mac(l id.KeyLabel) error {
	q := question(opMAC, l.String(), []byte("x"))
	_, err := r.ask(context.Background(), &q)
	return err
}

// TestReread: a key that the file names by now may be used; an error leaves things as they are; a flood of refused
// questions reads the file once a second; what was allowed stays so while the process runs, because the daemon may
// yet refuse the change, or sign with the key before it is through with it.
func TestReread(t *testing.T) {
	old := map[id.KeyLabel]Use{macLabel: UseMAC}
	s := newRereading(old)
	if err := s.mac(macLabel); err != nil || s.count() != 0 {
		t.Fatalf("an allowed question: %v, %d reads", err, s.count())
	}
	for range 5 {
		if err := s.mac(bindLabel); !fault.Is(err, fault.Denied) {
			t.Fatalf("not named: %v", err)
		}
	}
	if n := s.count(); n != 1 {
		t.Errorf("%d reads within a second", n)
	}
	s.change(nil, errors.New("half written"))
	if err := s.mac(bindLabel); !fault.Is(err, fault.Denied) || s.count() != 2 {
		t.Errorf("a file that cannot be read: %v, %d reads", err, s.count())
	}
	if err := s.mac(macLabel); err != nil {
		t.Errorf("afterwards, as before: %v", err)
	}
	s.change(map[id.KeyLabel]Use{bindLabel: UseMAC, macLabel: UsePublic}, nil)
	if err := s.mac(bindLabel); err != nil {
		t.Errorf("named by now: %v", err)
	}
	if err := s.mac(macLabel); err != nil {
		t.Errorf("the old key, while the daemon changes: %v", err)
	}
	if len(old) != 1 {
		t.Error("the caller's table was written to")
	}
	// Another process has what the file says.
	if err := newRereading(map[id.KeyLabel]Use{bindLabel: UseMAC, macLabel: UsePublic}).mac(macLabel); !fault.Is(err, fault.Denied) {
		t.Errorf("the old key, of another process: %v", err)
	}
}

// TestRereadSlowly: a file system that stands still holds up nobody whose question is allowed.
func TestRereadSlowly(t *testing.T) {
	s := newRereading(map[id.KeyLabel]Use{macLabel: UseMAC})
	s.gate = make(chan struct{})
	refused := make(chan error, 1)
	go func() { refused <- s.mac(bindLabel) }()
	eventually(t, "it reads", func() bool { return !s.mu.TryLock() || !unlocked(&s.mu) })
	done := make(chan error, 1)
	go func() { done <- s.mac(macLabel) }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("an allowed question waits for the file")
	}
	close(s.gate)
	if err := <-refused; !fault.Is(err, fault.Denied) {
		t.Error(err)
	}
}

func unlocked(mu *sync.Mutex) bool { mu.Unlock(); return true }

// TestRetiredKey: a signing key that was in use and that the configuration does not name any more is no reason to
// refuse the token, when another worker comes.
func TestRetiredKey(t *testing.T) {
	w := newFake(t, 1)
	c := open(t, Config{Primary: w})
	for _, l := range []id.KeyLabel{oldLabel, signLabel} {
		if _, err := c.Signer(l); err != nil {
			t.Fatal(err)
		}
	}
	m, err := c.MAC(macLabel)
	if err != nil {
		t.Fatal(err)
	}
	w.change(func() {
		w.cfg.Keys = maps.Clone(allKeys)
		delete(w.cfg.Keys, oldLabel)
	})
	starts := w.opened()
	w.crash()
	eventually(t, "another worker", func() bool { return w.opened() > starts })
	if _, err := m.MAC(t.Context(), nil); err != nil {
		t.Error(err)
	}
	eventually(t, "well", func() bool { return c.Health() == nil })
}

// TestIdleFailOver: an appliance to which nobody sends logins because it is ill becomes well by its standby.
func TestIdleFailOver(t *testing.T) {
	primary, _, c, _ := two(t)
	primary.change(func() { primary.refuse = fault.Newf(fault.Unavailable, "open token", "it is away") })
	primary.crash()
	eventually(t, "ill, and well by the standby", func() bool { return c.Health() == nil && inUse(c) == "standby" })
}

// TestNoFlapping: a primary that probes well and does not sign is not gone back to four times a second.
func TestNoFlapping(t *testing.T) {
	primary, standby := newFake(t, 1), newFake(t, 1)
	c := open(t, Config{Primary: primary, Standby: standby, FailBack: 300 * time.Millisecond})
	eventually(t, "both well for long", func() bool {
		for _, b := range c.backends {
			b.mu.Lock()
			since := b.well
			b.mu.Unlock()
			if since.IsZero() || time.Since(since) < 400*time.Millisecond {
				return false
			}
		}
		return true
	})
	c.leave(c.backends[0], errors.New("it does not sign"))
	for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if inUse(c) == "primary" {
			t.Fatal("back at once")
		}
	}
	eventually(t, "back", func() bool { return inUse(c) == "primary" })
}

// halfway is a connection of which one write ends in the middle, by its deadline.
type halfway struct {
	net.Conn
	writes int
}

func (h *halfway) Write(p []byte) (int, error) {
	if h.writes++; h.writes == 1 {
		return len(p) / 2, context.DeadlineExceeded
	}
	return len(p), nil
}
func (*halfway) SetWriteDeadline(time.Time) error { return nil }
func (*halfway) SetReadDeadline(time.Time) error  { return nil }

// TestHalfAnAnswer: after a part of a frame there is no other, whose octets the client would take for the rest.
func TestHalfAnAnswer(t *testing.T) {
	h := &halfway{}
	k := &served{Conn: h}
	for i := range 3 {
		if err := k.send(message{call: uint32(i), fields: [][]byte{make([]byte, 100)}}); err == nil {
			t.Errorf("answer %d was sent", i)
		}
	}
	if h.writes != 1 {
		t.Errorf("%d writes", h.writes)
	}
}

// losing is a token of which keys were destroyed.
type losing struct {
	*fakeToken
	lost map[id.KeyLabel]bool
}

func (l *losing) Health() error {
	for label := range l.lost {
		return fault.Newf(fault.Fatal, "use key "+label.String(), "the token does not hold it")
	}
	return nil
}

func (l *losing) Forget(needed func(id.KeyLabel) bool) {
	maps.DeleteFunc(l.lost, func(k id.KeyLabel, _ bool) bool { return !needed(k) })
}

// TestDestroyedKey: a key that was retired and destroyed does not make the token ill; one that is needed does.
func TestDestroyedKey(t *testing.T) {
	named := map[id.KeyLabel]Use{signLabel: UsePublic, oldLabel: UsePublic}
	token := &losing{&fakeToken{}, map[id.KeyLabel]bool{oldLabel: true}}
	s := NewServer(ServerConfig{Token: token, Keys: maps.Clone(named), Reread: func() (map[id.KeyLabel]Use, error) { return named, nil }})
	health := func() error {
		s.reread.at = time.Time{}
		q := message{code: byte(opHealth)}
		_, err := s.ask(t.Context(), &q)
		return err
	}
	if err := health(); !fault.Is(err, fault.Fatal) {
		t.Errorf("a key that the configuration names: %v", err)
	}
	delete(named, oldLabel)
	if err := health(); err != nil {
		t.Errorf("retired and destroyed: %v", err)
	}
	token.lost[signLabel] = true
	if err := health(); !fault.Is(err, fault.Fatal) {
		t.Errorf("the key in use: %v", err)
	}
}
