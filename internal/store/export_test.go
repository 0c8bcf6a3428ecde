package store

import (
	"custode/internal/id"
	"custode/internal/store/sqlite"
	"custode/modem"
)

// Names for the tests, which are in package store_test because storetest
// imports this package.
var CheckSQLiteVersion = sqlite.CheckVersion

// Settings returns pragmas as every connection of the pools has them.
func (db *DB) Settings(pragma string) ([]string, error) {
	var all []string
	var s string
	if err := db.writer.QueryRow("PRAGMA " + pragma).Scan(&s); err != nil {
		return nil, err
	}
	all = append(all, s)
	for range 8 {
		if err := db.reader.QueryRow("PRAGMA " + pragma).Scan(&s); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// WriteThroughReader tries to write on a reading connection.
func (db *DB) WriteThroughReader() error {
	_, err := db.reader.Exec("DELETE FROM tally")
	return err
}

// Reclass changes the class of a message; nothing but codes is inserted yet.
func (db *DB) Reclass(m id.MessageID, c modem.Class) error {
	_, err := db.writer.Exec("UPDATE outbox SET class = ? WHERE id = ?", int64(c), m.String())
	return err
}

// WrappedText returns the stored text of every message.
func (db *DB) WrappedText() (all [][]byte, err error) {
	rows, err := db.reader.Query("SELECT wrapped FROM outbox ORDER BY created")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var b []byte
		if err := rows.Scan(&b); err != nil {
			return nil, err
		}
		all = append(all, b)
	}
	return all, rows.Err()
}
