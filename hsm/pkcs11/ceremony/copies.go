package ceremony

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"io"
	"math/big"
	"slices"

	p11 "github.com/miekg/pkcs11"

	"custode/hsm"
	"custode/hsm/custody"
	"custode/hsm/pkcs11"
	"custode/hsm/pkcs11/direct"
	"custode/internal/fault"
)

// copies is stage 2 for the keys that are to be in other tokens too. Such a key is
// made as a session object, the only time that it is extractable; wrapped under the
// transport key; destroyed; and unwrapped from what the backup will hold. So no
// extractable key is ever stored, a ceremony that dies leaves none behind, and the
// first restoration of the backup happens here (docs/adr/0005-copied-keys.md).
func (r *run) copies() error {
	if !r.plan.Copies() {
		return nil
	}
	const op = "make keys that will be copied"
	return atDesk(r.loc, r.rep.Token, op, func(d desk) error {
		// The token's randomness and the system's: either alone would do.
		mine := make([]byte, custody.SecretLen)
		defer clear(mine)
		if _, err := io.ReadFull(rand.Reader, mine); err != nil {
			return fault.New(fault.Unavailable, op, err)
		}
		theirs, err := d.mod.GenerateRandom(d.s, len(mine)+16)
		if err != nil || len(theirs) != len(mine)+16 {
			return fault.Newf(fault.Fatal, op, "the token gave %d random octets: %w", len(theirs), err)
		}
		defer clear(theirs)
		r.secret = new(custody.Secret)
		for i := range mine {
			r.secret[i] = mine[i] ^ theirs[i]
		}
		r.backup = custody.Backup{Format: 1, ID: hex.EncodeToString(theirs[len(mine):]), Ceremony: r.plan.Name, Plan: hex.EncodeToString(r.rep.PlanDigest[:]),
			Token: r.rep.Token.Label, Serial: r.rep.Token.Serial, Made: r.now, Holders: len(r.plan.Custodians), Threshold: r.plan.Threshold, Rehearsal: r.rehearse}
		transport, err := d.transportKey(r.secret)
		if err != nil {
			return err
		}
		for i := range r.rep.Keys {
			k := &r.rep.Keys[i]
			if !k.Copy {
				continue
			}
			if err := r.makeCopied(d, transport, k); err != nil {
				return err
			}
		}
		return nil
	})
}

// transportKey makes the session object that wraps and unwraps, and nothing else.
func (d desk) transportKey(s *custody.Secret) (p11.ObjectHandle, error) {
	value := s.TransportKey()
	defer clear(value)
	h, err := d.mod.CreateObject(d.s, []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY), p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_AES),
		p11.NewAttribute(p11.CKA_TOKEN, false), p11.NewAttribute(p11.CKA_PRIVATE, true), p11.NewAttribute(p11.CKA_VALUE, value),
		p11.NewAttribute(p11.CKA_SENSITIVE, true), p11.NewAttribute(p11.CKA_EXTRACTABLE, false),
		p11.NewAttribute(p11.CKA_WRAP, true), p11.NewAttribute(p11.CKA_UNWRAP, true),
		p11.NewAttribute(p11.CKA_ENCRYPT, false), p11.NewAttribute(p11.CKA_DECRYPT, false),
	})
	if err != nil {
		return 0, fault.New(fault.Fatal, "make transport key", err)
	}
	return h, nil
}

// wrapping is how keys of a role travel. A PKCS #8 private key is not a multiple of
// eight octets long.
func wrapping(r hsm.Role) uint {
	if r == hsm.RoleSign {
		return p11.CKM_AES_KEY_WRAP_PAD
	}
	return p11.CKM_AES_KEY_WRAP
}

