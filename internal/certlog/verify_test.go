package certlog_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"custode/internal/certlog"
	"custode/internal/certlog/certlogtest"
	"custode/internal/certlog/notary"
	"custode/internal/fault"
	"custode/simulators/tsasim"
)

// house is a real folder, a real seal and a simulated authority.
type house struct {
	t     *testing.T
	dir   string
	tsa   *tsasim.TSA
	notar *notary.Notary
	stop  func()
	log   *certlog.Log
	name  string // of the log
}

func newHouse(t *testing.T) *house {
	t.Helper()
	authority, err := tsasim.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = authority.Close() })
	h := &house{t: t, name: "transactions", dir: t.TempDir(), tsa: authority, notar: certlogtest.Notary(t, authority)}
	t.Cleanup(func() {
		if h.stop != nil {
			h.stop()
		}
	})
	return h
}

func (h *house) config() certlog.Config {
	return certlog.Config{Name: h.name, FS: certlog.Dir(h.dir), Keys: certlogtest.Keys{}, Sealer: h.notar,
		Age: time.Hour, Size: 1 << 20, Now: time.Now, Random: rand.Reader}
}

func (h *house) open() {
	h.t.Helper()
	l, err := certlog.Open(h.t.Context(), h.config())
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = l.Run(ctx); close(done) }()
	h.log, h.stop = l, func() { cancel(); <-done; h.stop = nil }
}

func (h *house) append(n int) {
	h.t.Helper()
	for i := range n {
		p, err := h.log.Append(h.t.Context(), certlog.Record{Tag: fmt.Sprintf("subject %d", i%3), Data: fmt.Appendf(nil, "record %d of %d, with some text to it", i, n)})
		if err != nil || p.IsZero() {
			h.t.Fatalf("append: %v", err)
		}
	}
}

