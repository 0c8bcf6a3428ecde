package device

import (
	"bytes"
	"context"
	"testing"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/otpvault/oath"
)

var now = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

func active(t *testing.T) Device {
	t.Helper()
	serial, err := id.ParseSerial("FT-1")
	if err != nil {
		t.Fatal(err)
	}
	subject, err := id.ParseSubject("s_0123456789abcdef0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	return Device{
		Serial: serial, Subject: subject, State: Active, Parameters: oath.Parameters{Kind: oath.Event, Hash: oath.SHA1, Digits: 6},
		Blob: []byte{1}, MAC: bytes.Repeat([]byte{1}, 32), Counter: oath.Begin(5), Created: now, Delivered: now, Activated: now,
	}
}

// TestMay is the diagram of the package comment, written as a table.
func TestMay(t *testing.T) {
	table := []string{ // rows: from; columns: to
		/* created   */ ".x...x.",
		/* delivered */ "..xx.xx",
		/* active    */ "...xxxx",
		/* blocked   */ ".xx.xxx",
		/* suspended */ "..xx.xx",
		/* revoked   */ ".......",
		/* replaced  */ ".......",
	}
	for i, row := range table {
		from := State(i + 1)
		for j := range row {
			if to := State(j + 1); from.May(to) != (row[j] == 'x') {
				t.Errorf("%v to %v: %v", from, to, from.May(to))
			}
		}
		if from.Final() != (row == ".......") {
			t.Errorf("%v: final %v", from, from.Final())
		}
	}
	if State(0).May(Active) || State(8).May(Active) || Active.May(0) || Active.May(8) {
		t.Error("a state that is none")
	}
}

func TestCheck(t *testing.T) {
	if err := active(t).Check(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(d *Device){
		"serial":   func(d *Device) { d.Serial = id.Serial{} },
		"state":    func(d *Device) { d.State = 8 },
		"created":  func(d *Device) { d.Created = time.Time{} },
		"blob":     func(d *Device) { d.Blob = nil },
		"mac":      func(d *Device) { d.MAC = d.MAC[:31] },
		"nobody's": func(d *Device) { d.Subject = id.Subject{} },
		"drawer":   func(d *Device) { d.State = Created },
		"version":  func(d *Device) { d.Counter.Version = 0 },
		"blocked":  func(d *Device) { d.Counter.Blocked = true },
		"not":      func(d *Device) { d.State = Blocked },
		"digits":   func(d *Device) { d.Parameters.Digits = 4 },
	} {
		d := active(t)
		change(&d)
		if err := d.Check(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRefusedMoves: what the rules refuse beyond the diagram.
func TestRefusedMoves(t *testing.T) {
	c := Change{Actor: "op", Reason: "x", At: now}
	d := active(t)
	after := oath.State{Version: 2, Next: 6}
	for name, f := range map[string]func() error{
		"no reason":          func() error { _, err := d.Suspend(Change{Actor: "op", At: now}); return err },
		"no actor":           func() error { _, err := d.Revoke(Change{Reason: "x", At: now}); return err },
		"assign an active":   func() error { _, err := d.Assign(d.Subject, d.MAC, c); return err },
		"unblock an active":  func() error { _, err := d.Unblock(c); return err },
		"restore an active":  func() error { _, err := d.Restore(c); return err },
		"activate an active": func() error { _, err := d.Activate(oath.Accepted, after, c); return err },
		"drawer, no subject": func() error { x := d; x.State = Created; _, err := x.Assign(id.Subject{}, d.MAC, c); return err },
		"drawer, no binding": func() error { x := d; x.State = Created; _, err := x.Assign(d.Subject, nil, c); return err },
		"wrong code":         func() error { x := d; x.State = Delivered; _, err := x.Activate(oath.Wrong, after, c); return err },
		"repeated code":      func() error { x := d; x.State = Delivered; _, err := x.Activate(oath.Repeated, after, c); return err },
		"counter stands": func() error {
			x := d
			x.State = Delivered
			_, err := x.Activate(oath.Accepted, oath.State{Version: 2, Next: 5}, c)
			return err
		},
		"another version": func() error {
			x := d
			x.State = Delivered
			_, err := x.Activate(oath.Accepted, oath.State{Version: 3, Next: 6}, c)
			return err
		},
		"revoke a revoked": func() error { x := d; x.State = Revoked; _, err := x.Revoke(c); return err },
		"restore, not active": func() error {
			x := d
			x.State, x.Activated = Suspended, time.Time{}
			_, err := x.Restore(c)
			return err
		},
	} {
		if err := f(); !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.Denied) && !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// one is a register of one device.
type one struct {
	Register
	d Device
}

func (o one) Device(context.Context, id.Serial) (Device, error) { return o.d, nil }

func TestCell(t *testing.T) {
	d := active(t)
	load := func(d Device, in State) error {
		_, err := CellOf(one{d: d}, d.Serial, in, now).Load(t.Context())
		return err
	}
	if err := load(d, Active); err != nil {
		t.Error(err)
	}
	if err := load(d, Delivered); !fault.Is(err, fault.Denied) {
		t.Errorf("active for an activation: %v", err)
	}
	d.Expires = now
	if err := load(d, Active); !fault.Is(err, fault.Denied) {
		t.Errorf("expired: %v", err)
	}
	d.State, d.Counter.Blocked = Blocked, true
	if err := load(d, Active); err != nil {
		t.Errorf("blocked: %v", err)
	}
	d.State = Suspended
	if err := load(d, Active); !fault.Is(err, fault.Denied) {
		t.Errorf("suspended: %v", err)
	}
}
