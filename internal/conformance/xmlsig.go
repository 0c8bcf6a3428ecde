package conformance

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
	nsDS          = "http://www.w3.org/2000/09/xmldsig#"
	algEnveloped  = nsDS + "enveloped-signature"
	algExcC14N    = "http://www.w3.org/2001/10/xml-exc-c14n#"
	algC14N       = "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"
	sigMore       = "http://www.w3.org/2001/04/xmldsig-more#"
	digestSHA1    = nsDS + "sha1"
	digestSHA224  = sigMore + "sha224"
	digestSHA256  = "http://www.w3.org/2001/04/xmlenc#sha256"
	digestSHA384  = sigMore + "sha384"
	digestSHA512  = "http://www.w3.org/2001/04/xmlenc#sha512"
	sigRSASHA1    = nsDS + "rsa-sha1"
	sigRSASHA224  = sigMore + "rsa-sha224"
	sigRSASHA256  = sigMore + "rsa-sha256"
	sigRSASHA384  = sigMore + "rsa-sha384"
	sigRSASHA512  = sigMore + "rsa-sha512"
	sigHMACSHA256 = sigMore + "hmac-sha256"
	sigHMACSHA1   = nsDS + "hmac-sha1"
	sigECDSA256   = sigMore + "ecdsa-sha256"
)

// hashes has every algorithm the auditor can sign with; strong says which of
// them an instance may use.
var hashes = map[string]crypto.Hash{
	digestSHA1: crypto.SHA1, digestSHA224: crypto.SHA224, digestSHA256: crypto.SHA256, digestSHA384: crypto.SHA384, digestSHA512: crypto.SHA512,
	sigRSASHA1: crypto.SHA1, sigRSASHA224: crypto.SHA224, sigRSASHA256: crypto.SHA256, sigRSASHA384: crypto.SHA384, sigRSASHA512: crypto.SHA512,
	sigHMACSHA256: crypto.SHA256, sigHMACSHA1: crypto.SHA1, sigECDSA256: crypto.SHA256,
}

func strong(h crypto.Hash) bool {
	return h == crypto.SHA256 || h == crypto.SHA384 || h == crypto.SHA512
}

// signing says how a message is signed. The zero value of every text means the
// usual one.
type signing struct {
	key       *rsa.PrivateKey
	curve     *ecdsa.PrivateKey // for ECDSA
	cert      []byte            // DER shown in KeyInfo; nil: no KeyInfo
	secret    []byte            // for HMAC
	random    io.Reader
	algorithm string // of the signature
	digest    string
	c14n      string // of SignedInfo and of the second transform
	reference string // URI; "-": none, "" chooses by the identifier
	transform string // markup in the place of the two transforms
}

// octets signs octets by the algorithm.
func (s *signing) octets(octets []byte) ([]byte, error) {
	h, ok := hashes[s.algorithm]
	if !ok {
		return nil, fmt.Errorf("no signature algorithm %s", s.algorithm)
	}
	if strings.Contains(s.algorithm, "hmac") {
		mac := hmac.New(h.New, s.secret)
		mac.Write(octets)
		return mac.Sum(nil), nil
	}
	d := h.New()
	d.Write(octets)
	if strings.Contains(s.algorithm, "ecdsa") {
		r, v, err := ecdsa.Sign(s.random, s.curve, d.Sum(nil))
		if err != nil {
			return nil, err
		}
		return append(r.FillBytes(make([]byte, 32)), v.FillBytes(make([]byte, 32))...), nil
	}
	return rsa.SignPKCS1v15(s.random, s.key, h, d.Sum(nil))
}

// signatureMark is where a document's signature goes.
const signatureMark = "\u2402signature\u2402"

