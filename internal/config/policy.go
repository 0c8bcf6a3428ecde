package config

import (
	"net"
	"net/url"
	"strings"
	"time"

	"custode/internal/id"
)

// Policy is the file of decisions. Zero values take the documented default.
type Policy struct {
	EntityID     id.EntityID        `yaml:"entity_id"`   // of this identity provider; keep it for ever
	PublicURL    string             `yaml:"public_url"`  // https://host[:port] the browsers use
	SPIDPrefix   string             `yaml:"spid_prefix"` // of every spidCode that identity add takes
	Organization Organization       `yaml:"organization"`
	Keys         Keys               `yaml:"keys"`
	Request      RequestPolicy      `yaml:"request"`
	Attributes   AttributePolicy    `yaml:"attributes"`
	Flow         FlowPolicy         `yaml:"flow"`
	Session      SessionPolicy      `yaml:"session"`
	Codes        CodePolicy         `yaml:"codes"`
	Passwords    PasswordPolicy     `yaml:"passwords"`
	Pages        PagePolicy         `yaml:"pages"`
	SMS          SMSPolicy          `yaml:"sms"`
	Registry     RegistryPolicy     `yaml:"registry"`
	CertifiedLog CertifiedLogPolicy `yaml:"certified_log"`
}

// Organization is published in the metadata (Italian values).
type Organization struct {
	Name        string `yaml:"name"`
	DisplayName string `yaml:"display_name"`
	URL         string `yaml:"url"`
}

// Keys are the labels of the keys in the token.
type Keys struct {
	Sign   id.KeyLabel `yaml:"sign"`   // RSA key and certificate that sign SAML
	Pepper id.KeyLabel `yaml:"pepper"` // HMAC key of the password hashes
	Codes  id.KeyLabel `yaml:"codes"`  // HMAC key of the one-time codes
	Outbox id.KeyLabel `yaml:"outbox"` // AES key that wraps message texts
	Seal   id.KeyLabel `yaml:"seal"`   // RSA key and certificate that seal the certified log
	Log    id.KeyLabel `yaml:"log"`    // AES key that wraps the certified log's segment keys
	// AES key that wraps the keys under which the database hides personal data
	Records id.KeyLabel `yaml:"records"`
	Seed    id.KeyLabel `yaml:"seed"` // AES key that wraps the secrets of OATH devices; of role wrap with hsm.seeds: decrypt
	Bind    id.KeyLabel `yaml:"bind"` // HMAC key that binds those secrets to their subjects
	// Earlier keys that wrapped secrets of devices still in use
	EarlierSeed []id.KeyLabel `yaml:"earlier_seed"`
	// Earlier keys under which the segment keys of a log that is kept were wrapped
	EarlierLog []id.KeyLabel `yaml:"earlier_log"`
	// Earlier peppers under which passwords are still hashed, the oldest last
	EarlierPepper []id.KeyLabel `yaml:"earlier_pepper"`
	// Earlier keys that wrapped texts that still wait
	EarlierOutbox []id.KeyLabel `yaml:"earlier_outbox"`
	// Earlier keys that wrapped the keys under which the database hides personal data
	EarlierRecords []id.KeyLabel `yaml:"earlier_records"`
	// Further signing keys whose certificates the metadata publishes, for a roll-over
	AlsoPublished []id.KeyLabel `yaml:"also_published"`
	// How long a signing key is in the metadata before it signs, and after; 0: 720h
	PublishedBefore time.Duration `yaml:"published_before"`
	PublishedAfter  time.Duration `yaml:"published_after"`
}

