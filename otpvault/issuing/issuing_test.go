package issuing_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store/otpstore"
	"custode/internal/store/storetest"
	"custode/otpvault/device"
	"custode/otpvault/enrol"
	"custode/otpvault/issuing"
	"custode/otpvault/oath"
	"custode/otpvault/otptest"
	"custode/otpvault/pskc"
	"custode/otpvault/seed"
	"custode/simulators/appsim"
)

// bench is an Office on a real database with a token in memory and a clock.
type bench struct {
	*issuing.Office
	t       *testing.T
	cfg     issuing.Config
	db      *otpstore.DB
	token   *otptest.Token
	now     time.Time
	subject id.Subject
	active  error // of the account
}

func must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (b *bench) Account(context.Context, id.Subject) (string, error) { return "ada.lovati", b.active }

func newBench(t *testing.T) *bench {
	t.Helper()
	subject, err := id.NewSubject(rand.Reader)
	b := &bench{t: t, db: otpstore.New(storetest.Open(t)), token: &otptest.Token{}, now: time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC), subject: must(t, subject, err)}
	kek, err := id.ParseKeyLabel("custode/seed/1")
	b.cfg = issuing.Config{Devices: b.db, Activations: b.db, Emergencies: b.db, Accounts: b, Wrapper: b.token, Binder: b.token, Matcher: b.token,
		MAC: b.token, Keys: b.token, Recipe: seed.Recipe{KEK: must(t, kek, err), Mechanism: seed.MechanismAESKeyWrap, KeyType: seed.KeyTypeGenericSecret},
		Random: rand.Reader, Now: func() time.Time { return b.now }, Log: slog.New(slog.DiscardHandler)}
	office, err := issuing.New(b.cfg)
	b.Office = must(t, office, err)
	return b
}

func (b *bench) because() device.Change { return device.Change{Actor: "op", Reason: "test", At: b.now} }

func (b *bench) wants(what string, err error, kind fault.Kind) {
	b.t.Helper()
	if !fault.Is(err, kind) {
		b.t.Errorf("%s: %v, want %v", what, err, kind)
	}
}

func (b *bench) state(s id.Serial, want device.State) device.Device {
	b.t.Helper()
	d, err := b.db.Device(b.t.Context(), s)
	if err != nil || d.State != want {
		b.t.Fatalf("%v %v, want %v", d.State, err, want)
	}
	return d
}

const secret = "12345678901234567890"

func delivery(n int) pskc.Batch {
	var batch pskc.Batch
	for i := range n {
		s, err := id.ParseSerial("FT-" + string(rune('A'+i)))
		if err != nil {
			panic(err)
		}
		batch.Keys = append(batch.Keys, pskc.Key{Serial: s, Manufacturer: "Ditta", Seed: []byte(secret),
			Parameters: oath.Parameters{Kind: oath.Event, Hash: oath.SHA1, Digits: 6}, Counter: 5})
	}
	return batch
}

func hotp(counter uint64) string { return otptest.Code(sha1.New, []byte(secret), counter, 6) }

func totp(at time.Time, key []byte) string {
	return otptest.Code(sha1.New, key, uint64(at.Unix()/30), 6)
}

// TestHardware is the life of a delivered device.
func TestHardware(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	batch := delivery(3)
	var seeds [][]byte
	for _, k := range batch.Keys {
		seeds = append(seeds, k.Seed)
	}
	serials, err := b.Import(ctx, batch, b.because())
	if err != nil || len(serials) != 3 {
		t.Fatal(serials, err)
	}
	for _, k := range seeds {
		if !bytes.Equal(k, make([]byte, len(secret))) {
			t.Error("a seed was left")
		}
	}
	_, err = b.Import(ctx, delivery(1), b.because())
	b.wants("imported twice", err, fault.Conflict)
	s := serials[1]
	b.wants("to nobody", b.Assign(ctx, s, id.Subject{}, b.because()), fault.Conflict)
	_, err = b.Activate(ctx, s, hotp(5), "", b.because())
	b.wants("activated in the drawer", err, fault.Conflict)
	if err := b.Assign(ctx, s, b.subject, b.because()); err != nil {
		t.Fatal(err)
	}
	b.wants("assigned twice", b.Assign(ctx, s, b.subject, b.because()), fault.Conflict)
	b.wants("resynchronised before activation", b.Resync(ctx, s, hotp(5), hotp(6)), fault.Denied)
	_, err = b.Activate(ctx, s, "12345", "", b.because())
	b.wants("no code", err, fault.Invalid)
	_, err = b.Activate(ctx, s, "000000", "", b.because())
	b.wants("wrong code", err, fault.Denied)
	_, err = b.Activate(ctx, s, hotp(60), "", b.because())
	b.wants("one far code", err, fault.Denied)
	if d := b.state(s, device.Delivered); d.Counter.Failures != 2 {
		t.Errorf("%+v", d.Counter)
	}
	b.token.Fail(fault.New(fault.Unavailable, "x", nil))
	_, err = b.Activate(ctx, s, hotp(60), hotp(61), b.because())
	b.wants("token down", err, fault.Unavailable)
	b.token.Fail(nil)
	if _, err = b.Activate(ctx, s, hotp(60), hotp(61), b.because()); err != nil {
		t.Fatal(err)
	}
	if d := b.state(s, device.Active); d.Counter.Next != 62 || d.Activated.IsZero() {
		t.Errorf("%+v", d)
	}
	b.wants("the same pair", b.Resync(ctx, s, hotp(60), hotp(61)), fault.Denied)
	if err := b.Resync(ctx, s, hotp(150), hotp(151)); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		_ = b.Resync(ctx, s, "000000", "000000")
	}
	b.state(s, device.Blocked)
	b.wants("a blocked device", b.Resync(ctx, s, hotp(152), hotp(153)), fault.Denied)
	if err := b.Unblock(ctx, s, b.because()); err != nil {
		t.Fatal(err)
	}
	b.wants("unblocked twice", b.Unblock(ctx, s, b.because()), fault.Conflict)
	suspend := func(d device.Device) (device.Move, error) { return d.Suspend(b.because()) }
	if err := b.Move(ctx, s, suspend); err != nil {
		t.Fatal(err)
	}
	if err := b.Unblock(ctx, s, b.because()); err != nil {
		t.Fatal(err)
	}
	b.state(s, device.Active)
}

