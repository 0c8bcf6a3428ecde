package slo

import (
	"bytes"
	"compress/flate"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"net/url"
	"strings"

	"github.com/beevik/etree"
	dsig "github.com/russellhaering/goxmldsig"
)

const algorithm = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"

func newID() (string, error) {
	var b [16]byte
	_, err := rand.Read(b[:])
	return "_" + hex.EncodeToString(b[:]), err
}

// sign signs the root by reference to its ID and puts the signature after its
// first child; stranger signs with a key that no metadata lists.
func (p *Party) sign(doc *etree.Document, stranger bool) error {
	key, err := p.sp.Signer(stranger)
	if err != nil {
		return err
	}
	ctx, err := dsig.NewSigningContext(key, [][]byte{p.sp.Certificate()})
	if err != nil {
		return err
	}
	ctx.Canonicalizer = dsig.MakeC14N10ExclusiveCanonicalizerWithPrefixList("")
	root := doc.Root()
	signature, err := ctx.ConstructSignature(root.Copy(), true)
	if err != nil {
		return err
	}
	root.InsertChildAt(root.ChildElements()[0].Index()+1, signature)
	return nil
}

// verify checks the IdP's signature of el and returns what it covers.
func (p *Party) verify(el *etree.Element) (*etree.Element, error) {
	idp, err := p.sp.IdP()
	if err != nil {
		return nil, err
	}
	if len(el.FindElements(".//Signature")) != 1 || el.FindElement("./Signature") == nil {
		return nil, errors.New("not exactly one signature, on the message")
	}
	ctx := dsig.NewDefaultValidationContext(&dsig.MemoryX509CertificateStore{Roots: idp.Signers})
	ctx.Clock = dsig.NewFakeClockAt(p.sp.Config().Now())
	return ctx.Validate(el.Copy())
}

func parse(raw []byte) (*etree.Element, error) {
	doc := etree.NewDocument()
	if err := doc.ReadFromBytes(raw); err != nil {
		return nil, err
	}
	if doc.Root() == nil {
		return nil, errors.New("no document")
	}
	return doc.Root(), nil
}

func inflate(text string) ([]byte, error) {
	packed, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(packed)), maxMessage))
}

// signQuery returns the HTTP-Redirect query that carries raw in the parameter.
func (p *Party) signQuery(parameter string, raw []byte, relayState string, stranger bool) (string, error) {
	var packed bytes.Buffer
	z, err := flate.NewWriter(&packed, flate.DefaultCompression)
	if err != nil {
		return "", err
	}
	if _, err := z.Write(raw); err != nil {
		return "", err
	}
	if err := z.Close(); err != nil {
		return "", err
	}
	key, err := p.sp.Signer(stranger)
	if err != nil {
		return "", err
	}
	q := parameter + "=" + url.QueryEscape(base64.StdEncoding.EncodeToString(packed.Bytes()))
	if relayState != "" {
		q += "&RelayState=" + url.QueryEscape(relayState)
	}
	q += "&SigAlg=" + url.QueryEscape(algorithm)
	h := crypto.SHA256.New()
	h.Write([]byte(q))
	value, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, h.Sum(nil))
	if err != nil {
		return "", err
	}
	return q + "&Signature=" + url.QueryEscape(base64.StdEncoding.EncodeToString(value)), nil
}

// verifyQuery checks a redirected message of the IdP, over the octets received.
func (p *Party) verifyQuery(rawQuery, parameter string) error {
	idp, err := p.sp.IdP()
	if err != nil {
		return err
	}
	given := map[string]string{}
	for part := range strings.SplitSeq(rawQuery, "&") {
		name, value, _ := strings.Cut(part, "=")
		if _, twice := given[name]; twice {
			return errors.New("parameter " + name + " twice")
		}
		given[name] = value
	}
	octets := parameter + "=" + given[parameter]
	if relay, ok := given["RelayState"]; ok {
		octets += "&RelayState=" + relay
	}
	octets += "&SigAlg=" + given["SigAlg"]
	if alg, err := url.QueryUnescape(given["SigAlg"]); err != nil || alg != algorithm {
		return errors.New("signature algorithm")
	}
	text, err := url.QueryUnescape(given["Signature"])
	if err != nil {
		return err
	}
	value, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return err
	}
	h := crypto.SHA256.New()
	h.Write([]byte(octets))
	digest := h.Sum(nil)
	for _, signer := range idp.Signers {
		if key, ok := signer.PublicKey.(*rsa.PublicKey); ok && rsa.VerifyPKCS1v15(key, crypto.SHA256, digest, value) == nil {
			return nil
		}
	}
	return errors.New("the query's signature is not the IdP's")
}
