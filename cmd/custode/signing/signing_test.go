package signing

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"strings"
	"testing"
	"time"

	"custode/authcore/saml"
	"custode/hsm"
	"custode/hsm/rollover"
	"custode/internal/fault"
	"custode/internal/id"
)

// software is a token in software.
type software struct {
	hsm.Token
	keys  map[id.KeyLabel]*rsa.PrivateKey
	certs map[id.KeyLabel]*x509.Certificate
}

func (s software) Signer(l id.KeyLabel) (crypto.Signer, error) {
	if k := s.keys[l]; k != nil {
		return k, nil
	}
	return nil, fault.Newf(fault.NotFound, "open key "+l.String(), "none")
}

func (s software) Certificate(l id.KeyLabel) (*x509.Certificate, error) {
	if c := s.certs[l]; c != nil {
		return c, nil
	}
	return nil, fault.Newf(fault.NotFound, "read certificate "+l.String(), "none")
}

func (software) Random() io.Reader { return rand.Reader }

// book is a ledger in memory.
type book struct{ l rollover.Ledger }

func (b *book) SigningKeys(context.Context) (rollover.Ledger, error) { return b.l, nil }
func (b *book) SaveSigningKeys(_ context.Context, l rollover.Ledger) error {
	b.l = l
	return nil
}

func label(t *testing.T, s string) id.KeyLabel {
	t.Helper()
	l, err := id.ParseKeyLabel(s)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestChange: a change that may not be leaves everything as it was, the ledger and
// the security log included; one that may is told before it is done; and an approval
// that came meanwhile counts.
func TestChange(t *testing.T) {
	one, two := label(t, "sign/1"), label(t, "sign/2")
	token := software{keys: map[id.KeyLabel]*rsa.PrivateKey{}, certs: map[id.KeyLabel]*x509.Certificate{}}
	for i, l := range []id.KeyLabel{one, two} {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: l.String()}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		if token.certs[l], err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
		token.keys[l] = key
	}
	entity, err := id.ParseEntityID("https://idp.example.it")
	if err != nil {
		t.Fatal(err)
	}
	italian := map[string]string{"it": "x"}
	var told []string
	var down error
	ledger := &book{}
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	cfg := Config{
		Token: token, EntityID: entity, Ledger: ledger, Rules: rollover.Rules{Before: time.Hour, After: time.Hour},
		Now: func() time.Time { return at }, Log: slog.New(slog.DiscardHandler),
		Tell: func(_ context.Context, what, actor, detail string) error {
			told = append(told, what+" "+actor+" "+detail)
			return down
		},
		Document: saml.MetadataConfig{
			SSO:          []saml.Endpoint{{Binding: saml.Redirect, Location: "https://idp.example.it/a"}, {Binding: saml.Post, Location: "https://idp.example.it/b"}},
			SLO:          []saml.Endpoint{{Binding: saml.Redirect, Location: "https://idp.example.it/c"}, {Binding: saml.Post, Location: "https://idp.example.it/d"}, {Binding: saml.SOAP, Location: "https://idp.example.it/e"}},
			Organization: saml.Organization{Name: italian, DisplayName: italian, URL: map[string]string{"it": "https://idp.example.it"}},
			Attributes:   []string{"spidCode", "name"},
		},
	}
	d, err := Open(t.Context(), cfg, Keys{Sign: one})
	if err != nil {
		t.Fatal(err)
	}
	if len(ledger.l) != 0 || told != nil {
		t.Error("something was written before Begin")
	}
	if err := d.Begin(t.Context()); err != nil || len(ledger.l) != 1 || len(told) != 2 {
		t.Fatal(err, ledger.l, told)
	}
	certificates := func() int { return strings.Count(string(d.Metadata()), "<ds:X509Certificate>") }
	first := certificates()
	if err := d.Change(t.Context(), Keys{Sign: one, Also: []id.KeyLabel{two}}, "anna"); err != nil || certificates() != first+1 {
		t.Fatal(err, certificates())
	}
	published := string(d.Metadata())
	n := len(told)
	for name, keys := range map[string]Keys{"too early": {two, []id.KeyLabel{one}}, "no such key": {one, []id.KeyLabel{label(t, "sign/3")}}} {
		if err := d.Change(t.Context(), keys, "anna"); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	down = errors.New("log full")
	if _, err := Approve(t.Context(), ledger, Argument{Actor: "anna", Label: two, Reason: "lost"}, cfg.Tell, cfg.Rules); !errors.Is(err, down) || ledger.l[1].Approval != "" {
		t.Errorf("approved without a record: %v", err)
	}
	at = at.Add(time.Hour)
	if err := d.Change(t.Context(), Keys{two, []id.KeyLabel{one}}, "anna"); !errors.Is(err, down) {
		t.Error(err)
	}
	if string(d.Metadata()) != published || ledger.l.Active().Label != one {
		t.Error("a refused change changed something")
	}
	down, told = nil, told[:n]
	at = at.Add(-time.Minute)
	if _, err := Approve(t.Context(), ledger, Argument{Actor: "anna", Label: two, Reason: "sign/1 is lost"}, cfg.Tell, cfg.Rules); err != nil {
		t.Fatal(err)
	}
	if err := d.Change(t.Context(), Keys{two, []id.KeyLabel{one}}, "anna"); err != nil || ledger.l.Active().Label != two {
		t.Fatal(err)
	}
	if last := told[len(told)-1]; last != "signing-key anna sign/2 is active: sign/1 is lost" {
		t.Error(last)
	}
	if _, err := Open(t.Context(), cfg, Keys{Sign: label(t, "sign/3")}); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	// A start with the former key alone is refused as a matter for an operator.
	if _, err := Open(t.Context(), cfg, Keys{Sign: one}); !fault.Is(err, fault.Fatal) {
		t.Errorf("a start that forgets what others know: %v", err)
	}
}
