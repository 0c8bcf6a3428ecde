// Package admin is the local administration socket: the operator's subcommands
// ask the running daemon to change state, so that there is one writer of truth.
//
// It carries JSON over HTTP/1.1 on a Unix socket of mode 0600: POST /<method>
// with the argument as body; 200 with the result, or an error document with
// kind and text. Besides the file mode, every connection's peer credentials
// (SO_PEERCRED) are checked: the daemon's own user and root only. It decides
// nothing: the methods are functions given by cmd/custode; those that only look
// and are asked often begin with "watch/" and are logged at debug. Not for remote use.
package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"

	"custode/internal/fault"
)

// maxBody bounds a request and an answer, in octets.
const maxBody = 1 << 20

// Method answers one administrative request. arg is the JSON argument; the
// result is encoded as JSON. An error's kind and text reach the operator.
type Method func(ctx context.Context, arg []byte) (any, error)

// Server serves methods on a Unix socket.
type Server struct {
	path    string
	methods map[string]Method
	log     *slog.Logger
}

// NewServer returns a server for the socket at path. Nothing is opened yet.
func NewServer(path string, methods map[string]Method, log *slog.Logger) *Server {
	return &Server{path: path, methods: methods, log: log}
}

// Run serves until ctx is cancelled, and lets a method in progress end (5 s). A
// socket file left by a dead process is replaced; one that still answers is
// refused with fault.Conflict, a file that is no socket with fault.Fatal.
func (s *Server) Run(ctx context.Context) error {
	if err := s.removeStale(); err != nil {
		return err
	}
	old := unix.Umask(0o177)
	ln, err := net.Listen("unix", s.path)
	unix.Umask(old)
	if err != nil {
		return fault.New(fault.Fatal, "open administration socket "+s.path, err)
	}
	srv := &fasthttp.Server{
		Logger:             quiet{},
		MaxRequestBodySize: maxBody,
		ReadTimeout:        10 * time.Second,
		WriteTimeout:       10 * time.Second,
		Concurrency:        32,
		DisableKeepalive:   true,
	}
	// Calls in progress outlive ctx: the caller of Run closes what they use.
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	srv.Handler = func(c *fasthttp.RequestCtx) { s.handle(base, c) }
	down := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(down)
		limit, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = srv.ShutdownWithContext(limit)
	})
	err = srv.Serve(&peerListener{Listener: ln, log: s.log})
	if stop() {
		return fault.New(fault.Unavailable, "serve administration socket", err)
	}
	<-down
	return nil
}

// removeStale removes the socket of a dead process, and nothing else: a path
// that was mistyped in the configuration may name any file.
func (s *Server) removeStale() error {
	op := "open administration socket " + s.path
	info, err := os.Lstat(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fault.New(fault.Fatal, op, err)
	case info.Mode().Type() != fs.ModeSocket:
		return fault.Newf(fault.Fatal, op, "there is a file that is no socket")
	}
	if c, err := net.DialTimeout("unix", s.path, 5*time.Second); err == nil {
		c.Close()
		return fault.Newf(fault.Conflict, op, "another process serves it")
	}
	if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Fatal, op, err)
	}
	return nil
}

type answer struct {
	Result any    `json:"result,omitempty"`
	Kind   string `json:"kind,omitempty"`
	Error  string `json:"error,omitempty"`
}

func (s *Server) handle(ctx context.Context, c *fasthttp.RequestCtx) {
	name := string(bytes.TrimPrefix(c.Path(), []byte("/")))
	method, ok := s.methods[name]
	var a answer
	status := fasthttp.StatusOK
	switch {
	case !ok || !c.IsPost():
		status, a.Kind, a.Error = fasthttp.StatusNotFound, fault.NotFound.String(), "no such administrative method"
	default:
		body := c.PostBody()
		defer clear(body) // may have held a password
		result, err := method(ctx, body)
		if err != nil {
			status, a.Kind, a.Error = fasthttp.StatusUnprocessableEntity, fault.KindOf(err).String(), err.Error()
		}
		a.Result = result
		level := slog.LevelInfo
		if strings.HasPrefix(name, "watch/") && err == nil {
			level = slog.LevelDebug // a terminal view asks every second
		}
		s.log.Log(ctx, level, "administration", "method", name, "ok", err == nil)
	}
	c.SetStatusCode(status)
	c.SetContentType("application/json")
	if err := json.NewEncoder(c).Encode(a); err != nil {
		s.log.Error("administration: answer not encoded", "method", name, "error", err)
	}
}

// peerListener drops connections from other users. The file mode already keeps
// them out; this also holds when somebody loosened it.
type peerListener struct {
	net.Listener
	log *slog.Logger
}

func (l *peerListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		uid, err := peerUID(c)
		if err == nil && (uid == 0 || uid == uint32(os.Getuid())) {
			return c, nil
		}
		l.log.Warn("administration: connection of another user refused", "uid", uid, "error", err)
		c.Close()
	}
}

func peerUID(c net.Conn) (uint32, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return 0, errors.New("not a Unix socket")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return cred.Uid, nil
}

// quiet drops fasthttp's own error log: it may quote request octets.
type quiet struct{}

func (quiet) Printf(string, ...any) {}

// Call asks the daemon at the socket path for method with arg and decodes the
// result into out (nil: ignored). Errors: fault.Unavailable when no daemon
// answers, else the daemon's text under fault.Invalid, NotFound or Conflict.
func Call(path, method string, arg, out any) error {
	op := "ask the daemon for " + method
	body, err := json.Marshal(arg)
	if err != nil {
		return fault.New(fault.Internal, op, err)
	}
	defer clear(body)
	client := fasthttp.Client{
		Dial:                func(string) (net.Conn, error) { return net.Dial("unix", path) },
		MaxResponseBodySize: maxBody,
		ReadTimeout:         30 * time.Second,
		WriteTimeout:        10 * time.Second,
	}
	req, resp := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(req)
	defer fasthttp.ReleaseResponse(resp)
	req.SetRequestURI("http://admin/" + method)
	req.Header.SetMethod(fasthttp.MethodPost)
	req.SetBodyRaw(body)
	if err := client.DoTimeout(req, resp, 30*time.Second); err != nil {
		return fault.Newf(fault.Unavailable, op, "is custode serve running? %w", err)
	}
	var a struct {
		Result json.RawMessage `json:"result"`
		Kind   string          `json:"kind"`
		Error  string          `json:"error"`
	}
	if err := json.NewDecoder(io.LimitReader(bytes.NewReader(resp.Body()), maxBody)).Decode(&a); err != nil {
		return fault.New(fault.Internal, op, err)
	}
	if a.Error != "" {
		return fault.Newf(kindNamed(a.Kind), op, "%s", a.Error)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(a.Result, out); err != nil {
		return fault.New(fault.Internal, op, err)
	}
	return nil
}

func kindNamed(name string) fault.Kind {
	for k := fault.Internal; k <= fault.Expired; k++ {
		if k.String() == name {
			return k
		}
	}
	return fault.Internal
}
