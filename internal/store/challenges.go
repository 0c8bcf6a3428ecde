package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store/sqlite"
	"custode/otpvault"
)

var _ otpvault.Store = (*DB)(nil)

// The states of a challenge, as the schema numbers them.
const (
	challengeOpen    = 1
	challengeBurned  = 2
	challengeRetired = 3
)

// IssueChallenge implements otpvault.Store. Burned, retired and expired
// challenges count towards the limit: each was a message.
func (db *DB) IssueChallenge(ctx context.Context, c otpvault.Challenge, m otpvault.Message, l otpvault.Limit) error {
	op := "issue challenge " + c.ID.String()
	if c.ID.IsZero() || c.Flow.IsZero() || c.Subject.IsZero() || m.ID.IsZero() || m.To.IsZero() || c.Message != m.ID || len(m.Wrapped) == 0 || l.Messages < 1 {
		return fault.Newf(fault.Invalid, op, "incomplete challenge or message")
	}
	return db.write(ctx, op, func(q *sqlite.Queries) error {
		sent, err := q.CountChallenges(ctx, sqlite.CountChallengesParams{Subject: c.Subject.String(), After: nanos(c.Created.Add(-l.Window))})
		if err != nil {
			return err
		}
		if sent >= int64(l.Messages) {
			return fault.Newf(fault.Exhausted, op, "subject %s was sent %d messages in %v", c.Subject, sent, l.Window)
		}
		retired, err := q.RetireChallenges(ctx, sqlite.RetireChallengesParams{Closed: nanos(c.Created), FlowID: c.Flow.String()})
		if err != nil {
			return err
		}
		if err := cancelMessages(ctx, q, retired, c.Created); err != nil {
			return err
		}
		if err := db.insertCodeMessage(ctx, q, m); err != nil {
			return err
		}
		return q.InsertChallenge(ctx, sqlite.InsertChallengeParams{
			ID: c.ID.String(), FlowID: c.Flow.String(), Subject: c.Subject.String(), MessageID: m.ID.String(), Mac: blob(c.MAC),
			AttemptsLeft: int64(c.Left), Created: nanos(c.Created), Expires: nanos(c.Expires),
		})
	})
}

// cancelMessages stops the messages of closed challenges that have not left: a
// worthless code that arrives late would be typed instead of the good one.
func cancelMessages(ctx context.Context, q *sqlite.Queries, messages []string, now time.Time) error {
	for _, m := range messages {
		if err := cancelMessage(ctx, q, m, now); err != nil {
			return err
		}
	}
	return nil
}

// TakeAttempt implements otpvault.Store.
func (db *DB) TakeAttempt(ctx context.Context, challenge id.ChallengeID, flow id.FlowID, subject id.Subject, now time.Time) (otpvault.Challenge, error) {
	op := "take attempt on " + challenge.String()
	c := otpvault.Challenge{ID: challenge, Flow: flow, Subject: subject}
	err := db.write(ctx, op, func(q *sqlite.Queries) error {
		row, err := q.TakeAttempt(ctx, sqlite.TakeAttemptParams{ID: challenge.String(), FlowID: flow.String(), Subject: subject.String(), Now: nanos(now)})
		if errors.Is(err, sql.ErrNoRows) {
			return whyNoAttempt(ctx, q, op, c, now)
		}
		if err != nil {
			return err
		}
		c.MAC, c.Left, c.Created, c.Expires = row.Mac, int(row.AttemptsLeft), instant(row.Created), instant(row.Expires)
		return parseAll(field{&c.Message, row.MessageID})
	})
	if err != nil {
		return otpvault.Challenge{}, err
	}
	return c, nil
}

// whyNoAttempt names the reason for which no attempt could be taken. A code that
// was used or replaced is called so even when it also expired: asking for a new
// one helps in both cases, but the subject should know that somebody used it.
func whyNoAttempt(ctx context.Context, q *sqlite.Queries, op string, c otpvault.Challenge, now time.Time) error {
	row, err := q.GetChallengeState(ctx, sqlite.GetChallengeStateParams{ID: c.ID.String(), FlowID: c.Flow.String(), Subject: c.Subject.String()})
	switch {
	case err != nil:
		return err // sql.ErrNoRows becomes fault.NotFound
	case row.State != challengeOpen:
		return fault.Newf(fault.Conflict, op, "used or replaced")
	case row.AttemptsLeft <= 0:
		return fault.Newf(fault.Exhausted, op, "no attempt left")
	case row.Expires <= nanos(now):
		return fault.Newf(fault.Expired, op, "too late")
	default:
		return fault.Newf(fault.Internal, op, "open, with attempts and in time, yet not taken")
	}
}

// BurnChallenge implements otpvault.Store; fault.NotFound when it is unknown.
func (db *DB) BurnChallenge(ctx context.Context, challenge id.ChallengeID, now time.Time) error {
	op := "burn challenge " + challenge.String()
	return db.write(ctx, op, func(q *sqlite.Queries) error {
		burned, err := q.BurnChallenge(ctx, sqlite.BurnChallengeParams{Closed: nanos(now), ID: challenge.String()})
		if err != nil {
			return err
		}
		if len(burned) == 1 {
			return cancelMessages(ctx, q, burned, now)
		}
		known, err := q.ChallengeExists(ctx, challenge.String())
		if err != nil {
			return err
		}
		if known == 0 {
			return fault.Newf(fault.NotFound, op, "no such challenge")
		}
		return fault.Newf(fault.Conflict, op, "used or replaced")
	})
}