// RequestPolicy decides what the SPID technical rules leave open (docs/divergences.md).
type RequestPolicy struct {
	FutureSkew        time.Duration `yaml:"future_skew"`         // IssueInstant ahead of our clock; 0: 3m
	PastSkew          time.Duration `yaml:"past_skew"`           // IssueInstant behind it; 0: 5m
	LenientForceAuthn bool          `yaml:"lenient_force_authn"` // tolerate its absence above level 1
	LenientSubject    bool          `yaml:"lenient_subject"`     // ignore what is in a Subject
	LenientPurpose    bool          `yaml:"lenient_purpose"`     // ignore an unknown spid:Purpose
	LenientBetter     bool          `yaml:"lenient_better"`      // "better" than level 3 ends with 20, not 12
	StrictScoping     bool          `yaml:"strict_scoping"`      // refuse a Scoping/ProxyCount other than 0
	ReplayPage        bool          `yaml:"replay_page"`         // a request sent again gets a page, not anomaly 11
}

// AttributePolicy decides about the attributes of an assertion.
type AttributePolicy struct {
	OmitEmpty bool `yaml:"omit_empty"` // leave out what has no value, instead of sending it empty
}

// FlowPolicy limits one login.
type FlowPolicy struct {
	Lifetime       time.Duration `yaml:"lifetime"`        // 1m to under 10m; 0: 8m
	WrongPasswords int           `yaml:"wrong_passwords"` // in one login, before anomaly 19; 0: 3
	WrongCodes     int           `yaml:"wrong_codes"`     // in one login, before anomaly 19; 0: 3
}

// CodePolicy limits one-time codes.
type CodePolicy struct {
	Lifetime         time.Duration `yaml:"lifetime"`           // 1m to 9m, whole minutes; 0: 5m
	PerSubject       int           `yaml:"per_subject"`        // messages per window; 0: 5
	PerSubjectWindow time.Duration `yaml:"per_subject_window"` // 0: 10m
	Text             string        `yaml:"text"`               // with {code}, {service}, {minutes}; one SMS; empty: otpvault.DefaultTemplate
}

// PasswordPolicy sets Argon2id (RFC 9106) and the queue in front of it.
type PasswordPolicy struct {
	MemoryKiB  uint32 `yaml:"memory_kib"` // 0: 19456
	Iterations uint32 `yaml:"iterations"` // 0: 2
	Queue      int    `yaml:"queue"`      // hashes waiting at most; 0: derived from the 3-second objective
}

