package reseal

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/otpvault/device"
	"custode/otpvault/oath"
	"custode/otpvault/otptest"
	"custode/otpvault/seed"
)

// rows are devices in memory.
type rows struct {
	list  []device.Device
	copys map[string][]byte
	moved string // the device that somebody changes meanwhile
}

func (r *rows) DevicesPast(_ context.Context, past string, most int) (out []device.Device, _ error) {
	for _, d := range r.list {
		if d.Serial.String() > past && len(out) < most {
			out = append(out, d)
		}
	}
	return out, nil
}

func (r *rows) Escrow(_ context.Context, s id.Serial) ([]byte, error) {
	if c := r.copys[s.String()]; c != nil {
		return c, nil
	}
	return nil, fault.Newf(fault.NotFound, "read escrow copy", "none")
}

func (r *rows) Reseal(_ context.Context, d device.Device, blob, mac []byte) (bool, error) {
	if d.Serial.String() == r.moved {
		return false, nil
	}
	for i := range r.list {
		if r.list[i].Serial == d.Serial {
			r.list[i].Blob, r.list[i].MAC = blob, mac
		}
	}
	return true, nil
}

// TestReseal: seeds whose copy is genuine come under the new key and give the same
// codes; a copy of another seed, a missing one, a changed row and a finished device are
// left as they are and named.
func TestReseal(t *testing.T) {
	ctx, token := t.Context(), &otptest.Token{}
	key, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "recovery"}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	label := func(s string) id.KeyLabel {
		l, err := id.ParseKeyLabel(s)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	old := seed.Recipe{KEK: label("seed/1"), Mechanism: seed.MechanismAESKeyWrap, KeyType: seed.KeyTypeGenericSecret}
	today := old
	today.KEK = label("seed/2")
	subject, err := id.NewSubject(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	store := &rows{copys: map[string][]byte{}}
	add := func(n int, hash oath.Hash, state device.State, r seed.Recipe) (string, []byte) {
		t.Helper()
		serial, err := id.ParseSerial(fmt.Sprintf("SERIAL%03d", n))
		if err != nil {
			t.Fatal(err)
		}
		secret := make([]byte, 20)
		if _, err := rand.Read(secret); err != nil {
			t.Fatal(err)
		}
		d := device.Device{Serial: serial, Subject: subject, State: state, Parameters: oath.Parameters{Kind: oath.Event, Hash: hash, Digits: 6}, Counter: oath.Begin(0), Created: time.Now()}
		b := seed.Binding{Subject: subject, Serial: serial, Parameters: d.Parameters}
		if store.copys[serial.String()], err = seed.Escrow(rand.Reader, cert, b, secret); err != nil {
			t.Fatal(err)
		}
		sealed, mac, err := seed.Seal(ctx, token, token, r, b, append([]byte(nil), secret...))
		if err != nil {
			t.Fatal(err)
		}
		d.MAC = mac
		if d.Blob, err = sealed.Encode(); err != nil {
			t.Fatal(err)
		}
		store.list = append(store.list, d)
		return serial.String(), secret
	}
	secrets := map[string][]byte{}
	for n, h := range map[int]oath.Hash{1: oath.SHA1, 2: oath.SHA256, 3: oath.SHA512} {
		s, secret := add(n, h, device.Active, old)
		secrets[s] = secret
	}
	add(4, oath.SHA1, device.Active, today)
	add(5, oath.SHA1, device.Revoked, old)
	other, _ := add(6, oath.SHA1, device.Active, old)
	lost, _ := add(7, oath.SHA1, device.Active, old)
	changed, _ := add(8, oath.SHA1, device.Active, old)
	store.moved, _ = add(9, oath.SHA1, device.Active, old)
	// Somebody who writes the database puts a seed of his own, well encrypted, in place of 6's copy.
	six := store.list[len(store.list)-4]
	if six.Serial.String() != other {
		t.Fatal("the test looks at another device")
	}
	if store.copys[other], err = seed.Escrow(rand.Reader, cert, seed.Binding{Subject: subject, Serial: six.Serial, Parameters: six.Parameters}, []byte("a seed of the attacker")); err != nil {
		t.Fatal(err)
	}
	delete(store.copys, lost)
	for i := range store.list {
		if store.list[i].Serial.String() == changed {
			store.list[i].MAC = append([]byte(nil), store.list[i].MAC...)
			store.list[i].MAC[3] ^= 1
		}
	}
	sortBySerial(store.list)
	cfg := Config{Rows: store, Wrapper: token, Binder: token, Matcher: token, Recipe: today, Recovery: key, Certificate: cert}
	p, err := Run(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if p.Seen != 9 || p.Today != 1 || p.Resealed != 3 || p.Final != 1 || p.Left != 4 {
		t.Errorf("%+v", p)
	}
	for serial, why := range map[string]string{other: "of another seed", lost: "no escrow copy", changed: "somebody changed the row", store.moved: "run again"} {
		if !strings.Contains(strings.Join(p.Without, "\n"), serial+": ") || !strings.Contains(strings.Join(p.Without, "\n"), why) {
			t.Errorf("%s is not named with %q: %v", serial, why, p.Without)
		}
	}
	for _, d := range store.list {
		secret := secrets[d.Serial.String()]
		if secret == nil {
			continue
		}
		sealed, err := seed.Decode(d.Blob)
		if err != nil || sealed.KEK != today.KEK {
			t.Errorf("%s is under %s: %v", d.Serial, sealed.KEK, err)
		}
		stored, err := seed.Read(seed.Binding{Subject: subject, Serial: d.Serial, Parameters: d.Parameters}, d.Blob, d.MAC)
		if err != nil {
			t.Fatal(err)
		}
		if same, err := cfg.same(ctx, stored, d.Parameters, secret); err != nil || !same {
			t.Errorf("%s gives other codes: %v", d.Serial, err)
		}
	}
	store.moved = ""
	if p, err = Run(ctx, cfg); err != nil || p.Resealed != 1 || p.Today != 4 {
		t.Errorf("again: %+v %v", p, err)
	}
}

func sortBySerial(list []device.Device) {
	for i := range list {
		for j := i; j > 0 && list[j].Serial.String() < list[j-1].Serial.String(); j-- {
			list[j], list[j-1] = list[j-1], list[j]
		}
	}
}

// TestCode: RFC 4226, appendix D, by its last eight digits.
func TestCode(t *testing.T) {
	for counter, want := range []string{"84755224", "94287082", "37359152", "26969429"} {
		if got := code(oath.Parameters{Hash: oath.SHA1, Digits: 8}, []byte("12345678901234567890"), uint64(counter)); got != want {
			t.Errorf("counter %d: %s, want %s", counter, got, want)
		}
	}
}
