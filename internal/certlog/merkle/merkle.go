// Package merkle keeps the Merkle tree of a certified log (RFC 6962, section 2.1)
// in files: the tree's stored hashes, in x/mod/sumdb/tlog's order, one file for
// each segment. internal/certlog imports it.
package merkle

import (
	"crypto/sha256"
	"sort"

	"golang.org/x/mod/sumdb/tlog"

	"custode/internal/certlog/folder"
	"custode/internal/fault"
)

// LeafHash is the hash of a leaf, RFC 6962 section 2.1.
func LeafHash(sealed []byte) [32]byte {
	h := sha256.New()
	h.Write([]byte{0})
	h.Write(sealed)
	return [32]byte(h.Sum(nil))
}

// Span is the run of records of one segment.
type Span struct {
	Number, First, Count uint64
}

// Hashes reads the tree's stored hashes from the N.hsh files. A hash belongs to
// the segment whose record completed it, so every segment's file is one run of
// the tree's storage order.
type Hashes struct {
	FS    folder.Folder
	Name  func(segment uint64) string // of the file
	Spans []Span                      // in order, without gaps
	// Tail holds the stored hashes after the last span's, for a segment being closed.
	Tail []tlog.Hash
	open map[uint64]folder.File
}

// Close closes the files that were opened to read.
func (h *Hashes) Close() {
	for _, f := range h.open {
		_ = f.Close() // only read
	}
	h.open = nil
}

// Stored is the number of hashes that stand before those which the record of that
// number completes.
func Stored(records uint64) int64 { return tlog.StoredHashIndex(0, int64(records)) }

// ReadHashes implements tlog.HashReader.
func (h *Hashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		n := sort.Search(len(h.Spans), func(i int) bool { return Stored(h.Spans[i].First+h.Spans[i].Count) > x })
		if n == len(h.Spans) {
			at := x
			if len(h.Spans) > 0 {
				last := h.Spans[len(h.Spans)-1]
				at -= Stored(last.First + last.Count)
			}
			if at >= int64(len(h.Tail)) {
				return nil, fault.Newf(fault.Internal, "read tree", "hash %d is not there", x)
			}
			out[i] = h.Tail[at]
			continue
		}
		f, err := h.file(h.Spans[n].Number)
		if err != nil {
			return nil, err
		}
		if _, err := f.ReadAt(out[i][:], (x-Stored(h.Spans[n].First))*tlog.HashSize); err != nil {
			return nil, fault.Newf(fault.Invalid, "read tree", "%s is too short", h.Name(h.Spans[n].Number))
		}
	}
	return out, nil
}

// maxOpen bounds the files one proof or hash keeps open.
const maxOpen = 64

func (h *Hashes) file(number uint64) (folder.File, error) {
	if f := h.open[number]; f != nil {
		return f, nil
	}
	if len(h.open) >= maxOpen {
		h.Close()
	}
	f, err := h.FS.Open(h.Name(number))
	if err != nil {
		return nil, fault.New(fault.Unavailable, "read tree", err)
	}
	if h.open == nil {
		h.open = map[uint64]folder.File{}
	}
	h.open[number] = f
	return f, nil
}

// Grow appends to the tail what the leaf completes; seq is its number.
func (h *Hashes) Grow(seq uint64, leaf [32]byte) error {
	more, err := tlog.StoredHashesForRecordHash(int64(seq), leaf, h)
	h.Tail = append(h.Tail, more...)
	return err
}

// Root is the tree's hash over the first size records.
func (h *Hashes) Root(size uint64) ([32]byte, error) {
	r, err := tlog.TreeHash(int64(size), h)
	return r, err
}
