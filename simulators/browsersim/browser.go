// Package browsersim walks web pages the way a browser without JavaScript
// does: it keeps cookies, follows redirects, reads forms and submits them. The
// end-to-end tests and the load driver log in with it. It knows nothing of the
// product beyond HTML and HTTP, and it is not a browser: no scripts, no styles;
// the tests that need those use Chromium.
package browsersim

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/html"
)

// maxPage bounds a page, in octets.
const maxPage = 4 << 20

// Browser is one browser profile. It is safe for use by one goroutine.
type Browser struct {
	client   *http.Client
	Language string // Accept-Language of every request
}

// Transport returns an HTTP transport that many browsers can share.
func Transport() *http.Transport {
	return &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		MaxIdleConnsPerHost: 256,
		IdleConnTimeout:     30 * time.Second,
	}
}

// New returns a browser with an empty cookie jar on transport t (nil: its own).
func New(t *http.Transport) *Browser {
	if t == nil {
		t = Transport()
	}
	return &Browser{client: &http.Client{Transport: t, Jar: &jar{}, Timeout: 60 * time.Second}, Language: "it"}
}

// Page is a loaded page.
type Page struct {
	URL    *url.URL
	Status int
	Header http.Header
	Body   string
	Forms  []Form
	Text   string // the visible text, blanks folded
}

// Form is a form of a page.
type Form struct {
	Action  *url.URL
	Method  string
	Fields  url.Values // default values of all named fields but buttons
	Buttons []Button
}

// Button is a submit button.
type Button struct{ Name, Value, Text string }

// Get loads target.
func (b *Browser) Get(target string) (*Page, error) {
	return b.send(http.MethodGet, target, nil, "")
}

// Post submits fields to target as a form of the page at origin would.
func (b *Browser) Post(target string, fields url.Values, origin string) (*Page, error) {
	return b.send(http.MethodPost, target, fields, origin)
}

// Submit sends the form of p that has a button whose name, value or text is
// button (or, with button "", the first form) with the fields changed by set.
func (b *Browser) Submit(p *Page, button string, set map[string]string) (*Page, error) {
	f, btn, err := p.find(button)
	if err != nil {
		return nil, err
	}
	fields := url.Values{}
	for k, v := range f.Fields {
		fields[k] = append([]string{}, v...)
	}
	if btn != nil && btn.Name != "" {
		fields.Set(btn.Name, btn.Value)
	}
	for k, v := range set {
		if _, known := f.Fields[k]; !known {
			return nil, fmt.Errorf("the form has no field %q", k)
		}
		fields.Set(k, v)
	}
	origin := p.URL.Scheme + "://" + p.URL.Host
	if f.Method == http.MethodGet {
		u := *f.Action
		u.RawQuery = fields.Encode()
		return b.Get(u.String())
	}
	return b.Post(f.Action.String(), fields, origin)
}

func (p *Page) find(button string) (*Form, *Button, error) {
	for i := range p.Forms {
		f := &p.Forms[i]
		if button == "" {
			if len(f.Buttons) > 0 {
				return f, &f.Buttons[0], nil
			}
			return f, nil, nil
		}
		for j := range f.Buttons {
			if btn := &f.Buttons[j]; btn.Name == button || btn.Value == button || btn.Text == button {
				return f, btn, nil
			}
		}
	}
	return nil, nil, fmt.Errorf("page %s (HTTP %d) has no form with button %q; its text: %.200s", p.URL.Path, p.Status, button, p.Text)
}

// Has reports whether a form of the page has the field.
func (p *Page) Has(field string) bool {
	for _, f := range p.Forms {
		if _, ok := f.Fields[field]; ok {
			return true
		}
	}
	return false
}

// Field returns the value of the field in the first form that has it.
func (p *Page) Field(field string) string {
	for _, f := range p.Forms {
		if v, ok := f.Fields[field]; ok {
			return v[0]
		}
	}
	return ""
}

