package store

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"time"

	"custode/internal/fault"
	"custode/internal/store/sqlite"
	"custode/modem"
)

// leaseLife is how long a process that stopped calling Recover keeps its claims.
// It is a multiple of modem's renewal, so that a slow disk does not lose them.
const leaseLife = 40 * time.Second

// Record implements modem.Journal. Each step to Sending counts an attempt and
// claims the message for this DB. fault.NotFound, fault.Conflict when the
// message cannot become that from the state it is in, or when another process
// has claimed it and lives. To record a state again is no error, but for
// Sending; nor is the expiry of a message in doubt, which stays in doubt and is
// not tried again. A message whose code was used or replaced while it was
// Sending becomes Cancelled where it would become Queued or MaybeSent, so that
// no further copy leaves. Every step that changes something is in the audit trail.
func (db *DB) Record(ctx context.Context, e modem.Event) error {
	return db.write(ctx, "record message "+e.ID.String(), func(q *sqlite.Queries) error {
		if e.State == modem.Sending {
			if err := db.holdLease(ctx, q, e.At); err != nil {
				return err
			}
		}
		return step(ctx, q, db.owner, e)
	})
}

// step records e for owner and cancels what is to be sent once more for nothing.
func step(ctx context.Context, q *sqlite.Queries, owner string, e modem.Event) error {
	if err := record(ctx, q, owner, e); err != nil || e.State != modem.Queued && e.State != modem.MaybeSent {
		return err
	}
	closed, err := q.CountClosedCodes(ctx, e.ID.String())
	if err != nil || closed == 0 {
		return err
	}
	return cancelMessage(ctx, q, e.ID.String(), e.At)
}

const detailCancelled = "its code was used or replaced"

// cancelMessage ends a message whose code is worthless unless it is on the air,
// finished or cancelled.
func cancelMessage(ctx context.Context, q *sqlite.Queries, message string, now time.Time) error {
	row, err := q.GetMessageState(ctx, message)
	if err != nil {
		return err
	}
	if s := modem.State(row.State); s != modem.Queued && s != modem.MaybeSent {
		return nil
	}
	e := modem.Event{State: modem.Cancelled, Bay: row.Bay, Detail: detailCancelled, At: now}
	if err := parseAll(field{&e.ID, message}); err != nil {
		return err
	}
	return record(ctx, q, row.Owner, e)
}

// foreign reports whether e is a step that only the process which claimed the
// message may take. What proves that a copy was accepted counts from anybody.
func foreign(row sqlite.GetMessageStateRow, owner string, to modem.State) bool {
	if row.Owner == "" || row.Owner == owner || to == modem.Sent || to == modem.Delivered {
		return false
	}
	switch modem.State(row.State) {
	case modem.Sending:
		return true
	case modem.MaybeSent: // the second copy is its affair, too
		return row.Recovered == 0 && to != modem.Cancelled
	}
	return false
}

func record(ctx context.Context, q *sqlite.Queries, owner string, e modem.Event) error {
	op := "record message " + e.ID.String()
	row, err := q.GetMessageState(ctx, e.ID.String())
	if err != nil {
		return err
	}
	from := modem.State(row.State)
	switch {
	case foreign(row, owner, e.State):
		return fault.Newf(fault.Conflict, op, "another process sends it")
	case from == modem.MaybeSent && e.State == modem.Expired:
		return q.SetMessageRecovered(ctx, sqlite.SetMessageRecoveredParams{Recovered: 0, ID: e.ID.String(), State: row.State})
	case from == e.State && e.State != modem.Sending:
		return nil
	case !slices.Contains(mayFollow(from), e.State):
		return fault.Newf(fault.Conflict, op, "state %d cannot follow %d", e.State, from)
	}
	attempts, claim := int64(0), ""
	switch e.State {
	case modem.Sending:
		attempts, claim = 1, owner
	case modem.MaybeSent:
		claim = owner
	}
	n, err := q.UpdateMessage(ctx, sqlite.UpdateMessageParams{
		ToState: int64(e.State), MoreAttempts: attempts, Bay: e.Bay, Detail: e.Detail, Changed: nanos(e.At), Owner: claim,
		ID: e.ID.String(), FromState: row.State,
	})
	if err != nil {
		return err
	}
	if n != 1 {
		return fault.Newf(fault.Conflict, op, "it moved meanwhile")
	}
	if err := audit(ctx, q, e); err != nil {
		return err
	}
	if textNeeded(e.State) {
		return nil
	}
	return q.EraseMessageText(ctx, sqlite.EraseMessageTextParams{Wrapped: []byte{}, ID: e.ID.String()})
}

// audit adds e to the trail, in the transaction that makes it true.
func audit(ctx context.Context, q *sqlite.Queries, e modem.Event) error {
	parts := int64(0)
	if e.State == modem.Sending {
		parts = int64(max(e.Parts, 1))
	}
	return q.InsertMessageEvent(ctx, sqlite.InsertMessageEventParams{
		State: int64(e.State), Bay: e.Bay, Card: e.Card, Detail: e.Detail, Parts: parts,
		Handoff: int64(e.Handoff), Submit: int64(e.Submit), At: nanos(e.At), Message: e.ID.String(),
	})
}

