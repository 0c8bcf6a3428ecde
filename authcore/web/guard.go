package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/valyala/fasthttp"

	"custode/authcore/web/crowd"
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
			s.cfg.Log.Warn("request refused", "reason", "ambiguous framing", "peer", crowd.PeerOf(c.RemoteAddr()).String())
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
	s.cfg.Log.Log(context.Background(), level, "request refused", "reason", errorClass(err), "status", status, "peer", crowd.PeerOf(c.RemoteAddr()).String())
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
