package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unsafe"

	p11 "github.com/miekg/pkcs11"

	"custode/hsm"
	"custode/hsm/pkcs11/direct"
	"custode/hsm/pkcs11/location"
	"custode/hsm/pkcs11/rv"
	"custode/internal/fault"
	"custode/internal/id"
)

// Config says which token to open and how patiently to use it. Only URI is
// required.
type Config struct {
	URI           string           // RFC 7512, see ParseLocation
	InitArgs      string           // given to the module as pReserved in C_Initialize, as NSS wants; "" is NULL
	Tolerate      hsm.Lacks        // what the token may lack of the key policy; logged when it is opened
	Copied        []id.KeyLabel    // keys that may be in other tokens too (hsm.Copied); logged when they are opened
	DecryptSeeds  bool             // OATH secrets are decrypted into memory (hsm.MechanismAESGCM): for tokens that cannot unwrap; logged when it is opened
	CallersWait   bool             // a caller stays until its call inside the module returns, whatever its deadline: saves a goroutine's turn (20 us), for a process that others can do without
	MaxSessions   int              // operations inside the module at a time; 0 means 8, at most 256
	Log           *slog.Logger     // nil discards
	Now           func() time.Time // nil means time.Now
	OpTimeout     time.Duration    // for operations without a context (crypto.Signer, Random); 0 means 10 s
	CallLimit     time.Duration    // a call inside the module for longer makes the Token fatally ill; 0 means 30 s
	ProbeInterval time.Duration    // between two health probes of Run; 0 means 5 s
	Backoff       time.Duration    // before the first re-opening; doubled up to 64 times itself; 0 means 250 ms
}

// Token is one opened token. It is safe for concurrent use.
type Token struct {
	cfg Config
	loc Location
	mod *p11.Ctx
	// direct is the same module, for what the binding does not do well.
	direct   direct.Module
	reserved unsafe.Pointer // Config.InitArgs in C memory
	// inject, when set by a test, runs before each operation on its session.
	inject func(s p11.SessionHandle) error

	// permits bounds the operations, and with them the OS threads, inside the
	// module. A permit is taken before a session and returned after it.
	permits chan struct{}

	mu       sync.Mutex
	info     Info                 // set once, by Open
	serial   string               // of the token first opened
	known    map[id.KeyLabel]*key // keys in use, re-examined after each login
	gen      *generation          // nil while there is no usable login
	parked   int                  // permits withheld since the token ran out of sessions
	repair   *repair              // the repair in progress, nil when there is none
	down     error                // why gen is nil and not being seen to at once
	retryAt  time.Time            // when down is worth another try
	failures int                  // consecutive failed re-openings
	dead     error                // fatal until a new Open
	closed   bool
	hung     map[*lease]struct{} // leases of an abandoned generation
	unclosed []p11.SessionHandle // that the token did not close when asked

	// unclear is true when the last C_Login was answered by an error that says
	// nothing of the PIN. Only login uses it.
	unclear bool
}

// generation is the time between two logins. Its maps are guarded by Token.mu.
type generation struct {
	slot    uint
	anchor  p11.SessionHandle // logged in, used by the repairing goroutine only
	idle    []p11.SessionHandle
	busy    map[*lease]struct{}
	handles map[id.KeyLabel]p11.ObjectHandle
	lost    map[id.KeyLabel]error // known keys that this login did not find
	retired bool
	drained chan struct{} // closed once retired with nothing busy
}

// lease is one borrowed session, or the intention to open one.
type lease struct {
	session p11.SessionHandle
	opened  bool
	since   time.Time
	parked  bool // the token refused another session and the permit was withheld
}

var (
	_ hsm.Token = (*Token)(nil)
	_ io.Closer = (*Token)(nil)
)

