package conformance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"io"
	"math/big"
	"strconv"
	"strings"
	"sync"
	"time"
)

func itoa(n int) string { return strconv.Itoa(n) }

// stranger makes, once for a process, a key that is in nobody's metadata.
type stranger struct {
	once sync.Once
	pair KeyPair
	err  error
}

func (s *stranger) get(random io.Reader, name string) (KeyPair, error) {
	s.once.Do(func() {
		key, err := rsa.GenerateKey(random, 2048)
		if err != nil {
			s.err = err
			return
		}
		t := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Unix(1_700_000_000, 0), NotAfter: time.Unix(4_000_000_000, 0)}
		der, err := x509.CreateCertificate(random, t, t, key.Public(), key)
		if err != nil {
			s.err = err
			return
		}
		cert, err := x509.ParseCertificate(der)
		s.pair, s.err = KeyPair{key, cert}, err
	})
	return s.pair, s.err
}

// strangerKey signs with the stranger's key; shown puts its certificate into
// KeyInfo, else the registered one stands there.
func strangerKey(shown bool) func(*message) {
	return func(m *message) {
		pair, err := m.stranger.get(m.sign.random, m.entity)
		if err != nil {
			m.err = err
			return
		}
		m.sign.key = pair.Key
		if shown {
			m.sign.cert = pair.Certificate.Raw
		}
	}
}

// hmacSecret signs with what is public as if it were a shared secret.
func hmacSecret(secret func(*message) []byte) func(*message) {
	return func(m *message) {
		m.sign.algorithm = sigHMACSHA256
		m.sign.secret = secret(m)
	}
}

func ecdsaKey(m *message) {
	m.sign.algorithm = sigECDSA256
	m.sign.curve, m.err = ecdsa.GenerateKey(elliptic.P256(), m.sign.random)
}

func certificatePEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// flipSignature changes one bit of the signature's value.
func flipSignature(m *message) {
	flip := func(v string) string {
		raw, err := base64.StdEncoding.DecodeString(v)
		if err != nil || len(raw) == 0 {
			return ""
		}
		raw[len(raw)/2] ^= 1
		return base64.StdEncoding.EncodeToString(raw)
	}
	if m.binding == Redirect {
		eachParam("Signature", func(p *param) { p.value = flip(p.value) })(m)
		return
	}
	m.raw = func(doc string) string {
		before, rest, _ := strings.Cut(doc, "<ds:SignatureValue>")
		value, after, _ := strings.Cut(rest, "</ds:SignatureValue>")
		return before + "<ds:SignatureValue>" + flip(value) + "</ds:SignatureValue>" + after
	}
}
