package storetest

import (
	"path/filepath"
	"testing"

	"custode/internal/id"
	"custode/internal/store"
)

// Place makes a new, empty database for a test of another package. Whoever opens it closes it.
func Place(t testing.TB) Opener {
	t.Helper()
	c := store.Config{Path: filepath.Join(t.TempDir(), "test.db"), Issuer: parse(t, id.ParseEntityID, Issuer), Keys: Keys("records")}
	if err := store.Migrate(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	return func() (*store.DB, error) { return store.Open(t.Context(), c) }
}

// Open is one that is open until the test ends.
func Open(t testing.TB) *store.DB {
	t.Helper()
	db, err := Place(t)()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}