func (h *house) seal() {
	h.t.Helper()
	if err := h.log.Seal(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) judgement() certlog.VerifyConfig {
	return certlog.VerifyConfig{FS: certlog.Dir(h.dir), Judge: &notary.Notary{Pinned: h.notar.Pinned, Roots: h.notar.Roots}, Now: time.Now(), Patience: time.Hour}
}

func (h *house) verify(witness ...certlog.Claim) certlog.Report {
	h.t.Helper()
	cfg := h.judgement()
	for _, w := range witness {
		c, err := certlog.ParseCheckpoint(w.Payload)
		if err != nil {
			h.t.Fatal(err)
		}
		if cfg.Witness == nil {
			cfg.Witness = map[uint64][]certlog.Claim{}
		}
		cfg.Witness[c.Segment] = append(cfg.Witness[c.Segment], w)
	}
	r, err := certlog.Verify(cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

// fill makes a log of three sealed segments of five records each.
func (h *house) fill() {
	h.t.Helper()
	h.open()
	for range 3 {
		h.append(5)
		h.seal()
	}
	h.stop()
	if r := h.verify(); r.Problem != nil || r.Segments != 3 || r.Records != 15 || r.Stamped != 3 {
		h.t.Fatalf("before tampering: %+v", r)
	}
}

func (h *house) path(n int, suffix string) string {
	return filepath.Join(h.dir, fmt.Sprintf("%012d.%s", n, suffix))
}

func (h *house) read(name string) []byte {
	h.t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		h.t.Fatal(err)
	}
	return b
}

func (h *house) write(name string, b []byte) {
	h.t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) remove(names ...string) {
	h.t.Helper()
	for _, n := range names {
		if err := os.Remove(n); err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *house) payload(n int) []byte {
	h.t.Helper()
	p, err := h.notar.Open(h.read(h.path(n, "p7m")))
	if err != nil {
		h.t.Fatal(err)
	}
	return p
}

// frames cuts a segment file into its header and frames.
func frames(b []byte) (head []byte, all [][]byte) {
	head, rest := b[:56], b[56:]
	for len(rest) > 0 {
		n := int(binary.BigEndian.Uint32(rest)) + 8
		all, rest = append(all, rest[:n]), rest[n:]
	}
	return head, all
}

func join(head []byte, all ...[]byte) []byte {
	return append(bytes.Clone(head), bytes.Join(all, nil)...)
}

// mend recomputes a frame's check sum, as an attacker would.
func mend(frame []byte) []byte {
	end := len(frame) - 4
	binary.BigEndian.PutUint32(frame[end:], crc32.Checksum(frame[:end], crc32.MakeTable(crc32.Castagnoli)))
	return frame
}

// reseal lets the house's own key seal another checkpoint of segment n.
func (h *house) reseal(by *notary.Notary, n int, change func(*certlog.Checkpoint)) {
	h.t.Helper()
	c, err := certlog.ParseCheckpoint(h.payload(n))
	if err != nil {
		h.t.Fatal(err)
	}
	change(&c)
	payload, err := c.Encode()
	if err != nil {
		h.t.Fatal(err)
	}
	sealed, err := by.Seal(h.t.Context(), payload)
	if err != nil {
		h.t.Fatal(err)
	}
	if sealed, err = by.Stamp(h.t.Context(), sealed); err != nil {
		h.t.Fatal(err)
	}
	h.write(h.path(n, "p7m"), sealed)
}

// TestTampering does to a good log what somebody with the disk could do, and
// wants verify to name where and what.
func TestTampering(t *testing.T) {
	for name, c := range map[string]struct {
		do      func(h *house)
		segment uint64
		want    string
	}{
		"flipped bit in a record": {func(h *house) {
			head, all := frames(h.read(h.path(2, "seg")))
			all[1][9] ^= 4
			mend(all[1])
			h.write(h.path(2, "seg"), join(head, all...))
		}, 2, "do not make the root"},
		"removed record": {func(h *house) {
			head, all := frames(h.read(h.path(2, "seg")))
			h.write(h.path(2, "seg"), join(head, append(all[:2:2], all[3:]...)...))
		}, 2, "record 9 is damaged or missing"},
		"removed last records": {func(h *house) {
			head, all := frames(h.read(h.path(3, "seg")))
			h.write(h.path(3, "seg"), join(head, all[:3]...))
		}, 3, "record 13 is damaged or missing"},
		"swapped records": {func(h *house) {
			head, all := frames(h.read(h.path(1, "seg")))
			all[0], all[4] = all[4], all[0]
			h.write(h.path(1, "seg"), join(head, all...))
		}, 1, "do not make the root"},
		"added record": {func(h *house) {
			head, all := frames(h.read(h.path(3, "seg")))
			h.write(h.path(3, "seg"), join(head, append(all, all[0])...))
		}, 3, "longer than what was sealed"},
		"segment moved": {func(h *house) {
			h.write(h.path(2, "seg"), h.read(h.path(1, "seg")))
		}, 2, "another segment's"},
		"removed segment": {func(h *house) {
			for _, s := range []string{"seg", "key", "idx", "hsh", "p7m"} {
				h.remove(h.path(2, s))
			}
		}, 2, "missing"},
		"removed ciphertext": {func(h *house) { h.remove(h.path(2, "seg")) }, 2, "no sealed statement"},
		"removed key":        {func(h *house) { h.remove(h.path(2, "key")) }, 2, "no sealed statement"},
		"removed checkpoint": {func(h *house) { h.remove(h.path(2, "p7m")) }, 3, "a checkpoint was removed"},
		"changed index": {func(h *house) {
			b := h.read(h.path(1, "idx"))
			h.write(h.path(1, "idx"), b[:len(b)-24])
		}, 1, "the index is not the one"},
		"changed tree": {func(h *house) {
			b := h.read(h.path(1, "hsh"))
			b[40] ^= 1
			h.write(h.path(1, "hsh"), b)
		}, 1, "holds other hashes"},
		"re-sealed with another key": {func(h *house) {
			h.reseal(certlogtest.Notary(h.t, h.tsa), 2, func(*certlog.Checkpoint) {})
		}, 2, "not a trusted seal"},
		"re-sealed with our key": {func(h *house) { // whoever could do this had the HSM: the next checkpoint names the old one
			h.reseal(h.notar, 2, func(c *certlog.Checkpoint) { c.Sealed = c.Sealed.Add(time.Second) })
		}, 3, "does not name the one before"},
		"other root under our seal": {func(h *house) {
			h.reseal(h.notar, 3, func(c *certlog.Checkpoint) { c.Root[0] ^= 1 })
		}, 3, "do not make the root"},
		"time-stamp of another seal": {func(h *house) {
			h.forge(2, func(*tsasim.TSA) {}, h.read(h.path(1, "p7m")))
		}, 2, "time-stamp is not good"},
		"time-stamp by nobody we trust": {func(h *house) {
			h.forge(2, func(s *tsasim.TSA) { s.Misbehave(tsasim.OtherRoot) }, nil)
		}, 2, "time-stamp is not good"},
		"time-stamp of the future": {func(h *house) {
			h.forge(2, func(s *tsasim.TSA) { s.Misbehave(tsasim.WrongClock) }, nil)
		}, 2, "of the future"},
		"checkpoint of another log": {func(h *house) {
			other := newHouse(h.t)
			other.notar = h.notar
			other.fill()
			h.write(h.path(2, "p7m"), other.read(other.path(2, "p7m")))
		}, 2, "of another log"},
		"checkpoint of another segment": {func(h *house) {
			h.write(h.path(2, "p7m"), h.read(h.path(3, "p7m")))
		}, 2, "is of segment 3"},
		"other log.json": {func(h *house) {
			var who map[string]any
			if err := json.Unmarshal(h.read(filepath.Join(h.dir, "log.json")), &who); err != nil {
				h.t.Fatal(err)
			}
			who["log"] = strings.Repeat("ab", 16)
			b, err := json.Marshal(who)
			if err != nil {
				h.t.Fatal(err)
			}
			h.write(filepath.Join(h.dir, "log.json"), b)
		}, 1, "of another log"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.fill()
			c.do(h)
			r := h.verify()
			if r.Problem == nil || r.Problem.Segment != c.segment || !strings.Contains(r.Problem.What, c.want) {
				t.Errorf("got %v, want segment %d and something about %q", r.Problem, c.segment, c.want)
			}
		})
	}
}

// forge replaces the time-stamp of segment n by the misled authority's, or by
// the one of another seal.
func (h *house) forge(n int, mislead func(*tsasim.TSA), from []byte) {
	h.t.Helper()
	sealed, err := h.notar.Seal(h.t.Context(), h.payload(n))
	if err != nil {
		h.t.Fatal(err)
	}
	h.write(h.path(n, "p7m"), graft(h.t, h.notar, h.tsa, sealed, mislead, from))
}

// TestEveryFlippedBit flips one bit in each octet of each file of a small log:
// nothing is accepted but octets that no meaning hangs on, and those only
// inside seals (the encoding of fields that no signature covers).
func TestEveryFlippedBit(t *testing.T) {
	h := newHouse(t)
	h.open()
	h.append(3)
	h.seal()
	h.append(2)
	h.seal()
	h.stop()
	files, err := filepath.Glob(filepath.Join(h.dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	loose := 0
	for _, name := range files {
		good := h.read(name)
		step := 1
		if strings.HasSuffix(name, ".p7m") {
			step = 5 // they are long, and cades and tsa flip them octet by octet too
		}
		for i := 0; i < len(good); i += step {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << (i % 8)
			h.write(name, bad)
			r := h.verify()
			if r.Problem != nil {
				continue
			}
			switch {
			case strings.HasSuffix(name, ".p7m"):
				loose++
			case strings.HasSuffix(name, ".key"):
				// Whether a wrap opens is for the HSM to say; Each would.
			case strings.HasSuffix(name, "log.json"):
				// "created" is a remark.
			default:
				t.Errorf("%s: octet %d changed, and verify found nothing", filepath.Base(name), i)
			}
		}
		h.write(name, good)
	}
	if r := h.verify(); r.Problem != nil {
		t.Fatalf("put back: %v", r.Problem)
	}
	t.Logf("%d octets of the two seals carry no meaning", loose)
}

func TestWitness(t *testing.T) {
	h := newHouse(t)
	h.fill()
	claim := certlog.Claim{From: "auditor", Payload: h.payload(3)}
	if r := h.verify(claim); r.Problem != nil {
		t.Fatalf("an honest witness: %v", r.Problem)
	}
	// An old copy of the folder is put back, and the log goes on from there.
	for _, s := range []string{"seg", "key", "idx", "hsh", "p7m"} {
		h.remove(h.path(3, s))
	}
	if r := h.verify(); r.Problem != nil {
		t.Fatalf("a rolled back folder is consistent in itself: %v", r.Problem)
	}
	if r := h.verify(claim); r.Problem == nil || r.Problem.Segment != 3 || !strings.Contains(r.Problem.What, "old copy") {
		t.Errorf("rolled back: %v", r.Problem)
	}
	cfg := h.config()
	cfg.Floor = 15
	if _, err := certlog.Open(t.Context(), cfg); !fault.Is(err, fault.Fatal) || !strings.Contains(err.Error(), "10 records, and 15 are known") {
		t.Errorf("open below the floor: %v", err)
	}
	h.open()
	h.append(5)
	h.seal()
	h.stop()
	if r := h.verify(claim); r.Problem == nil || r.Problem.Segment != 3 || !strings.Contains(r.Problem.What, "another checkpoint") {
		t.Errorf("another history: %v", r.Problem)
	}
}

// named verifies and wants the first divergence to be in the segment and to say that.
func (h *house) named(cfg certlog.VerifyConfig, segment uint64, want string) {
	h.t.Helper()
	r, err := certlog.Verify(cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	if r.Problem == nil || r.Problem.Segment != segment || !strings.Contains(r.Problem.What, want) {
		h.t.Errorf("got %v, want segment %d and something about %q", r.Problem, segment, want)
	}
}

// TestDestructionIsJudged: what destroys segments must be sealed, stamped and
// there, and a witness that was told of it misses it in an old copy.
func TestDestructionIsJudged(t *testing.T) {
	h := newHouse(t)
	h.open()
	for range 3 {
		h.append(5)
		h.seal()
	}
	old := map[string][]byte{}
	for _, s := range []string{"seg", "key", "idx"} {
		for n := 1; n <= 2; n++ {
			old[h.path(n, s)] = h.read(h.path(n, s))
		}
	}
	third, err := certlog.ParseCheckpoint(h.payload(3))
	if err != nil {
		t.Fatal(err)
	}
	d, err := h.log.Destroy(t.Context(), third.Sealed, "test", nil)
	if err != nil || len(d.Segments) != 2 {
		t.Fatalf("%+v, %v", d, err)
	}
	h.stop()
	cfg := h.judgement()
	if r, err := certlog.Verify(cfg); err != nil || r.Problem != nil || r.Destroyed != 10 {
		t.Fatalf("%+v, %v", r, err)
	}
	name := filepath.Join(h.dir, "destroyed-000000000002.p7m")
	statement := h.read(name)
	if err := cfg.AddWitness("auditor", certlog.Dir(h.dir)); err != nil {
		t.Fatal(err)
	}
	if r, err := certlog.Verify(cfg); err != nil || r.Problem != nil || len(cfg.Told) != 1 {
		t.Fatalf("an honest witness: %+v, %v", r, err)
	}
	bare, err := h.notar.Seal(t.Context(), mustOpen(t, h.notar, statement))
	if err != nil {
		t.Fatal(err)
	}
	h.write(name, bare)
	h.named(h.judgement(), 1, "is not time-stamped")
	h.write(name, graft(t, h.notar, h.tsa, bare, func(s *tsasim.TSA) { s.Misbehave(tsasim.OtherRoot) }, nil))
	h.named(h.judgement(), 1, "is not good")
	h.remove(name)
	h.named(h.judgement(), 1, "no sealed statement")
	for path, octets := range old { // a copy from before
		h.write(path, octets)
	}
	if r := h.verify(); r.Problem != nil {
		t.Errorf("an old copy is consistent in itself: %v", r.Problem)
	}
	h.named(cfg, 1, "holds the statement that it was destroyed")
}

func mustOpen(t *testing.T, n *notary.Notary, sealed []byte) []byte {
	t.Helper()
	payload, err := n.Open(sealed)
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

// TestFloor: fewer sealed records than are known elsewhere are a divergence.
func TestFloor(t *testing.T) {
	h := newHouse(t)
	h.fill()
	cfg := h.judgement()
	cfg.Floor = 15
	if r, err := certlog.Verify(cfg); err != nil || r.Problem != nil {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, s := range []string{"seg", "key", "idx", "hsh", "p7m"} {
		h.remove(h.path(3, s))
	}
	h.named(cfg, 3, "10 sealed records are here, 15 are known")
}

// TestLetters: a box into which anybody can put letters is a witness; only good
// seals of this log count.
func TestLetters(t *testing.T) {
	h, other, another := newHouse(t), newHouse(t), newHouse(t)
	h.fill()
	other.notar, other.name = h.notar, "security"
	other.fill()
	another.notar = h.notar
	another.fill()
	read := func(x *house, n int) []byte { return x.read(x.path(n, "p7m")) }
	box := [][]byte{read(h, 1), read(h, 3), read(other, 1), read(other, 3), []byte("not a seal")}
	cfg := h.judgement()
	if bad := cfg.AddLetters("auditor's box", box); bad != 1 {
		t.Errorf("%d bad seals", bad)
	}
	if r, err := certlog.Verify(cfg); err != nil || r.Problem != nil {
		t.Fatalf("an honest box: %+v, %v", r.Problem, err)
	}
	replaced := h.judgement() // the folder was made anew under the same name
	replaced.AddLetters("auditor's box", [][]byte{read(another, 2)})
	h.named(replaced, 2, "auditor's box holds another checkpoint")
	for _, s := range []string{"seg", "key", "idx", "hsh", "p7m"} {
		h.remove(h.path(3, s))
	}
	h.named(cfg, 3, "auditor's box holds its checkpoint, this folder does not")
}
