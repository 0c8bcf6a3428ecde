package request

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rsa"
	_ "crypto/sha1" // a signature that has to be refused
	_ "crypto/sha256"
	_ "crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Namespaces and algorithms of XML signatures (XML Signature Syntax 1.1, RFC 4051).
const (
	NSSignature  = "http://www.w3.org/2000/09/xmldsig#"
	AlgEnveloped = NSSignature + "enveloped-signature"
	AlgExcC14N   = "http://www.w3.org/2001/10/xml-exc-c14n#"
	AlgC14N      = "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"
	sigMore      = "http://www.w3.org/2001/04/xmldsig-more#"
	DigestSHA1   = NSSignature + "sha1"
	DigestSHA224 = sigMore + "sha224"
	DigestSHA256 = "http://www.w3.org/2001/04/xmlenc#sha256"
	DigestSHA384 = sigMore + "sha384"
	// DigestSHA384Odd is a spelling that no standard has and test tools use.
	DigestSHA384Odd = "http://www.w3.org/2001/04/xmlenc#sha384"
	DigestSHA512    = "http://www.w3.org/2001/04/xmlenc#sha512"
	RSASHA1         = NSSignature + "rsa-sha1"
	RSASHA224       = sigMore + "rsa-sha224"
	RSASHA256       = sigMore + "rsa-sha256"
	RSASHA384       = sigMore + "rsa-sha384"
	RSASHA512       = sigMore + "rsa-sha512"
	HMACSHA256      = sigMore + "hmac-sha256"
	HMACSHA1        = NSSignature + "hmac-sha1"
	ECDSASHA256     = sigMore + "ecdsa-sha256"
)

// hashes has every algorithm the auditor can sign with; strong says which of
// them an instance may use.
var hashes = map[string]crypto.Hash{
	DigestSHA1: crypto.SHA1, DigestSHA224: crypto.SHA224, DigestSHA256: crypto.SHA256, DigestSHA384: crypto.SHA384, DigestSHA384Odd: crypto.SHA384, DigestSHA512: crypto.SHA512,
	RSASHA1: crypto.SHA1, RSASHA224: crypto.SHA224, RSASHA256: crypto.SHA256, RSASHA384: crypto.SHA384, RSASHA512: crypto.SHA512,
	HMACSHA256: crypto.SHA256, HMACSHA1: crypto.SHA1, ECDSASHA256: crypto.SHA256,
}

func strong(h crypto.Hash) bool {
	return h == crypto.SHA256 || h == crypto.SHA384 || h == crypto.SHA512
}

// Signing says how a message is signed.
type Signing struct {
	Key        *rsa.PrivateKey
	Curve      *ecdsa.PrivateKey // for ECDSA
	Cert       []byte            // DER shown in KeyInfo; nil: no KeyInfo
	Secret     []byte            // for HMAC
	Random     io.Reader
	Algorithm  string // of the signature
	Digest     string
	C14N       string // of SignedInfo and of the second transform
	Reference  string // URI; "-": none, "": the usual one, WholeDocument: empty
	Transforms string // markup in the place of the two usual ones
}

// WholeDocument is the reference with an empty URI.
const WholeDocument = "\u2402"

// Octets signs octets by the algorithm.
func (s *Signing) Octets(octets []byte) ([]byte, error) {
	h, ok := hashes[s.Algorithm]
	if !ok {
		return nil, fmt.Errorf("no signature algorithm %s", s.Algorithm)
	}
	if strings.Contains(s.Algorithm, "hmac") {
		mac := hmac.New(h.New, s.Secret)
		mac.Write(octets)
		return mac.Sum(nil), nil
	}
	d := h.New()
	d.Write(octets)
	if strings.Contains(s.Algorithm, "ecdsa") {
		r, v, err := ecdsa.Sign(s.Random, s.Curve, d.Sum(nil))
		if err != nil {
			return nil, err
		}
		return append(r.FillBytes(make([]byte, 32)), v.FillBytes(make([]byte, 32))...), nil
	}
	return rsa.SignPKCS1v15(s.Random, s.Key, h, d.Sum(nil))
}

// SignatureMark is where a document's signature goes.
const SignatureMark = "\u2402signature\u2402"

