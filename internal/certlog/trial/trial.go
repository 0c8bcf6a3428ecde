// Package trial measures the certified log on a disk: what `custode log bench`
// runs, so that an operator knows what the machine carries before the first
// login. It uses keys of its own, in memory, and a folder that it makes and removes.
package trial

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"custode/internal/certlog"
	"custode/internal/certlog/attest"
	"custode/internal/certlog/notary"
	"custode/internal/fault"
)

// Config says what to measure.
type Config struct {
	Dir     string // an existing folder on the disk to measure
	Records int    // appended in all
	Writers int    // logins that append at once
}

// Result is what was measured.
type Result struct {
	Records     int
	Append      time.Duration // for all records by Writers at full speed
	P50, P95    time.Duration // of one Append, Writers at once
	P95Alone    time.Duration // of one Append, one writer
	Octets      int64         // on disk
	Verify      time.Duration
	PlainOctets int64  // of the records as JSON
	HeapBefore  uint64 // octets in use, after collection
	HeapAfter   uint64 // the same after all appends
	HeapVerify  uint64 // the same after verify
}

// Run measures.
func Run(ctx context.Context, cfg Config) (r Result, err error) {
	const op = "measure the certified log"
	if cfg.Records < 1 || cfg.Writers < 1 {
		return Result{}, fault.Newf(fault.Invalid, op, "nothing to do")
	}
	dir, err := os.MkdirTemp(cfg.Dir, "log-bench-")
	if err != nil {
		return Result{}, fault.New(fault.Unavailable, op, err)
	}
	defer os.RemoveAll(dir)
	n, err := newNotary()
	if err != nil {
		return Result{}, fault.New(fault.Internal, op, err)
	}
	k, err := newKeys()
	if err != nil {
		return Result{}, fault.New(fault.Internal, op, err)
	}
	l, err := certlog.Open(ctx, certlog.Config{Name: "bench", FS: certlog.Dir(dir), Keys: k, Sealer: n, Age: time.Hour, Size: 64 << 20, Now: time.Now, Random: rand.Reader})
	if err != nil {
		return Result{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { _ = l.Run(ctx) })
	r, err = measure(ctx, cfg, l)
	cancel()
	running.Wait()
	if err != nil {
		return Result{}, err
	}
	return r, verify(dir, n, &r)
}

func measure(ctx context.Context, cfg Config, l *certlog.Log) (Result, error) {
	data, err := sample(0)
	if err != nil {
		return Result{}, err
	}
	r := Result{Records: cfg.Records, HeapBefore: heap(), PlainOctets: int64(len(data)) * int64(cfg.Records)}
	alone := min(200, cfg.Records)
	took, err := appendAll(ctx, l, alone, 1)
	if err != nil {
		return Result{}, err
	}
	r.P95Alone = quantile(took, 95)
	start := time.Now()
	if took, err = appendAll(ctx, l, cfg.Records-alone, cfg.Writers); err != nil {
		return Result{}, err
	}
	r.Append = time.Since(start)
	r.P50, r.P95 = quantile(took, 50), quantile(took, 95)
	r.HeapAfter = heap()
	if err := l.Seal(ctx); err != nil && !fault.Is(err, fault.Unavailable) { // the time-stamp is what is missing
		return Result{}, err
	}
	return r, nil
}

// appendAll appends n records by the writers and returns each append's time.
func appendAll(ctx context.Context, l *certlog.Log, n, writers int) ([]time.Duration, error) {
	var wg sync.WaitGroup
	took := make([][]time.Duration, writers)
	failed := make([]error, writers)
	for w := range writers {
		wg.Go(func() {
			for i := w; i < n && failed[w] == nil; i += writers {
				var data []byte
				if data, failed[w] = sample(i); failed[w] != nil {
					return
				}
				start := time.Now()
				_, failed[w] = l.Append(ctx, certlog.Record{Tag: fmt.Sprintf("BNCH%010d", i%1000), Data: data})
				took[w] = append(took[w], time.Since(start))
			}
		})
	}
	wg.Wait()
	for _, err := range failed {
		if err != nil {
			return nil, err
		}
	}
	return slices.Concat(took...), nil
}

func quantile(d []time.Duration, percent int) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[(len(d)-1)*percent/100]
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func verify(dir string, n *notary.Notary, r *Result) error {
	err := filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		r.Octets += info.Size()
		return err
	})
	if err != nil {
		return fault.New(fault.Unavailable, "measure the certified log", err)
	}
	start := time.Now()
	report, err := certlog.Verify(certlog.VerifyConfig{FS: certlog.Dir(dir), Judge: n, Now: time.Now(), Patience: time.Hour})
	r.Verify = time.Since(start)
	r.HeapVerify = heap()
	if err != nil {
		return err
	}
	if report.Problem != nil || report.Records != uint64(r.Records) {
		return fault.Newf(fault.Internal, "measure the certified log", "it does not verify: %v, %d records", report.Problem, report.Records)
	}
	return nil
}

