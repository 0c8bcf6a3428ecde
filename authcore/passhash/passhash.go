// Package passhash keeps passwords: it makes the text that is stored for one, and
// says whether a typed password is the one it was made of.
//
// Argon2id bounds what guessing costs, and a MAC by a key of the HSM (the pepper)
// makes guessing impossible for who has the database alone. An unknown username costs
// the same hash and the same MAC. So many hashes run at once as there are cores; behind
// them waits a bounded queue.
//
// It judges no new password (package passrule), keeps nothing (internal/store) and knows no
// login: authcore declares what it needs of it. It may be imported by cmd.
package passhash

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"io"
	"runtime"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/sync/semaphore"
	"golang.org/x/text/unicode/norm"

	"custode/internal/fault"
	"custode/internal/id"
)

// Pepper computes HMAC under a key that never leaves the HSM: who steals the
// database cannot even begin to guess, and who writes to it cannot make a
// password of their own.
type Pepper interface {
	// MAC returns HMAC-SHA-256 or longer of data: 32 to 64 bytes, the same
	// for the same data.
	MAC(ctx context.Context, data []byte) ([]byte, error)
}

// Cost is the work of one Argon2id hash (RFC 9106). A zero field takes its
// default: 19456 KiB, 2 passes, 1 lane.
type Cost struct {
	Memory  uint32 // KiB, 8 x Threads to 131072
	Time    uint32 // passes, 1 to 16
	Threads uint8  // lanes, 1 to 8
}

// What a stored row may ask for. The bounds are checked before anything is
// allocated: the row may be hostile.
const (
	mostMemory  = 128 * 1024 // KiB
	mostTime    = 16
	mostThreads = 8
	mostWork    = 1 << 19 // Memory x Time; 13 times the default work
)

func (c Cost) complete() Cost {
	if c.Memory == 0 {
		c.Memory = 19456
	}
	if c.Time == 0 {
		c.Time = 2
	}
	if c.Threads == 0 {
		c.Threads = 1
	}
	return c
}

func (c Cost) check() error {
	if c.Threads < 1 || c.Threads > mostThreads || c.Time < 1 || c.Time > mostTime ||
		c.Memory < 8*uint32(c.Threads) || c.Memory > mostMemory || uint64(c.Memory)*uint64(c.Time) > mostWork {
		return fmt.Errorf("argon2id cost m=%d,t=%d,p=%d out of bounds", c.Memory, c.Time, c.Threads)
	}
	return nil
}

// Config is what New needs. Pepper and Random are required.
type Config struct {
	Pepper Pepper
	Random io.Reader
	Cost   Cost // of new hashes, and of the work done for unknown usernames
	// Parallel is how many hashes run at a time: default GOMAXPROCS.
	Parallel int
	// Queue is how many may wait for their turn: default 98 per parallel
	// hash. With 25.3 ms per login that is 2.5 s of waiting, which leaves
	// half a second of the 3 s objective (manual 5.1); the next one is told
	// at once to come back.
	Queue int
}

const queuePerHash = 98

// Hasher hashes and checks passwords. The encoding of a hash is
//
//	$custode$1$argon2id$m=19456,t=2,p=1$<salt>$<tag>
//
// where 1 is the version of this scheme, m, t and p are the Argon2id parameters
// (KiB, passes, lanes, decimal without leading zeros), salt is 16 bytes and tag
// 32 to 64 bytes, both in unpadded standard base64. The tag is the pepper's MAC
// over "custode password 1", NUL, the subject, NUL and the 32 bytes that
// Argon2id makes of the password's UTF-8 in NFC and the salt: a tag copied to
// another subject's row does not open it.
//
// Safe for concurrent use.
type Hasher struct {
	pepper  Pepper
	random  io.Reader
	cost    Cost
	dummy   encoded
	nobody  id.Subject
	admit   chan struct{} // one element per caller working or waiting
	running *semaphore.Weighted
	kdf     func(password, salt []byte, time, memory uint32, threads uint8, n uint32) []byte
}