// Enveloped replaces the mark in doc by a signature over the rest of it.
func (s *Signing) Enveloped(doc string) (string, error) {
	plain := strings.Replace(doc, SignatureMark, "", 1)
	root, err := Parse(plain)
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	uri := "#" + root.Get("ID")
	if !IsNCName(uri[1:]) {
		uri = ""
	}
	switch s.Reference {
	case "":
	case WholeDocument:
		uri = ""
	default:
		uri = s.Reference
	}
	form := canonical
	if s.C14N == AlgC14N {
		form = func(n, omit *Node, _ ...string) string { return canonicalInclusive(n, omit) }
	}
	d := hashes[s.Digest].New()
	d.Write([]byte(form(root, nil)))
	uriAttr := ` URI="` + EscapeAttr(uri) + `"`
	if uri == "-" {
		uriAttr = ""
	}
	transforms := s.Transforms
	if transforms == "" {
		transforms = `<ds:Transform Algorithm="` + AlgEnveloped + `"/><ds:Transform Algorithm="` + s.C14N + `"/>`
	}
	info := `<ds:SignedInfo><ds:CanonicalizationMethod Algorithm="` + s.C14N + `"/><ds:SignatureMethod Algorithm="` + s.Algorithm + `"/>` +
		`<ds:Reference` + uriAttr + `><ds:Transforms>` + transforms + `</ds:Transforms><ds:DigestMethod Algorithm="` + s.Digest +
		`"/><ds:DigestValue>` + base64.StdEncoding.EncodeToString(d.Sum(nil)) + `</ds:DigestValue></ds:Reference></ds:SignedInfo>`
	markup := func(value string) string {
		out := `<ds:Signature xmlns:ds="` + NSSignature + `">` + info + `<ds:SignatureValue>` + value + `</ds:SignatureValue>`
		if s.Cert != nil {
			out += `<ds:KeyInfo><ds:X509Data><ds:X509Certificate>` + base64.StdEncoding.EncodeToString(s.Cert) + `</ds:X509Certificate></ds:X509Data></ds:KeyInfo>`
		}
		return out + `</ds:Signature>`
	}
	// SignedInfo is canonicalised where it stands: the inclusive form sees what is around it.
	tree, err := Parse(strings.Replace(doc, SignatureMark, markup(""), 1))
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	var signed *Node
	tree.Walk(func(n *Node) {
		// Ours is the signature without a value; what is signed may have others.
		if n.Is(NSSignature, "SignedInfo") && n.parent.Child(NSSignature, "SignatureValue").Text() == "" {
			signed = n
		}
	})
	if signed == nil {
		return "", errors.New("sign: no place for the signature")
	}
	value, err := s.Octets([]byte(form(signed, nil)))
	if err != nil {
		return "", err
	}
	return strings.Replace(doc, SignatureMark, markup(base64.StdEncoding.EncodeToString(value)), 1), nil
}

// Verify checks the one enveloped signature that is a child of el:
// RSA of 2048 bits or more with SHA-256 or stronger, by one of the certificates
// of the metadata, over el itself with the two transforms SAML allows.
func Verify(el *Node, certs []*x509.Certificate) error {
	sig := el.Child(NSSignature, "Signature")
	if sig == nil {
		return errors.New("not signed, or not once")
	}
	info := sig.Child(NSSignature, "SignedInfo")
	ref := info.Child(NSSignature, "Reference")
	if ref == nil {
		return errors.New("signature without exactly one Reference")
	}
	if id := el.Get("ID"); id == "" || ref.Get("URI") != "#"+id {
		return fmt.Errorf("signature refers to %q, not to the element", ref.Get("URI"))
	}
	if a := info.Child(NSSignature, "CanonicalizationMethod"); a == nil || a.Get("Algorithm") != AlgExcC14N {
		return errors.New("SignedInfo is not in exclusive canonical form")
	}
	prefixes, err := envelopedTransforms(ref)
	if err != nil {
		return err
	}
	if err := checkDigest(ref, canonical(el, sig, prefixes...)); err != nil {
		return err
	}
	method := info.Child(NSSignature, "SignatureMethod")
	if method == nil {
		return errors.New("signature without algorithm")
	}
	alg := method.Get("Algorithm")
	h, ok := hashes[alg]
	if !ok || !strings.HasPrefix(alg, sigMore+"rsa-") || !strong(h) {
		return fmt.Errorf("signature algorithm %s", alg)
	}
	value, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(sig.Child(NSSignature, "SignatureValue").Text()), ""))
	if err != nil {
		return errors.New("SignatureValue is not base64")
	}
	d := h.New()
	d.Write([]byte(canonical(info, nil)))
	for _, c := range certs {
		if key, ok := c.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() >= 2048 && rsa.VerifyPKCS1v15(key, h, d.Sum(nil), value) == nil {
			return nil
		}
	}
	return errors.New("signature does not fit any certificate of the metadata")
}

func envelopedTransforms(ref *Node) (prefixes []string, err error) {
	list := ref.Child(NSSignature, "Transforms")
	if list == nil {
		return nil, errors.New("signature without transforms")
	}
	all := list.Children(NSSignature, "Transform")
	if len(all) != 2 || all[0].Get("Algorithm") != AlgEnveloped || all[1].Get("Algorithm") != AlgExcC14N {
		return nil, errors.New("transforms are not enveloped signature and exclusive canonical form")
	}
	if in := all[1].Child(AlgExcC14N, "InclusiveNamespaces"); in != nil {
		prefixes = strings.Fields(in.Get("PrefixList"))
	}
	return prefixes, nil
}

func checkDigest(ref *Node, octets string) error {
	method := ref.Child(NSSignature, "DigestMethod")
	if method == nil {
		return errors.New("reference without digest algorithm")
	}
	h, ok := hashes[method.Get("Algorithm")]
	if !ok || !strong(h) || method.Get("Algorithm") == DigestSHA384Odd {
		return fmt.Errorf("digest algorithm %s", method.Get("Algorithm"))
	}
	d := h.New()
	d.Write([]byte(octets))
	if strings.TrimSpace(ref.Child(NSSignature, "DigestValue").Text()) != base64.StdEncoding.EncodeToString(d.Sum(nil)) {
		return errors.New("digest does not fit: the document was changed after it was signed")
	}
	return nil
}

// IsNCName is a rough test, on the strict side, for identifiers in ASCII and
// beyond.
func IsNCName(s string) bool {
	return s != "" && !strings.ContainsAny(s, " \t\r\n:/#\"'<>&=!?;,()[]{}|\\^~`+*@$%") && !strings.ContainsAny(s[:1], "0123456789-.")
}
