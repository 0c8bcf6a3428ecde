package proof_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store/otpstore"
	"custode/internal/store/storetest"
	"custode/otpvault/device"
	"custode/otpvault/enrol"
	"custode/otpvault/oath"
	"custode/otpvault/otptest"
	"custode/otpvault/proof"
	"custode/otpvault/seed"
	"custode/simulators/appsim"
)

// bench is a Desk on a real database with a token in memory, a clock and an app.
type bench struct {
	*proof.Desk
	t       *testing.T
	db      *otpstore.DB
	token   *otptest.Token
	now     time.Time
	subject id.Subject
	log     bytes.Buffer
	pushed  [][]byte
	refuse  error // of the notifier
}

func must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (b *bench) Notify(_ context.Context, _ id.Serial, message []byte) error {
	if b.refuse != nil {
		return b.refuse
	}
	b.pushed = append(b.pushed, message)
	return nil
}

func newBench(t *testing.T) *bench {
	t.Helper()
	subject, err := id.NewSubject(rand.Reader)
	b := &bench{t: t, db: otpstore.New(storetest.Open(t)), token: &otptest.Token{}, now: time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC), subject: must(t, subject, err)}
	desk, err := proof.New(proof.Config{Devices: b.db, Store: b.db, Matcher: b.token, MAC: b.token, Wrapper: b.token, Random: rand.Reader,
		Now: func() time.Time { return b.now }, Log: slog.New(slog.NewTextHandler(&b.log, nil)), Notifier: b})
	b.Desk = must(t, desk, err)
	return b
}

const secret = "12345678901234567890"

// add puts an active HOTP device of the subject into the database.
func (b *bench) add(serial string, change func(*device.Device)) device.Device {
	b.t.Helper()
	s, err := id.ParseSerial(serial)
	kek, err2 := id.ParseKeyLabel("custode/seed/1")
	d := device.Device{Serial: must(b.t, s, err), Subject: b.subject, State: device.Active, Parameters: oath.Parameters{Kind: oath.Event, Hash: oath.SHA1, Digits: 6},
		Counter: oath.Begin(0), Created: b.now, Delivered: b.now, Activated: b.now}
	if change != nil {
		change(&d)
	}
	sealed, mac, err := seed.Seal(b.t.Context(), b.token, b.token, seed.Recipe{KEK: must(b.t, kek, err2), Mechanism: seed.MechanismAESKeyWrap, KeyType: seed.KeyTypeGenericSecret},
		seed.Binding{Subject: d.Subject, Serial: d.Serial, Parameters: d.Parameters}, []byte(secret))
	if err != nil {
		b.t.Fatal(err)
	}
	blob, err := sealed.Encode()
	d.Blob, d.MAC = must(b.t, blob, err), mac
	if err := b.db.AddDevices(b.t.Context(), []device.Device{d}, device.Change{Actor: "op", Reason: "x", At: b.now}); err != nil {
		b.t.Fatal(err)
	}
	return d
}

func (b *bench) flow() id.FlowID {
	f, err := id.NewFlowID(rand.Reader)
	return must(b.t, f, err)
}

// asked opens a challenge of a login of its own.
func (b *bench) asked(d device.Device) (id.FlowID, id.ChallengeID) {
	b.t.Helper()
	f := b.flow()
	c, err := b.Open(b.t.Context(), f, b.subject, d.Serial, b.now.Add(5*time.Minute))
	return f, must(b.t, c, err)
}

func hotp(counter uint64) string { return otptest.Code(sha1.New, []byte(secret), counter, 6) }

func (b *bench) expect(f id.FlowID, c id.ChallengeID, code string, want oath.Verdict, left int) {
	b.t.Helper()
	v, l, err := b.Verify(b.t.Context(), c, f, b.subject, code)
	if err != nil || v != want || l != left {
		b.t.Fatalf("%v with %d left, %v; want %v with %d", v, l, err, want, left)
	}
}

func (b *bench) fails(f id.FlowID, c id.ChallengeID, code string, want fault.Kind) {
	b.t.Helper()
	if v, _, err := b.Verify(b.t.Context(), c, f, b.subject, code); !fault.Is(err, want) || v == oath.Accepted {
		b.t.Fatalf("%v, %v; want %v", v, err, want)
	}
}

