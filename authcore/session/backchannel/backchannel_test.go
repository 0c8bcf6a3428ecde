package backchannel

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"custode/internal/fault"
)

func server(t *testing.T, h http.HandlerFunc) (*httptest.Server, *tls.Config) {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return s, &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
}

func TestSend(t *testing.T) {
	var got *http.Request
	var body []byte
	s, settings := server(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "text/xml; charset=utf-8")
		_, _ = w.Write([]byte("<answer/>"))
	})
	c := New(Config{Private: true, TLS: settings})
	answer, err := c.Send(t.Context(), s.URL+"/slo", []byte("<question/>"))
	if err != nil || string(answer) != "<answer/>" || string(body) != "<question/>" {
		t.Fatalf("%s, %v", answer, err)
	}
	if got.Method != http.MethodPost || got.Header.Get("Content-Type") != "text/xml; charset=utf-8" || got.Header.Get("SOAPAction") == "" {
		t.Errorf("%s %v", got.Method, got.Header)
	}
}

// TestRefusals: every answer that is none, and none of them followed.
func TestRefusals(t *testing.T) {
	followed := false
	for name, h := range map[string]http.HandlerFunc{
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/elsewhere" {
				followed = true
			}
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		},
		"error": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"html": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte("<answer/>"))
		},
		"endless": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/xml")
			for range 100 {
				if _, err := w.Write(bytes.Repeat([]byte(" "), 1<<12)); err != nil {
					return
				}
			}
		},
		"cut": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/xml")
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("<a"))
		},
	} {
		s, settings := server(t, h)
		if _, err := New(Config{Private: true, TLS: settings}).Send(t.Context(), s.URL, []byte("<q/>")); !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if followed {
		t.Error("a redirect was followed")
	}
	s, settings := server(t, func(http.ResponseWriter, *http.Request) { t.Error("a connection was made") })
	for name, c := range map[string]Config{"private address": {TLS: settings}, "unknown certificate": {Private: true}} {
		if _, err := New(c).Send(t.Context(), s.URL, []byte("<q/>")); !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, location := range []string{"http://127.0.0.1/", "ftp://sp.example.it/", "https://user@sp.example.it/", "https:///x", "sp", strings.Replace(s.URL, "https", "http", 1)} {
		if _, err := New(Config{Private: true}).Send(t.Context(), location, nil); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", location, err)
		}
	}
}

func TestSilence(t *testing.T) {
	quit := make(chan struct{})
	s, settings := server(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-quit:
		}
	})
	t.Cleanup(func() { close(quit) })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := New(Config{Private: true, TLS: settings}).Send(ctx, s.URL, nil); !fault.Is(err, fault.Unavailable) {
		t.Errorf("%v", err)
	}
}

func TestAddresses(t *testing.T) {
	for address, want := range map[string]struct{ public, private bool }{
		"203.0.113.7:443": {true, true}, "[2001:db8::1]:443": {true, true}, "10.1.2.3:443": {false, true}, "192.168.0.1:443": {false, true},
		"127.0.0.1:443": {false, true}, "[::1]:443": {false, true}, "[fd00::1]:443": {false, true}, "[::ffff:10.0.0.1]:443": {false, true},
		"169.254.169.254:80": {false, false}, "[fe80::1]:443": {false, false}, "0.0.0.0:443": {false, false}, "224.0.0.1:443": {false, false},
		"255.255.255.255:443": {false, false}, "nonsense": {false, false},
		// Shared by a provider's customers (RFC 6598): clouds keep their own servers there.
		"100.64.0.1:443": {false, true}, "100.100.100.200:80": {false, true}, "100.63.0.1:443": {true, true}, "100.128.0.1:443": {true, true},
		"0.1.2.3:443": {false, false}, "192.0.0.8:443": {false, false}, "198.18.0.1:443": {false, true}, "240.0.0.1:443": {false, false},
		// An IPv4 address in an IPv6 one: a translator or tunnel would go there.
		"[64:ff9b::a00:1]:443": {false, true}, "[64:ff9b::cb00:7107]:443": {true, true}, "[64:ff9b::a9fe:a9fe]:80": {false, false}, "[64:ff9b:1::1]:443": {false, false},
		"[2002:a00:1::1]:443": {false, false}, "[2001:0:1::1]:443": {false, false}, "[::7f00:1]:443": {false, false}, "[::ffff:0:a00:1]:443": {false, false},
		"[fec0::1]:443": {false, false}, "[2606:4700::1]:443": {true, true},
	} {
		if got := check(address, false) == nil; got != want.public {
			t.Errorf("%s: %v", address, got)
		}
		if got := check(address, true) == nil; got != want.private {
			t.Errorf("%s where private addresses are allowed: %v", address, got)
		}
	}
}
