package saml

import (
	"bytes"
	"compress/flate"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"sync"
	"time"

	"custode/authcore/saml/xmldoc"
)

const (
	// maxQuery bounds a Redirect query, octets.
	maxQuery = 128 << 10
	// maxRelayState bounds RelayState, octets after decoding. SAML's 80 are
	// exceeded by real SPs; but by HTTP-POST nobody signs it, and it is kept
	// with the flow and goes out again with the Response.
	maxRelayState = 16 << 10
)

var errRelayState = fmt.Errorf("RelayState exceeds %d octets", maxRelayState)

// encodingDeflate is the one SAMLEncoding, and the default (SAML Bindings 3.4.4).
const encodingDeflate = "urn:oasis:names:tc:SAML:2.0:bindings:URL-Encoding:DEFLATE"

// redirectQuery is a query as received: the values still percent-encoded,
// because the signature covers those octets (SAML Bindings 3.4.4.1) and SPs
// differ in how they encode.
type redirectQuery struct {
	request, relayState, sigAlg, signature []byte
	hasRelayState                          bool
}

// splitQuery takes the SAML parameters out of a raw query. Each may be given
// once and under its plain name only; parameters SAML does not know are
// ignored.
func splitQuery(raw []byte) (redirectQuery, error) {
	if len(raw) > maxQuery {
		return redirectQuery{}, fmt.Errorf("query of %d octets exceeds %d", len(raw), maxQuery)
	}
	var q redirectQuery
	var has struct{ request, sigAlg, signature bool }
	for part := range bytes.SplitSeq(raw, []byte("&")) {
		name, value, _ := bytes.Cut(part, []byte("="))
		plain, err := url.QueryUnescape(string(name))
		if err != nil {
			return redirectQuery{}, errors.New("malformed parameter name")
		}
		var into *[]byte
		var seen *bool
		switch plain {
		case "SAMLRequest":
			into, seen = &q.request, &has.request
		case "RelayState":
			into, seen = &q.relayState, &q.hasRelayState
		case "SigAlg":
			into, seen = &q.sigAlg, &has.sigAlg
		case "Signature":
			into, seen = &q.signature, &has.signature
		case "SAMLEncoding":
			if enc, err := url.QueryUnescape(string(value)); err != nil || enc != encodingDeflate {
				return redirectQuery{}, errors.New("unknown SAMLEncoding")
			}
			continue
		case "SAMLResponse":
			return redirectQuery{}, errors.New("response beside a request")
		default:
			continue
		}
		if *seen {
			return redirectQuery{}, fmt.Errorf("parameter %s given twice", plain)
		}
		if plain != string(name) {
			return redirectQuery{}, fmt.Errorf("parameter %s under an encoded name", plain)
		}
		*into, *seen = value, true
	}
	if !has.request || !has.sigAlg || !has.signature {
		return redirectQuery{}, errors.New("mandatory parameter missing")
	}
	return q, nil
}

// document decodes SAMLRequest: percent-encoding, base64, raw DEFLATE.
func (q redirectQuery) document(inflaters *sync.Pool) ([]byte, error) {
	packed, err := decodeQueryBase64(q.request)
	if err != nil {
		return nil, fmt.Errorf("decode SAMLRequest: %w", err)
	}
	return inflate(packed, inflaters)
}

// inflate unpacks a raw DEFLATE stream, at most as far as a request may go,
// and refuses anything after it. inflaters keeps decompressors between requests:
// their windows are most of what verifying would allocate.
func inflate(packed []byte, inflaters *sync.Pool) ([]byte, error) {
	src := bytes.NewReader(packed)
	z, ok := inflaters.Get().(io.ReadCloser)
	if !ok {
		z = flate.NewReader(src)
	} else if err := z.(flate.Resetter).Reset(src, nil); err != nil {
		return nil, fmt.Errorf("inflate SAMLRequest: %w", err)
	}
	defer inflaters.Put(z)
	doc, err := io.ReadAll(io.LimitReader(z, int64(requestBounds.Bytes)+1))
	if err != nil {
		return nil, fmt.Errorf("inflate SAMLRequest: %w", err)
	}
	if len(doc) > requestBounds.Bytes {
		return nil, errors.New("inflate SAMLRequest: too long")
	}
	if src.Len() > 0 {
		return nil, errors.New("inflate SAMLRequest: octets after the stream")
	}
	return doc, nil
}

// relay returns RelayState percent-decoded once.
func (q redirectQuery) relay() (string, error) { return url.QueryUnescape(string(q.relayState)) }

// verify checks the query's signature with any of certs.
func (q redirectQuery) verify(certs []*x509.Certificate, now time.Time) error {
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
func (q redirectQuery) signed() []byte {
	b := make([]byte, 0, len(q.request)+len(q.relayState)+len(q.sigAlg)+40)
	b = append(append(b, "SAMLRequest="...), q.request...)
	if q.hasRelayState {
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
