package registry

import (
	"crypto/sha256"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"custode/authcore/registry/aggregate"
	"custode/authcore/saml"
	"custode/internal/fault"
	"custode/internal/id"
)

const (
	maxEntities = 200_000
	// maxReported bounds the list of broken entities that is kept.
	maxReported = 200
)

// standing is what is known of an entity.
type standing uint8

const (
	live standing = iota
	broken
	disabled
	deleted
)

var standingNames = [...]string{"live", "broken", "disabled", "deleted"}

// entry finds an entity's octets in the copy.
type entry struct {
	offset   int64
	length   int32
	part     uint16
	standing standing
	digest   [sha256.Size]byte
}

// federationSnapshot is one copy with its index. It is not modified once it is current,
// except by the one inspection that follows a restart. The file stays open, and
// so readable after a newer copy took its name, as long as somebody looks something up in it; the
// garbage collector closes it after that.
type federationSnapshot struct {
	file       *os.File
	foot       *footer
	entities   map[string]entry
	contexts   []string // of each part
	digests    []string // of each part's signature, hexadecimal
	validUntil time.Time
	created    time.Time
	octets     int64
	listedOnly int // in the listing and not in the aggregate
	duplicates int // repeated octet by octet

	index      *index // what building it found, for the inspection
	inspection atomic.Pointer[inspection]
}

// inspection is what parsing every entity found.
type inspection struct {
	reasons map[string]string // of broken entities
	list    []Broken          // the first maxReported
	broken  int
	count   [4]int // entities by standing
}

// Broken is an entity that was left out, as operators read it.
type Broken struct {
	Entity string `json:"entity"`
	Reason string `json:"reason"`
}

// index collects the entities of a copy that is being read.
type index struct {
	entities map[string]entry
	claims   map[string]string // broken before parsing: entityID -> reason
	unnamed  []Broken
	repeated int
}

func newIndex(size int) *index {
	return &index{entities: make(map[string]entry, size), claims: map[string]string{}}
}

// add enters an entity. An entityID that comes again with the same octets
// counts once; with others it belongs to neither.
func (x *index) add(e aggregate.Entity, base int64, part int) error {
	if _, err := id.ParseEntityID(e.ID); err != nil {
		x.unnamed = append(x.unnamed, Broken{printable(e.ID), "entityID missing or malformed"})
		if len(x.unnamed) > maxEntities/10 {
			return fault.Newf(fault.Invalid, "index aggregate", "too many entities without a usable entityID")
		}
		return nil
	}
	name := strings.Clone(e.ID)
	before, twice := x.entities[name]
	switch {
	case twice && before.digest == e.Digest && !e.Oversize:
		x.repeated++
		return nil
	case twice:
		x.claims[name] = "entityID is given to two different entities"
	case e.Oversize:
		x.claims[name] = fmt.Sprintf("larger than %d octets", saml.MaxSPMetadata)
	}
	s := live
	if x.claims[name] != "" {
		s = broken
	}
	x.entities[name] = entry{offset: base + e.Offset, length: int32(e.Length), part: uint16(part), standing: s, digest: e.Digest}
	return nil
}

// octetsOf reads an entity from the copy and compares it with what was signed.
func (s *federationSnapshot) octetsOf(e entry) ([]byte, error) {
	const op = "read entity from the registry copy"
	octets := make([]byte, e.length)
	if _, err := s.file.ReadAt(octets, e.offset); err != nil {
		return nil, fault.New(fault.Unavailable, op, err)
	}
	if sha256.Sum256(octets) != e.digest {
		return nil, fault.Newf(fault.Fatal, op, "the file was changed")
	}
	return octets, nil
}

// parse reads one entity from the copy.
func (s *federationSnapshot) parse(entityID string, e entry) (*saml.SP, error) {
	octets, err := s.octetsOf(e)
	if err != nil {
		return nil, err
	}
	sp, err := saml.ParseAggregatedSP(s.contexts[e.part], octets)
	if err != nil {
		return nil, err
	}
	if sp.EntityID.String() != entityID {
		return nil, fault.Newf(fault.Invalid, "read entity from the registry copy", "entityID is another")
	}
	harmless(sp)
	return sp, nil
}

// inspect parses every entity, so that broken ones are known before anybody
// asks for them. Entities with the octets of a verdict in last are not parsed again. pause is
// called every few entities.
func (s *federationSnapshot) inspect(x *index, last *federationSnapshot, pause func() error) (*inspection, error) {
	in := &inspection{reasons: x.claims}
	var known *inspection
	if last != nil {
		known = last.inspection.Load()
	}
	seen := 0
	for name, e := range s.entities {
		if e.standing != broken {
			if seen++; seen%16 == 0 {
				if err := pause(); err != nil {
					return nil, err
				}
			}
			reason, err := s.verdict(name, e, last, known)
			if err != nil {
				return nil, err
			}
			if reason != "" {
				in.reasons[name] = reason
			}
		}
		if in.reasons[name] != "" {
			in.count[broken]++
		} else {
			in.count[e.standing]++
		}
	}
	in.broken = len(in.reasons) + len(x.unnamed)
	in.list = slices.Clone(x.unnamed)
	for name, reason := range in.reasons {
		in.list = append(in.list, Broken{printable(name), printable(reason)})
	}
	slices.SortFunc(in.list, func(a, b Broken) int { return strings.Compare(a.Entity, b.Entity) })
	in.list = slices.Clip(in.list[:min(len(in.list), maxReported)])
	return in, nil
}

func (s *federationSnapshot) verdict(name string, e entry, last *federationSnapshot, known *inspection) (string, error) {
	if known != nil {
		if before, ok := last.entities[name]; ok && before.digest == e.digest && last.contexts[before.part] == s.contexts[e.part] {
			return known.reasons[name], nil
		}
	}
	_, err := s.parse(name, e)
	switch {
	case err == nil:
		return "", nil
	case fault.Is(err, fault.Invalid):
		return err.Error(), nil
	}
	return "", err
}

// memory estimates the octets the index takes.
func (s *federationSnapshot) memory() int64 {
	const each = 16 + 64 + 16 // string header, entry, the map's share
	n := int64(len(s.entities)) * each
	for name := range s.entities {
		n += int64(len(name))
	}
	return n
}

// providers remembers parsed service providers by their octets, so that what
// did not change survives a switch.
type providers struct {
	mu    sync.RWMutex
	known map[cacheKey]*saml.SP
	most  int
}

// cacheKey is all that an entity's parsing depends on.
type cacheKey struct {
	digest  [sha256.Size]byte
	context string
}

func (p *providers) get(key cacheKey) *saml.SP {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.known[key]
}

// put remembers sp; what has to go for it is chosen by chance.
func (p *providers) put(key cacheKey, sp *saml.SP) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for other := range p.known {
		if len(p.known) < p.most {
			break
		}
		delete(p.known, other)
	}
	p.known[key] = sp
}

func (p *providers) len() int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return len(p.known)
}
