package certlog

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"os"
	"time"

	"custode/internal/certlog/frame"
	"custode/internal/certlog/index"
	"custode/internal/certlog/merkle"
	"custode/internal/fault"
)

// writer is the open segment. Only Run's goroutine writes it.
type writer struct {
	frame.Header
	keys   *frame.Keys
	file   File
	sum    hash.Hash // SHA-256 of what was written
	key    Hash      // of N.key
	count  uint64
	size   int64
	leaves [][32]byte
	tags   []index.Entry
	buf    []byte
}

// reopenPause is the least time between two attempts to repair a broken folder.
const reopenPause = time.Second

// commit makes the batch durable with one write and one fsync, and answers.
// It reports whether a segment was closed.
func (l *Log) commit(ctx context.Context, batch []waiting) (closed bool) {
	w, closed, err := l.writable(ctx)
	if err != nil {
		refuse(batch, fault.New(unavailable(err), "append to "+l.cfg.Name, err))
		return closed
	}
	w.buf = w.buf[:0]
	type framed struct {
		waiting
		leaf [32]byte
	}
	var good []framed
	for _, one := range batch {
		buf, leaf, err := w.keys.Append(w.buf, w.First+w.count+uint64(len(good)), one.record, &l.packer)
		if err != nil {
			one.done <- result{err: err}
			continue
		}
		w.buf = buf
		good = append(good, framed{one, leaf})
	}
	if len(good) == 0 {
		return closed
	}
	_, err = w.file.Write(w.buf)
	if err == nil {
		err = w.file.Sync()
	}
	if err != nil {
		l.breakDown(err)
		for _, g := range good {
			g.done <- result{err: fault.New(fault.Unavailable, "append to "+l.cfg.Name, err)}
		}
		return closed
	}
	w.sum.Write(w.buf)
	l.mu.Lock()
	for _, g := range good {
		w.leaves = append(w.leaves, g.leaf)
		w.tags = append(w.tags, index.Entry{Tag: w.keys.Tag(g.record.Tag), Seq: w.First + w.count})
		g.done <- result{proof: Appended{log: l.id, seq: w.First + w.count, leaf: g.leaf, done: true}}
		w.count++
	}
	w.size += int64(len(w.buf))
	l.next = w.First + w.count
	l.mu.Unlock()
	if w.size >= l.cfg.Size {
		closed = l.closeOpen(ctx) || closed
	}
	return closed
}

func refuse(batch []waiting, err error) {
	for _, w := range batch {
		w.done <- result{err: err}
	}
}

// unavailable keeps Fatal; anything else passes: the caller did nothing wrong.
func unavailable(err error) fault.Kind {
	if fault.Is(err, fault.Fatal) {
		return fault.Fatal
	}
	return fault.Unavailable
}

// writable returns the open segment, or opens the next one.
func (l *Log) writable(ctx context.Context) (w *writer, closed bool, err error) {
	if l.open != nil && l.cfg.Now().Sub(l.open.Opened) >= l.cfg.Age {
		closed = l.closeOpen(ctx)
	}
	if err := l.repair(ctx); err != nil {
		return nil, closed, err
	}
	if l.open != nil {
		return l.open, closed, nil
	}
	w, err = l.openSegment(ctx)
	if err != nil {
		return nil, closed, err
	}
	l.mu.Lock()
	l.open = w
	l.mu.Unlock()
	return w, closed, nil
}

