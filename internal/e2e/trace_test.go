package e2e

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net/url"
	"os"
	"sort"
	"strings"
	"testing"
	"unicode/utf16"
)

// tracer searches octets for values in every form that they may have been left in: as they are, in capitals and small
// letters, percent-encoded, in hexadecimal, in base64 at its three alignments, in UTF-16, and of telephone numbers
// the digits alone and as SMS write them, with swapped halves (3GPP TS 23.040, section 9.1.2.5).
type tracer struct {
	byStart map[uint32][]form
	starts  [1 << 16]bool // of the first two octets
}

type form struct {
	name   string
	octets string
}

// shortest is what cannot be in 100 MB of anything by chance.
const shortest = 6

func newTracer(t *testing.T, values map[string]string) *tracer {
	t.Helper()
	tr := &tracer{byStart: map[uint32][]form{}}
	for name, v := range values {
		if len(v) < shortest {
			t.Fatalf("%s is too short to search for", name)
		}
		tr.add(name, v)
		tr.add(name+", small", strings.ToLower(v))
		tr.add(name+", capital", strings.ToUpper(v))
		tr.add(name+", percent-encoded", url.QueryEscape(v))
		tr.add(name+", hex", hex.EncodeToString([]byte(v)))
		tr.add(name+", hex", strings.ToUpper(hex.EncodeToString([]byte(v))))
		for shift := range 3 {
			tr.add(fmt.Sprintf("%s, base64 at %d", name, shift), aligned(base64.StdEncoding, v, shift))
			tr.add(fmt.Sprintf("%s, base64url at %d", name, shift), aligned(base64.URLEncoding, v, shift))
		}
		var little, big []byte
		for _, u := range utf16.Encode([]rune(v)) {
			little, big = binary.LittleEndian.AppendUint16(little, u), binary.BigEndian.AppendUint16(big, u)
		}
		tr.add(name+", UTF-16", string(little))
		tr.add(name+", UTF-16", string(big))
		if digits, ok := strings.CutPrefix(v, "+"); ok {
			tr.add(name+", digits", digits)
			tr.add(name+", national", digits[2:])
			swapped := swap(digits)
			tr.add(name+", in an SMS", swapped)
			if octets, err := hex.DecodeString(swapped); err == nil {
				tr.add(name+", in an SMS", string(octets))
			}
		}
	}
	return tr
}

// aligned is what is sure to be in the base64 of any text with v at an offset of shift modulo 3.
func aligned(e *base64.Encoding, v string, shift int) string {
	s := e.EncodeToString([]byte(strings.Repeat("\x00", shift) + v))
	s = s[(shift*8+5)/6:]
	return s[:max(0, len(s)-4)] // the last group depends on what follows
}

func swap(digits string) string {
	if len(digits)%2 == 1 {
		digits += "F"
	}
	b := []byte(digits)
	for i := 0; i < len(b); i += 2 {
		b[i], b[i+1] = b[i+1], b[i]
	}
	return string(b)
}

func (tr *tracer) add(name, octets string) {
	if len(octets) < shortest {
		return
	}
	key := binary.LittleEndian.Uint32([]byte(octets))
	for _, f := range tr.byStart[key] {
		if f.octets == octets {
			return
		}
	}
	tr.byStart[key] = append(tr.byStart[key], form{name, octets})
	tr.starts[key&0xffff] = true
}

// search returns how often each form is in data, and around the first few what else is there.
func (tr *tracer) search(data []byte) (count map[string]int, around []string) {
	count = map[string]int{}
	for i := 0; i+4 <= len(data); i++ {
		if !tr.starts[uint32(data[i])|uint32(data[i+1])<<8] {
			continue
		}
		for _, f := range tr.byStart[binary.LittleEndian.Uint32(data[i:])] {
			if len(data)-i >= len(f.octets) && string(data[i:i+len(f.octets)]) == f.octets {
				if count[f.name]++; count[f.name] <= 3 {
					around = append(around, fmt.Sprintf("%s at %#x: %s", f.name, i, printable(data[max(0, i-100):min(len(data), i+100)])))
				}
			}
		}
	}
	return count, around
}

func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r < 32 || r > 126 {
			return '.'
		}
		return r
	}, string(b))
}

// searchFile searches a file of any size piece by piece.
func (tr *tracer) searchFile(t *testing.T, path string) (count map[string]int, around []string, size int64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const piece, overlap = 32 << 20, 4096 // longer than any form
	count, buf := map[string]int{}, make([]byte, piece)
	for kept := 0; ; {
		n, err := io.ReadFull(f, buf[kept:])
		size += int64(n)
		some, where := tr.search(buf[:kept+n])
		for name, k := range some {
			count[name] += k
		}
		around = append(around, where...)
		if err != nil {
			if err != io.EOF && err != io.ErrUnexpectedEOF {
				t.Fatal(err)
			}
			return count, around, size
		}
		kept = copy(buf, buf[len(buf)-overlap:])
	}
}

// none fails the test when a form of a value is in the file.
func (tr *tracer) none(t *testing.T, what, path string) {
	t.Helper()
	count, around, size := tr.searchFile(t, path)
	if len(count) == 0 {
		return
	}
	var lines []string
	for name, n := range count {
		lines = append(lines, fmt.Sprintf("%s: %d", name, n))
	}
	sort.Strings(lines)
	t.Errorf("%s (%d octets) holds personal data:\n%s\n%s", what, size, strings.Join(lines, "\n"), strings.Join(around, "\n"))
}

// TestTracer: the search finds what it says it looks for, at every alignment and border, and nothing in noise.
func TestTracer(t *testing.T) {
	values := map[string]string{"name": "Zenobiagrazia", "phone": "+393479988776"}
	tr := newTracer(t, values)
	for _, pad := range []int{0, 1, 2, 3, 4, 5} {
		left := strings.Repeat("Ж", pad)[:pad]
		for _, v := range values {
			text := left + v + "ÿ*"
			for name, planted := range map[string]string{
				"plain": text, "hex": hex.EncodeToString([]byte(text)), "base64": base64.StdEncoding.EncodeToString([]byte(text)),
				"base64url": base64.URLEncoding.EncodeToString([]byte(text)), "percent": url.QueryEscape(text), "capital": strings.ToUpper(text), "small": strings.ToLower(text),
			} {
				for _, where := range []string{planted, "xx" + planted, planted + "yy"} {
					if count, _ := tr.search([]byte(where)); len(count) == 0 {
						t.Errorf("%s as %s after %d octets is not found in %q", v, name, pad, where)
					}
				}
			}
		}
	}
	for _, sms := range []string{"\x93\x43\x97\x89\x78\x67", "3479988776", "Z\x00e\x00n\x00o\x00b\x00i\x00a\x00g\x00r\x00a\x00z\x00i\x00a\x00"} {
		if count, _ := tr.search([]byte(sms)); len(count) == 0 {
			t.Errorf("%q is not found", sms)
		}
	}
	if count, _ := tr.search([]byte("0C91" + swap("393479988776"))); len(count) == 0 {
		t.Error("a number in an SMS is not found")
	}
	if count, around := tr.search([]byte(strings.Repeat("Zenobi agrazia +39347998877 ", 1000))); len(count) != 0 {
		t.Errorf("found where it is not: %v", around)
	}
}
