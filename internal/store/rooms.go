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

// KindOf is the kind that MapError gives.
func KindOf(err error) fault.Kind { return kindOf(err) }

// HideDeviceEvent returns the boxes of who moved a device and why.
func (db *DB) HideDeviceEvent(serial, who, why string) (actor, reason []byte) {
	return db.hideText(hide.DeviceActor, serial, who), db.hideText(hide.DeviceReason, serial, why)
}

// ShowDeviceEvent opens what HideDeviceEvent returned.
func (db *DB) ShowDeviceEvent(serial string, actor, reason []byte) (who, why string, err error) {
	err = db.showAll(serial, shown{&who, hide.DeviceActor, actor}, shown{&why, hide.DeviceReason, reason})
	return who, why, err
}