// Validate fills in defaults and reports every broken rule, in the file's key names.
func (c *Policy) Validate() error {
	c.defaults()
	var p problems
	p.check(!c.EntityID.IsZero(), "entity_id: required")
	u, ok := webURL(c.PublicURL)
	p.check(ok && u.Path == "" && u.RawQuery == "" && u.Fragment == "", "public_url: must be https://host[:port] without a path (http for a loopback host only)")
	p.check(len(c.SPIDPrefix) == 4 && strings.Trim(c.SPIDPrefix, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == "", "spid_prefix: four capital letters")
	p.check(c.Organization.Name != "" && c.Organization.DisplayName != "" && c.Organization.URL != "", "organization: name, display_name and url are required")
	_, ok = webURL(c.Organization.URL)
	p.check(ok, "organization.url: must be an https URL (http for a loopback host only)")
	labels := map[id.KeyLabel]bool{}
	for key, l := range map[string]id.KeyLabel{"sign": c.Keys.Sign, "pepper": c.Keys.Pepper, "codes": c.Keys.Codes, "outbox": c.Keys.Outbox, "seal": c.Keys.Seal, "log": c.Keys.Log, "records": c.Keys.Records, "seed": c.Keys.Seed, "bind": c.Keys.Bind} {
		p.check(!l.IsZero(), "keys."+key+": required")
		p.check(!labels[l], "keys."+key+": one key serves one purpose")
		labels[l] = true
	}
	p.check(len(c.Keys.AlsoPublished) <= 3, "keys.also_published: at most 3")
	for _, l := range c.Keys.AlsoPublished {
		p.check(!l.IsZero() && !labels[l], "keys.also_published: a label is empty or used twice")
		labels[l] = true
	}
	p.check(within(c.Keys.PublishedBefore, time.Second, 366*24*time.Hour), "keys.published_before: 1s to 8784h")
	p.check(within(c.Keys.PublishedAfter, time.Second, 366*24*time.Hour), "keys.published_after: 1s to 8784h")
	p.check(len(c.Keys.EarlierSeed) <= 64, "keys.earlier_seed: at most 64")
	for _, l := range c.Keys.EarlierSeed {
		p.check(!l.IsZero() && !labels[l], "keys.earlier_seed: a label is empty or used twice")
		labels[l] = true
	}
	for key, earlier := range map[string][]id.KeyLabel{"earlier_log": c.Keys.EarlierLog, "earlier_pepper": c.Keys.EarlierPepper, "earlier_outbox": c.Keys.EarlierOutbox, "earlier_records": c.Keys.EarlierRecords} {
		p.check(len(earlier) <= 64, "keys."+key+": at most 64")
		for _, l := range earlier {
			p.check(!l.IsZero() && !labels[l], "keys."+key+": a label is empty or used twice")
			labels[l] = true
		}
	}
	p.check(within(c.Request.FutureSkew, time.Second, 10*time.Minute), "request.future_skew: 1s to 10m")
	p.check(within(c.Request.PastSkew, time.Second, 10*time.Minute), "request.past_skew: 1s to 10m")
	p.check(within(c.Flow.Lifetime, time.Minute, 10*time.Minute-time.Second), "flow.lifetime: 1m to under 10m")
	p.check(c.Flow.WrongPasswords >= 1 && c.Flow.WrongPasswords <= 10, "flow.wrong_passwords: 1 to 10")
	p.check(c.Flow.WrongCodes >= 1 && c.Flow.WrongCodes <= 3, "flow.wrong_codes: 1 to 3")
	p.check(within(c.Codes.Lifetime, time.Minute, 9*time.Minute) && c.Codes.Lifetime%time.Minute == 0, "codes.lifetime: 1m to 9m, whole minutes")
	p.check(c.Codes.PerSubject >= 1 && c.Codes.PerSubject <= 1000, "codes.per_subject: 1 to 1000")
	p.check(within(c.Codes.PerSubjectWindow, time.Minute, 24*time.Hour), "codes.per_subject_window: 1m to 24h")
	p.check(c.Passwords.MemoryKiB >= 8 && c.Passwords.MemoryKiB <= 128<<10, "passwords.memory_kib: 8 to 131072")
	p.check(c.Passwords.Iterations >= 1 && c.Passwords.Iterations <= 16, "passwords.iterations: 1 to 16")
	p.check(uint64(c.Passwords.MemoryKiB)*uint64(c.Passwords.Iterations) <= 1<<19, "passwords: memory_kib times iterations must not pass 524288")
	c.SMS.validate(&p)
	p.check(c.Passwords.Queue >= 0 && c.Passwords.Queue <= 10000, "passwords.queue: 0 to 10000")
	c.Session.validate(&p)
	c.Pages.validate(&p)
	c.Registry.validate(&p)
	c.CertifiedLog.validate(&p)
	return p.err()
}

func (c *Policy) defaults() {
	setDefault(&c.Keys.PublishedBefore, 30*24*time.Hour)
	setDefault(&c.Keys.PublishedAfter, 30*24*time.Hour)
	setDefault(&c.Request.FutureSkew, 3*time.Minute)
	setDefault(&c.Request.PastSkew, 5*time.Minute)
	setDefault(&c.Flow.Lifetime, 8*time.Minute)
	setDefault(&c.Flow.WrongPasswords, 3)
	setDefault(&c.Flow.WrongCodes, 3)
	setDefault(&c.Codes.Lifetime, 5*time.Minute)
	setDefault(&c.Codes.PerSubject, 5)
	setDefault(&c.Codes.PerSubjectWindow, 10*time.Minute)
	setDefault(&c.Passwords.MemoryKiB, 19456)
	setDefault(&c.Passwords.Iterations, 2)
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// webURL parses an address as the metadata may publish it.
func webURL(s string) (*url.URL, bool) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || strings.ContainsRune(s, ' ') {
		return nil, false
	}
	ip := net.ParseIP(u.Hostname())
	return u, u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())
}

func within(d, lo, hi time.Duration) bool { return d >= lo && d <= hi }
