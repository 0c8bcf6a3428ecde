// Package cades makes and opens the seals of the certified log: CMS signatures
// (RFC 5652) in the CAdES baseline forms B-B and B-T (ETSI EN 319 122-1), with
// the payload inside. The signed attributes are content-type, message-digest,
// signing-time and signing-certificate-v2 (RFC 5035); a time-stamp token
// (RFC 3161) over the signature value is an unsigned attribute.
//
// Who may have sealed is said by pinning: Open accepts a signature by exactly
// one of the certificates it is given. There is no path building and no
// revocation, because the seal's certificate is the ceremony's and the date at
// which it was used is the time-stamp's to prove.
//
// internal/certlog, cmd and tests may import it.
package cades

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	oid "encoding/asn1"
	"fmt"
	"io"
	"time"

	"github.com/smallstep/pkcs7"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"custode/internal/certlog/der"
	"custode/internal/fault"
)

// MaxSealed is the length of the longest seal that Open and Attach read, in octets.
const MaxSealed = 128 << 10

var (
	oidSigningCertificateV2 = oid.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 47}
	oidTimeStampToken       = oid.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 14}
	oidSignedData           = oid.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
)

// RFC 5035, section 3. The hash algorithm is absent: SHA-256 is the default.
type signingCertificateV2 struct {
	Certs []essCertIDv2
}

type essCertIDv2 struct {
	Hash []byte
}

// Sign returns an enveloping CAdES-B-B signature over payload by key (RSA), whose
// certificate is cert. chain holds the issuers of cert, if any. A crypto.MessageSigner is
// given the signed attributes (the DER of their SET), any other key their SHA-256.
func Sign(payload []byte, key crypto.Signer, cert *x509.Certificate, chain ...*x509.Certificate) ([]byte, error) {
	return sign(payload, false, key, cert, chain)
}

// SignDetached is Sign without the payload inside: a signature to stand beside a file.
func SignDetached(payload []byte, key crypto.Signer, cert *x509.Certificate, chain ...*x509.Certificate) ([]byte, error) {
	return sign(payload, true, key, cert, chain)
}

func sign(payload []byte, detached bool, key crypto.Signer, cert *x509.Certificate, chain []*x509.Certificate) ([]byte, error) {
	const op = "sign CMS"
	sd, err := pkcs7.NewSignedData(payload)
	if err != nil {
		return nil, fault.New(fault.Internal, op, err)
	}
	sd.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	sum := sha256.Sum256(cert.Raw)
	ess := pkcs7.Attribute{Type: oidSigningCertificateV2, Value: signingCertificateV2{Certs: []essCertIDv2{{Hash: sum[:]}}}}
	// The library would give the key a digest. A key that judges what it signs wants the
	// octets, so the library signs nothing and the signature is put in afterwards.
	if err := sd.AddSignerChain(cert, blank{key.Public()}, chain, pkcs7.SignerInfoConfig{ExtraSignedAttributes: []pkcs7.Attribute{ess}}); err != nil {
		return nil, fault.New(fault.KindOf(err), op, err)
	}
	info := &sd.GetSignedData().SignerInfos[0]
	signed, err := oid.MarshalWithParams(info.AuthenticatedAttributes, "set")
	if err != nil {
		return nil, fault.New(fault.Internal, op, err)
	}
	if info.EncryptedDigest, err = crypto.SignMessage(key, nil, signed, crypto.SHA256); err != nil {
		return nil, fault.New(fault.KindOf(err), op, err)
	}
	if detached {
		sd.Detach()
	}
	out, err := sd.Finish()
	if err != nil {
		return nil, fault.New(fault.Internal, op, err)
	}
	return out, nil
}

// blank has the library put everything together but the signature.
type blank struct{ public crypto.PublicKey }

func (b blank) Public() crypto.PublicKey { return b.public }

func (blank) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return nil, nil }

// Seal is an opened seal.
type Seal struct {
	Payload     []byte
	Certificate *x509.Certificate // the pinned one that signed
	SignedAt    time.Time         // as the signer says
	Signature   []byte            // what a time-stamp is over
	Token       []byte            // the time-stamp token; nil: none yet
}

// Open verifies the signature and who made it. It does not judge the token.
// Every failure is fault.Invalid.
func Open(sealed []byte, pinned ...*x509.Certificate) (Seal, error) {
	return opened(open(sealed, nil, pinned))
}

// OpenDetached is Open for what SignDetached made over the content.
func OpenDetached(sealed, content []byte, pinned ...*x509.Certificate) (Seal, error) {
	if len(content) == 0 {
		return opened(Seal{}, fmt.Errorf("no content"))
	}
	return opened(open(sealed, content, pinned))
}

func opened(s Seal, err error) (Seal, error) {
	if err != nil {
		return Seal{}, fault.New(fault.Invalid, "open CMS", err)
	}
	return s, nil
}

