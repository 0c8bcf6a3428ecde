// Package metrics writes the Prometheus text format (version 0.0.4) and serves it
// on a loopback address, for one scraper on the same machine or behind a tunnel.
//
// It is no registry: whoever owns figures writes all of them into a Page each
// time somebody asks, so nothing is counted twice and no label outlives its
// thing. Labels must be bounded (bay names, classes, states): never numbers,
// people or texts. It decides nothing and has no state.
package metrics

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"custode/internal/fault"
)

// Page is one answer. Samples of one name must be written one after another.
type Page struct {
	b    bytes.Buffer
	last string
}

func (p *Page) head(name, kind, help string) {
	if p.last == name {
		return
	}
	p.last = name
	fmt.Fprintf(&p.b, "# HELP %s %s\n# TYPE %s %s\n", name, strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(help), name, kind)
}

// sample writes one line; labels are pairs of name and value.
func (p *Page) sample(name string, value float64, labels ...string) {
	p.b.WriteString(name)
	sep := byte('{')
	for i := 0; i+1 < len(labels); i += 2 {
		p.b.WriteByte(sep)
		fmt.Fprintf(&p.b, `%s="%s"`, labels[i], strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`).Replace(labels[i+1]))
		sep = ','
	}
	if sep == ',' {
		p.b.WriteByte('}')
	}
	p.b.WriteByte(' ')
	p.b.WriteString(strconv.FormatFloat(value, 'g', -1, 64))
	p.b.WriteByte('\n')
}

// Gauge writes a value that goes up and down.
func (p *Page) Gauge(name, help string, value float64, labels ...string) {
	p.head(name, "gauge", help)
	p.sample(name, value, labels...)
}

// Counter writes a value that only grows while the process lives. By custom the
// name ends in _total.
func (p *Page) Counter(name, help string, value float64, labels ...string) {
	p.head(name, "counter", help)
	p.sample(name, value, labels...)
}

// Bucket is a cumulative count up to Bound seconds; a negative Bound has no end.
type Bucket struct {
	Bound float64
	Count uint64
}

// Histogram writes a distribution in seconds.
func (p *Page) Histogram(name, help string, buckets []Bucket, sum float64, count uint64, labels ...string) {
	p.head(name, "histogram", help)
	for _, b := range buckets {
		le := "+Inf"
		if b.Bound >= 0 {
			le = strconv.FormatFloat(b.Bound, 'g', -1, 64)
		}
		p.sample(name+"_bucket", float64(b.Count), append(append([]string{}, labels...), "le", le)...)
	}
	p.sample(name+"_sum", sum, labels...)
	p.sample(name+"_count", float64(count), labels...)
}

// Bytes returns the page so far.
func (p *Page) Bytes() []byte { return p.b.Bytes() }

// Server answers GET /metrics.
type Server struct {
	addr  string
	write func(*Page)
	log   *slog.Logger
}

// NewServer returns a server for addr (host:port, loopback); write fills a page.
func NewServer(addr string, write func(*Page), log *slog.Logger) *Server {
	return &Server{addr, write, log}
}

// Run serves until ctx is cancelled. fault.Fatal when the address cannot be
// opened or is not a loopback one.
func (s *Server) Run(ctx context.Context) error {
	op := "serve metrics on " + s.addr
	ln, err := net.Listen("tcp", s.addr)
	if err != nil {
		return fault.New(fault.Fatal, op, err)
	}
	if a, ok := ln.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
		return errors.Join(fault.Newf(fault.Fatal, op, "not a loopback address"), ln.Close())
	}
	srv := &http.Server{Handler: s.handler(), ReadTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, MaxHeaderBytes: 8 << 10,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	down := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(down)
		limit, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = srv.Shutdown(limit)
	})
	err = srv.Serve(ln)
	if stop() {
		return fault.New(fault.Unavailable, op, err)
	}
	<-down
	return nil
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		var p Page
		s.write(&p)
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		if _, err := io.Copy(w, &p.b); err != nil {
			s.log.Debug("metrics not delivered", "error", err)
		}
	})
	return mux
}