const (
	saltSize   = 16
	hashSize   = 32
	leastTag   = 32
	mostTag    = 64
	mostStored = 256 // bytes of an encoding
)

// New checks the configuration and draws the dummy that stands in for
// the hash of an unknown username. It does not use the pepper.
func New(c Config) (*Hasher, error) {
	const op = "configure passwords"
	if c.Pepper == nil || c.Random == nil {
		return nil, fault.Newf(fault.Invalid, op, "no pepper or no randomness")
	}
	cost := c.Cost.complete()
	if err := cost.check(); err != nil {
		return nil, fault.New(fault.Invalid, op, err)
	}
	if c.Parallel == 0 {
		c.Parallel = runtime.GOMAXPROCS(0)
	}
	if c.Queue == 0 {
		c.Queue = queuePerHash * c.Parallel
	}
	if c.Parallel < 1 || c.Parallel > 1024 || c.Queue < 1 || c.Queue > 1<<20 {
		return nil, fault.Newf(fault.Invalid, op, "%d parallel hashes and a queue of %d", c.Parallel, c.Queue)
	}
	nobody, err := id.NewSubject(c.Random)
	if err != nil {
		return nil, err
	}
	p := &Hasher{pepper: c.Pepper, random: c.Random, cost: cost, nobody: nobody,
		admit:   make(chan struct{}, c.Parallel+c.Queue),
		running: semaphore.NewWeighted(int64(c.Parallel)), kdf: argon2.IDKey,
		dummy: encoded{cost: cost, salt: make([]byte, saltSize), tag: make([]byte, leastTag)}}
	for _, b := range [][]byte{p.dummy.salt, p.dummy.tag} {
		if _, err := io.ReadFull(c.Random, b); err != nil {
			return nil, fault.New(fault.Unavailable, op, err)
		}
	}
	return p, nil
}

// Hash returns the encoding to keep for the subject's password. It does not
// judge the password; see package passrule. fault.Invalid for a password that
// cannot be one (empty, over MaxPassword bytes, not UTF-8), fault.Busy under
// overload, and the pepper's and the randomness' errors.
func (p *Hasher) Hash(ctx context.Context, subject id.Subject, password string) (string, error) {
	const op = "hash password"
	if subject.IsZero() {
		return "", fault.Newf(fault.Invalid, op, "no subject")
	}
	plain, err := normalise(password)
	if err != nil {
		return "", fault.New(fault.Invalid, op, err)
	}
	e := encoded{cost: p.cost, salt: make([]byte, saltSize)}
	if _, err := io.ReadFull(p.random, e.salt); err != nil {
		return "", fault.New(fault.Unavailable, op, err)
	}
	if e.tag, err = p.tag(ctx, subject, e, plain); err != nil {
		return "", err
	}
	return e.String(), nil
}

// Check returns nil when password is the one stored was made of for subject.
// Else fault.Denied: wrong; fault.Busy: no capacity, at once, or ctx ended while
// waiting; fault.Internal: the stored text is malformed; or the pepper's error.
//
// An empty stored text stands for an unknown username or a subject without a
// password: the same work is done against a dummy and the answer is
// fault.Denied.
func (p *Hasher) Check(ctx context.Context, subject id.Subject, stored, password string) error {
	const op = "check password"
	e, known := p.dummy, false
	if stored != "" && !subject.IsZero() {
		var err error
		if e, err = parseEncoded(stored); err != nil {
			return fault.New(fault.Internal, op+" of "+subject.String(), err)
		}
		known = true
	} else {
		subject = p.nobody
	}
	plain, err := normalise(password)
	if err != nil {
		// Nobody has such a password, whoever is asked about.
		return fault.New(fault.Denied, op, err)
	}
	tag, err := p.tag(ctx, subject, e, plain)
	if err != nil {
		return err
	}
	if same := subtle.ConstantTimeCompare(tag, e.tag) == 1; !same || !known {
		return fault.Newf(fault.Denied, op, "wrong")
	}
	return nil
}

