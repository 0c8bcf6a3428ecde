package certlog

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"custode/internal/certlog/folder"
	"custode/internal/fault"
)

// Destruction is a sealed statement that segments are no longer kept. Its JSON
// is the payload, as with Checkpoint.
type Destruction struct {
	Format   int       `json:"format"` // 1
	Log      ID        `json:"log"`
	Segments []uint64  `json:"segments"` // in order
	First    uint64    `json:"first"`    // number of the first record of the first segment
	Size     uint64    `json:"size"`     // one more than the number of the last record of the last
	Reason   string    `json:"reason"`
	At       time.Time `json:"at"` // UTC, milliseconds
}

// Limits of a statement.
const (
	maxDestroyed = 4000 // segments in one: five months of hours
	maxReason    = 200  // octets
)

// ParseDestruction reads a statement's payload; other octets than those that
// its JSON encoding makes are fault.Invalid.
func ParseDestruction(payload []byte) (Destruction, error) {
	const op = "read statement of destruction"
	var d Destruction
	dec := json.NewDecoder(bytes.NewReader(payload))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return Destruction{}, fault.New(fault.Invalid, op, err)
	}
	if again, err := json.Marshal(d); err != nil || !bytes.Equal(again, payload) || d.Format != format || len(d.Segments) == 0 {
		return Destruction{}, fault.Newf(fault.Invalid, op, "not one of format %d", format)
	}
	return d, nil
}

const destroyedPrefix, destroyedSuffix = "destroyed-", ".p7m"

// statement is a Destruction as it stands in the folder.
type statement struct {
	Destruction
	name            string
	sealed, payload []byte
}

// readStatements reads and verifies the statements of the folder, by name.
func readStatements(fs Folder, s Sealer, files map[string]int64) ([]statement, error) {
	var out []statement
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if !strings.HasPrefix(name, destroyedPrefix) || !strings.HasSuffix(name, destroyedSuffix) {
			continue
		}
		op := "read " + name
		sealed, err := folder.ReadAll(fs, name, 2*maxCheckpoint)
		if err != nil {
			return nil, fault.New(fault.Unavailable, op, err)
		}
		payload, err := s.Open(sealed)
		if err != nil {
			return nil, fault.New(fault.Fatal, op, err)
		}
		d, err := ParseDestruction(payload)
		if err != nil {
			return nil, fault.New(fault.Fatal, op, err)
		}
		out = append(out, statement{d, name, sealed, payload})
	}
	return out, nil
}

// readCondemned returns the segments that statements about this log destroy.
func readCondemned(fs Folder, s Sealer, log ID, files map[string]int64) (map[uint64]bool, error) {
	all, err := readStatements(fs, s, files)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	out := map[uint64]bool{}
	for _, d := range all {
		if d.Log != log {
			return nil, fault.Newf(fault.Fatal, "read statement of destruction", "it is about log %s", d.Log)
		}
		for _, n := range d.Segments {
			out[n] = true
		}
	}
	return out, nil
}

// Destroy destroys the records of every segment that was sealed before the
// given moment and time-stamped, unless held says that it must stay: a sealed
// statement is written, then keys, then ciphertexts and indexes are removed.
// Leaf hashes and checkpoints stay, so that the tree still verifies. It returns
// the statement; none when there was nothing to destroy.
//
// Removing a file is no proof that its octets are gone. What proves it is that
// the wrap key that wrapped the segment keys is destroyed in the HSM; keep one
// wrap key for a month of segments.
func (l *Log) Destroy(ctx context.Context, before time.Time, reason string, held func(Checkpoint) bool) (*Destruction, error) {
	op := "destroy old segments of " + l.cfg.Name
	if reason == "" || len(reason) > maxReason {
		return nil, fault.Newf(fault.Invalid, op, "a reason of %d octets", len(reason))
	}
	l.sealing.Lock()
	defer l.sealing.Unlock()
	d := Destruction{Format: format, Log: l.id, Reason: reason, At: l.cfg.Now().UTC().Truncate(time.Millisecond)}
	l.mu.Lock()
	all := append([]segment(nil), l.segments...)
	l.mu.Unlock()
	for _, g := range all {
		if g.state != stateStamped || g.destroyed || len(d.Segments) == maxDestroyed {
			continue
		}
		c, _, err := readCheckpoint(l.cfg.FS, l.cfg.Sealer, segmentName(g.Number, "p7m"))
		if err != nil {
			return nil, fault.New(fault.KindOf(err), op, err)
		}
		if !c.Sealed.Before(before) || held != nil && held(c) {
			continue
		}
		if len(d.Segments) == 0 {
			d.First = g.First
		}
		d.Segments, d.Size = append(d.Segments, g.Number), g.First+g.Count
	}
	if len(d.Segments) == 0 {
		return nil, nil
	}
	payload, err := json.Marshal(d)
	if err != nil {
		return nil, fault.New(fault.Internal, op, err)
	}
	sealed, err := l.cfg.Sealer.Seal(ctx, payload)
	if err == nil {
		sealed, err = l.cfg.Sealer.Stamp(ctx, sealed)
	}
	if err != nil {
		return nil, fault.New(unavailable(err), op, err)
	}
	last := d.Segments[len(d.Segments)-1]
	if err := l.put(fmt.Sprintf("%s%012d%s", destroyedPrefix, last, destroyedSuffix), sealed); err != nil {
		return nil, fault.New(fault.KindOf(err), op, err)
	}
	gone := map[uint64]bool{}
	for _, n := range d.Segments {
		gone[n] = true
	}
	l.mu.Lock()
	if l.condemned == nil {
		l.condemned = map[uint64]bool{}
	}
	for i := range l.segments {
		if gone[l.segments[i].Number] {
			l.segments[i].destroyed = true
			l.condemned[l.segments[i].Number] = true
		}
	}
	l.mu.Unlock()
	files, err := l.cfg.FS.List()
	if err == nil {
		err = l.remove(gone, files)
	}
	if err != nil {
		return &d, fault.New(fault.Unavailable, op+": the statement stands, the rest is removed at the next start", err)
	}
	return &d, nil
}

// carryOut removes what statements destroy and a crash left.
func (l *Log) carryOut(files map[string]int64) error { return l.remove(l.condemned, files) }

func (l *Log) remove(gone map[uint64]bool, files map[string]int64) error {
	removed := false
	for _, suffix := range []string{"key", "seg", "idx"} { // without its key the rest is noise
		for n := range gone {
			name := segmentName(n, suffix)
			if _, ok := files[name]; !ok {
				continue
			}
			if err := l.cfg.FS.Remove(name); err != nil && !os.IsNotExist(err) {
				return err
			}
			delete(files, name)
			removed = true
		}
	}
	if !removed {
		return nil
	}
	return l.cfg.FS.Sync()
}
