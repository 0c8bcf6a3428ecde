package store

import (
	"bytes"
	"context"
	"strings"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store/hide"
	"custode/internal/store/sqlite"
	"custode/modem"
)

// Enqueue puts a message that is no code into the outbox: codes come with their
// challenge. fault.Invalid for one without identifier, number, text or life, and
// for a code; fault.Conflict when the identifier is taken.
func (db *DB) Enqueue(ctx context.Context, m modem.Message) error {
	op := "queue message " + m.ID.String()
	if m.ID.IsZero() || m.To.IsZero() || len(m.Wrapped) == 0 || m.Class == modem.OneTime || !m.Expires.After(m.Created) {
		return fault.Newf(fault.Invalid, op, "identifier, number, text, class or deadline")
	}
	return db.write(ctx, op, func(q *sqlite.Queries) error {
		return q.InsertMessage(ctx, sqlite.InsertMessageParams{
			ID: m.ID.String(), Recipient: db.blind(hide.OutboxRecipient, m.To.String()), Number: db.hideText(hide.OutboxNumber, m.ID.String(), m.To.String()), Wrapped: m.Wrapped, Class: int64(m.Class), State: int64(modem.Queued),
			Created: nanos(m.Created), Expires: nanos(m.Expires), OnlyBay: m.OnlyBay,
		})
	})
}

// Spent implements modem.Accounts, from the audit trail.
func (db *DB) Spent(ctx context.Context, card string, since time.Time) (all, bulk int, err error) {
	const op = "count what a card spent"
	a, err := db.read().CountSpent(ctx, sqlite.CountSpentParams{Card: card, Since: nanos(since)})
	if err != nil {
		return 0, 0, mapError(op, err)
	}
	b, err := db.read().CountSpentBulk(ctx, sqlite.CountSpentBulkParams{Card: card, Since: nanos(since), Class: int64(modem.Bulk)})
	if err != nil {
		return 0, 0, mapError(op, err)
	}
	return int(a), int(b), nil
}

// Accepted implements modem.Accounts.
func (db *DB) Accepted(ctx context.Context, number string, prefix bool, since time.Time) (int, error) {
	const op = "count accepted messages"
	if !prefix {
		n, err := db.read().CountAccepted(ctx, sqlite.CountAcceptedParams{Recipient: db.blind(hide.OutboxRecipient, number), Since: nanos(since)})
		if err != nil {
			return 0, mapError(op, err)
		}
		return int(n), nil
	}
	// Blind names have no order: the numbers are looked at.
	rows, err := db.read().ListAccepted(ctx, nanos(since))
	if err != nil {
		return 0, mapError(op, err)
	}
	count := 0
	for _, r := range rows {
		to, err := db.ring.Show(hide.OutboxNumber, r.ID, r.Number)
		if err != nil {
			return 0, err
		}
		if bytes.HasPrefix(to, []byte(number)) {
			count++
		}
		clear(to)
	}
	return count, nil
}

// OptedOut implements modem.Accounts.
func (db *DB) OptedOut(ctx context.Context, to id.Phone) (bool, error) {
	n, err := db.read().CountOptOut(ctx, db.blind(hide.OptOutRecipient, to.String()))
	if err != nil {
		return false, mapError("look for an opt-out", err)
	}
	return n > 0, nil
}

// OptOut implements modem.Accounts. A sender that is no number is fault.Invalid.
func (db *DB) OptOut(ctx context.Context, number string, out bool, at time.Time) error {
	const op = "note an opt-out"
	to, err := id.ParsePhone(number)
	if err != nil {
		return fault.New(fault.Invalid, op, err)
	}
	blind := db.blind(hide.OptOutRecipient, to.String())
	return db.write(ctx, op, func(q *sqlite.Queries) error {
		if out {
			return q.AddOptOut(ctx, sqlite.AddOptOutParams{Recipient: blind, Number: db.hideText(hide.OptOutNumber, string(blind), to.String()), Since: nanos(at)})
		}
		_, err := q.DropOptOut(ctx, blind)
		return err
	})
}

