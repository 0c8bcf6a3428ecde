package pkcs11

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha512"
	"slices"

	p11 "github.com/miekg/pkcs11"

	"custode/hsm"
	"custode/hsm/pkcs11/direct"
	"custode/hsm/pkcs11/rv"
	"custode/hsm/pkcs11/soft"
	"custode/internal/fault"
	"custode/internal/id"
)

// seedShapes is how a seed key's token wants what is unwrapped; found out by the self-test.
type seedShapes struct {
	sayLength bool // CKA_VALUE_LEN belongs in the template (Luna before firmware 7.9.3), not out of it (SoftHSM)
	perHash   bool // a key type per hash (nShield), not CKK_GENERIC_SECRET
}

// OpenSeed opens the key called label that wraps OATH secrets: finds it, checks its policy
// and tries what WrapSecret and MatchCodes will ask of it. Errors as Signer's; a token that
// lets an unwrapped secret be read, or be unwrapped as readable, is fault.Fatal by the
// key's name. With Config.DecryptSeeds it is a key of the wrap role.
func (t *Token) OpenSeed(label id.KeyLabel) error {
	role := hsm.RoleSeed
	if t.cfg.DecryptSeeds {
		role = hsm.RoleWrap
	}
	_, err := t.openKey(label, role)
	return err
}