// enveloped replaces the mark in doc by a signature over the rest of it.
func (s *signing) enveloped(doc string) (string, error) {
	plain := strings.Replace(doc, signatureMark, "", 1)
	root, err := parseXML(plain)
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	uri := "#" + root.get("ID")
	if !isNCName(uri[1:]) {
		uri = ""
	}
	switch s.reference {
	case "":
	case wholeDocument:
		uri = ""
	default:
		uri = s.reference
	}
	form := canonical
	if s.c14n == algC14N {
		form = func(n, omit *node, _ ...string) string { return canonicalInclusive(n, omit) }
	}
	d := hashes[s.digest].New()
	d.Write([]byte(form(root, nil)))
	uriAttr := ` URI="` + escapeAttr(uri) + `"`
	if uri == "-" {
		uriAttr = ""
	}
	transforms := s.transform
	if transforms == "" {
		transforms = `<ds:Transform Algorithm="` + algEnveloped + `"/><ds:Transform Algorithm="` + s.c14n + `"/>`
	}
	info := `<ds:SignedInfo><ds:CanonicalizationMethod Algorithm="` + s.c14n + `"/><ds:SignatureMethod Algorithm="` + s.algorithm + `"/>` +
		`<ds:Reference` + uriAttr + `><ds:Transforms>` + transforms + `</ds:Transforms><ds:DigestMethod Algorithm="` + s.digest +
		`"/><ds:DigestValue>` + base64.StdEncoding.EncodeToString(d.Sum(nil)) + `</ds:DigestValue></ds:Reference></ds:SignedInfo>`
	markup := func(value string) string {
		out := `<ds:Signature xmlns:ds="` + nsDS + `">` + info + `<ds:SignatureValue>` + value + `</ds:SignatureValue>`
		if s.cert != nil {
			out += `<ds:KeyInfo><ds:X509Data><ds:X509Certificate>` + base64.StdEncoding.EncodeToString(s.cert) + `</ds:X509Certificate></ds:X509Data></ds:KeyInfo>`
		}
		return out + `</ds:Signature>`
	}
	// SignedInfo is canonicalised where it stands: the inclusive form sees what is around it.
	tree, err := parseXML(strings.Replace(doc, signatureMark, markup(""), 1))
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	var signed *node
	tree.walk(func(n *node) {
		if n.is(nsDS, "SignedInfo") {
			signed = n
		}
	})
	if signed == nil {
		return "", errors.New("sign: no place for the signature")
	}
	value, err := s.octets([]byte(form(signed, nil)))
	if err != nil {
		return "", err
	}
	return strings.Replace(doc, signatureMark, markup(base64.StdEncoding.EncodeToString(value)), 1), nil
}

// verifyEnveloped checks the one enveloped signature that is a child of el:
// RSA of 2048 bits or more with SHA-256 or stronger, by one of the certificates
// of the metadata, over el itself with the two transforms SAML allows.
func verifyEnveloped(el *node, certs []*x509.Certificate) error {
	sig := el.child(nsDS, "Signature")
	if sig == nil {
		return errors.New("not signed, or not once")
	}
	info := sig.child(nsDS, "SignedInfo")
	ref := info.child(nsDS, "Reference")
	if ref == nil {
		return errors.New("signature without exactly one Reference")
	}
	if id := el.get("ID"); id == "" || ref.get("URI") != "#"+id {
		return fmt.Errorf("signature refers to %q, not to the element", ref.get("URI"))
	}
	if a := info.child(nsDS, "CanonicalizationMethod"); a == nil || a.get("Algorithm") != algExcC14N {
		return errors.New("SignedInfo is not in exclusive canonical form")
	}
	prefixes, err := envelopedTransforms(ref)
	if err != nil {
		return err
	}
	if err := checkDigest(ref, canonical(el, sig, prefixes...)); err != nil {
		return err
	}
	method := info.child(nsDS, "SignatureMethod")
	if method == nil {
		return errors.New("signature without algorithm")
	}
	alg := method.get("Algorithm")
	h, ok := hashes[alg]
	if !ok || !strings.HasPrefix(alg, sigMore+"rsa-") || !strong(h) {
		return fmt.Errorf("signature algorithm %s", alg)
	}
	value, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(sig.child(nsDS, "SignatureValue").text()), ""))
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

func envelopedTransforms(ref *node) (prefixes []string, err error) {
	list := ref.child(nsDS, "Transforms")
	if list == nil {
		return nil, errors.New("signature without transforms")
	}
	all := list.children(nsDS, "Transform")
	if len(all) != 2 || all[0].get("Algorithm") != algEnveloped || all[1].get("Algorithm") != algExcC14N {
		return nil, errors.New("transforms are not enveloped signature and exclusive canonical form")
	}
	if in := all[1].child(algExcC14N, "InclusiveNamespaces"); in != nil {
		prefixes = strings.Fields(in.get("PrefixList"))
	}
	return prefixes, nil
}

func checkDigest(ref *node, octets string) error {
	method := ref.child(nsDS, "DigestMethod")
	if method == nil {
		return errors.New("reference without digest algorithm")
	}
	h, ok := hashes[method.get("Algorithm")]
	if !ok || !strong(h) {
		return fmt.Errorf("digest algorithm %s", method.get("Algorithm"))
	}
	d := h.New()
	d.Write([]byte(octets))
	if strings.TrimSpace(ref.child(nsDS, "DigestValue").text()) != base64.StdEncoding.EncodeToString(d.Sum(nil)) {
		return errors.New("digest does not fit: the document was changed after it was signed")
	}
	return nil
}

// isNCName is a rough test, on the strict side, for identifiers in ASCII and
// beyond.
func isNCName(s string) bool {
	return s != "" && !strings.ContainsAny(s, " \t\r\n:/#\"'<>&=!?;,()[]{}|\\^~`+*@$%") && !strings.ContainsAny(s[:1], "0123456789-.")
}
