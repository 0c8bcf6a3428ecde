package worker

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"custode/hsm"
	"custode/hsm/worker/judge"
	"custode/hsm/worker/socket"
	"custode/internal/fault"
	"custode/internal/id"
)

// Use is a set of things that a key may be asked for.
type Use uint32

// The uses. A key that may be opened for signing is not thereby allowed to sign: that
// takes one of the kinds.
const (
	UsePublic Use = 1 << iota // public part and certificate
	UseMAC
	UseWrap // and unwrap
	UseSeed // wraps OATH secrets, and unwraps them in the token
	UseBind // MAC of the binding of an OATH secret, inside MatchCodes only
	useSign // shifted by Kind
)

// Signs returns the use of signing octets of the kinds, and of showing the public part.
func Signs(kinds ...judge.Kind) Use {
	u := UsePublic
	for _, k := range kinds {
		u |= useSign << k
	}
	return u
}

// Opened is the token that a Server serves: hsm/pkcs11 has the real one. It may also be a
// hsm.SecretKey and a hsm.CodeMatcher, with a method SecretForm; without, those questions are answered with fault.Invalid.
type Opened interface {
	hsm.Token
	// Health returns nil when the token can be used. It does not ask the token.
	Health() error
}

// ServerConfig is what a Server needs. Token and Keys are required.
type ServerConfig struct {
	Token Opened
	Keys  map[id.KeyLabel]Use // what each key may be asked for; others are refused
	// Reread reads Keys again from where they came, when something is asked that they do not allow,
	// at most every 10 ms: a key may have been rolled over. A key that it names no more, or names as
	// published only, may still be asked for what it was: the file is edited before the daemon
	// takes it, or refuses it. An error leaves them as they are. nil: never.
	Reread func() (map[id.KeyLabel]Use, error)
	Log    *slog.Logger // nil discards
	// MaxUnwraps and MaxMemory (octets of resident memory) are when the process has to be
	// replaced, because modules leak; 0: never.
	MaxUnwraps uint64
	MaxMemory  uint64
	// Stuck reports whether a call inside the module does not return; nil: never.
	Stuck func() bool
	// Load returns operations in the module and how many may be; nil: not known.
	Load func() (busy, limit int)
	// About names the token for operators; it is shown as it is.
	About map[string]string
}

// Why a Server ends by itself: see Server.Watch.
var (
	ErrHung  = errors.New("a call inside the module does not return")
	ErrGrown = errors.New("the module has leaked as much as is allowed")
)

// Server answers questions about one token, on connections that it is given.
type Server struct {
	cfg      ServerConfig
	instance [16]byte
	started  time.Time
	unwraps  atomic.Uint64
	calls    atomic.Uint64
	denied   atomic.Uint64

	mu    sync.Mutex
	allow map[id.KeyLabel]Use // as read last
	read  time.Time
	keys  map[keyUse]any // opened keys: hsm.ContextSigner, hsm.MAC, hsm.Wrapper
	conns map[*served]struct{}
	over  bool // draining
}

type keyUse struct {
	label id.KeyLabel
	role  hsm.Role
}

// served is one connection.
type served struct {
	net.Conn
	write sync.Mutex
	calls sync.WaitGroup
}

const (
	maxConns      = 16
	maxConcurrent = 256 // questions worked on at a time, of one connection
	writeLimit    = 5 * time.Second
)

// NewServer returns a Server. Nothing is read yet.
func NewServer(cfg ServerConfig) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, started: time.Now(), allow: cfg.Keys, keys: map[keyUse]any{}, conns: map[*served]struct{}{}}
	_, _ = rand.Read(s.instance[:]) // never fails (crypto/rand)
	return s
}

// Serve answers on c, whose other end must be peer, until it ends, ctx does, or the Server
// drains. It closes c. A connection that ended orderly is nil.
func (s *Server) Serve(ctx context.Context, c net.Conn, peer socket.Peer) error {
	if err := peer.Check(c); err != nil {
		return errors.Join(err, c.Close())
	}
	k := &served{Conn: c}
	s.mu.Lock()
	if s.over || len(s.conns) >= maxConns {
		s.mu.Unlock()
		return errors.Join(fault.Newf(fault.Busy, "serve a connection", "there are %d", maxConns), c.Close())
	}
	s.conns[k] = struct{}{}
	s.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
	err := s.converse(ctx, k)
	stop()
	k.calls.Wait() // each is bounded by its own time
	cancel()
	s.mu.Lock()
	delete(s.conns, k)
	over := s.over
	s.mu.Unlock()
	// A reset is the end of a caller that did not wait for its answers.
	if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) || over || ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	return errors.Join(err, c.Close())
}

