// Package network simulates what is behind a modem's antenna: the ledger of the
// messages the network took, their way to the telephones, the telephones, and a
// page that shows them.
//
// Network is the side tests look at; Air is the side of the modems, which submit
// and deliver through it, and of their timers. It knows nothing of AT commands or
// ports. Time is real. Only modemsim imports it; tests use it through modemsim.Bank.
package network

import (
	"math/rand/v2"
	"sync"
	"time"
)

// Config says how well messages travel.
type Config struct {
	Transit    Delay
	Loss       float64 // share that never arrives
	NationalRA bool    // reports name the recipient without its country code
	Seed       uint64
	Modems     int // how many the page tells
}

// Network is the observer's side.
type Network struct {
	cfg Config
	air *Air

	mu       sync.Mutex
	rnd      *rand.Rand
	phones   map[string]*handset
	ledger   []Submission
	handoffs []Handoff
	changed  chan struct{} // closed and replaced whenever an inbox or the ledger grows
	timers   map[*time.Timer]bool
	running  sync.WaitGroup // timers set and not finished, and what Go started
	closed   bool
}

// Air is the modems' side of a Network.
type Air struct{ n *Network }

// New builds a network nobody uses yet.
func New(cfg Config) (*Network, *Air) {
	n := &Network{
		cfg: cfg, rnd: rand.New(rand.NewPCG(cfg.Seed, 0x6d6f64656d)), phones: map[string]*handset{},
		changed: make(chan struct{}), timers: map[*time.Timer]bool{},
	}
	n.air = &Air{n}
	return n, n.air
}
