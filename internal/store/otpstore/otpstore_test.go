package otpstore_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store"
	"custode/internal/store/otpstore"
	"custode/internal/store/storetest"
	"custode/otpvault/device"
	"custode/otpvault/enrol"
	"custode/otpvault/proof"
)

// bench is a database that can be opened again, and a time.
type bench struct {
	db   *store.DB
	open storetest.Opener
	ctx  context.Context
	Now  time.Time
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{open: storetest.Place(t), ctx: t.Context(), Now: time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)}
	b.db = get(b.open())(t)
	t.Cleanup(func() { must(t, b.db.Close()) })
	return b
}

func (b *bench) otp() *otpstore.DB { return otpstore.New(b.db) }

func (b *bench) reopen(t *testing.T) {
	t.Helper()
	must(t, b.db.Close())
	b.db = get(b.open())(t)
}

func because(b *bench, why string) device.Change {
	return device.Change{Actor: "op", Reason: why, At: b.Now}
}

// identifiers compares the parsed types by their text.
var identifiers = cmp.Exporter(func(reflect.Type) bool { return true })

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// get returns v or fails the test.
func get[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		must(t, err)
		return v
	}
}

func discard[T any](_ T, err error) error { return err }

func wantKind(t *testing.T, what string, err error, kind fault.Kind) {
	t.Helper()
	if !fault.Is(err, kind) {
		t.Errorf("%s: %v, want kind %v", what, err, kind)
	}
}

func parse[T any](t *testing.T, f func(string) (T, error), s string) T {
	t.Helper()
	return get(f(s))(t)
}

func newID[T any](t *testing.T, f func(r io.Reader) (T, error)) T {
	t.Helper()
	return get(f(rand.Reader))(t)
}

// race calls f n times at once and returns the errors.
func race(n int, f func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = f(i)
		})
	}
	close(start)
	wg.Wait()
	return errs
}

// newDeviceChallenge is a challenge to an active device that it adds; pushed ones have a number.
func newDeviceChallenge(t *testing.T, b *bench, n int, number string) proof.Challenge {
	t.Helper()
	d := storetest.NewActiveDevice(t, n, newID(t, id.NewSubject), b.Now)
	must(t, b.otp().AddDevices(b.ctx, []device.Device{d}, because(b, "x")))
	c := proof.Challenge{ID: newID(t, id.NewChallengeID), Flow: newID(t, id.NewFlowID), Subject: d.Subject, Serial: d.Serial, Number: number,
		Left: 3, Created: b.Now, Expires: b.Now.Add(time.Minute)}
	if number != "" {
		c.MAC = bytes.Repeat([]byte{3}, 32)
	}
	return c
}

var anyLimit = proof.Limit{Pushes: 1000, Window: time.Hour}

func TestChallengeLife(t *testing.T) {
	b := newBench(t)
	for n, number := range []string{"", "47"} {
		c := newDeviceChallenge(t, b, n, number)
		must(t, b.otp().OpenDeviceChallenge(b.ctx, c, anyLimit))
		b.reopen(t)
		if diff := cmp.Diff(c, get(b.otp().DeviceChallenge(b.ctx, c.ID))(t), identifiers); diff != "" {
			t.Error(diff)
		}
		take := func(f id.FlowID, s id.Subject, now time.Time) error {
			return discard(b.otp().TakeDeviceAttempt(b.ctx, c.ID, f, s, now))
		}
		wantKind(t, "another flow", take(newID(t, id.NewFlowID), c.Subject, b.Now), fault.NotFound)
		wantKind(t, "another subject", take(c.Flow, newID(t, id.NewSubject), b.Now), fault.NotFound)
		wantKind(t, "too late", take(c.Flow, c.Subject, c.Expires), fault.Expired)
		for left := 2; left >= 0; left-- {
			if got := get(b.otp().TakeDeviceAttempt(b.ctx, c.ID, c.Flow, c.Subject, b.Now))(t); got != left {
				t.Errorf("%d left, want %d", got, left)
			}
		}
		wantKind(t, "fourth", take(c.Flow, c.Subject, b.Now), fault.Exhausted)
		must(t, b.otp().BurnDeviceChallenge(b.ctx, c.ID, b.Now))
		wantKind(t, "burned twice", b.otp().BurnDeviceChallenge(b.ctx, c.ID, b.Now), fault.Conflict)
		wantKind(t, "after burning", take(c.Flow, c.Subject, b.Now), fault.Conflict)
		// Another one of the same flow retires the first.
		second, third := c, c
		second.ID, third.ID, second.Flow = newID(t, id.NewChallengeID), newID(t, id.NewChallengeID), newID(t, id.NewFlowID)
		third.Flow = second.Flow
		must(t, b.otp().OpenDeviceChallenge(b.ctx, second, anyLimit))
		must(t, b.otp().OpenDeviceChallenge(b.ctx, third, anyLimit))
		wantKind(t, "retired", b.otp().BurnDeviceChallenge(b.ctx, second.ID, b.Now), fault.Conflict)
		must(t, b.otp().BurnDeviceChallenge(b.ctx, third.ID, b.Now))
	}
	wantKind(t, "unknown", b.otp().BurnDeviceChallenge(b.ctx, newID(t, id.NewChallengeID), b.Now), fault.NotFound)
	bad := newDeviceChallenge(t, b, 9, "")
	bad.MAC = []byte{1}
	wantKind(t, "a MAC without a number", b.otp().OpenDeviceChallenge(b.ctx, bad, anyLimit), fault.Invalid)
	get(b.db.Sweep(b.ctx, b.Now.Add(100*time.Hour)))(t)
	if n := get(b.db.Sweep(b.ctx, b.Now.Add(100*time.Hour)))(t); n.Challenges != 0 {
		t.Errorf("swept twice: %+v", n)
	}
}

