package e2e

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"custode/simulators/lab"
	"custode/simulators/modemsim"
)

// TestWrongSIMPINIsSentOnce: three wrong PINs lock a card; five starts of the daemon
// cost one.
func TestWrongSIMPINIsSentOnce(t *testing.T) {
	l := own(t, lab.Config{Modems: 1, SIMPIN: "9999", Network: modemsim.Config{SIMPIN: "4321"}})
	for n := range 5 {
		if n > 0 {
			if err := l.StopDaemon(); err != nil {
				t.Fatal(err)
			}
			if err := l.StartDaemon(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "the bay waits for an operator", func() bool {
			out, err := l.Run(t.Context(), "modem", "list", "--json")
			return err == nil && strings.Contains(out, `"needs-hand"`)
		})
		if left := l.Bank.PINTries(0); left != 2 {
			t.Fatalf("after %d starts the card has %d tries left, want 2", n+1, left)
		}
	}
}

// TestModemCommands: what an operator does at the pool, against the running daemon.
func TestModemCommands(t *testing.T) {
	l := own(t, lab.Config{Modems: 2})
	run := func(want string, args ...string) string {
		t.Helper()
		out, err := l.Run(t.Context(), append([]string{"modem"}, args...)...)
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("modem %v: %v, without %q:\n%s", args, err, want, out)
		}
		return out
	}
	eventually(t, "both bays are ready", func() bool {
		out, err := l.Run(t.Context(), "modem", "list", "--json")
		return err == nil && strings.Count(out, `"State": "ready"`) == 2
	})
	run("bay-2", "list")
	run(`"Name": "bay-1"`, "show", "bay-1")
	run("code hand-off", "top", "--count", "1")
	run("sent", "test", "bay-2", "+393331234567")
	if s := l.Bank.Ledger(); len(s) != 1 || s[0].Modem != 1 || s[0].To != "+393331234567" {
		t.Errorf("the test went %+v", s)
	}
	run("", "drain", "bay-1")
	run("ready+drained", "list")
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("Avviso riservato.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run("m_", "send", "+393331234568", "--class", "bulk", "--text-file", text)
	run("", "enable", "bay-1")
	run("", "optout", "+393331234569")
	run("m_", "send", "+393331234569", "--class", "bulk", "--text-file", text)
	eventually(t, "the trail tells of both", func() bool {
		out, err := l.Run(t.Context(), "modem", "log")
		return err == nil && strings.Contains(out, "opted out") && strings.Count(out, "bulk") >= 3
	})
	out := run("+3933·····568", "log")
	if strings.Contains(out, "riservato") || strings.Contains(out, "+393331234568") {
		t.Errorf("the log shows the text or a whole number:\n%s", out)
	}
	resp, err := http.Get(l.Metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(page), `custode_modem_sent_total{bay="bay-2"} `) || strings.Contains(string(page), "+39") {
		t.Errorf("metrics: %v\n%s", err, page)
	}
	if n := len(l.Bank.Inbox("+393331234569")); n != 0 {
		t.Errorf("%d bulk messages to a number that opted out", n)
	}
}