// TestTenWrongActivations: guessing at the activation blocks the device before it ever counted.
func TestTenWrongActivations(t *testing.T) {
	b := newBench(t)
	serials, err := b.Import(t.Context(), delivery(1), b.because())
	must(t, serials, err)
	if err := b.Assign(t.Context(), serials[0], b.subject, b.because()); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		_, err := b.Activate(t.Context(), serials[0], "000000", "", b.because())
		b.wants("wrong", err, fault.Denied)
	}
	b.state(serials[0], device.Blocked)
	_, err = b.Activate(t.Context(), serials[0], hotp(5), "", b.because())
	b.wants("the right one, too late", err, fault.Denied)
	if err := b.Unblock(t.Context(), serials[0], b.because()); err != nil {
		t.Fatal(err)
	}
	b.state(serials[0], device.Delivered)
}

// TestRowOfAnother: a device whose row was changed by other means is assigned to nobody.
func TestRowOfAnother(t *testing.T) {
	b := newBench(t)
	serials, err := b.Import(t.Context(), delivery(1), b.because())
	must(t, serials, err)
	d := b.state(serials[0], device.Created)
	d.Serial, err = id.ParseSerial("FT-Z")
	must(t, d, err)
	if err := b.db.AddDevices(t.Context(), []device.Device{d}, b.because()); err != nil {
		t.Fatal(err)
	}
	b.wants("a copied blob", b.Assign(t.Context(), d.Serial, b.subject, b.because()), fault.Denied)
}

func TestQR(t *testing.T) {
	b := newBench(t)
	serial, uri, err := b.EnrolURI(t.Context(), b.subject, b.because())
	if err != nil {
		t.Fatal(err)
	}
	var app appsim.App
	if err := app.Scan(string(uri)); err != nil || app.Account != "ada.lovati" || app.Issuer != "Custode" {
		t.Fatal(app, err)
	}
	code := totp(b.now, app.Secret)
	b.now = b.now.Add(enrol.Window)
	_, err = b.Activate(t.Context(), serial, totp(b.now, app.Secret), "", b.because())
	b.wants("after the window", err, fault.Expired)
	b.now = b.now.Add(-enrol.Window)
	if _, err := b.Activate(t.Context(), serial, code, "", b.because()); err != nil {
		t.Fatal(err)
	}
	b.state(serial, device.Active)
	b.active = fault.New(fault.Denied, "x", nil)
	_, _, err = b.EnrolURI(t.Context(), b.subject, b.because())
	b.wants("an identity that is not active", err, fault.Denied)
	_, _, err = b.EnrolURI(t.Context(), id.Subject{}, b.because())
	b.wants("nobody", err, fault.Invalid)
}

