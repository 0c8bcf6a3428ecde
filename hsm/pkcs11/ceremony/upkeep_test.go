package ceremony_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"custode/hsm/pkcs11/ceremony"
	"custode/internal/fault"
)

// TestChangePIN: the token takes the new PIN and the old one no more, the PIN file
// has it, and what cannot be a new PIN is refused before the token is touched.
func TestChangePIN(t *testing.T) {
	sim, a := keys(t, plan)
	write := func(text string, mode os.FileMode) string {
		file := filepath.Join(t.TempDir(), "new-pin")
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return file
	}
	old := read(t, sim.PINFile)
	for name, c := range map[string]struct {
		file string
		kind fault.Kind
	}{
		"short":        {write("short\n", 0o600), fault.Invalid},
		"the same":     {write(string(old), 0o600), fault.Invalid},
		"others' eyes": {write("a-long-enough-pin\n", 0o644), fault.Fatal},
		"missing":      {filepath.Join(t.TempDir(), "none"), fault.Fatal},
	} {
		if err := ceremony.ChangePIN(t.Context(), a, c.file); !fault.Is(err, c.kind) || strings.Contains(err.Error(), "a-long-enough-pin") {
			t.Errorf("%s: %v", name, err)
		}
	}
	const pin = "quite-another-pin-1"
	if err := ceremony.ChangePIN(t.Context(), a, write(pin+"\n", 0o600)); err != nil {
		t.Fatal(err)
	}
	if got := read(t, sim.PINFile); string(got) != pin+"\n" {
		t.Error("the PIN file does not have the new PIN")
	}
	if st, err := os.Stat(sim.PINFile); err != nil || st.Mode().Perm() != 0o400 {
		t.Error(st.Mode(), err)
	}
	// The token itself, asked by another tool.
	if seen := objects(t, sim); !strings.Contains(seen, "custode/mac/2026-1") {
		t.Error(seen)
	}
	// A change that a crash interrupted is not begun again blindly.
	if err := os.WriteFile(sim.PINFile+".next", []byte("x"), 0o400); err != nil {
		t.Fatal(err)
	}
	if err := ceremony.ChangePIN(t.Context(), a, write("a-third-long-pin\n", 0o600)); !fault.Is(err, fault.Conflict) {
		t.Errorf("an interrupted change: %v", err)
	}
}

// TestDestroy: all objects of a key go, those of others stay.
func TestDestroy(t *testing.T) {
	sim, a := keys(t, plan)
	if _, err := ceremony.Destroy(t.Context(), a, label(t, "custode/sign/none"), false); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	if _, err := ceremony.Destroy(t.Context(), a, label(t, "custode/sign/2026-1"), true); !fault.Is(err, fault.Denied) {
		t.Errorf("a rehearsal on a real token: %v", err)
	}
	done, err := ceremony.Destroy(t.Context(), a, label(t, "custode/sign/2026-1"), false)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(done.Objects, ", "); got != "private key, public key, certificate" {
		t.Error(got)
	}
	if seen := objects(t, sim); strings.Contains(seen, "custode/sign/2026-1") || !strings.Contains(seen, "custode/mac/2026-1") || !strings.Contains(seen, "custode/wrap/2026-1") {
		t.Errorf("the token holds\n%s", seen)
	}
}
