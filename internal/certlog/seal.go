package certlog

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"custode/internal/certlog/folder"
	"custode/internal/fault"
)

// Checkpoint is a sealed tree head. Its JSON, in this order of members and
// without blanks, is the payload that is signed.
type Checkpoint struct {
	Format   int       `json:"format"` // 1
	Log      ID        `json:"log"`
	Name     string    `json:"name"`
	Segment  uint64    `json:"segment"`
	First    uint64    `json:"first"`    // number of the segment's first record
	Size     uint64    `json:"size"`     // records in the tree; the segment's last is Size-1
	Root     Hash      `json:"root"`     // of the tree of Size leaves, RFC 6962 section 2.1
	Previous Hash      `json:"previous"` // SHA-256 of the payload before; zero in the first
	File     Hash      `json:"file"`     // SHA-256 of N.seg
	Index    Hash      `json:"index"`    // SHA-256 of N.idx
	Key      Hash      `json:"key"`      // SHA-256 of N.key
	Opened   time.Time `json:"opened"`   // of the segment, UTC, milliseconds
	Sealed   time.Time `json:"sealed"`   // UTC, milliseconds
}

// ParseCheckpoint reads a payload. Only the octets that Encode makes are
// accepted: one meaning, one text.
func ParseCheckpoint(payload []byte) (Checkpoint, error) {
	const op = "read checkpoint"
	var c Checkpoint
	dec := json.NewDecoder(bytes.NewReader(payload))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return Checkpoint{}, fault.New(fault.Invalid, op, err)
	}
	again, err := c.Encode()
	if err != nil || !bytes.Equal(again, payload) || c.Format != format || c.Segment == 0 || c.Size <= c.First {
		return Checkpoint{}, fault.Newf(fault.Invalid, op, "not a checkpoint of format %d", format)
	}
	return c, nil
}

// Overlaps reports whether records of the interval (to excluded) may lie in the
// segment. The clock may have been set back while it was open, so either of its
// times bounds either end.
func (c Checkpoint) Overlaps(from, to time.Time) bool {
	first, last := c.Opened, c.Sealed
	if last.Before(first) {
		first, last = last, first
	}
	return last.After(from) && first.Before(to)
}

// Encode returns the payload.
func (c Checkpoint) Encode() ([]byte, error) { return json.Marshal(c) }

// sealLoop seals and stamps when kicked, and every stampPause what is left over.
func (l *Log) sealLoop(ctx context.Context, kick <-chan struct{}) {
	tick := time.NewTicker(stampPause)
	defer tick.Stop()
	for {
		if err := l.sealAll(ctx); err != nil && ctx.Err() == nil {
			l.cfg.Log.Error("certified log: seal or time-stamp is missing; tried again", "log", l.cfg.Name, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-kick:
		case <-tick.C:
		}
	}
}

// stampPause is the time between two attempts to seal and stamp what waits.
const stampPause = time.Minute

// Seal closes the open segment and seals and stamps all that waits, now. It
// needs Run. fault.Unavailable: a seal or a time-stamp could not be had; what
// is closed stays so, and is tried again.
func (l *Log) Seal(ctx context.Context) error {
	op := "seal " + l.cfg.Name
	done := make(chan struct{})
	select {
	case l.closing <- done:
		<-done
	case <-ctx.Done():
		return fault.New(fault.Unavailable, op, ctx.Err())
	}
	if err := l.sealAll(ctx); err != nil {
		return fault.New(unavailable(err), op, err)
	}
	return nil
}

// sealAll seals in order, because each checkpoint names the one before; then it stamps.
func (l *Log) sealAll(ctx context.Context) error {
	l.sealing.Lock()
	defer l.sealing.Unlock()
	var failed error
	for i := 0; ; i++ {
		l.mu.Lock()
		if i >= len(l.segments) || l.broken {
			l.mu.Unlock()
			break
		}
		g, before := l.segments[i], [32]byte{}
		if i > 0 {
			before = l.segments[i-1].checkpoint
		}
		l.mu.Unlock()
		if g.state == stateClosed {
			sum, err := l.sealSegment(ctx, g, before)
			if err != nil {
				return err
			}
			g.state, g.checkpoint = stateSealed, sum
			l.update(i, g)
		}
		if g.state == stateSealed && failed == nil {
			if failed = l.stampSegment(ctx, g.Number); failed == nil {
				g.state = stateStamped
				l.update(i, g)
			}
		}
	}
	return failed
}

func (l *Log) update(i int, g segment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i < len(l.segments) && l.segments[i].Number == g.Number {
		l.segments[i] = g
	}
}

func (l *Log) sealSegment(ctx context.Context, g segment, previous [32]byte) ([32]byte, error) {
	c := Checkpoint{
		Format: format, Log: l.id, Name: l.cfg.Name, Segment: g.Number, First: g.First, Size: g.First + g.Count, Root: g.sums.root,
		Previous: previous, File: g.sums.file, Index: g.sums.index, Key: g.sums.key, Opened: g.opened, Sealed: l.cfg.Now().UTC().Truncate(time.Millisecond),
	}
	payload, err := c.Encode()
	if err != nil {
		return [32]byte{}, err
	}
	sealed, err := l.cfg.Sealer.Seal(ctx, payload)
	if err != nil {
		return [32]byte{}, err
	}
	// What was just signed must open, now, not in two years.
	if opened, err := l.cfg.Sealer.Open(sealed); err != nil || !bytes.Equal(opened, payload) {
		return [32]byte{}, fault.Newf(fault.Internal, "seal segment", "the seal of segment %d does not open: %v", g.Number, err)
	}
	if err := l.put(segmentName(g.Number, "bes"), sealed); err != nil {
		return [32]byte{}, err
	}
	if l.cfg.Closed != nil {
		l.cfg.Closed(c)
	}
	return sha256.Sum256(payload), nil
}

func (l *Log) stampSegment(ctx context.Context, n uint64) error {
	sealed, err := folder.ReadAll(l.cfg.FS, segmentName(n, "bes"), maxCheckpoint)
	if err != nil {
		return err
	}
	stamped, err := l.cfg.Sealer.Stamp(ctx, sealed)
	if err != nil {
		return fmt.Errorf("time-stamp segment %d: %w", n, err)
	}
	if err := l.put(segmentName(n, "p7m"), stamped); err != nil {
		return err
	}
	if err := l.cfg.FS.Remove(segmentName(n, "bes")); err != nil && !os.IsNotExist(err) {
		return err
	}
	return l.cfg.FS.Sync()
}

func (l *Log) put(name string, octets []byte) error {
	err := folder.Publish(l.cfg.FS, name, func(w io.Writer) error {
		_, err := w.Write(octets)
		return err
	})
	if err != nil {
		return fault.New(fault.Unavailable, "write "+name, err)
	}
	return nil
}

func fileHash(fs Folder, name string) (Hash, error) {
	f, err := fs.Open(name)
	if err != nil {
		return Hash{}, fault.New(fault.Unavailable, "hash "+name, err)
	}
	defer f.Close()
	sum, err := sectionHash(f, 1<<62)
	if err != nil {
		return Hash{}, fault.New(fault.Unavailable, "hash "+name, err)
	}
	return sum, nil
}

// sectionHash is the SHA-256 of a file's first octets.
func sectionHash(f io.ReaderAt, size int64) (Hash, error) {
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(f, 0, size)); err != nil {
		return Hash{}, err
	}
	return Hash(sum.Sum(nil)), nil
}
