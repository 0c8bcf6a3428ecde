// Package web is the door of the login: HTTP/1.1 on fasthttp, pages on
// html/template, and nothing of the login's rules.
//
// A handler has three duties: copy what it needs out of the request into a
// plain struct, call [Logins] or [Requests], write the reply out. The fasthttp
// context is never stored, passed inward or captured by a goroutine, and every
// slice taken from it is copied, because fasthttp reuses its memory for the
// next request.
//
// Wire formats: SAML HTTP-Redirect on GET /sso/redirect and HTTP-POST on POST
// /sso/post (the octets go to Requests untouched); pages of a flow at
// /flow/{id}, answered by application/x-www-form-urlencoded posts and
// post-redirect-get; single logout on /slo/redirect, /slo/post and /slo/soap, its
// steps at /logout/{id}, the session's page at /session; the Response leaves as an auto-submitting HTML form to
// the assertion consumer service. Cookies are __Host- cookies: one random
// secret per flow, whose SHA-256 is all that authcore ever sees, and the
// language. Forms carry a token derived from the flow's secret.
//
// It is not a general web framework: there is no router to configure, no
// session, no file server, no compression, no HTTP/2 (fasthttp speaks HTTP/1.1)
// and no proxy header is believed: the peer is who opened the connection.
//
// It is the only package that may import fasthttp besides internal/admin. It
// imports authcore and authcore/saml for their words, never for their work;
// cmd/custode imports it.
package web

import (
	"cmp"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"time"

	"github.com/valyala/fasthttp"

	"custode/authcore"
	"custode/authcore/register"
	"custode/authcore/saml"
	"custode/authcore/saml/logout"
	"custode/authcore/session"
	"custode/authcore/web/crowd"
	"custode/authcore/web/words"
	"custode/internal/fault"
	"custode/internal/id"
)

// Logins drives flows; authcore.Login is one.
type Logins interface {
	// Begin starts a flow for the browser of v.
	Begin(ctx context.Context, r saml.VerifiedRequest, v authcore.Visitor) (id.FlowID, error)
	// View tells what the flow's current page shows.
	View(ctx context.Context, flow id.FlowID, v authcore.Visitor) (authcore.Outcome, error)
	// Answer takes one step. A second click on the last button gets the Response
	// of the first.
	Answer(ctx context.Context, flow id.FlowID, v authcore.Visitor, a authcore.Answer) (authcore.Outcome, error)
	// Refuse signs the error Response to a request that broke a rule; it is
	// asked only about a refusal with a Reply.
	Refuse(ctx context.Context, r *saml.Refusal) (authcore.Outcome, error)
}

// Requests verifies AuthnRequests; errors are *saml.Refusal. The slices are
// copies that the implementation may keep.
type Requests interface {
	// Redirect takes the query as received, still percent-encoded, without "?".
	Redirect(rawQuery []byte, now time.Time) (saml.VerifiedRequest, error)
	// Post takes the decoded values of the form fields.
	Post(samlRequest, relayState []byte, hasRelayState bool, now time.Time) (saml.VerifiedRequest, error)
}

// Sessions is single sign-on within a browser and its end (session.Sessions).
type Sessions interface {
	// View tells what the session page shows.
	View(ctx context.Context, cookie [32]byte) (session.View, error)
	// Leave ends the session because the person asked.
	Leave(ctx context.Context, cookie, browser [32]byte) (id.LogoutID, error)
	// Arrive takes a message that came through the browser.
	Arrive(ctx context.Context, v logout.Verified, browser [32]byte) (session.Next, error)
	// SOAP takes a request that came over SOAP.
	SOAP(ctx context.Context, v logout.Verified) (*logout.Message, error)
	// Step makes a move in a logout. cookie is the session's, if there is one.
	Step(ctx context.Context, which id.LogoutID, cookie, browser [32]byte, m session.Move) (session.Page, error)
}

// LogoutMessages verifies logout messages (logout.Reader). The slices are copies
// that the implementation may keep.
type LogoutMessages interface {
	Redirect(rawQuery []byte, now time.Time) (logout.Verified, error)
	Post(parameter string, message, relayState []byte, hasRelayState bool, now time.Time) (logout.Verified, error)
	SOAP(envelope []byte, now time.Time) (logout.Verified, error)
}

