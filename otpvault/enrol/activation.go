package enrol

import (
	"context"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
)

const (
	// Window is how long after the password change, or after its issue, a device may be
	// activated (operating manual, 8.6.3.1).
	Window = 30 * time.Minute
	// ActivationTries wrong codes end an activation.
	ActivationTries = 3
	codeOctets      = 10 // 16 characters
	macPurpose      = "custode otp activation 1"
)

// MAC computes a message authentication code of at least 32 octets by a key that
// stays in the HSM.
type MAC interface {
	MAC(ctx context.Context, data []byte) ([]byte, error)
}

// Activation is an issued activation code as the store keeps it. A rule returns
// the record that must replace it, durably and only if Version is still the
// same, before anything is told.
type Activation struct {
	Version uint64
	Serial  id.Serial
	Subject id.Subject
	MAC     []byte // of the code, see below
	Left    int    // tries
	Used    bool
	Expires time.Time // exclusive
}

// Issue draws an activation code of 80 bits, 16 letters and digits in groups of
// four, for a device. since is the moment from which the window counts.
func Issue(ctx context.Context, by MAC, random io.Reader, serial id.Serial, subject id.Subject, since time.Time) (Activation, string, error) {
	const op = "issue activation code"
	if serial.IsZero() || subject.IsZero() || since.IsZero() {
		return Activation{}, "", fault.Newf(fault.Invalid, op, "no device, subject or time")
	}
	var b [codeOctets]byte
	defer clear(b[:])
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return Activation{}, "", fault.New(trouble(err), op, err)
	}
	code := base32.StdEncoding.EncodeToString(b[:])
	a := Activation{Version: 1, Serial: serial, Subject: subject, Left: ActivationTries, Expires: since.Add(Window)}
	var err error
	if a.MAC, err = a.mac(ctx, by, code); err != nil {
		return Activation{}, "", err
	}
	return a, grouped(code), nil
}

// mac is over the purpose, serial, subject and code.
func (a Activation) mac(ctx context.Context, by MAC, code string) ([]byte, error) {
	return codeMAC(ctx, by, macPurpose, a.Serial.String(), a.Subject.String(), code)
}

// Redeem judges a typed activation code. With a nil error it was right and the
// returned record, which is used up, must be stored. fault.Denied: wrong, and the returned record
// (one try fewer) must be stored too. fault.Conflict: used before. fault.Expired,
// fault.Exhausted: nothing to store, no matter whether it was right.
func (a Activation) Redeem(ctx context.Context, by MAC, typed string, now time.Time) (Activation, error) {
	op := "activate device " + a.Serial.String()
	switch {
	case a.Used:
		return a, fault.Newf(fault.Conflict, op, "the code was used")
	case a.Left <= 0:
		return a, fault.Newf(fault.Exhausted, op, "no try is left")
	case !now.Before(a.Expires):
		return a, fault.Newf(fault.Expired, op, "the window is over")
	}
	code, err := CanonicalCode(typed)
	if err != nil {
		return a, err
	}
	mac, err := a.mac(ctx, by, code)
	if err != nil {
		return a, err
	}
	right := subtle.ConstantTimeCompare(mac, a.MAC) == 1
	a.Version, a.Left = a.Version+1, a.Left-1
	if !right {
		return a, fault.Newf(fault.Denied, op, "wrong code, %d tries left", a.Left)
	}
	a.Used = true
	return a, nil
}

// CanonicalCode returns the 16 characters of an activation code without blanks
// and hyphens, in upper case, with 0, 1 and 8 read as O, I and B; else fault.Invalid.
func CanonicalCode(typed string) (string, error) {
	return canonical(typed, codeOctets*8/5, "activation code")
}

// canonical reads so many characters of the alphabet of base32.
func canonical(typed string, length int, what string) (string, error) {
	if len(typed) <= 64 {
		s := strings.NewReplacer(" ", "", "-", "", "0", "O", "1", "I", "8", "B").Replace(strings.ToUpper(typed))
		if len(s) == length && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == "" {
			return s, nil
		}
	}
	return "", fault.Newf(fault.Invalid, "read "+what, "not %d letters and digits", length)
}

// grouped writes a code in groups of four.
func grouped(code string) string {
	var out strings.Builder
	for i := range len(code) {
		if i > 0 && i%4 == 0 {
			out.WriteByte('-')
		}
		out.WriteByte(code[i])
	}
	return out.String()
}

// codeMAC is over the fields, each preceded by its length in 4 octets, big endian.
func codeMAC(ctx context.Context, by MAC, fields ...string) ([]byte, error) {
	const op = "compute MAC of a code"
	data := make([]byte, 0, 256)
	defer func() { clear(data[:cap(data)]) }()
	for _, f := range fields {
		data = binary.BigEndian.AppendUint32(data, uint32(len(f)))
		data = append(data, f...)
	}
	mac, err := by.MAC(ctx, data)
	if err != nil {
		return nil, fault.New(trouble(err), op, err)
	}
	if len(mac) < 32 {
		return nil, fault.Newf(fault.Fatal, op, "the MAC has %d octets", len(mac))
	}
	return mac, nil
}

// trouble is the kind of a failed call below; its refusals say nothing of a code.
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
