// Package tsasim is a time-stamping authority (RFC 3161 over HTTP) for tests and
// the demo: not qualified, with keys made at start and lost at the end. It is
// honest until it is told to misbehave, one fault at a time. It has a root, and
// an authority certified by it for time-stamping alone.
package tsasim

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // SHA-256
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/digitorus/timestamp"
)

// Fault is one way to misbehave.
type Fault int

// Faults.
const (
	Honest       Fault = iota
	Down               // HTTP 503
	Silent             // never answers
	Garbage            // not a response
	Endless            // never stops answering
	Rejects            // status rejection
	OtherNonce         // the nonce of another query
	OtherImprint       // a stamp over something else
	OtherPolicy        // not the policy asked for
	OtherRoot          // certified by a root nobody trusts
	WrongUse           // a certificate that is not for time-stamping
	Expired            // a certificate whose time is over
	WrongClock         // an hour ahead
)

// Policy is the policy of the simulated authority, under the example arc.
var Policy = asn1.ObjectIdentifier{2, 999, 1, 1}

// TSA is a running authority.
type TSA struct {
	URL  string
	Root *x509.Certificate

	mu     sync.Mutex
	fault  Fault
	served int
	ids    map[Fault]identity
	stop   chan struct{}
	server *http.Server
}

type identity struct {
	cert *x509.Certificate
	key  *rsa.PrivateKey
}

// Start listens on a loopback port.
func Start() (*TSA, error) {
	t := &TSA{ids: map[Fault]identity{}, stop: make(chan struct{})}
	root, err := authority("Simulated TSA root")
	if err != nil {
		return nil, err
	}
	other, err := authority("Another root")
	if err != nil {
		return nil, err
	}
	t.Root = root.cert
	now := time.Now()
	for f, by := range map[Fault]identity{Honest: root, OtherRoot: other, WrongUse: root, Expired: root} {
		until := now.AddDate(1, 0, 0)
		if f == Expired {
			until = now.Add(-time.Hour)
		}
		if t.ids[f], err = certify(by, f != WrongUse, now.AddDate(-1, 0, 0), until); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	t.URL = "http://" + l.Addr().String() + "/tsa"
	t.server = &http.Server{Handler: t, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = t.server.Serve(l) }() // ends with Close
	return t, nil
}

// Misbehave sets the fault from now on; Honest ends it.
func (t *TSA) Misbehave(f Fault) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fault = f
}

// Served returns how many good tokens were given out.
func (t *TSA) Served() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.served
}

// RootPEM returns the root certificate as PEM.
func (t *TSA) RootPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: t.Root.Raw})
}

// Close stops the authority.
func (t *TSA) Close() error {
	close(t.stop)
	return t.server.Close()
}

// ServeHTTP answers a time-stamp query.
func (t *TSA) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	t.mu.Lock()
	f := t.fault
	t.mu.Unlock()
	query, err := io.ReadAll(io.LimitReader(r.Body, 64<<10))
	if err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/timestamp-query" {
		http.Error(w, "a POST of application/timestamp-query is wanted", http.StatusBadRequest)
		return
	}
	switch f {
	case Down:
		http.Error(w, "down", http.StatusServiceUnavailable)
		return
	case Silent:
		select {
		case <-r.Context().Done():
		case <-t.stop:
		}
		return
	}
	w.Header().Set("Content-Type", "application/timestamp-reply")
	switch f {
	case Garbage:
		_, _ = w.Write([]byte("<html>sorry</html>"))
		return
	case Endless:
		for block := make([]byte, 1<<16); ; {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}
	answer, err := t.answer(query, f)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_, _ = w.Write(answer)
}

func (t *TSA) answer(query []byte, f Fault) ([]byte, error) {
	q, err := timestamp.ParseRequest(query)
	if err != nil {
		return nil, err
	}
	if f == Rejects {
		return timestamp.CreateErrorResponse(timestamp.Rejection, timestamp.TimeNotAvailable)
	}
	ts := timestamp.Timestamp{
		HashAlgorithm: q.HashAlgorithm, HashedMessage: q.HashedMessage, Nonce: q.Nonce, Time: time.Now().UTC(),
		Policy: Policy, Accuracy: time.Second, AddTSACertificate: q.Certificates,
	}
	switch f {
	case OtherNonce:
		ts.Nonce = big.NewInt(42)
	case OtherImprint:
		ts.HashedMessage = append([]byte(nil), q.HashedMessage...)
		ts.HashedMessage[0] ^= 1
	case OtherPolicy:
		ts.Policy = asn1.ObjectIdentifier{2, 999, 9}
	case WrongClock:
		ts.Time = ts.Time.Add(time.Hour)
	}
	who, ok := t.ids[f]
	if !ok {
		who = t.ids[Honest]
	}
	out, err := ts.CreateResponseWithOpts(who.cert, who.key, crypto.SHA256)
	if err == nil && f == Honest {
		t.mu.Lock()
		t.served++
		t.mu.Unlock()
	}
	return out, err
}

func authority(name string) (identity, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return identity{}, err
	}
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().AddDate(-2, 0, 0), NotAfter: time.Now().AddDate(5, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return sign(tpl, tpl, key, key)
}

func certify(by identity, stamps bool, from, until time.Time) (identity, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return identity{}, err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return identity{}, err
	}
	tpl := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "Simulated TSA"}, NotBefore: from, NotAfter: until, KeyUsage: x509.KeyUsageDigitalSignature}
	if stamps {
		// crypto/x509 cannot mark this extension critical by itself.
		value, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
		if err != nil {
			return identity{}, err
		}
		tpl.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: value}}
	}
	return sign(tpl, by.cert, key, by.key)
}

func sign(tpl, parent *x509.Certificate, key, by *rsa.PrivateKey) (identity, error) {
	raw, err := x509.CreateCertificate(rand.Reader, tpl, parent, &key.PublicKey, by)
	if err != nil {
		return identity{}, fmt.Errorf("make certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(raw)
	return identity{cert, key}, err
}
