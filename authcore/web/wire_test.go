package web

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"custode/authcore"
	"custode/authcore/saml"
	"custode/authcore/web/words"
	"custode/internal/fault"
	"custode/internal/id"
)

func dial(t testing.TB, room *testRoom) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(room.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// raw sends octets and returns everything until the server closes.
func raw(t testing.TB, room *testRoom, octets string) string {
	t.Helper()
	c := dial(t, room)
	if _, err := io.WriteString(c, octets); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Logf("write: %v", err) // the server may have closed already
	}
	b, err := io.ReadAll(c)
	if err != nil && len(b) == 0 {
		t.Fatalf("read: %v", err)
	}
	return string(b)
}

var headersOfEveryAnswer = []string{"Content-Security-Policy", "Referrer-Policy", "X-Content-Type-Options", "Cache-Control",
	"Permissions-Policy", "Cross-Origin-Opener-Policy", "Cross-Origin-Resource-Policy", "X-Frame-Options"}

// TestHostileOctets sends what a smuggler or a broken client sends. One answer
// must come back, with our headers, and the connection must end.
func TestHostileOctets(t *testing.T) {
	room := serve(t, func(c *Config) {
		c.Limits = Limits{Header: 8 << 10, Body: 4 << 10, Read: 2 * time.Second}
	})
	const smuggled = "0\r\n\r\nGET /metadata HTTP/1.1\r\nHost: x\r\n\r\n"
	const secretText = "s3cretCookie"
	post := "POST /flow/" + testFlowText + " HTTP/1.1\r\nHost: x\r\n"
	for name, c := range map[string]struct{ octets, status string }{
		"length and encoding": {post + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + smuggled, "400"},
		"encoding and length": {post + "transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n" + smuggled, "400"},
		"folded line":         {"GET /health HTTP/1.1\r\nHost: x\r\nX-A: b\r\n c: d\r\n\r\nGET /metadata HTTP/1.1\r\nHost: x\r\n\r\n", "400"},
		"folded with tab":     {"GET /health HTTP/1.1\r\nHost: x\r\nX-A: b\r\n\tc: d\r\n\r\n", "400"},
		"two lengths":         {post + "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcd", "400"},
		"blank before colon":  {"GET /health HTTP/1.1\r\nHost : x\r\nCookie: " + secretText + "\r\n\r\n", "400"},
		"NUL in a cookie":     {"GET /health HTTP/1.1\r\nHost: x\r\nCookie: a=" + secretText + "\x00b\r\n\r\n", "400"},
		"no host":             {"GET /health HTTP/1.1\r\nCookie: " + secretText + "\r\n\r\n", "400"},
		"huge header":         {"GET /health HTTP/1.1\r\nHost: x\r\nCookie: " + strings.Repeat(secretText, 900) + "\r\n\r\n", "431"},
		"huge body":           {post + "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 5000\r\n\r\n" + strings.Repeat(secretText, 420), "413"},
		"huge chunked body":   {post + "Transfer-Encoding: chunked\r\n\r\nffff\r\n" + strings.Repeat("a", 0xffff) + "\r\n0\r\n\r\n", "413"},
		"not HTTP":            {"password=" + secretText + "\r\n\r\n", "400"},
		"slow header":         {"GET /health HTTP/1.1\r\nHost: x\r\nCookie: " + secretText, "408"},
		"slow body":           {post + "Cookie: " + secretText + "\r\nContent-Length: 40\r\n\r\npassword=" + secretText, "408"},
	} {
		got := raw(t, room, c.octets)
		if n := strings.Count(got, "HTTP/1.1 "); n != 1 || !strings.HasPrefix(got, "HTTP/1.1 "+c.status) {
			t.Errorf("%s: %d answers:\n%s\nwant one %s", name, n, got, c.status)
			continue
		}
		if strings.Contains(got, "\r\nServer:") || strings.Contains(got, secretText) || !strings.Contains(got, "Connection: close") {
			t.Errorf("%s:\n%s", name, got)
		}
		for _, h := range headersOfEveryAnswer {
			if !strings.Contains(got, "\r\n"+h+": ") {
				t.Errorf("%s: no %s", name, h)
			}
		}
	}
	if log := room.log.String(); strings.Contains(log, secretText) || strings.Contains(log, "password=") {
		t.Errorf("request octets in the log:\n%s", log)
	} else if !strings.Contains(log, "http connection") {
		t.Errorf("fasthttp's logger is not ours:\n%s", log)
	}
}

