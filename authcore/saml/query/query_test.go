package query

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"
)

var now = time.Date(2026, 11, 21, 19, 5, 0, 0, time.UTC)

func pair(t testing.TB) (*rsa.PrivateKey, []*x509.Certificate) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "t"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return key, []*x509.Certificate{cert}
}

func TestRoundTrip(t *testing.T) {
	key, certs := pair(t)
	var pool sync.Pool
	for _, parameter := range []string{Request, Response} {
		for _, has := range []bool{true, false} {
			const doc, relay = "<a>è &amp; ~*</a>", "r=& +è~*\x00"
			signed, err := Sign(parameter, []byte(doc), relay, has, key, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			q, err := Split([]byte(signed), Request, Response)
			if err != nil || q.Parameter != parameter || q.HasRelayState != has {
				t.Fatalf("%+v, %v", q, err)
			}
			if err := q.Verify(certs, now); err != nil {
				t.Error(err)
			}
			if got, err := q.RelayState(); err != nil || has && got != relay || !has && got != "" {
				t.Errorf("%q, %v", got, err)
			}
			for range 2 { // the second with a pooled decompressor
				if got, err := q.Document(&pool, 100); err != nil || string(got) != doc {
					t.Errorf("%q, %v", got, err)
				}
			}
			if _, err := q.Document(&pool, 5); err == nil {
				t.Error("no bound")
			}
			for name, changed := range map[string]string{
				"relay state added":  signed + "&RelayState=x",
				"parameter renamed":  strings.Replace(signed, parameter, map[string]string{Request: Response, Response: Request}[parameter], 1),
				"case of an escape":  strings.Replace(signed, "%3A", "%3a", 1),
				"another's document": strings.Replace(signed, parameter+"=", parameter+"=AAAA", 1),
			} {
				q, err := Split([]byte(changed), Request, Response)
				if err == nil && q.Verify(certs, now) == nil {
					t.Errorf("%s passes", name)
				}
			}
			if err := q.Verify(certs, now.Add(2*time.Hour)); err == nil {
				t.Error("expired certificate")
			}
		}
	}
}

func TestSplitRefuses(t *testing.T) {
	for name, raw := range map[string]string{
		"nothing": "", "no signature": "SAMLRequest=a&SigAlg=b", "twice": "SAMLRequest=a&SAMLRequest=a&SigAlg=b&Signature=c",
		"both": "SAMLRequest=a&SAMLResponse=a&SigAlg=b&Signature=c", "not allowed": "SAMLResponse=a&SigAlg=b&Signature=c",
		"encoded name": "SAML%52equest=a&SigAlg=b&Signature=c", "twice, once encoded": "SAMLRequest=a&SigAlg=b&Signature=c&Sig%41lg=d",
		"encoding": "SAMLRequest=a&SigAlg=b&Signature=c&SAMLEncoding=x", "too long": "SAMLRequest=" + strings.Repeat("a", maxQuery),
	} {
		if _, err := Split([]byte(raw), Request); err == nil {
			t.Errorf("%s passes", name)
		}
	}
}