func (r *run) makeCopied(d desk, transport p11.ObjectHandle, k *KeyReport) error {
	op := "make key " + k.Label.String()
	failed := func(err error) error { return fault.New(fault.Fatal, op, err) }
	var public *rsa.PublicKey
	var fleeting p11.ObjectHandle
	var err error
	if k.Role == hsm.RoleSign {
		fleeting, public, err = d.fleetingPair(k.Bits)
	} else {
		fleeting, err = d.fleetingSecret(k.Role, k.Bits)
	}
	if err != nil {
		return failed(err)
	}
	wrapped, err := d.mod.WrapKey(d.s, []*p11.Mechanism{p11.NewMechanism(wrapping(k.Role), nil)}, transport, fleeting)
	if err != nil {
		return failed(err)
	}
	if err := d.mod.DestroyObject(d.s, fleeting); err != nil {
		return failed(err)
	}
	if public != nil {
		if k.SPKI, err = x509.MarshalPKIXPublicKey(public); err != nil {
			return failed(err)
		}
		k.ID, err = hsm.KeyID(public)
	} else {
		k.ID, err = d.mod.GenerateRandom(d.s, hsm.KeyIDLen)
	}
	if err != nil {
		return failed(err)
	}
	carried := custody.Key{Label: k.Label, Role: k.Role.String(), Bits: k.Bits, ID: k.ID, Mechanism: wrapping(k.Role), Wrapped: wrapped}
	h, err := d.unwrapKey(transport, carried, k.Role, r.plan.Tolerate)
	if err != nil {
		return err
	}
	r.made = append(r.made, k.Label.String())
	if err := d.readBack(k, r.plan.Tolerate, h); err != nil {
		return err
	}
	k.passed("wrapped for the backup while it was a session object, and unwrapped into the token from the backup's octets")
	if public != nil {
		if err := r.certifyCopied(d, h, public, k, &carried); err != nil {
			return err
		}
	}
	r.backup.Keys = append(r.backup.Keys, carried)
	return nil
}

func (d desk) readBack(k *KeyReport, lacks hsm.Lacks, h p11.ObjectHandle) error {
	return checkRules(k, lacks, hsm.Rules(k.Role), "", func(a uint) (*p11.Attribute, error) {
		v, err := d.value(h, a)
		return &p11.Attribute{Type: a, Value: v}, err
	})
}

func (r *run) certifyCopied(d desk, h p11.ObjectHandle, public *rsa.PublicKey, k *KeyReport, carried *custody.Key) error {
	if err := d.publicKey(k.Label.String(), k.ID, public); err != nil {
		return err
	}
	cert, err := r.makeCertificate(rawSigner{d, h, public}, public, rand.Reader, k)
	if err != nil {
		return err
	}
	if err := d.storeCertificate(k.Label.String(), k.ID, cert); err != nil {
		return fault.New(fault.Fatal, "store certificate "+k.Label.String(), err)
	}
	carried.Certificate = cert.Raw
	return nil
}

func (d desk) fleetingSecret(role hsm.Role, bits int) (p11.ObjectHandle, error) {
	mechanism := uint(p11.CKM_GENERIC_SECRET_KEY_GEN)
	use := uint(p11.CKA_SIGN)
	if keyType(role) == p11.CKK_AES {
		mechanism, use = p11.CKM_AES_KEY_GEN, p11.CKA_ENCRYPT
	}
	return d.mod.GenerateKey(d.s, []*p11.Mechanism{p11.NewMechanism(mechanism, nil)}, []*p11.Attribute{
		p11.NewAttribute(p11.CKA_TOKEN, false), p11.NewAttribute(p11.CKA_PRIVATE, true), p11.NewAttribute(p11.CKA_SENSITIVE, true),
		p11.NewAttribute(p11.CKA_EXTRACTABLE, true), p11.NewAttribute(p11.CKA_VALUE_LEN, bits/8), p11.NewAttribute(use, true),
	})
}

func (d desk) fleetingPair(bits int) (p11.ObjectHandle, *rsa.PublicKey, error) {
	pub, prv, err := d.mod.GenerateKeyPair(d.s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_RSA_PKCS_KEY_PAIR_GEN, nil)},
		[]*p11.Attribute{p11.NewAttribute(p11.CKA_TOKEN, false), p11.NewAttribute(p11.CKA_VERIFY, true), p11.NewAttribute(p11.CKA_MODULUS_BITS, bits),
			p11.NewAttribute(p11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})},
		[]*p11.Attribute{p11.NewAttribute(p11.CKA_TOKEN, false), p11.NewAttribute(p11.CKA_PRIVATE, true), p11.NewAttribute(p11.CKA_SENSITIVE, true),
			p11.NewAttribute(p11.CKA_EXTRACTABLE, true), p11.NewAttribute(p11.CKA_SIGN, true)})
	if err != nil {
		return 0, nil, err
	}
	modulus, err := d.value(pub, p11.CKA_MODULUS)
	if err != nil {
		return 0, nil, err
	}
	key := &rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: 65537}
	if key.N.BitLen() != bits {
		return 0, nil, fault.Newf(fault.Fatal, "make key pair", "the token made another key than RSA of %d bits", bits)
	}
	return prv, key, nil
}

