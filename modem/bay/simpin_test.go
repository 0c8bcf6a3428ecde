package bay

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
	if pin, err := readSIMPIN(path); err != nil || string(pin) != "1234" {
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
		if _, err := readSIMPIN(path); !fault.Is(err, fault.Fatal) || strings.Contains(err.Error(), "12a4") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Nobody writes into it: opening it plainly would wait for ever.
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readSIMPIN(fifo); !fault.Is(err, fault.Fatal) {
		t.Errorf("FIFO: %v", err)
	}
}
