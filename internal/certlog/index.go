package certlog

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"sort"

	"custode/internal/fault"
)

// An index file is a sorted run of entries of 24 octets: the first 16 of
// HMAC-SHA-256(tag key, tag), and the record's number. The tag key comes from
// the segment key by HKDF, so that whoever steals the folder can neither find
// a subject nor follow one from segment to segment.
const (
	tagLen   = 16
	entryLen = tagLen + 8
)

type entry struct {
	tag [tagLen]byte
	seq uint64
}

func encodeIndex(entries []entry) []byte {
	slices.SortFunc(entries, func(a, b entry) int {
		if c := bytes.Compare(a.tag[:], b.tag[:]); c != 0 {
			return c
		}
		if a.seq < b.seq {
			return -1
		}
		return 1
	})
	out := make([]byte, 0, len(entries)*entryLen)
	for _, e := range entries {
		out = append(out, e.tag[:]...)
		out = binary.BigEndian.AppendUint64(out, e.seq)
	}
	return out
}

// lookUp returns the numbers of the records under the tag, in order.
func lookUp(f io.ReaderAt, size int64, tag [tagLen]byte) ([]uint64, error) {
	n := int(size / entryLen)
	var failed error
	at := func(i int) entry {
		var b [entryLen]byte
		if _, err := f.ReadAt(b[:], int64(i)*entryLen); err != nil {
			failed = fault.New(fault.Unavailable, "read index", err)
		}
		return entry{[tagLen]byte(b[:]), binary.BigEndian.Uint64(b[tagLen:])}
	}
	first := sort.Search(n, func(i int) bool {
		e := at(i)
		return bytes.Compare(e.tag[:], tag[:]) >= 0
	})
	var out []uint64
	for i := first; i < n && failed == nil; i++ {
		e := at(i)
		if e.tag != tag {
			break
		}
		out = append(out, e.seq)
	}
	return out, failed
}
