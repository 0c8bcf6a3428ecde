package otpstore

import (
	"context"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store"
	"custode/internal/store/sqlite"
	"custode/otpvault/device"
	"custode/otpvault/enrol"
	"custode/otpvault/issuing"
)

var (
	_ issuing.Activations = (*DB)(nil)
	_ issuing.Emergencies = (*DB)(nil)
)

// AddActivation implements issuing.Activations.
func (db *DB) AddActivation(ctx context.Context, a enrol.Activation, at time.Time) error {
	op := "add activation of " + a.Serial.String()
	if a.Serial.IsZero() || a.Subject.IsZero() || a.Version != 1 || a.Used || a.Left < 1 {
		return fault.Newf(fault.Invalid, op, "not a new activation")
	}
	return db.store.Write(ctx, op, func(q *sqlite.Queries) error {
		return q.InsertActivation(ctx, sqlite.InsertActivationParams{
			Serial: a.Serial.String(), Subject: a.Subject.String(), Version: 1, Mac: blob(a.MAC), Tries: int64(a.Left),
			Created: nanos(at), Expires: nanos(a.Expires),
		})
	})
}

// Activation implements issuing.Activations.
func (db *DB) Activation(ctx context.Context, s id.Serial) (enrol.Activation, error) {
	op := "read activation of " + s.String()
	r, err := db.store.Read().GetActivation(ctx, s.String())
	if err != nil {
		return enrol.Activation{}, store.MapError(op, err)
	}
	a := enrol.Activation{Version: uint64(r.Version), Serial: s, MAC: r.Mac, Left: int(r.Tries), Used: r.Used == 1, Expires: instant(r.Expires)}
	if err := a.Subject.UnmarshalText([]byte(r.Subject)); err != nil {
		return enrol.Activation{}, fault.New(fault.Internal, op, err)
	}
	return a, nil
}

// SwapActivation implements issuing.Activations.
func (db *DB) SwapActivation(ctx context.Context, before, after enrol.Activation) error {
	return db.store.Write(ctx, "count on activation of "+before.Serial.String(), func(q *sqlite.Queries) error {
		return swapActivation(ctx, q, before, after)
	})
}

func swapActivation(ctx context.Context, q *sqlite.Queries, before, after enrol.Activation) error {
	op := "count on activation of " + before.Serial.String()
	if before.Used || after.Version != before.Version+1 || after.Left != before.Left-1 || after.Left < 0 {
		return fault.Newf(fault.Invalid, op, "not the step after version %d", before.Version)
	}
	n, err := q.SwapActivation(ctx, sqlite.SwapActivationParams{
		Version: int64(after.Version), Tries: int64(after.Left), Used: bit(after.Used), Serial: before.Serial.String(), Seen: int64(before.Version),
	})
	if err == nil && n != 1 {
		err = fault.Newf(fault.Conflict, op, "it is not at version %d any more", before.Version)
	}
	return err
}

// RedeemActivation implements issuing.Activations.
func (db *DB) RedeemActivation(ctx context.Context, before, after enrol.Activation, d device.Device, key []byte, c device.Change) error {
	op := "redeem activation of " + before.Serial.String()
	if err := d.Check(); err != nil {
		return fault.New(fault.Invalid, op, err)
	}
	if !after.Used || d.Serial != before.Serial || d.Subject != before.Subject || len(key) == 0 || c.Actor == "" || c.At.IsZero() {
		return fault.Newf(fault.Invalid, op, "the device is not the activation's, or who and when are missing")
	}
	return db.store.Write(ctx, op, func(q *sqlite.Queries) error {
		if err := swapActivation(ctx, q, before, after); err != nil {
			return err
		}
		if err := db.addDevice(ctx, q, d, c); err != nil {
			return err
		}
		return q.InsertPushKey(ctx, sqlite.InsertPushKeyParams{Serial: d.Serial.String(), Wrapped: key, Created: nanos(c.At)})
	})
}

// Emergency implements issuing.Emergencies.
func (db *DB) Emergency(ctx context.Context, s id.Subject) (enrol.Emergency, error) {
	op := "read emergency code of " + s.String()
	r, err := db.store.Read().GetEmergency(ctx, s.String())
	if err != nil {
		return enrol.Emergency{}, store.MapError(op, err)
	}
	return enrol.Emergency{Version: uint64(r.Version), Subject: s, MAC: r.Mac, Left: int(r.Tries), Used: r.Used == 1, Created: instant(r.Created)}, nil
}

// PutEmergency implements issuing.Emergencies.
func (db *DB) PutEmergency(ctx context.Context, e enrol.Emergency) error {
	op := "store emergency code of " + e.Subject.String()
	if e.Subject.IsZero() || e.Version == 0 || e.Left < 0 {
		return fault.Newf(fault.Invalid, op, "incomplete")
	}
	return db.store.Write(ctx, op, func(q *sqlite.Queries) error {
		n, err := q.SetEmergency(ctx, sqlite.SetEmergencyParams{
			Subject: e.Subject.String(), Version: int64(e.Version), Mac: blob(e.MAC), Tries: int64(e.Left), Used: bit(e.Used), Created: nanos(e.Created),
		})
		if err == nil && n != 1 {
			err = fault.Newf(fault.Conflict, op, "it is not at version %d any more", e.Version-1)
		}
		return err
	})
}
