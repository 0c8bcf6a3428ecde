package pkcs11

import (
	"bytes"
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"math/big"
	"slices"

	p11 "github.com/miekg/pkcs11"

	"custode/hsm"
	"custode/hsm/pkcs11/rv"
	"custode/internal/fault"
	"custode/internal/id"
)

// key is what we remember of a key between logins, to recognise it.
type key struct {
	label  id.KeyLabel
	role   hsm.Role
	id     []byte
	public *rsa.PublicKey // sign
	known  []byte         // mac: the MAC of canaryText; wrap: a blob that holds it; seed: canarySecret wrapped
	shapes seedShapes     // seed
}

// canaryText is what self-tests and canaries sign, MAC and wrap. It can never
// be a message of the product: nothing there begins with NUL.
const canaryText = "\x00custode canary"

// class and keyType are what a key of the role is in PKCS #11, mechanism the one
// mechanism that CKA_ALLOWED_MECHANISMS lists, secret what must not be readable.
func shape(r hsm.Role) (class, keyType, mechanism, secret uint) {
	switch r {
	case hsm.RoleSign:
		return p11.CKO_PRIVATE_KEY, p11.CKK_RSA, p11.CKM_RSA_PKCS, p11.CKA_PRIVATE_EXPONENT
	case hsm.RoleMAC:
		return p11.CKO_SECRET_KEY, p11.CKK_GENERIC_SECRET, p11.CKM_SHA256_HMAC, p11.CKA_VALUE
	case hsm.RoleSeed:
		return p11.CKO_SECRET_KEY, p11.CKK_AES, p11.CKM_AES_KEY_WRAP, p11.CKA_VALUE
	default:
		return p11.CKO_SECRET_KEY, p11.CKK_AES, p11.CKM_AES_GCM, p11.CKA_VALUE
	}
}

// AttributeType returns the PKCS #11 number of an attribute of the policy.
func AttributeType(a hsm.Attribute) uint {
	return [...]uint{
		hsm.AttrToken: p11.CKA_TOKEN, hsm.AttrPrivate: p11.CKA_PRIVATE,
		hsm.AttrSensitive: p11.CKA_SENSITIVE, hsm.AttrExtractable: p11.CKA_EXTRACTABLE,
		hsm.AttrSign: p11.CKA_SIGN, hsm.AttrVerify: p11.CKA_VERIFY,
		hsm.AttrEncrypt: p11.CKA_ENCRYPT, hsm.AttrDecrypt: p11.CKA_DECRYPT,
		hsm.AttrWrap: p11.CKA_WRAP, hsm.AttrUnwrap: p11.CKA_UNWRAP, hsm.AttrDerive: p11.CKA_DERIVE,
		hsm.AttrSignRecover: p11.CKA_SIGN_RECOVER, hsm.AttrVerifyRecover: p11.CKA_VERIFY_RECOVER,
		hsm.AttrModifiable: p11.CKA_MODIFIABLE, hsm.AttrAlwaysAuthenticate: p11.CKA_ALWAYS_AUTHENTICATE,
		hsm.AttrLocal: p11.CKA_LOCAL, hsm.AttrAlwaysSensitive: p11.CKA_ALWAYS_SENSITIVE,
		hsm.AttrNeverExtractable: p11.CKA_NEVER_EXTRACTABLE,
	}[a]
}

// AllowedMechanisms returns the value of CKA_ALLOWED_MECHANISMS of a key of the
// role: an array with one CK_MECHANISM_TYPE in the machine's own format.
func AllowedMechanisms(r hsm.Role) []byte {
	_, _, mechanism, _ := shape(r)
	return ulong(mechanism)
}

func ulong(v uint) []byte { return binary.NativeEndian.AppendUint64(nil, uint64(v)) }

