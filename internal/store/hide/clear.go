package hide

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"io"
	"time"

	"custode/internal/fault"
	"custode/internal/store/sqlite"
	"custode/internal/store/veil"
)

// First is how the first data key is made.
type First struct {
	Keys   Wrapper
	Random io.Reader
	Now    time.Time
}

// All makes the first data key and hides what an earlier schema kept readable, in one transaction: the
// key's row says that all of it is done. What schemas 9 to 14 still kept readable is hidden when they left the row not clean. Then the file is written anew, so that
// neither free pages nor the WAL hold what they held. What was interrupted goes on when it is called again.
func All(ctx context.Context, db *sql.DB, cfg First) error {
	rows, err := sqlite.New(db).ListDataKeys(ctx)
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		if err := inTransaction(ctx, db, func(q *sqlite.Queries) error { return firstKey(ctx, q, cfg) }); err != nil {
			return err
		}
	} else if ring, err := unwrapAll(ctx, rows, cfg.Keys); err != nil {
		return err
	} else if rows[0].Clean == 1 {
		return nil
	} else if err := inTransaction(ctx, db, func(q *sqlite.Queries) error { return hider{q: q, ring: ring}.deviceEvents(ctx) }); err != nil {
		return err
	}
	for _, statement := range []string{"VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"} {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	if err := sqlite.New(db).SetDataKeysClean(ctx); err != nil {
		return err
	}
	return nil
}

func inTransaction(ctx context.Context, db *sql.DB, do func(q *sqlite.Queries) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := do(sqlite.New(tx)); err != nil {
		_ = tx.Rollback()
		return err
	}
	return tx.Commit()
}

func firstKey(ctx context.Context, q *sqlite.Queries, cfg First) error {
	const first = 1
	key := make([]byte, veil.KeySize)
	defer clear(key)
	if _, err := io.ReadFull(cfg.Random, key); err != nil {
		return fault.New(fault.KindOf(err), "draw a data key", err)
	}
	ring, err := veil.NewRing(map[uint8][]byte{first: key})
	if err != nil {
		return err
	}
	wrapped, err := cfg.Keys.Wrap(ctx, key, KeyBinding(first))
	if err != nil {
		return err
	}
	h := hider{q: q, ring: ring}
	for _, step := range []func(context.Context) error{h.identities, h.answers, h.tallies, h.messages, h.trail, h.incoming, h.optOuts, h.deviceEvents} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return q.InsertDataKey(ctx, sqlite.InsertDataKeyParams{ID: first, Wrapped: wrapped, Created: cfg.Now.UnixNano()})
}

// batch bounds how many rows are in memory.
const batch = 500

// hider rewrites rows of the schema before 9.
type hider struct {
	q    *sqlite.Queries
	ring *veil.Ring
}

// inBatches calls list with the last key seen until it returns nothing.
func inBatches[K, R any](list func(after K) ([]R, error), key func(R) K, hide func(R) error) error {
	var after K
	for {
		rows, err := list(after)
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, r := range rows {
			if err := hide(r); err != nil {
				return err
			}
			after = key(r)
		}
	}
}

