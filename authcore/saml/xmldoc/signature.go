package xmldoc

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/beevik/etree"
	dsig "github.com/russellhaering/goxmldsig"
)

// The only algorithms of XML signatures that SPID documents may use. SHA-1,
// HMAC (forgeable with a public key taken for a secret), ECDSA, inclusive and
// commented canonicalisation, XSLT and XPath are not among them.
const (
	AlgExcC14N   = "http://www.w3.org/2001/10/xml-exc-c14n#"
	AlgEnveloped = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
	AlgRSASHA256 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
	AlgRSASHA384 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha384"
	AlgRSASHA512 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha512"
	AlgSHA256    = "http://www.w3.org/2001/04/xmlenc#sha256"
	AlgSHA384    = "http://www.w3.org/2001/04/xmldsig-more#sha384"
	AlgSHA512    = "http://www.w3.org/2001/04/xmlenc#sha512"
)

// minRSABits is the smallest RSA modulus the technical rules allow.
const minRSABits = 2048

// SignatureHash returns the hash of an allowed RSA signature algorithm.
func SignatureHash(algorithm string) (crypto.Hash, error) {
	switch algorithm {
	case AlgRSASHA256:
		return crypto.SHA256, nil
	case AlgRSASHA384:
		return crypto.SHA384, nil
	case AlgRSASHA512:
		return crypto.SHA512, nil
	}
	return 0, errors.New("signature algorithm not allowed")
}

func digestAllowed(algorithm string) bool {
	return algorithm == AlgSHA256 || algorithm == AlgSHA384 || algorithm == AlgSHA512
}

// RSAKey returns the certificate's key when it may verify SPID signatures.
func RSAKey(cert *x509.Certificate) (*rsa.PublicKey, error) {
	key, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok {
		return nil, errors.New("certificate key is not RSA")
	}
	if key.N.BitLen() < minRSABits {
		return nil, fmt.Errorf("certificate key of %d bits is too short", key.N.BitLen())
	}
	return key, nil
}

// Usable checks that the certificate may verify a signature at now.
func Usable(cert *x509.Certificate, now time.Time) error {
	if now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
		return errors.New("certificate expired or not yet valid")
	}
	_, err := RSAKey(cert)
	return err
}

// AnyCertificate runs try with each usable certificate until one succeeds. The
// error is the last one, so that logs tell an expired certificate from a
// signature that does not match.
func AnyCertificate(certs []*x509.Certificate, now time.Time, try func(*x509.Certificate) error) error {
	last := errors.New("no certificate")
	for _, cert := range certs {
		if last = Usable(cert, now); last != nil {
			continue
		}
		if last = try(cert); last == nil {
			return nil
		}
	}
	return last
}

// VerifyEnveloped checks the enveloped signature that must stand at child
// position among root's elements, and be the only one in the document, against
// certs. It returns the element rebuilt from the octets the signature covers:
// values are read from there and nowhere else. The certificate inside the
// message only decides which of certs is tried first.
//
// It takes KeyInfo out of root's signature.
func VerifyEnveloped(root *etree.Element, position int, certs []*x509.Certificate, now time.Time) (*etree.Element, error) {
	if n := CountSignatures(root); n != 1 {
		return nil, fmt.Errorf("%d signatures instead of one", n)
	}
	children := root.ChildElements()
	if len(children) <= position || !Is(children[position], NSSignature, "Signature") {
		return nil, errors.New("signature not in its place")
	}
	sig := children[position]
	if err := CheckShape(root, sig); err != nil {
		return nil, err
	}
	certs = preferHinted(certs, detachKeyInfo(sig))
	var verified *etree.Element
	err := AnyCertificate(certs, now, func(cert *x509.Certificate) error {
		el, err := Validate(root, cert, now)
		if err != nil {
			return err
		}
		verified = el
		return nil
	})
	if err != nil {
		return nil, err
	}
	return verified, nil
}

// Validate runs the signature library with one trusted certificate.
func Validate(root *etree.Element, cert *x509.Certificate, now time.Time) (*etree.Element, error) {
	ctx := dsig.NewDefaultValidationContext(&dsig.MemoryX509CertificateStore{Roots: []*x509.Certificate{cert}})
	ctx.Clock = dsig.NewFakeClockAt(now)
	el, err := ctx.Validate(root)
	if err != nil {
		return nil, fmt.Errorf("validate signature: %w", err)
	}
	if el == nil {
		return nil, errors.New("validate signature: no element")
	}
	return el, nil
}

func CountSignatures(el *etree.Element) int {
	n := 0
	if Is(el, NSSignature, "Signature") {
		n++
	}
	for _, c := range el.ChildElements() {
		n += CountSignatures(c)
	}
	return n
}

