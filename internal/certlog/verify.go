package certlog

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"custode/internal/certlog/folder"
	"custode/internal/certlog/frame"
	"custode/internal/certlog/merkle"
	"custode/internal/fault"
)

// Judge says whether a seal and its time-stamp are good, from public
// certificates alone.
type Judge interface {
	Sealer
	// Stamped verifies the time-stamp of the seal and returns its time; zero
	// when there is none.
	Stamped(sealed []byte) (time.Time, error)
}

// VerifyConfig is what Verify needs.
type VerifyConfig struct {
	FS       Folder
	Judge    Judge
	Now      time.Time
	Patience time.Duration      // how long a closed segment may wait for its seal and its time-stamp
	Floor    uint64             // sealed records known from elsewhere; fewer are a divergence
	Witness  map[uint64][]Claim // checkpoints that other places hold, by segment
	Told     []Claim            // statements of destruction that other places hold
	Progress func(Checkpoint)   // called after each good segment; may be nil
}

// Claim is the payload of a seal as a witness holds it.
type Claim struct {
	From    string // which witness
	Payload []byte
	mixed   bool // it may be another log's
}

// AddWitness adds the seals that a folder holds (N.p7m, N.bes and destroyed-N.p7m,
// as the log's own), under the name of the witness. All must be good.
func (c *VerifyConfig) AddWitness(name string, held Folder) error {
	files, err := held.List()
	if err != nil {
		return err
	}
	for file := range files {
		if !strings.HasSuffix(file, ".p7m") && !strings.HasSuffix(file, ".bes") {
			continue
		}
		sealed, err := folder.ReadAll(held, file, 2*maxCheckpoint)
		if err != nil {
			return fault.New(fault.Unavailable, "read witness "+name, err)
		}
		if err := c.add(name, sealed, false); err != nil {
			return fault.New(fault.Invalid, "read witness "+name+", "+file, err)
		}
	}
	return nil
}

// AddLetters adds the seals that were sent to a place where anybody may put
// something: those of other logs, and what is no good seal, count for nothing. It
// returns how many were no good seals.
func (c *VerifyConfig) AddLetters(name string, seals [][]byte) (bad int) {
	for _, sealed := range seals {
		if c.add(name, sealed, true) != nil {
			bad++
		}
	}
	return bad
}

func (c *VerifyConfig) add(name string, sealed []byte, mixed bool) error {
	payload, err := c.Judge.Open(sealed)
	if err != nil {
		return err
	}
	claim := Claim{From: name, Payload: payload, mixed: mixed}
	point, err := ParseCheckpoint(payload)
	if err != nil {
		if _, e := ParseDestruction(payload); e != nil {
			return err
		}
		c.Told = append(c.Told, claim)
		return nil
	}
	if c.Witness == nil {
		c.Witness = map[uint64][]Claim{}
	}
	c.Witness[point.Segment] = append(c.Witness[point.Segment], claim)
	return nil
}

// about reports whether a claim is to be compared with the log. Letters of
// another log's name say nothing; of another log under this name they do.
func (c Claim) about(name string) bool {
	if !c.mixed {
		return true
	}
	p, err := ParseCheckpoint(c.Payload)
	return err == nil && p.Name == name
}

// Problem is a divergence: the log is not what was written.
type Problem struct {
	Segment uint64 // 0: the log as a whole
	What    string
}

// String names segment and divergence.
func (p Problem) String() string {
	if p.Segment == 0 {
		return p.What
	}
	return fmt.Sprintf("segment %d: %s", p.Segment, p.What)
}

// Report is the result of Verify.
type Report struct {
	Log       ID
	Name      string
	Segments  int // sealed ones, whose checkpoint is good
	Records   uint64
	Destroyed uint64    // of the Records, by sealed statements
	Stamped   int       // of the Segments
	Unsealed  int       // closed or open, without a checkpoint
	Last      time.Time // of the newest time-stamp
	Root      Hash
	Problem   *Problem // the first divergence, in the order of the records; nil: none
}

