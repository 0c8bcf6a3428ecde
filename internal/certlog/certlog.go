// Package certlog is the certified log: an append-only register whose records
// are encrypted, whose order and completeness anyone can check, and which is
// sealed by a key in the HSM and time-stamped. It knows nothing of SAML: a
// record is some octets, a tag under which it can be found again, and a place.
//
// # Tree
//
// The records of a log are the leaves of one Merkle tree (RFC 6962, section
// 2.1), numbered from 0 for ever. A leaf is the hash of the record's
// *ciphertext*, so that inclusion can be proved without disclosing a record, and
// after its key is destroyed.
//
// # Segment
//
// Records are kept in segments: files closed after an age or a size, each
// encrypted under a key of its own. A segment that was closed is never written
// again; a process that opens the log begins a new one. For segment N:
//
//	N.key   the wrapped segment key (JSON: by the HSM's wrap key, by the escrow key)
//	N.seg   header and frames (internal/certlog/frame)
//	N.idx   tags, each with the number of its record, sorted (internal/certlog/index)
//	N.hsh   the tree's stored hashes that the segment completed (x/mod/sumdb/tlog's order)
//	N.bes   the checkpoint: a CMS signature (CAdES-BES) over a Checkpoint, not yet time-stamped
//	N.p7m   the same with a time-stamp (CAdES-T); replaces N.bes
//
// N is decimal with twelve digits. log.json names the log. destroyed-N.p7m is a
// sealed statement about segments that are no longer kept, N the last of them:
// of those, N.hsh and N.p7m stay.
//
// # Promise
//
// Append returns an Appended only when the record is on disk (written, fsync
// returned). What Append did not acknowledge may be in the log or not. A write
// or fsync that failed is never repeated on the same file: the segment is read
// back, its whole records are written to a new file, and the log goes on in a
// new segment.
//
// internal/certlog imports no leaf: the wrap key, the seal and the clock are
// interfaces declared here.
package certlog

import (
	"context"
	"crypto/rsa"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"sync"
	"time"

	"custode/internal/certlog/frame"
	"custode/internal/certlog/pack"
	"custode/internal/fault"
)

// The forms of octets are internal/certlog/frame's.
type (
	ID        = frame.ID
	Hash      = frame.Hash
	Record    = frame.Record
	RecordKey = frame.RecordKey
)

// Limits.
const (
	// MaxRecord is the length of the longest record in octets.
	MaxRecord = frame.MaxRecord
	// maxWaiting bounds the appends that wait for one fsync.
	maxWaiting = 256
)

// Wrapper protects segment keys; hsm.Wrapper is one.
type Wrapper interface {
	Wrap(ctx context.Context, plaintext, aad []byte) ([]byte, error)
	Unwrap(ctx context.Context, blob, aad []byte) ([]byte, error)
}

// Sealer makes and opens checkpoints' signatures.
type Sealer interface {
	// Seal signs payload (CAdES-BES, enveloping). It refuses while the clock
	// cannot be trusted.
	Seal(ctx context.Context, payload []byte) ([]byte, error)
	// Stamp adds a time-stamp to what Seal made.
	Stamp(ctx context.Context, sealed []byte) ([]byte, error)
	// Open verifies a seal and returns its payload.
	Open(sealed []byte) ([]byte, error)
}

// Config is what Open needs. All fields are necessary except Escrow and Log.
type Config struct {
	Name    string // of the log: 2 to 32 of a-z 0-9 -
	FS      FS     // the log's own folder; one process at a time
	Keys    Wrapper
	Escrow  *rsa.PublicKey // off-line recovery key, RSA-OAEP with SHA-256; nil: no second wrap
	Sealer  Sealer
	Age     time.Duration // a segment is closed when its first record is so old
	Size    int64         // or when it is so long, in octets
	Floor   uint64        // records known elsewhere to have been appended: fewer is fault.Fatal
	Now     func() time.Time
	Random  io.Reader
	Log     *slog.Logger
	Closed  func(Checkpoint) // called after each seal; may be nil
	Trimmed func(Trim)       // called when recovery dropped or mended something; may be nil
}

// Trim says what recovery found in a segment without a checkpoint.
type Trim struct {
	Segment uint64
	Octets  int64 // after the last whole record, dropped: a crash leaves them behind
	Rebuilt bool  // its index was not the one its records make, which no crash does; it was made anew
}

// Appended proves that a record is durable. Only Append makes one that is not zero.
type Appended struct {
	log  ID
	seq  uint64
	leaf [32]byte
	done bool
}

// IsZero reports whether a is no proof.
func (a Appended) IsZero() bool { return !a.done }

// Seq is the number of the record in its log, from 0.
func (a Appended) Seq() uint64 { return a.seq }

