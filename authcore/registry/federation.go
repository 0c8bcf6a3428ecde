package registry

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"custode/authcore/saml"
	"custode/internal/fault"
)

// FederationConfig configures a Federation. Source, CopyPath, Pinned, Random, Now and
// Log are required.
type FederationConfig struct {
	Source   Source
	CopyPath string              // absolute; the last good copy, beside it the one being written
	Pinned   []*x509.Certificate // who may have signed the aggregate; several for a roll-over
	Rules    Rules
	Random   io.Reader // jitter of the schedule
	Now      func() time.Time
	Log      *slog.Logger
}

// Rules are the decisions on the replica. Zero values take the default.
type Rules struct {
	Interval         time.Duration // between refreshes, plus or minus a tenth; 0: 1h
	Timeout          time.Duration // of one refresh; 0: 15m
	MaxOctets        int64         // of the aggregate; 0: 1 GiB
	MaxShrinkPercent int           // see Options; 0: 25
	MaxAge           time.Duration // without a successful refresh before the alarm; 0: 72h
	StopAge          time.Duration // without a successful refresh before logins stop; 0: never
	Cached           int           // parsed service providers kept in memory; 0: 4096
	// Pace is which share of the time an inspection works, in percent, so that
	// logins have the rest; 0: 50.
	Pace int
}

// Federation is the replica of the national registry. It is safe for concurrent use.
type Federation struct {
	c        FederationConfig
	current  atomic.Pointer[federationSnapshot]
	cache    providers
	requests chan Accept
	damaged  atomic.Bool // the copy in use could not be read

	mu       sync.Mutex // guards what follows
	progress progress
	lastWarn time.Time // of an entity that could not be read
}

// progress is what the schedule is doing, for operators.
type progress struct {
	refreshing  bool
	attempts    int
	lastAttempt time.Time
	lastSuccess time.Time
	lastError   string
	failures    int // in a row
	next        time.Time
	took        time.Duration
}

// Accept is what an operator lets pass in one refresh.
type Accept struct {
	Shrink   bool `json:"shrink"`   // a set that shrinks by more than the rule allows
	Rollback bool `json:"rollback"` // an aggregate older than the one in use
}

