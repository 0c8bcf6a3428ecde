// Package modemsim simulates a bank of GSM modems, the radio network behind
// them, and the phones at the other end: each modem is a pseudo-terminal that
// speaks V.250, 3GPP TS 27.007 and 27.005 the way its profile's make does.
//
// It sits below the seam: it shares no code with the driver it tests (its PDU
// codec is in tpdu) and imports no product package. The generic profile announces
// the manufacturer SIMULATOR, vendor profiles carry the word in +CGMR, and every
// card is on the test network 001 01, so that a product can refuse them. Only
// tests and cmd/simlab may import it.
//
// A Bank makes a directory with one symbolic link per modem (modem0, modem1 ...);
// the link vanishes on Unplug and comes back, onto another pty, on Plug, as a USB
// stick under a by-path name does. Time is real time. Delays and losses are random
// with a seed that the caller should print, each modem with a generator of its
// own; every fault is also available on demand.
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

	"custode/simulators/modemsim/dialect"
)

// Delay is a log-normal distribution: half of the draws are below Median; Spread
// is the standard deviation of the logarithm (0.5 is lively, 0 is constant). Draws
// over ten times Median are cut there. A share Slow of the draws, 0 to 1, is
// uniform between SlowMin and SlowMax instead. The zero value means no delay.
type Delay struct {
	Median           time.Duration
	Spread           float64
	Slow             float64
	SlowMin, SlowMax time.Duration
}

// Radio2G is a GSM network: median 4 s, 95 % within 7 s, 3 % of 8 to 20 s.
func Radio2G() Delay {
	return Delay{Median: 4 * time.Second, Spread: 0.34, Slow: 0.03, SlowMin: 8 * time.Second, SlowMax: 20 * time.Second}
}

// RadioLTE is an LTE network: median 1.8 s, 95 % within 4 s, 3 % of 8 to 20 s.
func RadioLTE() Delay {
	return Delay{Median: 1800 * time.Millisecond, Spread: 0.485, Slow: 0.03, SlowMin: 8 * time.Second, SlowMax: 20 * time.Second}
}

// AntiSpam is the network's patience with one card: more than PerMinute accepted
// messages within 60 s, and everything is refused with +CMS ERROR: Code (21 when
// zero) until no attempt was made for Cool. PerMinute 0 is endless patience.
type AntiSpam struct {
	PerMinute int
	Code      int
	Cool      time.Duration
}

// Config describes a bank. Everything but Dir and Modems may be zero: then the
// radio is instant and perfect and the modems are polite.
type Config struct {
	Dir    string // made if missing; holds the links
	Modems int    // 1 to 64
	// Profiles are names of dialect.Names; modem i speaks Profiles[i%len].
	Profiles []string
	// Tweak has the last touch on modem i's own copy of its profile.
	Tweak func(i int, p *dialect.Profile)
	// Pace is the factor on the profiles' own times (boot, SIM busy, slow ATZ);
	// 0 means 0.02, 1 is the pace of the real thing.
	Pace float64
	// Operators are PLMNs (five or six digits): modem i's card and network are of
	// Operators[i%len]; none means the test network 00101.
	Operators []string
	Latency   Delay // from Ctrl-Z to +CMGS
	Transit   Delay // from +CMGS to the phone
	// ByBearer takes Latency from the profile's bearer: Radio2G or RadioLTE.
	ByBearer bool
	Loss     float64
	// Reject is the share of submissions the network refuses with +CMS ERROR: 42.
	Reject float64
	// Chatter is the probability of an unsolicited line before each line a modem says.
	Chatter float64
	// Chop lets modems write octet by octet; Glue lets them gather for so long
	// and write all at once.
	Chop     bool
	Glue     time.Duration
	Seed     uint64
	SIMPIN   string // four to eight digits; "" means cards without a PIN
	AntiSpam AntiSpam
	// NationalRA lets status reports carry the recipient without its country code.
	NationalRA bool
	Plan       Plan
}

// Hostile fills the random faults of c with the values a driver must live with.
func Hostile(c Config) Config {
	c.Latency, c.Transit = Delay{Median: 2 * time.Second, Spread: 0.5}, Delay{Median: time.Second, Spread: 0.8}
	c.Loss, c.Reject, c.Chatter, c.Chop = 0.02, 0.02, 0.05, true
	return c
}