// Config says what a Server serves. All fields without a stated default are
// required.
type Config struct {
	// PublicURL is scheme and host (and port) under which browsers reach the
	// server, for example "https://login.example.it". It must be https, except
	// for DevelopmentHTTP.
	PublicURL string
	EntityID  id.EntityID // shown on the landing page
	Name      string      // of the identity provider, on every page; "": "Custode"
	Links     Links       // to its other sites
	Listen    string      // host:port for Run
	// CertFile and KeyFile are PEM files for TLS; both empty means that the
	// listener is plain (development, or a TLS terminator on the same box).
	CertFile, KeyFile string
	// DevelopmentHTTP allows an http PublicURL. Then its host must be localhost
	// or a loopback address and Serve refuses any listener that is not on a
	// loopback address. Browsers treat http://localhost as trustworthy, so the
	// cookies are the same as in production.
	DevelopmentHTTP bool

	Watch    register.Watch // the security log
	Logins   Logins
	Requests Requests
	// Sessions and LogoutMessages serve single logout and the session page; both
	// nil: their addresses do not exist.
	Sessions       Sessions
	LogoutMessages LogoutMessages
	Apps           Apps          // activation of apps; nil: its addresses do not exist
	SessionLife    time.Duration // how long a session may last; 0: 2 hours

	Metadata func() []byte // the signed metadata document; nil or empty: 503
	Health   func() error  // nil when fit to serve; must be cheap

	Random   io.Reader        // cookie secrets and nonces; a CSPRNG
	Now      func() time.Time // the clock
	Log      *slog.Logger
	FlowLife time.Duration // Max-Age of a flow's cookie; at most 1 hour
	Limits   Limits
}

// Limits bounds what one peer or all of them can take. A zero field means the
// default given with it.
type Limits struct {
	Conns        int           // open connections: 4096
	ConnsPerPeer int           // per IPv4 address or IPv6 /64: 256; negative: no limit
	Body         int           // octets of a request body: 256 KiB
	Header       int           // octets of request line and header: 32 KiB
	Read         time.Duration // to receive a request: 10 s
	Write        time.Duration // to send an answer: 20 s
	Idle         time.Duration // between two requests: 30 s
	Handle       time.Duration // for a call of Logins: 20 s
	Shutdown     time.Duration // for requests in progress at the end: 15 s
}

func (l *Limits) fill() {
	l.Conns = cmp.Or(l.Conns, 4096)
	l.ConnsPerPeer = cmp.Or(l.ConnsPerPeer, 256)
	l.Body = cmp.Or(l.Body, 256<<10)
	l.Header = cmp.Or(l.Header, 32<<10)
	l.Read = cmp.Or(l.Read, 10*time.Second)
	l.Write = cmp.Or(l.Write, 20*time.Second)
	l.Idle = cmp.Or(l.Idle, 30*time.Second)
	l.Handle = cmp.Or(l.Handle, 20*time.Second)
	l.Shutdown = cmp.Or(l.Shutdown, 15*time.Second)
}

// Server answers browsers. Make one with New.
type Server struct {
	cfg    Config
	origin string // of PublicURL, as browsers write it in Origin
	https  bool
	pages  *pages
	assets map[string]asset
}

// New checks cfg and parses every template; a defect is fault.Invalid. It
// starts nothing.
func New(cfg Config) (*Server, error) {
	if cfg.Logins == nil || cfg.Requests == nil || cfg.Watch == nil || cfg.Metadata == nil || cfg.Health == nil ||
		cfg.Random == nil || cfg.Now == nil || cfg.Log == nil {
		return nil, fault.Newf(fault.Invalid, "build web server", "a required part of the configuration is nil")
	}
	if (cfg.Sessions == nil) != (cfg.LogoutMessages == nil) {
		return nil, fault.Newf(fault.Invalid, "build web server", "sessions need logout messages and the reverse")
	}
	cfg.SessionLife = cmp.Or(cfg.SessionLife, 2*time.Hour)
	if cfg.FlowLife < time.Minute || cfg.FlowLife > time.Hour {
		return nil, fault.Newf(fault.Invalid, "build web server", "flow life %v is not between 1m and 1h", cfg.FlowLife)
	}
	if (cfg.CertFile == "") != (cfg.KeyFile == "") {
		return nil, fault.Newf(fault.Invalid, "build web server", "a certificate file needs a key file and the reverse")
	}
	if err := cfg.Links.check(); err != nil {
		return nil, err
	}
	cfg.Name = cmp.Or(words.Name(cfg.Name), "Custode")
	cfg.Limits.fill()
	s := &Server{cfg: cfg}
	if err := s.setOrigin(); err != nil {
		return nil, err
	}
	var err error
	if s.assets, err = loadAssets(); err != nil {
		return nil, err
	}
	s.pages, err = newPages(s.assets)
	return s, err
}

