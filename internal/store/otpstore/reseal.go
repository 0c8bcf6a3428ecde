package otpstore

import (
	"context"

	"custode/hsm/rewrap"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store"
	"custode/internal/store/sqlite"
	"custode/otpvault/device"
	"custode/otpvault/enrol"
	"custode/otpvault/reseal"
)

var _ reseal.Rows = (*DB)(nil)

// DevicesPast implements reseal.Rows.
func (db *DB) DevicesPast(ctx context.Context, past string, most int) ([]device.Device, error) {
	const op = "list devices"
	rows, err := db.store.Read().ListDevicesPast(ctx, sqlite.ListDevicesPastParams{Past: past, Most: int64(most)})
	if err != nil {
		return nil, store.MapError(op, err)
	}
	list := make([]device.Device, len(rows))
	for i, row := range rows {
		if list[i], err = decodeDevice(op, row); err == nil {
			continue
		}
		list[i] = device.Device{} // one row that somebody changed does not keep the others from being resealed
		if list[i].Serial, err = id.ParseSerial(row.Serial); err != nil {
			return nil, fault.New(fault.Internal, op, err)
		}
	}
	return list, nil
}

// Reseal implements reseal.Rows.
func (db *DB) Reseal(ctx context.Context, d device.Device, blob, mac []byte) (done bool, err error) {
	err = db.store.Write(ctx, "reseal device "+d.Serial.String(), func(q *sqlite.Queries) error {
		n, err := q.ResealDevice(ctx, sqlite.ResealDeviceParams{Blob: blob, Mac: mac, Serial: d.Serial.String(), WasBlob: d.Blob, WasMac: d.MAC, Subject: d.Subject.String()})
		done = n == 1
		return err
	})
	return done, err
}

// apps are the wrapped keys of apps, for rewrap.
type apps struct{ db *DB }

// AppKeys returns the keys of apps, each bound to its device.
func (db *DB) AppKeys() rewrap.Table { return apps{db} }

// Rows implements rewrap.Table.
func (a apps) Rows(ctx context.Context, past string, most int) ([]rewrap.Row, error) {
	const op = "list keys of apps"
	rows, err := a.db.store.Read().ListPushKeysPast(ctx, sqlite.ListPushKeysPastParams{Past: past, Most: int64(most)})
	if err != nil {
		return nil, store.MapError(op, err)
	}
	out := make([]rewrap.Row, len(rows))
	for i, r := range rows {
		serial, err := id.ParseSerial(r.Serial)
		if err != nil {
			return nil, store.MapError(op, err)
		}
		out[i] = rewrap.Row{Key: r.Serial, Blob: r.Wrapped, AAD: enrol.KeyContext(serial)}
	}
	return out, nil
}

// Replace implements rewrap.Table.
func (a apps) Replace(ctx context.Context, key string, was, is []byte) (replaced bool, err error) {
	err = a.db.store.Write(ctx, "rewrap key of app "+key, func(q *sqlite.Queries) error {
		n, err := q.ReplacePushKey(ctx, sqlite.ReplacePushKeyParams{Wrapped: is, Serial: key, Was: was})
		replaced = n == 1
		return err
	})
	return replaced, err
}
