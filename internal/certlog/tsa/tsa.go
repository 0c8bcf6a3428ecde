// Package tsa asks time-stamping authorities for tokens and judges tokens
// (RFC 3161, and RFC 5816 for the certificate's hash). Several services may be
// configured; the next one is asked when one fails. A token is accepted, then
// and years later, only if one signer with a certificate for time-stamping and
// nothing else (critical extendedKeyUsage, RFC 3161 section 2.3) made it, that
// very certificate leads to a root given for the purpose at the token's own
// time, and the token names it (signing-certificate attribute).
//
// Revocation is not asked for: a qualified authority that loses its key says so
// loudly, and the log's witness holds what was stamped before.
//
// internal/certlog, cmd and tests may import it.
package tsa

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha1"
	_ "crypto/sha256" // SHA-256
	_ "crypto/sha512" // SHA-384, SHA-512
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/smallstep/pkcs7"

	"custode/internal/certlog/der"
	"custode/internal/fault"
)

// Service is one time-stamping service.
type Service struct {
	URL    string
	Policy asn1.ObjectIdentifier // asked for, and demanded of the answer; empty: any
}

// Client asks services in turn. Its fields must not be changed once it is used.
type Client struct {
	Services []Service
	Roots    *x509.CertPool
	HTTP     *http.Client  // with a time limit; it follows no redirect of a POST
	Skew     time.Duration // largest difference between a token's time and Now that is believed
	Now      func() time.Time

	good atomic.Int64 // index of the service that answered last
}

// maxAnswer bounds what a service may answer, in octets. Tokens with a long
// chain and a long signature stay below 16 KiB.
const maxAnswer = 64 << 10

// Stamp returns a token over a SHA-256 value. Each service is asked once,
// beginning with the one that answered last. When none gives a good token the
// error is fault.Unavailable and names each service's failure.
func (c *Client) Stamp(ctx context.Context, imprint [32]byte) ([]byte, error) {
	const op = "get a time-stamp"
	var failures []error
	first := int(c.good.Load())
	for i := range c.Services {
		n := (first + i) % len(c.Services)
		token, err := c.ask(ctx, c.Services[n], imprint)
		if err == nil {
			c.good.Store(int64(n))
			return token, nil
		}
		failures = append(failures, fmt.Errorf("%s: %w", c.Services[n].URL, err))
	}
	if len(failures) == 0 {
		failures = append(failures, errors.New("no service is configured"))
	}
	return nil, fault.New(fault.Unavailable, op, errors.Join(failures...))
}

func (c *Client) ask(ctx context.Context, s Service, imprint [32]byte) ([]byte, error) {
	nonce, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	query, err := asn1.Marshal(request{Version: 1, Imprint: sha256Imprint(imprint), Policy: s.Policy, Nonce: nonce, CertReq: true})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL, bytes.NewReader(query))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/timestamp-query")
	req.Header.Set("Accept", "application/timestamp-reply")
	res, err := c.HTTP.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("HTTP %d", res.StatusCode)
	}
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return nil, err
	}
	if len(answer) > maxAnswer {
		return nil, fmt.Errorf("an answer longer than %d octets", maxAnswer)
	}
	token, err := granted(answer)
	if err != nil {
		return nil, err
	}
	stamp, info, err := verify(token, imprint, c.Roots)
	if err != nil {
		return nil, err
	}
	if info.Nonce == nil || info.Nonce.Cmp(nonce) != 0 {
		return nil, errors.New("the nonce is not the one of the query")
	}
	if len(s.Policy) > 0 && !stamp.Policy.Equal(s.Policy) {
		return nil, fmt.Errorf("policy %s instead of %s", stamp.Policy, s.Policy)
	}
	if d := stamp.Time.Sub(c.Now()).Abs(); d > c.Skew {
		return nil, fmt.Errorf("its clock and ours differ by %s", d)
	}
	return token, nil
}

// RFC 3161, sections 2.4.1 and 2.4.2.
type (
	request struct {
		Version int
		Imprint imprint
		Policy  asn1.ObjectIdentifier `asn1:"optional"`
		Nonce   *big.Int              `asn1:"optional"`
		CertReq bool                  `asn1:"optional"`
	}
	imprint struct {
		Algorithm pkix.AlgorithmIdentifier
		Hashed    []byte
	}
	response struct {
		Status struct {
			Status int
			Text   []string       `asn1:"optional,utf8"`
			Fail   asn1.BitString `asn1:"optional"`
		}
		Token asn1.RawValue `asn1:"optional"`
	}
	accuracy struct {
		Seconds int `asn1:"optional"`
		Millis  int `asn1:"optional,tag:0"`
		Micros  int `asn1:"optional,tag:1"`
	}
	tstInfo struct {
		Version    int
		Policy     asn1.ObjectIdentifier
		Imprint    imprint
		Serial     *big.Int
		Time       time.Time     `asn1:"generalized"`
		Accuracy   accuracy      `asn1:"optional"`
		Ordering   bool          `asn1:"optional"`
		Nonce      *big.Int      `asn1:"optional"`
		TSA        asn1.RawValue `asn1:"optional,tag:0"`
		Extensions asn1.RawValue `asn1:"optional,tag:1"`
	}
)

func sha256Imprint(sum [32]byte) imprint {
	return imprint{pkix.AlgorithmIdentifier{Algorithm: oidSHA256, Parameters: asn1.NullRawValue}, sum[:]}
}

// granted returns the token of an answer.
func granted(answer []byte) ([]byte, error) {
	if err := der.Check(answer); err != nil {
		return nil, err
	}
	var r response
	if _, err := asn1.Unmarshal(answer, &r); err != nil {
		return nil, err
	}
	if r.Status.Status > 1 { // 0 granted, 1 granted with modifications
		return nil, fmt.Errorf("rejected with status %d", r.Status.Status)
	}
	return r.Token.FullBytes, nil
}