func (h hider) identities(ctx context.Context) error {
	return inBatches(func(after string) ([]sqlite.ListClearIdentitiesRow, error) {
		return h.q.ListClearIdentities(ctx, sqlite.ListClearIdentitiesParams{After: after, Most: batch})
	}, func(r sqlite.ListClearIdentitiesRow) string { return r.Subject }, func(r sqlite.ListClearIdentitiesRow) error {
		d := IdentityDocument{V: IdentityVersion}
		if err := errors.Join(d.Username.UnmarshalText(r.Username), d.SPIDCode.UnmarshalText(r.SpidCode), d.Phone.UnmarshalText(r.Phone)); err != nil {
			return fault.New(fault.Fatal, "hide identity "+r.Subject, err)
		}
		if err := json.Unmarshal(r.Attributes, &d.Attributes); err != nil {
			return fault.New(fault.Fatal, "hide identity "+r.Subject, err)
		}
		document, err := json.Marshal(d)
		if err != nil {
			return err
		}
		err = h.q.HideIdentity(ctx, sqlite.HideIdentityParams{
			Subject: r.Subject, Username: h.ring.Blind(IdentityUsername, r.Username), SpidCode: h.ring.Blind(IdentitySPIDCode, r.SpidCode),
			Reason: h.ring.Hide(IdentityReason, r.Subject, r.Reason), Attributes: h.ring.Hide(IdentityAttributes, r.Subject, document),
		})
		if err != nil {
			return err
		}
		events, err := h.q.ListClearIdentityEvents(ctx, r.Subject)
		if err != nil {
			return err
		}
		for _, e := range events {
			err := h.q.HideIdentityEvent(ctx, sqlite.HideIdentityEventParams{
				Actor: h.ring.Hide(EventActor, r.Subject, e.Actor), Reason: h.ring.Hide(EventReason, r.Subject, e.Reason), Subject: r.Subject, Number: e.Number,
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// answers of before the certified log hold documents that are nowhere else.
func (h hider) answers(ctx context.Context) error {
	return inBatches(func(after string) ([]sqlite.ListClearAnswersRow, error) {
		return h.q.ListClearAnswers(ctx, sqlite.ListClearAnswersParams{After: after, Most: batch})
	}, func(r sqlite.ListClearAnswersRow) string { return r.ResponseID }, func(r sqlite.ListClearAnswersRow) error {
		return h.q.HideAnswer(ctx, sqlite.HideAnswerParams{
			ResponseID: r.ResponseID, SpidCode: h.ring.Hide(AnswerSPIDCode, r.ResponseID, r.SpidCode), NameID: h.ring.Hide(AnswerNameID, r.ResponseID, r.NameID),
			RequestXml: h.ring.Hide(AnswerRequest, r.ResponseID, r.RequestXml), ResponseXml: h.ring.Hide(AnswerResponse, r.ResponseID, r.ResponseXml),
		})
	})
}

func (h hider) tallies(ctx context.Context) error {
	keys, err := h.q.ListClearTallies(ctx)
	if err != nil {
		return err
	}
	for _, key := range keys {
		if err := h.q.HideTally(ctx, sqlite.HideTallyParams{Blind: h.ring.Blind(TallyKey, key), TallyKey: key}); err != nil {
			return err
		}
	}
	return nil
}

func (h hider) messages(ctx context.Context) error {
	return inBatches(func(after string) ([]sqlite.ListClearMessagesRow, error) {
		return h.q.ListClearMessages(ctx, sqlite.ListClearMessagesParams{After: after, Most: batch})
	}, func(r sqlite.ListClearMessagesRow) string { return r.ID }, func(r sqlite.ListClearMessagesRow) error {
		return h.q.HideMessage(ctx, sqlite.HideMessageParams{
			ID: r.ID, Recipient: h.ring.Blind(OutboxRecipient, r.Recipient), Number: h.ring.Hide(OutboxNumber, r.ID, r.Recipient),
		})
	})
}

func (h hider) trail(ctx context.Context) error {
	return inBatches(func(after int64) ([]sqlite.ListClearMessageEventsRow, error) {
		return h.q.ListClearMessageEvents(ctx, sqlite.ListClearMessageEventsParams{After: after, Most: batch})
	}, func(r sqlite.ListClearMessageEventsRow) int64 { return r.Number }, func(r sqlite.ListClearMessageEventsRow) error {
		return h.q.HideMessageEvent(ctx, sqlite.HideMessageEventParams{
			Number: r.Number, Recipient: h.ring.Blind(OutboxRecipient, r.Recipient), NumberBox: h.ring.Hide(OutboxNumber, r.Message, r.Recipient),
		})
	})
}

func (h hider) incoming(ctx context.Context) error {
	return inBatches(func(after string) ([]sqlite.ListClearIncomingRow, error) {
		return h.q.ListClearIncoming(ctx, sqlite.ListClearIncomingParams{After: after, Most: batch})
	}, func(r sqlite.ListClearIncomingRow) string { return r.Mark }, func(r sqlite.ListClearIncomingRow) error {
		return h.q.HideIncoming(ctx, sqlite.HideIncomingParams{
			Mark: r.Mark, Sender: h.ring.Hide(IncomingSender, r.Mark, r.Sender), Text: h.ring.Hide(IncomingText, r.Mark, r.Text),
		})
	})
}

func (h hider) optOuts(ctx context.Context) error {
	numbers, err := h.q.ListClearOptOuts(ctx)
	if err != nil {
		return err
	}
	for _, number := range numbers {
		blind := h.ring.Blind(OptOutRecipient, number)
		err := h.q.HideOptOut(ctx, sqlite.HideOptOutParams{Blind: blind, Number: h.ring.Hide(OptOutNumber, string(blind), number), Clear: string(number)})
		if err != nil {
			return err
		}
	}
	return nil
}

// deviceEvents are those of before schema 15: what is hidden is no text any more.
func (h hider) deviceEvents(ctx context.Context) error {
	type key struct {
		serial string
		number int64
	}
	return inBatches(func(after key) ([]sqlite.ListClearDeviceEventsRow, error) {
		return h.q.ListClearDeviceEvents(ctx, sqlite.ListClearDeviceEventsParams{Serial: after.serial, Number: after.number, Most: batch})
	}, func(r sqlite.ListClearDeviceEventsRow) key { return key{r.Serial, r.Number} }, func(r sqlite.ListClearDeviceEventsRow) error {
		return h.q.HideDeviceEvent(ctx, sqlite.HideDeviceEventParams{
			Actor: h.ring.Hide(DeviceActor, r.Serial, r.Actor), Reason: h.ring.Hide(DeviceReason, r.Serial, r.Reason), Serial: r.Serial, Number: r.Number,
		})
	})
}