func TestShownCode(t *testing.T) {
	b := newBench(t)
	d := b.add("FT-1", nil)
	f, c := b.asked(d)
	b.fails(f, c, "12345", fault.Invalid)
	b.fails(f, c, "12345a", fault.Invalid)
	b.expect(f, c, "000000", oath.Wrong, 2)
	b.expect(f, c, hotp(3), oath.Accepted, 1)
	b.fails(f, c, hotp(4), fault.Conflict) // the challenge is burned, and the code good
	g, e := b.asked(d)
	b.expect(g, e, hotp(3), oath.Repeated, 2)
	b.expect(g, e, "000000", oath.Wrong, 1)
	b.fails(b.flow(), e, hotp(4), fault.NotFound)
	b.expect(g, e, "000000", oath.Wrong, 0)
	b.fails(g, e, hotp(4), fault.Exhausted)
	g, e = b.asked(d)
	b.now = b.now.Add(5 * time.Minute)
	b.fails(g, e, hotp(4), fault.Expired)
	g, e = b.asked(d)
	b.expect(g, e, hotp(4), oath.Accepted, 2)
	if strings.Contains(b.log.String(), hotp(4)) || strings.Contains(b.log.String(), hotp(3)) {
		t.Error("a code is in the log")
	}
}

// TestStrangers: a challenge is answered by its flow and subject only, and opened to the
// subject's own device only.
func TestStrangers(t *testing.T) {
	b := newBench(t)
	d := b.add("FT-1", nil)
	f, c := b.asked(d)
	other, err := id.NewSubject(rand.Reader)
	must(t, other, err)
	for _, s := range []id.Subject{other, {}} {
		if v, _, err := b.Verify(t.Context(), c, f, s, hotp(0)); !fault.Is(err, fault.NotFound) || v == oath.Accepted {
			t.Errorf("%v %v", v, err)
		}
		if _, err := b.Open(t.Context(), f, s, d.Serial, b.now.Add(time.Minute)); !fault.Is(err, fault.Denied) {
			t.Errorf("opened to another's device: %v", err)
		}
	}
	unknown, err := id.NewChallengeID(rand.Reader)
	b.fails(f, must(t, unknown, err), hotp(0), fault.NotFound)
	b.expect(f, c, hotp(0), oath.Accepted, 2)
}

// TestTenInARow: wrong codes over several logins block the device; what was right then is not.
func TestTenInARow(t *testing.T) {
	b := newBench(t)
	d := b.add("FT-1", nil)
	for n := 0; n < 9; {
		f, c := b.asked(d)
		for left := 2; left >= 0 && n < 9; left-- {
			b.expect(f, c, "000000", oath.Wrong, left)
			n++
		}
	}
	f, c := b.asked(d)
	g, e := b.asked(d)
	b.expect(f, c, "000000", oath.Blocked, 2)
	b.expect(g, e, hotp(0), oath.Blocked, 0)
	if _, err := b.Open(t.Context(), b.flow(), b.subject, d.Serial, b.now.Add(time.Minute)); !fault.Is(err, fault.Denied) {
		t.Errorf("opened to a blocked device: %v", err)
	}
	held, err := b.Held(t.Context(), b.subject)
	if err != nil || len(held) != 1 || !held[0].Blocked() {
		t.Errorf("%+v %v", held, err)
	}
}

// TestRevokedMeanwhile: a device that is taken away opens nothing, nor does one that expires.
func TestRevokedMeanwhile(t *testing.T) {
	b := newBench(t)
	d := b.add("FT-1", nil)
	f, c := b.asked(d)
	m, err := d.Revoke(device.Change{Actor: "op", Reason: "lost", At: b.now})
	if err := b.db.MoveDevice(t.Context(), must(t, m, err)); err != nil {
		t.Fatal(err)
	}
	b.expect(f, c, hotp(0), oath.Blocked, 0)
	ends := b.add("FT-2", func(d *device.Device) { d.Expires = b.now.Add(time.Minute) })
	f, c = b.asked(ends)
	b.now = b.now.Add(time.Minute)
	b.expect(f, c, hotp(0), oath.Blocked, 0)
	if held, err := b.Held(t.Context(), b.subject); err != nil || len(held) != 0 {
		t.Errorf("%+v %v", held, err)
	}
}

