package passrule

import (
	"context"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"custode/authcore"
	"custode/authcore/passhash"
	"custode/internal/fault"
)

func TestCheckPassword(t *testing.T) {
	about, err := authcore.NewIdentity(authcore.NewIdentityInput{Username: "mario.rossi@example.org", SPIDCode: "ABCD0000000001",
		Phone: "+393331234567", Random: rand.Reader, Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	about.Attributes = map[string]string{"name": "Maria José", "familyName": "D'Angelo Li", "dateOfBirth": "1980-02-01",
		"fiscalNumber": "TINIT-RSSMRA80A01H501U", "ivaCode": "VATIT-12345678903", "idCard": "cartaIdentita CA12345AA comuneRoma 2020-01-01 2030-01-01"}
	for _, c := range []struct {
		password string
		want     []PasswordRule
	}{
		{"Zebra#42x", nil},
		{"Žluť-7kůň", nil},
		{"aA1!aA1!", nil},
		{"Aabb#1122", nil},
		{"xLi#42Zebra", nil}, // two letters of a name are no name
		{"Zebra\u20ac42x", nil},
		{"", []PasswordRule{RuleShort, RuleLower, RuleUpper, RuleDigit, RuleSpecial}},
		{"aA1!aA1", []PasswordRule{RuleShort}},
		{"zebra#42x", []PasswordRule{RuleUpper}},
		{"ZEBRA#42X", []PasswordRule{RuleLower}},
		{"Zebra#xyz", []PasswordRule{RuleDigit}},
		{"Zebra42xy", []PasswordRule{RuleSpecial}},
		{"Zebra 42xy", []PasswordRule{RuleSpecial}},
		{"Zebraaa#42", []PasswordRule{RuleRepeat}},
		{"###Zebra42", []PasswordRule{RuleRepeat}},
		{"Zebra#42\x00", []PasswordRule{RuleText}},
		{"Zebra#42\xff", []PasswordRule{RuleText}},
		{"Zebra#42" + strings.Repeat("xy", 64), []PasswordRule{RuleLong}},
		{strings.Repeat("x", 1<<20), []PasswordRule{RuleLong}},
		{"Mario.Rossi#42", []PasswordRule{RuleUsername}},
		{"#M-a-R-i-O-rossi1", []PasswordRule{RuleUsername}},
		{"x#RSSMRA80A01H501U", []PasswordRule{RuleFiscalCode}},
		{"#vrdGPP75b02f205z", []PasswordRule{RuleFiscalCode}}, // anybody's
		{"Zebra#12345678903", []PasswordRule{RuleFiscalCode}},
		{"#7JosePepper", []PasswordRule{RuleName}},
		{"#7JOSÉpepper", []PasswordRule{RuleName}},
		{"#7dangeloPEP", []PasswordRule{RuleName}},
		{"Zebra#01021980", []PasswordRule{RuleDate}},
		{"Zebra#01/02/80", []PasswordRule{RuleDate}},
		{"Zebra#800201", []PasswordRule{RuleDate}},
		{"Zebra#0-1-0-2-8-0", []PasswordRule{RuleDate}},
		{"Zebra#1-2-1980", []PasswordRule{RuleDate}},
		{"Zebra#31.12.1989", []PasswordRule{RuleDate}}, // anybody's
		{"Zebra#20241231x", []PasswordRule{RuleDate}},
		{"Zebra#ca12345aa", []PasswordRule{RuleDocument}},
		{"Zebra#3331234567", []PasswordRule{RuleRepeat, RuleDocument}},
	} {
		err := CheckPassword(c.password, about)
		if diff := cmp.Diff(c.want, BrokenRules(err)); diff != "" {
			t.Errorf("%.40q (-want +got):\n%s", c.password, diff)
		}
		if err == nil {
			continue
		}
		if !fault.Is(err, fault.Invalid) || fault.Public(err) == "" || (len(c.password) > 3 && strings.Contains(err.Error(), c.password)) {
			t.Errorf("%.40q: error %v", c.password, err)
		}
		for _, r := range BrokenRules(err) {
			if r.sentence() == string(r) {
				t.Errorf("rule %s has no sentence", r)
			}
		}
	}
	if BrokenRules(CheckPassword("Zebra#42x", authcore.Identity{})) != nil {
		t.Error("an identity without attributes forbids a password")
	}
}

// FuzzCheckPassword: no password panics, and what is accepted can be hashed.
func FuzzCheckPassword(f *testing.F) {
	f.Add("Zebra#42x", "mario", "Mario")
	f.Add("\xff\x00", "", "")
	hasher, err := passhash.New(passhash.Config{Pepper: pepper{}, Random: rand.Reader, Cost: passhash.Cost{Memory: 8, Time: 1, Threads: 1}})
	if err != nil {
		f.Fatal(err)
	}
	who, err := authcore.NewIdentity(authcore.NewIdentityInput{Username: "x", SPIDCode: "ABCD0000000001", Random: rand.Reader, Now: time.Now()})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, password, given, date string) {
		err := CheckPassword(password, authcore.Identity{Attributes: map[string]string{"name": given, "dateOfBirth": date, "idCard": given}})
		if err != nil {
			return
		}
		if _, err := hasher.Hash(t.Context(), who.Subject, password); err != nil {
			t.Errorf("%q keeps the rules but cannot be hashed: %v", password, err)
		}
	})
}

type pepper struct{}

func (pepper) MAC(context.Context, []byte) ([]byte, error) { return make([]byte, 32), nil }
