package otpvault

import (
	"context"
	"encoding/binary"
	"errors"
	"io"

	"custode/internal/fault"
	"custode/internal/id"
)

const (
	codeDigits = 6
	codeSpace  = 1_000_000
	// drawLimit is the largest multiple of codeSpace that fits in 32 bits: what
	// lies above it would make the low codes likelier (NIST SP 800-90A, A.5.1).
	drawLimit = (1 << 32) / codeSpace * codeSpace
	// maxDraws bounds the loop against a generator that is stuck. A good one
	// needs a second draw once in 4 400 codes.
	maxDraws = 32
	minMAC   = 16
	// macPurpose separates these MACs from all others made by the same key.
	macPurpose = "custode sms code 1"
)

// drawCode writes six unbiased decimal digits into code.
func drawCode(code *[codeDigits]byte, random io.Reader) error {
	const op = "draw code"
	var b [4]byte
	defer clear(b[:])
	for range maxDraws {
		if _, err := io.ReadFull(random, b[:]); err != nil {
			return fault.New(trouble(err), op, err)
		}
		v := binary.BigEndian.Uint32(b[:])
		if v >= drawLimit {
			continue
		}
		for i := codeDigits - 1; i >= 0; i-- {
			code[i] = '0' + byte(v%10)
			v /= 10
		}
		return nil
	}
	return fault.Newf(fault.Fatal, op, "the random source gave %d values out of range in a row", maxDraws)
}

// codeMAC is the HSM's MAC over the purpose, the challenge, the flow, the
// subject and the code, each preceded by its length in 4 octets, big endian.
func (v *Vault) codeMAC(ctx context.Context, c id.ChallengeID, f id.FlowID, s id.Subject, code *[codeDigits]byte) ([]byte, error) {
	const op = "compute MAC of code"
	data := make([]byte, 0, 192) // never grows: no copy of the code stays behind
	defer func() { clear(data[:cap(data)]) }()
	for _, field := range []string{macPurpose, c.String(), f.String(), s.String()} {
		data = binary.BigEndian.AppendUint32(data, uint32(len(field)))
		data = append(data, field...)
	}
	data = binary.BigEndian.AppendUint32(data, codeDigits)
	data = append(data, code[:]...)
	mac, err := v.cfg.MAC.MAC(ctx, data)
	if err != nil {
		return nil, fault.New(trouble(err), op, err)
	}
	if len(mac) < minMAC {
		return nil, fault.Newf(fault.Fatal, op, "the MAC has %d octets, fewer than %d", len(mac), minMAC)
	}
	return mac, nil
}

// trouble is the kind of a failed device or store call. The kinds by which
// Verify and Issue speak about the code itself must not leak in from below: a
// refusal by the HSM is not a wrong code.
func trouble(err error) fault.Kind {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fault.Retry
	}
	switch k := fault.KindOf(err); k {
	case fault.Busy, fault.Retry, fault.Reopen, fault.Fatal, fault.Unavailable:
		return k
	default:
		return fault.Internal
	}
}
