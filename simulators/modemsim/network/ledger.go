package network

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"custode/simulators/modemsim/tpdu"
)

// Submission is a message the network accepted.
type Submission struct {
	Modem  int
	IMSI   string // of the card that sent it
	Ref    byte
	To     string
	Text   string
	Report bool
	At     time.Time // when the network took it
	// Part and Parts place it in a long message; 0 when it is not one.
	Part, Parts int
	PID, DCS    byte
	Class       int       // -1 when none
	Validity    string    // TP-VP octets in hexadecimal
	TextHash    string    // SHA-256 of Text, hexadecimal
	TPDU        string    // hexadecimal, without service centre address
	Began       time.Time // when the modem got the Ctrl-Z
	Told        bool      // +CMGS with Ref was written to the port
}

// Handoff is a Ctrl-Z a modem got after a well-formed message, whatever became of it.
type Handoff struct {
	Modem int
	To    string
	At    time.Time
	// Accepted says that the network took it (at any later time).
	Accepted bool
}

// Ledger returns every accepted submission in order.
func (n *Network) Ledger() []Submission {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]Submission(nil), n.ledger...)
}

// WaitLedger returns the ledger once it has n entries, or ctx's error.
func (n *Network) WaitLedger(ctx context.Context, count int) ([]Submission, error) {
	err := n.until(ctx, func() bool { return len(n.ledger) >= count })
	l := n.Ledger()
	if err != nil {
		return l, fmt.Errorf("modemsim: %d of %d submissions: %w", len(l), count, err)
	}
	return l, nil
}

// Handoffs returns every Ctrl-Z in order.
func (n *Network) Handoffs() []Handoff {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]Handoff(nil), n.handoffs...)
}

// Handoff notes a Ctrl-Z and returns its place.
func (a *Air) Handoff(modem int, to string) int {
	n := a.n
	n.mu.Lock()
	defer n.mu.Unlock()
	n.handoffs = append(n.handoffs, Handoff{Modem: modem, To: to, At: time.Now()})
	n.grew()
	return len(n.handoffs) - 1
}

// Note enters a submission that belongs to a hand-off, fills in what the PDU and
// the clock say, and returns its place.
func (a *Air) Note(s Submission, m tpdu.Submit, hand int) int {
	sum := sha256.Sum256([]byte(m.Text))
	n := a.n
	n.mu.Lock()
	defer n.mu.Unlock()
	n.handoffs[hand].Accepted = true
	s.To, s.Text, s.Report, s.At = m.To, m.Text, m.Report, time.Now()
	s.Part, s.Parts, s.PID, s.DCS, s.Class, s.Validity = m.Part, m.Parts, m.PID, m.DCS, m.Class, m.Validity
	s.TextHash, s.TPDU, s.Began = hex.EncodeToString(sum[:]), m.Hex, n.handoffs[hand].At
	n.ledger = append(n.ledger, s)
	n.grew()
	return len(n.ledger) - 1
}

// Told marks a submission as answered with its reference.
func (a *Air) Told(entry int) {
	a.n.mu.Lock()
	defer a.n.mu.Unlock()
	a.n.ledger[entry].Told = true
}
