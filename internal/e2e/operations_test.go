package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"custode/simulators/lab"
	"custode/simulators/spsim"
)

// TestSpidPrefix: an identity of another provider's prefix is refused.
func TestSpidPrefix(t *testing.T) {
	l := shared(t)
	p := lab.Demo()
	p.Username, p.Attributes["spidCode"] = "other.prefix", "ZZZZ0000000001"
	if err := l.Enrol(t.Context(), p); err == nil || !strings.Contains(err.Error(), "spid_prefix") {
		t.Errorf("spidCode ZZZZ...: %v", err)
	}
}

// TestCheckConfigFindsWhatServeWould: what passes check-config must not be
// refused by serve for its content.
func TestCheckConfigFindsWhatServeWould(t *testing.T) {
	good, err := os.ReadFile("../../docs/examples/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for old, bad := range map[string]string{"text: \"{code}": "text: \"", "public_url: https://idp.example.it": "public_url: http://localhost"} {
		text := strings.Replace(string(good), old, bad, 1)
		if text == string(good) {
			t.Fatalf("%s: the case changes nothing", old)
		}
		policy := filepath.Join(t.TempDir(), "policy.yaml")
		if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(custode, "--machine", "../../docs/examples/machine.yaml", "--policy", policy, "check-config").CombinedOutput()
		if err == nil || status(t, err) != 65 {
			t.Errorf("%s: %v %s", old, err, out)
		}
	}
}

// TestSecondDaemon: a daemon started by mistake beside a working one refuses,
// and does not take the message being sent for one of a dead process.
func TestSecondDaemon(t *testing.T) {
	t.Parallel()
	l := own(t, lab.Config{Modems: 1})
	p := enrol(t, l)
	l.Bank.LateReceipt(0, 3*time.Second)
	v := arrive(t, l, redirect, spsim.Request{Level: 2})
	v.password(p)
	v.sms()
	deadline := time.Now().Add(20 * time.Second)
	for {
		if bays, err := l.Run(t.Context(), "modem", "list", "--json"); err == nil && strings.Contains(bays, `"sending"`) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no bay took the message")
		}
	}
	for _, command := range []string{"serve", "migrate"} {
		_, err := l.Run(t.Context(), command)
		if err == nil || !strings.Contains(err.Error(), "exit status 73") || !strings.Contains(err.Error(), "another custode") {
			t.Errorf("%s beside a running daemon: %v", command, err)
		}
	}
	v.to(v.b.Get(v.p.URL.String()))
	for _, doubt := range []string{"non sappiamo", "potrebbe", "Non siamo sicuri"} {
		if strings.Contains(v.p.Text, doubt) {
			t.Errorf("the message came into doubt: %s", v.p.Text)
		}
	}
	v.code(v.inbox(1))
	v.submit("consent", nil)
	if _, err := v.consume(); err != nil {
		t.Error(err)
	}
}
