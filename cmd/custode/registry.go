package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"io"
	"os"
	"time"

	"custode/authcore/registry"
	"custode/internal/fault"
)

const (
	// registryPeriod is how long a service provider that was taken out of the
	// directory, or a key that was replaced there, is still believed.
	registryPeriod = 5 * time.Minute
	maxPinned      = 1 << 20 // octets of the file of certificates
)

// openRegistry loads the replica of the federation registry.
func (a *appliance) openRegistry() error {
	pinned, err := readCertificates(a.machine.RegistryCertificates)
	if err != nil {
		return err
	}
	if len(pinned) == 0 {
		a.log.Warn("registry: every file signs for itself; whoever writes to the directory is trusted", "directory", a.machine.RegistryDirectory)
	}
	sps, report, err := registry.Load(a.machine.RegistryDirectory, registry.Options{Pinned: pinned})
	if err != nil {
		return err
	}
	a.sps = sps
	a.reportRegistry(report)
	return nil
}

func (a *appliance) reportRegistry(report registry.Report) {
	for _, r := range report.Rejected {
		a.log.Warn("registry: file left out", "file", r.File, "error", r.Err)
	}
	a.log.Info("registry loaded", "service providers", report.Loaded)
}

// refreshRegistry follows the directory.
func (a *appliance) refreshRegistry(ctx context.Context) error {
	tick := time.NewTicker(registryPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			report, err := a.sps.Reload()
			if err != nil {
				a.log.Error("registry not reloaded; the last good one stays", "error", err)
				continue
			}
			a.reportRegistry(report)
		}
	}
}

// readCertificates returns the certificates of a PEM file, none for no file. A
// file without any is an error: it must not mean "trust everybody".
func readCertificates(path string) ([]*x509.Certificate, error) {
	if path == "" {
		return nil, nil
	}
	op := "read registry certificates " + path
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.New(fault.Fatal, op, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxPinned))
	if err != nil {
		return nil, fault.New(fault.Fatal, op, err)
	}
	var certs []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fault.New(fault.Fatal, op, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, fault.Newf(fault.Fatal, op, "no certificate in it")
	}
	return certs, nil
}