func (b *Browser) send(method, target string, fields url.Values, origin string) (*Page, error) {
	var body io.Reader
	if fields != nil {
		body = strings.NewReader(fields.Encode())
	}
	req, err := http.NewRequest(method, target, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept-Language", b.Language)
	req.Header.Set("Accept", "text/html")
	req.Header.Set("User-Agent", "browsersim")
	if fields != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if origin != "" {
			req.Header.Set("Origin", origin)
			site := "cross-site"
			if origin == req.URL.Scheme+"://"+req.URL.Host {
				site = "same-origin"
			}
			req.Header.Set("Sec-Fetch-Site", site)
		}
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxPage))
	if err != nil {
		return nil, err
	}
	p := &Page{URL: resp.Request.URL, Status: resp.StatusCode, Header: resp.Header, Body: string(text)}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
		doc, err := html.Parse(strings.NewReader(p.Body))
		if err != nil {
			return nil, err
		}
		p.walk(doc, nil)
		p.Text = strings.Join(strings.Fields(p.Text), " ")
	}
	return p, nil
}

func (p *Page) walk(n *html.Node, form *Form) {
	switch {
	case n.Type == html.TextNode:
		p.Text += " " + n.Data
	case n.Type == html.ElementNode:
		switch n.Data {
		case "script", "style", "head":
			return
		case "form":
			action, err := p.URL.Parse(attr(n, "action"))
			if err != nil {
				action = p.URL
			}
			p.Forms = append(p.Forms, Form{Action: action, Method: strings.ToUpper(attr(n, "method")), Fields: url.Values{}})
			at := len(p.Forms) - 1
			f := p.Forms[at]
			for c := n.FirstChild; c != nil; c = c.NextSibling {
				p.walk(c, &f)
			}
			p.Forms[at] = f
			return
		case "input", "button", "textarea":
			if form != nil {
				field(n, form)
			}
		}
	}
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		p.walk(c, form)
	}
}

func field(n *html.Node, f *Form) {
	name, value, kind := attr(n, "name"), attr(n, "value"), attr(n, "type")
	switch {
	case n.Data == "button" && kind != "button", kind == "submit":
		f.Buttons = append(f.Buttons, Button{Name: name, Value: value, Text: strings.Join(strings.Fields(text(n)+" "), " ")})
	case name == "":
	case kind == "radio" || kind == "checkbox":
		if _, seen := f.Fields[name]; !seen || has(n, "checked") {
			f.Fields.Set(name, value)
		}
	default:
		f.Fields.Set(name, value)
	}
}

func attr(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

func has(n *html.Node, key string) bool {
	for _, a := range n.Attr {
		if a.Key == key {
			return true
		}
	}
	return false
}

func text(n *html.Node) string {
	if n.Type == html.TextNode {
		return n.Data
	}
	var s string
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		s += text(c)
	}
	return s
}

// jar keeps host-only cookies. Unlike net/http/cookiejar it sends Secure
// cookies to a loopback host over plain HTTP, as browsers do.
type jar struct {
	mu      sync.Mutex
	cookies map[string]map[string]*http.Cookie // host name -> cookie name
}

// SetCookies implements http.CookieJar.
func (j *jar) SetCookies(u *url.URL, cookies []*http.Cookie) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.cookies == nil {
		j.cookies = map[string]map[string]*http.Cookie{}
	}
	host := u.Hostname()
	if j.cookies[host] == nil {
		j.cookies[host] = map[string]*http.Cookie{}
	}
	for _, c := range cookies {
		if c.MaxAge < 0 || c.Value == "" {
			delete(j.cookies[host], c.Name)
			continue
		}
		j.cookies[host][c.Name] = c
	}
}

// Cookies implements http.CookieJar.
func (j *jar) Cookies(u *url.URL) []*http.Cookie {
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []*http.Cookie
	for _, c := range j.cookies[u.Hostname()] {
		if c.Path == "" || strings.HasPrefix(u.Path, c.Path) {
			out = append(out, &http.Cookie{Name: c.Name, Value: c.Value})
		}
	}
	return out
}

// CookieValues returns the values of all cookies kept for the host name.
func (b *Browser) CookieValues(host string) []string {
	j := b.client.Jar.(*jar)
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []string
	for _, c := range j.cookies[host] {
		out = append(out, c.Value)
	}
	return out
}
