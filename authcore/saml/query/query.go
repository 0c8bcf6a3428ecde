// Package query is SAML's HTTP-Redirect binding (SAML Bindings 3.4): a document
// deflated, in base64, in a URL's query, with a detached signature over the
// percent-encoded octets.
//
// [Split] takes the parameters out of a query as received, [Query.Document]
// unpacks the document within bounds, [Query.Verify] checks the signature;
// [Sign] is the way out. What the document says is not its business. It has no
// network and no clock. Imported by authcore/saml and authcore/saml/logout.
package query

import (
	"bytes"
	"compress/flate"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"sync"
	"time"

	"custode/authcore/saml/xmldoc"
)

const (
	// maxQuery bounds a Redirect query, octets.
	maxQuery = 128 << 10
	// MaxRelayState bounds RelayState, octets after decoding. SAML's 80 are
	// exceeded by real SPs; but by HTTP-POST nobody signs it, and it is kept
	// with the flow and goes out again with the Response.
	MaxRelayState = 16 << 10
)

// The parameters that carry a document.
const (
	Request  = "SAMLRequest"
	Response = "SAMLResponse"
)

// ErrRelayState is the error of a RelayState beyond MaxRelayState.
var ErrRelayState = fmt.Errorf("RelayState exceeds %d octets", MaxRelayState)

// EncodingDeflate is the one SAMLEncoding, and the default (SAML Bindings 3.4.4).
const EncodingDeflate = "urn:oasis:names:tc:SAML:2.0:bindings:URL-Encoding:DEFLATE"

// Query is a query as received: the values still percent-encoded,
// because the signature covers those octets (SAML Bindings 3.4.4.1) and SPs
// differ in how they encode.
type Query struct {
	Parameter     string // Request or Response: which one carried the document
	HasRelayState bool   // RelayState was given, perhaps empty

	message, relayState, sigAlg, signature []byte
}

// Split takes the SAML parameters out of a raw query, without "?". The document
// must be in one of the parameters allowed, and in one only. Each parameter may
// be given once and under its plain name only; those SAML does not know are
// ignored. The Query refers to raw.
func Split(raw []byte, allowed ...string) (Query, error) {
	if len(raw) > maxQuery {
		return Query{}, fmt.Errorf("query of %d octets exceeds %d", len(raw), maxQuery)
	}
	var q Query
	var has struct{ sigAlg, signature bool }
	for part := range bytes.SplitSeq(raw, []byte("&")) {
		name, value, _ := bytes.Cut(part, []byte("="))
		plain, err := url.QueryUnescape(string(name))
		if err != nil {
			return Query{}, errors.New("malformed parameter name")
		}
		var into *[]byte
		var seen *bool
		switch plain {
		case Request, Response:
			if plain != string(name) {
				return Query{}, fmt.Errorf("parameter %s under an encoded name", plain)
			}
			if q.Parameter != "" || !slices.Contains(allowed, plain) {
				return Query{}, errors.New("more than one document, or one that has no place here")
			}
			q.Parameter, q.message = plain, value
			continue
		case "RelayState":
			into, seen = &q.relayState, &q.HasRelayState
		case "SigAlg":
			into, seen = &q.sigAlg, &has.sigAlg
		case "Signature":
			into, seen = &q.signature, &has.signature
		case "SAMLEncoding":
			if enc, err := url.QueryUnescape(string(value)); err != nil || enc != EncodingDeflate {
				return Query{}, errors.New("unknown SAMLEncoding")
			}
			continue
		default:
			continue
		}
		if *seen {
			return Query{}, fmt.Errorf("parameter %s given twice", plain)
		}
		if plain != string(name) {
			return Query{}, fmt.Errorf("parameter %s under an encoded name", plain)
		}
		*into, *seen = value, true
	}
	if q.Parameter == "" || !has.sigAlg || !has.signature {
		return Query{}, errors.New("mandatory parameter missing")
	}
	return q, nil
}

// Document decodes the document, of at most that many octets: percent-encoding,
// base64, raw DEFLATE. inflaters keeps decompressors between requests: their
// windows are most of what verifying would allocate.
func (q Query) Document(inflaters *sync.Pool, most int) ([]byte, error) {
	packed, err := decodeQueryBase64(q.message)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", q.Parameter, err)
	}
	return inflate(packed, inflaters, most)
}

