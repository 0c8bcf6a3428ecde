package store_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"custode/authcore"
	"custode/internal/fault"
	"custode/internal/store"
	"custode/internal/store/storetest"
)

// TestIdentityTypeMigration: identities of before the types are natural persons'.
func TestIdentityTypeMigration(t *testing.T) {
	path := migrated(t)
	back(t, path, "002_identity_type.sql")
	who := storetest.NewIdentity(t, 1, time.Now())
	if who.Type == authcore.NaturalPerson {
		t.Fatal("the case shows nothing")
	}
	execRaw(t, path, `INSERT INTO identity (subject, username, spid_code, state, reason, phone, attributes, password, created, last_login)
		VALUES ('`+who.Subject.String()+`', '`+who.Username.String()+`', '`+who.SPIDCode.String()+`', 1, '', '', '{}', 'x', 1, 0)`)
	if err := migrate(t, path); err != nil {
		t.Fatal(err)
	}
	if got, err := mustOpen(t, path).Identity(t.Context(), who.Subject); err != nil || got.Type != authcore.NaturalPerson || got.Username != who.Username {
		t.Errorf("%v, %v", got.Type, err)
	}
}

// back undoes the migrations from that file on, as goose's Down would: of an empty database, since
// nothing shows again what was hidden.
func back(t *testing.T, path, from string) {
	t.Helper()
	files, err := os.ReadDir("schema")
	if err != nil {
		t.Fatal(err)
	}
	for i := len(files) - 1; i >= 0 && files[i].Name() >= from; i-- {
		text, err := os.ReadFile("schema/" + files[i].Name())
		if err != nil {
			t.Fatal(err)
		}
		_, down, ok := strings.Cut(string(text), "-- +goose Down")
		if !ok {
			t.Fatalf("%s has no way back", files[i].Name())
		}
		execRaw(t, path, down)
		number, _, _ := strings.Cut(files[i].Name(), "_")
		execRaw(t, path, "DELETE FROM goose_db_version WHERE version_id = "+strings.TrimLeft(number, "0"))
	}
}

// TestIdentityTypeRange: neither the store nor the file takes a type that is none.
func TestIdentityTypeRange(t *testing.T) {
	path := migrated(t)
	db := mustOpen(t, path)
	for _, kind := range []authcore.IdentityType{0, 5} {
		who := storetest.NewIdentity(t, 1, time.Now())
		who.Type = kind
		wantKind(t, "type none", db.AddIdentity(t.Context(), who, store.Change{Actor: "a", Reason: "b", At: time.Now()}), fault.Invalid)
	}
	who := storetest.NewIdentity(t, 1, time.Now())
	if err := db.AddIdentity(t.Context(), who, store.Change{Actor: "a", Reason: "b", At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if _, err := raw(t, path).ExecContext(context.Background(), "UPDATE identity SET identity_type = 5"); err == nil {
		t.Error("the file took type 5")
	}
}
