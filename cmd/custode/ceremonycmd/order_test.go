package ceremonycmd

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"custode/hsm/order"
	"custode/internal/config"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store"
)

// fakeHost is a command line with a machine file, or an error instead.
type fakeHost struct {
	machine *config.Machine
	err     error
}

func (h fakeHost) MachineFile() (*config.Machine, error) { return h.machine, h.err }
func (fakeHost) PolicyFile() (*config.Policy, error)     { return nil, os.ErrNotExist }
func (fakeHost) Ask(string, any) error                   { return nil }
func (fakeHost) Offline(func(*store.DB) error) error     { return nil }
func (fakeHost) WithoutCoreDumps() error                 { return nil }

// TestControl: who decides how many must approve, and that nobody gets by it: not by
// another command line, not by a plan that asks for fewer, not by a machine file that
// cannot be read.
func TestControl(t *testing.T) {
	dir := t.TempDir()
	machine := &config.Machine{Ceremony: config.Ceremony{Approvals: 2}}
	o, err := order.New(order.Order{Operation: order.PIN, Token: "custode", Reason: "yearly", Expires: time.Now().Add(time.Hour)}, time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, text []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	flags := orderFlags{Order: write("order", o.Text())}
	for _, name := range []string{"anna", "bruno"} {
		public, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		pemFile := write(name+".pem", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
		machine.Ceremony.Operators = append(machine.Ceremony.Operators, config.Operator{Name: name, PublicKey: pemFile})
		file, err := order.Approve(o, name, key, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		flags.Approval = append(flags.Approval, write(name+".approval", file))
	}
	want := order.Order{Operation: order.PIN, Token: "custode"}
	got, err := flags.check(fakeHost{machine: machine}, want, 0)
	if err != nil || strings.Join(got.by, " ") != "anna bruno" || !strings.Contains(got.said(), o.Digest()) {
		t.Fatal(got, err)
	}
	one := orderFlags{Order: flags.Order, Approval: flags.Approval[:1]}
	none := &config.Machine{}
	for name, c := range map[string]struct {
		flags orderFlags
		host  fakeHost
		want  order.Order
		plan  int
	}{
		"no order":                {orderFlags{}, fakeHost{machine: machine}, want, 0},
		"one approval":            {one, fakeHost{machine: machine}, want, 0},
		"the plan wants three":    {flags, fakeHost{machine: machine}, want, 3},
		"another token":           {flags, fakeHost{machine: machine}, order.Order{Operation: order.PIN, Token: "other"}, 0},
		"another operation":       {flags, fakeHost{machine: machine}, order.Order{Operation: order.Destroy, Token: "custode"}, 0},
		"the plan wants, no file": {flags, fakeHost{err: fault.New(fault.Fatal, "read", os.ErrNotExist)}, want, 1},
		"an order, no operators":  {flags, fakeHost{machine: none}, want, 0},
	} {
		if _, err := c.flags.check(c.host, c.want, c.plan); !fault.Is(err, fault.Denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := (orderFlags{}).check(fakeHost{err: fault.Newf(fault.Invalid, "read", "damaged")}, want, 0); !fault.Is(err, fault.Invalid) {
		t.Errorf("a machine file that cannot be read: %v", err)
	}
	free, err := orderFlags{}.check(fakeHost{machine: none}, want, 0)
	if err != nil || free.said() != "NO DUAL CONTROL" {
		t.Errorf("nobody asks for approvals: %v %v", free, err)
	}
}

// TestPrivateKey: a key that others can read, or that is none, is refused, and its
// octets are in no error.
func TestPrivateKey(t *testing.T) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	good := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	for name, c := range map[string]struct {
		text []byte
		mode os.FileMode
		kind fault.Kind
	}{"open": {good, 0o640, fault.Fatal}, "no PEM": {der, 0o600, fault.Invalid}, "another form": {pem.EncodeToMemory(&pem.Block{Type: "X", Bytes: []byte("secret")}), 0o600, fault.Invalid}} {
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, c.text, c.mode); err != nil {
			t.Fatal(err)
		}
		if _, err := privateKey(path); !fault.Is(err, c.kind) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := privateKey(path); err != nil || !private.Equal(got) {
		t.Error(err)
	}
}

// TestPDF: the same report gives the same octets, and long ones have several pages.
func TestPDF(t *testing.T) {
	at := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	text := "CUSTODE KEY CEREMONY REPORT\n" + strings.Repeat("line – with a dash\n", 200)
	one, err := renderPDF(text, at)
	if err != nil {
		t.Fatal(err)
	}
	two, err := renderPDF(text, at)
	if err != nil || string(one) != string(two) || !strings.HasPrefix(string(one), "%PDF-") || strings.Count(string(one), "/Type /Page\n") < 3 {
		t.Error(err, len(one), strings.Count(string(one), "/Type /Page\n"))
	}
}

// TestTellWantsTheMachineFile: a machine file that is there and cannot be read is no
// reason to leave the security log out.
func TestTellWantsTheMachineFile(t *testing.T) {
	if err := tell(t.Context(), fakeHost{err: fault.Newf(fault.Invalid, "read", "damaged")}, "request", "x"); !fault.Is(err, fault.Invalid) {
		t.Errorf("a damaged one: %v", err)
	}
	if err := tell(t.Context(), fakeHost{err: fault.New(fault.Fatal, "read", os.ErrNotExist)}, "request", "x"); err != nil {
		t.Errorf("none: %v", err)
	}
}

// TestOneOfSeveralKeys: an order to destroy may list several keys, each destroyed by
// a command of its own, and no other one.
func TestOneOfSeveralKeys(t *testing.T) {
	one, two, three := key(t, "a/1"), key(t, "a/2"), key(t, "a/3")
	o, err := order.New(order.Order{Operation: order.Destroy, Token: "custode", Keys: []id.KeyLabel{one, two}, Reason: "old", Expires: time.Now().Add(time.Hour)}, time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "order")
	if err := os.WriteFile(path, o.Text(), 0o600); err != nil {
		t.Fatal(err)
	}
	for label, listed := range map[id.KeyLabel]bool{one: true, two: true, three: false} {
		_, err := orderFlags{Order: path}.check(fakeHost{machine: &config.Machine{}}, order.Order{Operation: order.Destroy, Token: "custode", Keys: []id.KeyLabel{label}}, 0)
		// Nobody approved it, so a listed key comes as far as that.
		if !fault.Is(err, fault.Denied) || strings.Contains(err.Error(), "0 of 1 approvals") != listed {
			t.Errorf("%s: %v", label, err)
		}
	}
}

func key(t *testing.T, s string) id.KeyLabel {
	t.Helper()
	l, err := id.ParseKeyLabel(s)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestOwnPINFile: primary and standby must not share the file that a change of the PIN
// replaces.
func TestOwnPINFile(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(dir, "a"), filepath.Join(dir, "c")); err != nil {
		t.Fatal(err)
	}
	uri := func(name string) string {
		return "pkcs11:token=custode?module-path=/usr/lib/x.so&pin-source=file:" + filepath.Join(dir, name)
	}
	for standby, shared := range map[string]bool{"a": true, "b": false, "c": true, "": false} {
		m := &config.Machine{HSM: config.HSM{URI: uri("a")}}
		if standby != "" {
			m.HSM.Standby.URI = uri(standby)
		}
		if err := ownPINFile(fakeHost{machine: m}, m.HSM.URI); fault.Is(err, fault.Denied) != shared || err != nil && !shared {
			t.Errorf("standby %q: %v", standby, err)
		}
	}
}
