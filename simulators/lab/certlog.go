package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"custode/simulators/tsasim"
)

// startTSA starts the time-stamping authorities: two, so that one can fail.
func (l *Lab) startTSA(context.Context) error {
	for range 2 {
		t, err := tsasim.Start()
		if err != nil {
			return err
		}
		l.TSA = append(l.TSA, t)
	}
	return nil
}

// LogDir holds a folder for each certified log.
func (l *Lab) LogDir() string { return filepath.Join(l.Dir, "log") }

// WitnessDir gets copies of the checkpoints.
func (l *Lab) WitnessDir() string { return filepath.Join(l.Dir, "witness") }

// TSACertificates is the PEM file of the authorities' roots.
func (l *Lab) TSACertificates() string { return filepath.Join(l.Dir, "tsa.pem") }

// SealCertificate is the PEM file of the seal's certificate, which the ceremony wrote.
func (l *Lab) SealCertificate() string {
	return filepath.Join(l.Dir, "ceremony", "custode_seal_2026-1.crt.pem")
}

func (l *Lab) tsaPEM() []byte {
	var out []byte
	for _, t := range l.TSA {
		out = append(out, t.RootPEM()...)
	}
	return out
}

// timeStamps is the value of certified_log.time_stamps in YAML's flow style.
func (l *Lab) timeStamps() string {
	var all []string
	for _, t := range l.TSA {
		all = append(all, fmt.Sprintf("{url: %q, policy: %q}", t.URL, tsasim.Policy.String()))
	}
	return "[" + strings.Join(all, ", ") + "]"
}

// Restart ends the daemon, lets edit change its files, and starts it again. edit gets the
// text of the machine file and of the policy file and returns them.
func (l *Lab) Restart(ctx context.Context, edit func(machine, policy string) (string, string)) error {
	if err := l.StopDaemon(); err != nil {
		return err
	}
	machine, err := os.ReadFile(l.machine)
	if err != nil {
		return err
	}
	policy, err := os.ReadFile(l.policy)
	if err != nil {
		return err
	}
	m, p := edit(string(machine), string(policy))
	if err := os.WriteFile(l.machine, []byte(m), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(l.policy, []byte(p), 0o600); err != nil {
		return err
	}
	return l.StartDaemon(ctx)
}

// Binary is the path of the custode binary.
func (l *Lab) Binary() string { return l.cfg.Custode }
