package peers

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The peers must really work on the bank, or the bench would compare with nothing.
func TestPeersSend(t *testing.T) {
	for name, p := range map[string]program{"gammu-smsd": gammuSMSD{}, "smstools": smstools{}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := p.installed(); err != nil {
				t.Fatal(err)
			}
			for _, c := range []Row{
				{Program: name, Config: "tuned", What: idle, Modems: 1, N: 2},
				{Program: name, Config: "tuned", What: throughput, Modems: 2, N: 4},
			} {
				r, err := measure(t.Context(), p, c, t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%+v", r)
				if c.What == idle && (r.P50 <= 0 || r.P95 < r.P50 || r.Max > 30*time.Second) || c.What == throughput && r.PerSecond <= 0 {
					t.Errorf("%+v", r)
				}
			}
		})
	}
}

func TestPrint(t *testing.T) {
	var out bytes.Buffer
	err := Print(&out, []Row{{Program: "a", What: idle, P50: time.Second}, {Program: "b", What: throughput, PerSecond: 1.5}})
	if err != nil || !strings.Contains(out.String(), "1s") || !strings.Contains(out.String(), "1.50") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestUnknownProgram(t *testing.T) {
	if _, err := Run(t.Context(), Options{Programs: []string{"kannel"}}); err == nil {
		t.Error("accepted")
	}
}