// Verify re-computes everything that the folder and public certificates can
// prove: each record's hash, the tree and its root at every checkpoint (each
// checkpoint's tree is a prefix of the next by construction), file and index
// hashes, the chain of checkpoints, seals, time-stamps and their order,
// statements of destruction, and what witnesses hold. It stops at the first
// divergence. It needs no key: records are not decrypted. An error means that
// the folder could not be read, not that it diverges.
func Verify(cfg VerifyConfig) (Report, error) {
	files, err := cfg.FS.List()
	if err != nil {
		return Report{}, err
	}
	v := &verifier{cfg: cfg, files: files, tree: tree(cfg.FS)}
	defer v.tree.Close()
	who, err := readIdentity(cfg.FS)
	if err != nil {
		v.report.Problem = &Problem{What: "log.json: " + err.Error()}
		return v.report, nil
	}
	v.report.Log, v.report.Name = who.Log, who.Name
	p := v.all(who)
	if p != nil && p.err != nil {
		return v.report, p.err
	}
	if p != nil {
		v.report.Problem = &p.Problem
	}
	return v.report, nil
}

type verifier struct {
	cfg       VerifyConfig
	files     map[string]int64
	tree      *merkle.Hashes
	report    Report
	previous  [32]byte // payload hash of the checkpoint before
	condemned map[uint64]bool
	open      bool // a segment without checkpoint was met
}

// finding is a divergence, or a failure to read.
type finding struct {
	Problem
	err error
}

func problem(segment uint64, format string, args ...any) *finding {
	return &finding{Problem: Problem{segment, fmt.Sprintf(format, args...)}}
}

func (v *verifier) has(n uint64, suffix string) bool {
	_, ok := v.files[segmentName(n, suffix)]
	return ok
}

func (v *verifier) all(who identity) *finding {
	var err error
	if v.condemned, err = readCondemned(v.cfg.FS, v.cfg.Judge, who.Log, v.files); err != nil {
		return problem(0, "%v", err)
	}
	if f := v.statements(); f != nil {
		return f
	}
	numbers, err := segmentNumbers(v.files)
	if err != nil {
		return problem(0, "%v", err)
	}
	for i, n := range numbers {
		if n != uint64(i)+1 {
			return problem(uint64(i)+1, "all its files are missing")
		}
		if f := v.segment(n, i == len(numbers)-1); f != nil {
			return f
		}
	}
	for _, n := range slices.Sorted(maps.Keys(v.cfg.Witness)) {
		for _, claim := range v.cfg.Witness[n] {
			if n > uint64(v.report.Segments) && claim.about(v.report.Name) {
				return problem(n, "the witness %s holds its checkpoint, this folder does not: the end of the log was removed, or an old copy was put back", claim.From)
			}
		}
	}
	if v.report.Records < v.cfg.Floor {
		return problem(uint64(v.report.Segments)+1, "%d sealed records are here, %d are known: the end of the log was removed, or an old copy was put back", v.report.Records, v.cfg.Floor)
	}
	return nil
}

// statements judges the time-stamps of the statements of destruction, and
// compares them with what witnesses hold.
func (v *verifier) statements() *finding {
	all, err := readStatements(v.cfg.FS, v.cfg.Judge, v.files)
	if err != nil {
		return problem(0, "%v", err)
	}
	here := map[string]bool{}
	for _, d := range all {
		here[string(d.payload)] = true
		at, err := v.cfg.Judge.Stamped(d.sealed)
		switch {
		case err != nil:
			return problem(d.Segments[0], "the time-stamp of %s, which destroys it, is not good: %v", d.name, err)
		case at.IsZero():
			return problem(d.Segments[0], "%s, which destroys it, is not time-stamped", d.name)
		case at.Before(d.At.Add(-clockSlack)) || at.After(v.cfg.Now.Add(clockSlack)):
			return problem(d.Segments[0], "%s, which destroys it, was time-stamped %s and says %s", d.name, at.Format(time.RFC3339), d.At.Format(time.RFC3339))
		}
	}
	for _, claim := range v.cfg.Told {
		d, err := ParseDestruction(claim.Payload)
		if err != nil {
			return &finding{err: err}
		}
		if !here[string(claim.Payload)] && (!claim.mixed || d.Log == v.report.Log) {
			return problem(d.Segments[0], "the witness %s holds the statement that it was destroyed, this folder does not: an old copy was put back", claim.From)
		}
	}
	return nil
}

