package factor

import (
	"context"
	"crypto/x509"
	"io"
	"log/slog"
	"time"

	"custode/authcore"
	"custode/cmd/custode/notifier"
	"custode/hsm"
	"custode/internal/config"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store"
	"custode/internal/store/otpstore"
	"custode/otpvault/issuing"
	"custode/otpvault/proof"
	"custode/otpvault/seed"
)

// Token is what OATH secrets need of the token.
type Token interface {
	hsm.SecretKey
	hsm.CodeMatcher
	MAC(label id.KeyLabel) (hsm.MAC, error)
	// OpenSeed finds a seed key and proves that it works.
	OpenSeed(label id.KeyLabel) error
	// SecretForm does, and says what to give WrapSecret with it.
	SecretForm(label id.KeyLabel) (wrap, keyType uint32, err error)
}

// Config is what Open needs.
type Config struct {
	Machine *config.Machine
	Policy  *config.Policy
	Token   Token
	Codes   hsm.MAC     // of pushed, activation and emergency codes
	Wrapper hsm.Wrapper // of the apps' keys
	DB      *store.DB
	Random  io.Reader
	Log     *slog.Logger
}

// Open builds the judge of codes for the login, and the office that issues devices.
func Open(c Config) (Ways, *issuing.Office, error) {
	binder, err := c.Token.MAC(c.Policy.Keys.Bind)
	if err != nil {
		return Ways{}, nil, err
	}
	matcher := Matcher{c.Token, c.Policy.Keys.Bind}
	devices := otpstore.New(c.DB)
	judge := proof.Config{Devices: devices, Store: devices, Matcher: matcher, MAC: c.Codes, Wrapper: c.Wrapper, Random: c.Random, Now: time.Now, Log: c.Log}
	if p := c.Machine.Push; p.URL != "" {
		token := ""
		if p.TokenFile != "" {
			line, err := config.ReadSecret(p.TokenFile)
			if err != nil {
				return Ways{}, nil, err
			}
			token = string(line)
			clear(line)
		}
		judge.Notifier = notifier.New(p.URL, token)
	}
	desk, err := proof.New(judge)
	if err != nil {
		return Ways{}, nil, err
	}
	recipe := seed.Recipe{KEK: c.Policy.Keys.Seed}
	if recipe.Mechanism, recipe.KeyType, err = c.Token.SecretForm(recipe.KEK); err != nil {
		return Ways{}, nil, err
	}
	for _, earlier := range c.Policy.Keys.EarlierSeed {
		if err := c.Token.OpenSeed(earlier); err != nil {
			return Ways{}, nil, err
		}
	}
	certs, err := config.Certificates(c.Machine.HSM.RecoveryCertificate)
	if err != nil {
		return Ways{}, nil, err
	}
	var recovery *x509.Certificate
	switch len(certs) {
	case 0:
		c.Log.Warn("OATH devices: without a recovery certificate their seeds are lost with the token")
	case 1:
		recovery = certs[0]
	default:
		return Ways{}, nil, fault.Newf(fault.Fatal, "read recovery certificate", "%d certificates, not one", len(certs))
	}
	office, err := issuing.New(issuing.Config{Devices: devices, Activations: devices, Emergencies: devices, Accounts: accounts{c.DB}, Recovery: recovery, Wrapper: c.Token, Binder: binder, Matcher: matcher,
		MAC: c.Codes, Keys: c.Wrapper, Recipe: recipe, Random: c.Random, Now: time.Now, Log: c.Log, Issuer: c.Policy.Organization.DisplayName})
	return Ways{Desk: desk, Choices: devices, Now: time.Now}, office, err
}

// accounts names people in their apps by their username.
type accounts struct{ identities authcore.Identities }

// Account implements issuing.Accounts.
func (a accounts) Account(ctx context.Context, s id.Subject) (string, error) {
	who, err := a.identities.Identity(ctx, s)
	if err != nil {
		return "", err
	}
	if who.State != authcore.Active {
		return "", fault.Newf(fault.Denied, "name the account of "+s.String(), "the identity is %v", who.State)
	}
	return who.Username.String(), nil
}
