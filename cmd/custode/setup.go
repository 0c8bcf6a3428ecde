package main

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"custode/hsm"
	"custode/hsm/pkcs11"
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
	if k := policy.Keys; !machine.InsecureHTTPForDevelopment && min(k.PublishedBefore, k.PublishedAfter) < 24*time.Hour {
		return fault.Newf(fault.Invalid, "compare the configuration files", "keys.published_before, published_after: under 24h is for insecure_http_for_development only")
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
