package hsm

import (
	"custode/internal/fault"
	"custode/internal/id"
)

// The blob's constants; the package comment has the layout.
const (
	blobVersion = 1
	blobAESGCM  = 1
	// IVLen is the length of a blob's IV in octets.
	IVLen = 12
	// TagLen is the length of the tag at the end of a blob in octets.
	TagLen  = 16
	minBlob = 3 + 2 + IVLen + TagLen
	// MaxBlob is the length of the longest blob in octets.
	MaxBlob = 3 + 64 + IVLen + MaxPlaintext + TagLen
)

// Blob is a decoded blob. Its slices are its own.
type Blob struct {
	Key     id.KeyLabel // the wrap key that made it
	IV      [IVLen]byte // never used twice with one key
	Wrapped []byte      // ciphertext followed by the tag
}

// DecodeBlob parses what Encode makes; anything else gives fault.Invalid. It
// allocates no more than the input is long, and the input no more than MaxBlob.
func DecodeBlob(b []byte) (Blob, error) {
	const op = "decode wrapped blob"
	if len(b) < minBlob || len(b) > MaxBlob {
		return Blob{}, fault.Newf(fault.Invalid, op, "length %d is outside %d to %d", len(b), minBlob, MaxBlob)
	}
	if b[0] != blobVersion || b[1] != blobAESGCM {
		return Blob{}, fault.Newf(fault.Invalid, op, "version %d, algorithm %d is not known", b[0], b[1])
	}
	n := int(b[2])
	rest := b[3:]
	if len(rest) < n+IVLen+TagLen {
		return Blob{}, fault.Newf(fault.Invalid, op, "a label of %d octets does not fit", n)
	}
	label, err := id.ParseKeyLabel(string(rest[:n]))
	if err != nil {
		return Blob{}, fault.New(fault.Invalid, op, err)
	}
	rest = rest[n:]
	if len(rest) > IVLen+MaxPlaintext+TagLen {
		return Blob{}, fault.Newf(fault.Invalid, op, "ciphertext of %d octets is too long", len(rest)-IVLen)
	}
	out := Blob{Key: label, IV: [IVLen]byte(rest)}
	out.Wrapped = append(out.Wrapped, rest[IVLen:]...)
	return out, nil
}

// Encode returns the blob's octets. The receiver must have a key label and a
// Wrapped part of TagLen to TagLen+MaxPlaintext octets; else fault.Invalid.
func (b Blob) Encode() ([]byte, error) {
	if b.Key.IsZero() || len(b.Wrapped) < TagLen || len(b.Wrapped) > TagLen+MaxPlaintext {
		return nil, fault.Newf(fault.Invalid, "encode wrapped blob", "no key label, or %d wrapped octets", len(b.Wrapped))
	}
	out := append(b.header(), b.IV[:]...)
	return append(out, b.Wrapped...), nil
}

func (b Blob) header() []byte {
	label := b.Key.String()
	return append([]byte{blobVersion, blobAESGCM, byte(len(label))}, label...)
}

// AAD returns the additional data that the token authenticates for this blob:
// the header, then the caller's own.
func (b Blob) AAD(callers []byte) []byte { return append(b.header(), callers...) }
