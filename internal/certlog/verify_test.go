package certlog_test

import (
	"bytes"
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

// TestTampering does to a good log what somebody with the disk could do, and
// wants verify to name where and what. cmd/custode-verify and cmd/custode/certified
// do the same with the programs.
func TestTampering(t *testing.T) {
	for name, c := range certlogtest.Tamperings() {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			h := certlogtest.NewHouse(t)
			h.Fill()
			cfg := h.Judgement()
			if c.Witness {
				if err := cfg.AddWitness("auditor", certlog.Dir(h.WitnessDir())); err != nil {
					t.Fatal(err)
				}
			}
			c.Do(h)
			cfg.Now = time.Now()
			named(h, cfg, c.Segment, c.Want)
		})
	}
}

// TestEveryFlippedBit flips one bit in each octet of each file of a small log:
// nothing is accepted but octets that no meaning hangs on, and those only
// inside seals (the encoding of fields that no signature covers).
func TestEveryFlippedBit(t *testing.T) {
	h := certlogtest.NewHouse(t)
	h.Open()
	h.Append(3)
	h.Seal()
	h.Append(2)
	h.Seal()
	h.Stop()
	files, err := filepath.Glob(filepath.Join(h.Dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	loose := 0
	for _, name := range files {
		good := h.Read(name)
		step := 1
		if strings.HasSuffix(name, ".p7m") {
			step = 5 // they are long, and cades and tsa flip them octet by octet too
		}
		for i := 0; i < len(good); i += step {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << (i % 8)
			h.Write(name, bad)
			r := h.Verify()
			if r.Problem != nil {
				continue
			}
			switch {
			case strings.HasSuffix(name, ".p7m"):
				loose++
			default:
				t.Errorf("%s: octet %d changed, and verify found nothing", filepath.Base(name), i)
			}
		}
		h.Write(name, good)
	}
	if r := h.Verify(); r.Problem != nil {
		t.Fatalf("put back: %v", r.Problem)
	}
	t.Logf("%d octets of the two seals carry no meaning", loose)
}

func TestWitness(t *testing.T) {
	h := certlogtest.NewHouse(t)
	h.Fill()
	claim := certlog.Claim{From: "auditor", Payload: h.Payload(3)}
	if r := h.Verify(claim); r.Problem != nil {
		t.Fatalf("an honest witness: %v", r.Problem)
	}
	// An old copy of the folder is put back, and the log goes on from there.
	for _, s := range []string{"seg", "key", "idx", "hsh", "p7m"} {
		h.Remove(h.Path(3, s))
	}
	if r := h.Verify(); r.Problem != nil {
		t.Fatalf("a rolled back folder is consistent in itself: %v", r.Problem)
	}
	if r := h.Verify(claim); r.Problem == nil || r.Problem.Segment != 3 || !strings.Contains(r.Problem.What, "old copy") {
		t.Errorf("rolled back: %v", r.Problem)
	}
	cfg := h.Config()
	cfg.Floor = 15
	if _, err := certlog.Open(t.Context(), cfg); !fault.Is(err, fault.Fatal) || !strings.Contains(err.Error(), "10 records, and 15 are known") {
		t.Errorf("open below the floor: %v", err)
	}
	h.Open()
	h.Append(5)
	h.Seal()
	h.Stop()
	if r := h.Verify(claim); r.Problem == nil || r.Problem.Segment != 3 || !strings.Contains(r.Problem.What, "another checkpoint") {
		t.Errorf("another history: %v", r.Problem)
	}
}

// named verifies and wants the first divergence to be in the segment and to say that.
func named(h *certlogtest.House, cfg certlog.VerifyConfig, segment uint64, want string) {
	h.T.Helper()
	r, err := certlog.Verify(cfg)
	if err != nil {
		h.T.Fatal(err)
	}
	if r.Problem == nil || r.Problem.Segment != segment || !strings.Contains(r.Problem.What, want) {
		h.T.Errorf("got %v, want segment %d and something about %q", r.Problem, segment, want)
	}
}

// TestDestructionIsJudged: what destroys segments must be sealed, stamped and
// there, and a witness that was told of it misses it in an old copy.
func TestDestructionIsJudged(t *testing.T) {
	h := certlogtest.NewHouse(t)
	h.Open()
	for range 3 {
		h.Append(5)
		h.Seal()
	}
	old := map[string][]byte{}
	for _, s := range []string{"seg", "key", "idx"} {
		for n := 1; n <= 2; n++ {
			old[h.Path(n, s)] = h.Read(h.Path(n, s))
		}
	}
	third, err := certlog.ParseCheckpoint(h.Payload(3))
	if err != nil {
		t.Fatal(err)
	}
	d, err := h.Log.Destroy(t.Context(), third.Sealed, "test", nil)
	if err != nil || len(d.Segments) != 2 {
		t.Fatalf("%+v, %v", d, err)
	}
	h.Stop()
	cfg := h.Judgement()
	if r, err := certlog.Verify(cfg); err != nil || r.Problem != nil || r.Destroyed != 10 {
		t.Fatalf("%+v, %v", r, err)
	}
	name := filepath.Join(h.Dir, "destroyed-000000000002.p7m")
	statement := h.Read(name)
	if err := cfg.AddWitness("auditor", certlog.Dir(h.Dir)); err != nil {
		t.Fatal(err)
	}
	if r, err := certlog.Verify(cfg); err != nil || r.Problem != nil || len(cfg.Told) != 1 {
		t.Fatalf("an honest witness: %+v, %v", r, err)
	}
	bare, err := h.Notary.Seal(t.Context(), mustOpen(t, h.Notary, statement))
	if err != nil {
		t.Fatal(err)
	}
	h.Write(name, bare)
	named(h, h.Judgement(), 1, "is not time-stamped")
	h.Write(name, certlogtest.Graft(t, h.Notary, h.TSA, bare, func(s *tsasim.TSA) { s.Misbehave(tsasim.OtherRoot) }, nil))
	named(h, h.Judgement(), 1, "is not good")
	h.Remove(name)
	named(h, h.Judgement(), 1, "no sealed statement")
	for path, octets := range old { // a copy from before
		h.Write(path, octets)
	}
	if r := h.Verify(); r.Problem != nil {
		t.Errorf("an old copy is consistent in itself: %v", r.Problem)
	}
	named(h, cfg, 1, "holds the statement that it was destroyed")
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
	h := certlogtest.NewHouse(t)
	h.Fill()
	cfg := h.Judgement()
	cfg.Floor = 15
	if r, err := certlog.Verify(cfg); err != nil || r.Problem != nil {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, s := range []string{"seg", "key", "idx", "hsh", "p7m"} {
		h.Remove(h.Path(3, s))
	}
	named(h, cfg, 3, "10 sealed records are here, 15 are known")
}

// TestLetters: a box into which anybody can put letters is a witness; only good
// seals of this log count.
func TestLetters(t *testing.T) {
	h, other, another := certlogtest.NewHouse(t), certlogtest.NewHouse(t), certlogtest.NewHouse(t)
	h.Fill()
	other.Notary, other.Name = h.Notary, "security"
	other.Fill()
	another.Notary = h.Notary
	another.Fill()
	read := func(x *certlogtest.House, n int) []byte { return x.Read(x.Path(n, "p7m")) }
	box := [][]byte{read(h, 1), read(h, 3), read(other, 1), read(other, 3), []byte("not a seal")}
	cfg := h.Judgement()
	if bad := cfg.AddLetters("auditor's box", box); bad != 1 {
		t.Errorf("%d bad seals", bad)
	}
	if r, err := certlog.Verify(cfg); err != nil || r.Problem != nil {
		t.Fatalf("an honest box: %+v, %v", r.Problem, err)
	}
	replaced := h.Judgement() // the folder was made anew under the same name
	replaced.AddLetters("auditor's box", [][]byte{read(another, 2)})
	named(h, replaced, 2, "auditor's box holds another checkpoint")
	for _, s := range []string{"seg", "key", "idx", "hsh", "p7m"} {
		h.Remove(h.Path(3, s))
	}
	named(h, cfg, 3, "auditor's box holds its checkpoint, this folder does not")
}
