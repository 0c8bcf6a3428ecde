package main

import (
	"crypto/rand"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"custode/authcore"
	"custode/internal/config"
	"custode/internal/fault"
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

// TestNoMobileNoIdentity: a number that no code may go to is refused when it is
// noted, not at the first login; so is an operator's message.
func TestNoMobileNoIdentity(t *testing.T) {
	policy, err := config.Load[config.Policy]("../../docs/examples/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	file, err := config.Load[identityFile]("../../docs/examples/identity.yaml")
	if err != nil {
		t.Fatal(err)
	}
	a := &appliance{policy: policy}
	for _, number := range []string{"+390612345678", "+39893123456", "+447911123456", "+3933312345678"} {
		in := addArgument{identityFile: *file, Password: []byte("Abcd1234!efgh")}
		in.Phone = number
		arg, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.addIdentity(t.Context(), arg, rand.Reader); !fault.Is(err, fault.Denied) {
			t.Errorf("identity with %s: %v", number, err)
		}
		arg, err = json.Marshal(sendArgument{Numbers: []string{"+393471234567", number}, Class: "bulk", Text: []byte("x"), Life: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.send(t.Context(), arg, rand.Reader); !fault.Is(err, fault.Denied) {
			t.Errorf("message to %s: %v", number, err)
		}
		arg, err = json.Marshal(testArgument{Bay: "bay0", Number: number})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.testBay(t.Context(), arg, rand.Reader); !fault.Is(err, fault.Denied) {
			t.Errorf("test to %s: %v", number, err)
		}
	}
}
