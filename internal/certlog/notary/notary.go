// Package notary puts together what seals a certified log: a signing key of the
// HSM, its certificate, time-stamping services and a trusted clock. Without a
// key it is the off-line judge of seals, from public certificates alone.
//
// internal/certlog declares what a log needs; cmd and tests make a Notary.
package notary

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"time"

	"custode/internal/certlog/cades"
	"custode/internal/certlog/tsa"
	"custode/internal/fault"
)

// Stamper gives time-stamp tokens; *tsa.Client is one.
type Stamper interface {
	Stamp(ctx context.Context, imprint [32]byte) ([]byte, error)
}

// Notary seals, stamps and judges. Pinned and Roots are needed to judge, the
// rest to seal.
type Notary struct {
	Pinned []*x509.Certificate // whose seals are good: today's and those before it
	Roots  *x509.CertPool      // of time-stamping authorities

	Key     crypto.Signer
	Cert    *x509.Certificate               // of Key
	Stamper Stamper                         // nil: seals stay without a time-stamp
	Clock   func(ctx context.Context) error // nil error: the clock is within tolerance
}

// Seal implements certlog.Sealer.
func (n *Notary) Seal(ctx context.Context, payload []byte) ([]byte, error) {
	if n.Key == nil || n.Clock == nil {
		return nil, fault.Newf(fault.Invalid, "seal", "this notary only judges")
	}
	if err := n.Clock(ctx); err != nil {
		return nil, fault.New(fault.Unavailable, "seal: the clock cannot be trusted", err)
	}
	return cades.Sign(payload, n.Key, n.Cert)
}

// Stamp implements certlog.Sealer.
func (n *Notary) Stamp(ctx context.Context, sealed []byte) ([]byte, error) {
	if n.Stamper == nil {
		return nil, fault.Newf(fault.Unavailable, "time-stamp", "no service is configured")
	}
	s, err := cades.Open(sealed, n.Pinned...)
	if err != nil {
		return nil, err
	}
	token, err := n.Stamper.Stamp(ctx, sha256.Sum256(s.Signature))
	if err != nil {
		return nil, err
	}
	return cades.Attach(sealed, token)
}

// SealDetached returns a time-stamped signature to stand beside the content.
func (n *Notary) SealDetached(ctx context.Context, content []byte) ([]byte, error) {
	if n.Key == nil || n.Clock == nil || n.Stamper == nil {
		return nil, fault.Newf(fault.Invalid, "seal", "this notary seals or stamps nothing")
	}
	if err := n.Clock(ctx); err != nil {
		return nil, fault.New(fault.Unavailable, "seal: the clock cannot be trusted", err)
	}
	sealed, err := cades.SignDetached(content, n.Key, n.Cert)
	if err != nil {
		return nil, err
	}
	s, err := cades.OpenDetached(sealed, content, n.Pinned...)
	if err != nil {
		return nil, err
	}
	token, err := n.Stamper.Stamp(ctx, sha256.Sum256(s.Signature))
	if err != nil {
		return nil, err
	}
	return cades.Attach(sealed, token)
}

// Open implements certlog.Sealer.
func (n *Notary) Open(sealed []byte) ([]byte, error) {
	s, err := cades.Open(sealed, n.Pinned...)
	return s.Payload, err
}

// Stamped implements certlog.Judge.
func (n *Notary) Stamped(sealed []byte) (time.Time, error) {
	s, err := cades.Open(sealed, n.Pinned...)
	if err != nil || s.Token == nil {
		return time.Time{}, err
	}
	t, err := tsa.Verify(s.Token, sha256.Sum256(s.Signature), n.Roots)
	return t.Time, err
}
