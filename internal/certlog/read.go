package certlog

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"custode/internal/certlog/folder"
	"custode/internal/certlog/frame"
	"custode/internal/certlog/index"
	"custode/internal/certlog/merkle"
	"custode/internal/fault"
)

// Found is a record read back, with what proves its place.
type Found struct {
	Seq    uint64
	Record Record
	Key    RecordKey // opens this record and no other
	Sealed []byte    // what the leaf is the hash of
}

// Reader reads sealed segments: their checkpoints, and with a Wrapper their
// records. It needs no open Log and may run beside one.
type Reader struct {
	fs     Folder
	sealer Sealer
	log    ID
	points []Checkpoint
	gone   map[uint64]bool // segments without N.seg
	rest   []uint64        // segments without a checkpoint
}

// NewReader reads and verifies the checkpoints of the folder, and that each
// follows the one before. Segments not yet sealed are not there for it.
func NewReader(fs Folder, s Sealer) (*Reader, error) {
	const op = "read certified log"
	files, err := fs.List()
	if err != nil {
		return nil, err
	}
	who, err := readIdentity(fs)
	if err != nil {
		return nil, fault.New(fault.KindOf(err), op, err)
	}
	numbers, err := segmentNumbers(files)
	if err != nil {
		return nil, err
	}
	r := &Reader{fs: fs, sealer: s, log: who.Log, gone: map[uint64]bool{}}
	condemned, err := readCondemned(fs, s, who.Log, files)
	if err != nil {
		return nil, err
	}
	l := &Log{id: who.Log}
	for _, n := range numbers {
		_, stamped := files[segmentName(n, "p7m")]
		if _, ok := files[segmentName(n, "bes")]; !ok && !stamped {
			r.rest = append(r.rest, n)
			continue
		}
		if len(r.rest) > 0 {
			return nil, fault.Newf(fault.Fatal, op, "segment %d is sealed, one before it is not", n)
		}
		sealed, err := readSeal(fs, n)
		if err != nil {
			return nil, err
		}
		c, sum, err := openCheckpoint(s, sealed, fmt.Sprintf("read the seal of segment %d", n))
		if err != nil {
			return nil, err
		}
		if err := l.follows(c); err != nil {
			return nil, err
		}
		_, there := files[segmentName(n, "seg")]
		if !there && !condemned[n] {
			return nil, fault.Newf(fault.Fatal, op, "%s is missing, and no sealed statement says that it was destroyed", segmentName(n, "seg"))
		}
		r.gone[n] = condemned[n]
		l.segments = append(l.segments, segment{Span: merkle.Span{Number: n, First: c.First, Count: c.Size - c.First}, checkpoint: sum})
		l.next = c.Size
		r.points = append(r.points, c)
	}
	return r, nil
}

// Log names the log.
func (r *Reader) Log() ID { return r.log }

// Checkpoints returns the checkpoints, oldest first. It must not be changed.
func (r *Reader) Checkpoints() []Checkpoint { return r.points }

// Unsealed returns the numbers of the segments that have no checkpoint: open ones,
// and what a crash left.
func (r *Reader) Unsealed() []uint64 { return r.rest }

// Destroyed reports whether the segment's records are no longer there.
func (r *Reader) Destroyed(segment uint64) bool { return r.gone[segment] }

// maxIndex bounds an index, in octets: 40 million records.
const maxIndex = 1 << 30

// Find returns the records appended under the tag in segments that were open
// at any moment from from (included) to to (excluded), in order, and the
// numbers of destroyed segments of that interval, which it cannot speak for.
func (r *Reader) Find(ctx context.Context, w Wrapper, tag string, from, to time.Time) (found []Found, destroyed []uint64, err error) {
	for _, c := range r.points {
		if !c.Overlaps(from, to) {
			continue
		}
		if r.gone[c.Segment] {
			destroyed = append(destroyed, c.Segment)
			continue
		}
		more, err := r.findIn(ctx, w, tag, c)
		if err != nil {
			return nil, nil, err
		}
		found = append(found, more...)
	}
	return found, destroyed, nil
}

func (r *Reader) findIn(ctx context.Context, w Wrapper, tag string, c Checkpoint) ([]Found, error) {
	op := fmt.Sprintf("search segment %d", c.Segment)
	k, err := readKey(ctx, r.fs, w, r.log, c.Segment)
	if err != nil {
		return nil, err
	}
	defer k.Wipe()
	name := segmentName(c.Segment, "idx")
	// Read once: what is hashed is what is searched.
	idx, err := folder.ReadAll(r.fs, name, maxIndex)
	if err != nil {
		return nil, fault.New(fault.Unavailable, op, err)
	}
	if sha256.Sum256(idx) != [32]byte(c.Index) {
		return nil, fault.Newf(fault.Fatal, op, "%s is not the one that was sealed", name)
	}
	files, err := r.fs.List()
	if err != nil {
		return nil, err
	}
	seqs, err := index.LookUp(bytes.NewReader(idx), int64(len(idx)), k.Tag(tag))
	if err != nil || len(seqs) == 0 {
		return nil, err
	}
	wanted := map[uint64]bool{}
	for _, s := range seqs {
		wanted[s] = true
	}
	var found []Found
	err = r.scan(c, files, func(seq uint64, sealed []byte) error {
		if !wanted[seq] {
			return nil
		}
		f, err := foundRecord(k, seq, append([]byte(nil), sealed...))
		if err == nil && f.Record.Tag == tag { // 128 bits of a MAC may, in theory, collide
			found = append(found, f)
		}
		return err
	})
	return found, err
}

