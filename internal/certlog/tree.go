package certlog

import (
	"bufio"
	"crypto/sha256"
	"io"
	"sort"

	"golang.org/x/mod/sumdb/tlog"

	"custode/internal/fault"
)

// leafHash is the hash of a leaf, RFC 6962 section 2.1.
func leafHash(sealed []byte) [32]byte {
	h := sha256.New()
	h.Write([]byte{0})
	h.Write(sealed)
	return [32]byte(h.Sum(nil))
}

func newBuffered(r io.Reader) io.Reader { return bufio.NewReaderSize(r, 1<<16) }

// span is the run of records of one segment.
type span struct {
	number, first, count uint64
}

// hashes reads the tree's stored hashes from the N.hsh files. A hash belongs to
// the segment whose record completed it, so every segment's file is one run of
// the tree's storage order.
type hashes struct {
	fs    Folder
	spans []span // in order, without gaps
	// tail holds the stored hashes after the last span's, for a segment being closed.
	tail []tlog.Hash
	open map[uint64]File
}

func (h *hashes) close() {
	for _, f := range h.open {
		_ = f.Close() // only read
	}
	h.open = nil
}

func stored(records uint64) int64 { return tlog.StoredHashIndex(0, int64(records)) }

// ReadHashes implements tlog.HashReader.
func (h *hashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		n := sort.Search(len(h.spans), func(i int) bool { return stored(h.spans[i].first+h.spans[i].count) > x })
		if n == len(h.spans) {
			at := x
			if len(h.spans) > 0 {
				last := h.spans[len(h.spans)-1]
				at -= stored(last.first + last.count)
			}
			if at >= int64(len(h.tail)) {
				return nil, fault.Newf(fault.Internal, "read tree", "hash %d is not there", x)
			}
			out[i] = h.tail[at]
			continue
		}
		f, err := h.file(h.spans[n].number)
		if err != nil {
			return nil, err
		}
		if _, err := f.ReadAt(out[i][:], (x-stored(h.spans[n].first))*tlog.HashSize); err != nil {
			return nil, fault.Newf(fault.Invalid, "read tree", "%s is too short", segmentName(h.spans[n].number, "hsh"))
		}
	}
	return out, nil
}

// maxOpen bounds the files one proof or hash keeps open.
const maxOpen = 64

func (h *hashes) file(number uint64) (File, error) {
	if f := h.open[number]; f != nil {
		return f, nil
	}
	if len(h.open) >= maxOpen {
		h.close()
	}
	f, err := h.fs.Open(segmentName(number, "hsh"))
	if err != nil {
		return nil, fault.New(fault.Unavailable, "read tree", err)
	}
	if h.open == nil {
		h.open = map[uint64]File{}
	}
	h.open[number] = f
	return f, nil
}

// grow appends to the tail what the leaf completes; seq is its number.
func (h *hashes) grow(seq uint64, leaf [32]byte) error {
	more, err := tlog.StoredHashesForRecordHash(int64(seq), leaf, h)
	h.tail = append(h.tail, more...)
	return err
}

// root is the tree's hash over the first size records.
func (h *hashes) root(size uint64) ([32]byte, error) {
	r, err := tlog.TreeHash(int64(size), h)
	return r, err
}
