package pkcs11

import (
	"bytes"
	"context"
	"crypto/hmac"
	"encoding/binary"
	"slices"

	p11 "github.com/miekg/pkcs11"

	"custode/hsm"
	"custode/hsm/pkcs11/rv"
	"custode/hsm/pkcs11/soft"
	"custode/internal/fault"
	"custode/internal/id"
)

var (
	_ hsm.SecretKey   = (*Token)(nil)
	_ hsm.CodeMatcher = (*Token)(nil)
)

// sealing is the role of the keys that wrap by a mechanism, 0 for an unknown one.
func sealing(wrap uint32) hsm.Role {
	switch wrap {
	case hsm.MechanismAESKeyWrap:
		return hsm.RoleSeed
	case hsm.MechanismAESGCM:
		return hsm.RoleWrap
	}
	return 0
}

// sealer returns the key that wraps or unwraps by the mechanism. Unwrapping into our memory
// is for those who chose it in Config.
func (t *Token) sealer(kek id.KeyLabel, wrap uint32) (*key, error) {
	op := "use key " + kek.String() + " for an OATH secret"
	role := sealing(wrap)
	switch {
	case role == 0:
		return nil, fault.Newf(fault.Invalid, op, "wrap mechanism %#x is not known", wrap)
	case role == hsm.RoleWrap && !t.cfg.DecryptSeeds:
		return nil, fault.Newf(fault.Fatal, op, "decrypting secrets into memory is not configured")
	}
	return t.openKey(kek, role)
}

// WrapSecret implements hsm.SecretKey. The secret has hsm.MinSecret to hsm.MaxSecret octets, a
// multiple of 8, else fault.Invalid. What the token made is unwrapped and used
// once before it is returned. By hsm.MechanismAESGCM (Config.DecryptSeeds) the result is a
// 12-octet IV, ciphertext and tag.
func (t *Token) WrapSecret(ctx context.Context, kek id.KeyLabel, wrap, keyType uint32, secret []byte) ([]byte, error) {
	op := "wrap secret with key " + kek.String()
	mechanism, known := hsm.HMAC(keyType)
	if !known || len(secret) < hsm.MinSecret || len(secret) > hsm.MaxSecret || len(secret)%8 != 0 {
		return nil, fault.Newf(fault.Invalid, op, "key type %#x, %d octets", keyType, len(secret))
	}
	k, err := t.sealer(kek, wrap)
	if err != nil {
		return nil, err
	}
	b := soft.Borrow(secret)
	defer b.Wipe()
	var wrapped []byte
	use := func(s p11.SessionHandle, h p11.ObjectHandle, secret []byte) (err error) {
		if wrapped, err = t.wrapObject(s, h, keyType, secret); err != nil {
			return notTheRow(err)
		}
		got, err := t.answer(s, h, k.shapes, keyType, mechanism, wrapped, []byte(canaryText))
		if rv.Kind(err) == fault.Invalid {
			return fault.New(fault.Reopen, "unwrap the secret just wrapped", err)
		}
		if err != nil {
			return notTheRow(err)
		}
		if !hmac.Equal(got, expected(mechanism, secret, []byte(canaryText))) {
			return fault.Newf(fault.Reopen, "try the secret just wrapped", "the token wrapped wrongly")
		}
		return nil
	}
	if wrap == hsm.MechanismAESGCM {
		use = func(s p11.SessionHandle, h p11.ObjectHandle, secret []byte) (err error) {
			wrapped, err = t.encryptSecret(s, h, kek, keyType, secret)
			return err
		}
	}
	err = opened{t, k}.do(ctx, "wrap secret", false, func(s p11.SessionHandle, h p11.ObjectHandle) error {
		return b.Use(func(secret []byte) error { return use(s, h, secret) })
	})
	if err != nil {
		return nil, err
	}
	return wrapped, nil
}

// question is a CodeQuery with its keys.
type question struct {
	t           *Token
	q           hsm.CodeQuery
	binder, kek *key
}

// MatchCodes implements hsm.CodeMatcher. A passing fault of the token is met twice, with
// the keys' canaries alive, before the wrapped secret is blamed. Secrets wrapped by
// hsm.MechanismAESGCM are for those who chose Config.DecryptSeeds (else fault.Fatal); they pass
// through the memory of this process for as long as their HMACs take.
func (t *Token) MatchCodes(ctx context.Context, q hsm.CodeQuery) ([]int, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	q.Wrapped, q.Binding, q.BindingMAC, q.Counters = bytes.Clone(q.Wrapped), bytes.Clone(q.Binding), bytes.Clone(q.BindingMAC), slices.Clone(q.Counters)
	a := question{t: t, q: q}
	var err error
	if a.binder, err = t.openKey(q.Binder, hsm.RoleMAC); err != nil {
		return nil, err
	}
	if !t.knows(q.KEK, sealing(q.Wrap)) {
		// Nobody vouched for this label yet, and opening a key costs the token a search; a label
		// that somebody changed is no row that cannot be unwrapped.
		if err := a.do(ctx, func(g *generation, s p11.SessionHandle) error { return a.verify(g, s) }); err != nil {
			return nil, err
		}
	}
	if a.kek, err = t.sealer(q.KEK, q.Wrap); err != nil {
		return nil, err
	}
	var found []int
	if err := a.do(ctx, func(g *generation, s p11.SessionHandle) (err error) {
		if err = a.verify(g, s); err != nil {
			return err
		}
		found, err = a.match(ctx, g, s)
		return err
	}); err != nil {
		return nil, err
	}
	return found, nil
}

