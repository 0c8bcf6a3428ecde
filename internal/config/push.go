package config

import "path/filepath"

// Push says how codes reach the subjects' apps.
type Push struct {
	URL       string `yaml:"url"`        // each sealed message is posted there; empty: nothing is pushed
	TokenFile string `yaml:"token_file"` // absolute; first line goes as a bearer token; empty: none
}

func (c *Push) validate(p *problems) {
	if c.URL != "" {
		_, ok := webURL(c.URL)
		p.check(ok, "push.url: must be an https URL (http for a loopback host only)")
	}
	p.check(c.TokenFile == "" || filepath.IsAbs(c.TokenFile), "push.token_file: must be an absolute path")
	p.check(c.TokenFile == "" || c.URL != "", "push.token_file: goes with push.url")
}