// TestChallengeRace burns one challenge 1 000 times through two databases.
func TestChallengeRace(t *testing.T) {
	b := newBench(t)
	other := get(b.open())(t)
	defer other.Close()
	c := newDeviceChallenge(t, b, 1, "")
	must(t, b.otp().OpenDeviceChallenge(b.ctx, c, anyLimit))
	dbs := []*otpstore.DB{b.otp(), otpstore.New(other)}
	burned := 0
	for _, err := range race(1000, func(i int) error { return dbs[i%2].BurnDeviceChallenge(b.ctx, c.ID, b.Now) }) {
		switch {
		case err == nil:
			burned++
		case !fault.Is(err, fault.Conflict):
			t.Error(err)
		}
	}
	if burned != 1 {
		t.Errorf("burned %d times", burned)
	}
}

func TestPushLimit(t *testing.T) {
	b := newBench(t)
	l := proof.Limit{Pushes: 2, Window: time.Minute}
	c := newDeviceChallenge(t, b, 1, "01")
	push := func(at time.Time) error {
		c.ID, c.Created, c.Expires = newID(t, id.NewChallengeID), at, at.Add(time.Minute)
		return b.otp().OpenDeviceChallenge(b.ctx, c, l)
	}
	must(t, push(b.Now))
	must(t, push(b.Now.Add(time.Second)))
	wantKind(t, "third", push(b.Now.Add(2*time.Second)), fault.Exhausted)
	must(t, push(b.Now.Add(61*time.Second)))
	shown := c
	shown.ID, shown.Number, shown.MAC = newID(t, id.NewChallengeID), "", nil
	must(t, b.otp().OpenDeviceChallenge(b.ctx, shown, l)) // nothing is sent for it
	wantKind(t, "no key", discard(b.otp().PushKey(b.ctx, c.Serial)), fault.NotFound)
}

func newActivation(t *testing.T, b *bench, n int) (a, used enrol.Activation, d device.Device) {
	t.Helper()
	d = storetest.NewActiveDevice(t, n, newID(t, id.NewSubject), b.Now)
	d.State, d.Activated, d.Virtual, d.Escrow = device.Delivered, time.Time{}, true, []byte{8}
	a = enrol.Activation{Version: 1, Serial: d.Serial, Subject: d.Subject, MAC: bytes.Repeat([]byte{4}, 32), Left: 3, Expires: b.Now.Add(enrol.Window)}
	used = a
	used.Version, used.Left, used.Used = 2, 2, true
	return a, used, d
}

