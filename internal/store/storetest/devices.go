package storetest

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store"
	"custode/internal/store/otpstore"
	"custode/otpvault/device"
	"custode/otpvault/oath"
	"custode/otpvault/seed"
)

// deviceTests are the part of the suite that is about OATH devices.
var deviceTests = map[string]func(*testing.T, *Bench){
	"DeviceRoundTrip":  testDeviceRoundTrip,
	"DeviceLife":       testDeviceLife,
	"DeviceMoves":      testDeviceMoves,
	"DeviceMoveRace":   testDeviceMoveRace,
	"DeviceCounter":    testDeviceCounter,
	"DeviceCodeRace":   testDeviceCodeRace,
	"DeviceGuessRace":  testDeviceGuessRace,
	"DeviceRevokeRace": testDeviceRevokeRace,
}

// DeviceMAC stands for the HSM with the seed of RFC 4226.
type DeviceMAC struct{}

// Match implements oath.Matcher.
func (DeviceMAC) Match(_ context.Context, counters []uint64, digits int, code string) (out []int, _ error) {
	for i, c := range counters {
		m := hmac.New(sha1.New, []byte("12345678901234567890"))
		_ = binary.Write(m, binary.BigEndian, c)
		sum := m.Sum(nil)
		shown := fmt.Sprintf("%010d", binary.BigEndian.Uint32(sum[sum[19]&15:])&0x7fffffff)
		if shown[10-digits:] == code {
			out = append(out, i)
		}
	}
	return out, nil
}

// The codes of RFC 4226, appendix D, at counters 0 to 9, and one that none of the first
// hundreds has.
var deviceCodes = [...]string{"755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"}

const wrongDeviceCode = "000000"

// NewDevice returns a device in the drawer; n tells devices apart.
func NewDevice(t testing.TB, n int, now time.Time) device.Device {
	t.Helper()
	return device.Device{
		Serial: parse(t, id.ParseSerial, fmt.Sprintf("FT-%06d", n)), State: device.Created, Vendor: "Ditta à.b.",
		Parameters: oath.Parameters{Kind: oath.Event, Hash: oath.SHA1, Digits: 6},
		Blob:       deviceBlob(t), MAC: bytes.Repeat([]byte{7}, 32), Counter: oath.Begin(0), Created: now,
	}
}

// deviceBlob is a sealed seed in form only.
func deviceBlob(t testing.TB) []byte {
	t.Helper()
	b, err := seed.Sealed{Mechanism: seed.MechanismAESKeyWrap, KeyType: seed.KeyTypeGenericSecret, Hash: oath.SHA1,
		KEK: parse(t, id.ParseKeyLabel, "custode/seed/1"), Wrapped: make([]byte, 72)}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// NewActiveDevice is NewDevice in the hands of subject, activated.
func NewActiveDevice(t testing.TB, n int, subject id.Subject, now time.Time) device.Device {
	t.Helper()
	d := NewDevice(t, n, now)
	d.Subject, d.State, d.Delivered, d.Activated = subject, device.Active, now, now
	return d
}

// otp is the database as the packages of otpvault see it.
func (b *Bench) otp() *otpstore.DB { return otpstore.New(b.DB) }

func because(b *Bench, why string) device.Change {
	return device.Change{Actor: "op", Reason: why, At: b.Now}
}

func testDeviceRoundTrip(t *testing.T, b *Bench) {
	subject := newID(t, id.NewSubject)
	full := NewActiveDevice(t, 1, subject, b.Now)
	full.State, full.Virtual = device.Replaced, true
	full.Parameters = oath.Parameters{Kind: oath.Time, Hash: oath.SHA512, Digits: 8, Period: time.Minute}
	full.Counter = oath.State{Version: 1 << 40, Next: 1 << 62, Drift: -20, Failures: 10, Blocked: true}
	full.Suspended, full.Ended, full.Expires = b.Now.Add(1), b.Now.Add(2), b.Now.Add(3)
	second := NewActiveDevice(t, 2, subject, b.Now.Add(time.Second))
	must(t, b.otp().AddDevices(b.ctx, []device.Device{second, full, NewDevice(t, 3, b.Now)}, because(b, "delivery")))
	b.reopen(t)
	if diff := cmp.Diff(full, get(b.otp().Device(b.ctx, full.Serial))(t), identifiers); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]device.Device{full, second}, get(b.otp().DevicesOf(b.ctx, subject))(t), identifiers); diff != "" {
		t.Error(diff)
	}
	if got := get(b.otp().DevicesOf(b.ctx, id.Subject{}))(t); len(got) != 0 {
		t.Errorf("the drawer belongs to nobody, and lists %d", len(got))
	}
	wantKind(t, "unknown", discard(b.otp().Device(b.ctx, parse(t, id.ParseSerial, "X"))), fault.NotFound)
	// A delivery is one thing.
	wantKind(t, "taken serial", b.otp().AddDevices(b.ctx, []device.Device{NewDevice(t, 4, b.Now), NewDevice(t, 3, b.Now)}, because(b, "x")), fault.Conflict)
	wantKind(t, "of a refused delivery", discard(b.otp().Device(b.ctx, NewDevice(t, 4, b.Now).Serial)), fault.NotFound)
	bad := NewDevice(t, 5, b.Now)
	bad.MAC = nil
	wantKind(t, "not bound", b.otp().AddDevices(b.ctx, []device.Device{bad}, because(b, "x")), fault.Invalid)
}