// TestTokenDown: an HSM that does not answer costs no attempt and no failure; a binding that does
// not fit is no wrong code either.
func TestTokenDown(t *testing.T) {
	b := newBench(t)
	d := b.add("FT-1", nil)
	f, c := b.asked(d)
	for _, cause := range []error{fault.New(fault.Unavailable, "x", nil), fault.New(fault.Busy, "x", nil)} {
		b.token.Fail(cause)
		b.fails(f, c, "000000", fault.KindOf(cause))
	}
	b.token.Fail(errors.New("strange"))
	b.fails(f, c, hotp(0), fault.Internal)
	b.token.Fail(nil)
	b.expect(f, c, "000000", oath.Wrong, 2)
	moved := b.add("FT-3", nil)
	moved.MAC = bytes.Repeat([]byte{1}, 32)
	m := device.Move{Serial: moved.Serial, Seen: 1, From: device.Active, To: device.Suspended, Subject: b.subject, MAC: moved.MAC,
		Counter: oath.State{Version: 2}, Change: device.Change{Actor: "op", Reason: "x", At: b.now}}
	if err := b.db.MoveDevice(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	m.Seen, m.From, m.To, m.Counter.Version = 2, device.Suspended, device.Active, 3
	if err := b.db.MoveDevice(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	f, c = b.asked(moved)
	b.fails(f, c, hotp(0), fault.Internal)
	if got := must(t, must2(b.db.Device(t.Context(), moved.Serial))(t), nil); got.Counter.Failures != 0 {
		t.Errorf("%+v", got.Counter)
	}
}

func must2[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T { return must(t, v, err) }
}

// paired is an app that has a device and its key.
func (b *bench) paired(serial string) (device.Device, *appsim.App) {
	b.t.Helper()
	app := &appsim.App{}
	key, err := app.PublicKey()
	must(b.t, key, err)
	s, err := id.ParseSerial(serial)
	must(b.t, s, err)
	uri := []byte("otpauth://totp/A:b?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=A&algorithm=SHA1&digits=6&period=30")
	const code = "AAAABBBBCCCCDDDD"
	parcel, deviceKey, err := enrol.Deliver(rand.Reader, key, code, s, uri)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := app.Receive(parcel, serial, code); err != nil {
		b.t.Fatal(err)
	}
	wrapped, err := b.token.Wrap(b.t.Context(), deviceKey, enrol.KeyContext(s))
	must(b.t, wrapped, err)
	kek, err := id.ParseKeyLabel("custode/seed/1")
	p := oath.Parameters{Kind: oath.Time, Hash: oath.SHA1, Digits: 6, Period: 30 * time.Second}
	sealed, mac, err2 := seed.Seal(b.t.Context(), b.token, b.token, seed.Recipe{KEK: must(b.t, kek, err), Mechanism: seed.MechanismAESKeyWrap, KeyType: seed.KeyTypeGenericSecret},
		seed.Binding{Subject: b.subject, Serial: s, Parameters: p}, []byte(secret))
	if err2 != nil {
		b.t.Fatal(err2)
	}
	blob, err := sealed.Encode()
	d := device.Device{Serial: s, Subject: b.subject, State: device.Active, Virtual: true, Parameters: p, Blob: must(b.t, blob, err), MAC: mac,
		Counter: oath.Begin(0), Created: b.now, Delivered: b.now, Activated: b.now}
	a := enrol.Activation{Version: 1, Serial: s, Subject: b.subject, MAC: make([]byte, 32), Left: 3, Expires: b.now.Add(time.Hour)}
	if err := b.db.AddActivation(b.t.Context(), a, b.now); err != nil {
		b.t.Fatal(err)
	}
	used := a
	used.Version, used.Left, used.Used = 2, 2, true
	if err := b.db.RedeemActivation(b.t.Context(), a, used, d, wrapped, device.Change{Actor: "op", Reason: "x", At: b.now}); err != nil {
		b.t.Fatal(err)
	}
	return d, app
}

func (b *bench) push(d device.Device) (id.FlowID, id.ChallengeID, error) {
	f := b.flow()
	sp, err := id.ParseEntityID("https://sp.example.it")
	c, err2 := b.Push(b.t.Context(), proof.PushOrder{Flow: f, Subject: b.subject, Serial: d.Serial, SP: must(b.t, sp, err),
		SPName: strings.Repeat("Comune di Sant'Agatà ", 20), Until: b.now.Add(8 * time.Minute)})
	return f, c, err2
}

// TestPush: the app shows what the page shows; the code opens its login once, no other, not later,
// and wrong ones are counted on the device.
func TestPush(t *testing.T) {
	b := newBench(t)
	d, app := b.paired("APP-1")
	if held, err := b.Held(t.Context(), b.subject); err != nil || len(held) != 1 || !held[0].Push {
		t.Fatalf("%+v %v", held, err)
	}
	f, c, err := b.push(d)
	if err != nil {
		t.Fatal(err)
	}
	got, err := app.Open(b.pushed[0], b.now)
	if err != nil {
		t.Fatal(err)
	}
	opened, _, err := b.Opened(t.Context(), c)
	if err != nil || got.Number != opened.Number || len(got.Number) != 2 || got.Flow != f.String() || len(got.SPName) > 128 || !got.Expires.Equal(b.now.Add(proof.DefaultPushLife)) {
		t.Errorf("%+v, %+v %v", got, opened, err)
	}
	bad := "000000"
	if got.Code == bad {
		bad = "000001"
	}
	b.fails(f, c, "12345", fault.Invalid)
	b.expect(f, c, bad, oath.Wrong, 2)
	if now := must2(b.db.Device(t.Context(), d.Serial))(t); now.Counter.Failures != 1 {
		t.Errorf("%+v", now.Counter)
	}
	g, e, err := b.push(d)
	if err != nil {
		t.Fatal(err)
	}
	second, err := app.Open(b.pushed[1], b.now)
	if err != nil {
		t.Fatal(err)
	}
	if second.Code != got.Code {
		b.expect(g, e, got.Code, oath.Wrong, 2)
	}
	b.expect(f, c, got.Code, oath.Accepted, 1)
	if now := must2(b.db.Device(t.Context(), d.Serial))(t); now.Counter.Failures != 0 {
		t.Errorf("%+v", now.Counter)
	}
	b.fails(f, c, got.Code, fault.Conflict)
	b.now = b.now.Add(proof.DefaultPushLife)
	b.fails(g, e, second.Code, fault.Expired)
	if text := b.log.String(); strings.Contains(text, got.Code+" ") || strings.Contains(text, "number") {
		t.Error("a code or number is in the log")
	}
}

func TestPushRefusals(t *testing.T) {
	b := newBench(t)
	d, _ := b.paired("APP-1")
	hardware := b.add("FT-1", nil)
	if _, _, err := b.push(hardware); !fault.Is(err, fault.Denied) {
		t.Errorf("pushed to a device without a key: %v", err)
	}
	b.refuse = fault.New(fault.Unavailable, "x", nil)
	if _, _, err := b.push(d); !fault.Is(err, fault.Busy) {
		t.Errorf("the notifier is down: %v", err)
	}
	b.refuse = nil
	for range proof.DefaultPushes - 1 {
		if _, _, err := b.push(d); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := b.push(d); !fault.Is(err, fault.Exhausted) {
		t.Errorf("beyond the limit: %v", err)
	}
	b.token.Fail(fault.New(fault.Unavailable, "x", nil))
	b.now = b.now.Add(time.Hour)
	if _, _, err := b.push(d); !fault.Is(err, fault.Unavailable) {
		t.Errorf("the token is down: %v", err)
	}
}

func TestConfig(t *testing.T) {
	if _, err := proof.New(proof.Config{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("%v", err)
	}
	b := newBench(t)
	if _, err := proof.New(proof.Config{Devices: b.db, Store: b.db, Matcher: b.token, MAC: b.token, Wrapper: b.token, Random: rand.Reader, Now: time.Now,
		Log: slog.Default(), PushLife: time.Hour}); !fault.Is(err, fault.Invalid) {
		t.Errorf("%v", err)
	}
}