func TestHeadersOnEveryAnswer(t *testing.T) {
	for _, https := range []bool{false, true} {
		room := serve(t, func(c *Config) {
			if https { // as behind a TLS terminator on the same box
				c.PublicURL, c.DevelopmentHTTP = "https://login.example.it", false
			}
		})
		room.logins.begin = func(authcore.Visitor) (id.FlowID, error) { return mustFlow(t, testFlowText), nil }
		style := room.pages.assets["style.css"]
		for _, c := range []struct {
			method, path string
			status       int
			contentType  string
		}{
			{"GET", "/", 200, "text/html; charset=utf-8"}, {"HEAD", "/", 200, "text/html; charset=utf-8"}, {"GET", "/?lang=en", 303, ""},
			{"GET", "/metadata", 200, "application/samlmetadata+xml"}, {"GET", "/health", 200, "application/json"},
			{"GET", style, 200, "text/css; charset=utf-8"}, {"GET", room.pages.assets["mark.svg"], 200, "image/svg+xml"},
			{"GET", room.pages.assets["handover.js"], 200, "text/javascript; charset=utf-8"},
			{"GET", "/static/../web.go", 404, "text/html; charset=utf-8"}, {"GET", "/static/", 404, "text/html; charset=utf-8"},
			{"GET", "/static/style.css", 404, "text/html; charset=utf-8"}, {"POST", style, 405, "text/html; charset=utf-8"},
			{"GET", "/nothing", 404, "text/html; charset=utf-8"}, {"DELETE", "/metadata", 405, "text/html; charset=utf-8"},
			{"GET", "/sso/redirect", 303, ""}, {"GET", "/sso/post", 403, "text/html; charset=utf-8"},
			{"GET", "/flow/" + testFlowText, 403, "text/html; charset=utf-8"}, {"GET", "/flow/x", 404, "text/html; charset=utf-8"},
			{"POST", "/flow/" + testFlowText, 403, "text/html; charset=utf-8"}, {"OPTIONS", "/flow/" + testFlowText, 405, "text/html; charset=utf-8"},
		} {
			resp, body := do(t, newReq(t, c.method, room.url+c.path, ""))
			if resp.StatusCode != c.status || resp.Header.Get("Content-Type") != c.contentType {
				t.Errorf("%s %s: %d %q", c.method, c.path, resp.StatusCode, resp.Header.Get("Content-Type"))
			}
			if c.method == "HEAD" && body != "" {
				t.Error("HEAD has a body")
			}
			for _, h := range headersOfEveryAnswer {
				if resp.Header.Get(h) == "" {
					t.Errorf("%s %s: no %s", c.method, c.path, h)
				}
			}
			if resp.Header.Get("Server") != "" {
				t.Errorf("Server: %q", resp.Header.Get("Server"))
			}
			if got := resp.Header.Get("Strict-Transport-Security") != ""; got != https {
				t.Errorf("%s: HSTS %v with https %v", c.path, got, https)
			}
			wantCache := "no-store"
			if strings.HasPrefix(c.path, "/static/") && c.status == 200 {
				wantCache = "public, max-age=31536000, immutable"
			} else if c.path == "/metadata" && c.status == 200 {
				wantCache = "public, max-age=300"
			}
			if got := resp.Header.Get("Cache-Control"); got != wantCache {
				t.Errorf("%s: Cache-Control %q", c.path, got)
			}
			if vary, page := resp.Header.Get("Vary"), strings.HasPrefix(c.contentType, "text/html"); (vary == "Accept-Language, Cookie") != (wantCache == "no-store") ||
				(resp.Header.Get("Content-Language") == "it") != page {
				t.Errorf("%s: Vary %q, Content-Language %q", c.path, vary, resp.Header.Get("Content-Language"))
			}
			csp := resp.Header.Get("Content-Security-Policy")
			if strings.Contains(csp, "unsafe") || strings.Contains(csp, "script-src") || !strings.Contains(csp, "default-src 'none'") ||
				!strings.Contains(csp, "frame-ancestors 'none'") || !strings.Contains(csp, "base-uri 'none'") || !strings.Contains(csp, "form-action 'self'") {
				t.Errorf("%s: %s", c.path, csp)
			}
		}
	}
}

