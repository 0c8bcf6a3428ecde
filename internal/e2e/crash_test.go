package e2e

import (
	"context"
	"math/rand/v2"
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
		eventually(t, "the modem is ready", func() bool {
			bays, err := l.Run(t.Context(), "modem", "list")
			return err == nil && strings.Contains(bays, "ready")
		})
		l.Bank.HangOnSend(0)
		v := arrive(t, l, redirect, spsim.Request{Level: 2})
		v.password(p)
		before := l.Bank.Received(0)
		v.sms()
		// Checks of an idle modem are a few octets; so many are the message, which
		// leaves only after it was recorded that it would.
		eventually(t, "the modem has the message", func() bool { return l.Bank.Received(0) > before+150 })
		l.KillDaemon()
		l.Bank.Unplug(0) // the modem stays away until the new code was asked for
		if err := l.StartDaemon(t.Context()); err != nil {
			t.Fatal(err)
		}
		says := func(text string) func() bool {
			return func() bool {
				v.to(v.b.Get(v.p.URL.String()))
				return strings.Contains(v.p.Text, text)
			}
		}
		eventually(t, "the page tells of the doubt",
			says("il messaggio potrebbe non essere partito. Attendi qualche istante; se non arriva, chiedi un nuovo codice."))
		v.submit("resend", nil)
		if !says("il messaggio è in partenza.")() {
			t.Errorf("after asking for a new code: %s", v.p.Text)
		}
		if err := l.Bank.Plug(0); err != nil {
			t.Fatal(err)
		}
		// The old message has the earlier deadline: were it not cancelled, it would
		// be the first, and its code refused.
		v.code(v.inbox(1))
		v.submit("consent", nil)
		if _, err := v.consume(); err != nil {
			t.Error(err)
		}
		if got := l.Bank.Ledger(); len(got) != 1 || got[0].To != p.Phone || len(l.Bank.Inbox(p.Phone)) != 1 {
			t.Errorf("%d messages were accepted by the network, %d arrived, want the new code only", len(got), len(l.Bank.Inbox(p.Phone)))
		}
	})
}

// eventually polls until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
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

// TestKillAtAnyMoment kills the daemon while it is answering the code page, at
// a random instant: afterwards the code counts either fully or not at all, a
// burned one stays burned, and the subject can always finish with one success.
func TestKillAtAnyMoment(t *testing.T) {
	t.Parallel()
	l := own(t, lab.Config{Policy: map[string]string{"codes.per_subject": "50"}})
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	for round := range 8 {
		p := enrol(t, l)
		v := arrive(t, l, post, spsim.Request{Level: 2})
		v.password(p)
		v.sms()
		code, codePage, url := v.inbox(1), v.p, v.p.URL.String()
		answered := make(chan error, 1)
		go func() {
			_, err := v.b.Submit(codePage, "code", map[string]string{"code": code})
			answered <- err
		}()
		time.Sleep(time.Duration(random.Int64N(int64(6 * time.Millisecond))))
		restart(t, l)
		<-answered // an error when the connection broke
		v.to(v.b.Get(url))
		if v.p.Has("code") { // the kill came before the flow moved on
			v.code(code)
		}
		if v.p.Has("code") { // but after the code was burned
			v.submit("resend", nil)
			v.code(v.inbox(2))
		}
		v.submit("consent", nil)
		if _, err := v.consume(); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
	}
}