// move reads a device, applies a rule to it and makes the move.
func move(b *Bench, s id.Serial, rule func(d device.Device) (device.Move, error)) error {
	d, err := b.otp().Device(b.ctx, s)
	if err != nil {
		return err
	}
	m, err := rule(d)
	if err != nil {
		return err
	}
	return b.otp().MoveDevice(b.ctx, m)
}

// testDeviceLife leads one device through its whole life by the rules.
func testDeviceLife(t *testing.T, b *Bench) {
	subject, mac := newID(t, id.NewSubject), bytes.Repeat([]byte{9}, 32)
	d := NewDevice(t, 1, b.Now)
	must(t, b.otp().AddDevices(b.ctx, []device.Device{d}, because(b, "delivery")))
	r := oath.NewRules()
	step := func(why string, want device.State, rule func(d device.Device, c device.Change) (device.Move, error)) device.Device {
		t.Helper()
		b.Now = b.Now.Add(time.Hour)
		if err := move(b, d.Serial, func(d device.Device) (device.Move, error) { return rule(d, because(b, why)) }); err != nil {
			t.Fatalf("%s: %v", why, err)
		}
		now := get(b.otp().Device(b.ctx, d.Serial))(t)
		if now.State != want {
			t.Fatalf("%s: %v", why, now.State)
		}
		return now
	}
	activate := func(code string) func(d device.Device, c device.Change) (device.Move, error) {
		return func(d device.Device, c device.Change) (device.Move, error) {
			v, after, err := r.Check(b.ctx, DeviceMAC{}, d.Parameters, d.Counter, code, b.Now)
			if err != nil {
				return device.Move{}, err
			}
			return d.Activate(v, after, c)
		}
	}
	wrong := func(times int, in device.State, want oath.Verdict) {
		t.Helper()
		for i := range times {
			v := get(r.Verify(b.ctx, device.CellOf(b.otp(), d.Serial, in, b.Now), DeviceMAC{}, d.Parameters, wrongDeviceCode, b.Now))(t)
			if i == times-1 && v != want {
				t.Fatalf("wrong code %d: %v", i+1, v)
			}
		}
	}
	got := step("assign", device.Delivered, func(d device.Device, c device.Change) (device.Move, error) { return d.Assign(subject, mac, c) })
	if got.Subject != subject || !bytes.Equal(got.MAC, mac) || !got.Delivered.Equal(b.Now) {
		t.Errorf("%+v", got)
	}
	wantKind(t, "not possessed", move(b, d.Serial, func(d device.Device) (device.Move, error) { return activate(wrongDeviceCode)(d, because(b, "x")) }), fault.Denied)
	wrong(10, device.Delivered, oath.Blocked)
	step("unblock", device.Delivered, device.Device.Unblock)
	got = step("activate", device.Active, activate(deviceCodes[3]))
	if got.Counter.Next != 4 || !got.Activated.Equal(b.Now) {
		t.Errorf("%+v", got)
	}
	activated := b.Now
	wrong(10, device.Active, oath.Blocked)
	step("suspend", device.Suspended, device.Device.Suspend)
	step("restore", device.Blocked, device.Device.Restore)
	step("unblock", device.Active, device.Device.Unblock)
	got = step("suspend", device.Suspended, device.Device.Suspend)
	if !got.Suspended.Equal(b.Now) {
		t.Errorf("%+v", got)
	}
	_, err := r.Verify(b.ctx, device.CellOf(b.otp(), d.Serial, device.Active, b.Now), DeviceMAC{}, d.Parameters, deviceCodes[4], b.Now)
	wantKind(t, "code of a suspended device", err, fault.Denied)
	step("restore", device.Active, device.Device.Restore)
	got = step("revoke", device.Revoked, device.Device.Revoke)
	if !got.Ended.Equal(b.Now) || !got.Activated.Equal(activated) || got.Counter.Next != 4 {
		t.Errorf("%+v", got)
	}
	var history []string
	for _, e := range get(b.otp().DeviceHistory(b.ctx, d.Serial))(t) {
		history = append(history, fmt.Sprintf("%v>%v %s", e.From, e.To, e.Actor))
	}
	want := []string{
		"unknown state>created op", "created>delivered op", "delivered>blocked otpvault", "blocked>delivered op", "delivered>active op",
		"active>blocked otpvault", "blocked>suspended op", "suspended>blocked op", "blocked>active op", "active>suspended op", "suspended>active op", "active>revoked op",
	}
	if diff := cmp.Diff(want, history); diff != "" {
		t.Error(diff)
	}
}