func (v *verifier) segment(n uint64, last bool) *finding {
	switch {
	case v.has(n, "p7m"), v.has(n, "bes"):
	case !v.has(n, "seg") && !last:
		return problem(n, "segment and checkpoint are missing")
	default:
		return v.unsealed(n, last)
	}
	if v.open {
		return problem(n, "it is sealed, a segment before it is not: a checkpoint was removed")
	}
	sealed, err := readSeal(v.cfg.FS, n)
	if err != nil {
		return &finding{err: err}
	}
	payload, err := v.cfg.Judge.Open(sealed)
	if err != nil {
		return problem(n, "the seal is not good: %v", err)
	}
	c, err := ParseCheckpoint(payload)
	if err != nil {
		return problem(n, "%v", err)
	}
	switch {
	case c.Log != v.report.Log || c.Name != v.report.Name:
		return problem(n, "the checkpoint is of another log (%s %s)", c.Name, c.Log)
	case c.Segment != n:
		return problem(n, "the checkpoint is of segment %d", c.Segment)
	case c.Previous != v.previous:
		return problem(n, "the checkpoint does not name the one before it")
	case c.First != v.report.Records:
		return problem(n, "the checkpoint begins at record %d, the one before ended at %d", c.First, v.report.Records)
	}
	if f := v.stamp(n, sealed, c); f != nil {
		return f
	}
	if f := v.witnessed(n, payload); f != nil {
		return f
	}
	if f := v.leaves(c); f != nil {
		return f
	}
	v.previous = sha256.Sum256(payload)
	v.report.Segments++
	v.report.Records, v.report.Root = c.Size, c.Root
	if v.cfg.Progress != nil {
		v.cfg.Progress(c)
	}
	return nil
}

// unsealed counts a segment that has no checkpoint yet; only a young one may have none.
func (v *verifier) unsealed(n uint64, last bool) *finding {
	v.open = true
	v.report.Unsealed++
	if last && v.files[segmentName(n, "seg")] < frame.HeaderLen {
		return nil // a crash came before its first record, or a log beside is about to write it
	}
	f, err := v.cfg.FS.Open(segmentName(n, "seg"))
	if err != nil {
		return &finding{err: err}
	}
	defer f.Close()
	h, _, _, err := frame.Scan(f, min(v.files[segmentName(n, "seg")], frame.HeaderLen), func(frame.Header, uint64, []byte) error { return nil })
	if err != nil {
		return problem(n, "it is not sealed, and %v", err)
	}
	if age := v.cfg.Now.Sub(h.Opened); age > v.cfg.Patience {
		return problem(n, "it was opened %s ago and is not sealed", age.Round(time.Second))
	}
	return nil
}

func (v *verifier) stamp(n uint64, sealed []byte, c Checkpoint) *finding {
	at, err := v.cfg.Judge.Stamped(sealed)
	switch {
	case err != nil:
		return problem(n, "the time-stamp is not good: %v", err)
	case at.IsZero() && v.cfg.Now.Sub(c.Sealed) > v.cfg.Patience:
		return problem(n, "it was sealed %s ago and is not time-stamped", v.cfg.Now.Sub(c.Sealed).Round(time.Second))
	case at.IsZero():
		return nil
	case at.Before(c.Sealed.Add(-clockSlack)):
		return problem(n, "the time-stamp (%s) is older than the seal (%s)", at.Format(time.RFC3339), c.Sealed.Format(time.RFC3339))
	case at.After(v.cfg.Now.Add(clockSlack)):
		return problem(n, "the time-stamp is of the future (%s)", at.Format(time.RFC3339))
	}
	v.report.Stamped++
	if at.After(v.report.Last) {
		v.report.Last = at
	}
	return nil
}

// clockSlack is how far an authority's clock and ours may differ.
const clockSlack = 2 * time.Minute

func (v *verifier) witnessed(n uint64, payload []byte) *finding {
	for _, claim := range v.cfg.Witness[n] {
		if string(claim.Payload) != string(payload) && claim.about(v.report.Name) {
			return problem(n, "the witness %s holds another checkpoint", claim.From)
		}
	}
	return nil
}

