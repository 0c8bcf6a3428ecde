package e2e

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"custode/simulators/lab"
	"custode/simulators/spsim"
)

// restart kills the daemon as a power cut would and starts it again.
func restart(t *testing.T, l *lab.Lab) {
	t.Helper()
	l.KillDaemon()
	if err := l.StartDaemon(context.Background()); err != nil {
		t.Fatalf("start after kill: %v", err)
	}
}

// TestKillAtEachStep kills the daemon after every step of one login: the flow
// goes on in the same browser as if nothing had happened.
func TestKillAtEachStep(t *testing.T) {
	t.Parallel()
	l := own(t, lab.Config{})
	p := enrol(t, l)
	v := arrive(t, l, post, spsim.Request{Level: 2, RelayState: "kept"})
	reload := func() {
		t.Helper()
		restart(t, l)
		v.to(v.b.Get(v.p.URL.String()))
	}
	reload()
	v.password(p)
	reload()
	v.sms()
	code := v.inbox(1)
	reload()
	v.code(wrong(code))
	reload()
	codePage := v.p
	v.code(code)
	reload()
	if again, err := v.b.Submit(codePage, "code", map[string]string{"code": code}); err != nil || again.Has("SAMLResponse") || again.Has("code") {
		t.Errorf("the burned code did something after the kill: %v", err)
	}
	consent := v.p
	v.submit("consent", nil)
	got, err := v.consume()
	if err != nil || got.RelayState != "kept" {
		t.Fatalf("after five kills: %+v, %v", got, err)
	}
	restart(t, l)
	again, err := v.b.Submit(consent, "consent", nil)
	if err != nil {
		t.Fatal(err)
	}
	ended(t, again)
}

// TestKillWithAcceptedMessage: a message accepted before the kill is sent after
// the restart, or reported as not (or perhaps) sent; it is never forgotten.
func TestKillWithAcceptedMessage(t *testing.T) {
	t.Parallel()
	t.Run("queued", func(t *testing.T) {
		l := own(t, lab.Config{Modems: 1})
		p := enrol(t, l)
		l.Bank.Unplug(0)
		v := arrive(t, l, redirect, spsim.Request{Level: 2})
		v.password(p)
		v.sms()
		if !v.p.Has("code") {
			t.Fatalf("the page waits for the radio: %s", v.p.Text)
		}
		l.KillDaemon()
		if err := l.Bank.Plug(0); err != nil {
			t.Fatal(err)
		}
		if err := l.StartDaemon(t.Context()); err != nil {
			t.Fatal(err)
		}
		v.to(v.b.Get(v.p.URL.String()))
		v.code(v.inbox(1))
		v.submit("consent", nil)
		if _, err := v.consume(); err != nil {
			t.Error(err)
		}
	})
	t.Run("in doubt", func(t *testing.T) {
		l := own(t, lab.Config{Modems: 1})
		p := enrol(t, l)
		l.Bank.HangOnSend(0)
		v := arrive(t, l, redirect, spsim.Request{Level: 2})
		v.password(p)
		v.sms()
		// Wait until the message has left for the modem.
		deadline := time.Now().Add(20 * time.Second)
		for {
			if bays, err := l.Run(t.Context(), "modem", "list"); err == nil && strings.Contains(bays, "sending") {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("no bay took the message")
			}
			time.Sleep(50 * time.Millisecond)
		}
		time.Sleep(500 * time.Millisecond)
		l.KillDaemon()
		l.Bank.Unhang(0)
		if err := l.StartDaemon(t.Context()); err != nil {
			t.Fatal(err)
		}
		v.to(v.b.Get(v.p.URL.String()))
		sent := len(l.Bank.Inbox(p.Phone)) > 0
		if !sent && !strings.Contains(v.p.Text, "non sappiamo") && !strings.Contains(v.p.Text, "potrebbe") && !strings.Contains(v.p.Text, "Non siamo sicuri") {
			t.Errorf("neither sent nor reported as uncertain: %s", v.p.Text)
		}
		v.submit("resend", nil)
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		all, err := l.Bank.Wait(ctx, p.Phone, len(l.Bank.Inbox(p.Phone))+1)
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		v.code(codeIn(t, all[len(all)-1]))
		v.submit("consent", nil)
		if _, err := v.consume(); err != nil {
			t.Error(err)
		}
	})
}

// TestModemTrouble: the code arrives although the modem that took it dies, and
// the token's absence is answered with anomaly 3 or a busy page, never with a
// wrong yes.
func TestModemTrouble(t *testing.T) {
	t.Parallel()
	l := own(t, lab.Config{Modems: 2})
	p := enrol(t, l)
	l.Bank.Unplug(0)
	v := arrive(t, l, redirect, spsim.Request{Level: 2})
	v.password(p)
	v.sms()
	v.code(v.inbox(1))
	v.submit("consent", nil)
	if _, err := v.consume(); err != nil {
		t.Fatal(err)
	}
	if err := l.Bank.Plug(0); err != nil {
		t.Fatal(err)
	}
	l.Bank.Unplug(1)
	v = arrive(t, l, redirect, spsim.Request{Level: 2})
	v.password(p)
	v.sms()
	v.code(v.inbox(1))
	v.submit("consent", nil)
	if _, err := v.consume(); err != nil {
		t.Fatal(err)
	}
}

// TestTokenAwayAndBack: without the token no login succeeds and health says so;
// when it is back the same daemon serves again.
func TestTokenAwayAndBack(t *testing.T) {
	t.Parallel()
	l := own(t, lab.Config{})
	p := enrol(t, l)
	if err := l.HSM.Remove(); err != nil {
		t.Fatal(err)
	}
	v := arrive(t, l, redirect, spsim.Request{Level: 1})
	if v.p.Has("password") {
		v.submit("password", map[string]string{"username": p.Username, "password": p.Password})
	}
	if v.arrived() || v.p.Has("consent") || v.p.Status < 500 {
		t.Errorf("without the token: HTTP %d: %s", v.p.Status, v.p.Text)
	}
	if err := l.HSM.Restore(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		if h, err := v.b.Get(l.IdP + "/health"); err == nil && h.Status == 200 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("not healthy 30 s after the token came back")
		}
		time.Sleep(100 * time.Millisecond)
	}
	if _, got := login(t, l, post, 1, p); got.Level != 1 {
		t.Errorf("level %d", got.Level)
	}
}
