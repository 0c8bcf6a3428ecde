package store

import (
	"context"
	"time"

	"custode/internal/store/sqlite"
)

// How long Sweep leaves things after their time, for operators who look into a
// complaint. Challenges must outlive the widest otpvault.Limit, which counts them;
// tallies the slowest decay of authcore's throttle.
const (
	keepFlows      = time.Hour
	keepChallenges = 48 * time.Hour
	keepMessages   = 48 * time.Hour
	keepTallies    = 30 * 24 * time.Hour
	// Longer than any session may live (session.Policy): until then a
	// LogoutRequest about it is recognised.
	keepSessions = 25 * time.Hour
	keepLogouts  = time.Hour
	keepIncoming = 90 * 24 * time.Hour
	// keepEvents: as long as the certified register of the logins they belong to.
	keepEvents = 24 * 31 * 24 * time.Hour
	// sweepBatch bounds how long one transaction of Sweep holds the write lock.
	sweepBatch = 500
)

// Swept is what a Sweep deleted.
type Swept struct {
	Flows, Challenges, Messages, Tallies, Sessions, Logouts, Incoming, Events int64
}

// Sweep deletes what is over: flows an hour after their deadline, challenges and
// messages two days after they expired, tallies 30 days after the last failure, sessions 25 hours after they were used
// last, logouts an hour after their deadline, incoming messages after 90 days, the
// audit trail of messages after 24 months.
// Answers (the transaction register) and identities stay. It works in small
// transactions; when it fails, what was deleted so far stays deleted.
func (db *DB) Sweep(ctx context.Context, now time.Time) (Swept, error) {
	var s Swept
	steps := []struct {
		op    string
		count *int64
		del   func(q *sqlite.Queries) (int64, error)
	}{
		{"sweep flows", &s.Flows, func(q *sqlite.Queries) (int64, error) {
			return q.SweepFlows(ctx, sqlite.SweepFlowsParams{Before: nanos(now.Add(-keepFlows)), Most: sweepBatch})
		}},
		{"sweep challenges", &s.Challenges, func(q *sqlite.Queries) (int64, error) {
			return q.SweepChallenges(ctx, sqlite.SweepChallengesParams{Before: nanos(now.Add(-keepChallenges)), Most: sweepBatch})
		}},
		// After the challenges, which refer to them.
		{"sweep messages", &s.Messages, func(q *sqlite.Queries) (int64, error) {
			return q.SweepMessages(ctx, sqlite.SweepMessagesParams{Before: nanos(now.Add(-keepMessages)), Most: sweepBatch})
		}},
		{"sweep challenges of devices", &s.Challenges, func(q *sqlite.Queries) (int64, error) {
			return q.SweepDeviceChallenges(ctx, sqlite.SweepDeviceChallengesParams{Before: nanos(now.Add(-keepChallenges)), Most: sweepBatch})
		}},
		{"sweep activations", &s.Challenges, func(q *sqlite.Queries) (int64, error) {
			return q.SweepActivations(ctx, sqlite.SweepActivationsParams{Before: nanos(now.Add(-keepChallenges)), Most: sweepBatch})
		}},
		{"sweep tallies", &s.Tallies, func(q *sqlite.Queries) (int64, error) {
			return q.SweepTallies(ctx, sqlite.SweepTalliesParams{Before: nanos(now.Add(-keepTallies)), Most: sweepBatch})
		}},
		{"sweep sessions", &s.Sessions, func(q *sqlite.Queries) (int64, error) {
			return q.SweepSessions(ctx, sqlite.SweepSessionsParams{Before: nanos(now.Add(-keepSessions)), Most: sweepBatch})
		}},
		{"sweep logouts", &s.Logouts, func(q *sqlite.Queries) (int64, error) {
			return q.SweepLogouts(ctx, sqlite.SweepLogoutsParams{Before: nanos(now.Add(-keepLogouts)), Most: sweepBatch})
		}},
		{"sweep incoming messages", &s.Incoming, func(q *sqlite.Queries) (int64, error) {
			return q.SweepIncoming(ctx, sqlite.SweepIncomingParams{Before: nanos(now.Add(-keepIncoming)), Most: sweepBatch})
		}},
		{"sweep message trail", &s.Events, func(q *sqlite.Queries) (int64, error) {
			return q.SweepMessageEvents(ctx, sqlite.SweepMessageEventsParams{Before: nanos(now.Add(-keepEvents)), Most: sweepBatch})
		}},
	}
	for _, step := range steps {
		for {
			var n int64
			err := db.write(ctx, step.op, func(q *sqlite.Queries) (err error) {
				n, err = step.del(q)
				return err
			})
			if err != nil {
				return s, err
			}
			*step.count += n
			if n < sweepBatch {
				break
			}
		}
	}
	return s, nil
}
