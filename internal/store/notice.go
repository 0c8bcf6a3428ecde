package store

import (
	"context"

	"custode/internal/id"
	"custode/internal/store/hide"
	"custode/internal/store/sqlite"
)

// Phone returns the number of the identity with that code, zero when it has none;
// fault.NotFound.
func (db *DB) Phone(ctx context.Context, code id.SPIDCode) (id.Phone, error) {
	const op = "find telephone by SPID code"
	row, err := db.read().GetIdentityBySpidCode(ctx, db.blind(hide.IdentitySPIDCode, code.String()))
	if err != nil {
		return id.Phone{}, mapError(op, err)
	}
	who, err := db.decodeIdentity(op, sqlite.GetIdentityRow(row))
	return who.Phone, err
}