// NewFederation builds the replica; fault.Invalid for a configuration that cannot be.
func NewFederation(c FederationConfig) (*Federation, error) {
	const op = "build registry replica"
	r := &c.Rules
	setDefault(&r.Interval, time.Hour)
	setDefault(&r.Timeout, 15*time.Minute)
	setDefault(&r.MaxOctets, 1<<30)
	setDefault(&r.MaxShrinkPercent, defaultShrinkPercent)
	setDefault(&r.MaxAge, 72*time.Hour)
	setDefault(&r.Cached, 4096)
	setDefault(&r.Pace, 50)
	switch {
	case c.Source == nil || c.CopyPath == "" || c.Random == nil || c.Now == nil || c.Log == nil:
		return nil, fault.Newf(fault.Invalid, op, "source, path of the copy, randomness, clock and log are required")
	case len(c.Pinned) == 0:
		return nil, fault.Newf(fault.Invalid, op, "no certificate to verify the aggregate with")
	case r.Interval < 0 || r.Timeout < 0 || r.MaxOctets < 0 || r.MaxShrinkPercent < 0 || r.MaxShrinkPercent > 100 ||
		r.MaxAge < 0 || r.StopAge < 0 || r.Cached < 1 || r.Pace < 1 || r.Pace > 100:
		return nil, fault.Newf(fault.Invalid, op, "rule out of range")
	}
	f := &Federation{c: c, requests: make(chan Accept, 1)}
	f.cache.most = r.Cached
	f.cache.known = make(map[cacheKey]*saml.SP, 64)
	return f, nil
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// Open loads the last good copy, verifying it again. Without one, or with one that
// does not verify, the replica begins empty and not Usable until a refresh
// succeeds; that is no error.
func (f *Federation) Open(ctx context.Context) error {
	if err := os.Remove(f.c.CopyPath + copySuffix); err != nil && !os.IsNotExist(err) {
		return fault.New(fault.Unavailable, "remove an unfinished registry copy", err)
	}
	start := f.c.Now()
	s, err := f.load(ctx)
	switch {
	case fault.Is(err, fault.NotFound):
		f.c.Log.Warn("registry: no copy yet; nobody can log in before the first refresh")
		return nil
	case err != nil && ctx.Err() != nil:
		return fault.New(fault.Unavailable, "open the registry copy", ctx.Err())
	case err != nil:
		f.c.Log.Error("registry: the copy is not usable; nobody can log in before the next refresh", "error", err)
		return nil
	}
	f.current.Store(s)
	f.mu.Lock()
	f.progress.lastSuccess = s.foot.Fetched
	if s.foot.Fetched.After(start) { // the clock went back since
		f.progress.lastSuccess = start
	}
	if info, err := s.file.Stat(); err == nil && info.ModTime().After(s.foot.Fetched) && !info.ModTime().After(start) {
		f.progress.lastSuccess = info.ModTime() // confirmed since: see touch
	}
	last := f.progress.lastSuccess
	f.mu.Unlock()
	f.c.Log.Info("registry: copy loaded", "entities", len(s.entities), "last success", last, "took", f.c.Now().Sub(start))
	return nil
}

// Close closes the copy. Look-ups that are under way fail.
func (f *Federation) Close() error {
	s := f.current.Swap(nil)
	if s == nil {
		return nil
	}
	if err := s.file.Close(); err != nil {
		return fault.New(fault.Internal, "close the registry copy", err)
	}
	return nil
}

// Lookup returns the SP of that entityID, compared octet by octet, if it is
// neither disabled nor deleted nor broken. The SP is shared and must not be
// modified. It never waits for a refresh.
func (f *Federation) Lookup(entityID string) (*saml.SP, bool) {
	s := f.current.Load()
	if s == nil {
		return nil, false
	}
	e, ok := s.entities[entityID]
	if !ok || e.standing != live {
		return nil, false
	}
	key := cacheKey{e.digest, s.contexts[e.part]}
	if sp := f.cache.get(key); sp != nil && sp.EntityID.String() == entityID {
		return sp, true
	}
	if in := s.inspection.Load(); in != nil && in.reasons[entityID] != "" {
		return nil, false
	}
	sp, err := s.parse(entityID, e)
	if err != nil {
		f.warn(entityID, err)
		return nil, false
	}
	f.cache.put(key, sp)
	return sp, true
}

// warn logs an entity that cannot be read, at most once a minute.
func (f *Federation) warn(entityID string, err error) {
	now := f.c.Now()
	f.mu.Lock()
	quiet := now.Sub(f.lastWarn) < time.Minute
	if !quiet {
		f.lastWarn = now
	}
	f.mu.Unlock()
	if !quiet {
		f.c.Log.Error("registry: entity not readable", "entity", printable(entityID), "error", err)
	}
}

// Usable is nil when requests can be judged by the replica, else
// fault.Unavailable: there is no copy, the aggregate says that it is no longer
// valid, or the last success is older than Rules.StopAge. Whoever asks
// then knows nothing about a service provider; it is not unknown.
func (f *Federation) Usable() error {
	const op = "use registry copy"
	s, now := f.current.Load(), f.c.Now()
	if s == nil {
		return fault.Newf(fault.Unavailable, op, "there is none")
	}
	if !s.validUntil.IsZero() && now.After(s.validUntil) {
		return fault.Newf(fault.Unavailable, op, "it was valid until %s", s.validUntil.Format(time.RFC3339))
	}
	if f.c.Rules.StopAge == 0 {
		return nil
	}
	f.mu.Lock()
	age := now.Sub(f.progress.lastSuccess)
	f.mu.Unlock()
	if age > f.c.Rules.StopAge {
		return fault.Newf(fault.Unavailable, op, "not confirmed for %s", age.Round(time.Second))
	}
	return nil
}

// Refresh asks Run for a refresh at once and returns its number; Status tells when it is over. Another one waiting is
// fault.Busy.
func (f *Federation) Refresh(a Accept) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.progress.refreshing {
		return 0, fault.Newf(fault.Busy, "refresh registry", "a refresh is under way")
	}
	select {
	case f.requests <- a:
		return f.progress.attempts + 1, nil
	default:
		return 0, fault.Newf(fault.Busy, "refresh registry", "another refresh waits")
	}
}

// load opens the copy at CopyPath, verifies it as when it was fetched and
// builds its index.
func (f *Federation) load(ctx context.Context) (*federationSnapshot, error) {
	file, foot, err := openCopy(f.c.CopyPath)
	if err != nil {
		return nil, err
	}
	s, err := f.loadFrom(ctx, file, foot)
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return s, nil
}

func (f *Federation) loadFrom(ctx context.Context, file *os.File, foot *footer) (*federationSnapshot, error) {
	b := f.newBuild(nil)
	at := foot.Fetched
	if now := f.c.Now(); at.After(now) {
		at = now // the clock went back; by how much, the certificate's validity judges
	}
	for i := range foot.Parts {
		p := &foot.Parts[i]
		// The certificate must have been valid when the copy was made; that it
		// has expired since is for the next refresh to find.
		doc, err := b.readPart(ctx, p.section(file), io.Discard, p.Offset, at)
		if err != nil {
			return nil, err
		}
		if doc.Octets != p.Length {
			return nil, fault.Newf(fault.Invalid, "load registry copy", "part %d is not as it was written", i)
		}
	}
	if foot.Listing != nil {
		if err := b.readListing(foot.Listing.section(file), foot.Listing.Digest); err != nil {
			return nil, err
		}
	}
	s := b.finish(file, foot)
	f.c.Log.Debug("registry: copy verified", "parts", len(foot.Parts))
	return s, nil
}

func hexadecimal(b []byte) string { return fmt.Sprintf("%x", b) }