// String is log id, number and leaf hash, for the event log.
func (a Appended) String() string { return fmt.Sprintf("%s/%d/%x", a.log, a.seq, a.leaf) }

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,30}[a-z0-9]$`)

// Log is an open log. Append and Status may be used by many goroutines.
type Log struct {
	cfg     Config
	id      ID
	appends chan waiting
	closing chan chan<- struct{} // asks Run to close the open segment
	packer  pack.Packer          // of Run's goroutine

	mu        sync.Mutex      // guards what follows; never held over an fsync of the open segment
	segments  []segment       // closed ones, in order
	open      *writer         // nil until the first append
	next      uint64          // number of the next record
	condemned map[uint64]bool // segments that a sealed statement destroys
	broken    bool            // the folder must be read again before the next append
	retryAt   time.Time

	sealing sync.Mutex // one seal, stamp or destruction at a time
}

type waiting struct {
	record Record
	done   chan<- result
}

type result struct {
	proof Appended
	err   error
}

// Open reads the folder, makes the log when the folder is empty, and repairs
// what a crash left. A folder of another log name or format, or whose
// checkpoints do not fit one another, is fault.Fatal.
func Open(ctx context.Context, cfg Config) (*Log, error) {
	op := "open certified log " + cfg.Name
	if !nameForm.MatchString(cfg.Name) || cfg.FS == nil || cfg.Keys == nil || cfg.Sealer == nil ||
		cfg.Age <= 0 || cfg.Size <= 0 || cfg.Now == nil || cfg.Random == nil {
		return nil, fault.Newf(fault.Invalid, op, "incomplete configuration")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	l := &Log{cfg: cfg, appends: make(chan waiting, maxWaiting), closing: make(chan chan<- struct{})}
	if err := l.load(ctx); err != nil {
		return nil, fault.New(fault.KindOf(err), op, err)
	}
	if l.next < cfg.Floor {
		return nil, fault.Newf(fault.Fatal, op, "it holds %d records, and %d are known to have been appended: the folder is an old one, or its end was removed", l.next, cfg.Floor)
	}
	return l, nil
}

// ID names the log.
func (l *Log) ID() ID { return l.id }

// Append stores the record and returns when it is durable. It needs Run. When
// ctx ends first the record may or may not come to be stored. Errors:
// fault.Invalid (too long), fault.Unavailable (cannot be stored now).
func (l *Log) Append(ctx context.Context, r Record) (Appended, error) {
	op := "append to " + l.cfg.Name
	if len(r.Data) == 0 || len(r.Data) > MaxRecord {
		return Appended{}, fault.Newf(fault.Invalid, op, "a record of %d octets", len(r.Data))
	}
	done := make(chan result, 1)
	select {
	case l.appends <- waiting{r, done}:
	case <-ctx.Done():
		return Appended{}, fault.New(fault.Unavailable, op, ctx.Err())
	}
	select {
	case r := <-done:
		return r.proof, r.err
	case <-ctx.Done():
		return Appended{}, fault.New(fault.Unavailable, op, ctx.Err())
	}
}

// Run commits appends, closes segments by age, and seals and stamps closed ones
// until ctx ends; then it closes the open segment, tries to seal it once, and returns nil.
func (l *Log) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	kick := make(chan struct{}, 1)
	wg.Go(func() { l.sealLoop(ctx, kick) })
	tick := time.NewTicker(min(l.cfg.Age/4+time.Millisecond, time.Second))
	defer tick.Stop()
	for {
		select {
		case w := <-l.appends:
			if l.commit(ctx, l.batch(w)) {
				notify(kick)
			}
		case done := <-l.closing:
			l.closeOpen(ctx)
			close(done)
		case <-tick.C:
			l.packer = pack.Packer{} // what it compressed last is still in it
			l.look()
			if l.mend(ctx) || l.closeAged(ctx) {
				notify(kick)
			}
		case <-ctx.Done():
			l.drain()
			wg.Wait()
			return nil
		}
	}
}

func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// batch takes what waits beside first: one fsync serves all.
func (l *Log) batch(first waiting) []waiting {
	all := []waiting{first}
	for len(all) < maxWaiting {
		select {
		case w := <-l.appends:
			all = append(all, w)
		default:
			return all
		}
	}
	return all
}

// drain answers those who still wait when Run ends, and closes the segment.
func (l *Log) drain() {
	for {
		select {
		case w := <-l.appends:
			w.done <- result{err: fault.Newf(fault.Unavailable, "append to "+l.cfg.Name, "the log is closing")}
		default:
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			if l.closeOpen(ctx) {
				if err := l.sealAll(ctx); err != nil {
					l.cfg.Log.Warn("last segment not sealed; the next start will", "log", l.cfg.Name, "error", err)
				}
			}
			return
		}
	}
}

// Status is a snapshot for operators.
type Status struct {
	ID       ID        `json:"id"`
	Name     string    `json:"name"`
	Records  uint64    `json:"records"`         // in the log, destroyed ones included
	Sealed   uint64    `json:"sealed"`          // of them, in the tree of the last checkpoint
	Segments int       `json:"segments"`        // closed
	Unsealed int       `json:"unsealed"`        // closed, without a checkpoint
	Pending  int       `json:"pending"`         // sealed, without a time-stamp
	Oldest   time.Time `json:"oldest,omitzero"` // first record of the oldest segment without checkpoint or time-stamp; zero: none
	Broken   bool      `json:"broken"`
}

// Status returns a snapshot.
func (l *Log) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Status{ID: l.id, Name: l.cfg.Name, Records: l.next, Segments: len(l.segments), Broken: l.broken}
	for _, g := range l.segments {
		switch g.state {
		case stateClosed:
			s.Unsealed++
		case stateSealed:
			s.Pending++
		}
		if g.state >= stateSealed {
			s.Sealed = g.First + g.Count
		}
		if g.state < stateStamped && s.Oldest.IsZero() {
			s.Oldest = g.opened
		}
	}
	return s
}
