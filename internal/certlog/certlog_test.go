package certlog

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"custode/internal/certlog/folder/foldertest"
	"custode/internal/certlog/frame"
	"custode/internal/fault"
)

// vault wraps with a MAC and no secrecy; the tests of the seam use the HSM.
type vault struct{}

func (vault) Wrap(_ context.Context, plaintext, aad []byte) ([]byte, error) {
	return append(mac(plaintext, aad), plaintext...), nil
}

func (vault) Unwrap(_ context.Context, blob, aad []byte) ([]byte, error) {
	if len(blob) < 32 || !bytes.Equal(blob[:32], mac(blob[32:], aad)) {
		return nil, fault.Newf(fault.Invalid, "unwrap", "another key")
	}
	return bytes.Clone(blob[32:]), nil
}

func mac(parts ...[]byte) []byte {
	m := hmac.New(sha256.New, []byte("a key of the tests"))
	for _, p := range parts {
		fmt.Fprintf(m, "%d:", len(p))
		m.Write(p)
	}
	return m.Sum(nil)
}

// stamper seals with the same MAC.
type stamper struct {
	sealFails, stampFails bool
}

func (s *stamper) Seal(_ context.Context, payload []byte) ([]byte, error) {
	if s.sealFails {
		return nil, errors.New("no seal today")
	}
	return append(mac(payload), payload...), nil
}

func (s *stamper) Stamp(_ context.Context, sealed []byte) ([]byte, error) {
	if s.stampFails {
		return nil, errors.New("no time-stamp today")
	}
	return append(bytes.Clone(sealed), "\x00stamped"...), nil
}

func (s *stamper) Open(sealed []byte) ([]byte, error) {
	sealed = bytes.TrimSuffix(sealed, []byte("\x00stamped"))
	if len(sealed) < 32 || !bytes.Equal(sealed[:32], mac(sealed[32:])) {
		return nil, fault.Newf(fault.Invalid, "open seal", "not signed by us")
	}
	return sealed[32:], nil
}

// clock is a settable clock.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

type bench struct {
	t     testing.TB
	clock clock
	seal  stamper
	rnd   io.Reader
	trims int

	rebuilt int
}

func newBench(t testing.TB) *bench {
	return &bench{t: t, clock: clock{time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)}, rnd: rand.NewChaCha8([32]byte{1})}
}

func (b *bench) config(fs FS) Config {
	return Config{Name: "test", FS: fs, Keys: vault{}, Sealer: &b.seal, Age: time.Hour, Size: 4096,
		Now: b.clock.now, Random: b.rnd, Trimmed: func(t Trim) {
			if t.Rebuilt {
				b.rebuilt++
				return
			}
			b.trims++
		}}
}

// put commits records at once, as one batch, and returns what was answered.
func put(l *Log, records ...Record) []result {
	var batch []waiting
	var answers []chan result
	for _, r := range records {
		done := make(chan result, 1)
		answers = append(answers, done)
		batch = append(batch, waiting{r, done})
	}
	l.commit(context.Background(), batch)
	var out []result
	for _, a := range answers {
		out = append(out, <-a)
	}
	return out
}

func record(i int) Record {
	return Record{Tag: fmt.Sprintf("subject-%d", i%7), Data: bytes.Repeat(fmt.Appendf(nil, "record %d;", i), 1+i%40)}
}

// world runs one life of a log on a bad disk and remembers what was promised.
type world struct {
	*bench
	promised map[uint64]Record // acknowledged, by number
	tried    map[string]bool   // data of records that were tried and failed: may be there or not
	made     int

	destroyed int // segments, when judged
}

