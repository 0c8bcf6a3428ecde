// Package keep looks after a certified log that is in use: it verifies it every
// night, destroys what was kept long enough and is under no hold, and says when a
// seal or a time-stamp is overdue.
//
// The format of holds.json in the log's folder is a JSON list of Hold. It imports
// internal/certlog only; cmd makes a Keeper for each log.
package keep

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"custode/internal/certlog"
	"custode/internal/fault"
)

// Config is what New needs.
type Config struct {
	Name      string
	Log       *certlog.Log
	Dir       string // the log's folder
	Judge     certlog.Judge
	Age       time.Duration // of a segment at most
	Retention time.Duration
	Patience  time.Duration
	Witnesses []string // folders; each has one for each log
	Hour      int      // 0 to 23, of Now's location
	Now       func() time.Time
	Slog      *slog.Logger
	// Tell keeps what was found or done in the security log. An error keeps a
	// destruction from being carried out.
	Tell func(ctx context.Context, what, detail string) error
	// Destroyed is called when a statement of destruction was written; may be nil.
	Destroyed func()
}

// Keeper looks after one log.
type Keeper struct {
	Config
	Holds Holds

	mu   sync.Mutex
	last Night
}

// Night is the result of the last nightly work.
type Night struct {
	At        time.Time `json:"at,omitzero"`
	Verified  bool      `json:"verified"`
	Records   uint64    `json:"records"`
	Problem   string    `json:"problem,omitempty"`
	Destroyed int       `json:"destroyed"` // segments
}

// New makes a Keeper; nothing is opened.
func New(c Config) *Keeper { return &Keeper{Config: c, Holds: NewHolds(certlog.Dir(c.Dir))} }

// Last returns the result of the last nightly work; zero before the first.
func (k *Keeper) Last() Night {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.last
}

// Run does the nightly work and watches for what is overdue until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	due := next(k.Now(), k.Hour)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		k.overdue()
		if now := k.Now(); !now.Before(due) {
			k.Night(ctx)
			due = next(k.Now(), k.Hour)
		}
	}
}

// next is the next moment at which the hour begins.
func next(now time.Time, hour int) time.Time {
	t := time.Date(now.Year(), now.Month(), now.Day(), hour, 0, 0, 0, now.Location())
	if !t.After(now) {
		t = time.Date(now.Year(), now.Month(), now.Day()+1, hour, 0, 0, 0, now.Location())
	}
	return t
}

// Overdue reports whether a seal or a time-stamp is missing for longer than it may.
func (k *Keeper) Overdue() bool {
	s := k.Log.Status()
	return !s.Oldest.IsZero() && k.Now().Sub(s.Oldest) > k.Age+k.Patience
}

func (k *Keeper) overdue() {
	s := k.Log.Status()
	if s.Broken {
		k.Slog.Error("certified log cannot be written: no login ends", "log", k.Name)
	}
	if k.Overdue() {
		k.Slog.Error("certified log: a seal or a time-stamp is overdue", "log", k.Name, "since", s.Oldest, "unsealed", s.Unsealed, "pending", s.Pending)
	}
}

// Night verifies the log and then, if it is good, destroys what is due.
func (k *Keeper) Night(ctx context.Context) Night {
	n := Night{At: k.Now().UTC()}
	report, err := k.Verify(ctx)
	switch {
	case ctx.Err() != nil:
		return n
	case err != nil:
		n.Problem = err.Error()
	case report.Problem != nil:
		n.Problem = report.Problem.String()
	default:
		n.Verified = true
	}
	n.Records = report.Records
	if n.Verified {
		k.Slog.Info("certified log verified", "log", k.Name, "records", report.Records, "segments", report.Segments, "root", fmt.Sprintf("%x", report.Root))
		k.tell(ctx, "log-verified", fmt.Sprintf("%s: %d records, %d segments", k.Name, report.Records, report.Segments))
		d, err := k.Destroy(ctx, "retention of "+k.Retention.String()+" is over", k.Now().Add(-k.Retention))
		if err != nil {
			n.Problem = err.Error()
			k.Slog.Error("certified log: what is due was not destroyed", "log", k.Name, "error", err)
		}
		if d != nil {
			n.Destroyed = len(d.Segments)
		}
	} else {
		k.Slog.Error("certified log DIVERGES or cannot be verified; nothing is destroyed", "log", k.Name, "problem", n.Problem)
		k.tell(ctx, "log-diverges", k.Name+": "+n.Problem)
	}
	k.mu.Lock()
	k.last = n
	k.mu.Unlock()
	return n
}

func (k *Keeper) tell(ctx context.Context, what, detail string) {
	if err := k.Tell(ctx, what, detail); err != nil {
		k.Slog.Error("not kept in the security log", "what", what, "detail", detail, "error", err)
	}
}

// Verify verifies the log as it stands, against its witnesses' folders too.
func (k *Keeper) Verify(ctx context.Context) (certlog.Report, error) {
	cfg := certlog.VerifyConfig{FS: certlog.Dir(k.Dir), Judge: k.Judge, Now: k.Now(), Patience: k.Age + k.Patience, Floor: k.Log.Status().Sealed}
	for _, folder := range k.Witnesses {
		if err := cfg.AddWitness(folder, certlog.Dir(filepath.Join(folder, k.Name))); err != nil {
			if fault.Is(err, fault.Invalid) {
				return certlog.Report{}, err
			}
			// A witness that is away is the pusher's alarm.
			k.Slog.Warn("verification without a witness", "log", k.Name, "witness", folder, "error", err)
		}
	}
	type result struct {
		certlog.Report
		error
	}
	done := make(chan result, 1)
	go func() {
		r, err := certlog.Verify(cfg)
		done <- result{r, err}
	}()
	select {
	case r := <-done:
		return r.Report, r.error
	case <-ctx.Done(): // it only reads: what it goes on with until the process ends harms nobody
		return certlog.Report{}, fault.New(fault.Unavailable, "verify "+k.Name, ctx.Err())
	}
}

// Destroy destroys the segments sealed before the moment that no hold keeps. The
// moment may not be later than the retention allows: fault.Denied. The result is
// nil when there was nothing to do.
func (k *Keeper) Destroy(ctx context.Context, reason string, before time.Time) (*certlog.Destruction, error) {
	op := "destroy old records of " + k.Name
	if before.After(k.Now().Add(-k.Retention)) {
		return nil, fault.Newf(fault.Denied, op, "records are kept for %s", k.Retention)
	}
	held, err := k.Holds.Held()
	if err != nil {
		return nil, fault.New(fault.KindOf(err), op, err)
	}
	var told bool
	var failed error
	d, err := k.Log.Destroy(ctx, before, reason, func(c certlog.Checkpoint) bool {
		if failed != nil || held(c) {
			return true
		}
		if !told { // the first that is to go
			failed = k.Tell(ctx, "log-destroy", fmt.Sprintf("%s: sealed before %s: %s", k.Name, before.UTC().Format(time.RFC3339), reason))
			told = true
		}
		return failed != nil
	})
	if err == nil {
		err = failed
	}
	if d != nil {
		if k.Destroyed != nil {
			k.Destroyed()
		}
		k.Slog.Info("certified log: segments destroyed", "log", k.Name, "segments", len(d.Segments), "from record", d.First, "to record", d.Size-1)
	}
	return d, err
}