// inflate unpacks a raw DEFLATE stream, at most that many octets of it, and
// refuses anything after it.
func inflate(packed []byte, inflaters *sync.Pool, most int) ([]byte, error) {
	src := bytes.NewReader(packed)
	z, ok := inflaters.Get().(io.ReadCloser)
	if !ok {
		z = flate.NewReader(src)
	} else if err := z.(flate.Resetter).Reset(src, nil); err != nil {
		return nil, fmt.Errorf("inflate document: %w", err)
	}
	defer inflaters.Put(z)
	doc, err := io.ReadAll(io.LimitReader(z, int64(most)+1))
	if err != nil {
		return nil, fmt.Errorf("inflate document: %w", err)
	}
	if len(doc) > most {
		return nil, errors.New("inflate document: too long")
	}
	if src.Len() > 0 {
		return nil, errors.New("inflate document: octets after the stream")
	}
	return doc, nil
}

// RelayState returns RelayState percent-decoded once.
func (q Query) RelayState() (string, error) { return url.QueryUnescape(string(q.relayState)) }

// Verify checks the query's signature with any of certs.
func (q Query) Verify(certs []*x509.Certificate, now time.Time) error {
	alg, err := url.QueryUnescape(string(q.sigAlg))
	if err != nil {
		return errors.New("malformed SigAlg")
	}
	hash, err := xmldoc.SignatureHash(alg)
	if err != nil {
		return err
	}
	sig, err := decodeQueryBase64(q.signature)
	if err != nil || len(sig) == 0 {
		return errors.New("malformed signature")
	}
	h := hash.New()
	h.Write(q.signed())
	digest := h.Sum(nil)
	return xmldoc.AnyCertificate(certs, now, func(cert *x509.Certificate) error {
		key, err := xmldoc.RSAKey(cert)
		if err != nil {
			return err
		}
		if err := rsa.VerifyPKCS1v15(key, hash, digest, sig); err != nil {
			return fmt.Errorf("verify query signature: %w", err)
		}
		return nil
	})
}

// signed returns the octets the signature covers, in SAML's order whatever the
// order of the query. RelayState belongs to them if and only if it was given,
// even empty.
func (q Query) signed() []byte {
	b := make([]byte, 0, len(q.message)+len(q.relayState)+len(q.sigAlg)+40)
	b = append(append(append(b, q.Parameter...), '='), q.message...)
	if q.HasRelayState {
		b = append(append(b, "&RelayState="...), q.relayState...)
	}
	return append(append(b, "&SigAlg="...), q.sigAlg...)
}

// decodeQueryBase64 leaves "+" alone: it never means a blank in base64, and
// some SPs do not encode it.
func decodeQueryBase64(v []byte) ([]byte, error) {
	s, err := url.PathUnescape(string(v))
	if err != nil {
		return nil, err
	}
	return base64.StdEncoding.DecodeString(s)
}

// Sign returns the signed query, without "?", that carries document in the
// parameter: RSA with SHA-256 (PKCS #1 v1.5). RelayState is left out when hasRelay
// is false. A crypto.MessageSigner is given the octets of the query. Errors of the
// signer are returned as they are.
func Sign(parameter string, document []byte, relay string, hasRelay bool, signer crypto.Signer, random io.Reader) (string, error) {
	var packed bytes.Buffer
	z, err := flate.NewWriter(&packed, flate.DefaultCompression)
	if err != nil {
		return "", err
	}
	if _, err := z.Write(document); err != nil {
		return "", err
	}
	if err := z.Close(); err != nil {
		return "", err
	}
	q := parameter + "=" + url.QueryEscape(base64.StdEncoding.EncodeToString(packed.Bytes()))
	if hasRelay {
		q += "&RelayState=" + url.QueryEscape(relay)
	}
	q += "&SigAlg=" + url.QueryEscape(xmldoc.AlgRSASHA256)
	value, err := crypto.SignMessage(signer, random, []byte(q), crypto.SHA256)
	if err != nil {
		return "", err
	}
	return q + "&Signature=" + url.QueryEscape(base64.StdEncoding.EncodeToString(value)), nil
}
