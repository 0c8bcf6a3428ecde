package otpstore

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store"
	"custode/internal/store/sqlite"
	"custode/otpvault/proof"
)

var _ proof.Store = (*DB)(nil)

// OpenDeviceChallenge implements proof.Store. Closed and expired challenges count towards the
// limit: each was a message.
func (db *DB) OpenDeviceChallenge(ctx context.Context, c proof.Challenge, l proof.Limit) error {
	op := "open challenge " + c.ID.String()
	if c.ID.IsZero() || c.Flow.IsZero() || c.Subject.IsZero() || c.Serial.IsZero() || c.Left < 1 || c.Pushed() != (len(c.MAC) > 0) {
		return fault.Newf(fault.Invalid, op, "incomplete challenge")
	}
	return db.store.Write(ctx, op, func(q *sqlite.Queries) error {
		if c.Pushed() {
			n, err := q.CountPushes(ctx, sqlite.CountPushesParams{Subject: c.Subject.String(), After: nanos(c.Created.Add(-l.Window))})
			if err != nil {
				return err
			}
			if n >= int64(l.Pushes) {
				return fault.Newf(fault.Exhausted, op, "subject %s was sent %d codes in %v", c.Subject, n, l.Window)
			}
		}
		if err := q.RetireDeviceChallenges(ctx, sqlite.RetireDeviceChallengesParams{Closed: nanos(c.Created), FlowID: c.Flow.String()}); err != nil {
			return err
		}
		return q.InsertDeviceChallenge(ctx, sqlite.InsertDeviceChallengeParams{
			ID: c.ID.String(), FlowID: c.Flow.String(), Subject: c.Subject.String(), Serial: c.Serial.String(), Number: c.Number, Mac: blob(c.MAC),
			AttemptsLeft: int64(c.Left), Created: nanos(c.Created), Expires: nanos(c.Expires),
		})
	})
}

// DeviceChallenge implements proof.Store.
func (db *DB) DeviceChallenge(ctx context.Context, challenge id.ChallengeID) (proof.Challenge, error) {
	op := "read challenge " + challenge.String()
	r, err := db.store.Read().GetDeviceChallenge(ctx, challenge.String())
	if err != nil {
		return proof.Challenge{}, store.MapError(op, err)
	}
	c := proof.Challenge{ID: challenge, Number: r.Number, MAC: r.Mac, Left: int(r.AttemptsLeft), Created: instant(r.Created), Expires: instant(r.Expires)}
	if len(c.MAC) == 0 {
		c.MAC = nil
	}
	if err := c.Flow.UnmarshalText([]byte(r.FlowID)); err != nil {
		return proof.Challenge{}, fault.New(fault.Internal, op, err)
	}
	if err := parse(op, &c.Serial, r.Serial, &c.Subject, r.Subject); err != nil {
		return proof.Challenge{}, err
	}
	return c, nil
}

// TakeDeviceAttempt implements proof.Store.
func (db *DB) TakeDeviceAttempt(ctx context.Context, challenge id.ChallengeID, flow id.FlowID, subject id.Subject, now time.Time) (left int, err error) {
	op := "take attempt on " + challenge.String()
	err = db.store.Write(ctx, op, func(q *sqlite.Queries) error {
		rows, err := q.TakeDeviceAttempt(ctx, sqlite.TakeDeviceAttemptParams{ID: challenge.String(), FlowID: flow.String(), Subject: subject.String(), Now: nanos(now)})
		if err != nil {
			return err
		}
		if len(rows) == 1 {
			left = int(rows[0])
			return nil
		}
		r, err := q.GetDeviceChallenge(ctx, challenge.String())
		switch {
		case err != nil:
			return err // sql.ErrNoRows becomes fault.NotFound
		case r.FlowID != flow.String() || r.Subject != subject.String():
			return fault.Newf(fault.NotFound, op, "it is of another flow or subject")
		case r.State != open:
			return fault.Newf(fault.Conflict, op, "used or replaced")
		case r.AttemptsLeft <= 0:
			return fault.Newf(fault.Exhausted, op, "no attempt left")
		default:
			return fault.Newf(fault.Expired, op, "too late")
		}
	})
	return left, err
}

// BurnDeviceChallenge implements proof.Store; fault.NotFound when it is unknown.
func (db *DB) BurnDeviceChallenge(ctx context.Context, challenge id.ChallengeID, now time.Time) error {
	op := "burn challenge " + challenge.String()
	return db.store.Write(ctx, op, func(q *sqlite.Queries) error {
		n, err := q.BurnDeviceChallenge(ctx, sqlite.BurnDeviceChallengeParams{Closed: nanos(now), ID: challenge.String()})
		if err != nil || n == 1 {
			return err
		}
		if _, err := q.GetDeviceChallenge(ctx, challenge.String()); err != nil {
			return err
		}
		return fault.Newf(fault.Conflict, op, "used or replaced")
	})
}

// PushKey implements proof.Store.
func (db *DB) PushKey(ctx context.Context, s id.Serial) ([]byte, error) {
	wrapped, err := db.store.Read().GetPushKey(ctx, s.String())
	if err != nil {
		return nil, store.MapError("read key of device "+s.String(), err)
	}
	return wrapped, nil
}

// Choice returns by which method (as package authcore numbers them) and with which device
// the subject logged in last; zero when never.
func (db *DB) Choice(ctx context.Context, subject id.Subject) (method uint8, serial id.Serial, err error) {
	op := "read choice of " + subject.String()
	r, err := db.store.Read().GetChoice(ctx, subject.String())
	if errors.Is(err, sql.ErrNoRows) {
		return 0, id.Serial{}, nil
	}
	if err != nil {
		return 0, id.Serial{}, store.MapError(op, err)
	}
	if err := serial.UnmarshalText([]byte(r.Serial)); err != nil || r.Method < 0 || r.Method > 255 {
		return 0, id.Serial{}, fault.New(fault.Internal, op, err)
	}
	return uint8(r.Method), serial, nil
}

// SetChoice keeps what Choice returns.
func (db *DB) SetChoice(ctx context.Context, subject id.Subject, method uint8, serial id.Serial, at time.Time) error {
	return db.store.Write(ctx, "keep choice of "+subject.String(), func(q *sqlite.Queries) error {
		return q.SetChoice(ctx, sqlite.SetChoiceParams{Subject: subject.String(), Method: int64(method), Serial: serial.String(), Changed: nanos(at)})
	})
}
