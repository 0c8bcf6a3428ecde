package spsim

import (
	"crypto"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"net/url"
	"strings"

	"github.com/beevik/etree"
)

// The methods below are for the packages beside this one that speak further
// profiles in the SP's name (slo).

// NewID draws an identifier for a message.
func (sp *SP) NewID() (string, error) { return newID(sp.cfg.Rand) }

// SignDocument signs the root by reference to its ID and puts the signature
// after its first child; stranger signs with a key that no metadata lists.
func (sp *SP) SignDocument(doc *etree.Document, stranger bool) error {
	return sp.signDocument(doc, Request{OtherKey: stranger, Hash: crypto.SHA256})
}

// SignQuery returns the HTTP-Redirect query that carries raw in the parameter.
func (sp *SP) SignQuery(parameterName string, raw []byte, relayState string, stranger bool) (string, error) {
	packed, err := deflate(raw)
	if err != nil {
		return "", err
	}
	key, err := sp.signingKey(Request{OtherKey: stranger})
	if err != nil {
		return "", err
	}
	alg, err := redirectAlgorithm(crypto.SHA256)
	if err != nil {
		return "", err
	}
	params := []parameter{{parameterName, base64.StdEncoding.EncodeToString(packed)}}
	if relayState != "" {
		params = append(params, parameter{"RelayState", relayState})
	}
	params = append(params, parameter{"SigAlg", alg})
	h := crypto.SHA256.New()
	h.Write([]byte(encodeQuery(params)))
	signature, err := rsa.SignPKCS1v15(sp.cfg.Rand, key, crypto.SHA256, h.Sum(nil))
	if err != nil {
		return "", err
	}
	return encodeQuery(append(params, parameter{"Signature", base64.StdEncoding.EncodeToString(signature)})), nil
}

// VerifyQuery checks a redirected message of the IdP, over the octets received.
func (sp *SP) VerifyQuery(rawQuery, parameterName string) error {
	idp, err := sp.IdP()
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
	octets := parameterName + "=" + given[parameterName]
	if relay, ok := given["RelayState"]; ok {
		octets += "&RelayState=" + relay
	}
	octets += "&SigAlg=" + given["SigAlg"]
	if alg, err := url.QueryUnescape(given["SigAlg"]); err != nil || alg != signatureMethods[0] {
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

// ParseDocument reads a message as the judge does.
func ParseDocument(raw []byte) (*etree.Element, error) { return parseDocument(raw) }

// VerifyDocument checks the IdP's signature of el and returns what it covers.
func (sp *SP) VerifyDocument(el *etree.Element) (*etree.Element, error) {
	idp, err := sp.IdP()
	if err != nil {
		return nil, err
	}
	verified, _, err := verifyElement(el, idp.Signers, sp.cfg.Now())
	return verified, err
}
