// Package reseal brings the seeds of OATH devices under another seed key. A seed cannot
// be wrapped again inside the token, since it is unwrapped as not extractable; so it
// comes from its escrow copy, which the off-line recovery key opens, in a ceremony.
//
// An escrow copy is encrypted to a public key and so could be anybody's: before
// it takes a seed's place, codes computed from it must be codes of the seed that
// is there, and the row's binding must be genuine. Each seed is in memory for the time of
// one row. An interrupted work goes on by looking again: every blob names its key.
//
// It knows no storage and no token; cmd/custode connects them. Pure.
package reseal

import (
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/sha1" // RFC 4226
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"hash"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/otpvault/device"
	"custode/otpvault/oath"
	"custode/otpvault/seed"
)

// Rows are the devices in storage.
type Rows interface {
	// DevicesPast returns up to most devices with a serial number after past, in order. Of a row that is
	// damaged only the serial number.
	DevicesPast(ctx context.Context, past string, most int) ([]device.Device, error)
	// Escrow returns the copy of a device's seed; fault.NotFound.
	Escrow(ctx context.Context, s id.Serial) ([]byte, error)
	// Reseal puts blob and mac in the place of d's, if those still stand.
	Reseal(ctx context.Context, d device.Device, blob, mac []byte) (bool, error)
}

// Config is what Run needs.
type Config struct {
	Rows        Rows
	Wrapper     seed.Wrapper
	Binder      seed.Binder
	Matcher     seed.Matcher
	Recipe      seed.Recipe      // names today's seed key
	Recovery    crypto.Decrypter // the off-line key
	Certificate *x509.Certificate
	// Told is called after each row that was looked at.
	Told func(Progress)
}

// Progress is how far the work is, and its result.
type Progress struct {
	Seen     int `json:"seen"`
	Today    int `json:"today"` // were under today's key
	Resealed int `json:"resealed"`
	Final    int `json:"final"` // revoked or replaced: left as they are
	// Without has the devices that stay under an earlier key, and why; the first 100.
	Without []string `json:"without,omitempty"`
	Left    int      `json:"left"` // how many those are
}

// batch is how many rows are read at a time.
const batch = 64

// Run goes through all devices. It ends at the first error of token or storage; what
// is wrong with one device is in the result.
func Run(ctx context.Context, c Config) (Progress, error) {
	var p Progress
	for past := ""; ; {
		list, err := c.Rows.DevicesPast(ctx, past, batch)
		if err != nil {
			return p, err
		}
		for _, d := range list {
			past = d.Serial.String()
			p.Seen++
			why, err := c.one(ctx, d, &p)
			if err != nil {
				return p, err
			}
			if why != "" {
				p.Left++
				if len(p.Without) < 100 {
					p.Without = append(p.Without, d.Serial.String()+": "+why)
				}
			}
			if c.Told != nil {
				c.Told(p)
			}
		}
		if len(list) < batch {
			return p, nil
		}
	}
}

// one reseals a device, or says why it is left.
func (c Config) one(ctx context.Context, d device.Device, p *Progress) (why string, err error) {
	old, err := seed.Decode(d.Blob)
	if err != nil {
		return "its row is damaged", nil
	}
	switch {
	case old.KEK == c.Recipe.KEK:
		p.Today++
		return "", nil
	case d.State.Final():
		p.Final++
		return "", nil
	}
	b := seed.Binding{Subject: d.Subject, Serial: d.Serial, Parameters: d.Parameters}
	stored, err := seed.Read(b, d.Blob, d.MAC)
	if err != nil {
		return "its row is damaged", nil
	}
	copied, err := c.Rows.Escrow(ctx, d.Serial)
	if fault.Is(err, fault.NotFound) {
		return "it has no escrow copy", nil
	}
	if err != nil {
		return "", err
	}
	secret, err := seed.OpenEscrow(c.Recovery, c.Certificate, b, copied)
	if err != nil {
		return "its escrow copy does not open: " + fault.KindOf(err).String(), nil
	}
	defer clear(secret)
	same, err := c.same(ctx, stored, d.Parameters, secret)
	switch {
	case fault.Is(err, fault.Denied) || fault.Is(err, fault.Invalid):
		return "its binding does not fit, or its blob does not unwrap: somebody changed the row", nil
	case err != nil:
		return "", err
	case !same:
		return "its escrow copy is of another seed", nil
	}
	sealed, mac, err := seed.Seal(ctx, c.Wrapper, c.Binder, c.Recipe, b, secret)
	if err != nil {
		return "", err
	}
	blob, err := sealed.Encode()
	if err != nil {
		return "", err
	}
	done, err := c.Rows.Reseal(ctx, d, blob, mac)
	if err != nil {
		return "", err
	}
	if !done {
		return "somebody changed its row meanwhile: run again", nil
	}
	p.Resealed++
	return "", nil
}

// same reports whether codes of secret at three counters are those of the stored
// seed; chance would be 1 in 10^18 or less.
func (c Config) same(ctx context.Context, stored seed.Stored, p oath.Parameters, secret []byte) (bool, error) {
	match := stored.With(c.Matcher)
	for _, counter := range []uint64{1 << 40, 1<<40 + 1, 1<<40 + 2} { // far from any that a person types
		hits, err := match.Match(ctx, []uint64{counter}, p.Digits, code(p, secret, counter))
		if err != nil {
			return false, err
		}
		if len(hits) != 1 || hits[0] != 0 {
			return false, nil
		}
	}
	return true, nil
}

// code is HOTP (RFC 4226, section 5.3).
func code(p oath.Parameters, secret []byte, counter uint64) string {
	which := map[oath.Hash]func() hash.Hash{oath.SHA1: sha1.New, oath.SHA256: sha256.New, oath.SHA512: sha512.New}[p.Hash]
	m := hmac.New(which, secret)
	m.Write(binary.BigEndian.AppendUint64(nil, counter))
	sum := m.Sum(nil)
	defer clear(sum)
	at := sum[len(sum)-1] & 15
	modulus := map[int]uint32{6: 1_000_000, 7: 10_000_000, 8: 100_000_000}[p.Digits] // Parameters.Check knows no others
	return fmt.Sprintf("%0*d", p.Digits, binary.BigEndian.Uint32(sum[at:])&0x7fffffff%modulus)
}
