package web

import (
	"net/url"
	"strings"

	"custode/internal/fault"
)

// Links are addresses of the identity provider's own sites that pages lead to;
// "" for none. "{lang}" in one becomes the page's language (it, en, de, sl).
// They open in a new tab, because leaving a login's page loses what was typed,
// and tell the other site nothing of where they were followed.
type Links struct {
	ForgottenUsername, ForgottenPassword, Register string // on the credentials page
	Help, Privacy, Accessibility                   string // at the foot of every page
	AboutSPID                                      string // at the foot of every page
}

// check is fault.Invalid for an address that is not https.
func (l Links) check() error {
	for _, s := range []string{l.ForgottenUsername, l.ForgottenPassword, l.Register, l.Help, l.Privacy, l.Accessibility, l.AboutSPID} {
		if s == "" {
			continue
		}
		u, err := url.Parse(strings.ReplaceAll(s, "{lang}", "it"))
		if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.ContainsAny(s, " <>\"") {
			return fault.Newf(fault.Invalid, "parse link of the pages", "%q is not an https address", s)
		}
	}
	return nil
}

// linkItem is a link to another site.
type linkItem struct{ Text, Address, New string }

func (p *page) links(pairs ...string) []linkItem {
	var list []linkItem
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			list = append(list, linkItem{p.text(pairs[i]), strings.ReplaceAll(pairs[i+1], "{lang}", p.Lang), p.text("link.new")})
		}
	}
	return list
}

// FootLinks are the links at the foot of every page.
func (p *page) FootLinks() []linkItem {
	l := p.site.Links
	return p.links("link.spid", l.AboutSPID, "link.help", l.Help, "link.privacy", l.Privacy, "link.accessibility", l.Accessibility)
}

// LostLinks are the links for who has lost, or never had, credentials.
func (p *page) LostLinks() []linkItem {
	l := p.site.Links
	return p.links("link.username", l.ForgottenUsername, "link.password", l.ForgottenPassword, "link.register", l.Register)
}
