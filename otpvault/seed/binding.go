package seed

import (
	"context"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"strconv"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/otpvault/oath"
)

const (
	// bindingPurpose separates these MACs from all others made by the same key.
	bindingPurpose = "custode otp seed 1"
	minBindingMAC  = 32
)

// Binding is what a sealed seed belongs to. The subject is zero for a device that
// is in the drawer.
type Binding struct {
	Subject    id.Subject
	Serial     id.Serial
	Parameters oath.Parameters
}

// input returns what the binding MAC is computed over: the purpose (which has the
// version), subject, serial number, kind, hash, digits, period in seconds, label of the
// wrapping key and encoded blob, each preceded by its length in 4 octets, big endian; numbers
// are decimal text.
func (b Binding) input(s Sealed) ([]byte, error) {
	const op = "bind sealed seed"
	blob, err := s.Encode()
	if err != nil {
		return nil, err
	}
	if err := b.Parameters.Check(); err != nil {
		return nil, err
	}
	if b.Serial.IsZero() {
		return nil, fault.Newf(fault.Invalid, op, "no serial number")
	}
	if b.Parameters.Hash != s.Hash {
		return nil, fault.Newf(fault.Invalid, op, "the device has %v, the blob %v", b.Parameters.Hash, s.Hash)
	}
	p := b.Parameters
	var out []byte
	for _, field := range []string{
		bindingPurpose, b.Subject.String(), b.Serial.String(), p.Kind.String(), p.Hash.String(), strconv.Itoa(p.Digits),
		strconv.Itoa(int(p.Period.Seconds())), s.KEK.String(), string(blob),
	} {
		out = binary.BigEndian.AppendUint32(out, uint32(len(field)))
		out = append(out, field...)
	}
	return out, nil
}

// mac computes the binding MAC.
func (b Binding) mac(ctx context.Context, by Binder, s Sealed) ([]byte, error) {
	const op = "compute binding MAC"
	data, err := b.input(s)
	if err != nil {
		return nil, err
	}
	mac, err := by.MAC(ctx, data)
	if err != nil {
		return nil, fault.New(trouble(err), op, err)
	}
	if len(mac) < minBindingMAC {
		return nil, fault.Newf(fault.Fatal, op, "the MAC has %d octets, fewer than %d", len(mac), minBindingMAC)
	}
	return mac, nil
}

// Recipe is how the HSM of this machine wants seeds: which key wraps, by which
// mechanism, and what the unwrapped object is to be. A zero KeyType means a type
// per hash.
type Recipe struct {
	KEK       id.KeyLabel
	Mechanism uint32
	KeyType   uint32
}

// Seal wraps secret under the recipe and binds it. It clears secret in any case.
// fault.Invalid for what Pad, Encode or the parameters refuse; else the kind of
// the HSM's trouble.
func Seal(ctx context.Context, w Wrapper, by Binder, r Recipe, b Binding, secret []byte) (Sealed, []byte, error) {
	const op = "seal seed"
	defer clear(secret)
	if err := b.Parameters.Check(); err != nil {
		return Sealed{}, nil, err
	}
	padded, err := Pad(secret, b.Parameters.Hash)
	if err != nil {
		return Sealed{}, nil, err
	}
	defer clear(padded)
	s := Sealed{Mechanism: r.Mechanism, KeyType: r.KeyType, Hash: b.Parameters.Hash, KEK: r.KEK}
	switch {
	case s.KeyType == 0 && s.Mechanism == MechanismAESGCM:
		s.KeyType = KeyTypeGenericSecret
	case s.KeyType == 0:
		s.KeyType = typeOf(s.Hash)
	}
	s.Wrapped, err = w.WrapSecret(ctx, s.KEK, s.Mechanism, s.KeyType, padded)
	if err != nil {
		return Sealed{}, nil, fault.New(trouble(err), op, err)
	}
	mac, err := b.mac(ctx, by, s)
	if err != nil {
		return Sealed{}, nil, err
	}
	return s, mac, nil
}

// Stored is a sealed seed as a row claims it: what it belongs to, and the MAC that must
// prove it. Its zero value answers nothing.
type Stored struct {
	sealed  Sealed
	binding Binding
	mac     []byte
}

// Read parses a row. Whether mac binds blob to b is not known yet: what uses
// the result asks. fault.Invalid for a blob that is none, or that does not go with b.
func Read(b Binding, blob, mac []byte) (Stored, error) {
	s, err := Decode(blob)
	if err != nil {
		return Stored{}, err
	}
	if _, err := b.input(s); err != nil {
		return Stored{}, err
	}
	if len(mac) < minBindingMAC {
		return Stored{}, fault.Newf(fault.Invalid, "read sealed seed", "device %s: a binding MAC of %d octets", b.Serial, len(mac))
	}
	return Stored{sealed: s, binding: b, mac: append([]byte(nil), mac...)}, nil
}

// Rebind returns the MAC that binds the same blob to another subject: when a
// device is assigned, or taken back. Serial number and parameters stay. fault.Denied when
// the row's own MAC does not fit: somebody changed the row, and an operator must look at it.
func (s Stored) Rebind(ctx context.Context, by Binder, to id.Subject) ([]byte, error) {
	const op = "rebind sealed seed"
	if s.sealed.KEK.IsZero() {
		return nil, fault.Newf(fault.Internal, op, "nothing was read")
	}
	want, err := s.binding.mac(ctx, by, s.sealed)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(want, s.mac) != 1 {
		return nil, fault.Newf(fault.Denied, op, "device %s: the binding does not fit", s.binding.Serial)
	}
	b := s.binding
	b.Subject = to
	return b.mac(ctx, by, s.sealed)
}

// With returns what asks the HSM about the device's codes. Its Match fails with fault.Denied
// when the row's MAC does not fit.
func (s Stored) With(m Matcher) oath.Matcher { return asker{s, m} }

type asker struct {
	stored Stored
	hsm    Matcher
}

// maxCounters bounds one question: the widest window and its companions.
const maxCounters = 4096

// Match implements oath.Matcher.
func (a asker) Match(ctx context.Context, counters []uint64, digits int, code string) ([]int, error) {
	const op = "compare code by sealed seed"
	s, b := a.stored.sealed, a.stored.binding
	if s.KEK.IsZero() || len(counters) == 0 || len(counters) > maxCounters || digits != b.Parameters.Digits {
		return nil, fault.Newf(fault.Internal, op, "nothing was read, %d counters, or not the device's digits", len(counters))
	}
	binding, err := b.input(s)
	if err != nil {
		return nil, fault.New(fault.Internal, op, err)
	}
	found, err := a.hsm.Match(ctx, Question{
		KEK: s.KEK, Wrap: s.Mechanism, KeyType: s.KeyType, MAC: hmacOf(s.Hash), Wrapped: s.Wrapped, Binding: binding, BindingMAC: a.stored.mac,
		Digits: digits, Counters: counters, Code: code,
	})
	if fault.Is(err, fault.Denied) {
		return nil, fault.Newf(fault.Denied, op, "device %s: the binding does not fit: %w", b.Serial, err)
	}
	if err != nil {
		return nil, fault.Newf(trouble(err), op, "device %s: %w", b.Serial, err)
	}
	return found, nil
}

// trouble is the kind of a failed HSM call. A row that the HSM cannot unwrap is
// for an operator; it says nothing about a code.
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
