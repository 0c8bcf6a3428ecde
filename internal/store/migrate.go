package store

import (
	"context"
	"database/sql"
	"embed"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/pressly/goose/v3"

	"custode/internal/fault"
	"custode/internal/store/hide"
)

//go:embed schema/*.sql
var schemaFiles embed.FS

// Migrate brings the database at cfg.Path to the schema of this program, creating
// the file with mode 0600 when there is none, and its data key; what an earlier schema kept
// readable is hidden. Each step is one transaction, and what was interrupted goes on when it is called again.
// It is an explicit command of an operator: back up first, and destroy that copy when it is from before
// schema 9. fault.Fatal when the file is of a newer program or of another records key.
func Migrate(ctx context.Context, cfg Config) error {
	cfg = cfg.withDefaults()
	path, log := cfg.Path, cfg.Log
	op := "migrate database " + path
	if cfg.Keys == nil {
		return fault.Newf(fault.Fatal, op, "no records key was given")
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fault.New(fault.Unavailable, op, err)
	}
	if err := f.Close(); err != nil {
		return fault.New(fault.Unavailable, op, err)
	}
	if err := checkFile(path); err != nil {
		return err
	}
	db := sql.OpenDB(newConnector(path, 5*time.Second, false))
	defer db.Close()
	db.SetMaxOpenConns(1)
	folder, err := fs.Sub(schemaFiles, "schema")
	if err != nil {
		return fault.New(fault.Internal, op, err)
	}
	steps, err := goose.NewProvider(goose.DialectSQLite3, db, folder, goose.WithSlog(log), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return mapError(op, err)
	}
	have, err := steps.GetDBVersion(ctx)
	if err != nil {
		return mapError(op, err)
	}
	if have > latestSchema() {
		return fault.Newf(fault.Fatal, op, "schema %d is newer than this program's %d", have, latestSchema())
	}
	if _, err := steps.Up(ctx); err != nil {
		return mapError(op, err)
	}
	if err := hide.All(ctx, db, hide.First{Keys: cfg.Keys, Random: cfg.Random, Now: cfg.Now()}); err != nil {
		return mapError(op, err)
	}
	return nil
}

// latestSchema is the highest number in schema/.
func latestSchema() int64 {
	files, err := schemaFiles.ReadDir("schema")
	if err != nil {
		panic(err) // the folder is compiled in
	}
	var latest int64
	for _, f := range files {
		number, _, _ := strings.Cut(f.Name(), "_")
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			panic(err) // so are the names
		}
		latest = max(latest, n)
	}
	return latest
}

// checkSchema compares the version that Migrate left with this program's.
func checkSchema(ctx context.Context, db *sql.DB) error {
	const op = "check schema"
	var have sql.NullInt64
	err := db.QueryRowContext(ctx, "SELECT MAX(version_id) FROM goose_db_version WHERE is_applied").Scan(&have)
	if err != nil {
		if kindOf(err) == fault.Internal {
			return fault.Newf(fault.Fatal, op, "not a migrated database: %w", err) // no such table
		}
		return mapError(op, err)
	}
	if have.Int64 != latestSchema() {
		return fault.Newf(fault.Fatal, op, "the file has version %d, this program needs %d: migrate, or use the program that fits", have.Int64, latestSchema())
	}
	return nil
}