// Stamp is what a good token says.
type Stamp struct {
	Time        time.Time // UTC
	Policy      asn1.ObjectIdentifier
	Certificate *x509.Certificate // of the authority
}

// Verify judges a token over the SHA-256 value. Every failure is fault.Invalid.
func Verify(token []byte, imprint [32]byte, roots *x509.CertPool) (Stamp, error) {
	s, _, err := verify(token, imprint, roots)
	if err != nil {
		return Stamp{}, fault.New(fault.Invalid, "verify time-stamp", err)
	}
	return s, nil
}

var (
	oidEKU                  = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidSigningCertificate   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 12}
	oidSigningCertificateV2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 47}
	oidTSTInfo              = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 4}
	oidContentType          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidSHA256               = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidSHA384               = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}
	oidSHA512               = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}
)

func verify(token []byte, imprint [32]byte, roots *x509.CertPool) (Stamp, tstInfo, error) {
	if len(token) > maxAnswer {
		return Stamp{}, tstInfo{}, fmt.Errorf("longer than %d octets", maxAnswer)
	}
	if err := der.Check(token); err != nil {
		return Stamp{}, tstInfo{}, err
	}
	p7, err := pkcs7.Parse(token)
	if err != nil {
		return Stamp{}, tstInfo{}, err
	}
	cert := p7.GetOnlySigner()
	if cert == nil {
		return Stamp{}, tstInfo{}, errors.New("not one signer, or without a certificate")
	}
	if err := p7.Verify(); err != nil {
		return Stamp{}, tstInfo{}, err
	}
	var kind asn1.ObjectIdentifier
	if err := p7.UnmarshalSignedAttribute(oidContentType, &kind); err != nil || !kind.Equal(oidTSTInfo) {
		return Stamp{}, tstInfo{}, errors.New("what is signed is no TSTInfo")
	}
	var info tstInfo
	if rest, err := asn1.Unmarshal(p7.Content, &info); err != nil || len(rest) > 0 {
		return Stamp{}, tstInfo{}, fmt.Errorf("TSTInfo: %v", err)
	}
	if !info.Imprint.Algorithm.Algorithm.Equal(oidSHA256) || !bytes.Equal(info.Imprint.Hashed, imprint[:]) {
		return Stamp{}, tstInfo{}, errors.New("it is over something else")
	}
	if err := named(p7, cert); err != nil {
		return Stamp{}, tstInfo{}, err
	}
	if err := onlyStamps(cert); err != nil {
		return Stamp{}, tstInfo{}, err
	}
	between := x509.NewCertPool()
	for _, c := range p7.Certificates {
		between.AddCert(c)
	}
	if _, err := cert.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: info.Time, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping},
	}); err != nil {
		return Stamp{}, tstInfo{}, err
	}
	return Stamp{Time: info.Time.UTC(), Policy: info.Policy, Certificate: cert}, info, nil
}

// named checks that the signed attributes name the certificate: else another
// one over the same key could be put beside the token.
func named(p7 *pkcs7.PKCS7, cert *x509.Certificate) error {
	var v2 struct {
		Certs []struct {
			Algorithm struct {
				Algorithm  asn1.ObjectIdentifier
				Parameters asn1.RawValue `asn1:"optional"`
			} `asn1:"optional"`
			Hash   []byte
			Issuer asn1.RawValue `asn1:"optional"`
		}
		Policies asn1.RawValue `asn1:"optional"`
	}
	var v1 struct {
		Certs []struct {
			Hash   []byte
			Issuer asn1.RawValue `asn1:"optional"`
		}
		Policies asn1.RawValue `asn1:"optional"`
	}
	if p7.UnmarshalSignedAttribute(oidSigningCertificateV2, &v2) == nil {
		if len(v2.Certs) == 0 {
			return errors.New("signing-certificate-v2 is empty")
		}
		hash := crypto.SHA256 // the default
		switch a := v2.Certs[0].Algorithm.Algorithm; {
		case a.Equal(oidSHA384):
			hash = crypto.SHA384
		case a.Equal(oidSHA512):
			hash = crypto.SHA512
		case len(a) > 0 && !a.Equal(oidSHA256):
			return fmt.Errorf("signing-certificate-v2 uses hash %s", a)
		}
		h := hash.New()
		h.Write(cert.Raw)
		if !bytes.Equal(h.Sum(nil), v2.Certs[0].Hash) {
			return errors.New("signing-certificate-v2 names another certificate")
		}
		return nil
	}
	// The first form knows SHA-1 only. It identifies, beside a signature that
	// was already verified with this certificate's key; it carries no weight of its own.
	if err := p7.UnmarshalSignedAttribute(oidSigningCertificate, &v1); err != nil || len(v1.Certs) == 0 {
		return errors.New("it does not name its certificate")
	}
	if sum := sha1.Sum(cert.Raw); !bytes.Equal(sum[:], v1.Certs[0].Hash) {
		return errors.New("signing-certificate names another certificate")
	}
	return nil
}

// onlyStamps wants the critical extendedKeyUsage with timeStamping alone.
func onlyStamps(cert *x509.Certificate) error {
	critical := false
	for _, e := range cert.Extensions {
		critical = critical || e.Id.Equal(oidEKU) && e.Critical
	}
	if !critical || len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != x509.ExtKeyUsageTimeStamping || len(cert.UnknownExtKeyUsage) > 0 {
		return errors.New("its certificate is not one for time-stamping alone")
	}
	return nil
}
