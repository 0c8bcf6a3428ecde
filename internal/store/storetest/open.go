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
	path := filepath.Join(t.TempDir(), "test.db")
	if err := store.Migrate(t.Context(), path, nil); err != nil {
		t.Fatal(err)
	}
	issuer := parse(t, id.ParseEntityID, Issuer)
	return func() (*store.DB, error) { return store.Open(t.Context(), store.Config{Path: path, Issuer: issuer}) }
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
