package aggregate

import (
	"bytes"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"custode/authcore/saml/xmldoc"
)

// maxHead is within how many octets the root's start tag and its signature must end.
const maxHead = 256 << 10

// headBounds limits the small document made of the root's tag and its signature.
var headBounds = xmldoc.Bounds{Bytes: maxHead + 4096, Depth: 12, Attrs: maxAttributes, Elements: 64, Declarations: 256}

// errStop ends a walk that has seen enough.
var errStop = errors.New("enough seen")

// readSignature reads the signature from a document's first octets.
func readSignature(head []byte) (*xmldoc.Signature, error) {
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
	return xmldoc.ReadSignature(root, sig)
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

func stopped(err error) error {
	switch err {
	case errStop:
		return nil
	case nil:
		return errors.New("document without signature")
	}
	return err
}

// verify compares the digest of what was read with the signature's, and the
// signature with each certificate that is valid at now; it returns the one that matches.
func verify(s *xmldoc.Signature, digest []byte, pinned []*x509.Certificate, now time.Time) (*x509.Certificate, error) {
	if subtle.ConstantTimeCompare(digest, s.Digest) != 1 {
		return nil, errors.New("digest does not match: the document was changed")
	}
	var signer *x509.Certificate
	err := xmldoc.AnyCertificate(pinned, now, func(cert *x509.Certificate) error {
		if err := s.By(cert); err != nil {
			return fmt.Errorf("signature is not by %q: %w", cert.Subject, err)
		}
		signer = cert
		return nil
	})
	return signer, err
}
