package registry

import (
	"context"
	"crypto/sha256"
	"io"
	"os"
	"time"

	"custode/authcore/registry/aggregate"
	"custode/authcore/saml"
	"custode/internal/fault"
)

// build gathers the next snapshot.
type build struct {
	f     *Federation
	index *index
	flags map[string]standing // of the listing

	contexts   []string
	digests    []string
	validUntil time.Time // the earliest
	created    time.Time // the latest
	octets     int64
	counted    int // entities met, repeated ones too
}

// newBuild expects about as many entities as last has.
func (f *Federation) newBuild(last *federationSnapshot) *build {
	size := 0
	if last != nil {
		size = len(last.entities)
	}
	return &build{f: f, index: newIndex(size), flags: map[string]standing{}}
}

// readPart reads one signed document, whose canonical octets will begin at
// offset of the copy, and verifies it as of at.
func (b *build) readPart(ctx context.Context, r io.Reader, out io.Writer, offset int64, at time.Time) (*aggregate.Document, error) {
	limits := aggregate.Limits{Document: b.f.c.Rules.MaxOctets - b.octets, Entity: saml.MaxSPMetadata, Entities: maxEntities - b.counted}
	number := len(b.contexts)
	if number >= maxPages {
		return nil, fault.Newf(fault.Invalid, "read aggregate", "more than %d parts", maxPages)
	}
	doc, err := aggregate.Read(untilDone{ctx, r}, out, limits, func(e aggregate.Entity) error {
		return b.index.add(e, offset, number)
	})
	if err != nil {
		return nil, err
	}
	if _, err := doc.Verify(b.f.c.Pinned, at); err != nil {
		return nil, err
	}
	b.contexts = append(b.contexts, b.sharedContext(string(doc.Context)))
	b.digests = append(b.digests, hexadecimal(doc.Digest()))
	if b.validUntil.IsZero() || !doc.ValidUntil.IsZero() && doc.ValidUntil.Before(b.validUntil) {
		b.validUntil = doc.ValidUntil
	}
	if doc.Created.After(b.created) {
		b.created = doc.Created
	}
	b.octets += doc.Octets
	b.counted += doc.Entities
	return doc, nil
}

func (b *build) sharedContext(c string) string {
	if n := len(b.contexts); n > 0 && b.contexts[n-1] == c {
		return b.contexts[n-1]
	}
	return c
}

// readListing reads the flags; want is the digest of its octets, zero for not known.
func (b *build) readListing(r io.Reader, want [sha256.Size]byte) error {
	h := sha256.New()
	err := eachListed(io.TeeReader(r, h), func(l Listed) error {
		switch {
		case len(l.EntityID) > 1024: // none can be meant
		case bool(l.Deleted):
			b.flags[l.EntityID] = deleted
		case bool(l.Disabled):
			b.flags[l.EntityID] = disabled
		}
		return nil
	})
	if err != nil {
		return err
	}
	if want != [sha256.Size]byte{} && [sha256.Size]byte(h.Sum(nil)) != want {
		return fault.Newf(fault.Invalid, "read registry listing", "the file was changed")
	}
	return nil
}

// finish makes the snapshot of the copy in file.
func (b *build) finish(file *os.File, foot *footer) *federationSnapshot {
	s := &federationSnapshot{
		file: file, foot: foot, entities: b.index.entities, contexts: b.contexts, digests: b.digests,
		validUntil: b.validUntil, created: b.created, octets: b.octets, duplicates: b.index.repeated, index: b.index,
	}
	for name, flag := range b.flags {
		e, ok := s.entities[name]
		if !ok {
			s.listedOnly++
			continue
		}
		if e.standing == live {
			e.standing = flag
			s.entities[name] = e
		}
	}
	return s
}

// untilDone ends reading when the context ends: a file knows no time limit.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}
