package modem

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"custode/internal/fault"
	"custode/simulators/modemsim"
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

// TestRefusedPINSurvivesRestart: each start used to spend one of the card's tries.
func TestRefusedPINSurvivesRestart(t *testing.T) {
	bank, err := modemsim.NewBank(modemsim.Config{Modems: 1, Dir: t.TempDir(), SIMPIN: "4321"})
	if err != nil {
		t.Fatal(err)
	}
	defer bank.Close()
	file, notes := filepath.Join(t.TempDir(), "pin"), t.TempDir()
	if err := os.WriteFile(file, []byte("1111\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Timing: fast, AllowSimulated: true, PINNotes: notes, Bays: []BayConfig{{Name: "bay", Device: bank.Device(0), SIMPIN: file}}}
	needsHand := func(s BayStatus) bool { return s.State == NeedsHand }
	for range 3 {
		r := start(t, cfg)
		r.waitBay(t, 0, needsHand)
		r.stop()
	}
	if n := bank.PINTries(0); n != 2 {
		t.Errorf("%d tries left after three starts, want 2", n)
	}
	list, err := os.ReadDir(notes)
	if err != nil || len(list) != 1 {
		t.Fatalf("notes: %v, %v", list, err)
	}
	// An operator corrects the file and removes the note.
	if err := os.WriteFile(file, []byte("4321\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(notes, list[0].Name())); err != nil {
		t.Fatal(err)
	}
	r := start(t, cfg)
	r.waitBay(t, 0, isReady)
	r.stop()
}
