package store

import (
	"context"

	"custode/internal/id"
)

// Phone returns the number of the identity with that code, zero when it has none;
// fault.NotFound.
func (db *DB) Phone(ctx context.Context, code id.SPIDCode) (id.Phone, error) {
	const op = "find telephone by SPID code"
	row, err := db.read().GetPhoneBySpidCode(ctx, code.String())
	if err != nil {
		return id.Phone{}, mapError(op, err)
	}
	var p id.Phone
	return p, parseAll(field{&p, row})
}