// TestActivationCode: single use, three tries, thirty minutes, and the app opens what it gets.
func TestActivationCode(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	app := &appsim.App{}
	key, err := app.PublicKey()
	must(t, key, err)
	serial, code, err := b.EnrolCode(ctx, b.subject)
	if err != nil {
		t.Fatal(err)
	}
	unknown, err := id.ParseSerial("APP-X")
	must(t, unknown, err)
	for what, c := range map[string]struct {
		serial id.Serial
		code   string
		key    []byte
		kind   fault.Kind
	}{
		"unknown":    {unknown, code, key, fault.Denied},
		"short key":  {serial, code, key[1:], fault.Invalid},
		"zero key":   {serial, code, make([]byte, 32), fault.Invalid},
		"no code":    {serial, "hello", key, fault.Invalid},
		"wrong code": {serial, strings.Repeat("A", 16), key, fault.Denied},
	} {
		_, _, err := b.Redeem(ctx, c.serial, c.code, c.key)
		b.wants(what, err, c.kind)
	}
	b.now = b.now.Add(enrol.Window)
	_, _, err = b.Redeem(ctx, serial, code, key)
	b.wants("too late", err, fault.Expired)
	b.now = b.now.Add(-time.Second)
	whose, parcel, err := b.Redeem(ctx, serial, code, key)
	if whose != b.subject {
		t.Errorf("the device of %s", whose)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := app.Receive(parcel, serial.String(), code); err != nil {
		t.Fatal(err)
	}
	_, _, err = b.Redeem(ctx, serial, code, key)
	b.wants("twice", err, fault.Conflict)
	b.state(serial, device.Delivered)
	_, err = b.Confirm(ctx, serial, "000000")
	b.wants("wrong first code", err, fault.Denied)
	_, err = b.Confirm(ctx, unknown, "000000")
	b.wants("of nothing", err, fault.Denied)
	if s, err := b.Confirm(ctx, serial, totp(b.now, app.Secret)); err != nil || s != b.subject {
		t.Fatal(s, err)
	}
	b.state(serial, device.Active)
	// Three wrong tries end another one.
	serial, code, err = b.EnrolCode(ctx, b.subject)
	must(t, code, err)
	for range enrol.ActivationTries {
		_, _, err := b.Redeem(ctx, serial, strings.Repeat("A", 16), key)
		b.wants("wrong", err, fault.Denied)
	}
	_, _, err = b.Redeem(ctx, serial, code, key)
	b.wants("the right one, too late", err, fault.Exhausted)
}

// TestRedeemRace: of many apps with one code one gets a device.
func TestRedeemRace(t *testing.T) {
	b := newBench(t)
	serial, code, err := b.EnrolCode(t.Context(), b.subject)
	must(t, code, err)
	var wg sync.WaitGroup
	var mu sync.Mutex
	parcels := 0
	for range 50 {
		wg.Go(func() {
			app := &appsim.App{}
			key, err := app.PublicKey()
			if err != nil {
				t.Error(err)
			}
			_, _, err = b.Redeem(t.Context(), serial, code, key)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				parcels++
			case !fault.Is(err, fault.Conflict):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if parcels != 1 {
		t.Errorf("%d apps got a seed", parcels)
	}
}

func TestEmergency(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	b.wants("there is none", b.RedeemEmergency(ctx, b.subject, strings.Repeat("A", 20)), fault.Denied)
	code, err := b.IssueEmergency(ctx, b.subject, true)
	if err != nil || len(code) != 24 {
		t.Fatal(code, err)
	}
	_, err = b.IssueEmergency(ctx, b.subject, true)
	b.wants("a second first one", err, fault.Conflict)
	b.wants("malformed", b.RedeemEmergency(ctx, b.subject, "x"), fault.Invalid)
	b.wants("wrong", b.RedeemEmergency(ctx, b.subject, strings.Repeat("A", 20)), fault.Denied)
	if err := b.RedeemEmergency(ctx, b.subject, strings.ToLower(code)); err != nil {
		t.Fatal(err)
	}
	b.wants("used", b.RedeemEmergency(ctx, b.subject, code), fault.Conflict)
	again, err := b.IssueEmergency(ctx, b.subject, true)
	must(t, again, err)
	b.wants("the old one", b.RedeemEmergency(ctx, b.subject, code), fault.Denied)
	for range enrol.EmergencyTries - 1 {
		b.wants("wrong", b.RedeemEmergency(ctx, b.subject, code), fault.Denied)
	}
	b.wants("too many tries", b.RedeemEmergency(ctx, b.subject, again), fault.Exhausted)
}

// TestEscrow: each seed is kept for the recovery key, too.
func TestEscrow(t *testing.T) {
	b := newBench(t)
	key, err := rsa.GenerateKey(rand.Reader, 3072)
	must(t, key, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "recovery"}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, der, err)
	b.cfg.Recovery, err = x509.ParseCertificate(der)
	must(t, der, err)
	office, err := issuing.New(b.cfg)
	b.Office = must(t, office, err)
	serials, err := b.Import(t.Context(), delivery(1), b.because())
	must(t, serials, err)
	d := b.state(serials[0], device.Created)
	escrow, err := b.db.Escrow(t.Context(), d.Serial)
	must(t, escrow, err)
	got, err := seed.OpenEscrow(key, b.cfg.Recovery, seed.Binding{Serial: d.Serial, Parameters: d.Parameters}, escrow)
	if err != nil || !bytes.HasPrefix(got, []byte(secret)) {
		t.Errorf("%v", err)
	}
}

func TestConfig(t *testing.T) {
	if _, err := issuing.New(issuing.Config{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("%v", err)
	}
}
