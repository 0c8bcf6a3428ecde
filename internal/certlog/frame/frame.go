// Package frame is the format of N.seg: a header, and one frame for each record,
// encrypted so that it can be disclosed alone. It has no file and no clock;
// internal/certlog writes and reads with it.
//
// A segment file is a header of 56 octets
//
//	8   "custlog1"
//	16  log id
//	8   segment number, from 1          (all numbers big-endian)
//	8   number of its first record
//	8   time of opening, Unix milliseconds
//	4   CRC-32C of the 44 octets before
//	4   zero
//
// and one frame for each record
//
//	4   n, length of what follows
//	n   32 octets commitment, ciphertext, 16 octets tag: AES-256-GCM under the
//	    record key, nonce 4 zero octets and the record's number, additional
//	    data log id, segment number and record number
//	4   CRC-32C of the n+4 octets before: tells a torn frame from a whole one
//	    without the key; it protects against nobody
//
// The record key is HKDF-SHA-256 of the segment key, with the record's number
// as information; the commitment is SHA-256 of the record key after a label. So
// a record can be disclosed with its own key, and nothing else with it, and the
// key that opens a leaf is fixed when the leaf is written (AES-GCM alone would
// let its writer prepare two keys for one ciphertext).
//
// The plaintext of a frame is 2 octets length of the tag, the tag, 1 octet 0
// (stored) or 1 (DEFLATE, RFC 1951), and the data.
package frame

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"io"
	"time"

	"custode/internal/fault"
)

// ID names one log for ever: 128 random bits, authenticated with every record.
type ID [16]byte

// String returns 32 hexadecimal digits.
func (i ID) String() string { return hex.EncodeToString(i[:]) }

// MarshalText returns 32 hexadecimal digits.
func (i ID) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// UnmarshalText reads what MarshalText writes; anything else is fault.Invalid.
func (i *ID) UnmarshalText(text []byte) error {
	if len(text) != 2*len(i) {
		return fault.Newf(fault.Invalid, "read log id", "%d digits instead of %d", len(text), 2*len(i))
	}
	if _, err := hex.Decode(i[:], text); err != nil {
		return fault.New(fault.Invalid, "read log id", err)
	}
	return nil
}

// Hash is a SHA-256 value; its text is 64 hexadecimal digits.
type Hash [32]byte

// MarshalText returns 64 hexadecimal digits.
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText reads what MarshalText writes; anything else is fault.Invalid.
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) != 2*len(h) {
		return fault.Newf(fault.Invalid, "read hash", "%d digits", len(text))
	}
	if _, err := hex.Decode(h[:], text); err != nil {
		return fault.New(fault.Invalid, "read hash", err)
	}
	return nil
}

const (
	magic = "custlog1"
	// HeaderLen is the length of a segment's header in octets.
	HeaderLen  = 56
	frameExtra = 8
	commitLen  = 32
	minSealed  = commitLen + 2 + 1 + 16
	// MaxTag is the length of the longest tag in octets.
	MaxTag = 256
	// MaxRecord is the length of the longest record in octets.
	MaxRecord = 1 << 20
	maxSealed = commitLen + 2 + MaxTag + 1 + MaxRecord + 16
	// KeyLen is the length of a segment key in octets.
	KeyLen = 32
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Header is the head of a segment file.
type Header struct {
	Log    ID
	Number uint64
	First  uint64 // number of the first record
	Opened time.Time
}

// Encode returns the 56 octets.
func (h Header) Encode() []byte {
	b := append(make([]byte, 0, HeaderLen), magic...)
	b = append(b, h.Log[:]...)
	b = binary.BigEndian.AppendUint64(b, h.Number)
	b = binary.BigEndian.AppendUint64(b, h.First)
	b = binary.BigEndian.AppendUint64(b, uint64(h.Opened.UnixMilli()))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return append(b, 0, 0, 0, 0)
}

func decodeHeader(b []byte) (Header, error) {
	const op = "read segment header"
	if len(b) != HeaderLen || string(b[:8]) != magic || binary.BigEndian.Uint32(b[52:]) != 0 {
		return Header{}, fault.Newf(fault.Invalid, op, "not a segment of format 1")
	}
	if crc32.Checksum(b[:48], castagnoli) != binary.BigEndian.Uint32(b[48:]) {
		return Header{}, fault.Newf(fault.Invalid, op, "damaged")
	}
	return Header{
		Log: ID(b[8:24]), Number: binary.BigEndian.Uint64(b[24:]), First: binary.BigEndian.Uint64(b[32:]),
		Opened: time.UnixMilli(int64(binary.BigEndian.Uint64(b[40:]))).UTC(),
	}, nil
}

// Scan reads a segment file from the front and gives each whole frame's
// ciphertext to visit, which must not keep it. It returns the length of the
// whole part. Octets after it are no error here: end < size says so.
func Scan(f io.ReaderAt, size int64, visit func(h Header, seq uint64, sealed []byte) error) (h Header, count uint64, end int64, err error) {
	in := io.NewSectionReader(f, 0, size)
	head := make([]byte, HeaderLen)
	if _, err := io.ReadFull(in, head); err != nil {
		return Header{}, 0, 0, fault.Newf(fault.Invalid, "read segment header", "%d octets", size)
	}
	if h, err = decodeHeader(head); err != nil {
		return Header{}, 0, 0, err
	}
	r := newFrames(in)
	end = HeaderLen
	for {
		sealed, ok, err := r.next()
		if err != nil {
			return h, count, end, err
		}
		if !ok {
			return h, count, end, nil
		}
		if err := visit(h, h.First+count, sealed); err != nil {
			return h, count, end, err
		}
		count++
		end += int64(len(sealed)) + frameExtra
	}
}

// frames reads frames.
type frames struct {
	in  io.Reader
	buf []byte
}

func newFrames(in io.Reader) *frames { return &frames{in: bufio.NewReaderSize(in, 1<<16)} }

// next returns the next whole frame's ciphertext, valid until the call after;
// false at the end or where a torn frame begins.
func (r *frames) next() ([]byte, bool, error) {
	var n [4]byte
	if _, err := io.ReadFull(r.in, n[:]); err != nil {
		return nil, false, torn(err)
	}
	length := int(binary.BigEndian.Uint32(n[:]))
	if length < minSealed || length > maxSealed {
		return nil, false, nil
	}
	if cap(r.buf) < length+frameExtra {
		r.buf = make([]byte, length+frameExtra)
	}
	frame := r.buf[:length+frameExtra]
	copy(frame, n[:])
	if _, err := io.ReadFull(r.in, frame[4:]); err != nil {
		return nil, false, torn(err)
	}
	if crc32.Checksum(frame[:length+4], castagnoli) != binary.BigEndian.Uint32(frame[length+4:]) {
		return nil, false, nil
	}
	return frame[4 : length+4], true, nil
}

// torn makes the end of the file no error.
func torn(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return nil
	}
	return err
}
