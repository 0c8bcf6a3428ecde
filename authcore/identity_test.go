package authcore

import (
	"crypto/rand"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"custode/authcore/saml"
	"custode/internal/fault"
)

func input() NewIdentityInput {
	return NewIdentityInput{Username: " Mario.Rossi ", SPIDCode: "ABCD1234567890", Phone: "333 1234567", Random: rand.Reader, Now: start,
		Attributes: map[string]string{"name": "Mario", "fiscalNumber": "RSSMRA80A01H501U", "digitalAddress": "", "spidCode": "ABCD1234567890"}}
}

func TestNewIdentity(t *testing.T) {
	in := input()
	who, err := NewIdentity(in)
	must(t, who, err)
	if who.Subject.IsZero() || who.Username.String() != "mario.rossi" || who.State != Active || who.Phone.String() != "+393331234567" || who.Password != "" {
		t.Errorf("identity %+v", who)
	}
	if diff := cmp.Diff(map[string]string{"name": "Mario", "fiscalNumber": "TINIT-RSSMRA80A01H501U"}, who.Attributes); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
	in.Attributes["name"] = "Luigi"
	if who.Attributes["name"] != "Mario" {
		t.Error("the identity shares its input's map")
	}
	for name, spoil := range map[string]func(*NewIdentityInput){
		"username":   func(in *NewIdentityInput) { in.Username = "a b" },
		"SPID code":  func(in *NewIdentityInput) { in.SPIDCode = "x" },
		"phone":      func(in *NewIdentityInput) { in.Phone = "12" },
		"attribute":  func(in *NewIdentityInput) { in.Attributes = map[string]string{"shoeSize": "42"} },
		"value":      func(in *NewIdentityInput) { in.Attributes = map[string]string{"gender": "X"} },
		"other code": func(in *NewIdentityInput) { in.Attributes = map[string]string{"spidCode": "ABCD1234567891"} },
		"no time":    func(in *NewIdentityInput) { in.Now = start.AddDate(-9999, 0, 0).Truncate(0); in.Random = nil },
		"dry":        func(in *NewIdentityInput) { in.Random = strings.NewReader("x") },
	} {
		in := input()
		spoil(&in)
		if _, err := NewIdentity(in); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestStates(t *testing.T) {
	active := Identity{State: Active}
	suspended, err := active.Suspend("reported stolen")
	must(t, suspended, err)
	revoked, err := suspended.Revoke("asked for")
	must(t, revoked, err)
	back, err := suspended.Restore()
	must(t, back, err)
	if suspended.State != Suspended || suspended.Reason == "" || revoked.State != Revoked || back.State != Active || back.Reason != "" || active.State != Active {
		t.Errorf("%+v %+v %+v", suspended, revoked, back)
	}
	if direct, err := active.Revoke("asked for"); err != nil || direct.State != Revoked {
		t.Errorf("revoke an active identity: %v", err)
	}
	for name, do := range map[string]func() (Identity, error){
		"suspend suspended": func() (Identity, error) { return suspended.Suspend("x") },
		"suspend revoked":   func() (Identity, error) { return revoked.Suspend("x") },
		"restore active":    func() (Identity, error) { return active.Restore() },
		"restore revoked":   func() (Identity, error) { return revoked.Restore() },
		"revoke revoked":    func() (Identity, error) { return revoked.Revoke("x") },
	} {
		if _, err := do(); !fault.Is(err, fault.Conflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, reason := range map[string]string{"none": " ", "lines": "a\nb", "long": strings.Repeat("x", 201)} {
		if _, err := active.Suspend(reason); !fault.Is(err, fault.Invalid) {
			t.Errorf("reason %s: %v", name, err)
		}
	}
}

func TestAssemble(t *testing.T) {
	in := input()
	in.Attributes["mobilePhone"] = "+393339999999"
	who, err := NewIdentity(in)
	must(t, who, err)
	got, empty := who.assemble(saml.Request{HasAttributes: true, Attributes: []string{"mobilePhone", "x", "x"}})
	if diff := cmp.Diff([]saml.Attribute{{Name: "mobilePhone", Value: "+393339999999"}, {Name: "x"}}, got); diff != "" {
		t.Errorf("an attribute beats what is derived (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"x"}, empty); diff != "" {
		t.Errorf("empty names (-want +got):\n%s", diff)
	}
	if got, _ := who.assemble(saml.Request{Attributes: []string{"name"}}); got != nil {
		t.Errorf("attributes without an index: %v", got)
	}
}
