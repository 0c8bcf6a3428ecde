package pdu_test

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/warthog618/sms"
	"github.com/warthog618/sms/encoding/tpdu"

	"custode/modem/pdu"
)

func semi(n int) byte { return byte(n%10)<<4 | byte(n/10) }

// number appends an address of random digits, international or not.
func number(b []byte, rnd *rand.Rand) []byte {
	n := 3 + rnd.IntN(12)
	kind := []byte{0x91, 0x81, 0xa1}[rnd.IntN(3)]
	b = append(b, byte(n), kind)
	for i := 0; i < n; i += 2 {
		high := byte(0x0f)
		if i+1 < n {
			high = byte(rnd.IntN(10))
		}
		b = append(b, high<<4|byte(rnd.IntN(10)))
	}
	return b
}

func stamp(b []byte, rnd *rand.Rand) []byte {
	return append(b, semi(rnd.IntN(70)), semi(1+rnd.IntN(12)), semi(1+rnd.IntN(28)), semi(rnd.IntN(24)), semi(rnd.IntN(60)), semi(rnd.IntN(60)), semi(rnd.IntN(48)))
}

// TestDifferentialIncoming: random messages and reports of a network, read by the
// independent codec and by ours.
func TestDifferentialIncoming(t *testing.T) {
	const seed = 20261121
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 2))
	agreed := 0
	for i := range 5000 {
		var b []byte
		report := rnd.IntN(2) == 0
		if report {
			b = append(b, 0x06, byte(rnd.IntN(256)))
			b = number(b, rnd)
			b = stamp(stamp(b, rnd), rnd)
			b = append(b, byte(rnd.IntN(256)))
		} else {
			b = number(append(b, 0x04), rnd)
			dcs := []byte{0, 0, 8, 0x10, 0x18}[rnd.IntN(5)]
			b = stamp(append(b, 0, dcs), rnd)
			if dcs&8 == 0 {
				// Any septet but the escape, about which receivers differ.
				n := rnd.IntN(161)
				acc, bits := uint(0), 0
				b = append(b, byte(n))
				for left := n; left > 0; left-- {
					c := uint(rnd.IntN(128))
					if c == 0x1b {
						c = 'x'
					}
					acc |= c << bits
					for bits += 7; bits >= 8; bits -= 8 {
						b = append(b, byte(acc))
						acc >>= 8
					}
				}
				if bits > 0 {
					b = append(b, byte(acc))
				}
			} else {
				n := 2 * rnd.IntN(71)
				b = append(b, byte(n))
				for range n / 2 {
					b = append(b, byte(rnd.IntN(0x20)), byte(0x20+rnd.IntN(0x60)))
				}
			}
		}
		theirs, err := sms.Unmarshal(b, sms.AsMT)
		if err != nil {
			continue
		}
		ours, err := pdu.DecodeIncoming("00" + hex.EncodeToString(b))
		if err != nil {
			t.Fatalf("%d: we refuse %x: %v", i, b, err)
		}
		var want, got string
		if report {
			r := ours.Report
			want = fmt.Sprint(theirs.MR, theirs.RA.Number(), theirs.SCTS.Unix(), theirs.DT.Unix(), theirs.ST)
			got = fmt.Sprint(r.Ref, r.To.Digits, r.Submitted.Unix(), r.Done.Unix(), r.Status)
		} else {
			text, err := sms.Decode([]*tpdu.TPDU{theirs})
			if err != nil {
				continue // septets that their table does not have
			}
			d := ours.Deliver
			want = fmt.Sprint(theirs.OA.Number(), theirs.SCTS.Unix(), strings.TrimRight(string(text), " ")) // a lone escape at the end: they show a blank
			got = fmt.Sprint(d.From.Digits, d.At.Unix(), strings.TrimRight(d.Text, " "))
		}
		if got != want {
			t.Fatalf("%d: %x: we read %q, they read %q", i, b, got, want)
		}
		agreed++
	}
	if agreed < 2500 {
		t.Errorf("only %d were comparable", agreed)
	}
	t.Logf("%d agreed", agreed)
}