// testDeviceMoves tries every move from every state, as a program that forgot the
// rules would.
func testDeviceMoves(t *testing.T, b *Bench) {
	n := 0
	for from := device.Created; from <= device.Replaced; from++ {
		for to := device.Created; to <= device.Replaced; to++ {
			n++
			d := NewActiveDevice(t, n, newID(t, id.NewSubject), b.Now)
			d.State, d.Counter.Blocked = from, from == device.Blocked
			if from == device.Created {
				d.Subject = id.Subject{}
			}
			must(t, b.otp().AddDevices(b.ctx, []device.Device{d}, because(b, "x")))
			m := device.Move{Serial: d.Serial, Seen: 1, From: from, To: to, Subject: newID(t, id.NewSubject), MAC: d.MAC, Counter: d.Counter, Change: because(b, "x")}
			m.Counter.Version, m.Counter.Blocked = 2, to == device.Blocked
			err := b.otp().MoveDevice(b.ctx, m)
			if from.May(to) != (err == nil) {
				t.Errorf("%v to %v: %v", from, to, err)
			}
			if err == nil {
				wantKind(t, "the same move again", b.otp().MoveDevice(b.ctx, m), fault.Conflict)
				continue
			}
			if got := get(b.otp().Device(b.ctx, d.Serial))(t); got.State != from || got.Counter.Version != 1 {
				t.Errorf("%v to %v was refused and left %v", from, to, got.State)
			}
		}
	}
	wantKind(t, "unknown", b.otp().MoveDevice(b.ctx, device.Move{
		Serial: parse(t, id.ParseSerial, "X"), Seen: 1, From: device.Active, To: device.Revoked, MAC: bytes.Repeat([]byte{1}, 32),
		Counter: oath.State{Version: 2}, Change: because(b, "x"), Subject: newID(t, id.NewSubject),
	}), fault.NotFound)
}

