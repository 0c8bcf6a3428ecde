package simpin

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"custode/internal/fault"
)

func TestSIMPINFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pin")
	write := func(text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	write("1234\r\na comment", 0o400)
	if pin, err := Read(path); err != nil || string(pin) != "1234" {
		t.Errorf("%q, %v", pin, err)
	}
	for name, c := range map[string]struct {
		text string
		mode os.FileMode
	}{"for all": {"1234", 0o644}, "writable by group": {"1234", 0o620}, "empty": {"", 0o600}, "no digits": {"12a4", 0o600}, "long": {strings.Repeat("1", 99), 0o600}} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		write(c.text, c.mode)
		if _, err := Read(path); !fault.Is(err, fault.Fatal) || strings.Contains(err.Error(), "12a4") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Nobody writes into it: opening it plainly would wait for ever.
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(fifo); !fault.Is(err, fault.Fatal) {
		t.Errorf("FIFO: %v", err)
	}
}

func TestNotes(t *testing.T) {
	dir := t.TempDir()
	n := Notes{Dir: dir, Bay: "bay0"}
	for _, card := range []string{"8939010000000000001", "", "../x"} {
		if err := n.Tried("unlock", card); err != nil {
			t.Errorf("%q before: %v", card, err)
		}
		if err := n.Put(card); err != nil {
			t.Fatal(err)
		}
		if err := n.Tried("unlock", card); !fault.Is(err, fault.Fatal) {
			t.Errorf("%q noted: %v", card, err)
		}
		if err := n.Drop(card); err != nil {
			t.Fatal(err)
		}
	}
	if err := (Notes{Dir: filepath.Join(dir, "none")}).Put("1"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("no folder: %v", err)
	}
	var off Notes
	if off.Put("1") != nil || off.Tried("x", "1") != nil || off.Drop("1") != nil {
		t.Error("without a folder nothing is kept")
	}
}