func keyType(r hsm.Role) uint {
	switch r {
	case hsm.RoleSign:
		return p11.CKK_RSA
	case hsm.RoleMAC:
		return p11.CKK_GENERIC_SECRET
	default:
		return p11.CKK_AES
	}
}

// unwrapKey makes a token object with exactly the attributes of the policy.
func (d desk) unwrapKey(transport p11.ObjectHandle, k custody.Key, role hsm.Role, lacks hsm.Lacks) (p11.ObjectHandle, error) {
	class := uint(p11.CKO_SECRET_KEY)
	if role == hsm.RoleSign {
		class = p11.CKO_PRIVATE_KEY
	} else if !role.Bits(k.Bits) || len(k.Wrapped) != k.Bits/8+8 { // RFC 3394: one block more
		return 0, fault.Newf(fault.Invalid, "unwrap key "+k.Label.String(), "%d wrapped octets are no %s key of %d bits", len(k.Wrapped), role, k.Bits)
	}
	t := []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, class), p11.NewAttribute(p11.CKA_KEY_TYPE, keyType(role)),
		p11.NewAttribute(p11.CKA_LABEL, k.Label.String()), p11.NewAttribute(p11.CKA_ID, k.ID),
	}
	if !lacks.Has(hsm.LackAllowedMechanisms) {
		t = append(t, p11.NewAttribute(p11.CKA_ALLOWED_MECHANISMS, pkcs11.AllowedMechanisms(role)))
	}
	if role == hsm.RoleSeed && !lacks.Has(hsm.LackUnwrapTemplate) {
		t = append(t, p11.NewAttribute(p11.CKA_UNWRAP_TEMPLATE, direct.UnwrapTemplate()))
	}
	var last []*p11.Attribute
	for _, rule := range hsm.Rules(role) {
		a := p11.NewAttribute(pkcs11.AttributeType(rule.Attribute), rule.Want)
		switch {
		case rule.Set && rule.Attribute == hsm.AttrModifiable:
			last = append(last, a) // SoftHSM takes nothing after it: CKR_ATTRIBUTE_READ_ONLY
		case rule.Set:
			t = append(t, a)
		}
	}
	t = append(t, last...)
	h, err := d.mod.UnwrapKey(d.s, []*p11.Mechanism{p11.NewMechanism(k.Mechanism, nil)}, transport, k.Wrapped, t)
	if err != nil {
		return 0, fault.New(fault.Fatal, "unwrap key "+k.Label.String(), err)
	}
	return h, nil
}

// publicKey stores the public half beside an unwrapped private key.
func (d desk) publicKey(label string, keyID []byte, key *rsa.PublicKey) error {
	t := []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PUBLIC_KEY), p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_RSA),
		p11.NewAttribute(p11.CKA_LABEL, label), p11.NewAttribute(p11.CKA_ID, keyID),
		p11.NewAttribute(p11.CKA_MODULUS, key.N.Bytes()), p11.NewAttribute(p11.CKA_PUBLIC_EXPONENT, binary.BigEndian.AppendUint32(nil, uint32(key.E))[1:]),
	}
	for _, rule := range hsm.PublicRules() {
		if rule.Set {
			t = append(t, p11.NewAttribute(pkcs11.AttributeType(rule.Attribute), rule.Want))
		}
	}
	if _, err := d.mod.CreateObject(d.s, t); err != nil {
		return fault.New(fault.Fatal, "store public key "+label, err)
	}
	return nil
}

// rawSigner signs by a private key at the desk, for the certificate.
type rawSigner struct {
	d      desk
	h      p11.ObjectHandle
	public *rsa.PublicKey
}

// Public implements crypto.Signer.
func (s rawSigner) Public() crypto.PublicKey { return s.public }

// sha256Info is the DER prefix of a PKCS #1 DigestInfo (RFC 8017, section 9.2).
const sha256Info = "\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"

// Sign implements crypto.Signer for SHA-256.
func (s rawSigner) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != crypto.SHA256 || len(digest) != sha256.Size {
		return nil, fault.Newf(fault.Invalid, "sign at the desk", "SHA-256 only")
	}
	if err := s.d.mod.SignInit(s.d.s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_RSA_PKCS, nil)}, s.h); err != nil {
		return nil, err
	}
	return s.d.mod.Sign(s.d.s, slices.Concat([]byte(sha256Info), digest))
}