// testDeviceMoveRace assigns one device to many subjects at once.
func testDeviceMoveRace(t *testing.T, b *Bench) {
	d := NewDevice(t, 1, b.Now)
	must(t, b.otp().AddDevices(b.ctx, []device.Device{d}, because(b, "x")))
	dbs := []*store.DB{b.DB, b.another(t)}
	subjects := make([]id.Subject, 40)
	for i := range subjects {
		subjects[i] = newID(t, id.NewSubject)
	}
	oneWinner(t, race(len(subjects), func(n int) error {
		m, err := d.Assign(subjects[n], bytes.Repeat([]byte{byte(n)}, 32), because(b, "assign"))
		if err != nil {
			return err
		}
		return otpstore.New(dbs[n%2]).MoveDevice(b.ctx, m)
	}), fault.Conflict)
	got := get(b.otp().Device(b.ctx, d.Serial))(t)
	if got.Subject != subjects[got.MAC[0]] {
		t.Error("the subject of one move, the binding of another")
	}
}

func testDeviceCounter(t *testing.T, b *Bench) {
	d := NewActiveDevice(t, 1, newID(t, id.NewSubject), b.Now)
	must(t, b.otp().AddDevices(b.ctx, []device.Device{d}, because(b, "x")))
	one := oath.State{Version: 2, Next: 5, Drift: -3, Failures: 1}
	must(t, b.otp().SwapCounter(b.ctx, d.Serial, d.Counter, one, b.Now))
	if got := get(b.otp().Device(b.ctx, d.Serial))(t); got.Counter != one {
		t.Errorf("%+v", got.Counter)
	}
	wantKind(t, "swapped again", b.otp().SwapCounter(b.ctx, d.Serial, d.Counter, one, b.Now), fault.Conflict)
	wantKind(t, "two steps", b.otp().SwapCounter(b.ctx, d.Serial, one, oath.State{Version: 4, Next: 6}, b.Now), fault.Invalid)
	wantKind(t, "backwards", b.otp().SwapCounter(b.ctx, d.Serial, one, oath.State{Version: 3, Next: 4}, b.Now), fault.Invalid)
	lie := oath.State{Version: 2, Next: 0}
	wantKind(t, "backwards by a lie", b.otp().SwapCounter(b.ctx, d.Serial, lie, oath.State{Version: 3, Next: 1}, b.Now), fault.Conflict)
	wantKind(t, "unknown", b.otp().SwapCounter(b.ctx, parse(t, id.ParseSerial, "X"), lie, oath.State{Version: 3, Next: 1}, b.Now), fault.NotFound)
	blocked := oath.State{Version: 3, Next: 5, Failures: 10, Blocked: true}
	must(t, b.otp().SwapCounter(b.ctx, d.Serial, one, blocked, b.Now))
	if got := get(b.otp().Device(b.ctx, d.Serial))(t); got.State != device.Blocked || got.Counter != blocked {
		t.Errorf("%v %+v", got.State, got.Counter)
	}
	after := oath.State{Version: 4, Next: 6}
	wantKind(t, "counting on a blocked device", b.otp().SwapCounter(b.ctx, d.Serial, oath.State{Version: 3, Next: 5}, after, b.Now), fault.Conflict)
}

// DeviceRace submits code n times at once, by turns through the databases, and counts
// the verdicts.
func DeviceRace(t testing.TB, dbs []*store.DB, d device.Device, code string, now time.Time, n int) map[oath.Verdict]int {
	t.Helper()
	var mu sync.Mutex
	count := map[oath.Verdict]int{}
	for _, err := range race(n, func(i int) error {
		v, err := oath.NewRules().Verify(t.Context(), device.CellOf(otpstore.New(dbs[i%len(dbs)]), d.Serial, device.Active, now), DeviceMAC{}, d.Parameters, code, now)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		count[v]++
		return nil
	}) {
		if err != nil {
			t.Error(err)
		}
	}
	return count
}

