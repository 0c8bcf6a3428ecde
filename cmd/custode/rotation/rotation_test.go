package rotation

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"custode/authcore"
	"custode/authcore/passhash"
	"custode/hsm"
	"custode/internal/config"
	"custode/internal/id"
	"custode/internal/store"
	"custode/internal/store/storetest"
)

func label(t *testing.T, s string) id.KeyLabel {
	t.Helper()
	l, err := id.ParseKeyLabel(s)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// keyed is HMAC in software under its own key.
type keyed string

func (k keyed) MAC(_ context.Context, data []byte) ([]byte, error) {
	m := hmac.New(sha256.New, []byte(k))
	m.Write(data)
	return m.Sum(nil), nil
}

// TestPasswordMovesToTodaysPepper: a right password is stored anew under today's
// pepper, a wrong one changes nothing, and what the old key is needed for goes to nothing.
func TestPasswordMovesToTodaysPepper(t *testing.T) {
	db, ctx := storetest.Open(t), t.Context()
	one, two := label(t, "pepper/1"), label(t, "pepper/2")
	hasher := func(c passhash.Config) *passhash.Hasher {
		c.Random, c.Cost = rand.Reader, passhash.Cost{Memory: 8, Time: 1, Threads: 1}
		h, err := passhash.New(c)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	before := hasher(passhash.Config{Pepper: keyed("1"), Label: one})
	now := Passwords{Hasher: hasher(passhash.Config{Pepper: keyed("2"), Label: two, Earlier: []passhash.Named{{Label: one, Pepper: keyed("1")}}}), DB: db, Log: slog.New(slog.DiscardHandler)}

	who, err := authcore.NewIdentity(authcore.NewIdentityInput{Username: "anna", Type: "natural", SPIDCode: "ABCD1234567890", Random: rand.Reader, Now: time.Now(),
		Attributes: map[string]string{"spidCode": "ABCD1234567890", "name": "Anna", "familyName": "Verdi", "fiscalNumber": "TINIT-LVTDAA85T50H501D"}})
	if err != nil {
		t.Fatal(err)
	}
	if who.Password, err = before.Hash(ctx, who.Subject, "Tr0ub4dor&zwölf"); err != nil {
		t.Fatal(err)
	}
	if err := db.AddIdentity(ctx, who, store.Change{Actor: "test", Reason: "test", At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	keys := config.Keys{Pepper: two}
	needed := func(in Argument) string {
		t.Helper()
		why, err := Needed(ctx, in, keys, t.TempDir(), db)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(why, "; ")
	}
	if got := needed(Argument{Label: one, MAC: true}); got != "1 passwords are hashed under it" {
		t.Errorf("before: %q", got)
	}
	if err := now.Check(ctx, who.Subject, who.Password, "wrong"); err == nil {
		t.Error("a wrong password is right")
	}
	if got := needed(Argument{Label: one, MAC: true}); got != "1 passwords are hashed under it" {
		t.Errorf("after a wrong password: %q", got)
	}
	if err := now.Check(ctx, who.Subject, who.Password, "Tr0ub4dor&zwölf"); err != nil {
		t.Fatal(err)
	}
	if got := needed(Argument{Label: one, MAC: true}); got != "" {
		t.Errorf("after the login: %q", got)
	}
	if got := needed(Argument{Label: two, MAC: true}); got != "policy.yaml names it: keys.pepper; 1 passwords are hashed under it" {
		t.Errorf("today's: %q", got)
	}
	stored, err := db.IdentityByUsername(ctx, who.Username)
	if err != nil {
		t.Fatal(err)
	}
	if err := now.Check(ctx, who.Subject, stored.Password, "Tr0ub4dor&zwölf"); err != nil || now.Stale(stored.Password) {
		t.Errorf("what is stored now: %v", err)
	}
	// A row that somebody changed meanwhile is left alone.
	if replaced, err := db.ReplacePassword(ctx, who.Subject, who.Password, "x"); err != nil || replaced {
		t.Errorf("replaced %v %v", replaced, err)
	}
}

// TestNeeded: every setting of the policy counts, and so do segments of the log.
func TestNeeded(t *testing.T) {
	db, l, logs := storetest.Open(t), label(t, "custode/log/2026-1"), t.TempDir()
	blob, err := hsm.Blob{Key: l, Wrapped: make([]byte, 48)}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]any{"segment": 1, "operational": blob})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(logs, "security"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(logs, "security", "1.key"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, keys := range map[string]config.Keys{"also_published": {AlsoPublished: []id.KeyLabel{l}}, "seal": {Seal: l}, "earlier_log": {EarlierLog: []id.KeyLabel{l}}, "bind": {Bind: l}, "": {}} {
		why, err := Needed(t.Context(), Argument{Label: l}, keys, logs, db)
		want := "1 segments of the certified log are wrapped by it"
		if name != "" {
			want = "policy.yaml names it: keys." + name + "; " + want
		}
		if err != nil || strings.Join(why, "; ") != want {
			t.Errorf("%s: %q %v", name, why, err)
		}
	}
}

// TestNeededSeesAllSegments: a log behind a symbolic link counts, and where something
// cannot be read the answer is an error, not nothing.
func TestNeededSeesAllSegments(t *testing.T) {
	db, l, real := storetest.Open(t), label(t, "custode/log/2026-1"), t.TempDir()
	blob, err := hsm.Blob{Key: l, Wrapped: make([]byte, 48)}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	write := func(operational []byte) {
		t.Helper()
		text, err := json.Marshal(map[string]any{"operational": operational})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(real, "1.key"), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(blob)
	logs := filepath.Join(t.TempDir(), "logs")
	if err := os.Symlink(real, logs); err != nil {
		t.Fatal(err)
	}
	if why, err := Needed(t.Context(), Argument{Label: l}, config.Keys{}, logs, db); err != nil || len(why) != 1 {
		t.Errorf("a log behind a link: %q %v", why, err)
	}
	parent := t.TempDir()
	if err := os.Symlink(real, filepath.Join(parent, "security")); err != nil {
		t.Fatal(err)
	}
	if why, err := Needed(t.Context(), Argument{Label: l}, config.Keys{}, parent, db); err == nil {
		t.Errorf("a link within the folder: %q", why)
	}
	write(blob[:len(blob)-40])
	if why, err := Needed(t.Context(), Argument{Label: l}, config.Keys{}, real, db); err == nil {
		t.Errorf("a damaged segment key: %q", why)
	}
}
