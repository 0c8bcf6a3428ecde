package store

import (
	"context"
	"database/sql"
	"errors"

	"custode/internal/store/sqlite"
)

// transactionLog is the certified log whose floor rises with each answer.
const transactionLog = "transactions"

// RaiseFloor remembers that the certified log of that name holds so many records.
// A smaller number than the one remembered changes nothing.
func (db *DB) RaiseFloor(ctx context.Context, log string, records uint64) error {
	return db.write(ctx, "raise floor of "+log, func(q *sqlite.Queries) error {
		return q.RaiseFloor(ctx, sqlite.RaiseFloorParams{Log: log, Records: int64(records)})
	})
}

// Floor returns the number that RaiseFloor or FinishFlow remembered, 0 for none.
func (db *DB) Floor(ctx context.Context, log string) (uint64, error) {
	n, err := db.read().GetFloor(ctx, log)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, mapError("read floor of "+log, err)
	}
	return uint64(n), nil
}

// PinLog remembers, the first time, which certified log stands under the name, and
// returns the one that is remembered.
func (db *DB) PinLog(ctx context.Context, log, logID string) (pinned string, err error) {
	op := "pin certified log " + log
	err = db.write(ctx, op, func(q *sqlite.Queries) error {
		if err := q.PinLogID(ctx, sqlite.PinLogIDParams{Log: log, LogID: logID}); err != nil {
			return err
		}
		pinned, err = q.GetLogID(ctx, log)
		return err
	})
	return pinned, err
}
