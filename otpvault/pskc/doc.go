// Package pskc reads the files in which vendors deliver the seeds of OATH devices:
// PSKC (RFC 6030) and tables of comma-separated values.
//
// Of PSKC it reads what such deliveries use: HOTP and TOTP keys with decimal
// codes, encrypted by AES-CBC under a pre-shared key or under a key derived from
// a password (PBKDF2), each value with its MAC. A value in clear is refused
// unless the caller says so, an encrypted one without a MAC always, since CBC alone
// can be bent. XML signatures are reported and not verified. A condition that
// we do not understand (check digit, start time, key usage, PIN in the
// code) refuses the file: RFC 6030, 5 wants that.
//
// Both readers take the file as octets, clear them, and keep seeds in
// octets only: [Batch.Wipe] leaves none. That is why the XML is read by a small
// scanner of our own (xml.go), which refuses document types, entities, processing
// instructions and CDATA: the usual readers copy all text into strings, which
// cannot be cleared. A password passes through one string of the standard
// library's PBKDF2. No error text holds anything out of a secret field.
//
// It does not know what becomes of the seeds: the caller seals them
// (otpvault/seed). It may be imported by cmd; it imports otpvault/oath, internal/id,
// internal/fault and the standard library only.
package pskc

import (
	"time"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/otpvault/oath"
)

// Limits of a delivery.
const (
	MaxBytes = 64 << 20
	MaxKeys  = 100_000
	// MaxIterations of PBKDF2: about ten seconds.
	MaxIterations = 10_000_000
	minSeed       = 10
	maxSeed       = 256
)

// Key is one device's delivery.
type Key struct {
	Serial       id.Serial
	Manufacturer string // at most 64 printable characters, may be empty
	Parameters   oath.Parameters
	Counter      uint64    // first one to expect; 0 for oath.Time
	Expires      time.Time // by the vendor; zero for never
	Seed         []byte    // 10 to 256 octets, for the caller to seal and clear
}

// Batch is a delivery.
type Batch struct {
	Keys []Key
	// Signed tells that the file holds an XML signature, which nobody verified.
	Signed bool
}

// Wipe clears every seed.
func (b *Batch) Wipe() {
	for i := range b.Keys {
		clear(b.Keys[i].Seed)
		b.Keys[i].Seed = nil
	}
}

// add takes a complete key or refuses it. It clears the seed of one that it refuses.
func (b *Batch) add(k Key, seen map[id.Serial]bool) (err error) {
	const op = "read device"
	defer func() {
		if err != nil {
			clear(k.Seed)
		}
	}()
	switch {
	case len(b.Keys) == MaxKeys:
		return fault.Newf(fault.Invalid, op, "more than %d devices", MaxKeys)
	case seen[k.Serial]:
		return fault.Newf(fault.Invalid, op, "serial %s is there twice", k.Serial)
	case len(k.Seed) < minSeed || len(k.Seed) > maxSeed:
		return fault.Newf(fault.Invalid, op, "serial %s: the seed's length is not %d to %d octets", k.Serial, minSeed, maxSeed)
	case k.Counter > 1<<62:
		return fault.Newf(fault.Invalid, op, "serial %s: the counter is too large", k.Serial)
	}
	if err := k.Parameters.Check(); err != nil {
		return fault.Newf(fault.Invalid, op, "serial %s: %w", k.Serial, err)
	}
	seen[k.Serial] = true
	b.Keys = append(b.Keys, k)
	return nil
}

// printable returns s if it may stand on an operator's screen, cut to 64 characters, else "".
func printable(s []byte) string {
	out := make([]rune, 0, 64)
	for _, r := range string(s) {
		if r < ' ' || r == 0x7f || r == '\ufffd' || r >= 0x2028 && r <= 0x202e || r >= 0x80 && r < 0xa0 {
			return ""
		}
		if len(out) < cap(out) {
			out = append(out, r)
		}
	}
	return string(out)
}
