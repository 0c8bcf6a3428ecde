package certlog

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"custode/internal/certlog/folder"
	"custode/internal/certlog/frame"
	"custode/internal/certlog/index"
	"custode/internal/certlog/merkle"
	"custode/internal/fault"
)

type state uint8

// What a closed segment still waits for.
const (
	stateClosed  state = iota + 1 // a seal
	stateSealed                   // a time-stamp
	stateStamped                  // nothing
)

// segment is a closed segment.
type segment struct {
	merkle.Span
	opened     time.Time
	state      state
	destroyed  bool
	checkpoint [32]byte // SHA-256 of the checkpoint's payload, once sealed
	sums       sums
}

// identity is log.json.
type identity struct {
	Format int    `json:"format"`
	Log    ID     `json:"log"`
	Name   string `json:"name"`
}

const (
	identityName  = "log.json"
	format        = 1
	maxIdentity   = 4 << 10
	maxCheckpoint = 64 << 10 // octets of N.bes or N.p7m
)

func (i identity) encode() ([]byte, error) {
	text, err := json.Marshal(i)
	return append(text, '\n'), err
}

func readIdentity(fs Folder) (identity, error) {
	text, err := folder.ReadAll(fs, identityName, maxIdentity)
	if err != nil {
		return identity{}, err
	}
	var i identity
	err = json.Unmarshal(text, &i)
	// Only the octets that create writes: one meaning, one text.
	if again, e := i.encode(); err != nil || e != nil || !bytes.Equal(again, text) || i.Format != format || i.Log == (ID{}) {
		return identity{}, fault.Newf(fault.Fatal, "read "+identityName, "not a log of format %d", format)
	}
	return i, nil
}

