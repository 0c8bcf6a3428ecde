package modemsim

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
func (b *Bank) Ledger() []Submission {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]Submission(nil), b.ledger...)
}

// WaitLedger returns the ledger once it has n entries, or ctx's error.
func (b *Bank) WaitLedger(ctx context.Context, n int) ([]Submission, error) {
	err := b.wait(ctx, func() bool { return len(b.ledger) >= n })
	l := b.Ledger()
	if err != nil {
		return l, fmt.Errorf("modemsim: %d of %d submissions: %w", len(l), n, err)
	}
	return l, nil
}

// Handoffs returns every Ctrl-Z in order.
func (b *Bank) Handoffs() []Handoff {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]Handoff(nil), b.handoffs...)
}

// handoff notes a Ctrl-Z and returns its place.
func (b *Bank) handoff(modem int, to string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.handoffs = append(b.handoffs, Handoff{Modem: modem, To: to, At: time.Now()})
	b.grew()
	return len(b.handoffs) - 1
}

// note enters a submission and returns its place.
func (b *Bank) note(d *device, m tpdu.Submit, hand int) int {
	sum := sha256.Sum256([]byte(m.Text))
	b.mu.Lock()
	defer b.mu.Unlock()
	b.handoffs[hand].Accepted = true
	b.ledger = append(b.ledger, Submission{
		Modem: d.index, IMSI: d.card.imsi, Ref: d.card.ref, To: m.To, Text: m.Text, Report: m.Report, At: time.Now(),
		Part: m.Part, Parts: m.Parts, PID: m.PID, DCS: m.DCS, Class: m.Class, Validity: m.Validity,
		TextHash: hex.EncodeToString(sum[:]), TPDU: m.Hex, Began: b.handoffs[hand].At,
	})
	b.grew()
	return len(b.ledger) - 1
}

func (b *Bank) told(entry int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ledger[entry].Told = true
}
