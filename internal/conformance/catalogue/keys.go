package catalogue

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strconv"
	"strings"

	"custode/internal/conformance/request"
)

func itoa(n int) string { return strconv.Itoa(n) }

// strangerKey signs with the stranger's key; shown puts its certificate into
// KeyInfo, else the registered one stands there.
func strangerKey(shown bool) func(*request.Message) {
	return func(m *request.Message) {
		pair, err := m.Stranger()
		if err != nil {
			m.Err = err
			return
		}
		m.Sign.Key = pair.Key
		if shown {
			m.Sign.Cert = pair.Certificate.Raw
		}
	}
}

// hmacSecret signs with what is public as if it were a shared secret.
func hmacSecret(secret func(*request.Message) []byte) func(*request.Message) {
	return func(m *request.Message) {
		m.Sign.Algorithm = request.HMACSHA256
		m.Sign.Secret = secret(m)
	}
}

func ecdsaKey(m *request.Message) {
	m.Sign.Algorithm = request.ECDSASHA256
	m.Sign.Curve, m.Err = ecdsa.GenerateKey(elliptic.P256(), m.Sign.Random)
}

func certificatePEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// flipSignature changes one bit of the signature's value.
func flipSignature(m *request.Message) {
	flip := func(v string) string {
		raw, err := base64.StdEncoding.DecodeString(v)
		if err != nil || len(raw) == 0 {
			return ""
		}
		raw[len(raw)/2] ^= 1
		return base64.StdEncoding.EncodeToString(raw)
	}
	if m.Binding == request.Redirect {
		eachParam("Signature", func(p *request.Param) { p.Value = flip(p.Value) })(m)
		return
	}
	m.Raw = func(doc string) string {
		before, rest, _ := strings.Cut(doc, "<ds:SignatureValue>")
		value, after, _ := strings.Cut(rest, "</ds:SignatureValue>")
		return before + "<ds:SignatureValue>" + flip(value) + "</ds:SignatureValue>" + after
	}
}
