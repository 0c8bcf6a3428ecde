package config

import "strings"

// PagePolicy is the addresses that the login's pages lead to; an empty one is
// left out. "{lang}" becomes the language of the page: it, en, de or sl.
type PagePolicy struct {
	ForgottenUsername string `yaml:"forgotten_username"` // credentials page
	ForgottenPassword string `yaml:"forgotten_password"` // credentials page
	Register          string `yaml:"register"`           // credentials page: for who has no identity
	Help              string `yaml:"help"`               // foot of every page, like those below
	Privacy           string `yaml:"privacy"`
	Accessibility     string `yaml:"accessibility"`
	AboutSPID         string `yaml:"about_spid"`
}

func (c *PagePolicy) validate(p *problems) {
	for key, address := range map[string]string{"forgotten_username": c.ForgottenUsername, "forgotten_password": c.ForgottenPassword,
		"register": c.Register, "help": c.Help, "privacy": c.Privacy, "accessibility": c.Accessibility, "about_spid": c.AboutSPID} {
		if address == "" {
			continue
		}
		u, ok := webURL(strings.ReplaceAll(address, "{lang}", "it"))
		p.check(ok && u.Scheme == "https" && !strings.ContainsAny(address, "<>\""), "pages."+key+": must be an https URL")
	}
}
