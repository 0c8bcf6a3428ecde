package conformance

import (
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"time"

	"custode/internal/conformance/request"
	"custode/internal/fault"
)

// newStranger makes a key that is in nobody's metadata; the certificate claims
// the auditor's name.
func newStranger(random io.Reader, name string) (request.KeyPair, error) {
	const op = "make a stranger's key"
	key, err := rsa.GenerateKey(random, 2048)
	if err != nil {
		return request.KeyPair{}, fault.New(fault.Unavailable, op, err)
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Unix(1_700_000_000, 0), NotAfter: time.Unix(4_000_000_000, 0)}
	der, err := x509.CreateCertificate(random, t, t, key.Public(), key)
	if err != nil {
		return request.KeyPair{}, fault.New(fault.Internal, op, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return request.KeyPair{}, fault.New(fault.Internal, op, err)
	}
	return request.KeyPair{Key: key, Certificate: cert}, nil
}
