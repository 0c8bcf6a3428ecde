// Package pack makes a record's data shorter before it is encrypted: one octet, 0
// (stored) or 1 (DEFLATE, RFC 1951), and the octets. internal/certlog imports it.
package pack

import (
	"bytes"
	"compress/flate"
	"io"

	"custode/internal/fault"
)

const (
	storedData  = 0
	deflateData = 1
	// below it, DEFLATE saves next to nothing
	worthPacking = 512
)

// Packer compresses; it is for one goroutine, because what it holds is large.
type Packer struct {
	to    *flate.Writer
	small bytes.Buffer
}

// Pack appends the data, compressed if that makes it shorter. Lengths tell
// whoever can read the folder how well a record compresses; nobody who cannot
// read it can choose octets and see the length.
func (p *Packer) Pack(dst, data []byte) ([]byte, error) {
	if len(data) < worthPacking {
		return append(append(dst, storedData), data...), nil
	}
	p.small.Reset()
	if p.to == nil {
		var err error
		if p.to, err = flate.NewWriter(&p.small, flate.BestSpeed); err != nil {
			return nil, err
		}
	} else {
		p.to.Reset(&p.small)
	}
	if _, err := p.to.Write(data); err != nil {
		return nil, err
	}
	if err := p.to.Close(); err != nil {
		return nil, err
	}
	if p.small.Len() < len(data) {
		return append(append(dst, deflateData), p.small.Bytes()...), nil
	}
	return append(append(dst, storedData), data...), nil
}

// Open reverses Pack; at most most octets come out.
func Open(b []byte, most int) ([]byte, error) {
	switch b[0] {
	case storedData:
		return b[1:], nil
	case deflateData:
		data, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(b[1:])), int64(most)+1))
		if err == nil && len(data) > most {
			err = fault.Newf(fault.Invalid, "inflate", "longer than %d octets", most)
		}
		return data, err
	}
	return nil, fault.Newf(fault.Invalid, "inflate", "unknown form %d", b[0])
}
