package worker

import (
	"context"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/sys/unix"

	"custode/hsm"
	"custode/hsm/worker/judge"
	"custode/hsm/worker/socket"
	"custode/internal/fault"
	"custode/internal/id"
)

func label(s string) id.KeyLabel {
	l, err := id.ParseKeyLabel(s)
	if err != nil {
		panic(err)
	}
	return l
}

var (
	signLabel, sealLabel, oldLabel = label("t/sign"), label("t/seal"), label("t/old")
	macLabel, wrapLabel, seedLabel = label("t/mac"), label("t/wrap"), label("t/seed")
	bindLabel                      = label("t/bind")
)

var rsaKeys = sync.OnceValue(func() []*rsa.PrivateKey {
	var keys []*rsa.PrivateKey
	for range 2 {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		keys = append(keys, k)
	}
	return keys
})

// fakeToken holds keys in memory. All its secrets come from seed, so that equal seeds are copies.
type fakeToken struct {
	seed    byte
	trouble atomic.Pointer[error] // of every call
	stall   atomic.Pointer[chan struct{}]
	calls   atomic.Int64
	ill     atomic.Pointer[error] // of Health
}

func (f *fakeToken) enter(ctx context.Context) error {
	f.calls.Add(1)
	if c := f.stall.Load(); c != nil {
		select {
		case <-*c:
		case <-ctx.Done():
			return waited("work in the fake", ctx)
		}
	}
	if err := f.trouble.Load(); err != nil {
		return *err
	}
	return nil
}

func (f *fakeToken) fail(err error) {
	if err == nil {
		f.trouble.Store(nil)
		return
	}
	f.trouble.Store(&err)
}

func (f *fakeToken) Health() error {
	if err := f.ill.Load(); err != nil {
		return *err
	}
	return nil
}

type fakeKey struct {
	f     *fakeToken
	label id.KeyLabel
	rsa   *rsa.PrivateKey
}

func (f *fakeToken) find(l id.KeyLabel, of ...id.KeyLabel) error {
	if err := f.enter(context.Background()); err != nil {
		return err
	}
	if !slices.Contains(of, l) {
		return fault.Newf(fault.NotFound, "find key "+l.String(), "the token does not hold it")
	}
	return nil
}

func (f *fakeToken) Signer(l id.KeyLabel) (crypto.Signer, error) {
	return fakeKey{f, l, rsaKeys()[f.seed%2]}, f.find(l, signLabel, sealLabel, oldLabel)
}

func (f *fakeToken) Certificate(l id.KeyLabel) (*x509.Certificate, error) {
	key := rsaKeys()[f.seed%2]
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: l.String()}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func (f *fakeToken) MAC(l id.KeyLabel) (hsm.MAC, error) {
	return fakeKey{f: f, label: l}, f.find(l, macLabel, bindLabel)
}

func (f *fakeToken) Wrapper(l id.KeyLabel) (hsm.Wrapper, error) {
	return fakeKey{f: f, label: l}, f.find(l, wrapLabel, seedLabel)
}

func (f *fakeToken) Random() io.Reader { return rand.Reader }

func (k fakeKey) Public() crypto.PublicKey { return k.rsa.Public() }

func (k fakeKey) Sign(_ io.Reader, d []byte, o crypto.SignerOpts) ([]byte, error) {
	return k.SignContext(context.Background(), d, o.HashFunc())
}

func (k fakeKey) SignContext(ctx context.Context, d []byte, h crypto.Hash) ([]byte, error) {
	if err := k.f.enter(ctx); err != nil {
		return nil, err
	}
	return k.rsa.Sign(nil, d, h)
}

func (k fakeKey) secret() []byte {
	sum := sha256.Sum256(append([]byte{k.f.seed}, k.label.String()...))
	return sum[:]
}

func (k fakeKey) MAC(ctx context.Context, data []byte) ([]byte, error) {
	if err := k.f.enter(ctx); err != nil {
		return nil, err
	}
	h := hmac.New(sha256.New, k.secret())
	h.Write(data)
	return h.Sum(nil), nil
}

func (k fakeKey) gcm() cipher.AEAD {
	b, err := aes.NewCipher(k.secret())
	if err != nil {
		panic(err)
	}
	g, err := cipher.NewGCMWithRandomNonce(b)
	if err != nil {
		panic(err)
	}
	return g
}

func (k fakeKey) Wrap(ctx context.Context, plain, aad []byte) ([]byte, error) {
	if err := k.f.enter(ctx); err != nil {
		return nil, err
	}
	return k.gcm().Seal(nil, nil, plain, aad), nil
}

func (k fakeKey) Unwrap(ctx context.Context, blob, aad []byte) ([]byte, error) {
	if err := k.f.enter(ctx); err != nil {
		return nil, err
	}
	plain, err := k.gcm().Open(nil, nil, blob, aad)
	if err != nil {
		return nil, fault.New(fault.Invalid, "unwrap", err)
	}
	return plain, nil
}

