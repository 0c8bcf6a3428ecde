package registry

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"slices"
	"time"

	"custode/internal/fault"
)

// maxReplaced is how many aggregates are remembered so that none comes back.
const maxReplaced = 256

// refresh gets the registry once and switches to it, or says why not; then
// nothing changed. changed is false when the source confirmed what is in use.
func (f *Federation) refresh(ctx context.Context, a Accept) (changed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, f.c.Rules.Timeout)
	defer cancel()
	w, err := newCopyWriter(f.c.CopyPath)
	if err != nil {
		return false, err
	}
	kept := false
	defer func() {
		if !kept {
			w.discard()
		}
	}()
	last := f.current.Load()
	g := &gathering{f: f, ctx: ctx, now: f.c.Now(), last: last, w: w, build: f.newBuild(last), foot: &footer{Source: f.c.Source.String(), Fetched: f.c.Now()}}
	if err := g.gather(); err != nil {
		return false, errors.Join(err, context.Cause(ctx))
	}
	if !g.changed && f.inPlace(last) {
		return false, f.touch()
	}
	next := g.build.finish(w.file, g.foot)
	if err := f.judgeAge(next, last, a); err != nil {
		return false, err
	}
	pause := f.pacer(ctx)
	if last == nil {
		pause = ctx.Err // nobody can log in yet: the sooner the better
	}
	found, err := next.inspect(next.index, last, pause)
	if err != nil {
		return false, err
	}
	next.inspection.Store(found)
	next.index = nil
	for name := range found.reasons {
		e := next.entities[name]
		e.standing = broken
		next.entities[name] = e
	}
	if err := f.judgeSize(next, last, a); err != nil {
		return false, err
	}
	g.foot.Replaced = replaced(last, next)
	if err := w.commit(g.foot); err != nil {
		return false, err
	}
	kept = true
	f.current.Store(next)
	f.damaged.Store(false)
	return true, nil
}

// gathering is one refresh's way through the source's documents.
type gathering struct {
	f       *Federation
	ctx     context.Context
	now     time.Time
	last    *federationSnapshot
	w       *copyWriter
	build   *build
	foot    *footer
	changed bool
}

func (g *gathering) gather() error {
	total, err := g.f.c.Source.Aggregate(g.ctx, g.known, g.takePart)
	if err != nil {
		return err
	}
	if len(g.foot.Parts) == 0 {
		return fault.Newf(fault.Invalid, "refresh registry", "the source has no aggregate")
	}
	if total >= 0 && total != g.build.counted {
		return fault.Newf(fault.Invalid, "refresh registry", "the source counts %d entities, %d came", total, g.build.counted)
	}
	if err := g.f.c.Source.Listing(g.ctx, g.known, g.takeListing); err != nil {
		return err
	}
	if g.last == nil || len(g.last.foot.Parts) != len(g.foot.Parts) || (g.last.foot.Listing == nil) != (g.foot.Listing == nil) {
		g.changed = true
	}
	return nil
}

// known returns the mark of a document in the copy, if that copy is of the same source
// and can be read.
func (g *gathering) known(name string) Mark {
	if p := g.kept(name); p != nil && !g.f.damaged.Load() {
		return p.Mark
	}
	return Mark{}
}

func (g *gathering) kept(name string) *part {
	if g.last == nil || g.last.foot.Source != g.foot.Source {
		return nil
	}
	for _, p := range [][]part{g.last.foot.Parts, listingParts(g.last.foot)} {
		if i := slices.IndexFunc(p, func(p part) bool { return p.Name == name }); i >= 0 {
			return &p[i]
		}
	}
	return nil
}

// body returns what is to be read: what arrived, or the copy's octets of a
// document that did not change.
func (g *gathering) body(a Arrival) (io.Reader, error) {
	if a.Body != nil {
		g.changed = true
		return a.Body, nil
	}
	p := g.kept(a.Name)
	if p == nil {
		return nil, fault.Newf(fault.Invalid, "refresh registry", "%s is said to be unchanged, but is not known", a.Name)
	}
	return p.section(g.last.file), nil
}

func (g *gathering) takePart(a Arrival) error {
	r, err := g.body(a)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(g.w, 256<<10)
	offset := g.w.size
	doc, err := g.build.readPart(g.ctx, r, out, offset, g.now)
	if err != nil {
		return g.blame(a, err)
	}
	if err := out.Flush(); err != nil {
		return fault.New(fault.Unavailable, "keep aggregate", err)
	}
	g.foot.Parts = append(g.foot.Parts, part{Name: a.Name, Mark: a.Mark, Offset: offset, Length: doc.Octets})
	return nil
}

