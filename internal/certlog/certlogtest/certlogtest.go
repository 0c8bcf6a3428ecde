// Package certlogtest has what tests of the certified log and of its users
// share: a notary with a software key, and segment keys without an HSM.
package certlogtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/http"
	"testing"
	"time"

	"custode/internal/certlog/notary"
	"custode/internal/certlog/tsa"
	"custode/internal/fault"
	"custode/simulators/tsasim"
)

// Keys wraps nothing but keeps blob and additional data together: for tests
// whose point is not the secrecy of segment keys.
type Keys struct{}

// Wrap implements certlog.Wrapper.
func (Keys) Wrap(_ context.Context, p, aad []byte) ([]byte, error) {
	return append(append([]byte{byte(len(aad))}, aad...), p...), nil
}

// Unwrap implements certlog.Wrapper.
func (Keys) Unwrap(_ context.Context, b, aad []byte) ([]byte, error) {
	p, ok := bytes.CutPrefix(b, append([]byte{byte(len(aad))}, aad...))
	if !ok {
		return nil, fault.Newf(fault.Invalid, "unwrap", "bound to something else")
	}
	return bytes.Clone(p), nil
}

// Notary makes a notary with a fresh key and the simulated authority.
func Notary(t testing.TB, authority *tsasim.TSA) *notary.Notary {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "log seal"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(3, 0, 0)}
	raw, err := x509.CreateCertificate(rand.Reader, tpl, tpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority.Root)
	return &notary.Notary{
		Pinned: []*x509.Certificate{cert}, Roots: roots, Key: key, Cert: cert, Clock: func(context.Context) error { return nil },
		Stamper: &tsa.Client{Services: []tsa.Service{{URL: authority.URL}}, Roots: roots, HTTP: &http.Client{Timeout: 5 * time.Second}, Skew: time.Minute, Now: time.Now},
	}
}
