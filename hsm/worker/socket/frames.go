package socket

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Frames takes frames, each a uint32 (big-endian) and so many octets, from a stream with one read for a small one.
// It keeps no octet of a frame that it has handed out.
type Frames struct {
	R    io.Reader
	Max  uint32 // octets of a frame, at most; a longer one is an error before anything is allocated
	buf  [4 << 10]byte
	have []byte // read and not handed out, in buf
}

// take fills p, first from what is there.
func (f *Frames) take(p []byte) error {
	n := copy(p, f.have)
	clear(f.have[:n])
	f.have = f.have[n:]
	if len(p)-n >= len(f.buf) {
		_, err := io.ReadFull(f.R, p[n:])
		return err
	}
	for n < len(p) {
		got, err := f.R.Read(f.buf[:])
		m := copy(p[n:], f.buf[:got])
		clear(f.buf[:m])
		f.have = f.buf[m:got]
		if n += m; err != nil && n < len(p) {
			if err == io.EOF && n > 0 {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// Next returns the next frame without its length. The caller wipes it.
func (f *Frames) Next() ([]byte, error) {
	var size [4]byte
	if err := f.take(size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > f.Max {
		return nil, fmt.Errorf("a frame of %d octets is longer than %d", n, f.Max)
	}
	frame := make([]byte, n)
	if err := f.take(frame); err != nil {
		clear(frame)
		return nil, err
	}
	return frame, nil
}
