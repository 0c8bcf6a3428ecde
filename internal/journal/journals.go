package journal

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"custode/internal/certlog"
	"custode/internal/certlog/keep"
	"custode/internal/certlog/witness"
	"custode/internal/fault"
	"custode/internal/id"
)

// The logs' names; each is a folder of Config.Directory.
const (
	TransactionLog = "transactions"
	SecurityLog    = "security"
)

// Floors remembers, outside the logs, which they are and how many records they hold.
type Floors interface {
	// PinLog remembers the first identity it is told and returns the one it remembers.
	PinLog(ctx context.Context, log, id string) (string, error)
	Floor(ctx context.Context, log string) (uint64, error)
	RaiseFloor(ctx context.Context, log string, records uint64) error
}

// Config is what Open needs; everything but Escrow and the witnesses.
type Config struct {
	Directory                    string // holds a folder for each log
	State                        string // folder for what witnesses took
	Entity                       id.EntityID
	Build                        string
	Keys                         certlog.Wrapper
	Escrow                       *rsa.PublicKey
	Notary                       certlog.Judge
	Age                          time.Duration // of a segment
	Size                         int64         // of a segment, octets
	Retention, SecurityRetention time.Duration
	Patience                     time.Duration
	Hour                         int // of the nightly verification
	WitnessFolders, WitnessURLs  []string
	Mails                        []witness.Mail
	HTTP                         *http.Client
	Floors                       Floors
	Random                       io.Reader
	Now                          func() time.Time
	Log                          *slog.Logger
}

// Journals are the two logs, open, and what looks after them.
type Journals struct {
	Transactions *Transactions
	Security     *Security

	cfg   Config
	kept  map[string]*Kept
	early []Event // what happened before the security log was there

	endLogs, endRest context.CancelFunc
	logs, rest       sync.WaitGroup // rest: what still appends when it ends
}

// Kept is one of the logs.
type Kept struct {
	Log    *certlog.Log
	Dir    string
	Keeper *keep.Keeper
	Pusher *witness.Pusher
	lock   *os.File
	raised uint64 // the floor that the database has; of raiseOnce
}

// Open opens both logs and keeps other processes out of them. Even after an
// error Close releases what was acquired.
func Open(ctx context.Context, cfg Config) (*Journals, error) {
	j := &Journals{cfg: cfg, kept: map[string]*Kept{}}
	for _, name := range []string{SecurityLog, TransactionLog} {
		if err := j.open(ctx, name); err != nil {
			return j, err
		}
	}
	j.Security = NewSecurity(j.kept[SecurityLog].Log, cfg.Now, cfg.Log)
	j.Transactions = NewTransactions(j.kept[TransactionLog].Log, cfg.Entity, cfg.Build)
	return j, nil
}

func (j *Journals) open(ctx context.Context, name string) (err error) {
	c := j.cfg
	k := &Kept{Dir: filepath.Join(c.Directory, name)}
	if err := os.Mkdir(k.Dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fault.New(fault.Fatal, "make folder of certified log "+name, err)
	}
	j.kept[name] = k
	if k.lock, err = lockFolder(k.Dir); err != nil {
		return err
	}
	floor, err := c.Floors.Floor(ctx, name)
	if err != nil {
		return err
	}
	k.Pusher = witness.New(witness.Config{Name: name, FS: certlog.Dir(k.Dir), Folders: c.WitnessFolders, URLs: c.WitnessURLs, HTTP: c.HTTP,
		Mails: c.Mails, State: certlog.Dir(c.State), Pause: time.Minute, Patience: c.Patience, Now: c.Now, Log: c.Log})
	k.Log, err = certlog.Open(ctx, certlog.Config{Name: name, FS: certlog.Dir(k.Dir), Keys: c.Keys, Escrow: c.Escrow, Sealer: c.Notary,
		Age: c.Age, Size: c.Size, Floor: floor, Now: c.Now, Random: c.Random, Log: c.Log,
		Closed: func(certlog.Checkpoint) { k.Pusher.Kick() },
		Trimmed: func(t certlog.Trim) {
			e := Event{What: "log-trimmed", Detail: fmt.Sprintf("%s: segment %d ended with %d octets of a torn record", name, t.Segment, t.Octets)}
			if t.Rebuilt {
				e = Event{What: "log-mended", Detail: fmt.Sprintf("%s: the index of segment %d was changed before it was sealed; it was made anew", name, t.Segment)}
			}
			j.later(e)
		}})
	if err != nil {
		return err
	}
	pinned, err := c.Floors.PinLog(ctx, name, k.Log.ID().String())
	if err != nil {
		return err
	}
	if pinned != k.Log.ID().String() {
		return fault.Newf(fault.Fatal, "open certified log "+name, "the folder holds the log %s, the database knows %s: another folder was put in its place", k.Log.ID(), pinned)
	}
	retention := c.Retention
	if name == SecurityLog {
		retention = c.SecurityRetention
	}
	k.Keeper = keep.New(keep.Config{Name: name, Log: k.Log, Dir: k.Dir, Judge: c.Notary, Age: c.Age, Retention: retention, Patience: c.Patience,
		Witnesses: c.WitnessFolders, Hour: c.Hour, Now: c.Now, Slog: c.Log, Destroyed: k.Pusher.Destroyed,
		Tell: func(ctx context.Context, what, detail string) error {
			return j.Security.Act(ctx, Event{What: what, Detail: detail})
		}})
	if k.Log.Status().Records == 0 {
		return k.Keeper.Holds.Begin()
	}
	return nil
}

