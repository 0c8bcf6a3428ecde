package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"custode/hsm"
	"custode/hsm/pkcs11"
	"custode/hsm/pkcs11/ceremony"
	"custode/internal/config"
	"custode/internal/fault"
	"custode/otpvault"
)

// load reads both configuration files.
func (c *cli) load() (*config.Machine, *config.Policy, error) {
	machine, err := config.Load[config.Machine](c.Machine)
	if err != nil {
		return nil, nil, err
	}
	policy, err := config.Load[config.Policy](c.Policy)
	if err != nil {
		return nil, nil, err
	}
	return machine, policy, agree(machine, policy)
}

// leastHashWork is the least memory_kib times iterations of a real password
// hash: a little under the weakest commonly recommended Argon2id setting (7 MiB, 5 passes).
const leastHashWork = 35_000

// agree finds what internal/config cannot: what the two files contradict, and
// values whose rules belong to the packages that use them.
func agree(machine *config.Machine, policy *config.Policy) error {
	if strings.HasPrefix(policy.PublicURL, "http:") && !machine.InsecureHTTPForDevelopment {
		return fault.Newf(fault.Invalid, "compare the configuration files", "public_url: http is for insecure_http_for_development only")
	}
	if p := policy.Passwords; !machine.InsecureHTTPForDevelopment && p.MemoryKiB*p.Iterations < leastHashWork {
		return fault.Newf(fault.Invalid, "compare the configuration files",
			"passwords: memory_kib times iterations under %d is for insecure_http_for_development only", leastHashWork)
	}
	if _, err := pkcs11.ParseLocation(machine.HSM.URI); err != nil {
		return err
	}
	if s := machine.HSM.Standby; s.URI != "" {
		if _, err := pkcs11.ParseLocation(s.URI); err != nil {
			return fault.Newf(fault.Invalid, "compare the configuration files", "hsm.standby.uri: %w", err)
		}
	}
	if !machine.InsecureHTTPForDevelopment && len(policy.CertifiedLog.TimeStamps) == 0 {
		return fault.Newf(fault.Invalid, "compare the configuration files", "certified_log.time_stamps: none is for insecure_http_for_development only")
	}
	if len(policy.CertifiedLog.TimeStamps) > 0 && machine.CertifiedLog.TSACertificates == "" {
		return fault.Newf(fault.Invalid, "compare the configuration files", "certified_log.tsa_certificates: required with certified_log.time_stamps")
	}
	for _, tolerated := range [][]string{machine.HSM.Tolerate, machine.HSM.Standby.Tolerate} {
		if _, err := hsm.ParseLacks(tolerated); err != nil {
			return err
		}
	}
	if _, err := readProfiles(machine.ModemProfiles); err != nil {
		return err
	}
	return otpvault.CheckText(policy.Codes.Text, policy.Codes.Lifetime)
}

func newLog(w io.Writer, l config.Log) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		level = slog.LevelInfo // config.Validate refused everything unknown
	}
	options := &slog.HandlerOptions{Level: level}
	if l.Format == "text" {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

type checkCmd struct{}

// Run checks the configuration files.
func (checkCmd) Run(c *cli) error {
	machine, policy, err := c.load()
	if err != nil {
		return err
	}
	fmt.Printf("ok: %s on %s, %d modem(s)\n", policy.EntityID, machine.Listen, len(machine.Modems))
	return nil
}

type ceremonyCmd struct {
	Run ceremonyRunCmd `cmd:"" help:"Make the keys of a reviewed plan in the token."`
}

type ceremonyRunCmd struct {
	Plan string `arg:"" type:"existingfile" help:"The reviewed plan (YAML)."`
	Out  string `type:"path" help:"Folder for the certificate and the report, made if missing; default: the plan's folder."`
	URI  string `help:"PKCS#11 URI of the token; default: hsm.uri of the machine file."`
}

// maxPlan bounds a plan file, in octets; the plan's own parser is stricter.
const maxPlan = 1 << 20

// Run holds a ceremony: one reviewed file in; keys, certificate and report out.
func (r *ceremonyRunCmd) Run(c *cli) error {
	uri := r.URI
	if uri == "" {
		machine, err := config.Load[config.Machine](c.Machine)
		if err != nil {
			return err
		}
		uri = machine.HSM.URI
	}
	f, err := os.Open(r.Plan)
	if err != nil {
		return fault.New(fault.Unavailable, "read ceremony plan", err)
	}
	defer f.Close()
	plan, err := io.ReadAll(io.LimitReader(f, maxPlan))
	if err != nil {
		return fault.New(fault.Unavailable, "read ceremony plan", err)
	}
	if r.Out == "" {
		r.Out = filepath.Dir(r.Plan)
	}
	if err := os.MkdirAll(r.Out, 0o700); err != nil {
		return fault.New(fault.Unavailable, "make output folder", err)
	}
	report, err := ceremony.Run(context.Background(), plan, uri, r.Out, time.Now)
	if err != nil {
		return err
	}
	fmt.Print(report.Text)
	return nil
}