// maxIncoming bounds a kept text, in octets: a long message of 255 parts is never a
// wish of a person.
const maxIncoming = 4096

// Receive implements modem.Accounts.
func (db *DB) Receive(ctx context.Context, m modem.Received) (fresh bool, err error) {
	const op = "keep an incoming message"
	if m.Mark == "" || len(m.Mark) > 128 || len(m.From) > 64 {
		return false, fault.Newf(fault.Invalid, op, "mark or sender")
	}
	err = db.write(ctx, op, func(q *sqlite.Queries) error {
		n, err := q.InsertIncoming(ctx, sqlite.InsertIncomingParams{
			Mark: m.Mark, Sender: db.hideText(hide.IncomingSender, m.Mark, m.From),
			Text: db.hideText(hide.IncomingText, m.Mark, strings.ToValidUTF8(m.Text[:min(len(m.Text), maxIncoming)], "")), Bay: m.Bay, Card: m.Card, Received: nanos(m.At),
		})
		fresh = n == 1
		return err
	})
	return fresh, err
}

// Incoming returns what came in since then, oldest first, limit at most.
func (db *DB) Incoming(ctx context.Context, since time.Time, limit int) ([]modem.Received, error) {
	rows, err := db.read().ListIncoming(ctx, sqlite.ListIncomingParams{Since: nanos(since), Most: int64(limit)})
	if err != nil {
		return nil, mapError("list incoming messages", err)
	}
	list := make([]modem.Received, 0, len(rows))
	for _, r := range rows {
		m := modem.Received{Mark: r.Mark, Bay: r.Bay, Card: r.Card, At: instant(r.Received)}
		if err := db.showAll(r.Mark, shown{&m.From, hide.IncomingSender, r.Sender}, shown{&m.Text, hide.IncomingText, r.Text}); err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, nil
}

// TrailEntry is one step of a message in the audit trail. Number orders the
// entries.
type TrailEntry struct {
	Number    int64
	Recipient id.Phone
	Class     modem.Class
	modem.Event
}

// Trail returns the audit trail of messages since then, after the entry with
// that number (0: from the first), limit at most.
func (db *DB) Trail(ctx context.Context, since time.Time, after int64, limit int) ([]TrailEntry, error) {
	rows, err := db.read().ListMessageEvents(ctx, sqlite.ListMessageEventsParams{Since: nanos(since), Past: after, Most: int64(limit)})
	return db.trail(rows, err)
}

// TrailOf returns the audit trail of one message.
func (db *DB) TrailOf(ctx context.Context, m id.MessageID) ([]TrailEntry, error) {
	rows, err := db.read().ListEventsOfMessage(ctx, m.String())
	all := make([]sqlite.ListMessageEventsRow, 0, len(rows))
	for _, r := range rows {
		all = append(all, sqlite.ListMessageEventsRow(r))
	}
	return db.trail(all, err)
}

func (db *DB) trail(rows []sqlite.ListMessageEventsRow, err error) ([]TrailEntry, error) {
	const op = "read message trail"
	if err != nil {
		return nil, mapError(op, err)
	}
	list := make([]TrailEntry, 0, len(rows))
	for _, r := range rows {
		t := TrailEntry{Number: r.Number, Class: modem.Class(r.Class), Event: modem.Event{
			State: modem.State(r.State), Bay: r.Bay, Card: r.Card, Detail: r.Detail, Parts: int(r.Parts),
			Handoff: time.Duration(r.Handoff), Submit: time.Duration(r.Submit), At: instant(r.At),
		}}
		var to string
		if err := db.showAll(r.Message, shown{&to, hide.OutboxNumber, r.NumberBox}); err != nil {
			return nil, err
		}
		if err := parseAll(field{&t.ID, r.Message}, field{&t.Recipient, to}); err != nil {
			return nil, fault.New(fault.Internal, op, err)
		}
		list = append(list, t)
	}
	return list, nil
}