// holdLease makes sure that this process's lease lasts a while from now on.
func (db *DB) holdLease(ctx context.Context, q *sqlite.Queries, now time.Time) error {
	expires, err := q.GetLease(ctx, db.owner)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if err == nil && expires > nanos(now.Add(leaseLife/2)) {
		return nil
	}
	return q.RenewLease(ctx, sqlite.RenewLeaseParams{Owner: db.owner, Expires: nanos(now.Add(leaseLife))})
}

// Recover implements modem.Journal. It renews the lease of this process. What a
// process was sending whose lease ended is in doubt (and is told of again as long
// as nobody tried it once more) unless its code is worthless by now: then it is
// cancelled, and not told of. What is queued past its deadline has expired. With
// Config.Alone every other process is dead.
func (db *DB) Recover(ctx context.Context, now time.Time) ([]modem.Event, error) {
	var events []modem.Event
	err := db.write(ctx, "recover messages", func(q *sqlite.Queries) error {
		if err := db.renewLease(ctx, q, now); err != nil {
			return err
		}
		if err := db.recoverSending(ctx, q, now); err != nil {
			return err
		}
		doubtful, err := recoverDoubtful(ctx, q, now)
		if err != nil {
			return err
		}
		expired, err := recoverQueued(ctx, q, now)
		events = append(doubtful, expired...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return events, nil
}

func (db *DB) renewLease(ctx context.Context, q *sqlite.Queries, now time.Time) error {
	if db.alone {
		if err := q.DropOtherLeases(ctx, db.owner); err != nil {
			return err
		}
	}
	if err := q.DropLeasesBefore(ctx, nanos(now)); err != nil {
		return err
	}
	return q.RenewLease(ctx, sqlite.RenewLeaseParams{Owner: db.owner, Expires: nanos(now.Add(leaseLife))})
}

const detailDoubt = "the process that was sending it ended"

// recoverSending puts what a dead process was sending in doubt, with a second
// chance unless its code is worthless by now. renewLease went before: a
// process without a row is dead.
func (db *DB) recoverSending(ctx context.Context, q *sqlite.Queries, now time.Time) error {
	rows, err := q.ListMessagesInState(ctx, int64(modem.Sending))
	if err != nil {
		return err
	}
	for _, r := range rows {
		if r.Owner == db.owner {
			continue
		}
		switch _, err := q.GetLease(ctx, r.Owner); {
		case err == nil:
			continue // alive
		case !errors.Is(err, sql.ErrNoRows):
			return err
		}
		e := modem.Event{State: modem.MaybeSent, Bay: r.Bay, Detail: detailDoubt, At: now}
		if err := parseAll(field{&e.ID, r.ID}); err != nil {
			return err
		}
		if err := step(ctx, q, r.Owner, e); err != nil {
			return err
		}
		if err := q.SetMessageRecovered(ctx, sqlite.SetMessageRecoveredParams{Recovered: 1, ID: r.ID, State: int64(modem.MaybeSent)}); err != nil {
			return err
		}
	}
	return nil
}

// recoverDoubtful ends the second chance of what is past its deadline and tells
// of the others. It follows recoverSending, whose messages it sees too.
func recoverDoubtful(ctx context.Context, q *sqlite.Queries, now time.Time) ([]modem.Event, error) {
	rows, err := q.ListMessagesInState(ctx, int64(modem.MaybeSent))
	if err != nil {
		return nil, err
	}
	var events []modem.Event
	for _, r := range rows {
		if r.Recovered == 0 {
			continue
		}
		e := modem.Event{State: modem.MaybeSent, Bay: r.Bay, Detail: detailDoubt, At: now}
		if err := parseAll(field{&e.ID, r.ID}); err != nil {
			return nil, err
		}
		if r.Expires <= nanos(now) {
			if err := q.SetMessageRecovered(ctx, sqlite.SetMessageRecoveredParams{Recovered: 0, ID: r.ID, State: int64(modem.MaybeSent)}); err != nil {
				return nil, err
			}
		}
		events = append(events, e)
	}
	return events, nil
}

// recoverQueued ends what is queued past its deadline.
func recoverQueued(ctx context.Context, q *sqlite.Queries, now time.Time) ([]modem.Event, error) {
	rows, err := q.ListExpiredInState(ctx, sqlite.ListExpiredInStateParams{State: int64(modem.Queued), Moment: nanos(now), Most: sweepBatch})
	if err != nil {
		return nil, err
	}
	var events []modem.Event
	for _, r := range rows {
		e := modem.Event{State: modem.Expired, Bay: r.Bay, Detail: "deadline passed", At: now}
		if err := parseAll(field{&e.ID, r.ID}); err != nil {
			return nil, err
		}
		if err := record(ctx, q, "", e); err != nil {
			return nil, err
		}
		events = append(events, e)
	}
	return events, nil
}