func (t *Token) knows(label id.KeyLabel, role hsm.Role) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := t.known[label]
	return k != nil && k.role == role
}

func (a question) do(ctx context.Context, use func(g *generation, s p11.SessionHandle) error) error {
	return a.t.do(ctx, call{
		op: "match a code of key " + a.q.KEK.String(), use: use, ownFault: true,
		canary: func(g *generation, s p11.SessionHandle) error {
			for _, k := range []*key{a.binder, a.kek} {
				if k == nil {
					continue
				}
				if err := a.t.canaryFor(k, 0)(g, s); err != nil {
					return err
				}
			}
			return nil
		},
	})
}

// notTheRow is the error of a call that the stored row has no part in: it must not be taken
// for the row's fault.
func notTheRow(err error) error {
	switch {
	case err == nil:
		return nil
	case rv.Kind(err) == fault.Invalid:
		return fault.New(fault.Fatal, "use an OATH secret", err)
	case rv.Ambiguous(err):
		return fault.Newf(fault.Reopen, "use an OATH secret", "%v", err)
	}
	return err
}

// verify proves the binding MAC.
func (a question) verify(g *generation, s p11.SessionHandle) error {
	h, err := a.t.handle(g, a.binder)
	if err != nil {
		return err
	}
	var first, second [32]byte
	if err := a.t.direct.HMAC(s, h, hsm.MechanismSHA256, a.q.Binding, first[:]); err != nil {
		return notTheRow(err)
	}
	if hmac.Equal(first[:], a.q.BindingMAC) {
		return nil
	}
	// An operator will be called: not for a MAC that the token cannot repeat.
	if err := a.t.direct.HMAC(s, h, hsm.MechanismSHA256, a.q.Binding, second[:]); err != nil {
		return notTheRow(err)
	}
	if first != second {
		return fault.Newf(fault.Reopen, "compute binding MAC", "the token computed two different ones")
	}
	return fault.Newf(fault.Denied, "verify the binding of an OATH secret", "key %s: the binding MAC does not fit", a.q.Binder)
}

// match finds the counters whose value is the code. No comparison ends early.
func (a question) match(ctx context.Context, g *generation, s p11.SessionHandle) (found []int, err error) {
	h, err := a.t.handle(g, a.kek)
	if err != nil {
		return nil, err
	}
	compute, done, err := a.computer(s, h)
	if err != nil {
		return nil, err
	}
	var message [8]byte
	mac := make([]byte, hsm.HMACSize(a.q.MAC))
	defer clear(mac)
	same := make([]int, len(a.q.Counters))
	for i, counter := range a.q.Counters {
		if i%64 == 63 && ctx.Err() != nil {
			err = ctx.Err()
			break
		}
		binary.BigEndian.PutUint64(message[:], counter)
		if err = compute(message[:], mac); err != nil {
			break
		}
		same[i] = hsm.IsCode(mac, a.q.Code)
	}
	if derr := done(); err == nil {
		err = derr
	}
	if err != nil {
		return nil, notTheRow(err)
	}
	for i, is := range same {
		if is == 1 {
			found = append(found, i)
		}
	}
	return found, nil
}

// computer unwraps the secret; done ends it. Errors of computer may be the row's fault.
func (a question) computer(s p11.SessionHandle, h p11.ObjectHandle) (compute func(message, out []byte) error, done func() error, err error) {
	if a.q.Wrap == hsm.MechanismAESGCM {
		secret, err := a.t.decryptSecret(s, h, a.q)
		if err != nil {
			return nil, nil, err
		}
		return func(message, out []byte) error { soft.HMAC(a.q.MAC, secret, message, out); return nil },
			func() error { clear(secret); return nil }, nil
	}
	object, err := a.t.object(s, h, a.kek.shapes, a.q.KeyType, a.q.Wrapped)
	if err != nil {
		return nil, nil, err
	}
	return func(message, out []byte) error { return a.t.direct.HMAC(s, object, a.q.MAC, message, out) },
		func() error { return a.t.direct.Destroy(s, object) }, nil
}

// For tokens that cannot unwrap to a session object, and only by configuration: the secret is
// encrypted like any other small secret and decrypted into our memory at each use.
// It is the binding MAC that ties it to its subject, here too: a device that changes hands
// gets a new binding and keeps its octets, so the additional data says only what they are.

func secretAAD(keyType uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte("custode oath secret 1 "), keyType)
}

// encryptSecret returns IV, ciphertext and tag, and has decrypted them once.
func (t *Token) encryptSecret(s p11.SessionHandle, h p11.ObjectHandle, label id.KeyLabel, keyType uint32, secret []byte) ([]byte, error) {
	blob, err := t.wrap(s, h, label, secret, secretAAD(keyType))
	if err != nil {
		return nil, err
	}
	back, err := t.unwrap(s, h, blob, secretAAD(keyType))
	if err != nil {
		return nil, err
	}
	defer clear(back)
	if !hmac.Equal(back, secret) {
		return nil, fault.Newf(fault.Reopen, "read back the secret just wrapped", "the token wrapped wrongly")
	}
	return append(blob.IV[:], blob.Wrapped...), nil
}

func (t *Token) decryptSecret(s p11.SessionHandle, h p11.ObjectHandle, q hsm.CodeQuery) ([]byte, error) {
	// CodeQuery.Check made sure of more octets than these.
	blob := hsm.Blob{Key: q.KEK, IV: [hsm.IVLen]byte(q.Wrapped), Wrapped: q.Wrapped[hsm.IVLen:]}
	return t.unwrap(s, h, blob, secretAAD(q.KeyType))
}
