package certlogtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"
	"time"

	"custode/internal/certlog"
	"custode/internal/certlog/notary"
	"custode/simulators/tsasim"
)

// House is a real folder, a real seal and a simulated authority.
type House struct {
	T      *testing.T
	Dir    string
	TSA    *tsasim.TSA
	Notary *notary.Notary
	Stop   func() // ends what Open began
	Log    *certlog.Log
	Name   string // of the log
	Escrow *rsa.PublicKey
}

// NewHouse makes one; it is empty.
func NewHouse(t *testing.T) *House {
	t.Helper()
	authority, err := tsasim.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = authority.Close() })
	h := &House{T: t, Name: "transactions", Dir: t.TempDir(), TSA: authority, Notary: Notary(t, authority)}
	t.Cleanup(func() {
		if h.Stop != nil {
			h.Stop()
		}
	})
	return h
}

// Config is how Open opens the log.
func (h *House) Config() certlog.Config {
	return certlog.Config{Name: h.Name, FS: certlog.Dir(h.Dir), Keys: Keys{}, Sealer: h.Notary,
		Age: time.Hour, Size: 1 << 20, Escrow: h.Escrow, Now: time.Now, Random: rand.Reader}
}

// Open opens the log and runs it.
func (h *House) Open() {
	h.T.Helper()
	l, err := certlog.Open(h.T.Context(), h.Config())
	if err != nil {
		h.T.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = l.Run(ctx); close(done) }()
	h.Log, h.Stop = l, func() { cancel(); <-done; h.Stop = nil }
}

// Append appends n records of three subjects.
func (h *House) Append(n int) {
	h.T.Helper()
	for i := range n {
		p, err := h.Log.Append(h.T.Context(), certlog.Record{Tag: fmt.Sprintf("subject %d", i%3), Data: fmt.Appendf(nil, "record %d of %d, with some text to it", i, n)})
		if err != nil || p.IsZero() {
			h.T.Fatalf("append: %v", err)
		}
	}
}

// Seal seals what is open.
func (h *House) Seal() {
	h.T.Helper()
	if err := h.Log.Seal(h.T.Context()); err != nil {
		h.T.Fatal(err)
	}
}

// Judgement verifies from public certificates alone.
func (h *House) Judgement() certlog.VerifyConfig {
	return certlog.VerifyConfig{FS: certlog.Dir(h.Dir), Judge: &notary.Notary{Pinned: h.Notary.Pinned, Roots: h.Notary.Roots}, Now: time.Now(), Patience: time.Hour}
}

// Verify verifies the folder.
func (h *House) Verify(witness ...certlog.Claim) certlog.Report {
	h.T.Helper()
	cfg := h.Judgement()
	for _, w := range witness {
		c, err := certlog.ParseCheckpoint(w.Payload)
		if err != nil {
			h.T.Fatal(err)
		}
		if cfg.Witness == nil {
			cfg.Witness = map[uint64][]certlog.Claim{}
		}
		cfg.Witness[c.Segment] = append(cfg.Witness[c.Segment], w)
	}
	r, err := certlog.Verify(cfg)
	if err != nil {
		h.T.Fatal(err)
	}
	return r
}

// Fill makes a log of three sealed segments of five records each.
func (h *House) Fill() {
	h.T.Helper()
	h.Open()
	for range 3 {
		h.Append(5)
		h.Seal()
	}
	h.Stop()
	if r := h.Verify(); r.Problem != nil || r.Segments != 3 || r.Records != 15 || r.Stamped != 3 {
		h.T.Fatalf("before tampering: %+v", r)
	}
}

// Path is a segment's file.
func (h *House) Path(n int, suffix string) string {
	return filepath.Join(h.Dir, fmt.Sprintf("%012d.%s", n, suffix))
}

// Read reads a file.
func (h *House) Read(name string) []byte {
	h.T.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		h.T.Fatal(err)
	}
	return b
}

// Write writes a file.
func (h *House) Write(name string, b []byte) {
	h.T.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		h.T.Fatal(err)
	}
}

// Remove removes files.
func (h *House) Remove(names ...string) {
	h.T.Helper()
	for _, n := range names {
		if err := os.Remove(n); err != nil {
			h.T.Fatal(err)
		}
	}
}

// Payload is a checkpoint's.
func (h *House) Payload(n int) []byte {
	h.T.Helper()
	p, err := h.Notary.Open(h.Read(h.Path(n, "p7m")))
	if err != nil {
		h.T.Fatal(err)
	}
	return p
}

// frames cuts a segment file into its header and frames.
func frames(b []byte) (head []byte, all [][]byte) {
	head, rest := b[:56], b[56:]
	for len(rest) > 0 {
		n := int(binary.BigEndian.Uint32(rest)) + 8
		all, rest = append(all, rest[:n]), rest[n:]
	}
	return head, all
}

func join(head []byte, all ...[]byte) []byte {
	return append(bytes.Clone(head), bytes.Join(all, nil)...)
}

// mend recomputes a frame's check sum, as an attacker would.
func mend(frame []byte) []byte {
	end := len(frame) - 4
	binary.BigEndian.PutUint32(frame[end:], crc32.Checksum(frame[:end], crc32.MakeTable(crc32.Castagnoli)))
	return frame
}

// Reseal lets the house's own key seal another checkpoint of segment n.
func (h *House) Reseal(by *notary.Notary, n int, change func(*certlog.Checkpoint)) {
	h.T.Helper()
	c, err := certlog.ParseCheckpoint(h.Payload(n))
	if err != nil {
		h.T.Fatal(err)
	}
	change(&c)
	payload, err := c.Encode()
	if err != nil {
		h.T.Fatal(err)
	}
	sealed, err := by.Seal(h.T.Context(), payload)
	if err != nil {
		h.T.Fatal(err)
	}
	if sealed, err = by.Stamp(h.T.Context(), sealed); err != nil {
		h.T.Fatal(err)
	}
	h.Write(h.Path(n, "p7m"), sealed)
}

// Forge replaces the time-stamp of segment n by the misled authority's, or by
// the one of another seal.
func (h *House) Forge(n int, mislead func(*tsasim.TSA), from []byte) {
	h.T.Helper()
	sealed, err := h.Notary.Seal(h.T.Context(), h.Payload(n))
	if err != nil {
		h.T.Fatal(err)
	}
	h.Write(h.Path(n, "p7m"), Graft(h.T, h.Notary, h.TSA, sealed, mislead, from))
}

// WitnessDir is a folder with the checkpoints as they are now, as a witness holds them.
func (h *House) WitnessDir() string {
	h.T.Helper()
	dir := h.T.TempDir()
	all, err := filepath.Glob(filepath.Join(h.Dir, "*.p7m"))
	if err != nil {
		h.T.Fatal(err)
	}
	for _, name := range all {
		h.Write(filepath.Join(dir, filepath.Base(name)), h.Read(name))
	}
	return dir
}
