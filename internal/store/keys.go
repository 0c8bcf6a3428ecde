package store

import (
	"context"

	"custode/hsm/rollover"
	"custode/internal/fault"
	"custode/internal/store/sqlite"
)

// SigningKeys returns the ledger of signing keys, in order of publication.
func (db *DB) SigningKeys(ctx context.Context) (rollover.Ledger, error) {
	const op = "list signing keys"
	rows, err := db.read().ListSigningKeys(ctx)
	if err != nil {
		return nil, mapError(op, err)
	}
	var out rollover.Ledger
	for _, r := range rows {
		k := rollover.Key{Published: instant(r.Published), Activated: instant(r.Activated), Retired: instant(r.Retired),
			Withdrawn: instant(r.Withdrawn), Destroyed: instant(r.Destroyed), Approval: r.Approval}
		if err := parseAll(field{&k.Label, r.Label}); err != nil {
			return nil, fault.New(fault.Internal, op, err)
		}
		if len(r.Certificate) != len(k.Certificate) {
			return nil, fault.Newf(fault.Internal, op, "the fingerprint of %s has %d octets", r.Label, len(r.Certificate))
		}
		k.Certificate = [32]byte(r.Certificate)
		out = append(out, k)
	}
	return out, nil
}

// SaveSigningKeys writes the ledger in one transaction. Lines are added and
// changed, never removed.
func (db *DB) SaveSigningKeys(ctx context.Context, l rollover.Ledger) error {
	return db.write(ctx, "save signing keys", func(q *sqlite.Queries) error {
		for _, k := range l {
			if err := q.PutSigningKey(ctx, sqlite.PutSigningKeyParams{
				Label: k.Label.String(), Certificate: k.Certificate[:], Published: nanos(k.Published), Activated: nanos(k.Activated),
				Retired: nanos(k.Retired), Withdrawn: nanos(k.Withdrawn), Destroyed: nanos(k.Destroyed), Approval: k.Approval,
			}); err != nil {
				return err
			}
		}
		return nil
	})
}
