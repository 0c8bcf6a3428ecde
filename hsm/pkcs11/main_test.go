package pkcs11_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"

	"custode/hsm"
	"custode/hsm/hsmtest"
	"custode/hsm/pkcs11"
	"custode/hsm/pkcs11/ceremony"
	"custode/hsm/pkcs11/direct"
	"custode/internal/id"
	"custode/simulators/hsmsim"
)

// The ceremony is a process of its own, in tests too: TestMain is that process
// when this variable holds its URI. (crypto11 and the pool cannot share one, and
// SOFTHSM2_CONF must be right before the module is initialised.)
const ceremonyEnv = "CUSTODE_TEST_CEREMONY"

const testPlan = `
ceremony: test-keys
token:
  label: simulator
keys:
  - label: test/sign
    role: sign
    bits: 2048
    certificate:
      validity-days: 365
      subject:
        common-name: Custode prova
        organization: Esempio S.p.A.
        organization-identifier: VATIT-12345678903
        uri: https://idp.example.it
        country: IT
        locality: Roma
  - label: test/mac
    role: mac
    bits: 256
  - label: test/wrap
    role: wrap
    bits: 256
  - label: test/seed
    role: seed
    bits: 256
`

// tolerant is plan for a token that lacks what NSS lacks.
func tolerant(plan string) string {
	return strings.Replace(plan, "  label: simulator\n", "  label: simulator\n  tolerate: [allowed-mechanisms, local, unwrap-template]\n", 1)
}

