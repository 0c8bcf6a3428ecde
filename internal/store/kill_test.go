package store_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store/storetest"
	"custode/modem"
	"custode/otpvault"
)

// The kill tests run this test binary again as a child that does one thing to a
// database, says "done" and stands still until it is killed. They show that what
// was told is in the files, not in the process. That the files survive a power
// cut rests on synchronous=FULL, which TestSettings reads back.
const childVariable = "CUSTODE_STORE_TEST_CHILD"

func TestMain(m *testing.M) {
	if task := os.Getenv(childVariable); task != "" {
		if err := child(task, os.Args[1:]); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		fmt.Println("done")
		_, _ = io.Copy(io.Discard, os.Stdin) // until killed
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(task string, args []string) error {
	ctx := context.Background()
	db, err := open(ctx, args[0])
	if err != nil {
		return err
	}
	switch task {
	case "burn":
		c, err := id.ParseChallengeID(args[1])
		if err != nil {
			return err
		}
		return db.BurnChallenge(ctx, c, time.Now())
	case "issue":
		c, m, err := parseIssue(args[1:])
		if err != nil {
			return err
		}
		return db.IssueChallenge(ctx, c, m, storetest.Limit())
	case "claim":
		m, err := id.ParseMessageID(args[1])
		if err != nil {
			return err
		}
		if _, err := db.Recover(ctx, time.Now()); err != nil {
			return err
		}
		return db.Record(ctx, modem.Event{ID: m, State: modem.Sending, Bay: "bay1", At: time.Now()})
	case "many": // until killed in the middle of a write
		for n := 0; ; n++ {
			c, m, err := freshIssue()
			if err != nil {
				return err
			}
			if err := db.IssueChallenge(ctx, c, m, storetest.Limit()); err != nil {
				return err
			}
			fmt.Println(c.ID, c.Flow, c.Subject, m.ID)
		}
	case "submit":
		return submitAsChild(ctx, db, args[1], args[2])
	default:
		return fmt.Errorf("no such task %q", task)
	}
}

// freshIssue draws new identifiers.
func freshIssue() (otpvault.Challenge, otpvault.Message, error) {
	f, ferr := id.NewFlowID(rand.Reader)
	s, serr := id.NewSubject(rand.Reader)
	c, cerr := id.NewChallengeID(rand.Reader)
	m, merr := id.NewMessageID(rand.Reader)
	if err := errors.Join(ferr, serr, cerr, merr); err != nil {
		return otpvault.Challenge{}, otpvault.Message{}, err
	}
	return parseIssue([]string{c.String(), f.String(), s.String(), m.String()})
}

// parseIssue builds a challenge from the texts of its identifiers.
func parseIssue(args []string) (c otpvault.Challenge, m otpvault.Message, err error) {
	for i, into := range []interface{ UnmarshalText([]byte) error }{&c.ID, &c.Flow, &c.Subject, &m.ID} {
		if err := into.UnmarshalText([]byte(args[i])); err != nil {
			return c, m, err
		}
	}
	if m.To, err = id.ParsePhone("+393401234567"); err != nil {
		return c, m, err
	}
	c.Message, c.Created, c.Left, c.MAC = m.ID, time.Now(), 3, []byte("0123456789abcdef")
	c.Expires = c.Created.Add(5 * time.Minute)
	m.Created, m.Expires, m.Wrapped = c.Created, c.Expires, []byte{1, 2, 3}
	return c, m, nil
}

// killed runs task until it says enough lines, kills it and returns the lines.
func killed(t *testing.T, enough int, task string, args ...string) []string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Env = append(os.Environ(), childVariable+"="+task)
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for s := bufio.NewScanner(out); s.Scan(); {
		lines = append(lines, s.Text())
		if strings.HasPrefix(s.Text(), "failed") {
			t.Fatal(s.Text())
		}
		if len(lines) == enough {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the child ended by itself: %v", err)
	}
	return lines
}

func TestKilledAfterBurn(t *testing.T) {
	path := migrated(t)
	db := mustOpen(t, path)
	c, m, err := freshIssue()
	if err != nil {
		t.Fatal(err)
	}
	if err := db.IssueChallenge(t.Context(), c, m, storetest.Limit()); err != nil {
		t.Fatal(err)
	}
	// The child is alone with the file, so that nobody but the killed process can
	// have checkpointed its WAL.
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	killed(t, 1, "burn", path, c.ID.String())
	requireWAL(t, path)
	db = mustOpen(t, path)
	_, err = db.TakeAttempt(t.Context(), c.ID, c.Flow, c.Subject, time.Now())
	wantKind(t, "attempt after a killed burn", err, fault.Conflict)
	wantKind(t, "burn after a killed burn", db.BurnChallenge(t.Context(), c.ID, time.Now()), fault.Conflict)
}

func TestKilledAfterIssue(t *testing.T) {
	path := migrated(t)
	c, m, err := freshIssue()
	if err != nil {
		t.Fatal(err)
	}
	killed(t, 1, "issue", path, c.ID.String(), c.Flow.String(), c.Subject.String(), m.ID.String())
	requireWAL(t, path)
	db := mustOpen(t, path)
	queued, err := db.Queued(t.Context(), 10)
	if err != nil || len(queued) != 1 || queued[0].ID != m.ID {
		t.Errorf("queued %v, %v", queued, err)
	}
	if _, err := db.TakeAttempt(t.Context(), c.ID, c.Flow, c.Subject, time.Now()); err != nil {
		t.Error(err)
	}
}

// TestKilledWhileIssuing kills a child in the middle of its work: all it told of
// is there, challenge and message always together.
func TestKilledWhileIssuing(t *testing.T) {
	path := migrated(t)
	lines := killed(t, 200, "many", path)
	requireWAL(t, path)
	db := mustOpen(t, path)
	queued, err := db.Queued(t.Context(), 100_000)
	if err != nil {
		t.Fatal(err)
	}
	messages := map[string]bool{}
	for _, m := range queued {
		messages[m.ID.String()] = true
	}
	if len(lines) < 200 || len(queued) < 200 {
		t.Fatalf("%d told, %d queued", len(lines), len(queued))
	}
	// The last line may be cut by the kill.
	for _, line := range lines[:len(lines)-1] {
		c, m, err := parseIssue(strings.Fields(line))
		if err != nil {
			t.Fatal(err)
		}
		if !messages[m.ID.String()] {
			t.Errorf("message %s was told and is lost", m.ID)
		}
		if _, err := db.TakeAttempt(t.Context(), c.ID, c.Flow, c.Subject, time.Now()); err != nil {
			t.Errorf("challenge %s was told and is lost: %v", c.ID, err)
		}
	}
	copied := filepath.Join(t.TempDir(), "copy.db")
	if err := db.Backup(t.Context(), copied); err != nil {
		t.Error(err)
	}
}

// requireWAL checks that the killed child left its work in the WAL: else the test
// would not show what it is meant to show.
func requireWAL(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path + "-wal")
	if err != nil || info.Size() == 0 {
		t.Fatalf("no WAL left behind: %v", err)
	}
}

func BenchmarkIssueTakeBurn(b *testing.B) {
	db := mustOpen(b, migrated(b))
	for b.Loop() {
		c, m, err := freshIssue()
		if err != nil {
			b.Fatal(err)
		}
		if err := db.IssueChallenge(b.Context(), c, m, storetest.Limit()); err != nil {
			b.Fatal(err)
		}
		if _, err := db.TakeAttempt(b.Context(), c.ID, c.Flow, c.Subject, time.Now()); err != nil {
			b.Fatal(err)
		}
		if err := db.BurnChallenge(b.Context(), c.ID, time.Now()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFlowSave(b *testing.B) {
	db := mustOpen(b, migrated(b))
	f := storetest.NewFlow(b, time.Now())
	if err := db.CreateFlow(b.Context(), f); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := db.SaveFlow(b.Context(), f); err != nil {
			b.Fatal(err)
		}
		f.Version++
	}
}

func BenchmarkFlowRead(b *testing.B) {
	db := mustOpen(b, migrated(b))
	f := storetest.NewFlow(b, time.Now())
	if err := db.CreateFlow(b.Context(), f); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := db.Flow(b.Context(), f.ID); err != nil {
			b.Fatal(err)
		}
	}
}