// load brings l to the state of the folder, making what is missing and
// repairing what a crash left.
func (l *Log) load(ctx context.Context) error {
	files, err := l.cfg.FS.List()
	if err != nil {
		return err
	}
	for name := range files {
		if strings.HasSuffix(name, ".tmp") {
			if err := l.cfg.FS.Remove(name); err != nil {
				return fault.New(fault.Unavailable, "remove "+name, err)
			}
			delete(files, name)
		}
	}
	if _, ok := files[identityName]; !ok {
		if len(files) > 0 {
			return fault.Newf(fault.Fatal, "read "+identityName, "is missing, and the folder is not empty")
		}
		if err := l.create(); err != nil {
			return fault.New(fault.Unavailable, "make "+identityName, err)
		}
	}
	who, err := readIdentity(l.cfg.FS)
	if err != nil {
		return err
	}
	if who.Name != l.cfg.Name {
		return fault.Newf(fault.Fatal, "read "+identityName, "this is the log %q", who.Name)
	}
	l.id = who.Log
	numbers, err := segmentNumbers(files)
	if err != nil {
		return err
	}
	if l.condemned, err = readCondemned(l.cfg.FS, l.cfg.Sealer, l.id, files); err != nil {
		return err
	}
	if err := l.carryOut(files); err != nil {
		return fault.New(fault.Unavailable, "finish a destruction", err)
	}
	for i, n := range numbers {
		if n != uint64(i)+1 {
			return fault.Newf(fault.Fatal, "read certified log", "segment %d is missing", i+1)
		}
		if err := l.loadSegment(ctx, n, files, i == len(numbers)-1); err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) create() error {
	i := identity{Format: format, Name: l.cfg.Name}
	if _, err := io.ReadFull(l.cfg.Random, i.Log[:]); err != nil {
		return err
	}
	text, err := i.encode()
	if err != nil {
		return err
	}
	return l.put(identityName, text)
}

// segmentNumbers lists the segments of which any file is there, in order.
func segmentNumbers(files map[string]int64) ([]uint64, error) {
	seen := map[uint64]bool{}
	for name := range files {
		stem, suffix, ok := strings.Cut(name, ".")
		if !ok || len(stem) != 12 || !slices.Contains([]string{"key", "seg", "idx", "hsh", "bes", "p7m"}, suffix) {
			continue
		}
		n, err := strconv.ParseUint(stem, 10, 64)
		if err != nil || n == 0 {
			return nil, fault.Newf(fault.Fatal, "read certified log", "a file is called %q", name)
		}
		seen[n] = true
	}
	var out []uint64
	for n := range seen {
		out = append(out, n)
	}
	slices.Sort(out)
	return out, nil
}

// loadSegment adds segment n to l.segments, or repairs it first. Only the last
// may lack its segment file: the crash came between key and file.
func (l *Log) loadSegment(ctx context.Context, n uint64, files map[string]int64, last bool) error {
	has := func(suffix string) bool { _, ok := files[segmentName(n, suffix)]; return ok }
	g := segment{Span: merkle.Span{Number: n, First: l.next}}
	switch {
	case has("p7m"), has("bes"):
		suffix, st := "bes", stateSealed
		if has("p7m") {
			suffix, st = "p7m", stateStamped
		}
		c, sum, err := readCheckpoint(l.cfg.FS, l.cfg.Sealer, segmentName(n, suffix))
		if err != nil {
			return err
		}
		if err := l.follows(c); err != nil {
			return err
		}
		g.Count, g.opened, g.state, g.checkpoint, g.destroyed = c.Size-c.First, c.Opened, st, sum, !has("seg")
		g.sums = sums{file: c.File, index: c.Index, key: c.Key, root: c.Root}
		if st == stateStamped && has("bes") {
			if err := l.cfg.FS.Remove(segmentName(n, "bes")); err != nil {
				return fault.New(fault.Unavailable, "remove "+segmentName(n, "bes"), err)
			}
		}
		if g.destroyed && !l.condemned[n] {
			return fault.Newf(fault.Fatal, "read certified log", "%s is missing, and no sealed statement says that it was destroyed", segmentName(n, "seg"))
		}
	case !has("seg") && last:
		if err := l.discard(n, files); err != nil {
			return fault.New(fault.Unavailable, "discard an empty segment", err)
		}
		return nil
	case !has("seg"):
		return fault.Newf(fault.Fatal, "read certified log", "%s is missing", segmentName(n, "seg"))
	default:
		// Its first record may be its only proof that it exists: an empty one is dropped.
		var err error
		if g, err = l.recover(ctx, n, files); err != nil {
			return err
		}
		if g.Count == 0 {
			if !last {
				return fault.Newf(fault.Fatal, "read certified log", "segment %d is empty", n)
			}
			if err := l.discard(n, files); err != nil {
				return fault.New(fault.Unavailable, "discard an empty segment", err)
			}
			return nil
		}
	}
	l.segments = append(l.segments, g)
	l.next = g.First + g.Count
	return nil
}

// follows checks that the checkpoint continues what was loaded before it.
func (l *Log) follows(c Checkpoint) error {
	var previous [32]byte
	number := uint64(1)
	if n := len(l.segments); n > 0 {
		number, previous = l.segments[n-1].Number+1, l.segments[n-1].checkpoint
	}
	if c.Log != l.id || c.Segment != number || c.First != l.next || c.Size <= c.First || c.Previous != previous {
		return fault.Newf(fault.Fatal, "read certified log", "the checkpoint of segment %d does not follow the one before", number)
	}
	return nil
}

// discard removes the files of a segment that holds no record.
func (l *Log) discard(n uint64, files map[string]int64) error {
	for _, suffix := range []string{"hsh", "idx", "seg", "key"} {
		if _, ok := files[segmentName(n, suffix)]; !ok {
			continue
		}
		if err := l.cfg.FS.Remove(segmentName(n, suffix)); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return l.cfg.FS.Sync()
}

// recover makes a segment without a checkpoint whole. Every record is decrypted,
// and index and hashes are made from them anew, because what is sealed next must
// not be what somebody put into the folder meanwhile. Of a segment that was not
// closed, octets after the last whole frame are dropped, and what remains is
// written to a new file (a page that failed to reach the disk may look fine until
// the next start). One that was closed must be as it was; only its index is mended.
// Count 0: there is no record in it.
func (l *Log) recover(ctx context.Context, n uint64, files map[string]int64) (g segment, err error) {
	op := fmt.Sprintf("recover segment %d", n)
	name := segmentName(n, "seg")
	f, err := l.cfg.FS.Open(name)
	if err != nil {
		return g, fault.New(fault.Unavailable, op, err)
	}
	defer f.Close()
	size := files[name]
	_, whole := files[segmentName(n, "hsh")]
	if size < frame.HeaderLen && !whole {
		return g, nil // the crash came before the first record
	}
	k, err := readKey(ctx, l.cfg.FS, l.cfg.Keys, l.id, n)
	if err != nil {
		return g, err
	}
	defer k.Wipe()
	var leaves [][32]byte
	var tags []index.Entry
	h, count, end, err := frame.Scan(f, size, func(h frame.Header, seq uint64, sealed []byte) error {
		r, err := k.Open(seq, sealed)
		if err != nil {
			return fault.New(fault.Fatal, op, err)
		}
		leaves = append(leaves, merkle.LeafHash(sealed))
		tags = append(tags, index.Entry{Tag: k.Tag(r.Tag), Seq: seq})
		return nil
	})
	if err != nil {
		return g, err
	}
	if h.Log != l.id || h.Number != n || h.First != l.next {
		return g, fault.Newf(fault.Fatal, op, "%s belongs elsewhere", name)
	}
	if whole && (end != size || count == 0) {
		return g, fault.Newf(fault.Fatal, op, "%s was closed and does not fit any more", name)
	}
	g = segment{Span: merkle.Span{Number: n, First: h.First, Count: count}, opened: h.Opened, state: stateClosed}
	if count == 0 {
		return g, nil
	}
	made, err := l.derive(h, leaves, tags)
	if err != nil {
		return g, fault.New(fault.KindOf(err), op, err)
	}
	g.sums = made.sums
	if g.sums.file, err = sectionHash(f, end); err != nil {
		return g, fault.New(fault.Unavailable, op, err)
	}
	if g.sums.key, err = fileHash(l.cfg.FS, segmentName(n, "key")); err != nil {
		return g, err
	}
	if whole {
		return g, l.asClosed(n, made)
	}
	if end < size {
		l.cfg.Log.Warn("certified log: a torn record was dropped", "log", l.cfg.Name, "segment", n, "octets", size-end, "records", count)
		l.trimmed(Trim{Segment: n, Octets: size - end})
	}
	err = folder.Publish(l.cfg.FS, name, func(w io.Writer) error {
		_, err := io.Copy(w, io.NewSectionReader(f, 0, end))
		return err
	})
	if err == nil {
		err = l.publish(n, made)
	}
	if err != nil {
		return g, fault.New(fault.Unavailable, op, err)
	}
	return g, nil
}

// asClosed compares a closed segment's files with what its records make.
func (l *Log) asClosed(n uint64, made parts) error {
	op := fmt.Sprintf("recover segment %d", n)
	for suffix, want := range map[string][]byte{"hsh": made.hsh, "idx": made.idx} {
		got, err := folder.ReadAll(l.cfg.FS, segmentName(n, suffix), int64(len(want)))
		switch {
		case err == nil && bytes.Equal(got, want):
		case err != nil && !os.IsNotExist(err) && !fault.Is(err, fault.Invalid):
			return fault.New(fault.Unavailable, op, err)
		case suffix == "hsh":
			return fault.Newf(fault.Fatal, op, "it was closed with other records than it holds now")
		default:
			l.cfg.Log.Error("certified log: an index was changed before it was sealed, and is made anew", "log", l.cfg.Name, "segment", n)
			l.trimmed(Trim{Segment: n, Rebuilt: true})
			if err := l.put(segmentName(n, suffix), want); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *Log) trimmed(t Trim) {
	if l.cfg.Trimmed != nil {
		l.cfg.Trimmed(t)
	}
}

func readCheckpoint(fs Folder, s Sealer, name string) (Checkpoint, [32]byte, error) {
	op := "read " + name
	sealed, err := folder.ReadAll(fs, name, maxCheckpoint)
	if err != nil {
		return Checkpoint{}, [32]byte{}, fault.New(fault.Unavailable, op, err)
	}
	return openCheckpoint(s, sealed, op)
}

func openCheckpoint(s Sealer, sealed []byte, op string) (Checkpoint, [32]byte, error) {
	payload, err := s.Open(sealed)
	if err != nil {
		return Checkpoint{}, [32]byte{}, fault.New(fault.Fatal, op, err)
	}
	c, err := ParseCheckpoint(payload)
	if err != nil {
		return Checkpoint{}, [32]byte{}, fault.New(fault.Fatal, op, err)
	}
	return c, sha256.Sum256(payload), nil
}