func (c Config) withDefaults() Config {
	pick := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	pick(&c.OpTimeout, 10*time.Second)
	pick(&c.CallLimit, 30*time.Second)
	pick(&c.ProbeInterval, 5*time.Second)
	pick(&c.Backoff, 250*time.Millisecond)
	if c.MaxSessions <= 0 {
		c.MaxSessions = 8
	}
	c.MaxSessions = min(c.MaxSessions, 256)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// Open loads the module, finds the one token that the URI selects, logs in and
// checks its random numbers. A wrong PIN, an ambiguous or unfit token is
// fault.Fatal; a token that is not there fault.Unavailable; a module that this
// process has initialised already fault.Conflict. After an error the module is
// finalised again. When ctx ends first, the call still inside the module ends
// on its own and finalises it.
func Open(ctx context.Context, cfg Config) (*Token, error) {
	loc, err := ParseLocation(cfg.URI)
	if err != nil {
		return nil, err
	}
	if err := loc.CheckModule(); err != nil {
		return nil, err
	}
	t := &Token{cfg: cfg.withDefaults(), loc: loc, known: map[id.KeyLabel]*key{}, hung: map[*lease]struct{}{}}
	opened := make(chan error)
	abandoned := make(chan struct{})
	go func() {
		err := t.open()
		select {
		case <-abandoned:
			if err == nil {
				_ = t.mod.Finalize()
			}
		case opened <- err:
		}
	}()
	select {
	case err := <-opened:
		if err != nil {
			return nil, err
		}
		return t, nil
	case <-ctx.Done():
		close(abandoned)
		return nil, waited("open token "+loc.Name(), ctx)
	}
}

// Location says where a token is.
type Location = location.Location

// ParseLocation reads an RFC 7512 URI; see location.Parse.
func ParseLocation(uri string) (Location, error) { return location.Parse(uri) }

func (t *Token) open() error {
	op := "open token " + t.loc.Name()
	if t.mod = p11.New(t.loc.Module); t.mod == nil {
		return fault.Newf(fault.Fatal, op, "%s cannot be loaded as a PKCS #11 module", t.loc.Module)
	}
	var err error
	if t.direct, err = direct.Load(t.loc.Module); err != nil {
		return err
	}
	if err := t.initialize(); err != nil {
		if rv.Is(err, p11.CKR_CRYPTOKI_ALREADY_INITIALIZED) {
			return fault.Newf(fault.Conflict, op, "the module has another owner in this process: %w", err)
		}
		return fault.New(fault.Unavailable, op, inCall("C_Initialize", err))
	}
	g, info, err := t.login()
	if err == nil {
		err = t.checkRandom(g)
	}
	if err != nil {
		// Never Destroy: unloading a module has crashed processes.
		return errors.Join(outward(op, err), inCall("C_Finalize", t.mod.Finalize()))
	}
	limit := t.cfg.MaxSessions
	// 0 and all ones mean "no limit" and "will not say"; one is the anchor.
	if m := info.MaxSessionCount; m != p11.CK_EFFECTIVELY_INFINITE && m != p11.CK_UNAVAILABLE_INFORMATION && m < uint(limit)+1 {
		limit = max(int(m)-1, 1)
	}
	t.permits = make(chan struct{}, limit)
	for range limit {
		t.permits <- struct{}{}
	}
	t.serial, t.gen = info.SerialNumber, g
	t.info = Info{
		Label: info.Label, Serial: info.SerialNumber, Manufacturer: info.ManufacturerID, Model: info.Model,
		Hardware: fmt.Sprintf("%d.%d", info.HardwareVersion.Major, info.HardwareVersion.Minor),
		Firmware: fmt.Sprintf("%d.%d", info.FirmwareVersion.Major, info.FirmwareVersion.Minor),
	}
	for _, lack := range t.cfg.Tolerate.Strings() {
		t.cfg.Log.Warn("THE KEY POLICY IS NOT ENFORCED IN FULL: the token is allowed to lack a rule", "token", info.Label, "lacks", lack)
	}
	if t.cfg.DecryptSeeds {
		t.cfg.Log.Warn("OATH SECRETS ARE DECRYPTED INTO THE MEMORY OF THIS PROCESS at each use: hsm.seeds is decrypt", "token", info.Label)
	}
	t.cfg.Log.Info("token opened", "token", info.Label, "serial", info.SerialNumber, "model", info.Model, "sessions", limit)
	return nil
}

// outward gives an error met while opening, or not cured by repairs, the kind
// that a caller of this package acts on: an operator must act, or a part is down.
func outward(op string, err error) error {
	if kind := rv.Kind(err); kind == fault.Fatal || kind == fault.Conflict {
		return fault.New(kind, op, err)
	}
	return fault.New(fault.Unavailable, op, err)
}

// Info is what a token says of itself, without padding.
type Info struct {
	Label, Serial, Manufacturer, Model, Hardware, Firmware string
}

// Info returns what the token said of itself when it was opened.
func (t *Token) Info() Info { return t.info }

// Health returns nil when the token and every key opened can be used.
// fault.Unavailable means that re-opening is being tried, fault.Fatal that only
// an operator or a new process helps; other keys may still work then.
func (t *Token) Health() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	op := "check token " + t.loc.Name()
	switch {
	case t.dead != nil:
		return t.dead
	case t.closed:
		return fault.Newf(fault.Unavailable, op, "it is closed")
	}
	if t.stuck() {
		return fault.Newf(fault.Fatal, op, "a call inside the module has not returned for %v: the process must be restarted", t.cfg.CallLimit)
	}
	if t.gen != nil {
		for _, label := range slices.SortedFunc(maps.Keys(t.gen.lost), func(a, b id.KeyLabel) int { return strings.Compare(a.String(), b.String()) }) {
			return fault.New(fault.Fatal, op, t.gen.lost[label])
		}
	}
	return t.down
}