// later keeps an event without waiting, also before the security log is there.
func (j *Journals) later(e Event) {
	if j.Security == nil {
		j.early = append(j.early, e)
		return
	}
	j.Security.Later(e)
}

// lockFolder makes this process the only writer of a log's folder.
func lockFolder(dir string) (*os.File, error) {
	op := "lock certified log " + dir
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fault.New(fault.Fatal, op, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		kind := fault.Fatal
		if errors.Is(err, unix.EWOULDBLOCK) {
			kind = fault.Conflict
		}
		return nil, errors.Join(fault.New(kind, op, err), f.Close())
	}
	return f, nil
}

// Start runs both logs, on their own time: they outlive whatever may still have to
// record something. The start itself is in the security log when it returns nil.
func (j *Journals) Start(ctx context.Context) error {
	logs, endLogs := context.WithCancel(context.WithoutCancel(ctx))
	rest, endRest := context.WithCancel(context.WithoutCancel(ctx))
	j.endLogs, j.endRest = endLogs, endRest
	for _, k := range j.kept {
		j.logs.Go(func() { _ = k.Log.Run(logs) })
		j.rest.Go(func() { _ = k.Pusher.Run(rest) })
		j.rest.Go(func() { _ = k.Keeper.Run(rest) })
	}
	j.rest.Go(func() { _ = j.Security.Run(rest) })
	j.rest.Go(func() { j.raiseFloors(rest) })
	if err := j.Security.Act(ctx, Event{What: "start", Detail: "version " + j.cfg.Build}); err != nil {
		return err
	}
	for _, e := range j.early {
		j.Security.Later(e)
	}
	return nil
}

// floorPause is how many seconds of records the database may not know of when both
// the machine and the folder's end are lost; with each answer it learns the number
// of transactions too, one answer late.
const floorPause = 2 * time.Second

// raiseFloors remembers how far the logs are, when they moved.
func (j *Journals) raiseFloors(ctx context.Context) {
	tick := time.NewTicker(floorPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			j.raiseOnce(ctx)
		}
	}
}

func (j *Journals) raiseOnce(ctx context.Context) {
	for name, k := range j.kept {
		records := k.Log.Status().Records
		if records == k.raised {
			continue
		}
		err := j.cfg.Floors.RaiseFloor(ctx, name, records)
		if err == nil {
			k.raised = records
		} else if ctx.Err() == nil {
			j.cfg.Log.Error("how far the certified log is was not remembered", "log", name, "error", err)
		}
	}
}

// stopTime bounds each step of Close.
const stopTime = 10 * time.Second

// Close ends what Start began, the logs last, and releases the folders.
func (j *Journals) Close() {
	if j.endRest != nil {
		ctx, cancel := context.WithTimeout(context.Background(), stopTime)
		defer cancel()
		if err := j.Security.Act(ctx, Event{What: "stop"}); err != nil {
			j.cfg.Log.Error("the end is not in the security log", "error", err)
		}
		j.endRest()
		j.rest.Wait()
		j.endLogs()
		j.logs.Wait()
		j.raiseOnce(ctx)
		for _, k := range j.kept {
			k.Pusher.Round(ctx)
		}
		j.endRest = nil
	}
	for _, k := range j.kept {
		if k.lock != nil {
			_ = k.lock.Close()
			k.lock = nil
		}
	}
}

// Kept returns the log of that name; fault.NotFound.
func (j *Journals) Kept(name string) (*Kept, error) {
	if k := j.kept[name]; k != nil {
		return k, nil
	}
	return nil, fault.Newf(fault.NotFound, "find certified log", "none is called %q", name)
}

// Health is nil when both logs take records.
func (j *Journals) Health() error {
	for name, k := range j.kept {
		if k.Log.Status().Broken {
			return fault.Newf(fault.Unavailable, "check certified log", "%s cannot be written", name)
		}
	}
	return nil
}