// SecretForm wants secrets as SoftHSM does.
func (f *fakeToken) SecretForm(l id.KeyLabel) (wrap, keyType uint32, err error) {
	return hsm.MechanismAESKeyWrap, hsm.KeyTypeGeneric, f.find(l, seedLabel)
}

// WrapSecret only has to be deterministic.
func (f *fakeToken) WrapSecret(ctx context.Context, kek id.KeyLabel, wrap, keyType uint32, secret []byte) ([]byte, error) {
	if err := f.enter(ctx); err != nil {
		return nil, err
	}
	if wrap == hsm.MechanismAESGCM {
		return fakeKey{f: f, label: kek}.gcm().Seal(nil, nil, secret, nil), nil
	}
	sum := sha256.Sum256(append([]byte{f.seed, byte(wrap), byte(keyType)}, secret...))
	return sum[:], nil
}

// MatchCodes finds the counter that is the code's number.
func (f *fakeToken) MatchCodes(ctx context.Context, q hsm.CodeQuery) ([]int, error) {
	if err := f.enter(ctx); err != nil {
		return nil, err
	}
	var found []int
	for i, c := range q.Counters {
		if big.NewInt(int64(c)).String() == q.Code {
			found = append(found, i)
		}
	}
	return found, nil
}

var allKeys = map[id.KeyLabel]Use{
	signLabel: Signs(judge.Assertion, judge.Response, judge.Logout, judge.Metadata, judge.Query), sealLabel: Signs(judge.CMS), oldLabel: UsePublic,
	macLabel: UseMAC, wrapLabel: UseWrap, seedLabel: UseSeed, bindLabel: UseBind,
}

// fakeWorker is a Source: a Server in this process, on a socket pair.
type fakeWorker struct {
	t *testing.T

	mu     sync.Mutex
	token  *fakeToken
	cfg    ServerConfig
	ended  error // what Ended says
	refuse error // what Open says
	opens  int
	conns  []net.Conn
	server *Server
	all    sync.WaitGroup
}

func newFake(t *testing.T, seed byte) *fakeWorker {
	w := &fakeWorker{t: t, token: &fakeToken{seed: seed}, cfg: ServerConfig{Keys: allKeys}}
	t.Cleanup(w.all.Wait)
	return w
}

func pair(t *testing.T) (ours, theirs net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		if conns[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return conns[0], conns[1]
}

func (w *fakeWorker) Open(context.Context) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.opens++
	if w.refuse != nil {
		return nil, w.refuse
	}
	ours, theirs := pair(w.t)
	cfg := w.cfg
	cfg.Token = w.token
	w.server = NewServer(cfg)
	w.conns = append(w.conns, theirs)
	server := w.server
	w.all.Go(func() {
		_ = server.Serve(context.WithoutCancel(w.t.Context()), theirs, socket.Peer{UID: os.Geteuid(), PID: os.Getpid()})
	})
	return ours, nil
}

func (w *fakeWorker) Ended() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ended
}

// change changes the worker that is started next.
func (w *fakeWorker) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// crash ends the connections.
func (w *fakeWorker) crash() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

func (w *fakeWorker) opened() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.opens
}

// open opens a Client with quick probes.
func open(t *testing.T, cfg Config) *Client {
	t.Helper()
	cfg.Probe, cfg.ProbeLimit, cfg.TryLimit, cfg.Grace = 10*time.Millisecond, 100*time.Millisecond, 100*time.Millisecond, 50*time.Millisecond
	if cfg.FailBack == 0 {
		cfg.FailBack = 200 * time.Millisecond
	}
	c, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// attributes are signed attributes of a seal, new at each call.
func attributes() []byte {
	var b cryptobyte.Builder
	digest := sha256.Sum256([]byte(rand.Text()))
	attribute := func(b *cryptobyte.Builder, oid []byte, value func(*cryptobyte.Builder)) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes(oid) })
			b.AddASN1(asn1.SET, value)
		})
	}
	pkcs9 := []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09}
	b.AddASN1(asn1.SET, func(b *cryptobyte.Builder) {
		attribute(b, append(slices.Clone(pkcs9), 3), func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) {
				b.AddBytes([]byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01})
			})
		})
		attribute(b, append(slices.Clone(pkcs9), 5), func(b *cryptobyte.Builder) { b.AddASN1UTCTime(time.Unix(1_800_000_000, 0).UTC()) })
		attribute(b, append(slices.Clone(pkcs9), 4), func(b *cryptobyte.Builder) { b.AddASN1OctetString(digest[:]) })
		attribute(b, append(slices.Clone(pkcs9), 16, 2, 47), func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1OctetString(digest[:]) })
		})
	})
	out, err := b.Bytes()
	if err != nil {
		panic(err)
	}
	return out
}