// openKey finds, examines and remembers the key called label.
func (t *Token) openKey(label id.KeyLabel, role hsm.Role) (*key, error) {
	op := "open " + role.String() + " key " + label.String()
	if label.IsZero() {
		return nil, fault.Newf(fault.Invalid, op, "no label")
	}
	t.mu.Lock()
	k := t.known[label]
	t.mu.Unlock()
	if k == nil && t.copied(label) {
		t.cfg.Log.Warn("A KEY MAY BE IN OTHER TOKENS TOO: that it was made in this one and never left it is not checked", "key", label.String())
	}
	if k != nil {
		if k.role != role {
			return nil, fault.Newf(fault.Invalid, op, "it is in use as a %s key", k.role)
		}
		return k, nil
	}
	var fresh *key
	err := t.do(context.Background(), call{op: op, use: func(g *generation, s p11.SessionHandle) error {
		k, h, err := t.examine(s, label, role)
		if err != nil {
			return err
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if raced := t.known[label]; raced != nil {
			k = raced
		}
		t.known[label], g.handles[label] = k, h
		fresh = k
		return nil
	}})
	if err != nil {
		return nil, err
	}
	return fresh, nil
}

// copied reports whether the configuration says that other tokens hold the key too.
func (t *Token) copied(label id.KeyLabel) bool { return slices.Contains(t.cfg.Copied, label) }

// handle returns the key's object handle in g.
func (t *Token) handle(g *generation, k *key) (p11.ObjectHandle, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h, ok := g.handles[k.label]; ok {
		return h, nil
	}
	if err := g.lost[k.label]; err != nil {
		return 0, err
	}
	// Opened in a generation that ended at that moment.
	return 0, p11.Error(p11.CKR_KEY_HANDLE_INVALID)
}

// recognise finds every known key again after a login. A key that is missing is
// noted; a key that is another than before, or all of them missing, means that
// this is not the token we knew.
func (t *Token) recognise(g *generation) error {
	t.mu.Lock()
	known := make([]*key, 0, len(t.known))
	for _, k := range t.known {
		known = append(known, k)
	}
	t.mu.Unlock()
	if len(known) == 0 {
		return nil
	}
	s, err := t.mod.OpenSession(g.slot, p11.CKF_SERIAL_SESSION)
	if err != nil {
		return inCall("C_OpenSession", err)
	}
	for _, k := range known {
		now, h, err := t.examine(s, k.label, k.role)
		switch {
		case fault.Is(err, fault.NotFound):
			g.lost[k.label] = fault.New(fault.Fatal, "use key "+k.label.String(), err)
			continue
		case err != nil:
			return err
		}
		if err := t.same(s, h, k, now); err != nil {
			return err
		}
		g.handles[k.label] = h
	}
	g.idle = append(g.idle, s)
	if len(g.lost) == len(known) {
		return fault.Newf(fault.Fatal, "recognise token "+t.loc.Name(), "none of the %d keys in use is in it: it was re-initialised", len(known))
	}
	return nil
}

// same insists that now is the key we knew as k.
func (t *Token) same(s p11.SessionHandle, h p11.ObjectHandle, k, now *key) error {
	refused := fault.Newf(fault.Fatal, "recognise key "+k.label.String(), "it is another key than before: the token was re-initialised or replaced")
	if !bytes.Equal(k.id, now.id) {
		return refused
	}
	switch k.role {
	case hsm.RoleSign:
		if !k.public.Equal(now.public) {
			return refused
		}
	case hsm.RoleMAC:
		if !hmac.Equal(k.known, now.known) {
			return refused
		}
	case hsm.RoleWrap, hsm.RoleSeed:
		if err := t.canaryFor(k, h)(nil, s); err != nil {
			return refused
		}
	}
	return nil
}

// examine finds the key, checks its policy attribute by attribute, proves that
// its secret part cannot be read, and tries it once. A missing key is
// fault.NotFound, one that breaks the policy fault.Fatal.
func (t *Token) examine(s p11.SessionHandle, label id.KeyLabel, role hsm.Role) (*key, p11.ObjectHandle, error) {
	class, keyType, _, _ := shape(role)
	h, err := t.findOne(s, label, class)
	if err != nil {
		return nil, 0, err
	}
	read := reader{t.mod, s, h, label, t.cfg.Tolerate, t.copied(label)}
	if err := read.policy(role); err != nil {
		return nil, 0, err
	}
	k := &key{label: label, role: role}
	if got, err := read.number(p11.CKA_KEY_TYPE); err != nil || got != keyType {
		return nil, 0, read.broken(err, "CKA_KEY_TYPE is %#x, not %#x", got, keyType)
	}
	if k.id, err = read.value(p11.CKA_ID); err != nil || len(k.id) != hsm.KeyIDLen {
		return nil, 0, read.broken(err, "CKA_ID has %d octets, not %d", len(k.id), hsm.KeyIDLen)
	}
	switch role {
	case hsm.RoleSign:
		err = t.trySign(read, k)
	case hsm.RoleMAC:
		err = t.tryMAC(read, k)
	case hsm.RoleWrap:
		err = t.tryWrap(read, k)
	case hsm.RoleSeed:
		err = t.trySeed(read, k)
	}
	if err != nil {
		if rv.Kind(err) == fault.Invalid {
			// What we ask of a key is fixed: a token that calls it a bad
			// request, for want of the mechanism say, does not serve.
			err = fault.New(fault.Fatal, "try key "+label.String(), err)
		}
		return nil, 0, err
	}
	return k, h, nil
}

func (t *Token) trySign(read reader, k *key) error {
	modulus, err := read.value(p11.CKA_MODULUS)
	if err != nil {
		return err
	}
	exponent, err := read.value(p11.CKA_PUBLIC_EXPONENT)
	if err != nil {
		return err
	}
	n, e := new(big.Int).SetBytes(modulus), new(big.Int).SetBytes(exponent)
	if !k.role.Bits(n.BitLen()) || e.BitLen() > 31 || e.Int64() < 65537 {
		return read.broken(nil, "RSA of %d bits with exponent %v is not accepted", n.BitLen(), e)
	}
	k.public = &rsa.PublicKey{N: n, E: int(e.Int64())}
	want, err := hsm.KeyID(k.public)
	if err != nil || !bytes.Equal(want, k.id) {
		return read.broken(err, "CKA_ID is not derived from the public key")
	}
	return t.canaryFor(k, read.object)(nil, read.session)
}

// length wants 256 bits. SoftHSM says 0 of every key that was unwrapped; the
// ceremony that copies a key compares the length of what it unwraps.
func (r reader) length() error {
	n, err := r.number(p11.CKA_VALUE_LEN)
	if err != nil || n != 32 && !(r.copied && n == 0) {
		return r.broken(err, "CKA_VALUE_LEN is %d, not 32", n)
	}
	return nil
}

func (t *Token) tryMAC(read reader, k *key) error {
	if err := read.length(); err != nil {
		return err
	}
	first, err := t.mac(read.session, read.object, []byte(canaryText))
	if err != nil {
		return err
	}
	other, err := t.mac(read.session, read.object, []byte(canaryText+"."))
	if err != nil {
		return err
	}
	if len(first) != sha256.Size || bytes.Equal(first, other) {
		return read.broken(nil, "self-test: the MACs of two texts are %d octets or equal", len(first))
	}
	k.known = first
	return t.canaryFor(k, read.object)(nil, read.session)
}

func (t *Token) tryWrap(read reader, k *key) error {
	if err := read.length(); err != nil {
		return err
	}
	blob, err := t.wrap(read.session, read.object, k.label, []byte(canaryText), nil)
	if err != nil {
		return err
	}
	if k.known, err = blob.Encode(); err != nil {
		return err
	}
	// A token that ignores the tag or the additional data is worse than none.
	blob.Wrapped[len(blob.Wrapped)-1] ^= 1
	if _, err := t.unwrap(read.session, read.object, blob, nil); err == nil {
		return read.broken(nil, "self-test: a damaged blob was accepted")
	}
	return nil
}

// canaryFor returns a harmless operation with k that has one right result. h is
// the handle, or 0 to look it up in the generation.
func (t *Token) canaryFor(k *key, h p11.ObjectHandle) func(*generation, p11.SessionHandle) error {
	return func(g *generation, s p11.SessionHandle) error {
		h := h
		if h == 0 {
			var err error
			if h, err = t.handle(g, k); err != nil {
				return err
			}
		}
		broken := fault.Newf(fault.Fatal, "test key "+k.label.String(), "the token gave a wrong result")
		switch k.role {
		case hsm.RoleSign:
			digest := sha256.Sum256([]byte(canaryText))
			_, err := t.sign(s, h, k.public, crypto.SHA256, digest[:])
			return err
		case hsm.RoleMAC:
			got, err := t.mac(s, h, []byte(canaryText))
			if err != nil {
				return err
			}
			if !hmac.Equal(got, k.known) {
				return broken
			}
		case hsm.RoleWrap:
			blob, err := hsm.DecodeBlob(k.known)
			if err != nil {
				return err
			}
			got, err := t.unwrap(s, h, blob, nil)
			if err != nil {
				return err
			}
			if string(got) != canaryText {
				return broken
			}
		case hsm.RoleSeed:
			return t.useCanary(s, h, k)
		}
		return nil
	}
}

// findOne returns the one object of a class called label. None is
// fault.NotFound, two are fault.Fatal: a label that names two keys names none.
func (t *Token) findOne(s p11.SessionHandle, label id.KeyLabel, class uint) (p11.ObjectHandle, error) {
	found, err := t.find2(s, p11.NewAttribute(p11.CKA_CLASS, class), p11.NewAttribute(p11.CKA_LABEL, label.String()))
	switch {
	case err != nil:
		return 0, err
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return 0, fault.Newf(fault.Fatal, "find key "+label.String(), "the token holds it twice")
	case !t.loggedIn(s):
		// Private objects vanish with the login: not missing, only unseen.
		return 0, p11.Error(p11.CKR_USER_NOT_LOGGED_IN)
	}
	return 0, fault.Newf(fault.NotFound, "find key "+label.String(), "the token does not hold it")
}

// find2 returns up to two objects that match.
func (t *Token) find2(s p11.SessionHandle, template ...*p11.Attribute) ([]p11.ObjectHandle, error) {
	if err := t.mod.FindObjectsInit(s, template); err != nil {
		return nil, inCall("C_FindObjectsInit", err)
	}
	found, _, err := t.mod.FindObjects(s, 2)
	if err := inCall("C_FindObjectsFinal", t.mod.FindObjectsFinal(s)); err != nil {
		return nil, err
	}
	return found, inCall("C_FindObjects", err)
}

// Holds reports whether the token has any object called label: a key, half a
// key or a certificate. A ceremony asks before it makes one.
func (t *Token) Holds(ctx context.Context, label id.KeyLabel) (bool, error) {
	var found []p11.ObjectHandle
	err := t.do(ctx, call{op: "look for " + label.String(), use: func(_ *generation, s p11.SessionHandle) (err error) {
		if found, err = t.find2(s, p11.NewAttribute(p11.CKA_LABEL, label.String())); err == nil && len(found) == 0 && !t.loggedIn(s) {
			err = p11.Error(p11.CKR_USER_NOT_LOGGED_IN)
		}
		return err
	}})
	return err == nil && len(found) > 0, err
}