func (w *world) live(d *foldertest.Disk, acts int, rnd *rand.Rand) {
	l, err := Open(context.Background(), w.config(d))
	if err != nil {
		if d.CrashAt == 0 && len(d.FailAt) == 0 {
			w.t.Fatalf("open on a good disk: %v", err)
		}
		return
	}
	for range acts {
		switch n := rnd.IntN(11); {
		case n < 6:
			var some []Record
			for range 1 + rnd.IntN(4) {
				some = append(some, record(w.made))
				w.made++
			}
			for i, r := range put(l, some...) {
				if r.err != nil {
					w.tried[string(some[i].Data)] = true
					continue
				}
				if old, taken := w.promised[r.proof.Seq()]; taken {
					w.t.Fatalf("number %d was given twice, first to %.20q", r.proof.Seq(), old.Data)
				}
				w.promised[r.proof.Seq()] = some[i]
			}
		case n < 7:
			w.clock.t = w.clock.t.Add(20 * time.Minute)
		case n < 8:
			l.closeAged(context.Background())
		case n < 9:
			w.seal.stampFails = rnd.IntN(2) == 0
			w.seal.sealFails = rnd.IntN(4) == 0
			_ = l.sealAll(context.Background())
			w.seal = stamper{}
		case n < 10:
			_, _ = l.Destroy(context.Background(), w.clock.t.Add(-time.Duration(rnd.IntN(3))*time.Hour), "test", nil)
		default:
			w.clock.t = w.clock.t.Add(2 * time.Second) // past the pause before a repair
		}
	}
	if rnd.IntN(3) == 0 {
		l.drain()
	}
}

// judge opens the folder on a good disk and holds it to its promises.
func (w *world) judge(d *foldertest.Disk) {
	w.t.Helper()
	ctx := context.Background()
	l, err := Open(ctx, w.config(d))
	if err != nil {
		w.t.Fatalf("no recovery: %v", err)
	}
	put(l, Record{Tag: "last", Data: []byte("last")})
	l.closeOpen(ctx)
	if err := l.sealAll(ctx); err != nil {
		w.t.Fatalf("seal after recovery: %v", err)
	}
	r, err := NewReader(d, &w.seal)
	if err != nil {
		w.t.Fatalf("read after recovery: %v", err)
	}
	seen := map[uint64]bool{}
	for _, c := range r.Checkpoints() {
		if r.Destroyed(c.Segment) { // by a sealed statement: then wholly
			for seq := c.First; seq < c.Size; seq++ {
				seen[seq] = true
			}
			w.destroyed++
			for _, suffix := range []string{"key", "seg", "idx"} {
				if d.Entries[segmentName(c.Segment, suffix)] != nil {
					w.t.Errorf("segment %d is destroyed, and its %s is there", c.Segment, suffix)
				}
			}
			continue
		}
		err := r.Each(ctx, vault{}, c, func(f Found) error {
			seen[f.Seq] = true
			want, ok := w.promised[f.Seq]
			switch {
			case ok && (want.Tag != f.Record.Tag || !bytes.Equal(want.Data, f.Record.Data)):
				w.t.Errorf("record %d is %.20q, promised %.20q", f.Seq, f.Record.Data, want.Data)
			case !ok && f.Record.Tag != "last" && !w.tried[string(f.Record.Data)]:
				w.t.Errorf("record %d, %.20q, was never appended", f.Seq, f.Record.Data)
			}
			p, err := r.Prove(f.Seq, r.points[len(r.points)-1])
			if err != nil || !Included(r.points[len(r.points)-1], f.Seq, f.Sealed, p) {
				w.t.Errorf("record %d is not included: %v", f.Seq, err)
			}
			return nil
		})
		if err != nil {
			w.t.Fatalf("segment %d: %v", c.Segment, err)
		}
	}
	for seq, want := range w.promised {
		if !seen[seq] {
			w.t.Errorf("record %d, %.20q, was promised and is gone", seq, want.Data)
		}
	}
}

func newWorld(t testing.TB) *world {
	return &world{bench: newBench(t), promised: map[uint64]Record{}, tried: map[string]bool{}}
}

// TestEveryCallIsTheLast cuts the power at each file system call of one life in turn.
func TestEveryCallIsTheLast(t *testing.T) {
	for at := 1; ; at++ {
		w := newWorld(t)
		d := foldertest.NewDisk(uint64(at))
		d.CrashAt = at
		w.live(d, 80, rand.New(rand.NewPCG(7, 7)))
		over := d.Calls < at
		w.judge(d.Reboot())
		if t.Failed() {
			t.Fatalf("with the power cut at call %d", at)
		}
		if over {
			if w.destroyed == 0 {
				t.Error("this life destroys nothing")
			}
			t.Logf("%d calls", at)
			return
		}
	}
}

