package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"
)

// handler copies the request in, has it answered and writes the answer out.
// base is the parent of every call's context: never the fasthttp context, which
// is reused.
func (s *Server) handler(base context.Context) fasthttp.RequestHandler {
	return func(c *fasthttp.RequestCtx) {
		began := s.cfg.Now()
		defer s.recovered(c)
		if framingIsAmbiguous(c.Request.Header.RawHeaders()) {
			s.plain(c, fasthttp.StatusBadRequest)
			s.cfg.Log.Warn("request refused", "reason", "ambiguous framing", "peer", peerOf(c.RemoteAddr()).String())
			return
		}
		r := copyIn(c)
		ctx, cancel := context.WithTimeout(base, s.cfg.Limits.Handle)
		defer cancel()
		route, a := s.route(ctx, r)
		s.writeOut(c, r, a)
		s.cfg.Log.Info("request", "route", route, "method", r.methodForLog(), "status", a.status,
			"ms", s.cfg.Now().Sub(began).Milliseconds(), "peer", r.peer.String())
	}
}

// recovered turns a panic into anomaly 3. fasthttp itself would end the
// process. The panic's value may quote the request, so only its type is told,
// or the text when it is the runtime's own (indices and addresses).
func (s *Server) recovered(c *fasthttp.RequestCtx) {
	v := recover()
	if v == nil {
		return
	}
	what := fmt.Sprintf("%T", v)
	if e, ok := v.(runtime.Error); ok {
		what = e.Error()
	}
	s.cfg.Log.Error("panic in handler", "panic", what, "stack", string(debug.Stack()))
	s.plain(c, fasthttp.StatusInternalServerError)
}

// plain answers without a template, closing the connection.
func (s *Server) plain(c *fasthttp.RequestCtx, status int) {
	c.Response.Reset()
	c.SetStatusCode(status)
	s.setHeaders(&c.Response.Header, answer{status: status})
	c.Response.Header.SetContentType("text/plain; charset=utf-8")
	c.SetBodyString(fasthttp.StatusMessage(status) + "\n")
	c.SetConnectionClose()
}

// unreadable answers what fasthttp could not read as a request. It must not
// look at the half-read request.
func (s *Server) unreadable(c *fasthttp.RequestCtx, err error) {
	status := fasthttp.StatusBadRequest
	var small *fasthttp.ErrSmallBuffer
	switch {
	case errors.As(err, &small):
		status = fasthttp.StatusRequestHeaderFieldsTooLarge
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		status = fasthttp.StatusRequestEntityTooLarge
	case isTimeout(err):
		status = fasthttp.StatusRequestTimeout
	}
	s.plain(c, status)
	// Browsers open connections ahead of need: one that stays silent is no event.
	level := slog.LevelWarn
	if status == fasthttp.StatusRequestTimeout {
		level = slog.LevelDebug
	}
	s.cfg.Log.Log(context.Background(), level, "request refused", "reason", errorClass(err), "status", status, "peer", peerOf(c.RemoteAddr()).String())
}

// framingIsAmbiguous reports header blocks that fasthttp 1.74 accepts and
// another parser in front of it may frame differently (RFC 9112 6.3 item 3 and
// 5.2): Content-Length together with Transfer-Encoding, and folded lines.
func framingIsAmbiguous(raw []byte) bool {
	var length, encoding bool
	for line := range bytes.SplitSeq(raw, []byte("\n")) {
		if len(line) > 0 && (line[0] == ' ' || line[0] == '\t') {
			return true
		}
		name, _, _ := bytes.Cut(line, []byte(":"))
		length = length || bytes.EqualFold(name, []byte("Content-Length"))
		encoding = encoding || bytes.EqualFold(name, []byte("Transfer-Encoding"))
	}
	return length && encoding
}

// redacted is fasthttp's logger. fasthttp quotes request octets in its messages
// (a Cookie with a NUL even with SecureErrorLogMessage), so the text is dropped
// and only the class of an error argument is kept.
type redacted struct{ log *slog.Logger }

