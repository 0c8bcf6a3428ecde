package hsmsim

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestTokenComesAndGoes(t *testing.T) {
	s, err := New(filepath.Join(t.TempDir(), "sim"))
	if err != nil {
		t.Fatal(err)
	}
	first := s.Serial
	if !strings.Contains(s.URI(), "serial="+first) || strings.Contains(s.URI(), "pin-value") {
		t.Errorf("URI %s", s.URI())
	}
	listed := func() string {
		t.Helper()
		cmd := exec.Command("softhsm2-util", "--show-slots")
		cmd.Env = append(os.Environ(), s.Env()...)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return serialOf(string(out), Label)
	}
	if got := listed(); got != first {
		t.Errorf("listed serial %q, want %q", got, first)
	}
	if err := s.Remove(); err != nil {
		t.Fatal(err)
	}
	if got := listed(); got != "" {
		t.Errorf("removed token still listed: %q", got)
	}
	if err := s.Restore(); err != nil {
		t.Fatal(err)
	}
	if got := listed(); got != first {
		t.Errorf("restored token: serial %q, want %q", got, first)
	}
	if err := s.Wipe(); err != nil {
		t.Fatal(err)
	}
	if s.Serial == first || s.Serial != listed() {
		t.Errorf("wiped token: serial %q, was %q", s.Serial, first)
	}
	info, err := os.Stat(s.PINFile)
	if err != nil || info.Mode().Perm() != 0o400 {
		t.Errorf("PIN file: %v %v", info, err)
	}
	if _, err := New(s.Dir); err == nil {
		t.Error("a second simulator was made in the same directory")
	}
}
