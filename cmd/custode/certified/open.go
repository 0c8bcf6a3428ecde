// Package certified is the certified log in the appliance: it opens both logs
// with the token's keys, answers the administration socket about them, and has
// the subcommands of `custode log`. Wiring only, like cmd/custode, which imports it.
package certified

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"custode/hsm"
	"custode/internal/admin"
	"custode/internal/certlog"
	"custode/internal/certlog/notary"
	"custode/internal/certlog/tsa"
	"custode/internal/config"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/journal"
	"custode/modem"
)

// Config is what Open needs. Token and database are open.
type Config struct {
	Machine *config.Machine
	Policy  *config.Policy
	Token   hsm.Token
	Floors  journal.Floors
	// Phone finds the number of the identity with that code: zero for none, fault.NotFound.
	Phone func(ctx context.Context, code id.SPIDCode) (id.Phone, error)
	// Queue has a message sent.
	Queue func(ctx context.Context, m modem.Message, text []byte) error
	Build string
	Log   *slog.Logger
}

// Registers are the certified logs and what opens and judges them.
type Registers struct {
	*journal.Journals
	Config
	notary *notary.Notary
	seals  []*x509.Certificate // today's first
	roots  []*x509.Certificate // of time-stamping authorities
	keys   certlog.Wrapper
	jobs   admin.Jobs
}

// Open opens both logs. Even after an error Close releases what was acquired.
func Open(ctx context.Context, c Config) (*Registers, error) {
	m, p := &c.Machine.CertifiedLog, &c.Policy.CertifiedLog
	r := &Registers{Config: c}
	if err := r.openNotary(); err != nil {
		return r, err
	}
	mails, err := mailboxes(m.WitnessMail)
	if err != nil {
		return r, err
	}
	escrow, err := escrowKey(m.EscrowCertificate)
	if err != nil {
		return r, err
	}
	if escrow == nil && !c.Machine.InsecureHTTPForDevelopment {
		c.Log.Warn("certified log: without an escrow certificate the token alone can open it")
	}
	r.Journals, err = journal.Open(ctx, journal.Config{
		Directory: m.Directory, State: c.Machine.StateDirectory, Entity: c.Policy.EntityID, Build: c.Build, Keys: r.keys, Escrow: escrow, Notary: r.notary,
		Age: p.SegmentAge, Size: int64(p.SegmentMiB) << 20, Retention: p.Retention, SecurityRetention: p.SecurityRetention, Patience: p.Patience,
		Hour: *p.VerifyHour, WitnessFolders: m.WitnessDirectories, WitnessURLs: m.WitnessURLs, Mails: mails, HTTP: client(10 * time.Second),
		Floors: c.Floors, Random: c.Token.Random(), Now: time.Now, Log: c.Log,
	})
	return r, err
}

// Close ends what runs and releases the folders.
func (r *Registers) Close() {
	if r.Journals != nil {
		r.Journals.Close()
	}
}

// openNotary finds the seal, its predecessors, the time-stamping services and
// the wrap keys.
func (r *Registers) openNotary() error {
	m, p, keys := &r.Machine.CertifiedLog, &r.Policy.CertifiedLog, r.Policy.Keys
	signer, err := r.Token.Signer(keys.Seal)
	if err != nil {
		return err
	}
	cert, err := r.Token.Certificate(keys.Seal)
	if err != nil {
		return err
	}
	earlier, err := config.Certificates(m.SealCertificates)
	if err != nil {
		return err
	}
	if r.roots, err = config.Certificates(m.TSACertificates); err != nil {
		return err
	}
	r.seals = append([]*x509.Certificate{cert}, earlier...)
	r.notary = &notary.Notary{Pinned: r.seals, Roots: pool(r.roots), Key: signer, Cert: cert, Clock: notary.KernelClock}
	if m.Clock == "none" {
		r.Log.Warn("certified log: the clock is not checked before sealing")
		r.notary.Clock = func(context.Context) error { return nil }
	}
	if left := time.Until(cert.NotAfter); left < 90*24*time.Hour {
		r.Log.Warn("certified log: the seal's certificate ends", "not after", cert.NotAfter)
	}
	if r.notary.Stamper, err = r.stamper(); err != nil {
		return err
	}
	if len(p.TimeStamps) == 1 {
		r.Log.Warn("certified log: one time-stamping service only; when it is away segments wait")
	}
	wraps := hsm.Rotated{ByLabel: map[id.KeyLabel]hsm.Wrapper{}}
	for i, label := range append([]id.KeyLabel{keys.Log}, keys.EarlierLog...) {
		w, err := r.Token.Wrapper(label)
		if err != nil {
			return err
		}
		if i == 0 {
			wraps.Today = w
		}
		wraps.ByLabel[label] = w
	}
	r.keys = wraps
	return nil
}

func (r *Registers) stamper() (notary.Stamper, error) {
	p := &r.Policy.CertifiedLog
	if len(p.TimeStamps) == 0 {
		r.Log.Warn("certified log: NO TIME-STAMPING SERVICE: segments are sealed and stay pending; for development only")
		return nil, nil
	}
	c := &tsa.Client{Roots: r.notary.Roots, HTTP: client(15 * time.Second), Skew: time.Minute, Now: time.Now}
	for _, t := range p.TimeStamps {
		oid, err := objectIdentifier(t.Policy)
		if err != nil {
			return nil, err
		}
		c.Services = append(c.Services, tsa.Service{URL: t.URL, Policy: oid})
	}
	return c, nil
}

// client follows no redirect: what is posted is for one place.
func client(limit time.Duration) *http.Client {
	return &http.Client{Timeout: limit, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, MaxIdleConns: 4, IdleConnTimeout: time.Minute, DisableCompression: true}}
}

func objectIdentifier(s string) (asn1.ObjectIdentifier, error) {
	if s == "" {
		return nil, nil
	}
	var out asn1.ObjectIdentifier
	for part := range strings.SplitSeq(s, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			return nil, fault.Newf(fault.Invalid, "read policy of a time-stamping service", "%q is no OID", s)
		}
		out = append(out, n)
	}
	return out, nil
}

func pool(certs []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}

// escrowKey returns the public key of the certificate at path, nil for no path.
func escrowKey(path string) (*rsa.PublicKey, error) {
	certs, err := config.Certificates(path)
	if err != nil || len(certs) == 0 {
		return nil, err
	}
	key, ok := certs[0].PublicKey.(*rsa.PublicKey)
	if !ok || key.Size() < 256 || len(certs) != 1 {
		return nil, fault.Newf(fault.Fatal, "read escrow certificate "+path, "one certificate of an RSA key of 2048 bits at least is wanted")
	}
	return key, nil
}
