package xmldoc

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"io"
	"slices"
)

// Key signs what a Writer wrote.
type Key struct {
	signer      crypto.Signer
	random      io.Reader
	certificate string // base64 of DER, for KeyInfo
}

// NewKey binds a signer of RSA with SHA-256 (PKCS #1 v1.5) to the certificate
// that KeyInfo will show. The caller has checked that they belong together.
func NewKey(signer crypto.Signer, cert *x509.Certificate, random io.Reader) Key {
	return Key{signer, random, base64.StdEncoding.EncodeToString(cert.Raw)}
}

// enveloped is what the signer is given as options beside a SignedInfo: a signer that
// judges what it signs sees the element whose digest the SignedInfo holds.
type enveloped struct{ parts [][]byte }

// HashFunc implements crypto.SignerOpts.
func (enveloped) HashFunc() crypto.Hash { return crypto.SHA256 }

// Content returns the canonical octets of the element, without its signature.
func (e enveloped) Content() []byte { return slices.Concat(e.parts...) }

// The parts of a signature that never vary.
const (
	signedInfoHead = `<ds:CanonicalizationMethod Algorithm="` + AlgExcC14N + `"></ds:CanonicalizationMethod>` +
		`<ds:SignatureMethod Algorithm="` + AlgRSASHA256 + `"></ds:SignatureMethod><ds:Reference URI="#`
	signedInfoTransforms = `"><ds:Transforms><ds:Transform Algorithm="` + AlgEnveloped + `"></ds:Transform>` +
		`<ds:Transform Algorithm="` + AlgExcC14N + `">`
	// xs is used only inside xsi:type values, where exclusive canonicalisation
	// does not see it; without this list its declaration would fall out of what
	// is signed.
	signedInfoKeepXS = `<ec:InclusiveNamespaces xmlns:ec="` + AlgExcC14N + `" PrefixList="xs"></ec:InclusiveNamespaces>`
	signedInfoDigest = `</ds:Transform></ds:Transforms><ds:DigestMethod Algorithm="` + AlgSHA256 + `"></ds:DigestMethod><ds:DigestValue>`
	signedInfoTail   = `</ds:DigestValue></ds:Reference></ds:SignedInfo>`
)

// Sign writes the enveloped signature of the element with that ID, whose
// canonical octets without the signature are the concatenation of parts. keepXS
// keeps the declaration of the prefix xs in what is signed. A crypto.MessageSigner
// is given the SignedInfo itself, with options that have a method Content() []byte.
// A failure of the signer sets Err.
func (c *Writer) Sign(key Key, elementID string, keepXS bool, parts ...[]byte) {
	if c.Err != nil {
		return
	}
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	info := Writer{B: make([]byte, 0, 1024)}
	info.Raw(signedInfoHead)
	info.Raw(elementID)
	info.Raw(signedInfoTransforms)
	if keepXS {
		info.Raw(signedInfoKeepXS)
	}
	info.Raw(signedInfoDigest)
	info.Base64(h.Sum(nil))
	info.Raw(signedInfoTail)

	// Canonicalised on its own, SignedInfo carries the declaration of ds that
	// stands on Signature in the document.
	signed := append([]byte(`<ds:SignedInfo xmlns:ds="`+NSSignature+`">`), info.B...)
	value, err := crypto.SignMessage(key.signer, key.random, signed, enveloped{parts})
	if err != nil {
		c.Err = err
		return
	}
	c.Raw(`<ds:Signature xmlns:ds="` + NSSignature + `"><ds:SignedInfo>`)
	c.B = append(c.B, info.B...)
	c.Raw(`<ds:SignatureValue>`)
	c.Base64(value)
	c.Raw(`</ds:SignatureValue><ds:KeyInfo><ds:X509Data><ds:X509Certificate>`)
	c.Raw(key.certificate)
	c.Raw(`</ds:X509Certificate></ds:X509Data></ds:KeyInfo></ds:Signature>`)
}

// Base64 writes octets in base64 without line breaks.
func (c *Writer) Base64(octets []byte) { c.B = base64.StdEncoding.AppendEncode(c.B, octets) }
