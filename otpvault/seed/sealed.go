package seed

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/otpvault/oath"
)

// Numbers of PKCS#11 v2.40 (pkcs11t.h) that a header may hold.
const (
	MechanismAESKeyWrap       uint32 = 0x2109 // CKM_AES_KEY_WRAP, RFC 3394: the portable one
	MechanismAESCBCPad        uint32 = 0x1085 // CKM_AES_CBC_PAD, IV in front: tokens without key wrap
	MechanismAESGCM           uint32 = 0x1087 // CKM_AES_GCM, IV in front, tag behind: tokens without unwrapping; the seed comes into memory
	KeyTypeGenericSecret      uint32 = 0x10   // CKK_GENERIC_SECRET
	KeyTypeSHA1HMAC           uint32 = 0x28   // CKK_SHA_1_HMAC, and so on: tokens that want a type per hash
	KeyTypeSHA256HMAC         uint32 = 0x2B
	KeyTypeSHA512HMAC         uint32 = 0x2D
	mechanismSHA1HMAC         uint32 = 0x221
	mechanismSHA256HMAC       uint32 = 0x251
	mechanismSHA512HMAC       uint32 = 0x271
	sealedVersion                    = 1
	fixedPart                        = 2 + 4 + 4 + 1 + 2 // without the label
	minSeed, maxSeed, maxBlob        = 10, 256, fixedPart + 64 + 128 + 32
)

// MinSeed and MaxSeed bound a seed in octets. RFC 4226 wants 16 at least; the authenticator
// apps' 10 exist in the field. MaxBlob is the length of the longest encoded Sealed.
const (
	MinSeed = minSeed
	MaxSeed = maxSeed
	MaxBlob = maxBlob
)

// Sealed is a wrapped seed with what is needed to use it. Its octets, big endian:
// version 1, length of the label, label, wrap mechanism (4), key type (4), hash,
// block length (2), and the wrapped octets up to the end.
type Sealed struct {
	Mechanism uint32 // CKM of the wrapping
	KeyType   uint32 // CKK of the unwrapped object
	Hash      oath.Hash
	KEK       id.KeyLabel // the key that wraps
	Wrapped   []byte      // of a seed of Hash.Block() octets
}

// check returns fault.Invalid for what no HSM of ours can have made.
func (s Sealed) check(op string) error {
	block := s.Hash.Block()
	if block == 0 || s.KEK.IsZero() {
		return fault.Newf(fault.Invalid, op, "hash %d, or no key label", s.Hash)
	}
	want := block + 8 // RFC 3394, 2.2.1
	switch s.Mechanism {
	case MechanismAESKeyWrap:
	case MechanismAESCBCPad:
		want = 16 + block + 16 // IV, and a block of padding
	case MechanismAESGCM:
		want = 12 + block + 16
		if s.KeyType != KeyTypeGenericSecret { // it becomes no object: one encoding
			return fault.Newf(fault.Invalid, op, "key type %#x does not go with decryption", s.KeyType)
		}
	default:
		return fault.Newf(fault.Invalid, op, "wrap mechanism %#x is not known", s.Mechanism)
	}
	if len(s.Wrapped) != want {
		return fault.Newf(fault.Invalid, op, "%d wrapped octets, not %d", len(s.Wrapped), want)
	}
	if s.KeyType != KeyTypeGenericSecret && s.KeyType != typeOf(s.Hash) {
		return fault.Newf(fault.Invalid, op, "key type %#x does not go with %v", s.KeyType, s.Hash)
	}
	return nil
}

func typeOf(h oath.Hash) uint32 {
	switch h {
	case oath.SHA1:
		return KeyTypeSHA1HMAC
	case oath.SHA256:
		return KeyTypeSHA256HMAC
	default:
		return KeyTypeSHA512HMAC
	}
}

func hmacOf(h oath.Hash) uint32 {
	switch h {
	case oath.SHA1:
		return mechanismSHA1HMAC
	case oath.SHA256:
		return mechanismSHA256HMAC
	default:
		return mechanismSHA512HMAC
	}
}

// Encode returns the octets, or fault.Invalid.
func (s Sealed) Encode() ([]byte, error) {
	if err := s.check("encode sealed seed"); err != nil {
		return nil, err
	}
	label := s.KEK.String()
	out := make([]byte, 0, fixedPart+len(label)+len(s.Wrapped))
	out = append(out, sealedVersion, byte(len(label)))
	out = append(out, label...)
	out = binary.BigEndian.AppendUint32(out, s.Mechanism)
	out = binary.BigEndian.AppendUint32(out, s.KeyType)
	out = append(out, byte(s.Hash))
	out = binary.BigEndian.AppendUint16(out, uint16(s.Hash.Block()))
	return append(out, s.Wrapped...), nil
}

// Decode parses what Encode makes and nothing else (fault.Invalid): one Sealed
// has one encoding. The result shares no memory with b.
func Decode(b []byte) (Sealed, error) {
	const op = "decode sealed seed"
	if len(b) < fixedPart || len(b) > maxBlob {
		return Sealed{}, fault.Newf(fault.Invalid, op, "length %d is outside %d to %d", len(b), fixedPart, maxBlob)
	}
	if b[0] != sealedVersion {
		return Sealed{}, fault.Newf(fault.Invalid, op, "version %d is not known", b[0])
	}
	n := int(b[1])
	if len(b) < fixedPart+n {
		return Sealed{}, fault.Newf(fault.Invalid, op, "a label of %d octets does not fit", n)
	}
	label, err := id.ParseKeyLabel(string(b[2 : 2+n]))
	if err != nil {
		return Sealed{}, fault.New(fault.Invalid, op, err)
	}
	if label.String() != string(b[2:2+n]) {
		return Sealed{}, fault.Newf(fault.Invalid, op, "the label is not canonical")
	}
	rest := b[2+n:]
	s := Sealed{
		Mechanism: binary.BigEndian.Uint32(rest), KeyType: binary.BigEndian.Uint32(rest[4:]), Hash: oath.Hash(rest[8]),
		KEK: label, Wrapped: append([]byte(nil), rest[11:]...),
	}
	if err := s.check(op); err != nil {
		return Sealed{}, err
	}
	if block := int(binary.BigEndian.Uint16(rest[9:])); block != s.Hash.Block() {
		return Sealed{}, fault.Newf(fault.Invalid, op, "block of %d octets is not that of %v", block, s.Hash)
	}
	return s, nil
}

// Pad returns secret padded with zeros to the block of h; one longer than the block is hashed
// first, as HMAC does (RFC 2104, 2). The result is the caller's to clear, and so is
// secret. fault.Invalid for an unknown hash or a secret outside MinSeed to MaxSeed octets.
func Pad(secret []byte, h oath.Hash) ([]byte, error) {
	const op = "pad seed"
	if h.Block() == 0 {
		return nil, fault.Newf(fault.Invalid, op, "hash %d is not known", h)
	}
	if len(secret) < minSeed || len(secret) > maxSeed {
		return nil, fault.Newf(fault.Invalid, op, "a seed of %d octets is not %d to %d", len(secret), minSeed, maxSeed)
	}
	out := make([]byte, h.Block())
	if len(secret) <= len(out) {
		copy(out, secret)
		return out, nil
	}
	switch h {
	case oath.SHA1:
		sum := sha1.Sum(secret)
		copy(out, sum[:])
		clear(sum[:])
	case oath.SHA256:
		sum := sha256.Sum256(secret)
		copy(out, sum[:])
		clear(sum[:])
	default:
		sum := sha512.Sum512(secret)
		copy(out, sum[:])
		clear(sum[:])
	}
	return out, nil
}
