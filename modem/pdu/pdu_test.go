package pdu_test

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/warthog618/sms"
	"github.com/warthog618/sms/encoding/tpdu"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/modem/pdu"
)

func phone(t testing.TB, s string) id.Phone {
	t.Helper()
	p, err := id.ParsePhone(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestGolden pins two frames computed by hand from 23.040.
func TestGolden(t *testing.T) {
	for _, c := range []struct {
		in     pdu.Submit
		want   string
		length int
	}{
		{pdu.Submit{To: phone(t, "+393401234567"), Text: []byte("hello"), Validity: 5 * time.Minute, Report: true},
			"0031000C919343103254760000" + "00" + "05E8329BFD06", 19},
		{pdu.Submit{To: phone(t, "+39340123456"), Text: []byte("€ ж"), Flash: true},
			"0001000B9193431032" + "54F60018" + "06" + "20AC00200436", 19},
	} {
		frames, err := c.in.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if len(frames) != 1 || string(frames[0].Hex) != c.want || frames[0].Length != c.length {
			t.Errorf("got %s %d\nwant %s %d", frames[0].Hex, frames[0].Length, c.want, c.length)
		}
		frames[0].Wipe()
		if strings.Trim(string(frames[0].Hex), "\x00") != "" {
			t.Error("a wiped frame still says something")
		}
	}
}

func TestValidity(t *testing.T) {
	for d, want := range map[time.Duration]time.Duration{
		time.Second: 5 * time.Minute, 5 * time.Minute: 5 * time.Minute, 5*time.Minute + 1: 10 * time.Minute,
		12 * time.Hour: 12 * time.Hour, 12*time.Hour + 1: 12*time.Hour + 30*time.Minute, 24 * time.Hour: 24 * time.Hour,
		25 * time.Hour: 48 * time.Hour, 30 * 24 * time.Hour: 30 * 24 * time.Hour, 31 * 24 * time.Hour: 35 * 24 * time.Hour,
		10000 * 24 * time.Hour: 63 * 7 * 24 * time.Hour,
	} {
		f, err := pdu.Submit{To: phone(t, "+393401234567"), Text: []byte("x"), Validity: d}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := pdu.DecodeSubmit(string(f[0].Hex))
		if err != nil || got.Validity != want {
			t.Errorf("%v became %v, want %v (%v)", d, got.Validity, want, err)
		}
	}
}

func TestParts(t *testing.T) {
	for _, c := range []struct {
		text  string
		parts int
		wide  bool
	}{
		{strings.Repeat("a", 160), 1, false}, {strings.Repeat("a", 161), 2, false}, {strings.Repeat("a", 306), 2, false},
		{strings.Repeat("a", 159) + "€", 2, false}, {strings.Repeat("€", 80), 1, false},
		{strings.Repeat("ж", 70), 1, true}, {strings.Repeat("ж", 71), 2, true}, {strings.Repeat("😀", 35), 1, true}, {strings.Repeat("😀", 36), 2, true},
		{"è é ù ì ò à É Ç", 1, false}, {"È", 1, true}, {"’", 1, true},
	} {
		parts, wide, err := pdu.Parts([]byte(c.text))
		if err != nil || parts != c.parts || wide != c.wide {
			t.Errorf("%.20q…: %d %v %v, want %d %v", c.text, parts, wide, err, c.parts, c.wide)
		}
		_, err = pdu.Submit{To: phone(t, "+393401234567"), Text: []byte(c.text)}.Encode()
		if (err == nil) != (c.parts == 1) {
			t.Errorf("%.20q…: encoding in one part: %v", c.text, err)
		}
	}
	for _, s := range []pdu.Submit{{Text: []byte("x")}, {To: phone(t, "+393401234567")}, {To: phone(t, "+393401234567"), Text: []byte{0xff}}} {
		if _, err := s.Encode(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", s, err)
		}
	}
}

// join decodes frames and puts the parts together.
func join(t testing.TB, frames []pdu.Frame) string {
	t.Helper()
	var all strings.Builder
	for i, f := range frames {
		got, err := pdu.DecodeSubmit(string(f.Hex))
		if err != nil {
			t.Fatalf("own frame: %v", err)
		}
		if len(frames) > 1 && (got.Concat == nil || int(got.Concat.Part) != i+1 || int(got.Concat.Total) != len(frames)) {
			t.Fatalf("part %d: %+v", i+1, got.Concat)
		}
		if f.Length != len(f.Hex)/2-1 || len(f.Hex) > 2*176 {
			t.Fatalf("length %d of %d", f.Length, len(f.Hex))
		}
		all.WriteString(got.Text)
	}
	return all.String()
}

// TestDifferential compares with an independent codec on random texts.
func TestDifferential(t *testing.T) {
	const seed = 20260101
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	sets := []string{"abc XYZ 0123 @£$èéùìò", "a^{}\\[~]|€b", "жλ€日本abc", "😀aж"}
	for i := range 3000 {
		set := []rune(sets[rnd.IntN(len(sets))])
		var text []rune
		for range 1 + rnd.IntN(200) {
			text = append(text, set[rnd.IntN(len(set))])
		}
		number := "+39" + fmt.Sprint(3000000000 + rnd.Int64N(999999999))[:9+rnd.IntN(2)]
		s := pdu.Submit{To: phone(t, number), Text: []byte(string(text)), Report: rnd.IntN(2) == 0, Flash: rnd.IntN(8) == 0, MaxParts: 9, Ref: uint16(rnd.IntN(1 << 16)), LongRef: rnd.IntN(2) == 0,
			Validity: time.Duration(rnd.IntN(1000)) * time.Hour}
		frames, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		var segments []*tpdu.TPDU
		for _, f := range frames {
			raw, err := hex.DecodeString(string(f.Hex))
			if err != nil {
				t.Fatal(err)
			}
			seg, err := sms.Unmarshal(raw[1:], sms.AsMO)
			if err != nil {
				t.Fatalf("%d: the other codec refuses %s: %v", i, f.Hex, err)
			}
			if seg.DA.Number() != number || seg.FirstOctet.SRR() != s.Report {
				t.Fatalf("%d: number %s, report %v", i, seg.DA.Number(), seg.FirstOctet.SRR())
			}
			segments = append(segments, seg)
		}
		theirs, err := sms.Decode(segments)
		if err != nil || string(theirs) != string(text) {
			t.Fatalf("%d: they read %q (%v), we wrote %q", i, theirs, err, string(text))
		}
		if ours := join(t, frames); ours != string(text) {
			t.Fatalf("%d: we read %q, we wrote %q", i, ours, string(text))
		}
		encoded, err := sms.Encode(s.Text, sms.To(number))
		if err != nil {
			t.Fatal(err)
		}
		if len(encoded) != len(frames) && len(frames) == 1 {
			t.Fatalf("%d: %d parts, theirs %d", i, len(frames), len(encoded))
		}
		for _, e := range encoded {
			raw, err := e.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := pdu.DecodeSubmit("00" + hex.EncodeToString(raw)); err != nil {
				t.Fatalf("%d: we refuse theirs: %v", i, err)
			}
		}
	}
}

func TestDecodeIncoming(t *testing.T) {
	zone := time.FixedZone("", 2*3600)
	report, err := pdu.DecodeIncoming("07919333852804000607" + "0C91934310325476" + "62116121436500" + "62116121437580" + "00")
	if err != nil {
		t.Fatal(err)
	}
	want := pdu.Report{Ref: 7, To: pdu.Address{Digits: "+393401234567", Type: 0x91},
		Submitted: time.Date(2026, 11, 16, 12, 34, 56, 0, time.UTC), Done: time.Date(2026, 11, 16, 12, 34, 57, 0, zone), Status: 0}
	if report.Deliver != nil || report.Report.Ref != want.Ref || report.Report.To != want.To || !report.Report.Submitted.Equal(want.Submitted) {
		t.Errorf("got %+v", report.Report)
	}
	if !report.Report.Done.Equal(want.Done) {
		t.Errorf("done %v, want %v", report.Report.Done, want.Done)
	}
	if report.Report.Fate() != pdu.Delivered {
		t.Errorf("fate %v", report.Report.Fate())
	}
	got, err := pdu.DecodeIncoming("00" + "04" + "0BD0CD66F3BA0D01" + "0000" + "00000000000000" + "05E8329BFD06")
	if err != nil {
		t.Fatal(err)
	}
	if got.Deliver == nil || got.Deliver.Text != "hello" || got.Deliver.From.Type != 0xd0 || !got.Deliver.At.IsZero() {
		t.Errorf("got %+v", got.Deliver)
	}
	for st, fate := range map[byte]pdu.Fate{0: pdu.Delivered, 2: pdu.Delivered, 3: pdu.Trying, 0x20: pdu.Trying, 0x46: pdu.Undone, 0x60: pdu.Undone, 0x80: pdu.Trying} {
		if (pdu.Report{Status: st}).Fate() != fate {
			t.Errorf("status %#x", st)
		}
	}
}

func TestDecodeRefusals(t *testing.T) {
	for name, s := range map[string]string{
		"empty": "", "odd": "0", "no hex": "zz", "service centre past the end": "FF00", "reserved type": "0003",
		"address past the end": "000031", "address too long": "0004FF91", "user data past the end": "0001000C9193431032547600000500",
		"header past the end": "0041000C91934310325476000805FF00000000", "long": strings.Repeat("00", 300),
		"user data over 140": "0001000C919343103254760004FF" + strings.Repeat("00", 185),
		"odd UCS-2":          "0001000C919343103254760008" + "03" + "004100",
		"filler digit":       "0001000C91FFFFFFFFFFFF0000" + "00",
	} {
		_, errIn := pdu.DecodeIncoming(s)
		_, errOut := pdu.DecodeSubmit(s)
		if !fault.Is(errIn, fault.Invalid) || !fault.Is(errOut, fault.Invalid) {
			t.Errorf("%s: %v / %v", name, errIn, errOut)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		"0031000C91934310325476000005E8329BFD06", "079193338528040006070C919343103254766211612143650062116121437580" + "00",
		"00040BD0CD66F3BA0D0100000000000000000005E8329BFD06", "0041000C91934310325476000805050003010201",
		"0041000C9193431032547600000E050003010201E8329BFD06",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if in, err := pdu.DecodeIncoming(s); err == nil && (in.Deliver == nil) == (in.Report == nil) {
			t.Fatal("neither or both")
		}
		got, err := pdu.DecodeSubmit(s)
		if err != nil || got.Octets != nil || got.Concat != nil || got.To.Type != 0x91 || !utf8.ValidString(got.Text) || got.Text == "" {
			return
		}
		to, err := id.ParsePhone(got.To.Digits)
		if err != nil || to.String() != got.To.Digits || strings.ContainsRune(got.Text, utf8.RuneError) {
			return
		}
		// What decodes and could be ours re-encodes to the same meaning.
		frames, err := pdu.Submit{To: to, Text: []byte(got.Text), Validity: got.Validity, Report: got.Report}.Encode()
		if err != nil {
			return // e.g. UCS-2 text that fits only with other tables
		}
		again, err := pdu.DecodeSubmit(string(frames[0].Hex))
		if err != nil || again.Text != got.Text || again.Validity != got.Validity || again.To.Digits != got.To.Digits || again.Report != got.Report {
			t.Fatalf("%+v became %+v (%v)", got, again, err)
		}
	})
}

func FuzzRoundTrip(f *testing.F) {
	f.Add("Il tuo codice è 123456", 300, true)
	f.Add(strings.Repeat("€😀", 50), 7200, false)
	f.Fuzz(func(t *testing.T, text string, seconds int, report bool) {
		s := pdu.Submit{To: phone(t, "+393401234567"), Text: []byte(text), Validity: time.Duration(seconds) * time.Second, Report: report, MaxParts: 255}
		frames, err := s.Encode()
		if err != nil {
			if utf8.ValidString(text) && text != "" && len(text) < 134*255/2 {
				t.Fatalf("refused: %v", err)
			}
			return
		}
		if got := join(t, frames); got != text {
			t.Fatal(cmp.Diff(text, got))
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	s := pdu.Submit{To: phone(b, "+393401234567"), Text: []byte("Il codice per accedere è 123456. Non comunicarlo a nessuno."), Validity: time.Minute, Report: true}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Encode(); err != nil {
			b.Fatal(err)
		}
	}
}