func (s *Server) converse(ctx context.Context, k *served) error {
	if err := k.send(message{code: byte(opHello), fields: [][]byte{s.instance[:]}}); err != nil {
		return err
	}
	// A context of its own: what was begun is answered although ctx ends.
	work := context.WithoutCancel(ctx)
	over := make(chan error, 1)
	in, places := &frameReader{r: k}, make(chan struct{}, maxConcurrent)
	k.calls.Go(func() { s.next(work, k, in, places, over) })
	return <-over
}

// next reads one question, leaves the reading of the next to another goroutine and answers: who has read
// it need not wake anybody to have it answered.
func (s *Server) next(ctx context.Context, k *served, in *frameReader, places chan struct{}, over chan<- error) {
	places <- struct{}{}
	defer func() { <-places }()
	frame, err := in.next()
	if err != nil {
		over <- err
		return
	}
	q, err := decode(frame)
	if err != nil {
		clear(frame)
		over <- fault.New(fault.Invalid, "read a question", err)
		return
	}
	k.calls.Go(func() { s.next(ctx, k, in, places, over) })
	a := s.answer(ctx, &q)
	a.call = q.call
	clear(frame) // it may hold a plaintext
	if err := k.send(a); err != nil {
		_ = k.SetReadDeadline(time.Unix(1, 0))
	}
	for _, f := range a.fields {
		clear(f)
	}
}

func (k *served) send(m message) error {
	frame, err := m.encode()
	if err != nil {
		refused := refusal(err)
		refused.call = m.call
		if frame, err = refused.encode(); err != nil {
			return err
		}
	}
	defer clear(frame)
	k.write.Lock()
	defer k.write.Unlock()
	_ = k.SetWriteDeadline(time.Now().Add(writeLimit))
	_, err = k.Write(frame)
	return err
}

// Watch looks four times a second whether the process has to be replaced, and returns
// ErrHung or ErrGrown; nil when ctx ends. After ErrGrown, Drain; after ErrHung the module must
// not be called any more.
func (s *Server) Watch(ctx context.Context) error {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		switch {
		case s.cfg.Stuck != nil && s.cfg.Stuck():
			return fault.New(fault.Unavailable, "watch the token", ErrHung)
		case s.cfg.MaxUnwraps > 0 && s.unwraps.Load() >= s.cfg.MaxUnwraps, s.cfg.MaxMemory > 0 && resident() >= s.cfg.MaxMemory:
			return fault.Newf(fault.Unavailable, "watch the token", "%w: %d unwraps, %d octets resident", ErrGrown, s.unwraps.Load(), resident())
		}
	}
}

// Drain takes no further question and waits until those in progress are answered, at most so long.
func (s *Server) Drain(limit time.Duration) {
	s.mu.Lock()
	s.over = true
	for k := range s.conns {
		_ = k.SetReadDeadline(time.Unix(1, 0))
	}
	s.mu.Unlock()
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(time.Millisecond) {
		s.mu.Lock()
		n := len(s.conns)
		s.mu.Unlock()
		if n == 0 {
			return
		}
	}
}

// answer works on one question.
func (s *Server) answer(ctx context.Context, q *message) message {
	s.calls.Add(1)
	ctx, cancel := context.WithTimeout(ctx, max(q.wait, time.Millisecond))
	defer cancel()
	a, err := s.ask(ctx, q)
	if err != nil {
		if fault.Is(err, fault.Denied) {
			s.denied.Add(1)
			s.cfg.Log.Warn("a question was refused", "operation", Operation(q.code).String(), "key", q.label, "error", err)
		}
		return refusal(err)
	}
	return a
}

func (s *Server) ask(ctx context.Context, q *message) (message, error) {
	switch Operation(q.code) {
	case opPublic, opCertificate:
		return s.open(q)
	case opOpenMAC:
		_, err := key[hsm.MAC](s, q, 0, UseMAC, hsm.RoleMAC)
		return message{}, err
	case opOpenWrap:
		_, err := key[hsm.Wrapper](s, q, 0, UseWrap, hsm.RoleWrap)
		return message{}, err
	case opSign:
		return s.sign(ctx, q)
	case opMAC:
		m, err := key[hsm.MAC](s, q, 1, UseMAC, hsm.RoleMAC)
		if err != nil {
			return message{}, err
		}
		return one(m.MAC(ctx, q.fields[0]))
	case opWrap:
		w, err := key[hsm.Wrapper](s, q, 2, UseWrap, hsm.RoleWrap)
		if err != nil {
			return message{}, err
		}
		return one(w.Wrap(ctx, q.fields[0], q.fields[1]))
	case opUnwrap:
		w, err := key[hsm.Wrapper](s, q, 2, UseWrap, hsm.RoleWrap)
		if err != nil {
			return message{}, err
		}
		return one(w.Unwrap(ctx, q.fields[0], q.fields[1]))
	case opSecretForm:
		return s.secretForm(q)
	case opSeedCanary:
		return s.seedCanary(ctx, q)
	case opWrapSecret:
		return s.wrapSecret(ctx, q)
	case opMatchCodes:
		return s.matchCodes(ctx, q)
	case opRandom:
		return s.random(q)
	case opHealth:
		return message{}, s.cfg.Token.Health()
	case opReport:
		report, err := json.Marshal(s.report())
		return message{fields: [][]byte{report}}, err
	}
	return message{}, fault.Newf(fault.Invalid, "ask the worker", "no such operation: %d", q.code)
}