// Printf logs that fasthttp had something to say, and nothing of what it said.
func (r redacted) Printf(_ string, args ...any) {
	class := "note"
	for _, a := range args {
		if err, ok := a.(error); ok {
			class = errorClass(err)
		}
	}
	r.log.Warn("http connection", "class", class)
}

// errorClass names an error without repeating its text.
func errorClass(err error) string {
	var small *fasthttp.ErrSmallBuffer
	switch {
	case isTimeout(err):
		return "timeout"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection ended early"
	case errors.Is(err, net.ErrClosed):
		return "connection closed"
	case errors.As(err, &small):
		return "header too large"
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		return "body too large"
	}
	return "malformed request"
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.Is(err, os.ErrDeadlineExceeded) || (errors.As(err, &t) && t.Timeout())
}

// peerOf returns the address of a connection's other end, unmapped and without
// a zone; the zero Addr when it is not an IP address.
func peerOf(a net.Addr) netip.Addr {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// peerListener closes connections beyond the limits. fasthttp's MaxConnsPerIP
// counts IPv4 peers only, and what it answers beyond its limits lacks our
// headers and is written in the accepting loop.
type peerListener struct {
	net.Listener
	total int // connections of all peers
	limit int // of one peer; not positive: none
	log   *slog.Logger

	mu    sync.Mutex
	open  map[netip.Prefix]int
	conns map[*peerConn]struct{}
	told  time.Time
}

// acceptPause is how long accepting rests when the system has no room for one
// more connection.
const acceptPause = 20 * time.Millisecond

// passing reports whether accepting may go on after err: another program, or
// a crowd of our own peers, holds what it takes.
func passing(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Accept returns the next connection within the limits. fasthttp ends at the
// first error, so a shortage is waited out here.
func (l *peerListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if passing(err) {
			l.tell("cannot accept a connection", "error", err)
			time.Sleep(acceptPause)
			continue
		}
		if err != nil {
			return nil, err
		}
		if pc := l.admit(c); pc != nil {
			return pc, nil
		}
		_ = c.Close()
	}
}

func (l *peerListener) admit(c net.Conn) net.Conn {
	p := network(peerOf(c.RemoteAddr()))
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.conns) >= l.total || (l.limit > 0 && l.open[p] >= l.limit) {
		l.tell("too many connections", "open", len(l.conns), "peer", p.String(), "of the peer", l.open[p])
		return nil
	}
	l.open[p]++
	pc := &peerConn{Conn: c, list: l, peer: p}
	if l.conns == nil {
		l.conns = map[*peerConn]struct{}{}
	}
	l.conns[pc] = struct{}{}
	return pc
}

// tell warns at most once a minute.
func (l *peerListener) tell(what string, args ...any) {
	if now := time.Now(); now.Sub(l.told) > time.Minute { // real time: only paces the log
		l.told = now
		l.log.Warn(what, args...)
	}
}

func (l *peerListener) closeAll() {
	l.mu.Lock()
	var all []*peerConn
	for c := range l.conns {
		all = append(all, c)
	}
	l.mu.Unlock()
	for _, c := range all {
		_ = c.Close()
	}
}

// network is what counts as one peer: an IPv4 address or an IPv6 /64, the
// smallest block a line is given.
func network(a netip.Addr) netip.Prefix {
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

type peerConn struct {
	net.Conn
	list *peerListener
	peer netip.Prefix
	once sync.Once
}

// Close closes the connection and gives its place back, once.
func (c *peerConn) Close() error {
	c.once.Do(func() {
		c.list.mu.Lock()
		defer c.list.mu.Unlock()
		delete(c.list.conns, c)
		if c.list.open[c.peer]--; c.list.open[c.peer] <= 0 {
			delete(c.list.open, c.peer)
		}
	})
	return c.Conn.Close()
}