// Forget forgets the keys that the token was seen not to hold any more and that nobody needs: they were retired
// and destroyed, and Health has nothing to say of them.
func (t *Token) Forget(needed func(id.KeyLabel) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gen == nil {
		return
	}
	for label := range t.gen.lost {
		if !needed(label) {
			delete(t.known, label)
			delete(t.gen.lost, label)
		}
	}
}

// stuck reports whether something does not return. Token.mu is held.
func (t *Token) stuck() bool {
	now := t.cfg.Now()
	stuck := t.repair != nil && now.Sub(t.repair.since) > t.cfg.CallLimit
	for _, set := range []map[*lease]struct{}{t.hung, t.busy()} {
		for l := range set {
			stuck = stuck || now.Sub(l.since) > t.cfg.CallLimit
		}
	}
	return stuck
}

// Stuck reports whether a call inside the module has not returned for CallLimit: only the end of the
// process helps.
func (t *Token) Stuck() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stuck()
}

// Load returns how many operations are inside the module, and how many may be.
func (t *Token) Load() (busy, limit int) { return cap(t.permits) - len(t.permits), cap(t.permits) }

func (t *Token) busy() map[*lease]struct{} {
	if t.gen == nil {
		return nil
	}
	return t.gen.busy
}

// Run probes the token and re-opens it when it is down, until ctx ends (nil) or
// the Token is dead or closed (that error). Without Run a dead login is noticed
// by the operation that meets it.
func (t *Token) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		wait := t.tick(ctx)
		t.mu.Lock()
		dead, closed := t.dead, t.closed
		t.mu.Unlock()
		if dead != nil {
			return dead
		}
		if closed {
			return fault.Newf(fault.Unavailable, "watch token "+t.loc.Name(), "it is closed")
		}
		timer.Reset(wait)
	}
}

// tick does one probe, or one re-opening when that is due, and returns the time
// to wait for the next.
func (t *Token) tick(ctx context.Context) time.Duration {
	t.mu.Lock()
	g := t.gen
	wait := t.retryAt.Sub(t.cfg.Now())
	t.unpark()
	t.mu.Unlock()
	switch {
	case g != nil:
		t.mend(ctx, g, trouble{level: levelProbe})
	case wait <= 0:
		t.mend(ctx, nil, trouble{level: levelRestart})
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gen != nil || t.down == nil {
		return t.cfg.ProbeInterval
	}
	return min(max(t.retryAt.Sub(t.cfg.Now()), time.Millisecond), t.cfg.ProbeInterval)
}

// Close waits for the calls inside the module, at most CallLimit, and finalises
// it. When a call does not return, the module is left as it is and the error is
// fault.Fatal: the process must end. Closing again returns nil.
func (t *Token) Close() error {
	op := "close token " + t.loc.Name()
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed = true
	r := t.repair
	t.mu.Unlock()
	if r != nil {
		timer := time.NewTimer(t.cfg.CallLimit)
		defer timer.Stop()
		select {
		case <-r.done:
		case <-timer.C:
			return fault.Newf(fault.Fatal, op, "a repair inside the module has not returned for %v", t.cfg.CallLimit)
		}
	}
	t.mu.Lock()
	g, hung := t.gen, len(t.hung) > 0
	t.mu.Unlock()
	if g != nil {
		hung = hung || !t.retire(g)
	}
	if hung {
		return fault.Newf(fault.Fatal, op, "a call inside the module has not returned for %v", t.cfg.CallLimit)
	}
	if err := t.mod.Finalize(); err != nil && !rv.Is(err, p11.CKR_CRYPTOKI_NOT_INITIALIZED) {
		return fault.New(fault.Unavailable, op, inCall("C_Finalize", err))
	}
	t.cfg.Log.Info("token closed", "token", t.loc.Name())
	return nil
}
