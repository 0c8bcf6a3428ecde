// Package soft is what this process computes beside the token: HMACs, with which a token's
// answers are compared in self-tests and which, where an operator chose to have OATH
// secrets decrypted, are the codes themselves; the DigestInfo of a signature; and the copy
// of a secret that outlives its caller no longer than the call inside the module does.
//
// Buffers that held a secret are cleared, which crypto/hmac does not do; what the hash
// functions leave on their stack is not within reach. No device, no clock. Only
// hsm/pkcs11 and what lies below it import it.
package soft

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"

	"custode/hsm"
)

// Block returns the length in octets of the block of an HMAC mechanism's hash.
func Block(mechanism uint32) int {
	if mechanism == hsm.MechanismSHA512 {
		return sha512.BlockSize
	}
	return sha256.BlockSize // SHA-1's too
}

// HMAC computes HMAC (RFC 2104) by a mechanism that hsm.HMACSize knows, with a secret of
// hsm.MaxSecret octets and a message of 64 at most, into out, which has its length.
func HMAC(mechanism uint32, secret, message, out []byte) {
	block := Block(mechanism)
	var buf [hsm.MaxSecret]byte
	defer clear(buf[:])
	digest := func(n int) []byte {
		switch mechanism {
		case hsm.MechanismSHA1:
			sum := sha1.Sum(buf[:n])
			return sum[:]
		case hsm.MechanismSHA256:
			sum := sha256.Sum256(buf[:n])
			return sum[:]
		default:
			sum := sha512.Sum512(buf[:n])
			return sum[:]
		}
	}
	if len(secret) > block {
		secret = digest(copy(buf[:], secret))
		defer clear(secret)
	}
	pad := func(with byte, rest []byte) int {
		for i := range block {
			buf[i] = with
			if i < len(secret) {
				buf[i] ^= secret[i]
			}
		}
		return block + copy(buf[block:], rest)
	}
	inner := digest(pad(0x36, message))
	outer := digest(pad(0x5c, inner))
	copy(out, outer)
	clear(inner)
	clear(outer)
}
