package registry

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"custode/authcore/saml"
	"custode/internal/fault"
)

const (
	// maxFiles bounds a directory; the federation has about 40 000 entities.
	maxFiles = 100_000
	// smallSet is the size below which a shrinking set is not suspicious.
	smallSet             = 10
	defaultShrinkPercent = 25
)

// Options configures Load.
type Options struct {
	// Pinned are the only certificates a file may be signed with, for instance
	// those of the federation registry. Without them each SP signs for itself,
	// and whoever can write into the directory is trusted.
	Pinned []*x509.Certificate
	// MaxShrinkPercent is by how much a Reload may shrink a set of ten or more
	// before it is taken for an accident and refused; 0: 25, 100: any.
	MaxShrinkPercent int
	Log              *slog.Logger     // of Run; nil: none
	Now              func() time.Time // of Status; nil: time.Now
}

// Report tells what a load found.
type Report struct {
	Loaded   int         // service providers in the new snapshot
	Rejected []Rejection // by file name
}

// Rejection is a file that was left out.
type Rejection struct {
	File string // name inside the directory
	Err  error
}

// Registry finds service providers. It is safe for concurrent use.
type Registry struct {
	dir     string
	options Options
	current atomic.Pointer[snapshot]
	reload  sync.Mutex // one Reload at a time

	mu   sync.Mutex // guards last
	last struct {
		at, success time.Time
		attempts    int
		rejected    []Rejection
		err         string
	}
}

// snapshot is never modified once it is current.
type snapshot struct {
	byEntity map[string]*saml.SP
	byFile   map[string]parsed
	// certs holds one copy of each certificate: the entities of an aggregator
	// share theirs, and there are tens of thousands of them.
	certs map[[sha256.Size]byte]*x509.Certificate
}

// parsed remembers a good file, so that reloading does not verify the
// signatures of what did not change.
type parsed struct {
	digest [sha256.Size]byte
	sp     *saml.SP
}

// Load reads the directory. The error is about the directory itself
// (fault.Unavailable, fault.Invalid); files that are left out are in the
// report. A directory without a good file gives an empty registry.
func Load(dir string, o Options) (*Registry, Report, error) {
	if o.MaxShrinkPercent < 0 || o.MaxShrinkPercent > 100 {
		return nil, Report{}, fault.Newf(fault.Invalid, "load registry", "shrink percentage out of range")
	}
	if o.MaxShrinkPercent == 0 {
		o.MaxShrinkPercent = defaultShrinkPercent
	}
	o.Pinned = slices.Clone(o.Pinned)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	r := &Registry{dir: dir, options: o}
	next, report, err := r.read(&snapshot{})
	if err != nil {
		return nil, report, err
	}
	r.current.Store(next)
	r.note(report, nil)
	return r, report, nil
}

// Lookup returns the SP of that entityID, compared octet by octet. The SP is
// shared and must not be modified.
func (r *Registry) Lookup(entityID string) (*saml.SP, bool) {
	sp, ok := r.current.Load().byEntity[entityID]
	return sp, ok
}

// Len returns the number of service providers.
func (r *Registry) Len() int { return len(r.current.Load().byEntity) }

// Reload reads the directory again and switches to what it finds in one step.
// On error the registry goes on with what it has: fault.Unavailable when the
// directory cannot be read, fault.Conflict when the set would shrink more than
// the options allow.
func (r *Registry) Reload() (Report, error) { return r.reloadAccepting(Accept{}) }

func (r *Registry) reloadAccepting(a Accept) (report Report, err error) {
	r.reload.Lock()
	defer r.reload.Unlock()
	defer func() { r.note(report, err) }()
	last := r.current.Load()
	next, report, err := r.read(last)
	if err != nil {
		return report, err
	}
	before, after := len(last.byEntity), len(next.byEntity)
	if !a.Shrink && before >= smallSet && (before-after)*100 > before*r.options.MaxShrinkPercent {
		return report, fault.Newf(fault.Conflict, "reload registry", "%d service providers would remain of %d", after, before)
	}
	r.current.Store(next)
	return report, nil
}

// read builds a snapshot, taking over from last what did not change.
func (r *Registry) read(last *snapshot) (*snapshot, Report, error) {
	const op = "read registry"
	// A root keeps every name inside the directory.
	root, err := os.OpenRoot(r.dir)
	if err != nil {
		return nil, Report{}, fault.New(fault.Unavailable, op, err)
	}
	defer root.Close() //nolint:errcheck // read only
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, Report{}, fault.New(fault.Unavailable, op, err)
	}
	if len(entries) > maxFiles {
		return nil, Report{}, fault.Newf(fault.Invalid, op, "more than %d files", maxFiles)
	}
	next := &snapshot{byEntity: make(map[string]*saml.SP, len(entries)), byFile: make(map[string]parsed, len(entries)),
		certs: make(map[[sha256.Size]byte]*x509.Certificate)}
	claims := make(map[string][]string, len(entries))
	var report Report
	for _, e := range entries {
		name := e.Name()
		if !strings.HasSuffix(name, ".xml") || strings.HasPrefix(name, ".") {
			continue
		}
		p, err := r.readOne(root, e, last, next)
		if err != nil {
			report.Rejected = append(report.Rejected, Rejection{name, err})
			continue
		}
		next.byFile[name] = p
		entityID := p.sp.EntityID.String()
		next.byEntity[entityID] = p.sp
		claims[entityID] = append(claims[entityID], name)
	}
	for entityID, names := range claims {
		if len(names) == 1 {
			continue
		}
		delete(next.byEntity, entityID)
		for _, name := range names {
			delete(next.byFile, name)
			report.Rejected = append(report.Rejected, Rejection{name,
				fault.Newf(fault.Conflict, op, "entityID %q is claimed by %d files", entityID, len(names))})
		}
	}
	slices.SortFunc(report.Rejected, func(a, b Rejection) int { return strings.Compare(a.File, b.File) })
	report.Loaded = len(next.byEntity)
	return next, report, nil
}

func (r *Registry) readOne(root *os.Root, e fs.DirEntry, last, next *snapshot) (parsed, error) {
	const op = "read SP metadata"
	if !e.Type().IsRegular() {
		return parsed{}, fault.Newf(fault.Invalid, op, "not a regular file")
	}
	f, err := root.Open(e.Name())
	if err != nil {
		return parsed{}, fault.New(fault.Unavailable, op, err)
	}
	data, err := io.ReadAll(io.LimitReader(f, saml.MaxSPMetadata+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return parsed{}, fault.New(fault.Unavailable, op, err)
	}
	if len(data) > saml.MaxSPMetadata {
		return parsed{}, fault.Newf(fault.Invalid, op, "longer than %d octets", saml.MaxSPMetadata)
	}
	digest := sha256.Sum256(data)
	if p, ok := last.byFile[e.Name()]; ok && p.digest == digest {
		for _, cert := range p.sp.Certificates {
			next.intern(cert)
		}
		return p, nil
	}
	sp, err := saml.ParseSPMetadata(data, r.options.Pinned...)
	if err != nil {
		return parsed{}, err
	}
	harmless(sp)
	for i, cert := range sp.Certificates {
		sp.Certificates[i] = next.intern(cert)
	}
	return parsed{digest, sp}, nil
}

// intern returns the first certificate of the same octets.
func (s *snapshot) intern(cert *x509.Certificate) *x509.Certificate {
	key := sha256.Sum256(cert.Raw)
	if known, ok := s.certs[key]; ok {
		return known
	}
	s.certs[key] = cert
	return cert
}
