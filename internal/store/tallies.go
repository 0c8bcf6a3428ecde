package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"custode/authcore"
	"custode/internal/store/hide"
	"custode/internal/store/sqlite"
)

var _ authcore.Tallies = (*DB)(nil)

// Tally implements authcore.Tallies.
func (db *DB) Tally(ctx context.Context, key [32]byte) (authcore.Tally, error) {
	row, err := db.read().GetTally(ctx, db.ring.Blind(hide.TallyKey, key[:]))
	if errors.Is(err, sql.ErrNoRows) {
		return authcore.Tally{}, nil
	}
	if err != nil {
		return authcore.Tally{}, mapError("read tally", err)
	}
	return authcore.Tally{Failures: int(row.Failures), Last: instant(row.LastAt)}, nil
}

// CountFailure implements authcore.Tallies. It returns the tally with this
// failure in it.
func (db *DB) CountFailure(ctx context.Context, key [32]byte, now time.Time) (t authcore.Tally, err error) {
	err = db.write(ctx, "count failure", func(q *sqlite.Queries) error {
		row, err := q.CountFailure(ctx, sqlite.CountFailureParams{TallyKey: db.ring.Blind(hide.TallyKey, key[:]), LastAt: nanos(now)})
		t = authcore.Tally{Failures: int(row.Failures), Last: instant(row.LastAt)}
		return err
	})
	if err != nil {
		return authcore.Tally{}, err
	}
	return t, nil
}

// ClearTally implements authcore.Tallies. Clearing an unknown key is no error.
func (db *DB) ClearTally(ctx context.Context, key [32]byte) error {
	return db.write(ctx, "clear tally", func(q *sqlite.Queries) error { return q.DeleteTally(ctx, db.ring.Blind(hide.TallyKey, key[:])) })
}
