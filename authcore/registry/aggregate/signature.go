package aggregate

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/beevik/etree"

	"custode/authcore/saml/xmldoc"
)

// maxHead is within how many octets the root's start tag and its signature must end.
const maxHead = 256 << 10

// headBounds limits the small document made of the root's tag and its signature.
var headBounds = xmldoc.Bounds{Bytes: maxHead + 4096, Depth: 12, Attrs: maxAttributes, Elements: 64, Declarations: 256}

// errStop ends a walk that has seen enough.
var errStop = errors.New("enough seen")

// signature is what the enveloped signature of the root says.
type signature struct {
	info      []byte // SignedInfo in canonical form: what the value signs
	value     []byte
	method    crypto.Hash
	digest    []byte // claimed
	digestBy  crypto.Hash
	inclusive []string
}

// readSignature reads the signature from a document's first octets.
func readSignature(head []byte) (*signature, error) {
	frame, err := canonicalHead(head)
	if err != nil {
		return nil, err
	}
	root, err := headBounds.Parse(frame)
	if err != nil {
		return nil, err
	}
	sig, err := xmldoc.SoleChild(root, xmldoc.NSSignature, "Signature")
	if err != nil {
		return nil, err
	}
	if err := xmldoc.CheckShape(root, sig); err != nil {
		return nil, err
	}
	s := &signature{}
	if s.value, err = base64Of(sig, "SignatureValue"); err != nil {
		return nil, err
	}
	if s.info, err = canonicalInfo(head); err != nil {
		return nil, err
	}
	// From here on only what the value signs is read.
	info, err := headBounds.Parse(s.info)
	if err != nil {
		return nil, err
	}
	return s, s.readInfo(info)
}

func (s *signature) readInfo(info *etree.Element) error {
	method, err := xmldoc.SoleChild(info, xmldoc.NSSignature, "SignatureMethod")
	if err != nil {
		return err
	}
	alg, _ := xmldoc.Attribute(method, "Algorithm")
	if s.method, err = xmldoc.SignatureHash(alg); err != nil {
		return err
	}
	ref, err := xmldoc.SoleChild(info, xmldoc.NSSignature, "Reference")
	if err != nil {
		return err
	}
	if uri, _ := xmldoc.Attribute(ref, "URI"); len(uri) < 2 || uri[0] != '#' {
		return errors.New("reference is not to the root's ID")
	}
	if s.digest, err = base64Of(ref, "DigestValue"); err != nil {
		return err
	}
	by, err := xmldoc.SoleChild(ref, xmldoc.NSSignature, "DigestMethod")
	if err != nil {
		return err
	}
	alg, _ = xmldoc.Attribute(by, "Algorithm")
	switch alg {
	case xmldoc.AlgSHA256:
		s.digestBy = crypto.SHA256
	case xmldoc.AlgSHA384:
		s.digestBy = crypto.SHA384
	case xmldoc.AlgSHA512:
		s.digestBy = crypto.SHA512
	default:
		return errors.New("digest algorithm not allowed")
	}
	list := ref.FindElements("./Transforms/Transform/InclusiveNamespaces")
	if len(list) == 0 {
		return nil
	}
	prefixes, _ := xmldoc.Attribute(list[0], "PrefixList")
	for p := range strings.FieldsSeq(prefixes) {
		if len(s.inclusive) == 32 {
			return errors.New("InclusiveNamespaces with more than 32 prefixes")
		}
		if p == "#default" {
			p = ""
		}
		s.inclusive = append(s.inclusive, p)
	}
	return nil
}

func base64Of(parent *etree.Element, child string) ([]byte, error) {
	el, err := xmldoc.SoleChild(parent, xmldoc.NSSignature, child)
	if err != nil {
		return nil, err
	}
	text, err := xmldoc.TextOf(el)
	if err != nil {
		return nil, err
	}
	octets, err := base64.StdEncoding.DecodeString(xmldoc.Strip(text))
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", child, err)
	}
	return octets, nil
}

// canonicalHead returns the root with nothing in it but its signature.
func canonicalHead(head []byte) ([]byte, error) {
	w := newWalker(bytes.NewReader(head), maxHead)
	var frame []byte
	w.before = func(depth int, t *startTag) error {
		if depth == 0 && !t.is(nsMetadata, "EntitiesDescriptor") {
			return errors.New("root is not an EntitiesDescriptor")
		}
		if depth == 1 && !t.is(xmldoc.NSSignature, "Signature") {
			return errors.New("the root's first child is not its signature")
		}
		return nil
	}
	w.after = func(depth int) error {
		if depth != 1 {
			return nil
		}
		frame = fmt.Appendf(w.out, "</%s>", w.open[0].text)
		return errStop
	}
	return frame, stopped(w.walk())
}

// canonicalInfo returns SignedInfo canonicalised on its own.
func canonicalInfo(head []byte) ([]byte, error) {
	w := newWalker(bytes.NewReader(head), maxHead)
	var info []byte
	w.before = func(depth int, t *startTag) error {
		if depth == 2 && t.is(xmldoc.NSSignature, "SignedInfo") {
			w.out, w.apex = w.out[:0], len(w.shown)
		}
		return nil
	}
	w.after = func(depth int) error {
		if depth != 2 {
			return nil
		}
		info = w.out // the shape has SignedInfo first
		return errStop
	}
	return info, stopped(w.walk())
}

func stopped(err error) error {
	switch err {
	case errStop:
		return nil
	case nil:
		return errors.New("document without signature")
	}
	return err
}

// verify checks the signature value and the digest of what was read against
// each certificate that is valid at now, and returns the one that matches.
func (s *signature) verify(digest []byte, pinned []*x509.Certificate, now time.Time) (*x509.Certificate, error) {
	if subtle.ConstantTimeCompare(digest, s.digest) != 1 {
		return nil, errors.New("digest does not match: the document was changed")
	}
	h := s.method.New()
	h.Write(s.info)
	sum := h.Sum(nil)
	var signer *x509.Certificate
	err := xmldoc.AnyCertificate(pinned, now, func(cert *x509.Certificate) error {
		key, err := xmldoc.RSAKey(cert)
		if err != nil {
			return err
		}
		if err := rsa.VerifyPKCS1v15(key, s.method, sum, s.value); err != nil {
			return fmt.Errorf("signature is not by %q: %w", cert.Subject, err)
		}
		signer = cert
		return nil
	})
	if err != nil {
		return nil, err
	}
	return signer, nil
}