// TestEveryCallFails lets each call fail once; later the power goes.
func TestEveryCallFails(t *testing.T) {
	for at := 1; ; at++ {
		w := newWorld(t)
		d := foldertest.NewDisk(uint64(at))
		d.FailAt[at] = true
		w.live(d, 80, rand.New(rand.NewPCG(7, 7)))
		over := d.Calls < at
		w.judge(d.Reboot())
		if t.Failed() {
			t.Fatalf("with call %d failing", at)
		}
		if over {
			if w.destroyed == 0 {
				t.Error("this life destroys nothing")
			}
			t.Logf("%d calls", at)
			return
		}
	}
}

// TestRandomCrashes is 10,000 lives with failing calls and power cuts by seed,
// some of them several on one disk.
func TestRandomCrashes(t *testing.T) {
	const seeds, parts = 10_000, 4
	for part := range uint64(parts) {
		t.Run(fmt.Sprint(part), func(t *testing.T) {
			t.Parallel()
			trims, destroyed := 0, 0
			for seed := part; seed < seeds; seed += parts {
				n, gone := crashes(t, seed)
				trims, destroyed = trims+n, destroyed+gone
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}
			if trims == 0 {
				t.Error("no torn record: the disk is too kind")
			}
			if destroyed == 0 {
				t.Error("nothing was destroyed")
			}
			t.Logf("%d torn tails, %d segments destroyed", trims, destroyed)
		})
	}
}

// crashes judges one seed and returns how often recovery dropped a torn record.
func crashes(t *testing.T, seed uint64) (trims, destroyed int) {
	rnd := rand.New(rand.NewPCG(seed, 2))
	w := newWorld(t)
	d := foldertest.NewDisk(seed)
	for range 1 + rnd.IntN(3) {
		d.CrashAt = d.Calls + 1 + rnd.IntN(300)
		for range rnd.IntN(3) {
			d.FailAt[d.Calls+1+rnd.IntN(300)] = true
		}
		w.live(d, 5+rnd.IntN(30), rnd)
		d = d.Reboot()
	}
	w.judge(d)
	return w.trims, w.destroyed
}

// TestEmptySegment: a segment whose only record could not be framed, or that was
// opened to see whether the folder works again, leaves nothing behind.
func TestEmptySegment(t *testing.T) {
	b := newBench(t)
	d := foldertest.NewDisk(1)
	l, err := Open(t.Context(), b.config(d))
	if err != nil {
		t.Fatal(err)
	}
	if got := put(l, Record{Tag: string(make([]byte, frame.MaxTag+1)), Data: []byte("x")}); !fault.Is(got[0].err, fault.Invalid) {
		t.Fatalf("a tag too long: %v", got[0].err)
	}
	if l.closeOpen(t.Context()); l.Status().Segments != 0 {
		t.Error("an empty segment was closed")
	}
	if len(d.Entries) != 1 {
		t.Errorf("left: %d files, want log.json alone", len(d.Entries))
	}
	if got := put(l, record(1)); got[0].err != nil || got[0].proof.Seq() != 0 {
		t.Errorf("the next record: %+v", got[0])
	}
	l.closeOpen(t.Context())
	if err := l.sealAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), b.config(d)); err != nil {
		t.Errorf("open again: %v", err)
	}
}

// TestMend: a broken log comes back without an append, and not before the folder works.
func TestMend(t *testing.T) {
	b := newBench(t)
	d := foldertest.NewDisk(1)
	l, err := Open(t.Context(), b.config(d))
	if err != nil {
		t.Fatal(err)
	}
	put(l, record(1))
	d.FailAt = map[int]bool{}
	for i := range 500 {
		d.FailAt[d.Calls+1+i] = true
	}
	if got := put(l, record(2)); got[0].err == nil || !l.Status().Broken {
		t.Fatalf("written to a broken folder: %+v", got[0])
	}
	for range 5 {
		b.clock.t = b.clock.t.Add(2 * reopenPause)
		if l.mend(t.Context()) || !l.Status().Broken {
			t.Fatal("mended while the folder does not work")
		}
	}
	d.FailAt = nil
	b.clock.t = b.clock.t.Add(2 * reopenPause)
	if !l.mend(t.Context()) || l.Status().Broken {
		t.Fatal("not mended")
	}
	if got := put(l, record(3)); got[0].err != nil {
		t.Fatal(got[0].err)
	}
}
