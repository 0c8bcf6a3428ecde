package modem

import (
	"slices"
	"strings"
	"testing"
	"time"

	"custode/modem/profile"
	"custode/simulators/modemsim"
	"custode/simulators/modemsim/dialect"
)

// TestEveryProfileOnTheWire: each simulated make is recognised, initialised and sends
// a message over a real pseudo-terminal, and no profile of ours is without a make.
func TestEveryProfileOnTheWire(t *testing.T) {
	set, err := profile.Parse("test", nil)
	if err != nil {
		t.Fatal(err)
	}
	names := dialect.Names()
	slow := fast
	slow.Prompt, slow.Receipt, slow.Register = 5*time.Second, 5*time.Second, 100*time.Millisecond
	r, bank := onSim(t, modemsim.Config{Modems: len(names), Profiles: names}, Config{Timing: slow})
	seen := map[string]bool{}
	for i, name := range names {
		s := r.waitBay(t, i, isReady)
		want, _ := dialect.Get(name)
		if got := set.Match(want.Manufacturer, want.Model).Name; s.Profile != got {
			t.Errorf("%s: profile %q, %q matches its names", name, s.Profile, got)
		}
		seen[s.Profile] = true
		m := message(t, phone1, "prova "+name)
		m.OnlyBay = s.Name
		r.journal.put(m, Queued)
		r.pool.Wake()
		r.journal.wait(t, m.ID, Sent, Delivered)
	}
	for _, name := range set.Names() {
		if !seen[name] {
			t.Errorf("no simulated modem uses profile %s", name)
		}
	}
	if n := len(bank.Ledger()); n != len(names) {
		t.Errorf("%d messages for %d modems", n, len(names))
	}
	for i, name := range names {
		for _, c := range bank.Commands(i) {
			if strings.Contains(c, "\n") {
				t.Errorf("%s: %q", name, c)
			}
		}
	}
	if !slices.Contains(set.Names(), "generic") {
		t.Error("no generic profile")
	}
}

// TestProfilesFaults: the odd things each make does, on the wire.
func TestProfilesFaults(t *testing.T) {
	for name, c := range map[string]struct {
		dialect string
		do      func(t *testing.T, r *rig, b *modemsim.Bank)
	}{
		"byte by byte, with chatter": {"huawei", func(_ *testing.T, _ *rig, b *modemsim.Bank) {
			b.Flood(0, []string{"^RSSI: 12", "^BOOT:1,0,0,0,0"}, 20*time.Millisecond)
		}},
		"indications before the prompt and the reference": {"ec25", func(_ *testing.T, _ *rig, b *modemsim.Bank) {
			b.Inject(0, modemsim.BeforePrompt, 3, `+CMTI: "ME",3`, "+CREG: 1")
			b.Inject(0, modemsim.BeforeRef, 3, "+QIND: csq", "+CEREG: 1")
		}},
		"incoming message": {"sim7600", func(t *testing.T, _ *rig, b *modemsim.Bank) {
			if err := b.SendTo(0, phone2, "ciao a voi"); err != nil {
				t.Fatal(err)
			}
		}},
		"storage full":    {"sim800", func(_ *testing.T, _ *rig, b *modemsim.Bank) { b.FillSIM(0) }},
		"reference wraps": {"telit", func(_ *testing.T, _ *rig, b *modemsim.Bank) { b.SetNextRef(0, 255) }},
	} {
		t.Run(name, func(t *testing.T) {
			slow := fast
			slow.Prompt, slow.Receipt = 5*time.Second, 5*time.Second
			r, bank := onSim(t, modemsim.Config{Modems: 1, Profiles: []string{c.dialect}, Chop: true}, Config{Timing: slow})
			ready(t, r, bank)
			c.do(t, r, bank)
			for range 3 {
				m := r.submit(t, phone1, "prova")
				r.journal.wait(t, m.ID, Sent, Delivered)
			}
			if n := len(bank.Ledger()); n != 3 {
				t.Errorf("%d submissions", n)
			}
		})
	}
}
