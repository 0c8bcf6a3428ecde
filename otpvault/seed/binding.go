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

// Bound is a sealed seed whose binding was verified. Its zero value computes
// nothing.
type Bound struct {
	sealed  Sealed
	binding Binding
}

// Open verifies that mac binds blob to b. fault.Denied when it does not: somebody
// changed the row, and an operator must look at it. fault.Invalid for a blob that
// is none.
func Open(ctx context.Context, by Binder, b Binding, blob, mac []byte) (Bound, error) {
	const op = "open sealed seed"
	s, err := Decode(blob)
	if err != nil {
		return Bound{}, err
	}
	want, err := b.mac(ctx, by, s)
	if err != nil {
		return Bound{}, err
	}
	if subtle.ConstantTimeCompare(want, mac) != 1 {
		return Bound{}, fault.Newf(fault.Denied, op, "device %s: the binding does not fit", b.Serial)
	}
	return Bound{sealed: s, binding: b}, nil
}

// Rebind returns the MAC that binds the same blob to another subject: when a
// device is assigned, or taken back. Serial number and parameters stay.
func (o Bound) Rebind(ctx context.Context, by Binder, to id.Subject) ([]byte, error) {
	if o.sealed.KEK.IsZero() {
		return nil, fault.Newf(fault.Internal, "rebind sealed seed", "nothing was opened")
	}
	b := o.binding
	b.Subject = to
	return b.mac(ctx, by, o.sealed)
}

// Parameters returns the verified parameters.
func (o Bound) Parameters() oath.Parameters { return o.binding.Parameters }

// With returns what computes the device's HMACs in the HSM.
func (o Bound) With(u Unwrapper) oath.MAC { return computer{o, u} }

type computer struct {
	bound Bound
	hsm   Unwrapper
}

// maxMessages bounds one call: the widest window and its companions.
const maxMessages = 4096

// MACs implements oath.MAC.
func (c computer) MACs(ctx context.Context, counters []uint64) ([][]byte, error) {
	const op = "compute HMACs by sealed seed"
	s := c.bound.sealed
	if s.KEK.IsZero() || len(counters) == 0 || len(counters) > maxMessages {
		return nil, fault.Newf(fault.Internal, op, "nothing was opened, or %d counters", len(counters))
	}
	all := make([]byte, 8*len(counters))
	messages := make([][]byte, len(counters))
	for i, n := range counters {
		messages[i] = all[8*i : 8*i+8 : 8*i+8]
		binary.BigEndian.PutUint64(messages[i], n)
	}
	macs, err := c.hsm.UnwrapHMACs(ctx, s.KEK, s.Mechanism, s.KeyType, hmacOf(s.Hash), s.Wrapped, messages)
	if err != nil {
		return nil, fault.Newf(trouble(err), op, "device %s: %w", c.bound.binding.Serial, err)
	}
	return macs, nil
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
