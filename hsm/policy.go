package hsm

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"

	"custode/internal/fault"
)

// Role is what a key is for. A key has one role for its whole life.
type Role uint8

// The roles. The zero value is no role.
const (
	RoleSign Role = iota + 1 // RSA private key, PKCS #1 v1.5 signatures
	RoleMAC                  // generic secret, HMAC-SHA-256
	RoleWrap                 // AES-256, AES-GCM
	RoleSeed                 // AES-256, wraps and unwraps OATH secrets (RFC 3394)
)

// String returns the role's name as a ceremony plan writes it.
func (r Role) String() string {
	switch r {
	case RoleSign:
		return "sign"
	case RoleMAC:
		return "mac"
	case RoleWrap:
		return "wrap"
	case RoleSeed:
		return "seed"
	}
	return fmt.Sprintf("role(%d)", uint8(r))
}

// ParseRole accepts "sign", "mac", "wrap" and "seed"; else fault.Invalid.
func ParseRole(s string) (Role, error) {
	for r := RoleSign; r <= RoleSeed; r++ {
		if s == r.String() {
			return r, nil
		}
	}
	return 0, fault.Newf(fault.Invalid, "parse key role", "role is none of sign, mac, wrap, seed")
}

// Attribute is a boolean attribute of a PKCS #11 object, without the number
// that the PKCS #11 home gives it.
type Attribute uint8

// The attributes the policy speaks about (PKCS #11 v2.40, sections 4.4, 4.9
// and 4.10).
const (
	AttrToken Attribute = iota + 1
	AttrPrivate
	AttrSensitive
	AttrExtractable
	AttrSign
	AttrVerify
	AttrEncrypt
	AttrDecrypt
	AttrWrap
	AttrUnwrap
	AttrDerive
	AttrSignRecover
	AttrVerifyRecover
	AttrModifiable
	AttrAlwaysAuthenticate
	AttrLocal
	AttrAlwaysSensitive
	AttrNeverExtractable
)

// String returns the attribute's PKCS #11 name, such as "CKA_SENSITIVE".
func (a Attribute) String() string {
	names := [...]string{
		"", "TOKEN", "PRIVATE", "SENSITIVE", "EXTRACTABLE", "SIGN", "VERIFY", "ENCRYPT", "DECRYPT", "WRAP", "UNWRAP",
		"DERIVE", "SIGN_RECOVER", "VERIFY_RECOVER", "MODIFIABLE", "ALWAYS_AUTHENTICATE", "LOCAL", "ALWAYS_SENSITIVE", "NEVER_EXTRACTABLE",
	}
	if a == 0 || int(a) >= len(names) {
		return fmt.Sprintf("attribute(%d)", uint8(a))
	}
	return "CKA_" + names[a]
}

// Rule is one attribute a key must have.
type Rule struct {
	Attribute Attribute
	Want      bool
	// Set is true when key generation asks for the value; false when only the
	// token may decide it (CKA_LOCAL and the like) and we check it.
	Set bool
	// Absent is true when a token that does not know the attribute complies:
	// the flag would only have granted something.
	Absent bool
}

// Lacks is a set of rules that a token is allowed to lack, because an operator
// and a reviewed plan say so. The zero value is none.
type Lacks uint8

// What a token may be allowed to lack. NSS 3.87 lacks all of it.
const (
	// LackAllowedMechanisms allows a token that does not know
	// CKA_ALLOWED_MECHANISMS: then nothing but our own code keeps a key to its
	// one mechanism. Where the token knows it, it must still be right.
	LackAllowedMechanisms Lacks = 1 << iota
	// LackLocal allows a token that says of its own keys that they were not made
	// in it (CKA_LOCAL). CKA_ALWAYS_SENSITIVE and CKA_NEVER_EXTRACTABLE are
	// demanded all the same.
	LackLocal
	// LackUnwrapTemplate allows a token that does not heed CKA_UNWRAP_TEMPLATE: then
	// whoever holds a logged-in session can unwrap an OATH secret as extractable and
	// read it. What our own code unwraps must be unreadable all the same.
	LackUnwrapTemplate
)

var lackNames = [...]string{"allowed-mechanisms", "local", "unwrap-template"}