// sample is a record of usual size: a request of 3 KiB and a Response of 9 KiB,
// of which certificates, signatures and attribute values do not compress.
func sample(i int) ([]byte, error) {
	noise := make([]byte, 3300)
	if _, err := io.ReadFull(rand.Reader, noise); err != nil {
		return nil, err
	}
	text := func(noise []byte, plain int) []byte {
		out := base64.StdEncoding.AppendEncode(nil, noise)
		const element = `<saml:Attribute Name="fiscalNumber" NameFormat="urn:oasis:names:tc:SAML:2.0:attrname-format:basic">`
		for len(out) < plain {
			out = append(out, element...)
		}
		return out
	}
	return attest.Access{
		At: time.Now().UTC(), Code: 1, SPIDCode: fmt.Sprintf("BNCH%010d", i%1000), Level: 2, Credentials: []string{"password", "sms"}, SPName: "Comune di Prova",
		Requested: []string{"name", "familyName", "fiscalNumber", "dateOfBirth"}, Build: "bench",
		Request:   attest.Message{ID: fmt.Sprintf("_q%d", i), Issuer: "https://sp.example", XML: text(noise[:1000], 3<<10)},
		Response:  attest.Message{ID: fmt.Sprintf("_r%d", i), Issuer: "https://idp.example", XML: text(noise[1000:], 9<<10)},
		Assertion: attest.Assertion{ID: fmt.Sprintf("_a%d", i), Subject: "_s", NameQualifier: "https://idp.example"},
	}.Encode()
}

// aesKeys wraps segment keys in memory.
type aesKeys struct{ aead cipher.AEAD }

func newKeys() (aesKeys, error) {
	key := make([]byte, 32)
	if _, err := io.ReadFull(rand.Reader, key); err != nil {
		return aesKeys{}, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return aesKeys{}, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return aesKeys{aead}, err
}

// Wrap implements certlog.Wrapper.
func (k aesKeys) Wrap(_ context.Context, p, aad []byte) ([]byte, error) {
	return k.aead.Seal(nil, nil, p, aad), nil
}

// Unwrap implements certlog.Wrapper.
func (k aesKeys) Unwrap(_ context.Context, b, aad []byte) ([]byte, error) {
	return k.aead.Open(nil, nil, b, aad)
}

// newNotary seals with a key of its own; time-stamps are not what is measured.
func newNotary() (*notary.Notary, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	tpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0)}
	raw, err := x509.CreateCertificate(rand.Reader, tpl, tpl, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		return nil, err
	}
	return &notary.Notary{Pinned: []*x509.Certificate{cert}, Key: key, Cert: cert, Clock: func(context.Context) error { return nil }, Stamper: untimed{}, Roots: x509.NewCertPool()}, nil
}

// untimed stands for a service that is not there.
type untimed struct{}

// Stamp implements notary.Stamper.
func (untimed) Stamp(context.Context, [32]byte) ([]byte, error) {
	return nil, fault.Newf(fault.Unavailable, "time-stamp", "none while measuring")
}
