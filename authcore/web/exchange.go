package web

import (
	"bytes"
	"context"
	"net/http"
	"net/netip"
	"strings"

	"github.com/valyala/fasthttp"

	"custode/authcore/web/crowd"
	"custode/internal/id"
)

// request is what a handler needs of an HTTP request, copied out of fasthttp's
// memory.
type request struct {
	method      string
	path        string // as received, not decoded: every route is plain ASCII
	query       []byte // as received, without "?"; nil when there is none
	body        []byte
	contentType string
	cookies     string
	language    string // Accept-Language
	origin      string
	site        string // Sec-Fetch-Site
	peer        netip.Addr
	agent       string // User-Agent, what is printable of its first octets
	lang        string // chosen: a tag of words.Languages
}

func copyIn(c *fasthttp.RequestCtx) request {
	h := &c.Request.Header
	path, query, _ := bytes.Cut(h.RequestURI(), []byte("?"))
	r := request{
		method:      string(h.Method()),
		path:        string(path),
		query:       bytes.Clone(query),
		body:        bytes.Clone(c.Request.Body()),
		contentType: string(h.ContentType()),
		cookies:     string(h.Peek("Cookie")),
		language:    string(h.Peek("Accept-Language")),
		origin:      string(h.Peek("Origin")),
		site:        string(h.Peek("Sec-Fetch-Site")),
		peer:        crowd.PeerOf(c.RemoteAddr()),
		agent:       agentOf(h.UserAgent()),
	}
	r.lang = chooseLanguage(r.cookies, r.language)
	return r
}

// agentOf keeps the name that a browser gives itself fit for a log.
func agentOf(b []byte) string {
	const most = 200
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, string(b[:min(len(b), most)]))
}

func (r *request) isGet() bool {
	return r.method == http.MethodGet || r.method == http.MethodHead
}

// methodForLog keeps invented methods out of the log.
func (r *request) methodForLog() string {
	switch r.method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions, http.MethodPatch:
		return r.method
	}
	return "other"
}

// answer is what goes back.
type answer struct {
	status      int
	contentType string
	language    string // of a page; "" for what has none
	body        []byte
	location    string   // for 303: a path of our own, or where metadata says that a message goes
	cookies     []string // Set-Cookie values
	csp         string   // "": the policy of pages
	referrer    string   // "": same-origin
	cache       string   // "": no-store
	retryAfter  int      // seconds; 0: no header
	allow       string   // with 405
}

func (s *Server) writeOut(c *fasthttp.RequestCtx, r request, a answer) {
	c.SetStatusCode(a.status)
	s.setHeaders(&c.Response.Header, a)
	for _, v := range a.cookies {
		c.Response.Header.Add("Set-Cookie", v)
	}
	if a.contentType != "" {
		c.Response.Header.SetContentType(a.contentType)
	}
	c.SetBody(a.body)
}

// route finds the handler. The names it returns are for logs.
func (s *Server) route(ctx context.Context, r request) (string, answer) {
	if name, ok := strings.CutPrefix(r.path, "/static/"); ok {
		return "static", s.static(r, name)
	}
	if text, ok := strings.CutPrefix(r.path, "/flow/"); ok {
		return "flow", s.flow(ctx, r, text)
	}
	if s.cfg.Sessions != nil {
		if name, a, ok := s.sessionRoute(ctx, r); ok {
			return name, a
		}
	}
	if name, a, ok := s.appRoute(ctx, r); ok {
		return name, a
	}
	switch r.path {
	case "/sso/redirect":
		return "sso-redirect", s.ssoRedirect(ctx, r)
	case "/sso/post":
		return "sso-post", s.ssoPost(ctx, r)
	}
	h := map[string]func(request) answer{"/": s.home, "/metadata": s.metadata, "/health": s.health}[r.path]
	switch {
	case h == nil:
		return "unknown", s.message(r, http.StatusNotFound, "notfound")
	case !r.isGet():
		return r.path[1:], s.wrongMethod(r, "GET, HEAD")
	}
	return r.path[1:], h(r)
}

func (s *Server) flow(ctx context.Context, r request, text string) answer {
	flow, err := id.ParseFlowID(text)
	switch {
	case err != nil:
		return s.message(r, http.StatusNotFound, "unknown")
	case r.isGet():
		return s.flowPage(ctx, r, flow)
	case r.method == http.MethodPost:
		return s.flowAnswer(ctx, r, flow)
	}
	return s.wrongMethod(r, "GET, HEAD, POST")
}

func (s *Server) wrongMethod(r request, allow string) answer {
	a := s.message(r, http.StatusMethodNotAllowed, "method")
	a.allow = allow
	return a
}

func (s *Server) home(r request) answer {
	if a, ok := s.switchLanguage(r, "/"); ok {
		return a
	}
	p := s.newPage(r, "home")
	p.EntityID = s.cfg.EntityID.String()
	p.HasSessions = s.cfg.Sessions != nil
	p.Path = "/"
	return s.render(p, http.StatusOK)
}

func (s *Server) metadata(r request) answer {
	doc := s.cfg.Metadata()
	if len(doc) == 0 {
		return s.anomaly(r, 2)
	}
	return answer{status: http.StatusOK, contentType: "application/samlmetadata+xml", body: doc, cache: "public, max-age=300"}
}

// health tells a probe yes or no; the reasons are in the log.
func (s *Server) health(request) answer {
	a := answer{status: http.StatusOK, contentType: "application/json", body: []byte(`{"status":"ok"}` + "\n")}
	if err := s.cfg.Health(); err != nil {
		s.cfg.Log.Warn("not healthy", "error", err)
		a.status, a.body = http.StatusServiceUnavailable, []byte(`{"status":"unavailable"}`+"\n")
	}
	return a
}
