package aggregate

import (
	"bufio"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"time"

	"custode/authcore/saml/xmldoc"
	"custode/internal/fault"
)

const (
	nsMetadata    = "urn:oasis:names:tc:SAML:2.0:metadata"
	nsPublication = "urn:oasis:names:tc:SAML:metadata:rpi" // SAML V2.0 Metadata Extensions for Registration and Publication Information
)

// Limits bounds a document.
type Limits struct {
	Document int64 // octets read
	Entity   int   // canonical octets of one entity; a larger one is Oversize
	Entities int
}

// Entity is one EntityDescriptor in what Read wrote.
type Entity struct {
	ID       string // the attribute entityID as it stands, "" for none, cut after 1025 octets
	Offset   int64  // from the beginning of this document's octets
	Length   int
	Digest   [sha256.Size]byte
	Oversize bool // larger than Limits.Entity: Length and Digest say nothing
}

// Document is a document that was read to its end and not yet believed.
type Document struct {
	ID         string
	ValidUntil time.Time // zero for none
	Created    time.Time // mdrpi:PublicationInfo/@creationInstant, zero for none
	Context    []byte    // the namespace declarations, each with its leading blank, that entities inherit
	Octets     int64     // written
	Entities   int

	digest    []byte
	signature *xmldoc.Signature
}

// Read reads a signed aggregate, writes its canonical form to out and calls each
// for every entity, in order, after its octets were written. What was written may be
// used only after Verify. Errors: fault.Invalid for the document, fault.Unavailable when reading or
// writing fails, and what each returns.
func Read(r io.Reader, out io.Writer, l Limits, each func(Entity) error) (*Document, error) {
	const op = "read aggregate"
	watched := &watchedReader{r: r}
	br := bufio.NewReaderSize(watched, maxHead)
	head, err := br.Peek(maxHead)
	if err != nil && err != io.EOF {
		return nil, fault.New(fault.Unavailable, op, err)
	}
	sig, err := readSignature(head)
	if err != nil {
		return nil, fault.New(fault.Invalid, op, err)
	}
	rd := &reader{limits: l, file: out, hash: sig.DigestHash.New(), each: each, doc: &Document{signature: sig}}
	w := newWalker(br, l.Document)
	w.inclusive = sig.Prefixes
	w.before, w.after, w.spill = rd.before, rd.after, rd.flush
	rd.w = w
	if err := w.walk(); err != nil {
		var f *fault.Error
		switch {
		case watched.err != nil:
			return nil, fault.New(fault.Unavailable, op, watched.err)
		case errors.As(err, &f):
			return nil, err
		}
		return nil, fault.New(fault.Invalid, op, err)
	}
	if err := rd.flush(); err != nil {
		return nil, err
	}
	rd.doc.Octets = rd.written
	rd.doc.digest = rd.hash.Sum(nil)
	return rd.doc, nil
}

// Verify returns the pinned certificate whose key signed the document and that
// is valid at now; else fault.Denied. A validUntil that is over is
// fault.Expired.
func (d *Document) Verify(pinned []*x509.Certificate, now time.Time) (*x509.Certificate, error) {
	const op = "verify aggregate"
	cert, err := verify(d.signature, d.digest, pinned, now)
	if err != nil {
		return nil, fault.New(fault.Denied, op, err)
	}
	if !d.ValidUntil.IsZero() && now.After(d.ValidUntil) {
		return nil, fault.Newf(fault.Expired, op, "valid until %s", d.ValidUntil.Format(time.RFC3339))
	}
	return cert, nil
}

// watchedReader remembers a failure of the input, which is not the document's.
type watchedReader struct {
	r   io.Reader
	err error
}

func (w *watchedReader) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && err != io.EOF {
		w.err = err
	}
	return n, err
}

// reader sends canonical octets where they belong.
type reader struct {
	w        *walker
	limits   Limits
	file     io.Writer
	hash     hash.Hash
	each     func(Entity) error
	doc      *Document
	written  int64
	children int // elements met below the root
	signing  bool
	inEntity bool
	entity   Entity
}

func (r *reader) before(depth int, t *startTag) error {
	switch {
	case depth == 0:
		return r.root(t)
	case depth == 1:
		if r.children == 0 {
			for _, b := range r.w.shown { // by the root's tag
				r.doc.Context = appendDeclaration(r.doc.Context, b)
			}
		}
		r.children++
		return r.child(t)
	case depth == 2 && !r.inEntity && t.is(nsPublication, "PublicationInfo"):
		v, ok, err := t.value("creationInstant")
		if err == nil && ok {
			r.doc.Created, err = instant(v)
		}
		return err
	}
	return nil
}

func appendDeclaration(out []byte, b binding) []byte {
	out = append(out, " xmlns"...)
	if b.prefix != "" {
		out = append(append(out, ':'), b.prefix...)
	}
	out = append(out, `="`...)
	for _, c := range b.uri {
		out = appendRune(out, c, true)
	}
	return append(out, '"')
}

func (r *reader) root(t *startTag) error {
	var err error
	if r.doc.ID, _, err = t.value("ID"); err != nil {
		return err
	}
	until, ok, err := t.value("validUntil")
	if err == nil && ok {
		r.doc.ValidUntil, err = instant(until)
	}
	return err
}

func (r *reader) child(t *startTag) error {
	if err := r.flush(); err != nil {
		return err
	}
	switch {
	case r.children == 1:
		r.signing = true // the head was checked: this is the signature
	case t.is(xmldoc.NSSignature, "Signature"):
		return errors.New("second signature of the root")
	case t.is(nsMetadata, "EntitiesDescriptor"):
		return errors.New("group inside a group")
	case t.is(nsMetadata, "EntityDescriptor"):
		if r.doc.Entities++; r.doc.Entities > r.limits.Entities {
			return fmt.Errorf("more than %d entities", r.limits.Entities)
		}
		v, _, err := t.value("entityID")
		if err != nil {
			return err
		}
		r.inEntity, r.entity = true, Entity{ID: string(v[:min(len(v), 1025)]), Offset: r.written}
	}
	return nil
}

func (r *reader) after(depth int) error {
	if depth != 1 {
		return nil
	}
	if r.inEntity && !r.entity.Oversize {
		r.entity.Length = len(r.w.out)
		r.entity.Oversize = len(r.w.out) > r.limits.Entity
		r.entity.Digest = sha256.Sum256(r.w.out)
	}
	entity := r.inEntity
	r.inEntity = false
	if err := r.flush(); err != nil {
		return err
	}
	r.signing = false
	if !entity {
		return nil
	}
	return r.each(r.entity)
}

// flush passes the octets on, unless they belong to an entity that is still to
// be digested on its own.
func (r *reader) flush() error {
	out := r.w.out
	if r.inEntity {
		if len(out) <= r.limits.Entity {
			return nil
		}
		r.entity.Oversize = true
	}
	if !r.signing {
		r.hash.Write(out)
	}
	if _, err := r.file.Write(out); err != nil {
		return fault.New(fault.Unavailable, "keep aggregate", err)
	}
	r.written += int64(len(out))
	r.w.out = out[:0]
	return nil
}

// instant reads an xs:dateTime with its time zone.
func instant(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}, errors.New("malformed instant")
	}
	return t.UTC(), nil
}

// Digest returns the digest that the signature covers: two documents with the
// same one are the same.
func (d *Document) Digest() []byte { return slices.Clone(d.digest) }
