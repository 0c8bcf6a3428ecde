package e2e

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"custode/simulators/browsersim"
	"custode/simulators/lab"
	"custode/simulators/spsim"
)

const nextKeyPlan = `ceremony: laboratory-2026-2
token:
  label: simulator
keys:
  - label: custode/sign/2026-2
    role: sign
    bits: 2048
    certificate:
      subject:
        common-name: Custode Laboratory
        organization: Custode Laboratory
        organization-identifier: VATIT-00000000000
        uri: https://idp.example.it
        country: IT
        locality: Roma
      validity-days: 365
`

// setKeys writes other signing keys into the lab's policy file.
func setKeys(t *testing.T, l *lab.Lab, sign, also string) {
	t.Helper()
	path := filepath.Join(l.Dir, "policy.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	for i, line := range lines {
		switch {
		case strings.HasPrefix(line, "  sign: "):
			lines[i] = "  sign: " + sign
		case strings.HasPrefix(line, "  also_published: "):
			lines[i] = "  also_published: " + also
		}
	}
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
}

// refresh has the lab's SP read the metadata again.
func refresh(t *testing.T, l *lab.Lab) {
	t.Helper()
	resp, err := http.Get(l.IdP + "/metadata")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	doc, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.SP.SetIdPMetadata(doc); err != nil {
		t.Fatal(err)
	}
}

// TestRollOverUnderLoad changes the signing key while people log in, without a
// restart: an SP that refreshed its metadata in time sees no failed login.
func TestRollOverUnderLoad(t *testing.T) {
	t.Parallel()
	const wait = 4 * time.Second
	l := own(t, lab.Config{Policy: map[string]string{"keys.also_published": "[]", "keys.published_before": wait.String(), "keys.published_after": "2s"}})
	plan := filepath.Join(l.Dir, "next.yaml")
	if err := os.WriteFile(plan, []byte(nextKeyPlan), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := l.Run(t.Context(), args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	refused := func(says string, args ...string) {
		t.Helper()
		if out, err := l.Run(t.Context(), args...); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v: %v %s, want a refusal with %q", args, err, out, says)
		}
	}
	const one, two = "custode/sign/2026-1", "custode/sign/2026-2"
	run("ceremony", "run", plan)

	var good, bad atomic.Int64
	var load sync.WaitGroup
	stop := make(chan struct{})
	for range 3 {
		p := enrol(t, l)
		load.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := l.Login(t.Context(), browsersim.New(nil), spsim.Request{Level: 1}, i%2 == 0, p); err != nil {
					bad.Add(1)
					t.Errorf("a login failed: %v", err)
					return
				}
				good.Add(1)
			}
		})
	}
	defer func() { load.Wait() }()
	defer close(stop)

	setKeys(t, l, one, "["+two+"]")
	if out := run("ceremony", "rollover", "reload"); !strings.Contains(out, "pre-published") {
		t.Error(out)
	}
	published := time.Now()
	refresh(t, l)
	setKeys(t, l, two, "["+one+"]")
	refused("may sign from", "ceremony", "rollover", "reload")
	<-time.After(time.Until(published.Add(wait)))
	run("ceremony", "rollover", "reload")
	before := good.Load()
	if out := run("ceremony", "rollover", "status"); !strings.Contains(out, `"retired"`) || !strings.Contains(out, `"active"`) {
		t.Error(out)
	}
	setKeys(t, l, two, "[]")
	refused("keys.also_published must name it until", "ceremony", "rollover", "reload")
	<-time.After(2 * time.Second)
	if err := syscall.Kill(l.PID(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(run("ceremony", "rollover", "status"), `"withdrawn"`); {
		if time.Now().After(deadline) {
			t.Fatal("SIGHUP took nothing")
		}
		<-time.After(50 * time.Millisecond)
	}
	// From here only the second key's certificate is published: what succeeds now
	// was signed by it.
	refresh(t, l)
	after := good.Load()
	for deadline := time.Now().Add(30 * time.Second); good.Load() < after+6 && bad.Load() == 0; {
		if time.Now().After(deadline) {
			t.Fatal("no logins any more")
		}
		<-time.After(50 * time.Millisecond)
	}
	t.Logf("%d logins before the switch, %d between, %d after the old key left; %d failed", before, after-before, good.Load()-after, bad.Load())
	if before == 0 || after == before {
		t.Error("no logins around the switch")
	}
	// The policy that the daemon was started with named it; what runs does not.
	run("ceremony", "destroy", one)
	refused("policy.yaml names it: keys.sign", "ceremony", "destroy", two)
	// Something else changed as well: only a restart takes it.
	path := filepath.Join(l.Dir, "policy.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), "LABX", "LABY", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	refused("restart the appliance", "ceremony", "rollover", "reload")
}

// TestRollOverTooEarlyAtStart: a start with a key that nobody can know is refused
// with what to do; an approval, written while nothing runs, lets it through and is
// in the security log.
func TestRollOverTooEarlyAtStart(t *testing.T) {
	t.Parallel()
	l := own(t, lab.Config{Policy: map[string]string{"keys.also_published": "[]"}})
	plan := filepath.Join(l.Dir, "next.yaml")
	if err := os.WriteFile(plan, []byte(nextKeyPlan), 0o600); err != nil {
		t.Fatal(err)
	}
	const one, two = "custode/sign/2026-1", "custode/sign/2026-2"
	for _, step := range []func() error{
		func() error { _, err := l.Run(t.Context(), "ceremony", "run", plan); return err },
		l.StopDaemon,
		func() error { setKeys(t, l, one, "["+two+"]"); return l.StartDaemon(t.Context()) },
		l.StopDaemon,
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	setKeys(t, l, two, "["+one+"]")
	if err := l.StartDaemon(t.Context()); err == nil {
		t.Fatal("it started with a key that was not published long enough")
	}
	if _, err := l.Run(t.Context(), "ceremony", "rollover", "approve", two, "--reason", "prova"); err == nil {
		t.Error("approved without --force")
	}
	if _, err := l.Run(t.Context(), "ceremony", "rollover", "approve", two, "--force", "--offline", "--reason", "the key is known to others"); err != nil {
		t.Fatal(err)
	}
	if err := l.StartDaemon(t.Context()); err != nil {
		t.Fatal(err)
	}
	refresh(t, l)
	if _, err := l.Login(t.Context(), browsersim.New(nil), spsim.Request{Level: 1}, true, enrol(t, l)); err != nil {
		t.Error(err)
	}
	if _, err := l.Run(t.Context(), "log", "seal", "--log", "security"); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(l.Dir, "security.jsonl")
	if _, err := l.Run(t.Context(), "log", "export", "--plain", "--log", "security", out); err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ceremony-approve-early", "the key is known to others", two + " is active", one + " is retired"} {
		if !strings.Contains(string(kept), want) {
			t.Errorf("the security log lacks %q", want)
		}
	}
}
