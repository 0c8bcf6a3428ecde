package config

import (
	"fmt"
	"net"
	"strings"
	"time"

	"custode/internal/id"
)

// SMSPolicy bounds what the modem pool sends. 0 is the default; -1 is no limit.
type SMSPolicy struct {
	Burst           int           `yaml:"burst"`             // SMS at once, of each card; 0: 3
	PerMinute       float64       `yaml:"per_minute"`        // of each card, sustained; 0: 10
	PerDay          int           `yaml:"per_day"`           // of each card; 0: 200
	PerMonth        int           `yaml:"per_month"`         // of each card; 0: 3000
	BulkPercent     int           `yaml:"bulk_percent"`      // of day and month for bulk messages; 0: 50
	PerNumber       int           `yaml:"per_number"`        // codes to one number per window; 0: 3
	PerNumberWindow time.Duration `yaml:"per_number_window"` // 0: 10m
	Prefixes        []SMSPrefix   `yaml:"prefixes"`
	Countries       []string      `yaml:"countries"` // calling codes of those whose mobiles get SMS; empty: "+39"
}

// SMSPrefix limits the codes to all numbers that begin alike.
type SMSPrefix struct {
	Prefix  string `yaml:"prefix"`   // + and digits
	PerHour int    `yaml:"per_hour"` // 0: none
}

func (s *SMSPolicy) validate(p *problems) {
	setDefault(&s.Burst, 3)
	setDefault(&s.PerMinute, 10)
	setDefault(&s.PerDay, 200)
	setDefault(&s.PerMonth, 3000)
	setDefault(&s.BulkPercent, 50)
	setDefault(&s.PerNumber, 3)
	setDefault(&s.PerNumberWindow, 10*time.Minute)
	limit := func(n int) bool { return n == -1 || n >= 1 && n <= 1_000_000 }
	p.check(limit(s.Burst), "sms.burst: 1 or more, or -1")
	p.check(s.PerMinute == -1 || s.PerMinute > 0 && s.PerMinute <= 1000, "sms.per_minute: above 0 to 1000, or -1")
	p.check(limit(s.PerDay), "sms.per_day: 1 or more, or -1")
	p.check(limit(s.PerMonth), "sms.per_month: 1 or more, or -1")
	p.check(s.BulkPercent >= 1 && s.BulkPercent <= 100, "sms.bulk_percent: 1 to 100")
	p.check(limit(s.PerNumber), "sms.per_number: 1 or more, or -1")
	p.check(within(s.PerNumberWindow, time.Minute, 24*time.Hour), "sms.per_number_window: 1m to 24h")
	_, err := id.ParseNumbering(s.Countries)
	p.check(err == nil, "sms.countries: calling codes like +39, of countries, at most 100")
	for i, c := range s.Prefixes {
		key := fmt.Sprintf("sms.prefixes[%d]", i)
		digits, ok := strings.CutPrefix(c.Prefix, "+")
		p.check(ok && digits != "" && len(digits) <= 15 && strings.Trim(digits, "0123456789") == "", key+".prefix: + and digits")
		p.check(c.PerHour >= 0, key+".per_hour: 0 or more")
	}
}

// validateMetrics checks the address of the metrics page.
func validateMetrics(p *problems, addr string) {
	if addr == "" {
		return
	}
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	p.check(err == nil && (host == "localhost" || ip != nil && ip.IsLoopback()), "metrics_listen: must be host:port with a loopback host")
}