// leaves re-computes the segment's part of the tree from the ciphertexts, or,
// when these were destroyed, takes the leaf hashes that were kept; the root
// proves them either way.
func (v *verifier) leaves(c Checkpoint) *finding {
	n := c.Segment
	v.tree.Tail = v.tree.Tail[:0]
	if v.condemned[n] {
		if f := v.kept(c); f != nil {
			return f
		}
		v.report.Destroyed += c.Size - c.First
	} else if f := v.computed(c); f != nil {
		return f
	}
	root, err := v.tree.Root(c.Size)
	if err != nil {
		return problem(n, "the tree cannot be computed: %v", err)
	}
	if Hash(root) != c.Root {
		return problem(n, "the records do not make the root that was sealed")
	}
	if f := v.stored(c); f != nil {
		return f
	}
	v.tree.Spans = append(v.tree.Spans, merkle.Span{Number: n, First: c.First, Count: c.Size - c.First})
	v.tree.Tail = v.tree.Tail[:0]
	return nil
}

func (v *verifier) computed(c Checkpoint) *finding {
	n := c.Segment
	for _, suffix := range []string{"seg", "idx", "key"} {
		if !v.has(n, suffix) {
			return problem(n, "%s is missing, and no sealed statement says that it was destroyed", segmentName(n, suffix))
		}
	}
	name := segmentName(n, "seg")
	f, err := v.cfg.FS.Open(name)
	if err != nil {
		return &finding{err: err}
	}
	defer f.Close()
	h, count, end, err := frame.Scan(f, v.files[name], func(_ frame.Header, seq uint64, sealed []byte) error {
		if seq >= c.Size {
			return nil
		}
		return v.tree.Grow(seq, merkle.LeafHash(sealed))
	})
	switch {
	case err != nil:
		return problem(n, "%v", err)
	case h.Log != c.Log || h.Number != n || h.First != c.First:
		return problem(n, "%s is another segment's", name)
	case count < c.Size-c.First:
		return problem(n, "record %d is damaged or missing", c.First+count)
	case count > c.Size-c.First || end != v.files[name]:
		return problem(n, "%s is longer than what was sealed", name)
	}
	if sum, err := fileHash(v.cfg.FS, segmentName(n, "idx")); err != nil || sum != c.Index {
		return problem(n, "the index is not the one that was sealed")
	}
	if sum, err := fileHash(v.cfg.FS, segmentName(n, "key")); err != nil || sum != c.Key {
		return problem(n, "%s is not the one that was sealed", segmentName(n, "key"))
	}
	// The root speaks for the records; this is for the octets between them.
	if sum, err := fileHash(v.cfg.FS, name); err != nil || sum != c.File {
		if root, err := v.tree.Root(c.Size); err == nil && Hash(root) != c.Root {
			return problem(n, "the records do not make the root that was sealed")
		}
		return problem(n, "%s is not the file that was sealed", name)
	}
	return nil
}

func (v *verifier) kept(c Checkpoint) *finding {
	name := segmentName(c.Segment, "hsh")
	if v.files[name] != (merkle.Stored(c.Size)-merkle.Stored(c.First))*32 {
		return problem(c.Segment, "%s has not the length of %d records", name, c.Size-c.First)
	}
	reader := tree(v.cfg.FS, merkle.Span{Number: c.Segment, First: c.First, Count: c.Size - c.First})
	defer reader.Close()
	for seq := c.First; seq < c.Size; seq++ {
		got, err := reader.ReadHashes([]int64{merkle.Stored(seq)})
		if err != nil {
			return problem(c.Segment, "%v", err)
		}
		if err := v.tree.Grow(seq, got[0]); err != nil {
			return problem(c.Segment, "%v", err)
		}
	}
	return nil
}

// stored compares the kept hashes with the computed ones: proofs are made of them.
func (v *verifier) stored(c Checkpoint) *finding {
	name := segmentName(c.Segment, "hsh")
	if v.files[name] != int64(len(v.tree.Tail))*32 {
		return problem(c.Segment, "%s is missing or has another length", name)
	}
	sum := sha256.New()
	for _, h := range v.tree.Tail {
		sum.Write(h[:])
	}
	if got, err := fileHash(v.cfg.FS, name); err != nil || got != Hash(sum.Sum(nil)) {
		return problem(c.Segment, "%s holds other hashes than the records make", name)
	}
	return nil
}