// tag does the work: Argon2id in turn, then the pepper, outside of the turn so
// that waiting for the HSM does not idle a core.
func (p *Hasher) tag(ctx context.Context, subject id.Subject, e encoded, plain []byte) ([]byte, error) {
	const op = "hash password"
	hash, err := p.hash(ctx, e, plain)
	if err != nil {
		return nil, err
	}
	data := fmt.Appendf(nil, "custode password 1\x00%s\x00", subject)
	tag, err := p.pepper.MAC(ctx, append(data, hash...))
	if err != nil {
		return nil, err
	}
	if len(tag) < leastTag || len(tag) > mostTag {
		return nil, fault.Newf(fault.Internal, op, "the pepper answered %d bytes", len(tag))
	}
	return tag, nil
}

func (p *Hasher) hash(ctx context.Context, e encoded, plain []byte) ([]byte, error) {
	const op = "wait to hash password"
	select {
	case p.admit <- struct{}{}:
		defer func() { <-p.admit }()
	default:
		return nil, fault.Newf(fault.Busy, op, "%d are working or waiting", cap(p.admit))
	}
	if err := p.running.Acquire(ctx, 1); err != nil {
		return nil, fault.New(fault.Busy, op, err)
	}
	defer p.running.Release(1)
	return p.kdf(plain, e.salt, e.cost.Time, e.cost.Memory, e.cost.Threads, hashSize), nil
}

// MaxPassword is the longest password, in bytes of its UTF-8 in NFC. Rule 10.1
// of the manual sets no maximum; this one only bounds the work.
const MaxPassword = 128

// normalise returns the bytes that are hashed. The same password typed on
// another keyboard may arrive composed differently: NFC makes them equal.
func normalise(password string) ([]byte, error) {
	switch {
	case password == "":
		return nil, fmt.Errorf("empty password")
	case len(password) > 4*MaxPassword: // before NFC, which may shorten
		return nil, fmt.Errorf("password over %d bytes", 4*MaxPassword)
	case !utf8.ValidString(password):
		return nil, fmt.Errorf("password is not UTF-8")
	}
	b := norm.NFC.Bytes([]byte(password))
	if len(b) > MaxPassword {
		return nil, fmt.Errorf("password over %d bytes", MaxPassword)
	}
	return b, nil
}

// encoded is a parsed stored hash.
type encoded struct {
	cost      Cost
	salt, tag []byte
}

const encodingHead = "$custode$1$argon2id$"

func (e encoded) String() string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("%sm=%d,t=%d,p=%d$%s$%s", encodingHead, e.cost.Memory, e.cost.Time, e.cost.Threads,
		b64.EncodeToString(e.salt), b64.EncodeToString(e.tag))
}

// parseEncoded accepts what String makes and nothing else.
func parseEncoded(s string) (encoded, error) {
	var e encoded
	if len(s) > mostStored {
		return e, fmt.Errorf("stored password over %d bytes", mostStored)
	}
	rest, ok := strings.CutPrefix(s, encodingHead)
	parts := strings.Split(rest, "$")
	if !ok || len(parts) != 3 {
		return e, fmt.Errorf("stored password is not in a known form")
	}
	if _, err := fmt.Sscanf(parts[0], "m=%d,t=%d,p=%d", &e.cost.Memory, &e.cost.Time, &e.cost.Threads); err != nil {
		return e, fmt.Errorf("stored password's cost is malformed")
	}
	if err := e.cost.check(); err != nil {
		return e, err
	}
	var err1, err2 error
	b64 := base64.RawStdEncoding.Strict()
	e.salt, err1 = b64.DecodeString(parts[1])
	e.tag, err2 = b64.DecodeString(parts[2])
	if err1 != nil || err2 != nil || len(e.salt) != saltSize || len(e.tag) < leastTag || len(e.tag) > mostTag {
		return e, fmt.Errorf("stored password's salt or tag is malformed")
	}
	if e.String() != s {
		return e, fmt.Errorf("stored password is not in its canonical form")
	}
	return e, nil
}
