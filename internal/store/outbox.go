package store

import (
	"cmp"
	"context"
	"slices"

	"custode/authcore"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store/hide"
	"custode/internal/store/sqlite"
	"custode/modem"
	"custode/otpvault"
)

var (
	_ authcore.Deliveries = (*DB)(nil)
	_ modem.Journal       = (*DB)(nil)
	_ modem.Accounts      = (*DB)(nil)
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
func (db *DB) insertCodeMessage(ctx context.Context, q *sqlite.Queries, m otpvault.Message) error {
	return q.InsertMessage(ctx, sqlite.InsertMessageParams{
		ID: m.ID.String(), Recipient: db.blind(hide.OutboxRecipient, m.To.String()), Number: db.hideText(hide.OutboxNumber, m.ID.String(), m.To.String()), Wrapped: m.Wrapped, Class: int64(modem.OneTime), State: int64(modem.Queued),
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
		m := modem.Message{Wrapped: r.Wrapped, Class: modem.Class(r.Class), Created: instant(r.Created), Expires: instant(r.Expires), Attempts: int(r.Attempts),
			InDoubt: r.Recovered != 0, OnlyBay: r.OnlyBay}
		var to string
		if err := db.showAll(r.ID, shown{&to, hide.OutboxNumber, r.Number}); err != nil {
			return nil, err
		}
		if err := parseAll(field{&m.ID, r.ID}, field{&m.To, to}); err != nil {
			return nil, fault.New(fault.Internal, op, err)
		}
		list = append(list, m)
	}
	return list, nil
}

// Delivery implements authcore.Deliveries; fault.NotFound.
func (db *DB) Delivery(ctx context.Context, challenge id.ChallengeID) (authcore.Delivery, error) {
	state, err := db.read().GetChallengeMessageState(ctx, challenge.String())
	if err != nil {
		return authcore.DeliveryUnknown, mapError("read delivery of "+challenge.String(), err)
	}
	return delivery(modem.State(state)), nil
}