// open takes content for a signature without; nil when it must be inside.
func open(sealed, content []byte, pinned []*x509.Certificate) (Seal, error) {
	if len(sealed) > MaxSealed {
		return Seal{}, fmt.Errorf("longer than %d octets", MaxSealed)
	}
	if err := der.Check(sealed); err != nil {
		return Seal{}, err
	}
	p7, err := pkcs7.Parse(sealed)
	if err != nil {
		return Seal{}, err
	}
	if content != nil {
		if len(p7.Content) > 0 {
			return Seal{}, fmt.Errorf("it has a content of its own")
		}
		p7.Content = content
	}
	cert := p7.GetOnlySigner()
	if cert == nil {
		return Seal{}, fmt.Errorf("not one signer, or without a certificate")
	}
	s := Seal{Payload: p7.Content, Signature: p7.Signers[0].EncryptedDigest}
	for _, p := range pinned {
		if bytes.Equal(p.Raw, cert.Raw) {
			s.Certificate = p
		}
	}
	if s.Certificate == nil {
		return Seal{}, fmt.Errorf("signed by %q (serial %s), which is not a trusted seal", cert.Subject.CommonName, cert.SerialNumber)
	}
	if err := p7.Verify(); err != nil {
		return Seal{}, err
	}
	var ess signingCertificateV2
	if err := p7.UnmarshalSignedAttribute(oidSigningCertificateV2, &ess); err != nil {
		return Seal{}, fmt.Errorf("signing-certificate-v2: %w", err)
	}
	sum := sha256.Sum256(cert.Raw)
	if len(ess.Certs) == 0 || !bytes.Equal(ess.Certs[0].Hash, sum[:]) {
		return Seal{}, fmt.Errorf("signing-certificate-v2 names another certificate")
	}
	if err := p7.UnmarshalSignedAttribute(pkcs7.OIDAttributeSigningTime, &s.SignedAt); err != nil {
		return Seal{}, fmt.Errorf("signing-time: %w", err)
	}
	for _, a := range p7.Signers[0].UnauthenticatedAttributes {
		if !a.Type.Equal(oidTimeStampToken) {
			continue
		}
		if s.Token != nil {
			return Seal{}, fmt.Errorf("two time-stamps")
		}
		s.Token = a.Value.Bytes
	}
	return s, nil
}

// Attach returns the seal with the time-stamp token as unsigned attribute
// (CAdES-B-T). A seal that has unsigned attributes already is fault.Invalid.
func Attach(sealed, token []byte) ([]byte, error) {
	out, err := attach(sealed, token)
	if err != nil {
		return nil, fault.New(fault.Invalid, "attach time-stamp", err)
	}
	return out, nil
}

var errForm = fmt.Errorf("not an enveloping CMS signature with one signer in DER")

// attach takes the structure apart down to its one SignerInfo and puts it
// together again with one more element at the SignerInfo's end.
func attach(sealed, token []byte) ([]byte, error) {
	if len(sealed) > MaxSealed || len(token) > MaxSealed {
		return nil, fmt.Errorf("longer than %d octets", MaxSealed)
	}
	in := cryptobyte.String(sealed)
	explicit := asn1.Tag(0).Constructed().ContextSpecific()
	var content, wrapped, signed, infos, info cryptobyte.String
	var kind oid.ObjectIdentifier
	if !in.ReadASN1(&content, asn1.SEQUENCE) || !in.Empty() || !content.ReadASN1ObjectIdentifier(&kind) || !kind.Equal(oidSignedData) ||
		!content.ReadASN1(&wrapped, explicit) || !content.Empty() || !wrapped.ReadASN1(&signed, asn1.SEQUENCE) || !wrapped.Empty() {
		return nil, errForm
	}
	// version, digestAlgorithms, encapContentInfo, certificates, crls: as they are.
	var before []byte
	for {
		var element cryptobyte.String
		var tag asn1.Tag
		if !signed.ReadAnyASN1Element(&element, &tag) {
			return nil, errForm
		}
		if signed.Empty() {
			if tag != asn1.SET || !element.ReadASN1(&infos, asn1.SET) {
				return nil, errForm
			}
			break
		}
		before = append(before, element...)
	}
	if !infos.ReadASN1(&info, asn1.SEQUENCE) || !infos.Empty() {
		return nil, errForm
	}
	unsigned := asn1.Tag(1).Constructed().ContextSpecific()
	for rest := info; !rest.Empty(); {
		var element cryptobyte.String
		var tag asn1.Tag
		if !rest.ReadAnyASN1Element(&element, &tag) || tag == unsigned {
			return nil, errForm
		}
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidSignedData)
		b.AddASN1(explicit, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddBytes(before)
				b.AddASN1(asn1.SET, func(b *cryptobyte.Builder) {
					b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddBytes(info)
						b.AddASN1(unsigned, func(b *cryptobyte.Builder) {
							b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
								b.AddASN1ObjectIdentifier(oidTimeStampToken)
								b.AddASN1(asn1.SET, func(b *cryptobyte.Builder) { b.AddBytes(token) })
							})
						})
					})
				})
			})
		})
	})
	return b.Bytes()
}