// TestNothingAliasesFasthttp keeps what two requests of one connection brought:
// fasthttp reads the second into the memory of the first.
func TestNothingAliasesFasthttp(t *testing.T) {
	room := serve(t, nil)
	room.logins.begin = func(authcore.Visitor) (id.FlowID, error) { return mustFlow(t, testFlowText), nil }
	c := dial(t, room)
	in := bufio.NewReader(c)
	send := func(octets string) {
		if _, err := io.WriteString(c, octets); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil || resp.StatusCode != http.StatusSeeOther {
			t.Fatalf("%v %v", resp, err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
	}
	get := func(x string) {
		send("GET /sso/redirect?SAMLRequest=" + strings.Repeat(x, 40) + " HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	post := func(x string) {
		send("POST /sso/post HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 52\r\n\r\nSAMLRequest=" + strings.Repeat(x, 40))
	}
	get("a")
	post("b")
	query, form := room.requests.query, room.requests.samlRequest
	get("c")
	post("d")
	if string(query) != "SAMLRequest="+strings.Repeat("a", 40) || string(form) != strings.Repeat("b", 40) {
		t.Errorf("changed under the holder: %q, %q", query, form)
	}
}

func TestPanicIsAnsweredAndTellsNothing(t *testing.T) {
	room := serve(t, nil)
	for name, v := range map[string]any{"text": "pa55word", "error": errors.New("pa55word"), "runtime": nil} {
		room.logins.begin = func(authcore.Visitor) (id.FlowID, error) {
			if v == nil {
				var none []string
				_ = none[len(room.url)]
			}
			panic(v)
		}
		got := raw(t, room, "GET /sso/redirect?pa55word HTTP/1.1\r\nHost: x\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 500") || !strings.Contains(got, "Content-Security-Policy") || strings.Contains(got, "pa55word") {
			t.Errorf("%s: %s", name, got)
		}
	}
	if log := room.log.String(); strings.Contains(log, "pa55word") || !strings.Contains(log, "index out of range") || !strings.Contains(log, "stack=") {
		t.Errorf("log:\n%s", log)
	}
}

// TestNoSecretInTheLog walks through a login with secrets everywhere.
func TestNoSecretInTheLog(t *testing.T) {
	room := serve(t, nil)
	flow := mustFlow(t, testFlowText)
	secrets := []string{"Pa55.word", "918273", "mario.rossi", "RSSMRA80A01H501U", "rel4ystate", "S4MLrequest"}
	room.logins.begin = func(authcore.Visitor) (id.FlowID, error) { return flow, nil }
	room.logins.view = func(context.Context, id.FlowID, authcore.Visitor) (authcore.Outcome, error) {
		return authcore.Outcome{View: testView(t, authcore.StepConsent)}, nil
	}
	var last authcore.Answer
	room.logins.answer = func(_ id.FlowID, _ authcore.Visitor, a authcore.Answer) (authcore.Outcome, error) {
		last = a
		switch a.(type) {
		case authcore.CodeAnswer:
			return authcore.Outcome{}, fault.New(fault.Conflict, "verify code", nil)
		case authcore.ConsentAnswer:
			s := testSigned(saml.Success)
			s.RelayState = "rel4ystate"
			return authcore.Outcome{Response: s, Proof: recorded{}}, nil
		}
		return authcore.Outcome{}, fault.New(fault.Internal, "check password", nil)
	}
	do(t, newReq(t, "POST", room.url+"/sso/post", "SAMLRequest=S4MLrequest&RelayState=rel4ystate&RelayState=rel4ystate"))
	resp, _ := do(t, newReq(t, "GET", room.url+"/sso/redirect?SAMLRequest=S4MLrequest&RelayState=rel4ystate", ""))
	cookie := resp.Cookies()[0]
	k, ok := secretOf(cookie.Name+"="+cookie.Value, flow)
	if !ok {
		t.Fatal("no secret in the cookie")
	}
	secrets = append(secrets, cookie.Value, k.formToken(flow))
	for _, form := range []string{"action=password&username=mario.rossi&password=Pa55.word", "action=code&code=918273", "action=consent"} {
		do(t, newReq(t, "POST", room.url+"/flow/"+testFlowText, form+"&token="+k.formToken(flow),
			"Cookie", cookie.Name+"="+cookie.Value, "Origin", room.url))
		if last == nil {
			t.Fatal("the answer did not arrive")
		}
	}
	do(t, newReq(t, "GET", room.url+"/flow/"+testFlowText+"?n=rel4ystate", "", "Cookie", cookie.Name+"="+cookie.Value))
	log := room.log.String()
	for _, s := range secrets {
		if strings.Contains(log, s) {
			t.Errorf("%q is in the log:\n%s", s, log)
		}
	}
	for _, want := range []string{"route=sso-redirect", "route=flow", "status=303", "peer=127.0.0.1"} {
		if !strings.Contains(log, want) {
			t.Errorf("no %s in the log:\n%s", want, log)
		}
	}
}

func TestMetadataAndHealth(t *testing.T) {
	var sick error
	doc := []byte("<md:EntityDescriptor/>")
	room := newRoom(t, func(c *Config) {
		c.Health, c.Metadata = func() error { return sick }, func() []byte { return doc }
	})
	get := func(path string) answer {
		_, a := room.route(t.Context(), request{method: "GET", path: path, lang: words.Italian})
		return a
	}
	if a := get("/metadata"); a.status != 200 || string(a.body) != string(doc) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := get("/health"); a.status != 200 || string(a.body) != "{\"status\":\"ok\"}\n" {
		t.Errorf("%d %s", a.status, a.body)
	}
	sick, doc = errors.New("modem bay 3 is dead"), nil
	if a := get("/health"); a.status != 503 || string(a.body) != "{\"status\":\"unavailable\"}\n" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := get("/metadata"); a.status != 503 {
		t.Errorf("%d", a.status)
	}
}

func TestLimitOfConnectionsPerPeer(t *testing.T) {
	room := serve(t, func(c *Config) { c.Limits.ConnsPerPeer = 2 })
	ask := func(c net.Conn) error {
		if _, err := io.WriteString(c, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return err
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
		}
		return err
	}
	a, b := dial(t, room), dial(t, room)
	if err := errors.Join(ask(a), ask(b)); err != nil {
		t.Fatal(err)
	}
	if err := ask(dial(t, room)); err == nil {
		t.Error("a third connection was served")
	}
	if got := room.log.String(); !strings.Contains(got, "too many connections") {
		t.Errorf("log:\n%s", got)
	}
	a.Close()
	// The server sees the end a moment later: ask until the place is free.
	for end := time.Now().Add(10 * time.Second); ask(dial(t, room)) != nil; {
		if time.Now().After(end) {
			t.Fatal("the place was not given back")
		}
	}
}

func TestShutdownLetsARequestEnd(t *testing.T) {
	room := serve(t, nil)
	inside, release := make(chan struct{}), make(chan struct{})
	room.logins.view = func(ctx context.Context, _ id.FlowID, _ authcore.Visitor) (authcore.Outcome, error) {
		close(inside)
		<-release
		return authcore.Outcome{View: testView(t, authcore.StepCode)}, ctx.Err()
	}
	_, cookie := testSecret(t, mustFlow(t, testFlowText))
	got := make(chan string, 1)
	c := dial(t, room)
	go func() {
		fmt.Fprintf(c, "GET /flow/%s HTTP/1.1\r\nHost: x\r\nCookie: %s\r\n\r\n", testFlowText, cookie)
		b, _ := io.ReadAll(c)
		got <- string(b)
	}()
	<-inside
	room.stop()
	// New connections end while the old request still runs.
	for end := time.Now().Add(10 * time.Second); ; {
		n, err := net.Dial("tcp", strings.TrimPrefix(room.url, "http://"))
		if err != nil {
			break
		}
		n.Close()
		if time.Now().After(end) {
			t.Fatal("still accepting")
		}
	}
	close(release)
	if s := <-got; !strings.HasPrefix(s, "HTTP/1.1 200") || !strings.Contains(s, "Connection: close") {
		t.Errorf("%.300s", s)
	}
	if err := <-room.done; err != nil {
		t.Error(err)
	}
	room.done <- nil // for the clean-up
}

func TestShutdownCutsAtTheEnd(t *testing.T) {
	room := serve(t, func(c *Config) { c.Limits.Shutdown = 200 * time.Millisecond })
	inside := make(chan struct{})
	cut := make(chan error, 1)
	room.logins.view = func(ctx context.Context, _ id.FlowID, _ authcore.Visitor) (authcore.Outcome, error) {
		close(inside)
		<-ctx.Done()
		cut <- ctx.Err()
		return authcore.Outcome{}, fault.New(fault.Unavailable, "view", ctx.Err())
	}
	_, cookie := testSecret(t, mustFlow(t, testFlowText))
	fmt.Fprintf(dial(t, room), "GET /flow/%s HTTP/1.1\r\nHost: x\r\nCookie: %s\r\n\r\n", testFlowText, cookie)
	<-inside
	room.stop()
	if err := <-cut; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile, pool := selfSigned(t, dir)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	room := newRoom(t, func(c *Config) {
		c.PublicURL, c.CertFile, c.KeyFile = "https://localhost", certFile, keyFile
		c.Limits.Read = time.Second
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- room.Serve(ctx, ln) }()
	for version, ok := range map[uint16]bool{tls.VersionTLS13: true, tls.VersionTLS12: true, tls.VersionTLS11: false} {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
			TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: version, MaxVersion: version, ServerName: "localhost"}}}
		resp, err := client.Get("https://" + ln.Addr().String() + "/health")
		if (err == nil) != ok {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
		if err == nil {
			resp.Body.Close()
			if resp.Header.Get("Strict-Transport-Security") == "" || resp.TLS == nil {
				t.Error("no HSTS over TLS")
			}
		}
	}
	// A handshake that never comes is cut like a slow header.
	silent, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if err := silent.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(silent); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a silent TLS connection was kept")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	room.cfg.KeyFile = filepath.Join(dir, "absent")
	ln, err = net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := room.Serve(t.Context(), ln); !fault.Is(err, fault.Fatal) {
		t.Errorf("without a key: %v", err)
	}
}

func selfSigned(t *testing.T, dir string) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := errors.Join(os.WriteFile(certFile, certPEM, 0o600),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600)); err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return certFile, keyFile, pool
}

