// Package otpstore keeps OATH devices in the database of package store: the devices, the
// challenges to them, activation and emergency codes, the keys of apps, escrow
// copies and what was chosen last. It is a room of internal/store for its size: the same
// database, the same transactions, the same rules.
//
// It may be imported by cmd; it imports internal/store and the packages of otpvault whose
// interfaces it implements.
package otpstore

import (
	"time"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store"
)

// DB is a database of package store, as the packages of otpvault see it.
type DB struct{ store *store.DB }

// New returns the devices of an open database.
func New(db *store.DB) *DB { return &DB{db} }

// open is the state of a challenge that can be answered, as the schema numbers them.
const open = 1

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

func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// parse reads the identifiers of a row that this program wrote.
func parse(op string, serial *id.Serial, serialText string, subject *id.Subject, subjectText string) error {
	if err := serial.UnmarshalText([]byte(serialText)); err != nil {
		return fault.New(fault.Internal, op, err)
	}
	if err := subject.UnmarshalText([]byte(subjectText)); err != nil {
		return fault.New(fault.Internal, op, err)
	}
	return nil
}
