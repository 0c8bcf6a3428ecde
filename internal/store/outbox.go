package store

import (
	"cmp"
	"context"
	"slices"
	"time"

	"custode/authcore"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store/sqlite"
	"custode/modem"
	"custode/otpvault"
)

var (
	_ authcore.Deliveries = (*DB)(nil)
	_ modem.Journal       = (*DB)(nil)
)

// mayFollow is what a message in a state may become. Sending is the claim of a
// message: it cannot follow itself, so two processes never send one copy. What
// the pool learns later corrects what it believed (a late receipt, a second
// copy of a message in doubt); nothing corrects Delivered and Expired.
// What is on the air cannot be cancelled, and that a copy of a cancelled message
// was accepted is still noted.
func mayFollow(from modem.State) []modem.State {
	switch from {
	case modem.Queued:
		return []modem.State{modem.Sending, modem.Sent, modem.Delivered, modem.Failed, modem.Expired, modem.MaybeSent, modem.Cancelled}
	case modem.Sending:
		return []modem.State{modem.Queued, modem.Sent, modem.Delivered, modem.Failed, modem.Expired, modem.MaybeSent}
	case modem.MaybeSent:
		return []modem.State{modem.Sending, modem.Sent, modem.Delivered, modem.Failed, modem.Cancelled}
	case modem.Sent:
		return []modem.State{modem.Delivered, modem.Failed}
	case modem.Failed, modem.Cancelled:
		return []modem.State{modem.Sent, modem.Delivered}
	default:
		return nil
	}
}

// textNeeded reports whether a message in state s may still have to be sent. The
// wrapped text of all others is erased.
func textNeeded(s modem.State) bool {
	return s == modem.Queued || s == modem.Sending || s == modem.MaybeSent
}

// delivery is what a page tells about a state. A page seldom asks about a
// cancelled message: its flow has a newer one. When it does (the flow was not
// saved after the newer one was accepted), asking for a code is the way on.
func delivery(s modem.State) authcore.Delivery {
	switch s {
	case modem.Queued, modem.Sending:
		return authcore.DeliveryQueued
	case modem.Sent:
		return authcore.DeliverySent
	case modem.Delivered:
		return authcore.DeliveryDelivered
	case modem.Failed, modem.Expired, modem.Cancelled:
		return authcore.DeliveryFailed
	case modem.MaybeSent:
		return authcore.DeliveryUncertain
	default:
		return authcore.DeliveryUnknown
	}
}

// insertCodeMessage queues the message of a code, within IssueChallenge.
func insertCodeMessage(ctx context.Context, q *sqlite.Queries, m otpvault.Message) error {
	return q.InsertMessage(ctx, sqlite.InsertMessageParams{
		ID: m.ID.String(), Recipient: m.To.String(), Wrapped: m.Wrapped, Class: int64(modem.OneTime), State: int64(modem.Queued),
		Created: nanos(m.Created), Expires: nanos(m.Expires),
	})
}

// Queued implements modem.Journal: the most urgent class first, in it the
// nearest deadline. Messages that Recover found in doubt, and that were not tried
// again since, are among them.
func (db *DB) Queued(ctx context.Context, limit int) ([]modem.Message, error) {
	const op = "list queued messages"
	if limit < 1 { // SQL takes a negative limit for none
		return nil, fault.Newf(fault.Invalid, op, "limit %d", limit)
	}
	rows, err := db.read().ListMessages(ctx, sqlite.ListMessagesParams{State: int64(modem.MaybeSent), Recovered: 1, Most: int64(limit)})
	if err != nil {
		return nil, mapError(op, err)
	}
	more, err := db.read().ListMessages(ctx, sqlite.ListMessagesParams{State: int64(modem.Queued), Most: int64(limit)})
	if err != nil {
		return nil, mapError(op, err)
	}
	rows = append(rows, more...)
	slices.SortStableFunc(rows, func(a, b sqlite.ListMessagesRow) int {
		return cmp.Or(cmp.Compare(a.Class, b.Class), cmp.Compare(a.Expires, b.Expires))
	})
	rows = rows[:min(len(rows), limit)]
	list := make([]modem.Message, 0, len(rows))
	for _, r := range rows {
		m := modem.Message{Wrapped: r.Wrapped, Class: modem.Class(r.Class), Created: instant(r.Created), Expires: instant(r.Expires), Attempts: int(r.Attempts)}
		if err := parseAll(field{&m.ID, r.ID}, field{&m.To, r.Recipient}); err != nil {
			return nil, fault.New(fault.Internal, op, err)
		}
		list = append(list, m)
	}
	return list, nil
}

