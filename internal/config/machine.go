package config

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"custode/internal/id"
)

// Machine is the file of machine facts.
type Machine struct {
	Listen                     string       `yaml:"listen"`                        // host:port the pages are served on
	TLS                        TLS          `yaml:"tls"`                           // both files, or neither for development
	InsecureHTTPForDevelopment bool         `yaml:"insecure_http_for_development"` // plain HTTP; loopback addresses only
	StateDirectory             string       `yaml:"state_directory"`               // absolute; holds the database
	AdminSocket                string       `yaml:"admin_socket"`                  // absolute path of the Unix socket
	RegistryDirectory          string       `yaml:"registry_directory"`            // absolute; signed SP metadata files *.xml; empty with registry.aggregate
	RegistryCertificates       string       `yaml:"registry_certificates"`         // absolute; PEM, who must have signed those files or the aggregate; empty: each file signs for itself
	Registry                   Registry     `yaml:"registry"`
	HSM                        HSM          `yaml:"hsm"`
	Ceremony                   Ceremony     `yaml:"ceremony"`
	Modems                     []Modem      `yaml:"modems"`
	ModemProfiles              string       `yaml:"modem_profiles"`         // absolute; a YAML file that adds or replaces modem profiles; empty: none
	AllowSimulatedModems       bool         `yaml:"allow_simulated_modems"` // accept a modem that calls itself SIMULATOR
	ForwardReceived            string       `yaml:"forward_received"`       // address that received messages are posted to; empty: none
	Push                       Push         `yaml:"push"`
	MetricsListen              string       `yaml:"metrics_listen"` // loopback host:port of GET /metrics; empty: none
	CertifiedLog               CertifiedLog `yaml:"certified_log"`
	Log                        Log          `yaml:"log"`
}

// TLS names PEM files.
type TLS struct {
	CertificateFile string `yaml:"certificate_file"`
	KeyFile         string `yaml:"key_file"`
}

// HSM says how to reach the token.
type HSM struct {
	URI      string `yaml:"uri"`      // RFC 7512, with module-path and pin-source=file:
	Sessions int    `yaml:"sessions"` // PKCS#11 sessions at most, 2 to 256; 0: 8
	// Given to the module's C_Initialize; only NSS is known to want any. Never a secret.
	InitArgs string   `yaml:"init_args"`
	Tolerate []string `yaml:"tolerate"` // rules of the key policy that the token may lack; empty: none
	// Keys that a ceremony copied, so that other tokens hold them too; empty: none
	Copied []id.KeyLabel `yaml:"copied"`
	Seeds  string        `yaml:"seeds"` // unwrap: OATH secrets stay in the token; decrypt: they come into memory; empty: unwrap
	// PEM; the off-line RSA key that a copy of each OATH secret is encrypted to at enrolment; absolute; empty: no copy
	RecoveryCertificate string `yaml:"recovery_certificate"`

	Worker  `yaml:",inline"`
	Standby Standby `yaml:"standby"` // a second token with the same keys; empty URI: none
}

// Modem is one bay.
type Modem struct {
	Name       string `yaml:"name"`         // 1 to 16 of a-z 0-9 -
	Device     string `yaml:"device"`       // absolute, a stable name (/dev/serial/by-path/...)
	Baud       int    `yaml:"baud"`         // 0: 115200
	SIMPINFile string `yaml:"sim_pin_file"` // empty: the SIM has no PIN
	Flow       bool   `yaml:"rtscts"`       // hardware flow control
	IMEI       string `yaml:"imei"`         // the modem that belongs here, 14 to 16 digits; empty: any
	Centre     string `yaml:"smsc"`         // service centre to set, +39...; empty: the card's
}

// Log sets the log on standard error.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn or error; empty: info
	Format string `yaml:"format"` // json or text; empty: json
}

