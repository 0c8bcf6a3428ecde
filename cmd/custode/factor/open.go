package factor

import (
	"io"
	"log/slog"
	"time"

	"custode/cmd/custode/notifier"
	"custode/hsm"
	"custode/internal/config"
	"custode/internal/id"
	"custode/internal/store"
	"custode/otpvault/issuing"
	"custode/otpvault/proof"
	"custode/otpvault/seed"
)

// Token is what OATH secrets need of the token.
type Token interface {
	hsm.SecretKey
	hsm.CodeMatcher
	MAC(label id.KeyLabel) (hsm.MAC, error)
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
	judge := proof.Config{Devices: c.DB, Store: c.DB, Matcher: matcher, MAC: c.Codes, Wrapper: c.Wrapper, Random: c.Random, Now: time.Now, Log: c.Log}
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
	recipe := seed.Recipe{KEK: c.Policy.Keys.Seed, Mechanism: seed.MechanismAESKeyWrap, KeyType: seed.KeyTypeGenericSecret}
	if c.Machine.HSM.Seeds == "decrypt" {
		recipe.Mechanism = seed.MechanismAESGCM
	}
	office, err := issuing.New(issuing.Config{Devices: c.DB, Activations: c.DB, Emergencies: c.DB, Wrapper: c.Token, Binder: binder, Matcher: matcher,
		MAC: c.Codes, Keys: c.Wrapper, Recipe: recipe, Random: c.Random, Now: time.Now, Log: c.Log, Issuer: c.Policy.Organization.DisplayName})
	return Ways{Desk: desk, Choices: c.DB, Now: time.Now}, office, err
}
