package port

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"custode/internal/fault"
)

func TestUUCPLock(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "LCK..null")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := uucpLock(dir, "/dev/null")
	if err != nil || got != path {
		t.Fatalf("%q, %v", got, err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != fmt.Sprintf("%10d\n", os.Getpid()) {
		t.Errorf("%q, %v", data, err)
	}
	// Somebody who lives holds it: the parent of this process.
	write(fmt.Sprintf("%10d\n", os.Getppid()))
	if _, err := uucpLock(dir, "/dev/null"); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), fmt.Sprint("process ", os.Getppid())) {
		t.Errorf("held: %v", err)
	}
	// Stale ones are taken over: a process that is gone, ourselves, nonsense, nothing.
	for _, text := range []string{"  99999999\n", fmt.Sprint(os.Getpid()), "minicom", "", "-1"} {
		write(text)
		if got, err := uucpLock(dir, "/dev/null"); err != nil || got != path {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	// No obstacle: no folder, a pseudo-terminal, a device that is not there.
	for _, c := range [][2]string{{filepath.Join(dir, "none"), "/dev/null"}, {dir, "/dev/pts/0"}, {dir, "/dev/not-there"}} {
		if got, err := uucpLock(c[0], c[1]); err != nil || got != "" {
			t.Errorf("%v: %q, %v", c, got, err)
		}
	}
}
