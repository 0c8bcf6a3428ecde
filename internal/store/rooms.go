package store

import (
	"context"

	"custode/internal/fault"
	"custode/internal/store/hide"
	"custode/internal/store/sqlite"
)

// Read returns the queries on the reading pool, for the rooms below this package.
func (db *DB) Read() *sqlite.Queries { return db.read() }

// Write runs do in one transaction, for the rooms below this package: it holds the write lock
// from its start, and is committed, durably, when do returns nil. do's own *fault.Error
// passes unchanged; every other error is mapped.
func (db *DB) Write(ctx context.Context, op string, do func(q *sqlite.Queries) error) error {
	return db.write(ctx, op, do)
}

// MapError gives an error of the engine its kind; a *fault.Error passes unchanged.
func MapError(op string, err error) error { return mapError(op, err) }

// HideDeviceChange puts who changed a device, and why, in the boxes of its history.
func (db *DB) HideDeviceChange(serial, actor, reason string) (actorBox, reasonBox []byte) {
	return db.hideText(hide.DeviceActor, serial, actor), db.hideText(hide.DeviceReason, serial, reason)
}

// ShowDeviceChange is the inverse of HideDeviceChange.
func (db *DB) ShowDeviceChange(serial string, actorBox, reasonBox []byte) (actor, reason string, err error) {
	err = db.showAll(serial, shown{&actor, hide.DeviceActor, actorBox}, shown{&reason, hide.DeviceReason, reasonBox})
	return actor, reason, err
}

// KindOf is the kind that MapError gives.
func KindOf(err error) fault.Kind { return kindOf(err) }
