package main

import (
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"custode/authcore"
	"custode/internal/config"
)

// TestIdentityExample keeps docs/examples/identity.yaml acceptable, together
// with the example policy.
func TestIdentityExample(t *testing.T) {
	const examples = "../../docs/examples/"
	f, err := config.Load[identityFile](examples + "identity.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := config.Load[config.Policy](examples + "policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if f.Phone == "" || !strings.HasPrefix(f.Attributes["spidCode"], p.SPIDPrefix) {
		t.Errorf("phone %q, spidCode %q with prefix %s", f.Phone, f.Attributes["spidCode"], p.SPIDPrefix)
	}
	i, err := authcore.NewIdentity(authcore.NewIdentityInput{
		Username: f.Username, Phone: f.Phone, Attributes: f.Attributes, SPIDCode: f.Attributes["spidCode"],
		Random: rand.Reader, Now: time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC),
	})
	if err != nil || i.State != authcore.Active {
		t.Errorf("%v, state %v", err, i.State)
	}
}
