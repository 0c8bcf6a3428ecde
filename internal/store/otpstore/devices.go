package otpstore

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store"
	"custode/internal/store/sqlite"
	"custode/otpvault/device"
	"custode/otpvault/oath"
)

var _ device.Register = (*DB)(nil)

// AddDevices implements device.Register.
func (db *DB) AddDevices(ctx context.Context, devices []device.Device, c device.Change) error {
	const op = "add devices"
	for _, d := range devices {
		if err := d.Check(); err != nil {
			return fault.New(fault.Invalid, op, err)
		}
	}
	if c.Actor == "" || c.At.IsZero() {
		return fault.Newf(fault.Invalid, op, "who or when is missing")
	}
	return db.store.Write(ctx, op, func(q *sqlite.Queries) error {
		for _, d := range devices {
			if err := db.addDevice(ctx, q, d, c); err != nil {
				return err
			}
		}
		return nil
	})
}

func (db *DB) addDevice(ctx context.Context, q *sqlite.Queries, d device.Device, c device.Change) error {
	if err := q.InsertDevice(ctx, insertable(d)); err != nil {
		return fault.New(store.KindOf(err), "add device "+d.Serial.String(), err)
	}
	if len(d.Escrow) > 0 {
		if err := q.InsertEscrow(ctx, sqlite.InsertEscrowParams{Serial: d.Serial.String(), Copy: d.Escrow, Created: nanos(c.At)}); err != nil {
			return err
		}
	}
	return db.insertEvent(ctx, q, sqlite.InsertDeviceEventParams{Serial: d.Serial.String(), ToState: int64(d.State), Subject: d.Subject.String()}, c)
}

// insertEvent adds e to a device's history, with c hidden: operators write names into reasons.
func (db *DB) insertEvent(ctx context.Context, q *sqlite.Queries, e sqlite.InsertDeviceEventParams, c device.Change) error {
	e.Actor, e.Reason = db.store.HideDeviceChange(e.Serial, c.Actor, c.Reason)
	e.At = nanos(c.At)
	return q.InsertDeviceEvent(ctx, e)
}

func insertable(d device.Device) sqlite.InsertDeviceParams {
	return sqlite.InsertDeviceParams{
		Serial: d.Serial.String(), Subject: d.Subject.String(), State: int64(d.State), Vendor: d.Vendor, IsApp: bit(d.Virtual),
		Kind: int64(d.Parameters.Kind), Hash: int64(d.Parameters.Hash), Digits: int64(d.Parameters.Digits), Period: int64(d.Parameters.Period),
		Blob: d.Blob, Mac: d.MAC, Version: int64(d.Counter.Version), Next: int64(d.Counter.Next), Drift: int64(d.Counter.Drift),
		Failures: int64(d.Counter.Failures), Blocked: bit(d.Counter.Blocked), Created: nanos(d.Created), Delivered: nanos(d.Delivered),
		Activated: nanos(d.Activated), Suspended: nanos(d.Suspended), Ended: nanos(d.Ended), Expires: nanos(d.Expires),
	}
}

// Device implements device.Register.
func (db *DB) Device(ctx context.Context, s id.Serial) (device.Device, error) {
	op := "read device " + s.String()
	row, err := db.store.Read().GetDevice(ctx, s.String())
	if err != nil {
		return device.Device{}, store.MapError(op, err)
	}
	return decodeDevice(op, row)
}

// DevicesOf implements device.Register.
func (db *DB) DevicesOf(ctx context.Context, s id.Subject) ([]device.Device, error) {
	op := "list devices of " + s.String()
	rows, err := db.store.Read().ListDevicesOf(ctx, s.String())
	if err != nil {
		return nil, store.MapError(op, err)
	}
	list := make([]device.Device, 0, len(rows))
	for _, row := range rows {
		d, err := decodeDevice(op, row)
		if err != nil {
			return nil, err
		}
		list = append(list, d)
	}
	return list, nil
}

// decodeDevice refuses a row that this program did not write.
func decodeDevice(op string, r sqlite.OtpDevice) (device.Device, error) {
	d := device.Device{
		State: device.State(r.State), Vendor: r.Vendor, Virtual: r.IsApp == 1,
		Parameters: oath.Parameters{Kind: oath.Kind(r.Kind), Hash: oath.Hash(r.Hash), Digits: int(r.Digits), Period: time.Duration(r.Period)},
		Blob:       r.Blob, MAC: r.Mac,
		Counter: oath.State{Version: uint64(r.Version), Next: uint64(r.Next), Drift: int(r.Drift), Failures: int(r.Failures), Blocked: r.Blocked == 1},
		Created: instant(r.Created), Delivered: instant(r.Delivered), Activated: instant(r.Activated), Suspended: instant(r.Suspended),
		Ended: instant(r.Ended), Expires: instant(r.Expires),
	}
	if r.Kind > 255 || r.Hash > 255 { // would be cut by the conversion
		return device.Device{}, fault.Newf(fault.Internal, op, "kind or hash out of range")
	}
	if err := parse(op, &d.Serial, r.Serial, &d.Subject, r.Subject); err != nil {
		return device.Device{}, err
	}
	if err := d.Check(); err != nil {
		return device.Device{}, fault.New(fault.Internal, op, err)
	}
	return d, nil
}

