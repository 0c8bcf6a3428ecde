// Package index is the format of N.idx: which records of a segment bear a tag.
//
// An index file is a sorted run of entries of 24 octets: the first 16 of
// HMAC-SHA-256(tag key, tag), and the record's number. The tag key comes from
// the segment key by HKDF, so that whoever steals the folder can neither find
// a subject nor follow one from segment to segment. internal/certlog imports it.
package index

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"sort"

	"custode/internal/fault"
)

// Lengths in octets.
const (
	TagLen   = 16 // of a tag
	entryLen = TagLen + 8
)

// Entry says that record Seq bears the tag.
type Entry struct {
	Tag [TagLen]byte
	Seq uint64
}

// Encode sorts the entries and returns the file.
func Encode(entries []Entry) []byte {
	slices.SortFunc(entries, func(a, b Entry) int {
		if c := bytes.Compare(a.Tag[:], b.Tag[:]); c != 0 {
			return c
		}
		if a.Seq < b.Seq {
			return -1
		}
		return 1
	})
	out := make([]byte, 0, len(entries)*entryLen)
	for _, e := range entries {
		out = append(out, e.Tag[:]...)
		out = binary.BigEndian.AppendUint64(out, e.Seq)
	}
	return out
}

// LookUp returns the numbers of the records under the tag, in order.
func LookUp(f io.ReaderAt, size int64, tag [TagLen]byte) ([]uint64, error) {
	n := int(size / entryLen)
	var failed error
	at := func(i int) Entry {
		var b [entryLen]byte
		if _, err := f.ReadAt(b[:], int64(i)*entryLen); err != nil {
			failed = fault.New(fault.Unavailable, "read index", err)
		}
		return Entry{[TagLen]byte(b[:]), binary.BigEndian.Uint64(b[TagLen:])}
	}
	first := sort.Search(n, func(i int) bool {
		e := at(i)
		return bytes.Compare(e.Tag[:], tag[:]) >= 0
	})
	var out []uint64
	for i := first; i < n && failed == nil; i++ {
		e := at(i)
		if e.Tag != tag {
			break
		}
		out = append(out, e.Seq)
	}
	return out, failed
}
