package ceremony

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"io"
	"math/big"
	"time"

	"github.com/ThalesGroup/crypto11"

	"custode/hsm"
	"custode/internal/fault"
)

// certify makes the self-signed certificate and stores it in the token under the
// key's label and CKA_ID.
func (r *run) certify(c *crypto11.Context, signer crypto.Signer, public *rsa.PublicKey, random io.Reader, k *KeyReport) error {
	cert, err := r.makeCertificate(signer, public, random, k)
	if err != nil {
		return err
	}
	set, err := crypto11.NewAttributeSetWithIDAndLabel(k.ID, []byte(k.Label.String()))
	if err == nil {
		err = c.ImportCertificateWithAttributes(set, cert)
	}
	if err != nil {
		return fault.New(fault.Fatal, "store certificate "+k.Label.String(), err)
	}
	return nil
}

// makeCertificate makes the self-signed certificate, and reads it back as a
// stranger would.
func (r *run) makeCertificate(signer crypto.Signer, public *rsa.PublicKey, random io.Reader, k *KeyReport) (*x509.Certificate, error) {
	op := "make certificate " + k.Label.String()
	template, err := r.template(random, k)
	if err != nil {
		return nil, fault.New(fault.Fatal, op, err)
	}
	der, err := x509.CreateCertificate(random, template, template, public, signer)
	if err != nil {
		return nil, fault.New(fault.Fatal, op, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fault.New(fault.Fatal, op, err)
	}
	if err := r.checkCertificate(cert, template, public); err != nil {
		return nil, err
	}
	k.passed("the certificate was parsed again, and its signature verified with its own public key")
	k.CertificateDER = der
	return cert, nil
}

func (r *run) template(random io.Reader, k *KeyReport) (*x509.Certificate, error) {
	plan := k.Certificate
	subject, err := subjectDER(plan)
	if err != nil {
		return nil, err
	}
	// 127 random bits: positive, and more than the 64 that are good custom.
	serial := make([]byte, 16)
	if _, err := io.ReadFull(random, serial); err != nil {
		return nil, err
	}
	serial[0] = serial[0]&0x7f | 0x40
	usage := x509.KeyUsageDigitalSignature
	if plan.NonRepudiation {
		usage |= x509.KeyUsageContentCommitment
	}
	return &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial),
		RawSubject:   subject,
		NotBefore:    r.now,
		// The last second of the last day, since notAfter is included (RFC 5280, 4.1.2.5).
		NotAfter:              r.now.Add(plan.Validity - time.Second),
		KeyUsage:              usage,
		BasicConstraintsValid: true,
		SubjectKeyId:          k.ID,
		SignatureAlgorithm:    x509.SHA256WithRSA,
	}, nil
}

// subjectDER builds the distinguished name by hand: crypto/x509/pkix would choose
// a string type by content, and a C that is not PrintableString, or a uri that
// sometimes is, gives trouble elsewhere (RFC 5280, appendix A.1).
func subjectDER(p *hsm.PlannedCertificate) ([]byte, error) {
	var name pkix.RDNSequence
	add := func(oid asn1.ObjectIdentifier, tag int, value string) {
		name = append(name, pkix.RelativeDistinguishedNameSET{{Type: oid, Value: asn1.RawValue{Tag: tag, Bytes: []byte(value)}}})
	}
	add(asn1.ObjectIdentifier{2, 5, 4, 6}, asn1.TagPrintableString, p.Country)
	add(asn1.ObjectIdentifier{2, 5, 4, 7}, asn1.TagUTF8String, p.Locality)
	add(asn1.ObjectIdentifier{2, 5, 4, 10}, asn1.TagUTF8String, p.Organization)
	add(asn1.ObjectIdentifier{2, 5, 4, 97}, asn1.TagUTF8String, p.OrganizationID)
	add(asn1.ObjectIdentifier{2, 5, 4, 83}, asn1.TagUTF8String, p.URI.String())
	add(asn1.ObjectIdentifier{2, 5, 4, 3}, asn1.TagUTF8String, p.CommonName)
	return asn1.Marshal(name)
}

// checkCertificate compares what came out with what was planned.
func (r *run) checkCertificate(cert, want *x509.Certificate, public *rsa.PublicKey) error {
	bad := func(what string) error {
		return fault.Newf(fault.Fatal, "check the new certificate", "%s is not as planned", what)
	}
	switch {
	case !public.Equal(cert.PublicKey):
		return bad("the public key")
	case !bytes.Equal(cert.RawSubject, want.RawSubject) || !bytes.Equal(cert.RawIssuer, want.RawSubject):
		return bad("subject or issuer")
	case cert.SerialNumber.Cmp(want.SerialNumber) != 0:
		return bad("the serial number")
	case !cert.NotBefore.Equal(want.NotBefore) || !cert.NotAfter.Equal(want.NotAfter):
		return bad("the validity")
	case cert.KeyUsage != want.KeyUsage || cert.IsCA || !bytes.Equal(cert.SubjectKeyId, want.SubjectKeyId):
		return bad("an extension")
	case cert.SignatureAlgorithm != x509.SHA256WithRSA:
		return bad("the signature algorithm")
	}
	if err := cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
		return fault.Newf(fault.Fatal, "check the new certificate", "its signature is wrong: %w", err)
	}
	return nil
}
