package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"custode/simulators/hsmsim"
)

// benchPlan makes one key of each role that the suites use.
const benchPlan = `ceremony: bench
token:
  label: ` + hsmsim.Label + `
keys:
  - label: custode/sign/2026-1
    role: sign
    bits: 2048
    certificate:
      validity-days: 1
      subject:
        common-name: Bench
        organization: Bench
        organization-identifier: VATIT-00000000000
        uri: https://bench.example
        country: IT
        locality: Roma
  - label: custode/seed/2026-1
    role: seed
    bits: 256
  - label: custode/records/2026-1
    role: wrap
    bits: 256
  - label: custode/bind/2026-1
    role: mac
    bits: 256
`

// benchHSM measures the token by way of the product and by its module's bare calls, in turns.
func benchHSM(ctx context.Context, custode string, quick bool, f figures) error {
	args := []string{"--suite", "hsm"}
	if quick {
		args = append(args, "--rounds", "12", "--burst", "50ms")
	}
	return hsmBench(ctx, custode, f, args)
}

// benchOTP verifies codes with 1,000 devices (the reference) and with 1,000,000.
func benchOTP(ctx context.Context, custode string, quick bool, f figures) error {
	args := []string{"--suite", "otp"}
	if quick {
		args = append(args, "--devices", "20000", "--codes", "800")
	}
	return hsmBench(ctx, custode, f, args)
}

func hsmBench(ctx context.Context, custode string, f figures, args []string) (err error) {
	if err := os.MkdirAll("bench", 0o755); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("bench", "hsm")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	sim, err := hsmsim.New(filepath.Join(dir, "token"))
	if err != nil {
		return err
	}
	plan := filepath.Join(dir, "plan.yaml")
	if err := os.WriteFile(plan, []byte(benchPlan), 0o600); err != nil {
		return err
	}
	run := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, custode, args...)
		cmd.Env = append(os.Environ(), sim.Env()...)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("custode %s: %w", args[0], err)
		}
		return out, nil
	}
	if _, err := run("ceremony", "run", plan, "--uri", sim.URI(), "--out", filepath.Join(dir, "report")); err != nil {
		return err
	}
	folder, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	out, err := run(append([]string{"hsm", "bench", "--uri", sim.URI(), "--dir", folder}, args...)...)
	if err != nil {
		return err
	}
	var lines []struct {
		Measure, Unit string
		Ours, Ref     float64
	}
	if err := json.Unmarshal(out, &lines); err != nil {
		return fmt.Errorf("custode hsm bench: %w", err)
	}
	for _, l := range lines {
		f.print(l.Measure, l.Ours, l.Unit, l.Ref)
	}
	return nil
}
