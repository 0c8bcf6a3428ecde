package process

import (
	"path/filepath"
	"testing"

	"custode/internal/fault"
)

func TestOneOwnerOfTheState(t *testing.T) {
	dir := t.TempDir()
	first, err := LockState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LockState(dir); !fault.Is(err, fault.Conflict) {
		t.Errorf("second owner: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	next, err := LockState(dir)
	if err != nil {
		t.Fatalf("after the first: %v", err)
	}
	next.Close()
	if _, err := LockState(filepath.Join(dir, "none")); !fault.Is(err, fault.Fatal) {
		t.Errorf("no folder: %v", err)
	}
}
