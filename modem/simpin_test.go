package modem

import (
	"os"
	"path/filepath"
	"testing"

	"custode/simulators/modemsim"
)

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