// Validate reports every broken rule, in the file's key names.
func (m *Machine) Validate() error {
	var p problems
	host, _, err := net.SplitHostPort(m.Listen)
	p.check(err == nil, "listen: must be host:port")
	p.check((m.TLS.CertificateFile == "") == (m.TLS.KeyFile == ""), "tls: certificate_file and key_file go together")
	if m.InsecureHTTPForDevelopment {
		ip := net.ParseIP(host)
		p.check(host == "localhost" || ip != nil && ip.IsLoopback(), "insecure_http_for_development: listen must be a loopback address")
		p.check(m.TLS.CertificateFile == "", "insecure_http_for_development: contradicts tls")
	} else {
		p.check(m.TLS.CertificateFile != "", "tls: certificate_file and key_file are required")
	}
	for key, path := range map[string]string{"certificate_file": m.TLS.CertificateFile, "key_file": m.TLS.KeyFile} {
		p.check(path == "" || filepath.IsAbs(path), "tls."+key+": must be an absolute path")
	}
	for key, path := range map[string]string{"state_directory": m.StateDirectory, "admin_socket": m.AdminSocket} {
		p.check(filepath.IsAbs(path), key+": must be an absolute path")
	}
	p.check(m.RegistryCertificates == "" || filepath.IsAbs(m.RegistryCertificates), "registry_certificates: must be an absolute path")
	p.check(len(m.AdminSocket) < 108, "admin_socket: longer than a Unix socket name may be (107 octets)")
	p.check(strings.HasPrefix(m.HSM.URI, "pkcs11:"), "hsm.uri: must be a PKCS#11 URI")
	p.check(!strings.Contains(m.HSM.URI, "pin-value"), "hsm.uri: pin-value is refused, use pin-source=file:")
	p.check(len(m.HSM.InitArgs) <= 2000 && !strings.Contains(m.HSM.InitArgs, "\x00"), "hsm.init_args: up to 2000 octets, without NUL")
	if m.HSM.Sessions == 0 {
		m.HSM.Sessions = 8
	}
	p.check(m.HSM.Sessions >= 2 && m.HSM.Sessions <= 256, "hsm.sessions: 2 to 256")
	if m.HSM.Seeds == "" {
		m.HSM.Seeds = "unwrap"
	}
	p.check(oneOf(m.HSM.Seeds, "unwrap", "decrypt"), "hsm.seeds: unwrap or decrypt")
	p.check(m.HSM.RecoveryCertificate == "" || filepath.IsAbs(m.HSM.RecoveryCertificate), "hsm.recovery_certificate: must be an absolute path")
	p.check(m.ModemProfiles == "" || filepath.IsAbs(m.ModemProfiles), "modem_profiles: must be an absolute path")
	m.validateCeremony(&p)
	m.HSM.validateWorkers(&p)
	m.validateRegistry(&p)
	m.validateModems(&p)
	m.validateCertifiedLog(&p)
	if m.ForwardReceived != "" {
		_, ok := webURL(m.ForwardReceived)
		p.check(ok, "forward_received: must be an https URL (http for a loopback host only)")
	}
	validateMetrics(&p, m.MetricsListen)
	m.Push.validate(&p)
	if m.Log.Level == "" {
		m.Log.Level = "info"
	}
	if m.Log.Format == "" {
		m.Log.Format = "json"
	}
	p.check(oneOf(m.Log.Level, "debug", "info", "warn", "error"), "log.level: debug, info, warn or error")
	p.check(oneOf(m.Log.Format, "json", "text"), "log.format: json or text")
	return p.err()
}

func (m *Machine) validateModems(p *problems) {
	p.check(len(m.Modems) >= 1 && len(m.Modems) <= 64, "modems: 1 to 64")
	names, devices := map[string]bool{}, map[string]bool{}
	for i := range m.Modems {
		b := &m.Modems[i]
		key := fmt.Sprintf("modems[%d]", i)
		if b.Baud == 0 {
			b.Baud = 115200
		}
		p.check(b.Name != "" && len(b.Name) <= 16 && strings.Trim(b.Name, "abcdefghijklmnopqrstuvwxyz0123456789-") == "", key+".name: 1 to 16 of a-z 0-9 -")
		p.check(filepath.IsAbs(b.Device), key+".device: must be an absolute path")
		p.check(b.SIMPINFile == "" || filepath.IsAbs(b.SIMPINFile), key+".sim_pin_file: must be an absolute path")
		p.check(b.IMEI == "" || len(b.IMEI) >= 14 && len(b.IMEI) <= 16 && strings.Trim(b.IMEI, "0123456789") == "", key+".imei: 14 to 16 digits")
		_, err := id.ParsePhone(b.Centre)
		p.check(b.Centre == "" || err == nil, key+".smsc: an international number")
		p.check(!names[b.Name], key+".name: used twice")
		p.check(!devices[b.Device], key+".device: used twice")
		names[b.Name], devices[b.Device] = true, true
	}
}

func oneOf(s string, set ...string) bool {
	for _, x := range set {
		if s == x {
			return true
		}
	}
	return false
}