// Bank is a running simulator.
type Bank struct {
	cfg     Config
	devices []*device

	mu       sync.Mutex
	rnd      *rand.Rand
	phones   map[string]*handset
	ledger   []Submission
	handoffs []Handoff
	faultLog []string
	barred   map[string]int
	byNumber map[string]Outcome
	changed  chan struct{} // closed and replaced whenever an inbox or the ledger grows
	timers   map[*time.Timer]bool
	running  sync.WaitGroup // timers set and not finished, and readers of ptys
	closed   bool
}

// NewBank builds and plugs the modems.
func NewBank(cfg Config) (*Bank, error) {
	if cfg.Modems < 1 || cfg.Modems > 64 || cfg.Dir == "" {
		return nil, errors.New("modemsim: a bank needs a directory and 1 to 64 modems")
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("modemsim: %w", err)
	}
	if cfg.Pace == 0 {
		cfg.Pace = 0.02
	}
	b := &Bank{
		cfg: cfg, rnd: rand.New(rand.NewPCG(cfg.Seed, 0x6d6f64656d)),
		phones: map[string]*handset{}, barred: map[string]int{}, byNumber: map[string]Outcome{},
		changed: make(chan struct{}), timers: map[*time.Timer]bool{},
	}
	for i := range cfg.Modems {
		name := "generic"
		if len(cfg.Profiles) > 0 {
			name = cfg.Profiles[i%len(cfg.Profiles)]
		}
		p, ok := dialect.Get(name)
		if !ok {
			return nil, fmt.Errorf("modemsim: no profile %q, there are %q", name, dialect.Names())
		}
		if cfg.Tweak != nil {
			cfg.Tweak(i, &p)
		}
		b.devices = append(b.devices, newDevice(b, i, p, filepath.Join(cfg.Dir, fmt.Sprintf("modem%d", i))))
	}
	for i := range b.devices {
		if err := b.Plug(i); err != nil {
			return nil, errors.Join(err, b.Close())
		}
	}
	b.startPlan()
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
		d.mu.Lock()
		d.detach()
		d.mu.Unlock()
	}
	b.running.Wait()
	return nil
}

// Device returns the path of modem i: stable until PlugAs or Reset renames it.
func (b *Bank) Device(i int) (path string) {
	b.with(i, func(d *device) { path = d.link })
	return path
}

// Modems returns how many modems there are.
func (b *Bank) Modems() int { return len(b.devices) }

// Profile returns the profile modem i speaks.
func (b *Bank) Profile(i int) dialect.Profile { return b.devices[i].p }

// IMSI returns the card identity of modem i.
func (b *Bank) IMSI(i int) (imsi string) {
	b.with(i, func(d *device) { imsi = d.card.imsi })
	return imsi
}

// IMEI returns the identity of modem i.
func (b *Bank) IMEI(i int) string { return b.devices[i].imei() }

// Number returns the telephone number of modem i's card.
func (b *Bank) Number(i int) string { return b.devices[i].number() }

// wait returns once ready, called under b.mu, says so.
func (b *Bank) wait(ctx context.Context, ready func() bool) error {
	for {
		b.mu.Lock()
		done, changed := ready(), b.changed
		b.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// grew wakes the waiters; b.mu is held.
func (b *Bank) grew() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// draw takes a delay from the distribution.
func (d Delay) draw(rnd *rand.Rand) time.Duration {
	if d.Slow > 0 && rnd.Float64() < d.Slow {
		return d.SlowMin + time.Duration(rnd.Float64()*float64(d.SlowMax-d.SlowMin))
	}
	if d.Median == 0 {
		return 0
	}
	f := math.Exp(rnd.NormFloat64() * d.Spread)
	return time.Duration(float64(d.Median) * min(f, 10))
}

// latency is how long the radio takes with modem d's next submission.
func (b *Bank) latency(d *device) time.Duration {
	l := b.cfg.Latency
	if b.cfg.ByBearer && d.p.Bearer == "2G" {
		l = Radio2G()
	} else if b.cfg.ByBearer {
		l = RadioLTE()
	}
	return l.draw(d.rnd)
}

func (b *Bank) draw(d Delay) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return d.draw(b.rnd)
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
	if d <= 0 {
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
