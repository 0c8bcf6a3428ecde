package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"

	"custode/internal/fault"
	"custode/internal/store"
	"custode/internal/store/storetest"
	"custode/modem"
)

func TestErrorKinds(t *testing.T) {
	code := func(c sqlite3.ErrNo) error { return fmt.Errorf("x: %w", sqlite3.Error{Code: c}) }
	constraint := func(e sqlite3.ErrNoExtended) error {
		return sqlite3.Error{Code: sqlite3.ErrConstraint, ExtendedCode: e}
	}
	for _, c := range []struct {
		err  error
		want fault.Kind
	}{
		{sql.ErrNoRows, fault.NotFound}, {context.Canceled, fault.Retry}, {context.DeadlineExceeded, fault.Retry},
		{sql.ErrConnDone, fault.Unavailable}, {errors.New("other"), fault.Internal},
		{code(sqlite3.ErrBusy), fault.Retry}, {code(sqlite3.ErrLocked), fault.Retry}, {code(sqlite3.ErrInterrupt), fault.Retry},
		{code(sqlite3.ErrFull), fault.Unavailable}, {code(sqlite3.ErrIoErr), fault.Unavailable}, {code(sqlite3.ErrCantOpen), fault.Unavailable},
		{code(sqlite3.ErrCorrupt), fault.Fatal}, {code(sqlite3.ErrNotADB), fault.Fatal}, {code(sqlite3.ErrReadonly), fault.Fatal},
		{code(sqlite3.ErrTooBig), fault.Invalid}, {code(sqlite3.ErrError), fault.Internal},
		{constraint(sqlite3.ErrConstraintUnique), fault.Conflict}, {constraint(sqlite3.ErrConstraintPrimaryKey), fault.Conflict},
		{constraint(sqlite3.ErrConstraintForeignKey), fault.Conflict}, {constraint(sqlite3.ErrConstraintCheck), fault.Internal},
		{constraint(sqlite3.ErrConstraintNotNull), fault.Internal},
	} {
		if got := store.KindOf(c.err); got != c.want {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
}

func TestSettings(t *testing.T) {
	db := mustOpen(t, migrated(t))
	for pragma, want := range map[string]string{"synchronous": "2", "journal_mode": "wal", "foreign_keys": "1", "busy_timeout": "5000", "temp_store": "2", "trusted_schema": "0"} {
		all, err := db.Settings(pragma)
		if err != nil {
			t.Fatal(err)
		}
		for _, got := range all {
			if got != want {
				t.Errorf("pragma %s is %s, want %s", pragma, got, want)
			}
		}
	}
	if err := db.WriteThroughReader(); err == nil {
		t.Error("a reading connection wrote")
	}
}

func TestFullDisk(t *testing.T) {
	path := migrated(t)
	db := mustOpen(t, path)
	if _, err := db.Settings("max_page_count = 40"); err != nil {
		t.Fatal(err)
	}
	var err error
	for range 500 {
		if err = db.CreateFlow(t.Context(), storetest.NewFlow(t, time.Now())); err != nil {
			break
		}
	}
	wantKind(t, "no room", err, fault.Unavailable)
	if _, err := db.Settings("max_page_count = 100000"); err != nil {
		t.Fatal(err)
	}
	if err := db.CreateFlow(t.Context(), storetest.NewFlow(t, time.Now())); err != nil {
		t.Errorf("room again: %v", err)
	}
}

func TestTextIsErased(t *testing.T) {
	db := mustOpen(t, migrated(t))
	f := storetest.NewFlow(t, time.Now())
	c, m := storetest.NewChallenge(t, f.ID, f.Subject, time.Now())
	if err := db.IssueChallenge(t.Context(), c, m, storetest.Limit()); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		state modem.State
		want  int
	}{{modem.Sending, len(m.Wrapped)}, {modem.MaybeSent, len(m.Wrapped)}, {modem.Sent, 0}, {modem.Delivered, 0}} {
		if err := db.Record(t.Context(), modem.Event{ID: m.ID, State: step.state, At: time.Now()}); err != nil {
			t.Fatal(err)
		}
		all, err := db.WrappedText()
		if err != nil {
			t.Fatal(err)
		}
		if len(all) != 1 || len(all[0]) != step.want {
			t.Errorf("in state %d the texts are %v, want one of %d octets", step.state, all, step.want)
		}
	}
}

func TestCancelledTextIsErased(t *testing.T) {
	db := mustOpen(t, migrated(t))
	f := storetest.NewFlow(t, time.Now())
	for n, want := range [][]int{{4}, {0, 4}, {0, 0, 4}} {
		c, m := storetest.NewChallenge(t, f.ID, f.Subject, time.Now().Add(time.Duration(n)*time.Second))
		if err := db.IssueChallenge(t.Context(), c, m, storetest.Limit()); err != nil {
			t.Fatal(err)
		}
		all, err := db.WrappedText()
		if err != nil {
			t.Fatal(err)
		}
		var got []int
		for _, s := range all {
			got = append(got, len(s))
		}
		if !slices.Equal(got, want) {
			t.Errorf("after %d codes the texts have %v octets, want %v", n+1, got, want)
		}
	}
}

// TestQueuedByClass: no number of notices, waiting or in doubt, cuts off a code.
func TestQueuedByClass(t *testing.T) {
	path := migrated(t)
	db := mustOpen(t, path)
	now := time.Now()
	var ids []string
	for n, class := range []modem.Class{modem.Bulk, modem.Alert, modem.Alert, modem.OneTime, modem.OneTime} {
		f := storetest.NewFlow(t, now)
		c, m := storetest.NewChallenge(t, f.ID, f.Subject, now.Add(time.Duration(n)*time.Second)) // codes have the latest deadline
		if err := db.IssueChallenge(t.Context(), c, m, storetest.Limit()); err != nil {
			t.Fatal(err)
		}
		if err := db.Reclass(m.ID, class); err != nil {
			t.Fatal(err)
		}
		if n == 1 || n == 4 {
			if err := db.Record(t.Context(), modem.Event{ID: m.ID, State: modem.Sending, At: now}); err != nil {
				t.Fatal(err)
			}
		}
		ids = append(ids, m.ID.String())
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = mustOpen(t, path)
	if events, err := db.Recover(t.Context(), now); err != nil || len(events) != 2 {
		t.Fatal(events, err)
	}
	want := []string{ids[3], ids[4], ids[1], ids[2], ids[0]}
	for limit := 1; limit <= 6; limit++ {
		queued, err := db.Queued(t.Context(), limit)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range queued {
			got = append(got, m.ID.String())
		}
		if !slices.Equal(got, want[:min(limit, len(want))]) {
			t.Errorf("limit %d: %v, want the first of %v", limit, got, want)
		}
	}
}

func TestFinishFlowNeedsIssuer(t *testing.T) {
	db, err := store.Open(t.Context(), store.Config{Path: migrated(t), Keys: storetest.Keys("records")})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	f := storetest.NewFlow(t, time.Now())
	i := storetest.NewIdentity(t, 1, time.Now())
	wantKind(t, "no issuer", db.FinishFlow(t.Context(), f, storetest.NewAnswered(f, i.SPIDCode, time.Now())), fault.Fatal)
}

func TestClosed(t *testing.T) {
	db := mustOpen(t, migrated(t))
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := db.Ping(t.Context()); err == nil {
		t.Error("ping of a closed database succeeded")
	}
	if err := db.CreateFlow(t.Context(), storetest.NewFlow(t, time.Now())); err == nil {
		t.Error("write to a closed database succeeded")
	}
}
