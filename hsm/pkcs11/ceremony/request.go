package ceremony

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"math/big"
	"time"

	p11 "github.com/miekg/pkcs11"

	"custode/hsm"
	"custode/hsm/pkcs11"
	"custode/internal/fault"
	"custode/internal/id"
)

// Request makes a certificate signing request (PKCS #10, RFC 2986) for the sign
// key called label, in DER: its subject and key usage are those of the certificate
// that is in the token beside the key. The key proves its possession by signing it.
func Request(ctx context.Context, a Access, label id.KeyLabel) (der []byte, err error) {
	op := "make certificate request " + label.String()
	err = a.look(ctx, func(t *pkcs11.Token) error {
		signer, err := t.Signer(label)
		if err != nil {
			return err
		}
		cert, err := t.Certificate(label)
		if err != nil {
			return err
		}
		usage, err := keyUsage(cert.KeyUsage)
		if err != nil {
			return fault.New(fault.Internal, op, err)
		}
		der, err = x509.CreateCertificateRequest(t.Random(), &x509.CertificateRequest{
			RawSubject: cert.RawSubject, SignatureAlgorithm: x509.SHA256WithRSA, ExtraExtensions: []pkix.Extension{usage},
		}, signer)
		if err != nil {
			return fault.New(fault.Fatal, op, err)
		}
		csr, err := x509.ParseCertificateRequest(der)
		if err != nil {
			return fault.New(fault.Fatal, op, err)
		}
		return csr.CheckSignature()
	})
	return der, err
}

// keyUsage encodes the two bits that a certificate of ours may have (RFC 5280,
// section 4.2.1.3).
func keyUsage(u x509.KeyUsage) (pkix.Extension, error) {
	bits := asn1.BitString{Bytes: []byte{0x80}, BitLength: 1}
	if u&x509.KeyUsageContentCommitment != 0 {
		bits = asn1.BitString{Bytes: []byte{0xc0}, BitLength: 2}
	}
	value, err := asn1.Marshal(bits)
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: value}, err
}

// Import stores chain[0], the certificate that an authority issued for the sign
// key called label, beside the key. chain[1:] are its intermediates, roots whom
// the operators trust. The certificate that was there keeps its place in the token
// under another label, which is returned. fault.Invalid when the certificate is
// not for the key, or the chain does not lead to a root.
func Import(ctx context.Context, a Access, label id.KeyLabel, chain []*x509.Certificate, roots *x509.CertPool, now time.Time) (former string, err error) {
	op := "import certificate " + label.String()
	loc, err := pkcs11.ParseLocation(a.URI)
	if err != nil {
		return "", err
	}
	if len(chain) == 0 {
		return "", fault.Newf(fault.Invalid, op, "no certificate")
	}
	var info pkcs11.Info
	var before *x509.Certificate
	if err := a.look(ctx, func(t *pkcs11.Token) (err error) {
		info = t.Info()
		before, err = t.Certificate(label)
		return err
	}); err != nil {
		return "", err
	}
	if err := checkIssued(op, chain, before, roots, now); err != nil {
		return "", err
	}
	former = label.String() + ".was-" + hex.EncodeToString(fingerprint(before)[:4])
	if err := atDesk(loc, info, op, func(d desk) error { return d.replaceCertificate(op, label, former, chain[0]) }); err != nil {
		return "", err
	}
	return former, a.look(ctx, func(t *pkcs11.Token) error {
		cert, err := t.Certificate(label)
		if err == nil && !cert.Equal(chain[0]) {
			err = fault.Newf(fault.Fatal, op, "the token returns another certificate than was stored")
		}
		return err
	})
}

func fingerprint(c *x509.Certificate) []byte {
	sum := sha256.Sum256(c.Raw)
	return sum[:]
}

func checkIssued(op string, chain []*x509.Certificate, before *x509.Certificate, roots *x509.CertPool, now time.Time) error {
	cert := chain[0]
	key, ok := before.PublicKey.(*rsa.PublicKey)
	switch {
	case !ok || !key.Equal(cert.PublicKey):
		return fault.Newf(fault.Invalid, op, "it is for another key")
	case cert.Equal(before):
		return fault.Newf(fault.Conflict, op, "the token holds it already")
	case cert.IsCA || cert.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return fault.Newf(fault.Invalid, op, "it is an authority's, or lacks digitalSignature")
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return fault.New(fault.Invalid, op, err)
	}
	return nil
}

// replaceCertificate gives the present certificate another label and stores cert
// under the key's. Two under one label would both be refused by the pool.
func (d desk) replaceCertificate(op string, label id.KeyLabel, former string, cert *x509.Certificate) error {
	failed := func(err error) error { return fault.New(fault.Fatal, op, err) }
	key, err := d.only(p11.CKO_PRIVATE_KEY, label.String())
	if err != nil {
		return err
	}
	keyID, err := d.value(key, p11.CKA_ID)
	if err != nil {
		return failed(err)
	}
	want, err := hsm.KeyID(cert.PublicKey)
	if err != nil || string(want) != string(keyID) {
		return fault.Newf(fault.Fatal, op, "CKA_ID of the key is not derived from the certificate's: %v", err)
	}
	old, err := d.only(p11.CKO_CERTIFICATE, label.String())
	if err != nil {
		return err
	}
	if err := d.set(old, p11.CKA_LABEL, former); err != nil {
		return failed(err)
	}
	if err := d.storeCertificate(label.String(), keyID, cert); err != nil {
		if back := d.set(old, p11.CKA_LABEL, label.String()); back != nil {
			return fault.Newf(fault.Fatal, op, "%w; and the former certificate stays under the label %s: %w", err, former, back)
		}
		return failed(err)
	}
	return nil
}

func (d desk) storeCertificate(label string, keyID []byte, cert *x509.Certificate) error {
	serial, err := asn1.Marshal(new(big.Int).Set(cert.SerialNumber))
	if err != nil {
		return err
	}
	_, err = d.mod.CreateObject(d.s, []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_CERTIFICATE), p11.NewAttribute(p11.CKA_CERTIFICATE_TYPE, p11.CKC_X_509),
		p11.NewAttribute(p11.CKA_TOKEN, true), p11.NewAttribute(p11.CKA_PRIVATE, false),
		p11.NewAttribute(p11.CKA_LABEL, label), p11.NewAttribute(p11.CKA_ID, keyID),
		p11.NewAttribute(p11.CKA_SUBJECT, cert.RawSubject), p11.NewAttribute(p11.CKA_ISSUER, cert.RawIssuer),
		p11.NewAttribute(p11.CKA_SERIAL_NUMBER, serial), p11.NewAttribute(p11.CKA_VALUE, cert.Raw),
	})
	return err
}
