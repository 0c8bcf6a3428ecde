package config

import (
	"crypto/x509"
	"encoding/pem"

	"custode/internal/fault"
)

// maxCertificates bounds a file of certificates, in octets.
const maxCertificates = 1 << 20

// Certificates returns the certificates of a PEM file, none for no file. A
// file without any is fault.Fatal: it must not mean "trust everybody".
func Certificates(path string) ([]*x509.Certificate, error) {
	if path == "" {
		return nil, nil
	}
	op := "read certificates " + path
	data, err := readBounded(path, maxCertificates)
	if err != nil {
		return nil, fault.New(fault.Fatal, op, err)
	}
	var certs []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fault.New(fault.Fatal, op, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, fault.Newf(fault.Fatal, op, "no certificate in it")
	}
	return certs, nil
}
