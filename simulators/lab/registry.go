package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"custode/simulators/registrysim"
)

// Federation has the appliance follow a simulated federation registry, in which
// the demo service provider is one of many, instead of a directory.
type Federation struct {
	Entities int // synthetic service providers; 0: 40 000
	PageSize int // 0: one document
}

// RegistryStatus is what the lab reads of `custode registry status`.
type RegistryStatus struct {
	Usable      bool       `json:"usable"`
	Trouble     string     `json:"trouble"`
	LastError   string     `json:"lastError"`
	LastTook    string     `json:"lastTook"`
	LastSuccess *time.Time `json:"lastSuccess"`
	Attempts    int        `json:"attempts"`
	Refreshing  bool       `json:"refreshing"`
	Inspected   bool       `json:"inspected"`
	Entities    int        `json:"entities"`
	Live        int        `json:"live"`
	Disabled    int        `json:"disabled"`
	Deleted     int        `json:"deleted"`
	Broken      int        `json:"broken"`
	Memory      struct {
		Index, Copy, Heap int64
		Cached            int
	} `json:"memory"`
}

func (l *Lab) startRegistry(context.Context) error {
	if l.cfg.Federation == nil {
		return nil
	}
	sim, err := registrysim.New(registrysim.Config{Entities: l.cfg.Federation.Entities, Seed: 1})
	if err != nil {
		return err
	}
	demo, err := registrysim.Canonical(l.SP.Metadata())
	if err != nil {
		return err
	}
	sim.Publish(func(e *registrysim.Edition) { e.Extra = append(e.Extra, demo) })
	if err := os.WriteFile(l.registryCertificate(), sim.CertificatePEM(), 0o600); err != nil {
		return err
	}
	l.Registry = sim
	l.registryURL, err = l.serve("", sim.Handler())
	return err
}

func (l *Lab) registryCertificate() string { return filepath.Join(l.Dir, "registry.pem") }

// registryLines is the machine file's part about the registry.
func (l *Lab) registryLines() string {
	if l.Registry == nil {
		return fmt.Sprintf("registry_directory: %s\n", filepath.Join(l.Dir, "registry"))
	}
	return fmt.Sprintf("registry_certificates: %s\nregistry:\n  aggregate: %s/entities?entity_type=SP\n  page_size: %d\n  listing: %s/entities-sp?output=json\n",
		l.registryCertificate(), l.registryURL, l.cfg.Federation.PageSize, l.registryURL)
}

// RegistryStatus asks the daemon.
func (l *Lab) RegistryStatus(ctx context.Context) (st RegistryStatus, err error) {
	out, err := l.Run(ctx, "registry", "status")
	if err != nil {
		return st, err
	}
	return st, json.Unmarshal([]byte(out), &st)
}

// awaitRegistry waits for the first import.
func (l *Lab) awaitRegistry(ctx context.Context) error {
	if l.Registry == nil {
		return nil
	}
	deadline := time.Now().Add(5 * time.Minute)
	for time.Now().Before(deadline) {
		st, err := l.RegistryStatus(ctx)
		if err != nil || st.Usable {
			return err
		}
		if st.LastError != "" {
			return errors.New("first import: " + st.LastError)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.New("the first import did not end within 5 minutes")
}
