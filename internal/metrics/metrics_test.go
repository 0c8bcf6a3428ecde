package metrics

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"custode/internal/fault"
)

func TestPage(t *testing.T) {
	var p Page
	p.Gauge("a", "what\nit is", 1.5, "bay", `x"\`+"\n")
	p.Gauge("a", "what\nit is", 2, "bay", "y")
	p.Counter("b_total", "h", 3)
	p.Histogram("c_seconds", "h", []Bucket{{0.5, 1}, {-1, 2}}, 7.25, 2, "class", "code")
	want := `# HELP a what\nit is
# TYPE a gauge
a{bay="x\"\\\n"} 1.5
a{bay="y"} 2
# HELP b_total h
# TYPE b_total counter
b_total 3
# HELP c_seconds h
# TYPE c_seconds histogram
c_seconds_bucket{class="code",le="0.5"} 1
c_seconds_bucket{class="code",le="+Inf"} 2
c_seconds_sum{class="code"} 7.25
c_seconds_count{class="code"} 2
`
	if d := cmp.Diff(want, string(p.Bytes())); d != "" {
		t.Error(d)
	}
}

func TestServer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // a free port, for a moment ours
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	s := NewServer(addr, func(p *Page) { p.Gauge("x", "h", 1) }, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var resp *http.Response
	for limit := time.Now().Add(5 * time.Second); ; {
		if resp, err = http.Get("http://" + addr + "/metrics"); err == nil || time.Now().After(limit) {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || !strings.Contains(string(body), "x 1\n") || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Errorf("%v %q %v", err, body, resp.Header)
	}
	http.DefaultClient.CloseIdleConnections()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := NewServer("0.0.0.0:0", nil, slog.Default()).Run(t.Context()); !fault.Is(err, fault.Fatal) {
		t.Errorf("an address for everybody: %v", err)
	}
	w := httptest.NewRecorder()
	s.handler().ServeHTTP(w, httptest.NewRequest("POST", "/metrics", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
}