func one(octets []byte, err error) (message, error) {
	if err != nil {
		return message{}, err
	}
	return message{fields: [][]byte{octets}}, nil
}

// allowed parses the label of a question and insists that the configuration lets it be asked.
func (s *Server) allowed(q *message, use Use) (id.KeyLabel, error) {
	label, err := id.ParseKeyLabel(q.label)
	if err != nil {
		return label, err
	}
	return label, s.permit(label, use, Operation(q.code).String())
}

func (s *Server) permit(label id.KeyLabel, use Use, what string) error {
	switch may, known := s.uses(label, use); {
	case !known:
		return fault.Newf(fault.Denied, what+" with key "+label.String(), "the worker's configuration does not name this key")
	case may&use != use:
		return fault.Newf(fault.Denied, what+" with key "+label.String(), "the worker's configuration does not allow it")
	}
	return nil
}

const rereadPause = 10 * time.Millisecond

// uses is what the key may be asked for, by the latest configuration if the one at hand does not allow use.
func (s *Server) uses(label id.KeyLabel, use Use) (may Use, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if may, known = s.allow[label]; known && may&use == use || s.cfg.Reread == nil || time.Since(s.read) < rereadPause {
		return may, known
	}
	s.read = time.Now()
	if all, err := s.cfg.Reread(); err != nil {
		s.cfg.Log.Error("what each key may be asked for was not read again", "error", err)
	} else {
		for label, was := range s.allow {
			if is := all[label]; is&^UsePublic == 0 {
				all[label] = was
			}
		}
		s.allow = all
	}
	may, known = s.allow[label]
	return may, known
}

// key returns the opened key that a question with so many fields is about, as a T.
func key[T any](s *Server, q *message, fields int, use Use, role hsm.Role) (T, error) {
	var none T
	if err := q.shape(true, fields, 0, false); err != nil {
		return none, err
	}
	label, err := s.allowed(q, use)
	if err != nil {
		return none, err
	}
	return openKey[T](s, label, role)
}

func openKey[T any](s *Server, label id.KeyLabel, role hsm.Role) (T, error) {
	var none T
	s.mu.Lock()
	k := s.keys[keyUse{label, role}]
	s.mu.Unlock()
	if k == nil {
		var err error
		switch role {
		case hsm.RoleSign:
			k, err = s.cfg.Token.Signer(label)
		case hsm.RoleMAC:
			k, err = s.cfg.Token.MAC(label)
		case hsm.RoleWrap:
			k, err = s.cfg.Token.Wrapper(label)
		}
		if err != nil {
			return none, err
		}
	}
	t, ok := k.(T)
	if !ok {
		return none, fault.Newf(fault.Internal, "open key "+label.String(), "it is a %T", k)
	}
	s.mu.Lock()
	s.keys[keyUse{label, role}] = k
	s.mu.Unlock()
	return t, nil
}

func (s *Server) open(q *message) (message, error) {
	signer, err := key[crypto.Signer](s, q, 0, UsePublic, hsm.RoleSign)
	if err != nil {
		return message{}, err
	}
	if Operation(q.code) == opPublic {
		der, err := x509.MarshalPKIXPublicKey(signer.Public())
		return message{fields: [][]byte{der}}, err
	}
	label, err := id.ParseKeyLabel(q.label)
	if err != nil {
		return message{}, err
	}
	cert, err := s.cfg.Token.Certificate(label)
	if err != nil {
		return message{}, err
	}
	return message{fields: [][]byte{append([]byte(nil), cert.Raw...)}}, nil
}

