package config

import (
	"path/filepath"
	"strings"
	"time"
)

// Registry says where the federation registry is. With Aggregate empty the
// service providers come from registry_directory.
type Registry struct {
	Aggregate string `yaml:"aggregate"` // URL, or absolute path of a file, of the signed aggregate
	PageSize  int    `yaml:"page_size"` // entities a page; 0: the URL is one document
	Listing   string `yaml:"listing"`   // URL or path of the JSON listing; empty: none
	MaxMiB    int    `yaml:"max_mib"`   // of the aggregate; 0: 1024
}

// RegistryPolicy decides how the replica of the federation registry is kept.
type RegistryPolicy struct {
	Interval         time.Duration `yaml:"interval"`           // between refreshes; 0: 1h
	Timeout          time.Duration `yaml:"timeout"`            // of one refresh; 0: 15m
	MaxShrinkPercent int           `yaml:"max_shrink_percent"` // 0: 25, 100: any
	MaxAge           time.Duration `yaml:"max_age"`            // without a success before the alarm; 0: 72h
	StopAge          time.Duration `yaml:"stop_age"`           // without a success before logins stop (anomaly 2); 0: never
}

// Remote reports whether the registry is asked over the network.
func (r *Registry) Remote() bool { return !filepath.IsAbs(r.Aggregate) }

func (m *Machine) validateRegistry(p *problems) {
	r := &m.Registry
	if r.Aggregate == "" {
		p.check(filepath.IsAbs(m.RegistryDirectory), "registry_directory: must be an absolute path")
		p.check(r.Listing == "" && r.PageSize == 0, "registry: listing and page_size need aggregate")
		return
	}
	p.check(m.RegistryDirectory == "", "registry_directory: contradicts registry.aggregate")
	p.check(m.RegistryCertificates != "", "registry_certificates: required with registry.aggregate")
	for key, location := range map[string]string{"aggregate": r.Aggregate, "listing": r.Listing} {
		switch {
		case location == "":
		case strings.Contains(location, "://"):
			_, ok := webURL(location)
			p.check(ok && r.Remote(), "registry."+key+": must be an https URL (http for a loopback host only), and so must be the other")
		default:
			p.check(filepath.IsAbs(location) && !r.Remote(), "registry."+key+": must be a URL or an absolute path, and so must be the other")
		}
	}
	p.check(r.PageSize >= 0 && r.PageSize <= 5000 && (r.PageSize == 0 || r.Remote()), "registry.page_size: 0 to 5000, for a URL only")
	setDefault(&r.MaxMiB, 1024)
	p.check(r.MaxMiB >= 1 && r.MaxMiB <= 16<<10, "registry.max_mib: 1 to 16384")
}

func (r *RegistryPolicy) validate(p *problems) {
	setDefault(&r.Interval, time.Hour)
	setDefault(&r.Timeout, 15*time.Minute)
	setDefault(&r.MaxShrinkPercent, 25)
	setDefault(&r.MaxAge, 72*time.Hour)
	p.check(within(r.Interval, time.Second, 10*24*time.Hour), "registry.interval: 1s to 240h")
	p.check(within(r.Timeout, time.Second, 12*time.Hour), "registry.timeout: 1s to 12h")
	p.check(r.MaxShrinkPercent >= 1 && r.MaxShrinkPercent <= 100, "registry.max_shrink_percent: 1 to 100")
	p.check(r.MaxAge >= r.Interval, "registry.max_age: at least registry.interval")
	p.check(r.StopAge == 0 || r.StopAge >= r.MaxAge, "registry.stop_age: 0 or at least registry.max_age")
}
