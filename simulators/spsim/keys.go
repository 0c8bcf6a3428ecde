package spsim

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	"time"
)

// ipaCode is the fictitious municipality's code in the index of public bodies.
const ipaCode = "c_z999"

// newID returns an NCName of an underscore and 128 random bits.
func newID(random io.Reader) (string, error) {
	var raw [16]byte
	if _, err := io.ReadFull(random, raw[:]); err != nil {
		return "", fmt.Errorf("draw an identifier: %w", err)
	}
	return "_" + hex.EncodeToString(raw[:]), nil
}

// makeKeyPair makes an RSA-2048 key and the self-signed certificate a public
// SP has by Avviso 29 v3: the entityID as uri (2.5.4.83), the
// organizationIdentifier (2.5.4.97) and the policy of public bodies.
func makeKeyPair(cfg Config) (*rsa.PrivateKey, []byte, error) {
	key, err := rsa.GenerateKey(cfg.Rand, 2048)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(cfg.Rand, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, nil, err
	}
	policy, err := x509.OIDFromInts([]uint64{1, 3, 76, 16, 4, 2, 1})
	if err != nil {
		return nil, nil, err
	}
	subject := pkix.Name{
		Country:      []string{"IT"},
		Locality:     []string{"Prova Alta"},
		Organization: []string{cfg.OrganizationDisplayName},
		CommonName:   cfg.OrganizationDisplayName,
		ExtraNames: []pkix.AttributeTypeAndValue{
			{Type: asn1.ObjectIdentifier{2, 5, 4, 83}, Value: cfg.EntityID},
			{Type: asn1.ObjectIdentifier{2, 5, 4, 97}, Value: "PA:IT-" + ipaCode},
		},
	}
	now := cfg.Now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               subject,
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.AddDate(2, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment,
		BasicConstraintsValid: true,
		SignatureAlgorithm:    x509.SHA256WithRSA,
		Policies:              []x509.OID{policy},
	}
	der, err := x509.CreateCertificate(cfg.Rand, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	return key, der, nil
}

// Signer returns the key that signs the SP's messages, or one of nobody's.
func (sp *SP) Signer(stranger bool) (*rsa.PrivateKey, error) {
	return sp.signingKey(Request{OtherKey: stranger})
}
