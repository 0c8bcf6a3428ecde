package spsim

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"
	dsig "github.com/russellhaering/goxmldsig"
	"github.com/russellhaering/goxmldsig/etreeutils"
)

const (
	algExclusive = "http://www.w3.org/2001/10/xml-exc-c14n#"
	algEnveloped = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
)

var signatureMethods = []string{
	"http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
	"http://www.w3.org/2001/04/xmldsig-more#rsa-sha384",
	"http://www.w3.org/2001/04/xmldsig-more#rsa-sha512",
}

var digestMethods = []string{
	"http://www.w3.org/2001/04/xmlenc#sha256",
	"http://www.w3.org/2001/04/xmldsig-more#sha384",
	"http://www.w3.org/2001/04/xmlenc#sha512",
}

// verifyElement checks the enveloped signature that is a direct child of el
// and covers it, and returns the element re-read from the verified bytes,
// without that signature. The certificate must be one of trusted and valid now.
func verifyElement(el *etree.Element, trusted []*x509.Certificate, now time.Time) (*etree.Element, *x509.Certificate, error) {
	sig, err := only(el, nsSignature, "Signature")
	if err != nil {
		return nil, nil, err
	}
	cert, err := vetSignature(sig, attrOf(el, "ID"), trusted)
	if err != nil {
		return nil, nil, err
	}
	detached, err := detach(el)
	if err != nil {
		return nil, nil, err
	}
	ctx := dsig.NewDefaultValidationContext(&dsig.MemoryX509CertificateStore{Roots: []*x509.Certificate{cert}})
	ctx.Clock = dsig.NewFakeClockAt(now)
	verified, err := ctx.Validate(detached)
	if err != nil {
		return nil, nil, err
	}
	return verified, cert, nil
}

// vetSignature allows exactly the shape SPID prescribes, because the verifier
// behind it accepts more (SHA-1, inclusive canonicalisation, several
// references), and picks the trusted certificate the signature names.
func vetSignature(sig *etree.Element, id string, trusted []*x509.Certificate) (*x509.Certificate, error) {
	if !ncName.MatchString(id) {
		return nil, errors.New("the signed element has no usable ID")
	}
	parts, err := exactly(sig, "SignedInfo", "SignatureValue", "KeyInfo")
	if err != nil {
		return nil, err
	}
	info, err := exactly(parts[0], "CanonicalizationMethod", "SignatureMethod", "Reference")
	if err != nil {
		return nil, err
	}
	if a := attrOf(info[0], "Algorithm"); a != algExclusive {
		return nil, fmt.Errorf("canonicalisation %q", a)
	}
	if a := attrOf(info[1], "Algorithm"); !slices.Contains(signatureMethods, a) {
		return nil, fmt.Errorf("signature method %q", a)
	}
	if err := vetReference(info[2], id); err != nil {
		return nil, err
	}
	return namedCertificate(parts[2], trusted)
}

func vetReference(ref *etree.Element, id string) error {
	if uri := attrOf(ref, "URI"); uri != "#"+id {
		return fmt.Errorf("reference to %q, want the signed element #%s", uri, id)
	}
	parts, err := exactly(ref, "Transforms", "DigestMethod", "DigestValue")
	if err != nil {
		return err
	}
	transforms, err := exactly(parts[0], "Transform", "Transform")
	if err != nil {
		return err
	}
	for i, want := range []string{algEnveloped, algExclusive} {
		if a := attrOf(transforms[i], "Algorithm"); a != want {
			return fmt.Errorf("transform %d is %q, want %q", i+1, a, want)
		}
	}
	if a := attrOf(parts[1], "Algorithm"); !slices.Contains(digestMethods, a) {
		return fmt.Errorf("digest method %q", a)
	}
	return nil
}

func namedCertificate(keyInfo *etree.Element, trusted []*x509.Certificate) (*x509.Certificate, error) {
	data, err := exactly(keyInfo, "X509Data")
	if err != nil {
		return nil, err
	}
	cert, err := exactly(data[0], "X509Certificate")
	if err != nil {
		return nil, err
	}
	der, err := decodeCertificate(cert[0].Text())
	if err != nil {
		return nil, err
	}
	for _, t := range trusted {
		if bytes.Equal(t.Raw, der) {
			return t, nil
		}
	}
	return nil, errors.New("the signing certificate is not one of the trusted metadata")
}

// exactly returns el's child elements if they are these ones of the signature
// namespace, in this order, and no others.
func exactly(el *etree.Element, tags ...string) ([]*etree.Element, error) {
	children := el.ChildElements()
	var names []string
	for _, c := range children {
		name := c.Tag
		if c.NamespaceURI() != nsSignature {
			name = "foreign " + name
		}
		names = append(names, name)
	}
	if !slices.Equal(names, tags) {
		return nil, fmt.Errorf("%s holds %s, want %s", el.Tag, strings.Join(names, ", "), strings.Join(tags, ", "))
	}
	return children, nil
}

func decodeCertificate(text string) ([]byte, error) {
	return base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
}

// parseSigner reads a certificate from metadata and demands RSA of 2048 bits
// or more.
func parseSigner(text string) (*x509.Certificate, error) {
	der, err := decodeCertificate(text)
	if err != nil {
		return nil, fmt.Errorf("decode certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse certificate: %w", err)
	}
	key, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok || key.N.BitLen() < 2048 {
		return nil, errors.New("certificate key: want RSA of at least 2048 bits")
	}
	return cert, nil
}

// canonical returns the exclusive canonical form of el with its own direct
// signature left out.
func canonical(el *etree.Element) ([]byte, error) {
	detached, err := detach(el)
	if err != nil {
		return nil, err
	}
	for _, sig := range childrenNamed(detached, nsSignature, "Signature") {
		detached.RemoveChild(sig)
	}
	return dsig.MakeC14N10ExclusiveCanonicalizerWithPrefixList("").Canonicalize(detached)
}

// detach copies el together with the namespace declarations it inherits.
func detach(el *etree.Element) (*etree.Element, error) {
	scope, err := etreeutils.NSBuildParentContext(el)
	if err != nil {
		return nil, err
	}
	return etreeutils.NSDetatch(scope, el)
}