// SecretForm opens the key called label as OpenSeed does and says what to give WrapSecret with it:
// the wrap mechanism, and the key type that this token wants, 0 for one per hash.
func (t *Token) SecretForm(label id.KeyLabel) (wrap, keyType uint32, err error) {
	if err := t.OpenSeed(label); err != nil {
		return 0, 0, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch k := t.known[label]; {
	case t.cfg.DecryptSeeds:
		return hsm.MechanismAESGCM, hsm.KeyTypeGeneric, nil
	case k.shapes.perHash:
		return hsm.MechanismAESKeyWrap, 0, nil
	}
	return hsm.MechanismAESKeyWrap, hsm.KeyTypeGeneric, nil
}

// canarySecret is the OATH secret of self-tests and canaries, n octets. It is no secret.
func canarySecret(n int) []byte {
	sum := sha512.Sum512([]byte(canaryText))
	return slices.Repeat(sum[:], n/len(sum))
}

func expected(mechanism uint32, secret, message []byte) []byte {
	out := make([]byte, hsm.HMACSize(mechanism))
	soft.HMAC(mechanism, secret, message, out)
	return out
}

// wrapObject makes secret an object, wraps it and destroys it.
func (t *Token) wrapObject(s p11.SessionHandle, key p11.ObjectHandle, keyType uint32, secret []byte) ([]byte, error) {
	object, err := t.direct.Create(s, keyType, secret)
	if err != nil {
		return nil, err
	}
	wrapped, err := t.direct.Wrap(s, key, object, len(secret)+8) // RFC 3394, section 2.2.1
	if derr := t.direct.Destroy(s, object); err == nil {
		err = derr
	}
	if err != nil {
		return nil, err
	}
	return wrapped, nil
}

// object unwraps a secret to an object that is sensitive, not extractable and can only sign.
func (t *Token) object(s p11.SessionHandle, key p11.ObjectHandle, shapes seedShapes, keyType uint32, wrapped []byte) (p11.ObjectHandle, error) {
	as := direct.Unwrapped{KeyType: keyType}
	if shapes.sayLength {
		as.Length = len(wrapped) - 8
	}
	return t.direct.Unwrap(s, key, wrapped, as)
}

// answer unwraps a secret, computes one HMAC with it and destroys it.
func (t *Token) answer(s p11.SessionHandle, key p11.ObjectHandle, shapes seedShapes, keyType, mechanism uint32, wrapped, message []byte) ([]byte, error) {
	object, err := t.object(s, key, shapes, keyType, wrapped)
	if err != nil {
		return nil, err
	}
	out := make([]byte, hsm.HMACSize(mechanism))
	err = t.direct.HMAC(s, object, mechanism, message, out)
	if derr := t.direct.Destroy(s, object); err == nil {
		err = derr
	}
	return out, err
}

// canaryShape is the one combination that a canary tries.
func (k *key) canaryShape() (keyType, mechanism uint32) {
	if k.shapes.perHash {
		return hsm.KeyTypeOf(hsm.MechanismSHA1), hsm.MechanismSHA1
	}
	return hsm.KeyTypeGeneric, hsm.MechanismSHA1
}

// useCanary unwraps the known secret and insists on its HMAC.
func (t *Token) useCanary(s p11.SessionHandle, h p11.ObjectHandle, k *key) error {
	keyType, mechanism := k.canaryShape()
	got, err := t.answer(s, h, k.shapes, keyType, mechanism, k.known, []byte(canaryText))
	if err != nil {
		return err
	}
	if !hmac.Equal(got, expected(mechanism, canarySecret(64), []byte(canaryText))) {
		return fault.Newf(fault.Fatal, "test key "+k.label.String(), "the token gave a wrong result")
	}
	return nil
}

// trySeed is the self-test of a seed key. What a token says it can do is not asked:
// some list mechanisms that they then refuse.
func (t *Token) trySeed(read reader, k *key) error {
	if err := read.length(); err != nil {
		return err
	}
	if err := t.findShapes(read, k); err != nil {
		return err
	}
	for _, mechanism := range []uint32{hsm.MechanismSHA1, hsm.MechanismSHA256, hsm.MechanismSHA512} {
		secret := canarySecret(soft.Block(mechanism))
		keyType := hsm.KeyTypeGeneric
		if k.shapes.perHash {
			keyType = hsm.KeyTypeOf(mechanism)
		}
		wrapped, err := t.wrapObject(read.session, read.object, keyType, secret)
		if err != nil {
			return err
		}
		got, err := t.answer(read.session, read.object, k.shapes, keyType, mechanism, wrapped, []byte(canaryText))
		if err != nil {
			return err
		}
		if !hmac.Equal(got, expected(mechanism, secret, []byte(canaryText))) {
			return read.broken(nil, "self-test: HMAC %#x with an unwrapped secret is wrong", mechanism)
		}
	}
	if err := t.tryDamaged(read, k); err != nil {
		return err
	}
	if err := t.trySecrecy(read, k); err != nil {
		return err
	}
	return t.useCanary(read.session, read.object, k)
}

// findShapes tries how the token wants an unwrapped secret described, and keeps the canary.
func (t *Token) findShapes(read reader, k *key) error {
	var first error
	for _, shapes := range []seedShapes{{}, {sayLength: true}, {perHash: true}, {perHash: true, sayLength: true}} {
		k.shapes = shapes
		keyType, mechanism := k.canaryShape()
		wrapped, err := t.wrapObject(read.session, read.object, keyType, canarySecret(64))
		if err == nil {
			_, err = t.answer(read.session, read.object, shapes, keyType, mechanism, wrapped, []byte(canaryText))
		}
		if err == nil {
			k.known = wrapped
			return nil
		}
		if rv.Kind(err) != fault.Invalid {
			return err
		}
		if first == nil {
			first = err
		}
	}
	return read.broken(nil, "self-test: the token does not wrap, unwrap and use a generic secret: %v", first)
}

// tryDamaged insists that damaged octets do not unwrap.
func (t *Token) tryDamaged(read reader, k *key) error {
	damaged := bytes.Clone(k.known)
	damaged[len(damaged)-1] ^= 1
	keyType, _ := k.canaryShape()
	object, err := t.object(read.session, read.object, k.shapes, keyType, damaged)
	if err != nil {
		return nil // some answer as a broken device does; what follows would find one
	}
	if err := t.direct.Destroy(read.session, object); err != nil {
		return err
	}
	return read.broken(nil, "self-test: a damaged secret was unwrapped")
}

// trySecrecy insists that an unwrapped secret cannot be read, and that nobody can have it
// unwrapped as one that can: by the attributes of the key, not by our good will.
func (t *Token) trySecrecy(read reader, k *key) error {
	keyType, _ := k.canaryShape()
	object, err := t.object(read.session, read.object, k.shapes, keyType, k.known)
	if err != nil {
		return err
	}
	inside := reader{mod: t.mod, session: read.session, object: object, label: k.label}
	v, err := inside.value(p11.CKA_VALUE)
	clear(v)
	if derr := t.direct.Destroy(read.session, object); derr != nil {
		return derr
	}
	switch {
	case err == nil:
		// opencryptoki 3.8 ignores what is asked of an unwrapped key.
		return read.broken(nil, "self-test: a secret it unwrapped can be read in clear")
	case !rv.Is(err, p11.CKR_ATTRIBUTE_SENSITIVE):
		return err
	}
	if t.cfg.Tolerate.Has(hsm.LackUnwrapTemplate) {
		return nil
	}
	for _, as := range []direct.Unwrapped{{Bare: true, MayLeave: true}, {Bare: true}, {MayLeave: true}} {
		as.KeyType = keyType
		if k.shapes.sayLength {
			as.Length = len(k.known) - 8
		}
		object, err := t.direct.Unwrap(read.session, read.object, k.known, as)
		if err == nil {
			if err := t.direct.Destroy(read.session, object); err != nil {
				return err
			}
			return read.broken(nil, "self-test: it unwraps a secret as CKA_SENSITIVE=%v, CKA_EXTRACTABLE=%v: CKA_UNWRAP_TEMPLATE is missing or not heeded",
				!as.Bare, as.MayLeave)
		}
		if rv.Kind(err) != fault.Invalid {
			return err
		}
	}
	return nil
}
