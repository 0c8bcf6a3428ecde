package e2e

import (
	"strings"
	"testing"
	"time"

	"custode/simulators/lab"
	"custode/simulators/spsim"
)

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
		if bays, err := l.Run(t.Context(), "modem", "list"); err == nil && strings.Contains(bays, `"sending"`) {
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