// Record implements modem.Journal. Each step to Sending counts an attempt.
// fault.NotFound, fault.Conflict when the message cannot become that from the
// state it is in. To record a state again is no error, but for Sending; nor is
// the expiry of a message in doubt, which stays in doubt and is not tried again.
// A message whose code was used or replaced while it was Sending becomes
// Cancelled where it would become Queued or MaybeSent, so that no further copy
// leaves.
func (db *DB) Record(ctx context.Context, e modem.Event) error {
	return db.write(ctx, "record message "+e.ID.String(), func(q *sqlite.Queries) error { return step(ctx, q, e) })
}

// step records e and cancels what is to be sent once more for nothing.
func step(ctx context.Context, q *sqlite.Queries, e modem.Event) error {
	if err := record(ctx, q, e); err != nil || e.State != modem.Queued && e.State != modem.MaybeSent {
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
	return record(ctx, q, e)
}

func record(ctx context.Context, q *sqlite.Queries, e modem.Event) error {
	op := "record message " + e.ID.String()
	row, err := q.GetMessageState(ctx, e.ID.String())
	if err != nil {
		return err
	}
	from := modem.State(row.State)
	switch {
	case from == modem.MaybeSent && e.State == modem.Expired:
		return q.SetMessageRecovered(ctx, sqlite.SetMessageRecoveredParams{Recovered: 0, ID: e.ID.String(), State: row.State})
	case from == e.State && e.State != modem.Sending:
		return nil
	case !slices.Contains(mayFollow(from), e.State):
		return fault.Newf(fault.Conflict, op, "state %d cannot follow %d", e.State, from)
	}
	attempts := int64(0)
	if e.State == modem.Sending {
		attempts = 1
	}
	n, err := q.UpdateMessage(ctx, sqlite.UpdateMessageParams{
		ToState: int64(e.State), MoreAttempts: attempts, Bay: e.Bay, Detail: e.Detail, Changed: nanos(e.At),
		ID: e.ID.String(), FromState: row.State,
	})
	if err != nil {
		return err
	}
	if n != 1 {
		return fault.Newf(fault.Conflict, op, "it moved meanwhile")
	}
	if textNeeded(e.State) {
		return nil
	}
	return q.EraseMessageText(ctx, sqlite.EraseMessageTextParams{Wrapped: []byte{}, ID: e.ID.String()})
}

// Recover implements modem.Journal: what a dead process was sending is in doubt
// (and is told of again as long as nobody tried it once more) unless its code is
// worthless by now: then it is cancelled, and not told of. What is queued past
// its deadline has expired. It must be called before any process sends: it
// cannot tell a dead process from a busy one.
func (db *DB) Recover(ctx context.Context, now time.Time) ([]modem.Event, error) {
	var events []modem.Event
	err := db.write(ctx, "recover messages", func(q *sqlite.Queries) error {
		if err := recoverSending(ctx, q, now); err != nil {
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

const detailDoubt = "the process that was sending it ended"

// recoverSending puts what was being sent in doubt, with a second chance unless
// its code is worthless by now.
func recoverSending(ctx context.Context, q *sqlite.Queries, now time.Time) error {
	rows, err := q.ListMessagesInState(ctx, int64(modem.Sending))
	if err != nil {
		return err
	}
	for _, r := range rows {
		e := modem.Event{State: modem.MaybeSent, Bay: r.Bay, Detail: detailDoubt, At: now}
		if err := parseAll(field{&e.ID, r.ID}); err != nil {
			return err
		}
		if err := step(ctx, q, e); err != nil {
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
	rows, err := q.ListMessagesInState(ctx, int64(modem.Queued))
	if err != nil {
		return nil, err
	}
	var events []modem.Event
	for _, r := range rows {
		if r.Expires > nanos(now) {
			continue
		}
		e := modem.Event{State: modem.Expired, Bay: r.Bay, Detail: "deadline passed", At: now}
		if err := parseAll(field{&e.ID, r.ID}); err != nil {
			return nil, err
		}
		if err := record(ctx, q, e); err != nil {
			return nil, err
		}
		events = append(events, e)
	}
	return events, nil
}

// Delivery implements authcore.Deliveries; fault.NotFound.
func (db *DB) Delivery(ctx context.Context, challenge id.ChallengeID) (authcore.Delivery, error) {
	state, err := db.read().GetChallengeMessageState(ctx, challenge.String())
	if err != nil {
		return authcore.DeliveryUnknown, mapError("read delivery of "+challenge.String(), err)
	}
	return delivery(modem.State(state)), nil
}