// ParseLacks reads names such as "allowed-mechanisms". An unknown or repeated
// one is fault.Invalid.
func ParseLacks(names []string) (Lacks, error) {
	var l Lacks
	for _, name := range names {
		i := slices.Index(lackNames[:], name)
		if i < 0 || l&(1<<i) != 0 {
			return 0, fault.Newf(fault.Invalid, "read what a token may lack", "%.40q is unknown, or repeated", name)
		}
		l |= 1 << i
	}
	return l, nil
}

// Has reports whether l allows all of what.
func (l Lacks) Has(what Lacks) bool { return l&what == what }

// Pardons reports whether a key may break the rule.
func (l Lacks) Pardons(r Rule) bool { return r.Attribute == AttrLocal && l.Has(LackLocal) }

// Strings returns the names of what l allows.
func (l Lacks) Strings() []string {
	var names []string
	for i, name := range lackNames {
		if l.Has(1 << i) {
			names = append(names, name)
		}
	}
	return names
}

// must is asked for and demanded; never is asked for as false, and a token that
// does not know it complies; token is decided by the token and demanded.
func must(a Attribute) Rule  { return Rule{Attribute: a, Want: true, Set: true} }
func never(a Attribute) Rule { return Rule{Attribute: a, Set: true, Absent: true} }
func token(a Attribute) Rule { return Rule{Attribute: a, Want: true} }

// Rules returns every attribute rule for the secret or private key of a role,
// in the order in which a report lists them. CKA_EXTRACTABLE=0 has no Absent:
// a token that cannot say so is not one we keep keys in.
func Rules(r Role) []Rule {
	rules := []Rule{
		must(AttrToken), must(AttrPrivate), must(AttrSensitive),
		{Attribute: AttrExtractable, Set: true},
		token(AttrLocal), token(AttrAlwaysSensitive), token(AttrNeverExtractable),
	}
	switch r {
	case RoleSign:
		// Modifiable stays as the token makes it: CKA_ID is derived from the
		// public key and can be written only after the key exists.
		return append(rules, must(AttrSign), never(AttrDecrypt), never(AttrUnwrap), never(AttrDerive), never(AttrSignRecover),
			// A login before each signature would put the PIN in the serving path.
			Rule{Attribute: AttrAlwaysAuthenticate, Absent: true})
	case RoleMAC:
		return append(rules, must(AttrSign), must(AttrVerify), never(AttrEncrypt), never(AttrDecrypt),
			never(AttrWrap), never(AttrUnwrap), never(AttrDerive), Rule{Attribute: AttrModifiable, Set: true})
	case RoleWrap:
		return append(rules, must(AttrEncrypt), must(AttrDecrypt), never(AttrSign), never(AttrVerify),
			never(AttrWrap), never(AttrUnwrap), never(AttrDerive), Rule{Attribute: AttrModifiable, Set: true})
	case RoleSeed:
		// With ENCRYPT or DECRYPT, RFC 3394 could be undone by hand.
		return append(rules, must(AttrWrap), must(AttrUnwrap), never(AttrEncrypt), never(AttrDecrypt),
			never(AttrSign), never(AttrVerify), never(AttrDerive), Rule{Attribute: AttrModifiable, Set: true})
	}
	return nil
}

// PublicRules returns the rules for the public half of a sign key.
func PublicRules() []Rule {
	return []Rule{
		must(AttrToken), must(AttrVerify), never(AttrEncrypt), never(AttrWrap), never(AttrDerive), never(AttrVerifyRecover),
		token(AttrLocal),
	}
}

// Bits reports whether a key of role r may have the given size: 2048, 3072 or
// 4096 for sign, 256 for mac, wrap and seed.
func (r Role) Bits(bits int) bool {
	switch r {
	case RoleSign:
		return bits == 2048 || bits == 3072 || bits == 4096
	case RoleMAC, RoleWrap, RoleSeed:
		return bits == 256
	}
	return false
}

// KeyIDLen is the length of CKA_ID in octets, for every role.
const KeyIDLen = 20

// KeyID returns the CKA_ID that the private key, the public key and the
// certificate of one key pair share: the first 20 octets of the SHA-256 of the
// DER SubjectPublicKeyInfo. It fails with fault.Invalid for a key that
// crypto/x509 cannot encode.
func KeyID(public any) ([]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fault.New(fault.Invalid, "derive key identifier", err)
	}
	sum := sha256.Sum256(spki)
	return sum[:KeyIDLen], nil
}
