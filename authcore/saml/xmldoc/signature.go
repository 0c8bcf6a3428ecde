package xmldoc

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/beevik/etree"
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

	// algSHA384Odd is no standard's URI. Test tools and, by them, SPs write it;
	// it is read as AlgSHA384 and never written.
	algSHA384Odd = "http://www.w3.org/2001/04/xmlenc#sha384"
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

// digestHash returns the hash of an allowed digest algorithm.
func digestHash(algorithm string) (crypto.Hash, error) {
	switch algorithm {
	case AlgSHA256:
		return crypto.SHA256, nil
	case AlgSHA384, algSHA384Odd:
		return crypto.SHA384, nil
	case AlgSHA512:
		return crypto.SHA512, nil
	}
	return 0, errors.New("digest algorithm not allowed")
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
	if now.Before(cert.NotBefore) {
		return fmt.Errorf("certificate is not valid before %s", cert.NotBefore.UTC().Format(time.RFC3339))
	}
	if now.After(cert.NotAfter) {
		return fmt.Errorf("certificate expired at %s", cert.NotAfter.UTC().Format(time.RFC3339))
	}
	_, err := RSAKey(cert)
	return err
}

// AnyCertificate runs try with each usable certificate until one succeeds. The
// error holds one for each certificate, so that logs tell an expired
// certificate from a signature that does not match.
func AnyCertificate(certs []*x509.Certificate, now time.Time, try func(*x509.Certificate) error) error {
	all := make([]error, 0, len(certs)+1)
	for _, cert := range certs {
		err := Usable(cert, now)
		if err == nil {
			err = try(cert)
		}
		if err == nil {
			return nil
		}
		all = append(all, err)
	}
	if len(certs) == 0 {
		all = append(all, errors.New("no certificate"))
	}
	return errors.Join(all...)
}

// VerifyEnveloped checks the enveloped signature that must stand at child
// position among root's elements, and be the only one in the document, against
// certs. It returns the element rebuilt from the octets the signature covers:
// values are read from there and nowhere else. KeyInfo is not looked at.
func VerifyEnveloped(root *etree.Element, position int, certs []*x509.Certificate, now time.Time) (*etree.Element, error) {
	if n := CountSignatures(root); n != 1 {
		return nil, fmt.Errorf("%d signatures instead of one", n)
	}
	children := root.ChildElements()
	if len(children) <= position || !Is(children[position], NSSignature, "Signature") {
		return nil, errors.New("signature not in its place")
	}
	return verify(root, children[position], certs, now)
}

// Validate checks the one signature that is a child of el against one
// certificate and returns the element rebuilt from the octets it covers. There
// may be further signatures deeper inside.
func Validate(el *etree.Element, cert *x509.Certificate, now time.Time) (*etree.Element, error) {
	sig, err := SoleChild(el, NSSignature, "Signature")
	if err != nil {
		return nil, err
	}
	return verify(el, sig, []*x509.Certificate{cert}, now)
}

// verify first asks whether any certificate's key signed SignedInfo, which is
// small, and only then canonicalises what it refers to.
func verify(el, sig *etree.Element, certs []*x509.Certificate, now time.Time) (*etree.Element, error) {
	s, err := ReadSignature(el, sig)
	if err != nil {
		return nil, err
	}
	if err := AnyCertificate(certs, now, s.By); err != nil {
		return nil, fmt.Errorf("validate signature: %w", err)
	}
	octets, err := canonical(el, sig, s.Prefixes)
	if err != nil {
		return nil, fmt.Errorf("canonicalise: %w", err)
	}
	h := s.DigestHash.New()
	h.Write(octets)
	if !bytes.Equal(h.Sum(nil), s.Digest) {
		return nil, errors.New("validate signature: the digest is of other octets")
	}
	return reparse(octets)
}

// Signature is what a Signature element says, each value read from the
// canonical octets that the signature value covers.
type Signature struct {
	DigestHash crypto.Hash
	Digest     []byte   // of what the reference covers, as the signer says
	Prefixes   []string // InclusiveNamespaces of the reference, at most 32; "" for #default

	hash  crypto.Hash
	info  []byte // digest of the canonical SignedInfo
	value []byte
}