// CheckShape admits exactly the shape SAML Core 5.4 allows: SignedInfo,
// SignatureValue, at most one KeyInfo; one Reference to the root; the two
// transforms in their order. The library would take more.
func CheckShape(root, sig *etree.Element) error {
	parts := sig.ChildElements()
	if len(parts) == 3 && Is(parts[2], NSSignature, "KeyInfo") {
		parts = parts[:2]
	}
	if err := expectChildren(parts, "SignedInfo", "SignatureValue"); err != nil {
		return err
	}
	if err := plainAttributes(parts[0]); err != nil {
		return err
	}
	info := parts[0].ChildElements()
	if err := expectChildren(info, "CanonicalizationMethod", "SignatureMethod", "Reference"); err != nil {
		return err
	}
	if alg, _ := Attribute(info[0], "Algorithm"); alg != AlgExcC14N || len(info[0].ChildElements()) > 0 {
		return errors.New("canonicalisation not allowed")
	}
	alg, _ := Attribute(info[1], "Algorithm")
	if _, err := SignatureHash(alg); err != nil {
		return err
	}
	if len(info[1].ChildElements()) > 0 {
		return errors.New("signature algorithm with parameters")
	}
	return checkReference(root, info[2])
}

func checkReference(root, ref *etree.Element) error {
	id, _ := Attribute(root, "ID")
	uri, ok := Attribute(ref, "URI")
	// The empty URI means the whole document. It is accepted only where there
	// is no identifier to name, so that anomaly 11 stays reachable by POST.
	if !ok || (uri != "#"+id && (uri != "" || IsNCName(id))) || uri == "#" {
		return errors.New("reference is not to the root")
	}
	parts := ref.ChildElements()
	if err := expectChildren(parts, "Transforms", "DigestMethod", "DigestValue"); err != nil {
		return err
	}
	if alg, _ := Attribute(parts[1], "Algorithm"); !digestAllowed(alg) {
		return errors.New("digest algorithm not allowed")
	}
	transforms := parts[0].ChildElements()
	if err := expectChildren(transforms, "Transform", "Transform"); err != nil {
		return err
	}
	for i, want := range []string{AlgEnveloped, AlgExcC14N} {
		if alg, _ := Attribute(transforms[i], "Algorithm"); alg != want {
			return errors.New("transform not allowed")
		}
	}
	if len(transforms[0].ChildElements()) > 0 {
		return errors.New("transform with parameters")
	}
	for i, c := range transforms[1].ChildElements() {
		if i > 0 || !Is(c, AlgExcC14N, "InclusiveNamespaces") {
			return errors.New("transform with parameters")
		}
	}
	return nil
}

// plainAttributes refuses attributes in a namespace: the library takes x:URI
// for URI.
func plainAttributes(el *etree.Element) error {
	for _, a := range el.Attr {
		if a.Space != "" && a.Space != "xmlns" {
			return errors.New("signature with an attribute in a namespace")
		}
	}
	for _, c := range el.ChildElements() {
		if err := plainAttributes(c); err != nil {
			return err
		}
	}
	return nil
}

func expectChildren(els []*etree.Element, names ...string) error {
	if len(els) != len(names) {
		return errors.New("signature of another shape")
	}
	for i, name := range names {
		if !Is(els[i], NSSignature, name) {
			return fmt.Errorf("signature without %s in its place", name)
		}
	}
	return nil
}

// detachKeyInfo takes KeyInfo out of the signature and returns the certificate
// it carried, nil for none. It also strips white space from SignatureValue,
// which the library does not tolerate. Neither is covered by the signature.
func detachKeyInfo(sig *etree.Element) []byte {
	var hint []byte
	for _, part := range sig.ChildElements() {
		switch part.Tag {
		case "SignatureValue":
			if text, err := TextOf(part); err == nil {
				part.SetText(Strip(text))
			}
		case "KeyInfo":
			if c := part.FindElement("./X509Data/X509Certificate"); c != nil {
				hint, _ = base64.StdEncoding.DecodeString(Strip(c.Text()))
			}
			sig.RemoveChild(part)
		}
	}
	return hint
}

// preferHinted moves the certificate the message claims to the front, to save
// canonicalising once per certificate during a roll-over.
func preferHinted(certs []*x509.Certificate, hint []byte) []*x509.Certificate {
	for i, cert := range certs {
		if i > 0 && hint != nil && bytes.Equal(cert.Raw, hint) {
			return slices.Concat(certs[i:i+1], certs[:i], certs[i+1:])
		}
	}
	return certs
}