// sign judges the octets, hashes them and has the token sign. Fields: the octets, and the element
// that they are about; number: the kind that the caller takes them for.
func (s *Server) sign(ctx context.Context, q *message) (message, error) {
	if err := q.shape(true, 2, 1, false); err != nil {
		return message{}, err
	}
	op := "sign with key " + q.label
	kind, err := judge.Octets(q.fields[0], q.fields[1])
	switch {
	case err != nil:
		return message{}, fault.New(fault.Denied, op, err)
	case uint64(kind) != q.numbers[0]:
		return message{}, fault.Newf(fault.Denied, op, "the octets are %s, not what was said", kind)
	}
	label, err := s.allowed(q, Signs(kind))
	if err != nil {
		return message{}, err
	}
	signer, err := openKey[hsm.ContextSigner](s, label, hsm.RoleSign)
	if err != nil {
		return message{}, err
	}
	digest := sha256.Sum256(q.fields[0])
	return one(signer.SignContext(ctx, digest[:], crypto.SHA256))
}

// secretForm opens a key for OATH secrets and says how the token wants them.
func (s *Server) secretForm(q *message) (message, error) {
	if err := q.shape(true, 0, 0, false); err != nil {
		return message{}, err
	}
	kek, err := s.allowed(q, UseSeed)
	if err != nil {
		return message{}, err
	}
	former, ok := s.cfg.Token.(interface {
		SecretForm(id.KeyLabel) (wrap, keyType uint32, err error)
	})
	if !ok {
		return message{}, fault.Newf(fault.Invalid, "open seed key "+q.label, "the token keeps no OATH secrets")
	}
	wrap, keyType, err := former.SecretForm(kek)
	return message{numbers: []uint64{uint64(wrap), uint64(keyType)}}, err
}

// seedCanary answers by which a key for OATH secrets is recognised, without unwrapping anybody's: the
// wrapped canary where wrapping is deterministic (RFC 3394); else a new blob, or what is in that of the question.
func (s *Server) seedCanary(ctx context.Context, q *message) (message, error) {
	if err := q.shape(true, 1, 2, false); err != nil {
		return message{}, err
	}
	kek, err := s.allowed(q, UseSeed)
	if err != nil {
		return message{}, err
	}
	if uint64(hsm.MechanismAESGCM) != q.numbers[0] {
		fixed := make([]byte, 64)
		copy(fixed, canary)
		return s.wrapSecret(ctx, &message{label: q.label, fields: [][]byte{fixed}, numbers: q.numbers})
	}
	w, err := openKey[hsm.Wrapper](s, kek, hsm.RoleWrap)
	if err != nil {
		return message{}, err
	}
	if len(q.fields[0]) == 0 {
		return one(w.Wrap(ctx, []byte(canary), []byte(canary)))
	}
	return one(w.Unwrap(ctx, q.fields[0], []byte(canary)))
}

func (s *Server) wrapSecret(ctx context.Context, q *message) (message, error) {
	if err := q.shape(true, 1, 2, false); err != nil {
		return message{}, err
	}
	kek, err := s.allowed(q, UseSeed)
	if err != nil {
		return message{}, err
	}
	keeper, ok := s.cfg.Token.(hsm.SecretKey)
	if !ok || q.numbers[0] > 1<<32-1 || q.numbers[1] > 1<<32-1 {
		return message{}, fault.Newf(fault.Invalid, "wrap secret with key "+q.label, "the token does not do this")
	}
	s.unwraps.Add(1) // an object made and destroyed, as in an unwrap
	return one(keeper.WrapSecret(ctx, kek, uint32(q.numbers[0]), uint32(q.numbers[1]), q.fields[0]))
}

func (s *Server) matchCodes(ctx context.Context, q *message) (message, error) {
	query, err := q.codeQuery()
	if err != nil {
		return message{}, err
	}
	if err := errors.Join(s.permit(query.KEK, UseSeed, "match codes"), s.permit(query.Binder, UseBind, "match codes")); err != nil {
		return message{}, err
	}
	matcher, ok := s.cfg.Token.(hsm.CodeMatcher)
	if !ok {
		return message{}, fault.Newf(fault.Invalid, "match codes with key "+q.label, "the token does not do this")
	}
	s.unwraps.Add(1)
	found, err := matcher.MatchCodes(ctx, query)
	if err != nil {
		return message{}, err
	}
	var a message
	for _, i := range found {
		a.numbers = append(a.numbers, uint64(i))
	}
	return a, nil
}

// maxRandom is the most octets of one question.
const maxRandom = 1024

func (s *Server) random(q *message) (message, error) {
	if err := q.shape(false, 0, 1, false); err != nil || q.numbers[0] == 0 || q.numbers[0] > maxRandom {
		return message{}, fault.Newf(fault.Invalid, "draw random octets", "1 to %d", maxRandom)
	}
	octets := make([]byte, q.numbers[0])
	_, err := io.ReadFull(s.cfg.Token.Random(), octets)
	return one(octets, err)
}
