package store

import (
	"context"
	"fmt"
	"strconv"

	"custode/hsm/rewrap"
	"custode/hsm/rollover"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store/hide"
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

// Mentions is how many rows speak of a key: waiting texts and keys of apps that it
// wrapped, devices whose seeds it wrapped, data keys of the database, passwords whose hashes it peppered. Unnamed
// passwords name no pepper at all.
type Mentions struct{ Texts, Apps, Devices, DataKeys, Passwords, Unnamed int }

// Mentions counts the rows that a key is needed for: those where its label stands
// anywhere in what was wrapped, rather too many than too few. pepper is how a stored
// password begins that names the key.
func (db *DB) Mentions(ctx context.Context, label id.KeyLabel, pepper string) (Mentions, error) {
	r, err := db.read().CountMentions(ctx, sqlite.CountMentionsParams{Label: []byte(label.String()), Pepper: pepper})
	if err != nil {
		return Mentions{}, mapError("count what key "+label.String()+" is needed for", err)
	}
	return Mentions{Texts: int(r.Texts), Apps: int(r.PushKeys), Devices: int(r.Devices), DataKeys: int(r.DataKeys), Passwords: int(r.Passwords), Unnamed: int(r.Unnamed)}, nil
}

// ReplacePassword stores is where was still stands; false when it does not.
func (db *DB) ReplacePassword(ctx context.Context, subject id.Subject, was, is string) (replaced bool, err error) {
	err = db.write(ctx, "replace password of "+subject.String(), func(q *sqlite.Queries) error {
		n, err := q.ReplacePassword(ctx, sqlite.ReplacePasswordParams{Password: is, Subject: subject.String(), Was: was})
		replaced = n == 1
		return err
	})
	return replaced, err
}

// texts are the wrapped texts of the outbox, for rewrap.
type texts struct{ db *DB }

// Texts returns the texts of messages that wait to be sent, each bound to its
// message's identifier.
func (db *DB) Texts() rewrap.Table { return texts{db} }

// Rows implements rewrap.Table.
func (t texts) Rows(ctx context.Context, past string, most int) ([]rewrap.Row, error) {
	rows, err := t.db.read().ListWaitingTexts(ctx, sqlite.ListWaitingTextsParams{Past: past, Most: int64(most)})
	if err != nil {
		return nil, mapError("list waiting texts", err)
	}
	out := make([]rewrap.Row, len(rows))
	for i, r := range rows {
		out[i] = rewrap.Row{Key: r.ID, Blob: r.Wrapped, AAD: []byte(r.ID)}
	}
	return out, nil
}

// Replace implements rewrap.Table.
func (t texts) Replace(ctx context.Context, key string, was, is []byte) (replaced bool, err error) {
	err = t.db.write(ctx, "rewrap text of message "+key, func(q *sqlite.Queries) error {
		n, err := q.ReplaceText(ctx, sqlite.ReplaceTextParams{Wrapped: is, ID: key, Was: was})
		replaced = n == 1
		return err
	})
	return replaced, err
}

// dataKeys are the wrapped data keys, for rewrap.
type dataKeys struct{ db *DB }

// DataKeys returns the keys that hide personal data, wrapped. Only the wrapping is ever
// replaced: what they hide stays as it is.
func (db *DB) DataKeys() rewrap.Table { return dataKeys{db} }

// Rows implements rewrap.Table.
func (t dataKeys) Rows(ctx context.Context, past string, most int) ([]rewrap.Row, error) {
	rows, err := t.db.read().ListDataKeys(ctx) // at most 255
	if err != nil {
		return nil, mapError("list data keys", err)
	}
	var out []rewrap.Row
	for _, r := range rows {
		if key := fmt.Sprintf("%03d", r.ID); key > past && len(out) < most {
			out = append(out, rewrap.Row{Key: key, Blob: r.Wrapped, AAD: hide.KeyBinding(r.ID)})
		}
	}
	return out, nil
}

// Replace implements rewrap.Table.
func (t dataKeys) Replace(ctx context.Context, key string, was, is []byte) (replaced bool, err error) {
	op := "rewrap data key " + key
	number, err := strconv.ParseUint(key, 10, 8)
	if err != nil {
		return false, fault.New(fault.Internal, op, err)
	}
	err = t.db.write(ctx, op, func(q *sqlite.Queries) error {
		n, err := q.ReplaceDataKey(ctx, sqlite.ReplaceDataKeyParams{Wrapped: is, ID: int64(number), Was: was})
		replaced = n == 1
		return err
	})
	return replaced, err
}