// ReadSignature reads sig, which signs el, and admits exactly the shape that
// SAML Core 5.4 allows: one Reference to el, the two transforms in their order,
// the allowed algorithms. Whose key signed is By's question; what was digested
// is the caller's.
func ReadSignature(el, sig *etree.Element) (*Signature, error) {
	s := &Signature{}
	parts := sig.ChildElements()
	if len(parts) == 3 && Is(parts[2], NSSignature, "KeyInfo") {
		parts = parts[:2]
	}
	if err := expectChildren(parts, "SignedInfo", "SignatureValue"); err != nil {
		return nil, err
	}
	octets, err := canonical(parts[0], nil, nil)
	if err != nil {
		return nil, fmt.Errorf("canonicalise SignedInfo: %w", err)
	}
	info, err := reparse(octets)
	if err != nil {
		return nil, err
	}
	if err := s.readInfo(el, info); err != nil {
		return nil, err
	}
	if s.value, err = decodeText(parts[1]); err != nil {
		return nil, err
	}
	h := s.hash.New()
	h.Write(octets)
	s.info = h.Sum(nil)
	return s, nil
}

// By checks that the certificate's key signed SignedInfo.
func (s *Signature) By(cert *x509.Certificate) error {
	key, err := RSAKey(cert)
	if err != nil {
		return err
	}
	return rsa.VerifyPKCS1v15(key, s.hash, s.info, s.value)
}

// reparse builds the tree of octets that canonical wrote.
func reparse(octets []byte) (*etree.Element, error) {
	tree := etree.NewDocument()
	tree.ReadSettings = etree.ReadSettings{PreserveDuplicateAttrs: true}
	if err := tree.ReadFromBytes(octets); err != nil {
		return nil, fmt.Errorf("parse canonical octets: %w", err)
	}
	if tree.Root() == nil {
		return nil, errors.New("parse canonical octets: no element")
	}
	return tree.Root(), nil
}

// decodeText reads base64, with white space anywhere.
func decodeText(el *etree.Element) ([]byte, error) {
	text, err := TextOf(el)
	if err != nil {
		return nil, err
	}
	octets, err := base64.StdEncoding.DecodeString(Strip(text))
	if err != nil || len(octets) == 0 {
		return nil, fmt.Errorf("%s is not base64", el.Tag)
	}
	return octets, nil
}

// CountSignatures returns how many Signature elements there are in el, itself included.
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

func (s *Signature) readInfo(el, signedInfo *etree.Element) error {
	if err := plainAttributes(signedInfo); err != nil {
		return err
	}
	info := signedInfo.ChildElements()
	if err := expectChildren(info, "CanonicalizationMethod", "SignatureMethod", "Reference"); err != nil {
		return err
	}
	if alg, _ := Attribute(info[0], "Algorithm"); alg != AlgExcC14N || len(info[0].ChildElements()) > 0 {
		return errors.New("canonicalisation not allowed")
	}
	alg, _ := Attribute(info[1], "Algorithm")
	var err error
	if s.hash, err = SignatureHash(alg); err != nil {
		return err
	}
	if len(info[1].ChildElements()) > 0 {
		return errors.New("signature algorithm with parameters")
	}
	return s.readReference(el, info[2])
}

func (s *Signature) readReference(el, ref *etree.Element) error {
	if !refersTo(el, ref) {
		return errors.New("reference is not to the root")
	}
	parts := ref.ChildElements()
	err := expectChildren(parts, "Transforms", "DigestMethod", "DigestValue")
	if err != nil {
		return err
	}
	alg, _ := Attribute(parts[1], "Algorithm")
	if s.DigestHash, err = digestHash(alg); err != nil {
		return err
	}
	if len(parts[1].ChildElements()) > 0 {
		return errors.New("digest algorithm with parameters")
	}
	if s.Digest, err = decodeText(parts[2]); err != nil {
		return err
	}
	return s.readTransforms(parts[0])
}

// refersTo reports whether the reference is to el: by its ID or, when el is the
// document's root, by the empty URI, which means the document (XML Signature
// 4.4.3.2). What is verified is el either way, never what a URI would find.
func refersTo(el, ref *etree.Element) bool {
	uri, ok := Attribute(ref, "URI")
	if ok && uri == "" {
		return len(ancestors(el)) == 0
	}
	id, _ := Attribute(el, "ID")
	return ok && id != "" && uri == "#"+id
}

func (s *Signature) readTransforms(el *etree.Element) error {
	transforms := el.ChildElements()
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
		list, _ := Attribute(c, "PrefixList")
		var err error
		if s.Prefixes, err = prefixList(list); err != nil {
			return err
		}
	}
	return nil
}

// plainAttributes refuses attributes in a namespace: some libraries take x:URI
// for URI, and what a signature covers must not depend on the reader.
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