func (r *Reader) scan(c Checkpoint, files map[string]int64, visit func(seq uint64, sealed []byte) error) error {
	name := segmentName(c.Segment, "seg")
	f, err := r.fs.Open(name)
	if err != nil {
		return fault.New(fault.Unavailable, "read "+name, err)
	}
	defer f.Close()
	h, count, end, err := frame.Scan(f, files[name], func(_ frame.Header, seq uint64, sealed []byte) error { return visit(seq, sealed) })
	if err != nil {
		return err
	}
	if h.Log != r.log || h.Number != c.Segment || h.First != c.First || count != c.Size-c.First || end != files[name] {
		return fault.Newf(fault.Fatal, "read "+name, "it is not the segment that was sealed")
	}
	return nil
}

// Each gives every record of a sealed segment to visit, decrypted.
func (r *Reader) Each(ctx context.Context, w Wrapper, c Checkpoint, visit func(Found) error) error {
	k, err := readKey(ctx, r.fs, w, r.log, c.Segment)
	if err != nil {
		return err
	}
	defer k.Wipe()
	files, err := r.fs.List()
	if err != nil {
		return err
	}
	return r.scan(c, files, func(seq uint64, sealed []byte) error {
		f, err := foundRecord(k, seq, sealed)
		if err != nil {
			return err
		}
		return visit(f)
	})
}

// EachUnsealed is Each for a segment without a checkpoint, up to its last whole
// record: they are authentic, and nothing proves that they are all.
func (r *Reader) EachUnsealed(ctx context.Context, w Wrapper, segment uint64, visit func(Found) error) error {
	files, err := r.fs.List()
	if err != nil {
		return err
	}
	name := segmentName(segment, "seg")
	if files[name] < frame.HeaderLen {
		return nil // a crash came before its first record
	}
	k, err := readKey(ctx, r.fs, w, r.log, segment)
	if err != nil {
		return err
	}
	defer k.Wipe()
	f, err := r.fs.Open(name)
	if err != nil {
		return fault.New(fault.Unavailable, "read "+name, err)
	}
	defer f.Close()
	_, _, _, err = frame.Scan(f, files[name], func(h frame.Header, seq uint64, sealed []byte) error {
		if h.Log != r.log || h.Number != segment {
			return fault.Newf(fault.Fatal, "read "+name, "it is another segment's")
		}
		one, err := foundRecord(k, seq, sealed)
		if err != nil {
			return err
		}
		return visit(one)
	})
	return err
}

func foundRecord(k *frame.Keys, seq uint64, sealed []byte) (Found, error) {
	key, err := k.Record(seq)
	if err != nil {
		return Found{}, err
	}
	record, err := k.Open(seq, sealed)
	return Found{Seq: seq, Record: record, Key: key, Sealed: sealed}, err
}

// Prove returns the hashes that lead from record seq to the root of the
// checkpoint (RFC 6962, section 2.1.1).
func (r *Reader) Prove(seq uint64, c Checkpoint) ([][32]byte, error) {
	tree := r.tree()
	defer tree.Close()
	p, err := tlog.ProveRecord(int64(c.Size), int64(seq), tree)
	if err != nil {
		return nil, fault.New(fault.Invalid, fmt.Sprintf("prove record %d", seq), err)
	}
	return arrays(p), nil
}

// Consistency returns the hashes that prove that the tree of older is a prefix
// of the tree of newer (RFC 6962, section 2.1.2).
func (r *Reader) Consistency(older, newer Checkpoint) ([][32]byte, error) {
	tree := r.tree()
	defer tree.Close()
	p, err := tlog.ProveTree(int64(newer.Size), int64(older.Size), tree)
	if err != nil {
		return nil, fault.New(fault.Invalid, "prove consistency", err)
	}
	return arrays(p), nil
}

func arrays(p []tlog.Hash) [][32]byte {
	out := make([][32]byte, len(p))
	for i, h := range p {
		out[i] = h
	}
	return out
}

func (r *Reader) tree() *merkle.Hashes {
	h := tree(r.fs)
	for _, c := range r.points {
		h.Spans = append(h.Spans, merkle.Span{Number: c.Segment, First: c.First, Count: c.Size - c.First})
	}
	return h
}

// Included reports whether the ciphertext is record seq of the checkpoint's
// tree, by the hashes of Prove.
func Included(c Checkpoint, seq uint64, sealed []byte, proof [][32]byte) bool {
	p := make(tlog.RecordProof, len(proof))
	for i, h := range proof {
		p[i] = h
	}
	return seq < c.Size && tlog.CheckRecord(p, int64(c.Size), tlog.Hash(c.Root), int64(seq), merkle.LeafHash(sealed)) == nil
}

// Sealed returns the seal of a segment: N.p7m, or N.bes while it waits for its
// time-stamp.
func (r *Reader) Sealed(segment uint64) ([]byte, error) { return readSeal(r.fs, segment) }

// readSeal reads N.p7m or else N.bes, which a log beside may replace by N.p7m
// at any moment.
func readSeal(fs Folder, segment uint64) ([]byte, error) {
	var sealed []byte
	var err error
	for _, suffix := range []string{"p7m", "bes", "p7m"} {
		if sealed, err = folder.ReadAll(fs, segmentName(segment, suffix), maxCheckpoint); err == nil {
			return sealed, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	return nil, fault.New(fault.Unavailable, fmt.Sprintf("read the seal of segment %d", segment), err)
}
