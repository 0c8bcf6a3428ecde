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
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"custode/simulators/modemsim/dialect"
	"custode/simulators/modemsim/network"
	"custode/simulators/modemsim/script"
)

// What tests see of the network and write in scripts.
type (
	Delay      = network.Delay
	AntiSpam   = network.AntiSpam
	SMS        = network.SMS
	Phone      = network.Phone
	Submission = network.Submission
	Handoff    = network.Handoff
	Outcome    = script.Outcome
	Place      = script.Place
	Plan       = script.Plan
)

// The places of Inject; package script says where each is.
const (
	BeforeEcho      = script.BeforeEcho
	AfterEcho       = script.AfterEcho
	BeforeInfo      = script.BeforeInfo
	BeforeFinal     = script.BeforeFinal
	AfterFinal      = script.AfterFinal
	BeforePrompt    = script.BeforePrompt
	AfterPrompt     = script.AfterPrompt
	BeforeRef       = script.BeforeRef
	BetweenRefAndOK = script.BetweenRefAndOK
)

// Radio2G is a GSM network: median 4 s, 95 % within 7 s, 3 % of 8 to 20 s.
func Radio2G() Delay { return network.Radio2G() }

// RadioLTE is an LTE network: median 1.8 s, 95 % within 4 s, 3 % of 8 to 20 s.
func RadioLTE() Delay { return network.RadioLTE() }

// Soak is the trouble of a long test, see script.Soak.
func Soak() Plan { return script.Soak() }

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
	// Orphans is the share of messages the network has had although the modem was
	// unplugged, restarted or (by the plan) hung before it could say so.
	Orphans float64
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

	*network.Network // ledger, inboxes, phones
	air              *network.Air

	mu       sync.Mutex
	rnd      *rand.Rand
	faultLog []string
	barred   map[string]int
	byNumber map[string]Outcome
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
	b := &Bank{cfg: cfg, rnd: rand.New(rand.NewPCG(cfg.Seed, 0xba4b)), barred: map[string]int{}, byNumber: map[string]Outcome{}}
	b.Network, b.air = network.New(network.Config{Transit: cfg.Transit, Loss: cfg.Loss, NationalRA: cfg.NationalRA, Seed: cfg.Seed, Modems: cfg.Modems})
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
	b.air.End()
	for _, d := range b.devices {
		d.mu.Lock()
		d.detach()
		d.mu.Unlock()
	}
	b.air.Wait()
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

// latency is how long the radio takes with modem d's next submission.
func (b *Bank) latency(d *device) time.Duration {
	l := b.cfg.Latency
	if b.cfg.ByBearer && d.p.Bearer == "2G" {
		l = Radio2G()
	} else if b.cfg.ByBearer {
		l = RadioLTE()
	}
	return l.Draw(d.rnd)
}
