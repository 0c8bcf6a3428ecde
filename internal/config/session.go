package config

import "time"

// SessionPolicy decides how long a level 1 login serves for further ones, and how
// long service providers are waited for when a session ends.
type SessionPolicy struct {
	Disabled         bool          `yaml:"disabled"`          // every login is fresh
	Idle             time.Duration `yaml:"idle"`              // 1m to 24h; 0: 30m
	Absolute         time.Duration `yaml:"absolute"`          // idle to 24h; 0: 2h
	LogoutPerSP      time.Duration `yaml:"logout_per_sp"`     // 100ms to 10s; 0: 4s
	LogoutTotal      time.Duration `yaml:"logout_total"`      // logout_per_sp to 15s; 0: 10s
	PrivateAddresses bool          `yaml:"private_addresses"` // SOAP endpoints in private networks may be called
}

func (s *SessionPolicy) validate(p *problems) {
	setDefault(&s.Idle, 30*time.Minute)
	setDefault(&s.Absolute, 2*time.Hour)
	setDefault(&s.LogoutPerSP, 4*time.Second)
	setDefault(&s.LogoutTotal, 10*time.Second)
	p.check(within(s.Idle, time.Minute, 24*time.Hour), "session.idle: 1m to 24h")
	p.check(within(s.Absolute, s.Idle, 24*time.Hour), "session.absolute: session.idle to 24h")
	p.check(within(s.LogoutPerSP, 100*time.Millisecond, 10*time.Second), "session.logout_per_sp: 100ms to 10s")
	p.check(within(s.LogoutTotal, s.LogoutPerSP, 15*time.Second), "session.logout_total: session.logout_per_sp to 15s")
}