func (s *Server) setOrigin() error {
	const op = "parse public URL"
	u, err := url.Parse(s.cfg.PublicURL)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || (u.Path != "" && u.Path != "/") {
		return fault.Newf(fault.Invalid, op, "%q is not scheme://host", s.cfg.PublicURL)
	}
	switch {
	case u.Scheme == "https":
	case u.Scheme == "http" && !s.cfg.DevelopmentHTTP:
		return fault.Newf(fault.Invalid, op, "%q is not https", s.cfg.PublicURL)
	case u.Scheme == "http":
		if a, err := netip.ParseAddr(u.Hostname()); u.Hostname() != "localhost" && (err != nil || !a.IsLoopback()) {
			return fault.Newf(fault.Invalid, op, "development over http is for localhost, not %q", u.Hostname())
		}
	default:
		return fault.Newf(fault.Invalid, op, "scheme %q", u.Scheme)
	}
	s.https = u.Scheme == "https"
	s.origin = u.Scheme + "://" + u.Host
	return nil
}

// Run listens on Config.Listen and serves until ctx is cancelled.
func (s *Server) Run(ctx context.Context) error {
	ln, err := net.Listen("tcp", s.cfg.Listen)
	if err != nil {
		return fault.New(fault.Unavailable, "listen on "+s.cfg.Listen, err)
	}
	return s.Serve(ctx, ln)
}

// Serve answers on ln until ctx is cancelled, then stops accepting, lets the
// requests in progress end (Limits.Shutdown) and returns nil. It closes ln. The
// certificate is read here: a renewed one needs a restart.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	defer ln.Close()
	if s.cfg.DevelopmentHTTP && !s.https && !isLoopback(ln.Addr()) {
		return fault.Newf(fault.Invalid, "serve on "+ln.Addr().String(), "development over http is for loopback addresses only")
	}
	limited := crowd.Limit(ln, s.cfg.Limits.Conns, s.cfg.Limits.ConnsPerPeer, s.cfg.Log)
	var serveOn net.Listener = limited
	if s.cfg.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(s.cfg.CertFile, s.cfg.KeyFile)
		if err != nil {
			return fault.New(fault.Fatal, "load TLS certificate "+s.cfg.CertFile, err)
		}
		serveOn = tls.NewListener(limited, &tls.Config{
			MinVersion:   tls.VersionTLS12,
			Certificates: []tls.Certificate{cert},
			NextProtos:   []string{"http/1.1"},
		})
	}
	// Calls in progress outlive ctx by the time that shutting down allows.
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	srv := s.fasthttp(base)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(serveOn) }()
	s.cfg.Log.Info("web server listens", "address", ln.Addr().String(), "tls", s.cfg.CertFile != "")
	select {
	case err := <-done:
		return fault.New(fault.Unavailable, "serve on "+ln.Addr().String(), err)
	case <-ctx.Done():
	}
	grace, stop := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Limits.Shutdown)
	defer stop()
	if err := srv.ShutdownWithContext(grace); err != nil {
		cancel() // what still runs is told to end
		limited.CloseAll()
		s.cfg.Log.Warn("web server cut requests in progress", "after", s.cfg.Limits.Shutdown)
	}
	<-done
	return nil
}

func (s *Server) fasthttp(base context.Context) *fasthttp.Server {
	l := s.cfg.Limits
	return &fasthttp.Server{
		Handler:               s.handler(base),
		ErrorHandler:          s.unreadable,
		Logger:                redacted{s.cfg.Log},
		SecureErrorLogMessage: true,
		NoDefaultServerHeader: true,
		NoDefaultContentType:  true,
		CloseOnShutdown:       true,
		// The listener counts connections; fasthttp must never reach its own
		// limit, because it then answers within the accepting loop, where a TLS
		// handshake that never ends would stop the server.
		Concurrency:        2 * l.Conns,
		ReadBufferSize:     l.Header,
		MaxRequestBodySize: l.Body,
		ReadTimeout:        l.Read,
		WriteTimeout:       l.Write,
		IdleTimeout:        l.Idle,
		// An idle connection keeps no buffer of what went over it.
		ReduceMemoryUsage: true,
		// A multipart body is never wanted: do not parse one.
		DisablePreParseMultipartForm: true,
	}
}

func isLoopback(a net.Addr) bool {
	ap, err := netip.ParseAddrPort(a.String())
	return err == nil && ap.Addr().IsLoopback()
}