func TestActivation(t *testing.T) {
	b := newBench(t)
	a, used, d := newActivation(t, b, 1)
	must(t, b.otp().AddActivation(b.ctx, a, b.Now))
	wantKind(t, "twice", b.otp().AddActivation(b.ctx, a, b.Now), fault.Conflict)
	wantKind(t, "unknown", discard(b.otp().Activation(b.ctx, parse(t, id.ParseSerial, "X"))), fault.NotFound)
	b.reopen(t)
	if diff := cmp.Diff(a, get(b.otp().Activation(b.ctx, a.Serial))(t), identifiers); diff != "" {
		t.Error(diff)
	}
	wrong := used
	wrong.Used = false
	must(t, b.otp().SwapActivation(b.ctx, a, wrong))
	wantKind(t, "an old version", b.otp().SwapActivation(b.ctx, a, wrong), fault.Conflict)
	wantKind(t, "redeemed from an old version", b.otp().RedeemActivation(b.ctx, a, used, d, []byte{1}, because(b, "x")), fault.Conflict)
	wantKind(t, "the device of that", discard(b.otp().Device(b.ctx, d.Serial)), fault.NotFound)
	used.Version, used.Left = 3, 1
	other := d
	other.Subject = newID(t, id.NewSubject)
	wantKind(t, "another subject's device", b.otp().RedeemActivation(b.ctx, wrong, used, other, []byte{1}, because(b, "x")), fault.Invalid)
	must(t, b.otp().RedeemActivation(b.ctx, wrong, used, d, []byte{1, 2}, because(b, "x")))
	if key := get(b.otp().PushKey(b.ctx, d.Serial))(t); !bytes.Equal(key, []byte{1, 2}) {
		t.Errorf("key %x", key)
	}
	if escrow := get(b.otp().Escrow(b.ctx, d.Serial))(t); !bytes.Equal(escrow, []byte{8}) {
		t.Errorf("escrow %x", escrow)
	}
	if got := get(b.otp().Device(b.ctx, d.Serial))(t); got.State != device.Delivered || got.Escrow != nil {
		t.Errorf("%+v", got)
	}
}

// TestActivationRace redeems one activation a hundred times through two databases.
func TestActivationRace(t *testing.T) {
	b := newBench(t)
	other := get(b.open())(t)
	defer other.Close()
	a, used, d := newActivation(t, b, 1)
	must(t, b.otp().AddActivation(b.ctx, a, b.Now))
	dbs := []*otpstore.DB{b.otp(), otpstore.New(other)}
	redeemed := 0
	for _, err := range race(100, func(i int) error {
		return dbs[i%2].RedeemActivation(b.ctx, a, used, d, []byte{byte(i + 1)}, because(b, "x"))
	}) {
		switch {
		case err == nil:
			redeemed++
		case !fault.Is(err, fault.Conflict):
			t.Error(err)
		}
	}
	if redeemed != 1 {
		t.Errorf("redeemed %d times", redeemed)
	}
}

func TestEmergencyCode(t *testing.T) {
	b := newBench(t)
	e := enrol.Emergency{Version: 1, Subject: newID(t, id.NewSubject), MAC: bytes.Repeat([]byte{5}, 32), Left: 5, Created: b.Now}
	wantKind(t, "none", discard(b.otp().Emergency(b.ctx, e.Subject)), fault.NotFound)
	must(t, b.otp().PutEmergency(b.ctx, e))
	wantKind(t, "a second first", b.otp().PutEmergency(b.ctx, e), fault.Conflict)
	b.reopen(t)
	if diff := cmp.Diff(e, get(b.otp().Emergency(b.ctx, e.Subject))(t), identifiers); diff != "" {
		t.Error(diff)
	}
	e.Version, e.Left, e.Used = 2, 4, true
	must(t, b.otp().PutEmergency(b.ctx, e))
	wantKind(t, "used twice", b.otp().PutEmergency(b.ctx, e), fault.Conflict)
}

func TestChoice(t *testing.T) {
	b := newBench(t)
	subject, serial := newID(t, id.NewSubject), parse(t, id.ParseSerial, "FT-1")
	for _, want := range []struct {
		method uint8
		serial id.Serial
	}{{0, id.Serial{}}, {2, serial}, {1, id.Serial{}}} {
		if want.method != 0 {
			must(t, b.otp().SetChoice(b.ctx, subject, want.method, want.serial, b.Now))
			b.reopen(t)
		}
		method, got, err := b.otp().Choice(b.ctx, subject)
		if err != nil || method != want.method || got != want.serial {
			t.Errorf("%d %v %v, want %+v", method, got, err, want)
		}
	}
}
