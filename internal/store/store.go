// Package store is all the SQL of the house: everything that must survive a
// restart or be shared between processes.
//
// [DB] implements the small interfaces that the consumers declare, one file per
// consumer: authcore.Flows, Identities, Tallies and Deliveries, otpvault.Store, device.Register,
// modem.Journal and modem.Accounts. It imports those packages for their types; they never import
// it (docs/adr/0002-store-imports-consumers.md). Methods speak the consumers'
// vocabulary; row structs stay inside.
//
// The engine is SQLite in WAL mode with synchronous=FULL: what a method wrote is
// on the disk when it returned nil. There is one writing connection, whose
// transactions take the write lock at once (BEGIN IMMEDIATE), and a pool of
// reading ones. Several processes may have the same file open.
//
// The schema (schema/NNN_*.sql) is migrated only by [Migrate]; [Open] refuses a
// file of another version. No secret is readable in it: codes are MACs, message
// texts are wrapped by the HSM, passwords are opaque encodings. Personal data is
// hidden (package veil) under data keys that are in the file too, wrapped by a
// [hide.Wrapper]; what each column holds is in docs/design/internal-store.md.
//
// It is not a cache, not a queue server, and it decides nothing: limits and
// policy come in as parameters. Only cmd may import it.
package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/mattn/go-sqlite3"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store/hide"
	"custode/internal/store/sqlite"
	"custode/internal/store/veil"
)

// Config is what Open and Migrate need. Path and Keys are required.
type Config struct {
	// Path of the database file; its folder must be writable (WAL).
	Path string
	// Issuer is the entityID of this identity provider, kept with every answer in
	// the transaction register. FinishFlow fails without it.
	Issuer id.EntityID
	// Keys wraps the data keys. Another one than the file was migrated with is refused.
	Keys hide.Wrapper
	// Random makes a data key, in Migrate only; nil: crypto/rand.
	Random io.Reader
	Now    func() time.Time // of Migrate; nil: time.Now
	// Readers is the number of reading connections; 0 means 4.
	Readers int
	// BusyTimeout is how long a statement waits for another process's write
	// lock before fault.Retry; 0 means 5 s.
	BusyTimeout time.Duration
	// Alone says that the caller made sure that no other process sends from this
	// file (a lock on its folder): Recover then waits for no lease of a dead one.
	Alone bool
	Log   *slog.Logger // optional
}

// DB is an open database. It is safe for concurrent use.
type DB struct {
	writer *sql.DB // exactly one connection
	reader *sql.DB // query_only connections
	path   string
	ring   *veil.Ring
	issuer id.EntityID
	owner  string // names this DB in leases
	alone  bool
	log    *slog.Logger
	// refused is set when the disk refused a write and cleared when Ping got one
	// through: reading goes on while the disk is full.
	refused atomic.Bool
}

// Open opens a migrated database. It fails with fault.Fatal when an operator
// must act: no file, not migrated, migrated by another version, readable by
// others, damaged, or an SQLite that can damage it.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	op := "open database " + cfg.Path
	cfg = cfg.withDefaults()
	if err := checkFile(cfg.Path); err != nil {
		return nil, err
	}
	db := &DB{path: cfg.Path, issuer: cfg.Issuer, owner: rand.Text(), alone: cfg.Alone, log: cfg.Log}
	db.writer = sql.OpenDB(newConnector(cfg.Path, cfg.BusyTimeout, false))
	db.writer.SetMaxOpenConns(1)
	db.writer.SetMaxIdleConns(1)
	db.reader = sql.OpenDB(newConnector(cfg.Path, cfg.BusyTimeout, true))
	db.reader.SetMaxOpenConns(cfg.Readers)
	db.reader.SetMaxIdleConns(cfg.Readers)
	if err := db.check(ctx); err != nil {
		_ = db.Close()
		return nil, fault.New(fault.KindOf(err), op, err)
	}
	var err error
	if db.ring, err = hide.Open(ctx, db.read(), cfg.Keys); err != nil {
		_ = db.Close()
		return nil, mapError(op, err)
	}
	db.log.InfoContext(ctx, "database open", "path", cfg.Path, "schema", latestSchema())
	return db, nil
}

func (cfg Config) withDefaults() Config {
	if cfg.Readers <= 0 {
		cfg.Readers = 4
	}
	if cfg.BusyTimeout <= 0 {
		cfg.BusyTimeout = 5 * time.Second
	}
	if cfg.Random == nil {
		cfg.Random = rand.Reader
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return cfg
}

// checkFile refuses what Open must not touch. It never creates the file.
func checkFile(path string) error {
	op := "open database " + path
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return fault.Newf(fault.Fatal, op, "migrate first: %w", err)
	case !info.Mode().IsRegular():
		return fault.Newf(fault.Fatal, op, "not a regular file")
	case info.Mode().Perm()&0o077 != 0:
		return fault.Newf(fault.Fatal, op, "mode %v lets others in; want 0600", info.Mode().Perm())
	}
	return nil
}

