package seed

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"io"
	"strconv"

	"custode/internal/fault"
)

const (
	escrowPurpose = "custode otp escrow 1"
	escrowVersion = 1
	// RecoveryKeyIDLen is the length of a recovery key's identifier in octets.
	RecoveryKeyIDLen = 20
	minRecoveryBits  = 3072 // it waits for years
)

// CheckRecovery returns fault.Invalid for a certificate that copies of seeds are not encrypted to:
// its key is not RSA of 3072 bits at least, or is said to be for something else than
// encipherment. Who issued it and until when it is valid are not looked at: it is a
// name for a key in a safe.
func CheckRecovery(to *x509.Certificate) error {
	const op = "check recovery certificate"
	key, ok := to.PublicKey.(*rsa.PublicKey)
	switch {
	case !ok || key.N.BitLen() < minRecoveryBits:
		return fault.Newf(fault.Invalid, op, "its key is not RSA of %d bits at least", minRecoveryBits)
	case to.KeyUsage != 0 && to.KeyUsage&(x509.KeyUsageKeyEncipherment|x509.KeyUsageDataEncipherment) == 0:
		return fault.Newf(fault.Invalid, op, "its key is not for encipherment")
	}
	return nil
}

// RecoveryKeyID returns the identifier that the escrow copies for a certificate carry: the first
// octets of the SHA-256 of its SubjectPublicKeyInfo.
func RecoveryKeyID(to *x509.Certificate) [RecoveryKeyIDLen]byte {
	sum := sha256.Sum256(to.RawSubjectPublicKeyInfo)
	return [RecoveryKeyIDLen]byte(sum[:])
}

// label is the OAEP label: purpose, serial number, kind, hash, digits and period in seconds,
// each preceded by its length in 4 octets, big endian. It names the device and not its
// subject: a device changes hands, and its copy, made once, must open all the same.
func (b Binding) label() ([]byte, error) {
	if err := b.Parameters.Check(); err != nil {
		return nil, err
	}
	if b.Serial.IsZero() {
		return nil, fault.Newf(fault.Invalid, "name escrow copy", "no serial number")
	}
	p := b.Parameters
	var out []byte
	for _, field := range []string{
		escrowPurpose, b.Serial.String(), p.Kind.String(), p.Hash.String(), strconv.Itoa(p.Digits), strconv.Itoa(int(p.Period.Seconds())),
	} {
		out = binary.BigEndian.AppendUint32(out, uint32(len(field)))
		out = append(out, field...)
	}
	return out, nil
}

// Escrow returns a copy of the padded secret that only the off-line recovery key can open
// (RSA-OAEP with SHA-256): version 1, RecoveryKeyID, ciphertext. It is made at enrolment and
// before Seal, which clears secret; secret itself is left as it is. The subject of b is not
// looked at. fault.Invalid for what CheckRecovery, Pad or the parameters refuse.
func Escrow(random io.Reader, to *x509.Certificate, b Binding, secret []byte) ([]byte, error) {
	const op = "make escrow copy"
	if err := CheckRecovery(to); err != nil {
		return nil, err
	}
	label, err := b.label()
	if err != nil {
		return nil, err
	}
	padded, err := Pad(secret, b.Parameters.Hash)
	if err != nil {
		return nil, err
	}
	defer clear(padded)
	sealed, err := rsa.EncryptOAEP(sha256.New(), random, to.PublicKey.(*rsa.PublicKey), padded, label)
	if err != nil {
		return nil, fault.New(fault.Internal, op, err)
	}
	id := RecoveryKeyID(to)
	return append(append([]byte{escrowVersion}, id[:]...), sealed...), nil
}

// OpenEscrow is the recovery ceremony's: it returns the padded secret, which Seal takes again
// under the new key and which the caller clears. key is the recovery key, in
// software or in a token of its own, and to its certificate. fault.Invalid for octets that are no
// escrow copy, fault.Conflict for one made to another key, fault.Denied for one that does not
// open: damaged, or another device's.
func OpenEscrow(key crypto.Decrypter, to *x509.Certificate, b Binding, escrow []byte) ([]byte, error) {
	const op = "open escrow copy"
	head := 1 + RecoveryKeyIDLen
	if len(escrow) < head+minRecoveryBits/8 || len(escrow) > head+1024 || escrow[0] != escrowVersion {
		return nil, fault.Newf(fault.Invalid, op, "%d octets are none", len(escrow))
	}
	id := RecoveryKeyID(to)
	if !bytes.Equal(escrow[1:head], id[:]) {
		return nil, fault.Newf(fault.Conflict, op, "it was made to key %x, this is key %x", escrow[1:head], id)
	}
	label, err := b.label()
	if err != nil {
		return nil, err
	}
	padded, err := key.Decrypt(nil, escrow[head:], &rsa.OAEPOptions{Hash: crypto.SHA256, Label: label})
	if err != nil || len(padded) != b.Parameters.Hash.Block() {
		clear(padded)
		return nil, fault.Newf(fault.Denied, op, "device %s: it does not open", b.Serial)
	}
	return padded, nil
}
