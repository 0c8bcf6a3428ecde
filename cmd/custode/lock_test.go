package main

import (
	"os"
	"path/filepath"
	"testing"

	"custode/internal/fault"
)

func TestOneOwnerOfTheState(t *testing.T) {
	dir := t.TempDir()
	first, err := lockState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockState(dir); !fault.Is(err, fault.Conflict) {
		t.Errorf("second owner: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	next, err := lockState(dir)
	if err != nil {
		t.Fatalf("after the first: %v", err)
	}
	next.Close()
	if _, err := lockState(filepath.Join(dir, "none")); !fault.Is(err, fault.Fatal) {
		t.Errorf("no folder: %v", err)
	}
}

func TestTLSKeyIsPrivate(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key.pem")
	if err := checkTLSKey(key); !fault.Is(err, fault.Fatal) {
		t.Errorf("missing: %v", err)
	}
	if err := os.WriteFile(key, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, fine := range map[os.FileMode]bool{0o600: true, 0o640: true, 0o644: false, 0o604: false} {
		if err := os.Chmod(key, mode); err != nil {
			t.Fatal(err)
		}
		if err := checkTLSKey(key); (err == nil) != fine {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
	if err := checkTLSKey(""); err != nil {
		t.Error(err)
	}
}