func (g *gathering) takeListing(a Arrival) error {
	r, err := g.body(a)
	if err != nil {
		return err
	}
	var digest [sha256.Size]byte // nobody signs the listing: what is unchanged must be what was kept
	if p := g.kept(a.Name); a.Body == nil && p != nil {
		digest = p.Digest
	}
	out, h, offset := bufio.NewWriterSize(g.w, 256<<10), sha256.New(), g.w.size
	if err := g.build.readListing(io.TeeReader(untilDone{g.ctx, r}, io.MultiWriter(out, h)), digest); err != nil {
		return g.blame(a, err)
	}
	if err := out.Flush(); err != nil {
		return fault.New(fault.Unavailable, "keep listing", err)
	}
	g.foot.Listing = &part{Name: a.Name, Mark: a.Mark, Offset: offset, Length: g.w.size - offset, Digest: [sha256.Size]byte(h.Sum(nil))}
	return nil
}

// blame notes that a document which did not change could not be read from the
// copy. The source would go on to say that nothing changed, so the next
// refresh asks for everything.
func (g *gathering) blame(a Arrival, err error) error {
	if a.Body == nil && g.ctx.Err() == nil {
		g.f.damaged.Store(true)
	}
	return err
}

// inPlace reports whether the file at CopyPath is the copy in use. One that was
// removed or put there by somebody else is no copy of what the source
// confirmed, and is written anew.
func (f *Federation) inPlace(s *federationSnapshot) bool {
	there, err := os.Stat(f.c.CopyPath)
	if err != nil {
		return false
	}
	ours, err := s.file.Stat()
	return err == nil && os.SameFile(there, ours)
}

// touch records in the copy's modification time that the source confirmed it:
// the age survives a restart.
func (f *Federation) touch() error {
	now := f.c.Now()
	if err := os.Chtimes(f.c.CopyPath, now, now); err != nil {
		return fault.New(fault.Unavailable, "confirm registry copy", err)
	}
	return nil
}

// judgeAge refuses an aggregate that is older than the one in use.
func (f *Federation) judgeAge(next, last *federationSnapshot, a Accept) error {
	const op = "refresh registry"
	if last == nil || a.Rollback || slices.Equal(next.digests, last.digests) {
		return nil
	}
	switch {
	case next.validUntil.Before(last.validUntil) && !next.validUntil.IsZero():
		return fault.Newf(fault.Conflict, op, "aggregate valid until %s is older than the one in use, valid until %s",
			next.validUntil.Format(time.RFC3339), last.validUntil.Format(time.RFC3339))
	case next.created.Before(last.created):
		return fault.Newf(fault.Conflict, op, "aggregate of %s is older than the one in use, of %s",
			next.created.Format(time.RFC3339), last.created.Format(time.RFC3339))
	case len(next.digests) == 1 && slices.Contains(last.foot.Replaced, next.digests[0]):
		return fault.Newf(fault.Conflict, op, "aggregate was in use before and was replaced")
	}
	return nil
}

// judgeSize refuses a set of which too many are gone.
func (f *Federation) judgeSize(next, last *federationSnapshot, a Accept) error {
	const op = "refresh registry"
	after := next.inspection.Load().count
	if after[live] == 0 && !a.Shrink {
		return fault.Newf(fault.Conflict, op, "none of %d service providers is usable", len(next.entities))
	}
	if last == nil || a.Shrink {
		return nil
	}
	before := last.standings()[live]
	if before >= smallSet && (before-after[live])*100 > before*f.c.Rules.MaxShrinkPercent {
		return fault.Newf(fault.Conflict, op, "%d service providers would remain of %d (%d broken, %d disabled, %d deleted)",
			after[live], before, after[broken], after[disabled], after[deleted])
	}
	return nil
}

// standings counts the entities by standing, as far as is known.
func (s *federationSnapshot) standings() [4]int {
	if in := s.inspection.Load(); in != nil {
		return in.count
	}
	var n [4]int
	for _, e := range s.entities {
		n[e.standing]++
	}
	return n
}

// replaced lists the aggregates that next must not be followed by.
func replaced(last, next *federationSnapshot) []string {
	if last == nil {
		return nil
	}
	list := last.foot.Replaced
	if len(last.digests) == 1 && !slices.Equal(last.digests, next.digests) {
		list = append(slices.Clone(list), last.digests[0])
	}
	if len(next.digests) == 1 { // an operator may have let it come back
		list = slices.DeleteFunc(slices.Clone(list), func(d string) bool { return d == next.digests[0] })
	}
	return list[max(0, len(list)-maxReplaced):]
}

// pacer returns a function that sleeps as long as Rules.Pace wants after each
// spell of work.
func (f *Federation) pacer(ctx context.Context) func() error {
	start := time.Now()
	share := time.Duration(f.c.Rules.Pace)
	return func() error {
		worked := time.Since(start)
		if pause := worked * (100 - share) / share; pause > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
		}
		start = time.Now()
		return ctx.Err()
	}
}
