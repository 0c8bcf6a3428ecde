// Package modemsim simulates a bank of GSM modems, the radio network behind
// them, and the phones that receive: each modem is a pseudo-terminal that speaks
// V.250, 3GPP TS 27.007 and 27.005 as a plain generic modem does.
//
// It sits below the seam: it shares no code with the driver it tests (it has its
// own PDU decoder) and imports no product package. It announces itself with the
// manufacturer SIMULATOR, which the product refuses unless it is told that
// simulated modems are allowed. Only tests and cmd/simlab may import it.
//
// A Bank makes a directory with one symbolic link per modem (modem0, modem1 ...);
// the link vanishes on Unplug and comes back, onto another pty, on Plug, as a USB
// stick under a by-path name does. Delays and losses are random with a seed that
// the caller should print; every fault is also available on demand.
package modemsim

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Delay is a log-normal distribution: half of the draws are below Median; Spread
// is the standard deviation of the logarithm (0.5 is lively, 0 is constant). The
// zero value means no delay. Draws over ten times Median are cut there.
type Delay struct {
	Median time.Duration
	Spread float64
}

// Config describes a bank. Everything but Dir and Modems may be zero: then the
// radio is instant and perfect and the modems are polite.
type Config struct {
	Dir     string // made if missing; holds the links
	Modems  int    // 1 to 64
	Latency Delay  // from Ctrl-Z to +CMGS
	Transit Delay  // from +CMGS to the phone
	Loss    float64
	// Reject is the share of submissions the network refuses with +CMS ERROR: 42.
	Reject float64
	// Chatter is the probability of an unsolicited line before each line a modem says.
	Chatter float64
	// Chop lets modems write octet by octet.
	Chop   bool
	Seed   uint64
	SIMPIN string // four to eight digits; "" means cards without a PIN
}

// Hostile fills the random faults of c with the values a driver must live with.
func Hostile(c Config) Config {
	c.Latency, c.Transit = Delay{2 * time.Second, 0.5}, Delay{time.Second, 0.8}
	c.Loss, c.Reject, c.Chatter, c.Chop = 0.02, 0.02, 0.05, true
	return c
}

// SMS is a message in a phone's inbox.
type SMS struct {
	From string    `json:"from"` // number of the sending card
	Text string    `json:"text"`
	At   time.Time `json:"at"`
}

// Submission is a message the network accepted.
type Submission struct {
	Modem  int
	Ref    byte
	To     string
	Text   string
	Report bool
	At     time.Time
	// Part and Parts place it in a long message; 0 when it is not one.
	Part, Parts int
}

// Bank is a running simulator.
type Bank struct {
	cfg     Config
	devices []*device

	mu      sync.Mutex
	rnd     *rand.Rand
	inboxes map[string][]SMS
	ledger  []Submission
	barred  map[string]int
	changed chan struct{} // closed and replaced whenever an inbox or the ledger grows
	timers  map[*time.Timer]bool
	running sync.WaitGroup // timers set and not finished
	closed  bool
}

// NewBank builds and plugs the modems.
func NewBank(cfg Config) (*Bank, error) {
	if cfg.Modems < 1 || cfg.Modems > 64 || cfg.Dir == "" {
		return nil, errors.New("modemsim: a bank needs a directory and 1 to 64 modems")
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("modemsim: %w", err)
	}
	b := &Bank{
		cfg: cfg, rnd: rand.New(rand.NewPCG(cfg.Seed, 0x6d6f64656d)),
		inboxes: map[string][]SMS{}, barred: map[string]int{}, changed: make(chan struct{}),
		timers: map[*time.Timer]bool{},
	}
	for i := range cfg.Modems {
		b.devices = append(b.devices, newDevice(b, i, filepath.Join(cfg.Dir, fmt.Sprintf("modem%d", i))))
	}
	for i := range b.devices {
		if err := b.Plug(i); err != nil {
			return nil, errors.Join(err, b.Close())
		}
	}
	return b, nil
}

// Close unplugs every modem; messages on the way are dropped.
func (b *Bank) Close() error {
	b.mu.Lock()
	b.closed = true
	for t := range b.timers {
		if t.Stop() {
			b.running.Done()
		}
	}
	b.mu.Unlock()
	for _, d := range b.devices {
		d.unplug()
	}
	b.running.Wait()
	return nil
}

// Device returns the stable path of modem i.
func (b *Bank) Device(i int) string { return b.devices[i].link }

// Modems returns how many modems there are.
func (b *Bank) Modems() int { return len(b.devices) }

// IMSI returns the card identity of modem i.
func (b *Bank) IMSI(i int) string { return b.devices[i].imsi() }

// Inbox returns what the phone received, oldest first.
func (b *Bank) Inbox(phone string) []SMS {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]SMS(nil), b.inboxes[phone]...)
}

// Phones returns every number that received something.
func (b *Bank) Phones() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]string, 0, len(b.inboxes))
	for p := range b.inboxes {
		out = append(out, p)
	}
	return out
}

// Ledger returns every accepted submission in order.
func (b *Bank) Ledger() []Submission {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]Submission(nil), b.ledger...)
}

// Wait returns the phone's inbox once it holds n messages, or ctx's error.
func (b *Bank) Wait(ctx context.Context, phone string, n int) ([]SMS, error) {
	for {
		b.mu.Lock()
		in, changed := append([]SMS(nil), b.inboxes[phone]...), b.changed
		b.mu.Unlock()
		if len(in) >= n {
			return in, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return in, fmt.Errorf("modemsim: %d of %d messages: %w", len(in), n, ctx.Err())
		}
	}
}

// BadNumber lets the network refuse phone with +CMS ERROR: code; 0 forgives.
func (b *Bank) BadNumber(phone string, code int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.barred[phone] = code
}

// draw takes a delay from the distribution.
func (b *Bank) draw(d Delay) time.Duration {
	if d.Median == 0 {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	f := math.Exp(b.rnd.NormFloat64() * d.Spread)
	return time.Duration(float64(d.Median) * min(f, 10))
}

func (b *Bank) chance(p float64) bool {
	if p <= 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rnd.Float64() < p
}

// after runs f after d, at once when d is 0; Close waits for it.
func (b *Bank) after(d time.Duration, f func()) {
	if d == 0 {
		f()
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	b.running.Add(1)
	var t *time.Timer
	t = time.AfterFunc(d, func() {
		defer b.running.Done()
		b.mu.Lock()
		delete(b.timers, t)
		closed := b.closed
		b.mu.Unlock()
		if !closed {
			f()
		}
	})
	b.timers[t] = true
}

// judge is the network's verdict on a submission: 0 or a CMS code.
func (b *Bank) judge(to string) int {
	if b.chance(b.cfg.Reject) {
		return 42 // congestion
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.barred[to]
}

func (b *Bank) note(s Submission) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ledger = append(b.ledger, s)
	b.grew()
}

// deliver puts a message into an inbox after the transit time and then calls
// done; a lost message never arrives.
func (b *Bank) deliver(to string, m SMS, done func()) {
	if b.chance(b.cfg.Loss) {
		return
	}
	b.after(b.draw(b.cfg.Transit), func() {
		m.At = time.Now()
		b.mu.Lock()
		b.inboxes[to] = append(b.inboxes[to], m)
		b.grew()
		b.mu.Unlock()
		done()
	})
}

// grew wakes the waiters; b.mu is held.
func (b *Bank) grew() {
	close(b.changed)
	b.changed = make(chan struct{})
}
