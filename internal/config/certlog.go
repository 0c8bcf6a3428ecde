package config

import (
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// CertifiedLog says where the certified log is and whom it trusts.
type CertifiedLog struct {
	Directory          string   `yaml:"directory"`           // absolute; holds a folder for each log
	TSACertificates    string   `yaml:"tsa_certificates"`    // absolute; PEM roots of the time-stamping authorities; required with certified_log.time_stamps
	EscrowCertificate  string   `yaml:"escrow_certificate"`  // absolute; PEM, RSA: a second wrap of the segment keys; empty: none
	SealCertificates   string   `yaml:"seal_certificates"`   // absolute; PEM, of earlier seals that are still trusted; empty: none
	WitnessDirectories []string `yaml:"witness_directories"` // absolute; get a copy of each checkpoint
	WitnessURLs        []string `yaml:"witness_urls"`        // get each checkpoint by POST
	WitnessMail        Mail     `yaml:"witness_mail"`        // gets each checkpoint as a letter
	Clock              string   `yaml:"clock"`               // kernel or none; empty: kernel
}

// Mail says how letters leave and to whom.
type Mail struct {
	Server       string   `yaml:"server"`        // host:port; empty: no mail
	TLS          string   `yaml:"tls"`           // starttls, implicit, or none for a loopback host; empty: starttls
	Certificates string   `yaml:"certificates"`  // absolute; PEM roots of the server's certificate; empty: the system's
	From         string   `yaml:"from"`          // address alone
	To           []string `yaml:"to"`            // 1 to 8 addresses
	Username     string   `yaml:"username"`      // empty: no login
	PasswordFile string   `yaml:"password_file"` // absolute; only its owner may read it
}

// CertifiedLogPolicy decides how the certified log is kept.
type CertifiedLogPolicy struct {
	SegmentAge        time.Duration `yaml:"segment_age"`        // 1m to 24h; 0: 1h
	SegmentMiB        int           `yaml:"segment_mib"`        // 1 to 4096; 0: 64
	Retention         time.Duration `yaml:"retention"`          // of transactions; at least 24 months; 0: 17520h
	SecurityRetention time.Duration `yaml:"security_retention"` // of the security log; 30 to 3660 days; 0: 8760h
	TimeStamps        []TimeStamp   `yaml:"time_stamps"`        // services, asked in turn; none in development only
	Patience          time.Duration `yaml:"patience"`           // a closed segment waits so long for seal and time-stamp before the alarm; 1m to 24h; 0: 1h
	VerifyHour        *int          `yaml:"verify_hour"`        // 0 to 23, local time: the nightly verification and retention; absent: 3
	SilentAttestation bool          `yaml:"silent_attestation"` // an attestation is made without a message to its subject
}

// TimeStamp is a time-stamping service (RFC 3161).
type TimeStamp struct {
	URL    string `yaml:"url"`
	Policy string `yaml:"policy"` // OID in dots asked for and demanded; empty: any
}

var oidForm = regexp.MustCompile(`^[0-2](\.(0|[1-9][0-9]{0,9})){1,30}$`)

// fewestDays is 24 months; add one if a leap day must count.
const fewestDays = 730

func (m *Machine) validateCertifiedLog(p *problems) {
	c := &m.CertifiedLog
	p.check(filepath.IsAbs(c.Directory), "certified_log.directory: must be an absolute path")
	for key, path := range map[string]string{"tsa_certificates": c.TSACertificates, "escrow_certificate": c.EscrowCertificate, "seal_certificates": c.SealCertificates} {
		p.check(path == "" || filepath.IsAbs(path), "certified_log."+key+": must be an absolute path")
	}
	for _, path := range c.WitnessDirectories {
		p.check(filepath.IsAbs(path) && !inside(path, c.Directory), "certified_log.witness_directories: must be absolute paths outside certified_log.directory")
	}
	for _, address := range c.WitnessURLs {
		_, ok := webURL(address)
		p.check(ok, "certified_log.witness_urls: must be https URLs (http for a loopback host only)")
	}
	c.WitnessMail.validate(p)
	if c.Clock == "" {
		c.Clock = "kernel"
	}
	p.check(oneOf(c.Clock, "kernel", "none"), "certified_log.clock: kernel or none")
	p.check(c.Clock == "kernel" || m.InsecureHTTPForDevelopment, "certified_log.clock: none is for insecure_http_for_development only")
}

func (c *Mail) validate(p *problems) {
	const key = "certified_log.witness_mail."
	if c.Server == "" {
		p.check(c.From == "" && len(c.To) == 0 && c.Username == "" && c.PasswordFile == "", key+"server: is missing")
		return
	}
	host, _, err := net.SplitHostPort(c.Server)
	p.check(err == nil && host != "", key+"server: must be host:port")
	if c.TLS == "" {
		c.TLS = "starttls"
	}
	p.check(oneOf(c.TLS, "starttls", "implicit", "none"), key+"tls: starttls, implicit or none")
	ip := net.ParseIP(host)
	p.check(c.TLS != "none" || host == "localhost" || ip != nil && ip.IsLoopback(), key+"tls: none is for a loopback host only")
	p.check(c.Certificates == "" || filepath.IsAbs(c.Certificates), key+"certificates: must be an absolute path")
	p.check(bareAddress(c.From), key+"from: must be an address alone")
	p.check(len(c.To) >= 1 && len(c.To) <= 8, key+"to: 1 to 8 addresses")
	for _, to := range c.To {
		p.check(bareAddress(to), key+"to: must be addresses alone")
	}
	p.check((c.Username == "") == (c.PasswordFile == ""), key+"username and password_file go together")
	p.check(c.PasswordFile == "" || filepath.IsAbs(c.PasswordFile), key+"password_file: must be an absolute path")
}

var addressForm = regexp.MustCompile(`^[A-Za-z0-9.!#$%&'*+/=?^_{|}~-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*$`)

func bareAddress(s string) bool { return len(s) <= 254 && addressForm.MatchString(s) }

// inside reports whether path is folder or below it.
func inside(path, folder string) bool {
	rel, err := filepath.Rel(folder, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

func (c *CertifiedLogPolicy) validate(p *problems) {
	setDefault(&c.SegmentAge, time.Hour)
	setDefault(&c.SegmentMiB, 64)
	setDefault(&c.Retention, fewestDays*24*time.Hour)
	setDefault(&c.SecurityRetention, 365*24*time.Hour)
	setDefault(&c.Patience, time.Hour)
	if c.VerifyHour == nil {
		three := 3
		c.VerifyHour = &three
	}
	p.check(within(c.SegmentAge, time.Minute, 24*time.Hour), "certified_log.segment_age: 1m to 24h")
	p.check(c.SegmentMiB >= 1 && c.SegmentMiB <= 4096, "certified_log.segment_mib: 1 to 4096")
	p.check(within(c.Retention, fewestDays*24*time.Hour, 20*366*24*time.Hour), fmt.Sprintf("certified_log.retention: at least 24 months (%dh)", fewestDays*24))
	p.check(within(c.SecurityRetention, 30*24*time.Hour, 3660*24*time.Hour), "certified_log.security_retention: 30 to 3660 days")
	p.check(within(c.Patience, time.Minute, 24*time.Hour), "certified_log.patience: 1m to 24h")
	p.check(*c.VerifyHour >= 0 && *c.VerifyHour <= 23, "certified_log.verify_hour: 0 to 23")
	p.check(len(c.TimeStamps) <= 8, "certified_log.time_stamps: at most 8")
	for i, t := range c.TimeStamps {
		key := fmt.Sprintf("certified_log.time_stamps[%d]", i)
		// Tokens are signed: many authorities answer on plain http, and no secret is sent.
		ok := strings.HasPrefix(t.URL, "https://") || strings.HasPrefix(t.URL, "http://")
		p.check(ok && !strings.ContainsAny(t.URL, " <>\"@"), key+".url: must be an http or https URL without credentials")
		p.check(t.Policy == "" || oidForm.MatchString(t.Policy), key+".policy: must be an OID in dots")
	}
}