func TestNewRefuses(t *testing.T) {
	good := newRoom(t, nil).cfg
	for name, change := range map[string]func(*Config){
		"http":              func(c *Config) { c.PublicURL = "http://login.example.it" },
		"http localhost":    func(c *Config) { c.PublicURL = "http://localhost" },
		"dev, not loopback": func(c *Config) { c.PublicURL, c.DevelopmentHTTP = "http://login.example.it", true },
		"dev, lookalike":    func(c *Config) { c.PublicURL, c.DevelopmentHTTP = "http://localhost.example.it", true },
		"path":              func(c *Config) { c.PublicURL = "https://login.example.it/spid" },
		"no scheme":         func(c *Config) { c.PublicURL = "login.example.it" },
		"ftp":               func(c *Config) { c.PublicURL = "ftp://login.example.it" },
		"password in URL":   func(c *Config) { c.PublicURL = "https://a:b@login.example.it" },
		"no logins":         func(c *Config) { c.Logins = nil },
		"no random":         func(c *Config) { c.Random = nil },
		"no life":           func(c *Config) { c.FlowLife = 0 },
		"long life":         func(c *Config) { c.FlowLife = 24 * time.Hour },
		"half a key":        func(c *Config) { c.CertFile = "cert.pem" },
	} {
		cfg := good
		change(&cfg)
		if _, err := New(cfg); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Development over http never listens to the network.
	room := newRoom(t, func(c *Config) { c.PublicURL, c.DevelopmentHTTP, c.Listen = "http://localhost:8080", true, "0.0.0.0:0" })
	if err := room.Run(t.Context()); !fault.Is(err, fault.Invalid) {
		t.Errorf("development on every address: %v", err)
	}
}
