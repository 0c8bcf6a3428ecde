// Package signing is what signs SAML messages and metadata in the appliance, and
// how that changes while it runs: the key in use, the certificates that are
// published beside it, and the ledger that says whether the next step of a
// roll-over may be taken (package hsm/rollover). Wiring, like cmd/custode, which
// imports it.
//
// A change of keys is one exchange of a pointer: a message is built, signed and
// verified by what was in force when it was begun.
package signing

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"custode/authcore/saml"
	"custode/authcore/saml/logout"
	"custode/hsm"
	"custode/hsm/rollover"
	"custode/internal/fault"
	"custode/internal/id"
)

// Ledger keeps what was published and used (internal/store).
type Ledger interface {
	SigningKeys(ctx context.Context) (rollover.Ledger, error)
	SaveSigningKeys(ctx context.Context, l rollover.Ledger) error
}

// Keys are the labels that the policy file names.
type Keys struct {
	Sign id.KeyLabel
	Also []id.KeyLabel
}

// Config is what Open needs. Without a Ledger every change is allowed: for signing
// metadata once.
type Config struct {
	Token    hsm.Token
	EntityID id.EntityID
	Document saml.MetadataConfig // without Certificates
	Ledger   Ledger
	Rules    rollover.Rules
	// Tell keeps a change in the security log before it takes effect.
	Tell func(ctx context.Context, what, actor, detail string) error
	Now  func() time.Time
	Log  *slog.Logger
}

// set is what is in force at a time.
type set struct {
	responses *saml.Issuer
	messages  *logout.Issuer
	metadata  []byte
}

// Desk signs with the keys in force. It is safe for concurrent use.
type Desk struct {
	cfg     Config
	current atomic.Pointer[set]

	mu     sync.Mutex // one change at a time
	keys   Keys
	ledger rollover.Ledger   // as it will be saved
	told   []rollover.Change // by Begin
}

// Open opens the keys, signs the metadata and judges the ledger. Nothing is
// written before Begin. A step of a roll-over that is too early is fault.Fatal.
func Open(ctx context.Context, c Config, keys Keys) (*Desk, error) {
	d := &Desk{cfg: c, keys: keys}
	s, wanted, err := d.open(keys)
	if err != nil {
		return nil, err
	}
	if c.Ledger != nil {
		if d.ledger, err = c.Ledger.SigningKeys(ctx); err != nil {
			return nil, err
		}
		if d.ledger, d.told, err = d.ledger.Apply(wanted, c.Rules, c.Now()); err != nil {
			return nil, fault.New(fault.Fatal, "open the signing keys of the policy file", err)
		}
	}
	d.current.Store(s)
	return d, nil
}

// Begin writes what Open found, once the security log takes records.
func (d *Desk) Begin(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.keep(ctx, d.ledger, d.told, "")
}

func (d *Desk) keep(ctx context.Context, l rollover.Ledger, changes []rollover.Change, actor string) error {
	for _, c := range changes {
		if err := d.cfg.Tell(ctx, "signing-key", actor, c.Label.String()+" is "+string(c.State)+": "+c.Reason); err != nil {
			return err
		}
		d.cfg.Log.Info("signing key", "key", c.Label.String(), "state", string(c.State), "reason", c.Reason)
	}
	return d.cfg.Ledger.SaveSigningKeys(ctx, l)
}

// Change takes other keys into use, without a gap. After an error all is as before.
func (d *Desk) Change(ctx context.Context, keys Keys, actor string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, wanted, err := d.open(keys)
	if err != nil {
		return err
	}
	// Approvals may have come meanwhile.
	l, err := d.cfg.Ledger.SigningKeys(ctx)
	if err != nil {
		return err
	}
	l, changes, err := l.Apply(wanted, d.cfg.Rules, d.cfg.Now())
	if err != nil {
		return err
	}
	if err := d.keep(ctx, l, changes, actor); err != nil {
		return err
	}
	d.keys, d.ledger = keys, l
	d.current.Store(s)
	return nil
}

// open opens every key that keys names and signs the metadata with the first.
func (d *Desk) open(keys Keys) (*set, rollover.Wanted, error) {
	w := rollover.Wanted{Sign: keys.Sign, Also: keys.Also, Certificates: map[id.KeyLabel][32]byte{}}
	signer, err := d.cfg.Token.Signer(keys.Sign)
	if err != nil {
		return nil, w, err
	}
	var certs []*x509.Certificate // the active one first: some SPs read no further
	for _, label := range append([]id.KeyLabel{keys.Sign}, keys.Also...) {
		cert, err := d.cfg.Token.Certificate(label)
		if err != nil {
			return nil, w, err
		}
		certs = append(certs, cert)
		w.Certificates[label] = sha256.Sum256(cert.Raw)
	}
	ic := saml.IssuerConfig{EntityID: d.cfg.EntityID, Signer: signer, Certificate: certs[0], Random: d.cfg.Token.Random()}
	s := &set{}
	if s.responses, err = saml.NewIssuer(ic); err != nil {
		return nil, w, err
	}
	if s.messages, err = logout.NewIssuer(ic); err != nil {
		return nil, w, err
	}
	doc := d.cfg.Document
	doc.Certificates = certs[1:]
	s.metadata, err = s.responses.Metadata(doc)
	return s, w, err
}

// Keys returns the labels in force.
func (d *Desk) Keys() Keys {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.keys
}

// Metadata returns the signed document in force.
func (d *Desk) Metadata() []byte { return d.current.Load().metadata }

// Success implements authcore.Responses.
func (d *Desk) Success(s saml.Statement, now time.Time) (saml.Signed, error) {
	return d.current.Load().responses.Success(s, now)
}

// Anomaly implements authcore.Responses.
func (d *Desk) Anomaly(c saml.Code, to saml.Reply, now time.Time) (saml.Signed, error) {
	return d.current.Load().responses.Anomaly(c, to, now)
}

// NewID implements session.Messages.
func (d *Desk) NewID() (string, error) { return d.current.Load().messages.NewID() }

// Request implements session.Messages.
func (d *Desk) Request(to saml.Endpoint, e logout.Ended, now time.Time) (logout.Message, error) {
	return d.current.Load().messages.Request(to, e, now)
}

// Response implements session.Messages.
func (d *Desk) Response(to saml.Endpoint, r logout.Reply, now time.Time) (logout.Message, error) {
	return d.current.Load().messages.Response(to, r, now)
}
