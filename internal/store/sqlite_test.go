package store_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store"
	"custode/internal/store/storetest"
)

func TestSQLite(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Opener {
		path := migrated(t)
		return func() (*store.DB, error) { return open(t.Context(), path) }
	})
}

// migrated returns the path of an empty database of the current schema. The
// name holds what a careless URI would trip over.
func migrated(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cust ode?#%41.db")
	if err := migrate(t, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// migrate migrates with the key that open gives.
func migrate(t testing.TB, path string) error {
	return store.Migrate(t.Context(), store.Config{Path: path, Keys: storetest.Keys("records")})
}

func open(ctx context.Context, path string) (*store.DB, error) {
	issuer, err := id.ParseEntityID(storetest.Issuer)
	if err != nil {
		return nil, err
	}
	return store.Open(ctx, store.Config{Path: path, Issuer: issuer, Keys: storetest.Keys("records")})
}

func mustOpen(t testing.TB, path string) *store.DB {
	t.Helper()
	db, err := open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// raw opens the file behind the store's back.
func raw(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func execRaw(t *testing.T, path, statement string) {
	t.Helper()
	if _, err := raw(t, path).Exec(statement); err != nil {
		t.Fatal(err)
	}
}

func wantKind(t *testing.T, what string, err error, kind fault.Kind) {
	t.Helper()
	if !fault.Is(err, kind) {
		t.Errorf("%s: %v, want kind %v", what, err, kind)
	}
}

func openFails(t *testing.T, what, path string, kind fault.Kind) {
	t.Helper()
	db, err := open(t.Context(), path)
	if err == nil {
		_ = db.Close()
	}
	wantKind(t, what, err, kind)
}

func TestOpenRefuses(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.db")
	openFails(t, "no file", missing, fault.Fatal)
	if _, err := os.Stat(missing); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open made a file: %v", err)
	}
	openFails(t, "a folder", t.TempDir(), fault.Fatal)

	empty := filepath.Join(t.TempDir(), "empty.db")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	openFails(t, "not migrated", empty, fault.Fatal)

	junk := filepath.Join(t.TempDir(), "junk.db")
	if err := os.WriteFile(junk, bytes.Repeat([]byte("not a database "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	openFails(t, "not a database", junk, fault.Fatal)
	wantKind(t, "migrate what is not a database", migrate(t, junk), fault.Fatal)

	path := migrated(t)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	openFails(t, "readable by the group", path, fault.Fatal)
	wantKind(t, "migrate, readable by the group", migrate(t, path), fault.Fatal)

	path = migrated(t)
	execRaw(t, path, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, 1)")
	openFails(t, "schema of a newer program", path, fault.Fatal)
	wantKind(t, "migrate downwards", migrate(t, path), fault.Fatal)

	path = migrated(t)
	execRaw(t, path, "DELETE FROM goose_db_version WHERE version_id > 0")
	openFails(t, "schema of an older program", path, fault.Fatal)
}

func TestMigrateTwiceIsHarmless(t *testing.T) {
	path := migrated(t)
	db := mustOpen(t, path)
	f := storetest.NewFlow(t, time.Now())
	if err := db.CreateFlow(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	if err := migrate(t, path); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Flow(t.Context(), f.ID); err != nil {
		t.Error(err)
	}
}

func TestFileModes(t *testing.T) {
	path := migrated(t)
	db := mustOpen(t, path)
	if err := db.CreateFlow(t.Context(), storetest.NewFlow(t, time.Now())); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "copy.db")
	if err := db.Backup(t.Context(), copied); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, path + "-wal", path + "-shm", copied} {
		info, err := os.Stat(p)
		if err != nil {
			t.Error(err)
		} else if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", filepath.Base(p), info.Mode().Perm())
		}
	}
}

func TestBackup(t *testing.T) {
	db := mustOpen(t, migrated(t))
	f := storetest.NewFlow(t, time.Now())
	if err := db.CreateFlow(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "copy.db")
	if err := db.Backup(t.Context(), copied); err != nil {
		t.Fatal(err)
	}
	wantKind(t, "over an existing file", db.Backup(t.Context(), copied), fault.Unavailable)
	if _, err := mustOpen(t, copied).Flow(t.Context(), f.ID); err != nil {
		t.Errorf("flow in the copy: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	failed := filepath.Join(t.TempDir(), "failed.db")
	wantKind(t, "cancelled", db.Backup(ctx, failed), fault.Retry)
	if _, err := os.Stat(failed); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a failed backup left a file: %v", err)
	}
	out, err := exec.Command("sqlite3", copied, "PRAGMA integrity_check").CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Fatal("sqlite3 is missing: install the Debian package sqlite3")
	}
	if err != nil || strings.TrimSpace(string(out)) != "ok" {
		t.Errorf("integrity check by another SQLite: %s %v", out, err)
	}
}

// TestBusy holds the write lock from outside.
func TestBusy(t *testing.T) {
	path := migrated(t)
	issuer, err := id.ParseEntityID(storetest.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), store.Config{Path: path, Issuer: issuer, Keys: storetest.Keys("records"), BusyTimeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	conn, err := raw(t, path).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	f := storetest.NewFlow(t, time.Now())
	wantKind(t, "write while another writes", db.CreateFlow(t.Context(), f), fault.Retry)
	wantKind(t, "ping while another writes", db.Ping(t.Context()), fault.Retry)
	if _, err := db.Tally(t.Context(), [32]byte{}); err != nil {
		t.Errorf("read while another writes: %v", err)
	}
	if _, err := conn.ExecContext(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if err := db.CreateFlow(t.Context(), f); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if err := db.Ping(t.Context()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// TestForeignDocument: rows that this program did not write are refused, not
// half understood.
func TestForeignDocument(t *testing.T) {
	path := migrated(t)
	db := mustOpen(t, path)
	for _, statement := range []string{
		`UPDATE flow SET progress = '{"V":1}'`,
		`UPDATE flow SET progress = '{"V":2,"Novelty":true}'`,
		`UPDATE flow SET progress = 'junk'`,
		`UPDATE flow SET progress = '{"V":2,"Subject":"nobody"}'`,
		`UPDATE flow SET sp = 'not a URI'`,
		`UPDATE flow_request SET document = '{}'`,
	} {
		f := storetest.NewFlow(t, time.Now())
		if err := db.CreateFlow(t.Context(), f); err != nil {
			t.Fatal(err)
		}
		execRaw(t, path, statement)
		_, err := db.Flow(t.Context(), f.ID)
		wantKind(t, statement, err, fault.Internal)
	}
	i := storetest.NewIdentity(t, 1, time.Now())
	if err := db.AddIdentity(t.Context(), i, store.Change{Actor: "a", Reason: "b", At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	j := storetest.NewIdentity(t, 2, time.Now())
	if err := db.AddIdentity(t.Context(), j, store.Change{Actor: "a", Reason: "b", At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		`UPDATE identity SET attributes = '{"V":1}'`,
		`UPDATE identity SET attributes = (SELECT j.attributes FROM identity j WHERE j.subject <> identity.subject)`,
		`UPDATE identity SET attributes = reason`,
	} {
		execRaw(t, path, statement)
		_, err := db.Identity(t.Context(), i.Subject)
		wantKind(t, statement, err, fault.Internal)
	}
}

// TestDamagedFile overwrites pages of a closed database.
func TestDamagedFile(t *testing.T) {
	path := migrated(t)
	db := mustOpen(t, path)
	var last id.FlowID
	for range 50 {
		f := storetest.NewFlow(t, time.Now())
		if err := db.CreateFlow(t.Context(), f); err != nil {
			t.Fatal(err)
		}
		last = f.ID
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const page = 4096
	for i := page; i < len(data); i++ { // all but the first page, which holds the schema's root
		data[i] = 0xA5
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err = open(t.Context(), path)
	if err == nil {
		defer db.Close()
		_, err = db.Flow(t.Context(), last)
	}
	wantKind(t, "damaged", err, fault.Fatal)
}

func TestLinkedSQLite(t *testing.T) {
	version, _, _ := sqlite3.Version()
	if err := store.CheckSQLiteVersion(version); err != nil {
		t.Error(err)
	}
	for _, v := range []string{"3.51.2", "3.40.1", "2.99.99", "3.9.9", "", "x", "3.51"} {
		wantKind(t, v, store.CheckSQLiteVersion(v), fault.Fatal)
	}
	for _, v := range []string{"3.51.3", "3.52.0", "4.0.0"} {
		if err := store.CheckSQLiteVersion(v); err != nil {
			t.Errorf("%s: %v", v, err)
		}
	}
}

// TestPingTellsOfAFullDisk: reads go on when the disk takes no more, and health
// must not call that fit to serve. A limit on file sizes stands in for the disk.
func TestPingTellsOfAFullDisk(t *testing.T) {
	db := mustOpen(t, migrated(t))
	if err := db.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	limit := func(l syscall.Rlimit) {
		t.Helper()
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &l); err != nil {
			t.Fatal(err)
		}
	}
	limit(syscall.Rlimit{Cur: 4096, Max: old.Max})
	_, written := db.CountFailure(t.Context(), [32]byte{1}, time.Now())
	full := db.Ping(t.Context())
	limit(old)
	wantKind(t, "write on a full disk", written, fault.Unavailable)
	wantKind(t, "ping on a full disk", full, fault.Unavailable)
	if err := db.Ping(t.Context()); err != nil {
		t.Errorf("ping with room again: %v", err)
	}
	if _, err := db.CountFailure(t.Context(), [32]byte{1}, time.Now()); err != nil {
		t.Errorf("write with room again: %v", err)
	}
}
