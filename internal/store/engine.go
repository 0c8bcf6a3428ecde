package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/mattn/go-sqlite3"

	"custode/internal/fault"
	"custode/internal/store/sqlite"
)

// connector opens connections with all settings of the house.
type connector struct {
	driver *sqlite3.SQLiteDriver
	dsn    string
}

func newConnector(path string, busy time.Duration, readOnly bool) *connector {
	v := url.Values{
		"_busy_timeout":    {strconv.FormatInt(busy.Milliseconds(), 10)},
		"_foreign_keys":    {"on"},
		"_journal_mode":    {"WAL"},
		"_synchronous":     {"FULL"},
		"_txlock":          {"immediate"},
		"_stmt_cache_size": {"64"},
		// rw: a file that vanished is an error, not an empty database.
		"mode": {"rw"},
	}
	if readOnly {
		// Not mode=ro: a reader must be able to open the WAL index after a crash.
		v.Set("_query_only", "on")
		v.Set("_txlock", "deferred")
	}
	return &connector{
		driver: &sqlite3.SQLiteDriver{ConnectHook: verifyConn},
		dsn:    "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + v.Encode(),
	}
}

// Connect implements driver.Connector.
func (c *connector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.dsn) }

// Driver implements driver.Connector.
func (c *connector) Driver() driver.Driver { return c.driver }

// verifyConn makes the last settings and reads back what durability rests on: a
// pragma that was not understood is silently ignored by SQLite.
func verifyConn(c *sqlite3.SQLiteConn) error {
	version, err := scalar(c, "SELECT sqlite_version()")
	if err != nil {
		return err
	}
	if err := sqlite.CheckVersion(version); err != nil {
		return err
	}
	// Nothing of ours in temporary files, nothing deleted left in pages, and no functions run by a schema that
	// somebody else wrote.
	if _, err := c.Exec("PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF; PRAGMA secure_delete = ON", nil); err != nil {
		return err
	}
	for pragma, want := range map[string]string{
		"synchronous": "2", "foreign_keys": "1", "journal_mode": "wal", "temp_store": "2", "trusted_schema": "0", "secure_delete": "1",
	} {
		got, err := scalar(c, "PRAGMA "+pragma)
		if err != nil {
			return err
		}
		if got != want {
			return fault.Newf(fault.Fatal, "set up connection", "pragma %s is %s, want %s", pragma, got, want)
		}
	}
	return nil
}

// scalar returns the first column of the first row as text.
func scalar(c *sqlite3.SQLiteConn, query string) (text string, err error) {
	rows, err := c.Query(query, nil)
	if err != nil {
		return "", err
	}
	defer func() {
		if cerr := rows.Close(); err == nil {
			err = cerr
		}
	}()
	row := make([]driver.Value, len(rows.Columns()))
	if err := rows.Next(row); err != nil {
		return "", err
	}
	if b, ok := row[0].([]byte); ok {
		return string(b), nil
	}
	return fmt.Sprint(row[0]), nil
}

// mapError gives an error of the engine its kind; a *fault.Error passes
// unchanged.
func mapError(op string, err error) error {
	var known *fault.Error
	if errors.As(err, &known) {
		return err
	}
	return fault.New(kindOf(err), op, err)
}

func kindOf(err error) fault.Kind {
	var e sqlite3.Error
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return fault.NotFound
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, sql.ErrTxDone): // rolled back because the context ended
		return fault.Retry
	case errors.Is(err, sql.ErrConnDone), errors.Is(err, driver.ErrBadConn):
		return fault.Unavailable
	case !errors.As(err, &e):
		return fault.Internal
	}
	switch e.Code {
	case sqlite3.ErrBusy, sqlite3.ErrLocked, sqlite3.ErrInterrupt, sqlite3.ErrProtocol:
		return fault.Retry
	case sqlite3.ErrFull, sqlite3.ErrIoErr, sqlite3.ErrCantOpen, sqlite3.ErrNomem:
		return fault.Unavailable
	case sqlite3.ErrCorrupt, sqlite3.ErrNotADB, sqlite3.ErrFormat, sqlite3.ErrReadonly, sqlite3.ErrPerm, sqlite3.ErrAuth:
		return fault.Fatal
	case sqlite3.ErrTooBig:
		return fault.Invalid
	case sqlite3.ErrConstraint:
		// A violated CHECK or NOT NULL is a defect of ours, not a conflict.
		switch e.ExtendedCode {
		case sqlite3.ErrConstraintUnique, sqlite3.ErrConstraintPrimaryKey, sqlite3.ErrConstraintRowID, sqlite3.ErrConstraintForeignKey:
			return fault.Conflict
		}
	}
	return fault.Internal
}

// nanos is how times are stored: nanoseconds since 1970 UTC, 0 for the zero time.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// instant is the inverse of nanos, in UTC.
func instant(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

// blob keeps a nil slice from being stored as NULL.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