// openSegment begins the segment after the last: key first, so that no segment
// ever lacks one.
func (l *Log) openSegment(ctx context.Context) (*writer, error) {
	number := uint64(1)
	if before := l.spans(); len(before) > 0 {
		number = before[len(before)-1].Number + 1
	}
	w := &writer{Header: frame.Header{Log: l.id, Number: number, First: l.next, Opened: l.cfg.Now().UTC().Truncate(time.Millisecond)}}
	var err error
	if w.keys, w.key, err = l.newSegmentKey(ctx, number); err != nil {
		l.breakDown(err)
		return nil, err
	}
	name := segmentName(number, "seg")
	head := w.Encode()
	if w.file, err = l.cfg.FS.Create(name); err == nil {
		if _, err = w.file.Write(head); err == nil {
			err = w.file.Sync()
		}
		if err == nil {
			err = l.cfg.FS.Sync()
		}
		if err != nil {
			_ = w.file.Close() // its content is given up
		}
	}
	if err != nil {
		l.breakDown(err)
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	w.size, w.sum = int64(len(head)), sha256.New()
	w.sum.Write(head)
	return w, nil
}

// breakDown gives the open segment up: what the folder holds is known again
// after the next repair only.
func (l *Log) breakDown(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open != nil {
		_ = l.open.file.Close() // its content is read back by repair
		l.open.keys.Wipe()
		l.open = nil
	}
	if !l.broken {
		l.cfg.Log.Error("certified log cannot be written", "log", l.cfg.Name, "error", cause)
	}
	l.broken = true
	l.retryAt = l.cfg.Now().Add(reopenPause)
}

// repair reads a broken folder again, at most once in reopenPause.
func (l *Log) repair(ctx context.Context) error {
	if !l.broken {
		return nil
	}
	if now := l.cfg.Now(); now.Before(l.retryAt) && l.retryAt.Sub(now) <= reopenPause {
		return fault.Newf(fault.Unavailable, "repair certified log", "waiting before the next attempt")
	}
	l.sealing.Lock()
	defer l.sealing.Unlock()
	fresh := &Log{cfg: l.cfg}
	if err := fresh.load(ctx); err != nil {
		l.breakDown(err)
		return err
	}
	if fresh.id != l.id || fresh.next < l.next {
		err := fault.Newf(fault.Fatal, "repair certified log", "the folder holds %d records of log %s, was %d of %s", fresh.next, fresh.id, l.next, l.id)
		l.breakDown(err)
		return err
	}
	l.mu.Lock()
	l.segments, l.next, l.condemned, l.broken = fresh.segments, fresh.next, fresh.condemned, false
	l.mu.Unlock()
	l.cfg.Log.Info("certified log repaired", "log", l.cfg.Name, "records", l.next)
	return nil
}

// mend tries to bring a broken log back before anybody appends: who asks Status
// first would else never come to append. It reports whether it did.
func (l *Log) mend(ctx context.Context) bool {
	if !l.broken {
		return false
	}
	// Opening the next segment shows that folder and wrap key work again.
	_, _, err := l.writable(ctx)
	return err == nil
}

// closeAged closes the open segment when its time is over.
func (l *Log) closeAged(ctx context.Context) bool {
	if l.open == nil || l.cfg.Now().Sub(l.open.Opened) < l.cfg.Age {
		return false
	}
	return l.closeOpen(ctx)
}

// closeOpen closes the open segment: index and hashes are written, and it waits for its seal.
func (l *Log) closeOpen(context.Context) bool {
	w := l.open
	if w == nil {
		return false
	}
	w.keys.Wipe()
	err := w.file.Close()
	if err == nil && w.count == 0 {
		if err = l.drop(w); err == nil {
			return false
		}
	}
	var made parts
	if err == nil {
		made, err = l.derive(w.Header, w.leaves, w.tags)
	}
	if err == nil {
		made.sums.file, made.sums.key = Hash(w.sum.Sum(nil)), w.key
		err = l.publish(w.Number, made)
	}
	if err != nil {
		l.breakDown(err)
		return false
	}
	l.mu.Lock()
	l.segments = append(l.segments, segment{Span: merkle.Span{Number: w.Number, First: w.First, Count: w.count}, opened: w.Opened, state: stateClosed, sums: made.sums})
	l.open = nil
	l.mu.Unlock()
	return true
}

// drop removes an open segment that holds no record: a checkpoint speaks of one at least.
func (l *Log) drop(w *writer) error {
	for _, suffix := range []string{"seg", "key"} {
		if err := l.cfg.FS.Remove(segmentName(w.Number, suffix)); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	if err := l.cfg.FS.Sync(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = nil
	return nil
}

// look makes sure that the open segment is still in the folder: what is written
// to a file without a name is durable nowhere.
func (l *Log) look() {
	if l.open == nil {
		return
	}
	name := segmentName(l.open.Number, "seg")
	f, err := l.cfg.FS.Open(name)
	if err == nil {
		defer f.Close()
		var last [1]byte
		if _, err = f.ReadAt(last[:], l.open.size-1); err == nil {
			return
		}
	}
	l.breakDown(fmt.Errorf("%s was removed or shortened while it is written: %w", name, err))
}

// sums is what a checkpoint says of a segment's files. It comes from what was
// written, or at a start from the decrypted records, never from files that
// somebody may have changed since.
type sums struct{ file, index, key, root Hash }

// parts is what belongs beside a segment's records.
type parts struct {
	idx, hsh []byte
	sums     sums // without file and key
}

// derive makes the index, the tree's hashes and the root from the records.
func (l *Log) derive(h frame.Header, leaves [][32]byte, tags []index.Entry) (parts, error) {
	tree := tree(l.cfg.FS, l.spans()...)
	defer tree.Close()
	if err := l.sameTree(tree); err != nil {
		return parts{}, err
	}
	for i, leaf := range leaves {
		if err := tree.Grow(h.First+uint64(i), leaf); err != nil {
			return parts{}, err
		}
	}
	root, err := tree.Root(h.First + uint64(len(leaves)))
	if err != nil {
		return parts{}, err
	}
	p := parts{idx: index.Encode(tags), hsh: make([]byte, 0, len(tree.Tail)*32)}
	for _, t := range tree.Tail {
		p.hsh = append(p.hsh, t[:]...)
	}
	p.sums.index, p.sums.root = sha256.Sum256(p.idx), root
	return p, nil
}

// sameTree checks that the stored hashes on which the next ones will stand make
// the last root that is known.
func (l *Log) sameTree(tree *merkle.Hashes) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.segments) == 0 {
		return nil
	}
	last := l.segments[len(l.segments)-1]
	root, err := tree.Root(last.First + last.Count)
	if err == nil && Hash(root) != last.sums.root {
		err = fault.Newf(fault.Fatal, "continue the tree", "the stored hashes do not make the root of segment %d any more", last.Number)
	}
	return err
}

// publish writes index and hashes of a segment that will not be written again.
// The hashes come last: a segment that has them is whole.
func (l *Log) publish(number uint64, p parts) error {
	if err := l.put(segmentName(number, "idx"), p.idx); err != nil {
		return err
	}
	return l.put(segmentName(number, "hsh"), p.hsh)
}

// spans lists the closed segments.
func (l *Log) spans() []merkle.Span {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]merkle.Span, len(l.segments))
	for i, g := range l.segments {
		out[i] = g.Span
	}
	return out
}