// check opens the first connection of each pool, which verifies its settings,
// and compares the schema version.
func (db *DB) check(ctx context.Context) error {
	if err := db.reader.PingContext(ctx); err != nil {
		return mapError("connect for reading", err)
	}
	if err := db.writer.PingContext(ctx); err != nil {
		return mapError("connect for writing", err)
	}
	return checkSchema(ctx, db.reader)
}

// Close gives up this process's claims and releases the file. Calls under way
// finish first.
func (db *DB) Close() error {
	if err := sqlite.New(db.writer).DropLease(context.Background(), db.owner); err != nil {
		db.log.Warn("lease not given up; it ends by itself", "error", err)
	}
	err := db.reader.Close()
	if werr := db.writer.Close(); werr != nil {
		err = werr
	}
	if err != nil {
		return mapError("close database", err)
	}
	return nil
}

// Ping reports whether the database can be read and the write lock be had. It
// writes only after the disk refused a write, to see whether it still does.
func (db *DB) Ping(ctx context.Context) error {
	if err := checkSchema(ctx, db.reader); err != nil {
		return err
	}
	tx, err := db.writer.BeginTx(ctx, nil)
	if err != nil {
		return mapError("take write lock", err)
	}
	if db.refused.Load() {
		return db.tryWrite(ctx, tx)
	}
	if err := tx.Rollback(); err != nil {
		return mapError("release write lock", err)
	}
	return nil
}

// tryWrite writes one page, whose content stays what it is, through tx.
func (db *DB) tryWrite(ctx context.Context, tx *sql.Tx) error {
	const op = "write after a refusal"
	if _, err := tx.ExecContext(ctx, "PRAGMA user_version = 0"); err != nil {
		_ = tx.Rollback()
		return mapError(op, err)
	}
	if err := tx.Commit(); err != nil {
		return mapError(op, err)
	}
	db.refused.Store(false)
	return nil
}

// noteRefusal remembers an error that says that the disk takes no writes.
func (db *DB) noteRefusal(err error) error {
	var e sqlite3.Error
	if errors.As(err, &e) {
		switch e.Code {
		case sqlite3.ErrFull, sqlite3.ErrIoErr, sqlite3.ErrReadonly, sqlite3.ErrCantOpen:
			db.refused.Store(true)
		}
	}
	return err
}

// Backup writes a consistent copy of the database to path, which must not
// exist, with mode 0600, while the database is in use. Nothing is left at path
// when it fails.
func (db *DB) Backup(ctx context.Context, path string) error { return Backup(ctx, db.path, path) }

// Backup is DB.Backup of the database at from, which need not be open anywhere: copying takes no key.
func Backup(ctx context.Context, from, path string) error {
	op := "back up database to " + path
	if err := checkFile(from); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fault.New(fault.Unavailable, op, err)
	}
	defer f.Close()
	// A connection of its own: the readers may not write even elsewhere, and the
	// writer must stay free. The statement holds no lock that writers wait for.
	copier := sql.OpenDB(newConnector(from, 5*time.Second, false))
	defer copier.Close()
	_, err = copier.ExecContext(ctx, "VACUUM INTO ?", path)
	if err != nil {
		_ = os.Remove(path)
		return mapError(op, err)
	}
	if err := errors.Join(f.Sync(), syncFolder(path)); err != nil {
		_ = os.Remove(path)
		return fault.New(fault.Unavailable, op, err)
	}
	return nil
}

// syncFolder makes the name of a new file durable.
func syncFolder(path string) error {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer folder.Close()
	return folder.Sync()
}

// read returns the queries on the reading pool.
func (db *DB) read() *sqlite.Queries { return sqlite.New(db.reader) }

// write runs do in one transaction that holds the write lock from its start, and
// commits it when do returns nil. do's own *fault.Error passes unchanged; every
// other error is mapped.
func (db *DB) write(ctx context.Context, op string, do func(q *sqlite.Queries) error) error {
	tx, err := db.writer.BeginTx(ctx, nil)
	if err != nil {
		return mapError(op, db.noteRefusal(err))
	}
	if err := do(sqlite.New(tx)); err != nil {
		// The transaction is void either way; the cause is what matters.
		_ = tx.Rollback()
		return mapError(op, db.noteRefusal(err))
	}
	if err := tx.Commit(); err != nil {
		return mapError(op, db.noteRefusal(err))
	}
	return nil
}
