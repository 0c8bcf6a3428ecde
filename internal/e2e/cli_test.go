package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"custode/simulators/lab"
	"custode/simulators/spsim"
)

// status returns the exit status of a failed subcommand.
func status(t *testing.T, err error) int {
	t.Helper()
	var e *exec.ExitError
	if !errors.As(err, &e) {
		t.Fatalf("want an exit status, got %v", err)
	}
	return e.ExitCode()
}

func TestVersionAndExamples(t *testing.T) {
	out, err := exec.Command(custode, "version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "custode ") {
		t.Errorf("version: %q, %v", out, err)
	}
	examples := filepath.Join("..", "..", "docs", "examples")
	out, err = exec.Command(custode, "--machine", filepath.Join(examples, "machine.yaml"), "--policy", filepath.Join(examples, "policy.yaml"), "check-config").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "ok: ") {
		t.Errorf("check-config on the examples: %q, %v", out, err)
	}
	out, err = exec.Command(custode, "--machine", filepath.Join(examples, "policy.yaml"), "check-config").CombinedOutput()
	if status(t, err) != 65 || !strings.Contains(string(out), "unknown field") {
		t.Errorf("check-config on the wrong file: %q, %v", out, err)
	}
}

// TestREADMECommandsExist: each make target that README and the operator's
// manual name is in the Makefile, each subcommand in the binary's help.
func TestREADMECommandsExist(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, doc := range []string{"../../README.md", "../../docs/operator.md", "../../docs/ceremony.md"} {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("(?m)(?:`|^)make ([a-z0-9]+)").FindAllStringSubmatch(string(text), -1) {
			found++
			if !regexp.MustCompile(`(?m)^` + m[1] + `:`).Match(makefile) {
				t.Errorf("%s names make %s, which is not in the Makefile", doc, m[1])
			}
		}
		for _, m := range regexp.MustCompile("(?m)(?:`|^    )custode ([a-z-]+)(?: ([a-z-]+))?([^`\n]*)").FindAllStringSubmatch(string(text), -1) {
			found++
			if m[1] == "conformance" && m[2] == "" || strings.HasPrefix(m[2], "-") {
				m[2], m[3] = "run", m[2]+m[3] // the subcommand that may be left out
			}
			args := append(strings.Fields(m[1]+" "+m[2]), "--help")
			if rest := strings.Fields(m[3]); m[2] == "rollover" && len(rest) > 0 {
				args = []string{m[1], m[2], rest[0], "--help"}
			}
			out, err := exec.Command(custode, args...).CombinedOutput()
			if err != nil || strings.Contains(string(out), "unexpected argument") {
				t.Errorf("%s names custode %s %s: %v", doc, m[1], m[2], err)
			}
			for _, flag := range regexp.MustCompile(` --[a-z-]+`).FindAllString(m[3], -1) {
				if !regexp.MustCompile(flag + `[=\s]`).Match(out) {
					t.Errorf("%s gives custode %s %s the flag%s, which it does not have", doc, m[1], m[2], flag)
				}
			}
		}
	}
	if found < 10 {
		t.Errorf("only %d commands found: the patterns are broken", found)
	}
}

func TestIdentityCommands(t *testing.T) {
	l := shared(t)
	p := enrol(t, l)
	show := func() map[string]any {
		t.Helper()
		out, err := l.Run(t.Context(), "identity", "show", p.Username)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out, "argon2") || strings.Contains(out, p.Password) {
			t.Error("show tells about the password")
		}
		var v map[string]any
		if err := json.Unmarshal([]byte(out), &v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	if v := show(); v["state"] != "active" || v["spidCode"] != p.Attributes["spidCode"] {
		t.Errorf("after add: %v", v)
	}
	if err := l.Enrol(t.Context(), p); status(t, err) != 73 {
		t.Errorf("the same identity twice: %v", err)
	}
	weak := p
	weak.Username, weak.Password = "weak.one", "Zq1"
	if err := l.Enrol(t.Context(), weak); status(t, err) != 65 || strings.Contains(err.Error(), weak.Password) {
		t.Errorf("a weak password: %v", err)
	}
	if _, err := l.Run(t.Context(), "identity", "suspend", p.Username, "--reason", "lost phone"); err != nil {
		t.Fatal(err)
	}
	if v := show(); v["state"] != "suspended" || !strings.Contains(toJSON(t, v["history"]), "lost phone") {
		t.Errorf("after suspend: %v", v)
	}
	if _, err := l.Run(t.Context(), "identity", "suspend", p.Username, "--reason", "again"); status(t, err) != 73 {
		t.Errorf("suspended twice: %v", err)
	}
	v := arrive(t, l, redirect, spsim.Request{Level: 1})
	v.password(p)
	v.anomaly(23)
	if _, err := l.Run(t.Context(), "identity", "restore", p.Username, "--reason", "found"); err != nil {
		t.Fatal(err)
	}
	login(t, l, redirect, 1, p)
	if _, err := l.Run(t.Context(), "identity", "show", "nobody"); status(t, err) != 67 {
		t.Errorf("unknown identity: %v", err)
	}
}

func toJSON(t *testing.T, v any) string {
	t.Helper()
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestOperatorsMistakes: each ends with its exit status and changes nothing.
func TestOperatorsMistakes(t *testing.T) {
	t.Parallel()
	l := own(t, lab.Config{})
	p := enrol(t, l)
	// A second ceremony with the same labels.
	out := filepath.Join(t.TempDir(), "again")
	if _, err := l.Run(t.Context(), "ceremony", "run", filepath.Join(l.Dir, "ceremony.yaml"), "--out", out); status(t, err) != 73 {
		t.Errorf("second ceremony: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(out, "*")); err != nil || len(left) != 0 {
		t.Errorf("the refused ceremony left %v, %v", left, err)
	}
	// A second daemon on the same sockets.
	if _, err := l.Run(t.Context(), "serve"); err == nil {
		t.Error("a second daemon started")
	}
	login(t, l, post, 1, p)
	// A wrong PIN is tried once and stops the daemon for good.
	if err := l.StopDaemon(); err != nil {
		t.Fatal(err)
	}
	pin, err := os.ReadFile(l.HSM.PINFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(l.HSM.PINFile, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(l.HSM.PINFile, []byte("000000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Run(t.Context(), "serve"); status(t, err) != 78 || strings.Contains(err.Error(), "000000") {
		t.Errorf("wrong PIN: %v", err)
	}
	if err := os.WriteFile(l.HSM.PINFile, pin, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.StartDaemon(t.Context()); err != nil {
		t.Fatalf("with the right PIN again: %v", err)
	}
	login(t, l, post, 1, p)
}
