package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"custode/internal/fault"
)

func TestReadSubject(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		mode os.FileMode
		kind fault.Kind
	}{
		"open to others": {"ada pass word\n", 0o640, fault.Fatal},
		"no password":    {"ada\n", 0o600, fault.Invalid},
		"no username":    {" hush\n", 0o600, fault.Invalid},
		"empty":          {"", 0o600, fault.Fatal},
	} {
		path := filepath.Join(t.TempDir(), "subject")
		if err := os.WriteFile(path, []byte(c.text), c.mode); err != nil {
			t.Fatal(err)
		}
		_, err := readSubject(path)
		if !fault.Is(err, c.kind) || strings.Contains(err.Error(), "hush") || strings.Contains(err.Error(), "pass word") {
			t.Errorf("%s: %v", name, err)
		}
	}
	path := filepath.Join(t.TempDir(), "subject")
	if err := os.WriteFile(path, []byte("ada a pass word\nmore\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := readSubject(path); err != nil || s.Username != "ada" || s.Password != "a pass word" {
		t.Errorf("%v", err)
	}
	if s, err := readSubject(""); s != nil || err != nil {
		t.Errorf("no file: %v", err)
	}
}

func TestAuditWants(t *testing.T) {
	a := conformanceRunCmd{Only: []string{"xsw-*", "valid"}}
	for rule, want := range map[string]bool{"xsw-1": true, "valid": true, "valid-full": false, "logout-xsw-1": false} {
		if a.wants(rule) != want {
			t.Errorf("%s: %v", rule, !want)
		}
	}
	if !(&conformanceRunCmd{}).wants("anything") {
		t.Error("without --only a rule is left out")
	}
}
