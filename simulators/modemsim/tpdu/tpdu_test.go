package tpdu

import (
	"strings"
	"testing"
	"time"
)

const hello = "0021000C919343103254760000" + "05E8329BFD06"

func TestParseSubmit(t *testing.T) {
	m, err := ParseSubmit("0011000B919343103254F6001800"+"06"+"20AC00200436", 20)
	if err != nil || m.Text != "€ ж" || m.To != "+39340123456" || m.Report || m.Class != 0 || m.Valid != 5*time.Minute || m.Validity != "00" {
		t.Errorf("%+v %v", m, err)
	}
	for _, bad := range []string{"", "00", hello[:30], hello + "00", "zz", "0002000C91934310325476000005E8329BFD06"} {
		if _, err := ParseSubmit(bad, len(bad)/2-1); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
	long := "0041000C919343103254760000" + "0B" + "06080412340302" + "E834"
	if m, err := ParseSubmit(long, len(long)/2-1); err == nil {
		t.Errorf("wrong length accepted: %+v", m)
	}
	long = "0041000C919343103254760008" + "09" + "060804123403020041"
	if m, err := ParseSubmit(long, len(long)/2-1); err != nil || m.Text != "A" || m.Ref != 0x1234 || m.Parts != 3 || m.Part != 2 {
		t.Errorf("%+v %v", m, err)
	}
}

func TestRelative(t *testing.T) {
	for v, want := range map[byte]time.Duration{0: 5 * time.Minute, 143: 12 * time.Hour, 144: 12*time.Hour + 30*time.Minute,
		167: 24 * time.Hour, 168: 48 * time.Hour, 196: 30 * 24 * time.Hour, 197: 5 * 7 * 24 * time.Hour, 255: 63 * 7 * 24 * time.Hour} {
		if got := relative(v); got != want {
			t.Errorf("%d: %v, want %v", v, got, want)
		}
	}
}

// asSubmit turns a deliver into the submit with the same user data.
func asSubmit(t *testing.T, deliver string) Submit {
	t.Helper()
	first := "01"
	if deliver[0] == '4' {
		first = "41"
	}
	addr := address("+39340123456")
	rest := deliver[2+len(addr):] // PID DCS SCTS UDL UD
	pdu := first + "00" + addr + rest[:4] + rest[4+14:]
	m, err := ParseSubmit("00"+pdu, len(pdu)/2)
	if err != nil {
		t.Fatalf("%s: %v", deliver, err)
	}
	return m
}

func TestDeliver(t *testing.T) {
	at := time.Date(2026, 11, 21, 12, 34, 56, 0, time.UTC)
	for _, text := range []string{"", "hello", "è €[x]", "Привет", strings.Repeat("a", 160), strings.Repeat("0123456789", 17),
		strings.Repeat("€", 81), strings.Repeat("ж", 71), strings.Repeat("😀", 40)} {
		var got strings.Builder
		parts := Deliver("+39340123456", text, 7, at)
		for i, p := range parts {
			m := asSubmit(t, p)
			got.WriteString(m.Text)
			if len(parts) > 1 && (m.Part != i+1 || m.Parts != len(parts) || m.Ref != 7) {
				t.Errorf("%q part %d: %+v", text, i, m)
			}
		}
		if got.String() != text {
			t.Errorf("%q became %q", text, got.String())
		}
	}
	if d := Deliver("+39340123456", "hello", 7, at); d[0] != "040B919343103254F600006211122143650005E8329BFD06" {
		t.Error(d[0])
	}
	if d := Deliver("TIM", "hello", 7, at); !strings.HasPrefix(d[0], "0406D0D46413") {
		t.Error(d[0])
	}
}

func TestReport(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if got := Report(255, "+393401234567", false, at, at, 0); got != "06FF0C919343103254766210203040500062102030405000"+"00" {
		t.Error(got)
	}
	if got := Report(0, "+393401234567", true, at, at, 0x46); got != "06000A814310325476"+"62102030405000"+"62102030405000"+"46" {
		t.Error(got)
	}
	if got := WithCentre("04"); got != "0791939300000010"+"04" {
		t.Error(got)
	}
}

func FuzzParseSubmit(f *testing.F) {
	f.Add(hello)
	f.Add("0041000C9193431032547600000E050003010201E8329BFD06")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseSubmit(s, len(s)/2-1)
		if err == nil && len(m.Text) > 160*4 {
			t.Fatal(len(m.Text))
		}
	})
}

func TestEncode(t *testing.T) {
	for set, want := range map[string]string{"GSM": "a1", "HEX": "6131", "UCS2": "00610031"} {
		if got := Encode(set, "a1"); got != want {
			t.Errorf("%s: %s", set, got)
		}
	}
}
