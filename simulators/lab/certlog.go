package lab

import (
	"context"
	"fmt"
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
