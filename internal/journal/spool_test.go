package journal

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSpool: what was noted while no daemon ran comes into the log in order, once;
// after a log that did not take it, or a crash in between, it is still there; half a
// line of a power cut is told and does not stop the rest.
func TestSpool(t *testing.T) {
	dir, log := t.TempDir(), &memory{}
	j := &Journals{cfg: Config{State: dir}, Security: NewSecurity(log, time.Now, quiet)}
	if err := j.TakeSpool(t.Context()); err != nil || len(log.events(t)) != 0 {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	note := func(what string) {
		t.Helper()
		if err := Spool(dir, Event{What: what, Actor: "anna", At: at}); err != nil {
			t.Fatal(err)
		}
	}
	note("ceremony-run")
	note("ceremony-run-done")
	log.set(errors.New("disk full"))
	if err := j.TakeSpool(t.Context()); err == nil {
		t.Fatal("a log that takes nothing was no error")
	}
	log.set(nil)
	note("ceremony-pin") // before the next start
	f, err := os.OpenFile(filepath.Join(dir, spoolFile), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"what":"ceremo`); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := j.TakeSpool(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := j.TakeSpool(t.Context()); err != nil {
		t.Fatal(err)
	}
	var whats []string
	for _, e := range log.events(t) {
		whats = append(whats, e.What)
		if e.What == "ceremony-run" && (!e.At.Equal(at) || e.Actor != "anna") {
			t.Errorf("%+v", e)
		}
	}
	if got := strings.Join(whats, " "); got != "ceremony-run ceremony-run-done ceremony-pin ceremony-unreadable" {
		t.Error(got)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Error(left, err)
	}
}

// TestSpoolIsNoLink: a link in its place is refused.
func TestSpoolIsNoLink(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), filepath.Join(dir, spoolFile)); err != nil {
		t.Fatal(err)
	}
	if err := Spool(dir, Event{What: "x"}); err == nil {
		t.Error("it followed the link")
	}
}

// TestSpoolOfRoot: what root notes, the daemon's user can take.
func TestSpoolOfRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make a file for somebody else")
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if err := Spool(dir, Event{What: "ceremony-run"}); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(dir, spoolFile))
	if err != nil {
		t.Fatal(err)
	}
	if of := st.Sys().(*syscall.Stat_t); of.Uid != 65534 || st.Mode().Perm() != 0o600 {
		t.Errorf("owner %d, mode %v", of.Uid, st.Mode())
	}
}
