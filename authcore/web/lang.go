package web

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"custode/authcore/web/words"
)

const (
	langCookie = "__Host-lang"
	langLife   = 365 * 24 * time.Hour
)

// chooseLanguage takes the cookie's language, else the best of Accept-Language
// (RFC 9110 12.5.4, primary subtags only), else Italian.
func chooseLanguage(cookies, accept string) string {
	if v := cookieValue(cookies, langCookie); words.Known(v) {
		return v
	}
	best, bestQ := words.Italian, 0.0
	for i, part := range strings.SplitN(accept, ",", 17) {
		if i == 16 {
			break // the rest is not read
		}
		tag, params, _ := strings.Cut(part, ";")
		primary, _, _ := strings.Cut(strings.ToLower(strings.TrimSpace(tag)), "-")
		if !words.Known(primary) {
			continue
		}
		q := 1.0
		if v, ok := strings.CutPrefix(strings.TrimSpace(params), "q="); ok {
			var err error
			if q, err = strconv.ParseFloat(strings.TrimSpace(v), 64); err != nil || !(q >= 0 && q <= 1) {
				q = 0
			}
		}
		if q > bestQ {
			best, bestQ = primary, q
		}
	}
	return best
}

// switchLanguage answers GET path?lang=xx: it keeps the choice in a cookie and
// shows the same page again. The only thing that it repeats of the query is the
// mark of a notice.
func (s *Server) switchLanguage(r request, path string) (answer, bool) {
	if len(r.query) == 0 {
		return answer{}, false
	}
	f, err := parseForm(r.query)
	if err != nil {
		return answer{}, false
	}
	lang := string(f["lang"])
	if !words.Known(lang) {
		return answer{}, false
	}
	if m := string(f["n"]); isMark(m) {
		path += "?n=" + m
	}
	return answer{status: http.StatusSeeOther, location: path, cookies: []string{setCookie(langCookie, lang, langLife)}}, true
}

// langItem is one entry of a page's language switch.
type langItem struct {
	words.Language
	Link    string
	Current bool
}

// Langs is the language switch. A page that can be shown again is fetched again;
// one that cannot (it answers a form, or carries a Response) holds its versions
// in all languages, and the link leads to one of them. Neither needs a script.
func (p *page) Langs() []langItem {
	var items []langItem
	for _, l := range words.Languages() {
		link := "#lang-" + l.Tag
		if p.Path != "" {
			link = p.Path + "?lang=" + l.Tag
			if p.Mark != "" {
				link += "&n=" + p.Mark
			}
		}
		items = append(items, langItem{l, link, l.Tag == p.Lang})
	}
	return items
}