func TestMain(m *testing.M) {
	if uri := os.Getenv(ceremonyEnv); uri != "" {
		plan := testPlan
		if os.Getenv(ceremonyEnv+"_TOLERATE") != "" {
			plan = tolerant(plan)
		}
		_, err := ceremony.Run(context.Background(), []byte(plan), uri, os.Getenv(ceremonyEnv+"_DIR"), time.Now)
		if err == nil && os.Getenv(ceremonyEnv+"_BAD") != "" {
			err = makeBadKeys(uri, plan != testPlan)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	dir, err := os.MkdirTemp("", "hsm")
	if err != nil {
		panic(err)
	}
	master.dir = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// master is a token with keys, made once and copied for each test.
var master struct {
	dir  string
	once sync.Once
	sim  *hsmsim.Sim
	err  error
}

func runCeremony(uri string, env []string, dir string, more ...string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(exe)
	cmd.Env = append(append(os.Environ(), env...), ceremonyEnv+"="+uri, ceremonyEnv+"_DIR="+dir)
	for _, m := range more {
		cmd.Env = append(cmd.Env, ceremonyEnv+m+"=1")
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("ceremony: %w: %s", err, out)
	}
	return nil
}

// newSim returns a token of its own with the test plan's keys, and points
// SOFTHSM2_CONF of this process at it.
func newSim(t testing.TB) *hsmsim.Sim {
	t.Helper()
	master.once.Do(func() {
		master.sim, master.err = hsmsim.New(filepath.Join(master.dir, "sim"))
		if master.err == nil {
			master.err = runCeremony(master.sim.URI(), master.sim.Env(), filepath.Join(master.dir, "out"), "_BAD")
		}
	})
	if master.err != nil {
		t.Fatal(master.err)
	}
	s := *master.sim
	dir := filepath.Join(t.TempDir(), "sim")
	if err := os.CopyFS(dir, os.DirFS(s.Dir)); err != nil {
		t.Fatal(err)
	}
	move := func(p *string) { *p = filepath.Join(dir, filepath.Base(*p)) }
	move(&s.Conf)
	move(&s.PINFile)
	move(&s.SOFile)
	conf, err := os.ReadFile(s.Conf)
	if err != nil {
		t.Fatal(err)
	}
	conf = []byte(strings.ReplaceAll(string(conf), s.Dir, dir))
	s.Dir = dir
	// CopyFS makes files by the umask: SoftHSM wants its own back.
	if err := os.WriteFile(s.Conf, conf, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{s.PINFile, s.SOFile} {
		if err := os.Chmod(f, 0o400); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("SOFTHSM2_CONF", s.Conf)
	return &s
}

func label(s string) id.KeyLabel {
	l, err := id.ParseKeyLabel(s)
	if err != nil {
		panic(err)
	}
	return l
}

var signLabel, macLabel, wrapLabel = label("test/sign"), label("test/mac"), label("test/wrap")

// open opens sim's token with an impatient configuration.
func open(t testing.TB, sim *hsmsim.Sim, change ...func(*pkcs11.Config)) *pkcs11.Token {
	t.Helper()
	cfg := pkcs11.Config{URI: sim.URI(), Backoff: time.Millisecond}
	for _, c := range change {
		c(&cfg)
	}
	tok, err := pkcs11.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tok.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return tok
}

func TestConformance(t *testing.T) {
	hsmtest.Run(t, func(t *testing.T) hsmtest.Backend {
		sim := newSim(t)
		tok := open(t, sim)
		return hsmtest.Backend{
			Token: tok, Sign: signLabel, MAC: macLabel, Wrap: wrapLabel, Seed: seedLabel, Refused: badKeys(),
			DropSessions: func() error { return tok.Module().CloseAllSessions(tok.Slot()) },
			Logout:       tok.LogoutBehind,
			Remove:       sim.Remove,
			Restore:      sim.Restore,
		}
	})
}

// The suite again with callers that wait for the module: misfortunes are repaired all the same.
func TestConformanceCallersWait(t *testing.T) {
	hsmtest.Run(t, func(t *testing.T) hsmtest.Backend {
		sim := newSim(t)
		tok := open(t, sim, func(c *pkcs11.Config) { c.CallersWait = true })
		return hsmtest.Backend{
			Token: tok, Sign: signLabel, MAC: macLabel, Wrap: wrapLabel, Seed: seedLabel,
			DropSessions: func() error { return tok.Module().CloseAllSessions(tok.Slot()) }, Logout: tok.LogoutBehind, Remove: sim.Remove, Restore: sim.Restore,
		}
	})
}

// badKeys lists what makeBadKeys makes.
func badKeys() []hsmtest.Refused {
	return []hsmtest.Refused{
		{Label: label("bad/extractable"), Role: hsm.RoleMAC, Names: "CKA_EXTRACTABLE"},
		{Label: label("bad/clear"), Role: hsm.RoleMAC, Names: "CKA_SENSITIVE"},
		{Label: label("bad/unwrap"), Role: hsm.RoleWrap, Names: "CKA_UNWRAP"},
		{Label: label("bad/any-mechanism"), Role: hsm.RoleWrap, Names: "CKA_ALLOWED_MECHANISMS"},
		{Label: label("bad/decrypt"), Role: hsm.RoleSign, Names: "CKA_DECRYPT"},
		{Label: label("bad/keyid"), Role: hsm.RoleSign, Names: "CKA_ID"},
		{Label: label("bad/imported"), Role: hsm.RoleMAC, Names: "CKA_LOCAL"},
		{Label: label("bad/no-template"), Role: hsm.RoleSeed, Names: "CKA_UNWRAP_TEMPLATE"},
		{Label: label("bad/seed-decrypt"), Role: hsm.RoleSeed, Names: "CKA_DECRYPT"},
		{Label: label("test/wrap"), Role: hsm.RoleSeed, Names: "CKA_WRAP"},
		{Label: label("bad/twice"), Role: hsm.RoleMAC, Names: "twice"},
	}
}

// template is what a key of the role is made from, with changes.
func template(name string, role hsm.Role, changes ...*p11.Attribute) []*p11.Attribute {
	attrs := []*p11.Attribute{
		p11.NewAttribute(p11.CKA_LABEL, name), p11.NewAttribute(p11.CKA_ID, []byte(rand.Text())[:hsm.KeyIDLen]),
		p11.NewAttribute(p11.CKA_ALLOWED_MECHANISMS, pkcs11.AllowedMechanisms(role)),
	}
	for _, r := range hsm.Rules(role) {
		if r.Set {
			attrs = append(attrs, p11.NewAttribute(pkcs11.AttributeType(r.Attribute), r.Want))
		}
	}
	for _, c := range changes {
		for i := range attrs {
			if attrs[i].Type == c.Type {
				attrs[i] = c
			}
		}
	}
	return attrs
}

// heeded is the unwrap template, of which NSS knows nothing.
func heeded(nss bool) []*p11.Attribute {
	if nss {
		return nil
	}
	return []*p11.Attribute{p11.NewAttribute(p11.CKA_UNWRAP_TEMPLATE, direct.UnwrapTemplate())}
}

// makeBadKeys puts keys that break the policy in one way each into the token;
// nss leaves out the ways of which NSS knows nothing.
func makeBadKeys(uri string, nss bool) error {
	loc, err := pkcs11.ParseLocation(uri)
	if err != nil {
		return err
	}
	pin, err := loc.ReadPIN()
	if err != nil {
		return err
	}
	mod := p11.New(loc.Module)
	if err := mod.Initialize(); err != nil {
		return err
	}
	defer mod.Finalize()
	slots, err := mod.GetSlotList(true)
	if err != nil {
		return err
	}
	// The first slot of NSS is not the token's.
	slot := slots[0]
	if nss {
		slot = slots[1]
	}
	s, err := mod.OpenSession(slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err != nil {
		return err
	}
	if err := mod.Login(s, p11.CKU_USER, string(pin)); err != nil {
		return err
	}
	fit := func(attrs []*p11.Attribute) []*p11.Attribute {
		return slices.DeleteFunc(attrs, func(a *p11.Attribute) bool { return nss && a.Type == p11.CKA_ALLOWED_MECHANISMS })
	}
	secret := func(mech uint, attrs []*p11.Attribute) error {
		attrs = fit(attrs)
		_, err := mod.GenerateKey(s, []*p11.Mechanism{p11.NewMechanism(mech, nil)}, append(attrs, p11.NewAttribute(p11.CKA_VALUE_LEN, 32)))
		return err
	}
	pair := func(attrs []*p11.Attribute) error {
		attrs = fit(attrs)
		_, _, err := mod.GenerateKeyPair(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_RSA_PKCS_KEY_PAIR_GEN, nil)}, []*p11.Attribute{
			p11.NewAttribute(p11.CKA_TOKEN, true), p11.NewAttribute(p11.CKA_MODULUS_BITS, 2048), p11.NewAttribute(p11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}),
		}, attrs)
		return err
	}
	for _, err := range []error{
		secret(p11.CKM_GENERIC_SECRET_KEY_GEN, template("bad/extractable", hsm.RoleMAC, p11.NewAttribute(p11.CKA_EXTRACTABLE, true))),
		secret(p11.CKM_GENERIC_SECRET_KEY_GEN, template("bad/clear", hsm.RoleMAC, p11.NewAttribute(p11.CKA_SENSITIVE, false))),
		secret(p11.CKM_AES_KEY_GEN, template("bad/unwrap", hsm.RoleWrap, p11.NewAttribute(p11.CKA_UNWRAP, true))),
		secret(p11.CKM_AES_KEY_GEN, template("bad/any-mechanism", hsm.RoleWrap, p11.NewAttribute(p11.CKA_ALLOWED_MECHANISMS,
			append(pkcs11.AllowedMechanisms(hsm.RoleWrap), pkcs11.AllowedMechanisms(hsm.RoleMAC)...)))),
		pair(template("bad/decrypt", hsm.RoleSign, p11.NewAttribute(p11.CKA_DECRYPT, true))),
		pair(template("bad/keyid", hsm.RoleSign)),
		secret(p11.CKM_AES_KEY_GEN, template("bad/no-template", hsm.RoleSeed)),
		secret(p11.CKM_AES_KEY_GEN, append(template("bad/seed-decrypt", hsm.RoleSeed, p11.NewAttribute(p11.CKA_DECRYPT, true)), heeded(nss)...)),
		secret(p11.CKM_GENERIC_SECRET_KEY_GEN, template("bad/twice", hsm.RoleMAC)),
		secret(p11.CKM_GENERIC_SECRET_KEY_GEN, template("bad/twice", hsm.RoleMAC)),
	} {
		if err != nil {
			return err
		}
	}
	_, err = mod.CreateObject(s, append(fit(template("bad/imported", hsm.RoleMAC)),
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY), p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_GENERIC_SECRET),
		p11.NewAttribute(p11.CKA_VALUE, []byte(rand.Text() + rand.Text())[:32])))
	return err
}
