package attest

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"time"

	"custode/internal/certlog"
	"custode/internal/fault"
)

// Limits of what Verify reads.
const (
	maxFiles = 6*maxRecords + 64
	maxFile  = 2 << 20 // octets
	maxTotal = 1 << 30 // octets, all files inflated
)

// makingTime is above the time between the making of a statement and its time-stamp.
const makingTime = time.Hour

// Verdict is what Verify found to be proved.
type Verdict struct {
	Statement Statement
	Sealed    time.Time // of the attestation's own time-stamp
	Accesses  []Proved  // in the order of the log
}

// Proved is one access whose place in the log is proved.
type Proved struct {
	Seq     uint64
	Access  Access
	Stamped time.Time // the log held it at this moment; zero: the checkpoint has no time-stamp yet
}

// Verify checks an attestation from itself and the judge's certificates alone:
// the seal and its time-stamp, every file against the statement, and for every
// access that its record opens from the leaf, that the leaf is in the tree of
// its checkpoint, and that checkpoint's seal and time-stamp. The certificates
// inside the ZIP are for people; the judge's are trusted. Every failure is
// fault.Invalid and names the file.
func Verify(in io.ReaderAt, size int64, judge certlog.Judge) (Verdict, error) {
	v, err := verify(in, size, judge)
	if err != nil {
		return Verdict{}, fault.New(fault.Invalid, "verify attestation", err)
	}
	return v, nil
}

func verify(in io.ReaderAt, size int64, judge certlog.Judge) (Verdict, error) {
	files, err := unpack(in, size)
	if err != nil {
		return Verdict{}, err
	}
	sealed := files["attestation.p7m"]
	payload, err := judge.Open(sealed)
	if err != nil {
		return Verdict{}, fmt.Errorf("attestation.p7m: %w", err)
	}
	var v Verdict
	if err := decode(payload, &v.Statement); err != nil || v.Statement.Format != 1 {
		return Verdict{}, fmt.Errorf("attestation.p7m: not a statement of format 1")
	}
	if v.Sealed, err = judge.Stamped(sealed); err != nil {
		return Verdict{}, fmt.Errorf("attestation.p7m: %w", err)
	}
	// None is given out without: somebody took it off, or the time is not what it says.
	if v.Sealed.IsZero() || v.Sealed.Sub(v.Statement.Made).Abs() > makingTime {
		return Verdict{}, fmt.Errorf("attestation.p7m: says it was made %s, and has no time-stamp of that time", v.Statement.Made.Format(time.RFC3339))
	}
	// What openssl needs to check the seal is no part of what was sealed.
	for _, name := range []string{"attestation.p7m", "attestation.sig", "attestation.tst"} {
		delete(files, name)
	}
	if len(files) != len(v.Statement.Files) {
		return Verdict{}, fmt.Errorf("%d files, the statement names %d", len(files), len(v.Statement.Files))
	}
	for _, f := range v.Statement.Files {
		octets, ok := files[f.Name]
		if !ok || sha256.Sum256(octets) != f.SHA256 {
			return Verdict{}, fmt.Errorf("%s: is missing or not the file that was sealed", f.Name)
		}
	}
	if !slices.IsSorted(v.Statement.Records) {
		return Verdict{}, fmt.Errorf("attestation.p7m: the records are not in order")
	}
	for _, seq := range v.Statement.Records {
		p, err := access(files, seq, v.Statement, judge)
		if err != nil {
			return Verdict{}, fmt.Errorf("record %d: %w", seq, err)
		}
		v.Accesses = append(v.Accesses, p)
	}
	return v, nil
}

func access(files map[string][]byte, seq uint64, s Statement, judge certlog.Judge) (Proved, error) {
	name := func(folder, suffix string) string { return fmt.Sprintf("%s/%d.%s", folder, seq, suffix) }
	var p Proof
	if err := decode(files[name("proofs", "json")], &p); err != nil || p.Seq != seq {
		return Proved{}, fmt.Errorf("%s is no proof of it", name("proofs", "json"))
	}
	point := fmt.Sprintf("checkpoints/%d.p7m", p.Segment)
	payload, err := judge.Open(files[point])
	if err != nil {
		return Proved{}, fmt.Errorf("%s: %w", point, err)
	}
	c, err := certlog.ParseCheckpoint(payload)
	if err != nil {
		return Proved{}, fmt.Errorf("%s: %w", point, err)
	}
	if c.Log != s.Log || c.Segment != p.Segment || seq < c.First || seq >= c.Size {
		return Proved{}, fmt.Errorf("%s does not speak of it", point)
	}
	path := make([][32]byte, len(p.Path))
	for i, h := range p.Path {
		path[i] = h
	}
	if !certlog.Included(c, seq, p.Leaf, path) {
		return Proved{}, fmt.Errorf("it is not in the tree of %s", point)
	}
	record, err := certlog.Disclose(c.Log, c.Segment, seq, p.Key, p.Leaf)
	if err != nil {
		return Proved{}, err
	}
	a, err := ParseAccess(record.Data)
	if err != nil {
		return Proved{}, err
	}
	head, err := a.head()
	if err != nil {
		return Proved{}, err
	}
	switch {
	case !bytes.Equal(head, files[name("records", "json")]):
		return Proved{}, fmt.Errorf("%s is not what was logged", name("records", "json"))
	case !bytes.Equal(a.Request.XML, files[name("records", "request.xml")]):
		return Proved{}, fmt.Errorf("%s is not what was logged", name("records", "request.xml"))
	case !bytes.Equal(a.Response.XML, files[name("records", "response.xml")]):
		return Proved{}, fmt.Errorf("%s is not what was logged", name("records", "response.xml"))
	case a.SPIDCode != s.SPIDCode:
		return Proved{}, fmt.Errorf("it is about another subject")
	case a.At.Before(s.From) || !a.At.Before(s.To):
		return Proved{}, fmt.Errorf("it is outside the interval")
	}
	stamped, err := judge.Stamped(files[point])
	if err != nil {
		return Proved{}, fmt.Errorf("%s: %w", point, err)
	}
	return Proved{Seq: seq, Access: a, Stamped: stamped}, nil
}

func unpack(in io.ReaderAt, size int64) (map[string][]byte, error) {
	z, err := zip.NewReader(in, size)
	if err != nil {
		return nil, err
	}
	if len(z.File) > maxFiles {
		return nil, fmt.Errorf("more than %d files", maxFiles)
	}
	files, total := map[string][]byte{}, int64(0)
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		octets, err := io.ReadAll(io.LimitReader(r, maxFile+1))
		if e := r.Close(); err == nil {
			err = e
		}
		total += int64(len(octets))
		if err == nil && (len(octets) > maxFile || total > maxTotal) {
			err = fmt.Errorf("too long")
		}
		if _, twice := files[f.Name]; err == nil && twice {
			err = fmt.Errorf("it is there twice")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		files[f.Name] = octets
	}
	return files, nil
}
