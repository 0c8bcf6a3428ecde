package attest

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"custode/internal/certlog"
	"custode/internal/certlog/cades"
	"custode/internal/fault"
)

// Question is what a subject asks.
type Question struct {
	SPIDCode string
	From, To time.Time // To is excluded
	Name     string    // of the subject, for the report
}

// Maker makes attestations.
type Maker struct {
	Reader   *certlog.Reader
	Keys     certlog.Wrapper
	Sealer   certlog.Sealer
	Seals    []*x509.Certificate // whose seals the checkpoints bear
	TSA      []*x509.Certificate // roots of the time-stamping authorities
	Provider string              // entityID of the identity provider
	Now      func() time.Time
	// Beside returns a time-stamped detached seal of the PDF, which people show without the rest.
	Beside func(ctx context.Context, content []byte) ([]byte, error)
	// Sealed returns N.p7m or N.bes of a segment.
	Sealed func(segment uint64) ([]byte, error)
}

// maxRecords bounds one attestation: more accesses than ten a day for two years.
const maxRecords = 8000

// slack is more than the time between the making of a Response and the opening
// of the segment that its record came to lie in.
const slack = 10 * time.Minute

// Make writes the ZIP. It also makes one when there is no access: a sealed "none".
// fault.Invalid: more than 8,000 accesses, ask for a shorter interval.
func (m *Maker) Make(ctx context.Context, out io.Writer, q Question) (Statement, error) {
	op := "make an attestation"
	found, destroyed, err := m.Reader.Find(ctx, m.Keys, q.SPIDCode, q.From.Add(-slack), q.To.Add(slack))
	if err != nil {
		return Statement{}, fault.New(fault.KindOf(err), op, err)
	}
	points := m.Reader.Checkpoints()
	s := Statement{Format: 1, Provider: m.Provider, Log: m.Reader.Log(), SPIDCode: q.SPIDCode, From: q.From.UTC(), To: q.To.UTC(),
		Made: m.Now().UTC().Truncate(time.Millisecond), Records: []uint64{}, Destroyed: destroyed}
	if len(points) > 0 {
		s.Size = points[len(points)-1].Size
	}
	files := map[string][]byte{}
	var accesses []Access
	for _, f := range found {
		a, err := ParseAccess(f.Record.Data)
		if err != nil {
			return Statement{}, fault.New(fault.Internal, op, err)
		}
		if a.At.Before(q.From) || !a.At.Before(q.To) {
			continue
		}
		if len(accesses) == maxRecords {
			return Statement{}, fault.Newf(fault.Invalid, op, "more than %d accesses in the interval; ask for a shorter one", maxRecords)
		}
		if err := m.add(files, f, a); err != nil {
			return Statement{}, fault.New(fault.KindOf(err), op, err)
		}
		s.Records, accesses = append(s.Records, f.Seq), append(accesses, a)
	}
	for i, c := range m.Seals {
		files[fmt.Sprintf("certificates/seal-%d.pem", i+1)] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	for i, c := range m.TSA {
		files[fmt.Sprintf("certificates/tsa-%d.pem", i+1)] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	files["README.txt"] = []byte(readme)
	report, err := renderReport(s, q, accesses)
	if err != nil {
		return Statement{}, fault.New(fault.Internal, op, err)
	}
	files["report.html"] = report
	if files["report.pdf"], err = renderPDF(s, q, accesses); err != nil {
		return Statement{}, fault.New(fault.Internal, op, err)
	}
	if files["report.pdf.p7s"], err = m.Beside(ctx, files["report.pdf"]); err != nil {
		return Statement{}, fault.New(fault.KindOf(err), op, err)
	}
	for _, name := range sortedNames(files) {
		s.Files = append(s.Files, File{name, sha256.Sum256(files[name])})
	}
	sealed, err := m.seal(ctx, s)
	if err == nil {
		err = m.put(files, "attestation", sealed)
	}
	if err != nil {
		return Statement{}, fault.New(fault.KindOf(err), op, err)
	}
	if err := pack(out, files, s.Made); err != nil {
		return Statement{}, fault.New(fault.Unavailable, op, err)
	}
	return s, nil
}

func (m *Maker) add(files map[string][]byte, f certlog.Found, a Access) error {
	i := slices.IndexFunc(m.Reader.Checkpoints(), func(c certlog.Checkpoint) bool { return f.Seq < c.Size })
	c := m.Reader.Checkpoints()[i]
	path, err := m.Reader.Prove(f.Seq, c)
	if err != nil {
		return err
	}
	p := Proof{Seq: f.Seq, Segment: c.Segment, Leaf: f.Sealed, Key: f.Key, Path: []certlog.Hash{}}
	for _, h := range path {
		p.Path = append(p.Path, h)
	}
	proof, err := json.MarshalIndent(p, "", " ")
	if err != nil {
		return err
	}
	if files[fmt.Sprintf("records/%d.json", f.Seq)], err = a.head(); err != nil {
		return err
	}
	files[fmt.Sprintf("records/%d.request.xml", f.Seq)] = a.Request.XML
	files[fmt.Sprintf("records/%d.response.xml", f.Seq)] = a.Response.XML
	files[fmt.Sprintf("proofs/%d.json", f.Seq)] = proof
	name := fmt.Sprintf("checkpoints/%d", c.Segment)
	if files[name+".p7m"] != nil {
		return nil
	}
	sealed, err := m.Sealed(c.Segment)
	if err != nil {
		return err
	}
	return m.put(files, name, sealed)
}

// put adds a seal, and beside it its signature value and time-stamp token,
// because openssl cannot take them out of it.
func (m *Maker) put(files map[string][]byte, name string, sealed []byte) error {
	s, err := cades.Open(sealed, m.Seals...)
	if err != nil {
		return err
	}
	files[name+".p7m"], files[name+".sig"] = sealed, s.Signature
	if s.Token != nil {
		files[name+".tst"] = s.Token
	}
	return nil
}

func (m *Maker) seal(ctx context.Context, s Statement) ([]byte, error) {
	payload, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	sealed, err := m.Sealer.Seal(ctx, payload)
	if err != nil {
		return nil, err
	}
	return m.Sealer.Stamp(ctx, sealed)
}

func sortedNames(files map[string][]byte) []string {
	var names []string
	for n := range files {
		names = append(names, n)
	}
	slices.SortFunc(names, strings.Compare)
	return names
}

func pack(out io.Writer, files map[string][]byte, at time.Time) error {
	z := zip.NewWriter(out)
	for _, name := range sortedNames(files) {
		w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate, Modified: at})
		if err != nil {
			return err
		}
		if _, err := io.Copy(w, bytes.NewReader(files[name])); err != nil {
			return err
		}
	}
	return z.Close()
}