// SwapCounter implements device.Register.
func (db *DB) SwapCounter(ctx context.Context, s id.Serial, before, after oath.State, at time.Time) error {
	op := "count on device " + s.String()
	if after.Version != before.Version+1 || before.Blocked || after.Next < before.Next {
		return fault.Newf(fault.Invalid, op, "not the step after version %d", before.Version)
	}
	return db.store.Write(ctx, op, func(q *sqlite.Queries) error {
		rows, err := q.SwapDeviceCounter(ctx, sqlite.SwapDeviceCounterParams{
			Version: int64(after.Version), Next: int64(after.Next), Drift: int64(after.Drift), Failures: int64(after.Failures),
			Blocked: bit(after.Blocked), Serial: s.String(), Seen: int64(before.Version), Least: int64(after.Next),
		})
		if err != nil {
			return err
		}
		if len(rows) != 1 {
			return whyNoDevice(ctx, q, op, s)
		}
		if !after.Blocked {
			return nil
		}
		if err := q.SetDeviceState(ctx, sqlite.SetDeviceStateParams{State: int64(device.Blocked), Serial: s.String()}); err != nil {
			return err
		}
		return db.insertEvent(ctx, q, sqlite.InsertDeviceEventParams{
			Serial: s.String(), FromState: rows[0].State, ToState: int64(device.Blocked), Subject: rows[0].Subject,
		}, device.Change{Actor: "otpvault", Reason: "wrong codes in a row", At: at})
	})
}

// whyNoDevice tells a device that is not there from one that changed.
func whyNoDevice(ctx context.Context, q *sqlite.Queries, op string, s id.Serial) error {
	row, err := q.GetDevice(ctx, s.String())
	if errors.Is(err, sql.ErrNoRows) {
		return fault.Newf(fault.NotFound, op, "no such device")
	}
	if err != nil {
		return err
	}
	return fault.Newf(fault.Conflict, op, "it is %v at version %d", device.State(row.State), row.Version)
}

// MoveDevice implements device.Register.
func (db *DB) MoveDevice(ctx context.Context, m device.Move) error {
	op := "move device " + m.Serial.String()
	if !m.From.May(m.To) || m.Counter.Version <= m.Seen || len(m.MAC) < 32 || m.Change.Actor == "" || m.Change.At.IsZero() ||
		m.Subject.IsZero() && m.To != device.Revoked || m.Counter.Blocked && (m.To == device.Active || m.To == device.Delivered) {
		return fault.Newf(fault.Invalid, op, "from %v to %v is no move", m.From, m.To)
	}
	return db.store.Write(ctx, op, func(q *sqlite.Queries) error {
		n, err := q.MoveDevice(ctx, sqlite.MoveDeviceParams{
			ToState: int64(m.To), Subject: m.Subject.String(), Mac: m.MAC, Version: int64(m.Counter.Version), Next: int64(m.Counter.Next),
			Drift: int64(m.Counter.Drift), Failures: int64(m.Counter.Failures), Blocked: bit(m.Counter.Blocked), At: nanos(m.Change.At),
			Serial: m.Serial.String(), Seen: int64(m.Seen), FromState: int64(m.From), Least: int64(m.Counter.Next),
		})
		if err != nil {
			return err
		}
		if n != 1 {
			return whyNoDevice(ctx, q, op, m.Serial)
		}
		return db.insertEvent(ctx, q, sqlite.InsertDeviceEventParams{
			Serial: m.Serial.String(), FromState: int64(m.From), ToState: int64(m.To), Subject: m.Subject.String(),
		}, m.Change)
	})
}

// DeviceEvent is one entry of a device's history. From is 0 in the first one.
type DeviceEvent struct {
	From, To device.State
	Subject  id.Subject // after it
	device.Change
}

// DeviceHistory returns what happened to a device, oldest first.
func (db *DB) DeviceHistory(ctx context.Context, s id.Serial) ([]DeviceEvent, error) {
	op := "read history of device " + s.String()
	rows, err := db.store.Read().ListDeviceEvents(ctx, s.String())
	if err != nil {
		return nil, store.MapError(op, err)
	}
	list := make([]DeviceEvent, 0, len(rows))
	for _, r := range rows {
		e := DeviceEvent{From: device.State(r.FromState), To: device.State(r.ToState), Change: device.Change{At: instant(r.At)}}
		if e.Actor, e.Reason, err = db.store.ShowDeviceChange(s.String(), r.Actor, r.Reason); err != nil {
			return nil, err
		}
		if err := e.Subject.UnmarshalText([]byte(r.Subject)); err != nil {
			return nil, fault.New(fault.Internal, op, err)
		}
		list = append(list, e)
	}
	return list, nil
}

// Escrow returns the copy of a device's seed for the recovery key; fault.NotFound.
func (db *DB) Escrow(ctx context.Context, s id.Serial) ([]byte, error) {
	c, err := db.store.Read().GetEscrow(ctx, s.String())
	if err != nil {
		return nil, store.MapError("read escrow copy of device "+s.String(), err)
	}
	return c, nil
}
