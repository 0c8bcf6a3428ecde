package soft

import (
	"crypto"
	"encoding/asn1"

	"custode/internal/fault"
)

// DigestInfo returns the DER of a PKCS #1 DigestInfo (RFC 8017, section 9.2).
// We build it ourselves and use CKM_RSA_PKCS, which every token has;
// opencryptoki lacks the mechanisms that hash. fault.Invalid for a hash that is none of SHA-256,
// SHA-384 and SHA-512, and for a digest of another length.
func DigestInfo(hash crypto.Hash, digest []byte) ([]byte, error) {
	var oid asn1.ObjectIdentifier
	switch hash {
	case crypto.SHA256:
		oid = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	case crypto.SHA384:
		oid = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}
	case crypto.SHA512:
		oid = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}
	default:
		return nil, fault.Newf(fault.Invalid, "prepare digest", "hash %v is none of SHA-256, SHA-384, SHA-512", hash)
	}
	if len(digest) != hash.Size() {
		return nil, fault.Newf(fault.Invalid, "prepare digest", "%d octets are no %v digest", len(digest), hash)
	}
	type algorithm struct {
		OID  asn1.ObjectIdentifier
		Null asn1.RawValue
	}
	der, err := asn1.Marshal(struct {
		Algorithm algorithm
		Digest    []byte
	}{algorithm{oid, asn1.NullRawValue}, digest})
	if err != nil {
		return nil, fault.New(fault.Internal, "prepare digest", err)
	}
	return der, nil
}