// testDeviceCodeRace submits one right code 1 000 times: at the expected counter, then
// within the look-ahead.
func testDeviceCodeRace(t *testing.T, b *Bench) {
	d := NewActiveDevice(t, 1, newID(t, id.NewSubject), b.Now)
	must(t, b.otp().AddDevices(b.ctx, []device.Device{d}, because(b, "x")))
	dbs := []*store.DB{b.DB, b.another(t)}
	for i, counter := range []int{0, 7} {
		count := DeviceRace(t, dbs, d, deviceCodes[counter], b.Now, 1000)
		if count[oath.Accepted] != 1 || count[oath.Repeated] != 999 {
			t.Errorf("counter %d: %v", counter, count)
		}
		want := oath.State{Version: uint64(i) + 2, Next: uint64(counter) + 1}
		if got := get(b.otp().Device(b.ctx, d.Serial))(t); got.Counter != want {
			t.Errorf("%+v, want %+v", got.Counter, want)
		}
	}
	// Different codes of one window at once: never a lower one after a higher one.
	errs := race(100, func(n int) error {
		v, err := oath.NewRules().Verify(b.ctx, device.CellOf(otpstore.New(dbs[n%2]), d.Serial, device.Active, b.Now), DeviceMAC{}, d.Parameters, deviceCodes[8+n/2%2], b.Now)
		if err == nil && v == oath.Accepted {
			return nil
		}
		return fault.Newf(fault.Conflict, "verify", "%v, %w", v, err)
	})
	accepted := 0
	for _, err := range errs {
		if err == nil {
			accepted++
		}
	}
	if accepted < 1 || accepted > 2 {
		t.Errorf("two counters were accepted %d times", accepted)
	}
}

// testDeviceGuessRace submits 1 000 wrong codes: ten count, the device is blocked.
func testDeviceGuessRace(t *testing.T, b *Bench) {
	d := NewActiveDevice(t, 1, newID(t, id.NewSubject), b.Now)
	must(t, b.otp().AddDevices(b.ctx, []device.Device{d}, because(b, "x")))
	count := DeviceRace(t, []*store.DB{b.DB, b.another(t)}, d, wrongDeviceCode, b.Now, 1000)
	got := get(b.otp().Device(b.ctx, d.Serial))(t)
	if count[oath.Wrong] != 9 || count[oath.Blocked] != 991 || got.State != device.Blocked || got.Counter.Failures != 10 {
		t.Errorf("%v, %v %+v", count, got.State, got.Counter)
	}
}

// testDeviceRevokeRace revokes a device while its code is submitted: either the code
// came first, or it does not count any more.
func testDeviceRevokeRace(t *testing.T, b *Bench) {
	dbs := []*store.DB{b.DB, b.another(t)}
	for n := range 20 {
		d := NewActiveDevice(t, n, newID(t, id.NewSubject), b.Now)
		must(t, b.otp().AddDevices(b.ctx, []device.Device{d}, because(b, "x")))
		errs := race(2, func(i int) error {
			if i == 0 {
				for {
					err := move(&Bench{DB: dbs[0], Now: b.Now, ctx: b.ctx}, d.Serial, func(d device.Device) (device.Move, error) { return d.Revoke(because(b, "x")) })
					if !fault.Is(err, fault.Conflict) {
						return err
					}
				}
			}
			_, err := oath.NewRules().Verify(b.ctx, device.CellOf(otpstore.New(dbs[1]), d.Serial, device.Active, b.Now), DeviceMAC{}, d.Parameters, deviceCodes[2], b.Now)
			return err
		})
		must(t, errs[0])
		got := get(b.otp().Device(b.ctx, d.Serial))(t)
		switch {
		case got.State != device.Revoked:
			t.Errorf("%v", got.State)
		case errs[1] == nil && got.Counter.Next != 3, errs[1] != nil && (got.Counter.Next != 0 || !fault.Is(errs[1], fault.Denied)):
			t.Errorf("verdict %v, counter %+v", errs[1], got.Counter)
		}
	}
}
