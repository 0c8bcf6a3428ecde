package modemsim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// gammu runs the real thing on modem i and returns what it printed.
func gammu(t *testing.T, b *Bank, i int, stdin string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("gammu")
	if err != nil {
		t.Fatal("gammu is missing: install the Debian package gammu (make deps)")
	}
	rc := filepath.Join(t.TempDir(), "gammurc")
	conf := fmt.Sprintf("[gammu]\ndevice = %s\nconnection = at115200\nsynchronizetime = no\nlogfile = %s.log\nlogformat = textalldate\n", b.Device(i), rc)
	if err := os.WriteFile(rc, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, append([]string{"-c", rc}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		log, e := os.ReadFile(rc + ".log")
		t.Fatalf("gammu %v: %v\n%s\n%s", args, err, out, errors.Join(errors.New(tail(string(log))), e))
	}
	return string(out)
}

func tail(s string) string { return s[max(0, len(s)-6000):] }

// together runs a subtest per modem at the same time, however few processors there
// are: gammu sleeps most of its time.
func together(t *testing.T, names []string, f func(t *testing.T, i int)) {
	var all sync.WaitGroup
	defer all.Wait()
	for i, name := range names {
		all.Go(func() { t.Run(name, func(t *testing.T) { f(t, i) }) })
	}
}

// gammuProfiles are makes gammu knows in the field.
var gammuProfiles = []string{"generic", "sim800", "sim7600", "ec25", "huawei", "wavecom", "zte", "m66", "telit"}

func TestGammuIdentify(t *testing.T) {
	b := bank(t, Config{Modems: len(gammuProfiles), Profiles: gammuProfiles, Pace: 0.001})
	together(t, gammuProfiles, func(t *testing.T, i int) {
		out := gammu(t, b, i, "", "identify")
		p := b.Profile(i)
		for _, want := range []string{b.IMEI(i), b.IMSI(i)} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in\n%s", want, out)
			}
		}
		if !strings.Contains(strings.ToLower(out), strings.ToLower(strings.Fields(p.Manufacturer)[0][:3])) {
			t.Errorf("no manufacturer in\n%s", out)
		}
	})
}

func TestGammuSends(t *testing.T) {
	names := []string{"generic", "sim800", "ec25", "huawei", "wavecom"}
	b := bank(t, Config{Modems: len(names), Profiles: names, Pace: 0.001, Latency: Delay{Median: 20 * time.Millisecond}})
	long := strings.Repeat("Comune di Prova: messaggio lungo. ", 12)
	texts := []struct {
		kind, text string
		parts      int
		options    []string
	}{
		{"plain", "Il codice e' 493817", 1, nil},
		{"wide", "Код 493817 così", 1, []string{"-unicode"}},
		{"long", long, 3, []string{"-len", "1000"}},
	}
	together(t, names, func(t *testing.T, i int) {
		for k, v := range texts {
			to := fmt.Sprintf("+3934012345%d%d", i, k)
			out := gammu(t, b, i, v.text, append([]string{"sendsms", "TEXT", to}, v.options...)...)
			in := b.Inbox(to)
			if len(in) != 1 || strings.TrimSpace(in[0].Text) != strings.TrimSpace(v.text) {
				t.Fatalf("%s: inbox %q\n%s", v.kind, in, out)
			}
			var got []string
			for _, s := range b.Ledger() {
				if s.To == to {
					got = append(got, s.Text)
					if s.Modem != i || !s.Told || s.IMSI != b.IMSI(i) || v.parts > 1 && (s.Parts != v.parts || s.Part != len(got)) {
						t.Errorf("%s: ledger %+v", v.kind, s)
					}
				}
			}
			if d := cmp.Diff(in[0].Text, strings.Join(got, "")); d != "" || len(got) != v.parts {
				t.Errorf("%s: %d parts %s", v.kind, len(got), d)
			}
		}
	})
}

func TestGammuReads(t *testing.T) {
	names := []string{"generic", "huawei", "sim800"}
	b := bank(t, Config{Modems: len(names), Profiles: names, Pace: 0.001})
	together(t, names, func(t *testing.T, i int) {
		if err := b.SendTo(i, "+393331234567", "STOP grazie"); err != nil {
			t.Fatal(err)
		}
		if err := b.SendTo(i, "+393337654321", "così: Привет"); err != nil {
			t.Fatal(err)
		}
		out := gammu(t, b, i, "", "getallsms")
		for _, want := range []string{"STOP grazie", "+393331234567", "Привет", "+393337654321"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in\n%s", want, out)
			}
		}
	})
}
