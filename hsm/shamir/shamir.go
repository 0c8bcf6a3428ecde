// Package shamir divides a secret among n holders so that any m of them can put it
// together again and m-1 of them know nothing (A. Shamir, "How to share a secret",
// CACM 22, 1979), octet by octet over GF(2^8) with the polynomial of AES. The field
// arithmetic has no table and no branch on secret values.
//
// It says nothing of whether the shares were right: too few or altered ones give
// another secret, not an error. Package custody adds what tells. Pure: randomness
// is a parameter.
package shamir

import (
	"io"

	"custode/internal/fault"
)

// MaxShares is how many shares a secret can have.
const MaxShares = 255

// Share is one holder's part: the polynomials' values at X.
type Share struct {
	X byte // 1 to MaxShares
	Y []byte
}

// Split makes n shares of secret, any m of which give it back: 2 <= m <= n <=
// MaxShares, and a secret of at least one octet. fault.Invalid; the errors of random.
func Split(secret []byte, n, m int, random io.Reader) ([]Share, error) {
	if m < 2 || m > n || n > MaxShares || len(secret) == 0 {
		return nil, fault.Newf(fault.Invalid, "split a secret", "%d of %d shares of %d octets", m, n, len(secret))
	}
	shares := make([]Share, n)
	for i := range shares {
		shares[i] = Share{X: byte(i + 1), Y: make([]byte, len(secret))}
	}
	coefficients := make([]byte, m)
	defer clear(coefficients)
	for i, octet := range secret {
		coefficients[0] = octet
		if _, err := io.ReadFull(random, coefficients[1:]); err != nil {
			return nil, fault.New(fault.Unavailable, "split a secret", err)
		}
		for _, s := range shares {
			var y byte
			for k := m - 1; k >= 0; k-- { // Horner
				y = mul(y, s.X) ^ coefficients[k]
			}
			s.Y[i] = y
		}
	}
	return shares, nil
}

// Combine returns the secret of shares, which must be distinct and equally long:
// else fault.Invalid. The caller clears the result.
func Combine(shares []Share) ([]byte, error) {
	const op = "combine shares"
	if len(shares) < 2 {
		return nil, fault.Newf(fault.Invalid, op, "%d shares are too few", len(shares))
	}
	var seen [256]bool
	for _, s := range shares {
		if s.X == 0 || seen[s.X] || len(s.Y) == 0 || len(s.Y) != len(shares[0].Y) {
			return nil, fault.Newf(fault.Invalid, op, "share %d is given twice, or does not belong to the others", s.X)
		}
		seen[s.X] = true
	}
	secret := make([]byte, len(shares[0].Y))
	for i, s := range shares {
		weight := byte(1) // of s in Lagrange's interpolation at 0
		for j, other := range shares {
			if j != i {
				weight = mul(weight, mul(other.X, inverse(other.X^s.X)))
			}
		}
		for k, y := range s.Y {
			secret[k] ^= mul(y, weight)
		}
	}
	return secret, nil
}

// mul multiplies in GF(2^8) modulo x^8+x^4+x^3+x+1.
func mul(a, b byte) byte {
	var p byte
	for range 8 {
		p ^= a & -(b & 1)
		a = a<<1 ^ 0x1b&-(a>>7)
		b >>= 1
	}
	return p
}

// inverse is a^254; of 0 it is 0.
func inverse(a byte) byte {
	r := byte(1)
	for range 7 { // 254 = 2+4+...+128
		a = mul(a, a)
		r = mul(r, a)
	}
	return r
}
