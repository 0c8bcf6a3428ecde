package tpdu

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// Centre is the service centre every simulated card knows.
const Centre = "+393900000001"

// Deliver spells text from a number (or a name: up to eleven characters) as
// SMS-DELIVERs (23.040 section 9.2.2.1), without the service centre address. More
// than one part is tied by ref.
func Deliver(from, text string, ref byte, at time.Time) []string {
	seven, wide := pieces(text)
	parts := max(len(seven), len(wide))
	var out []string
	for i := range parts {
		var head []byte
		first := 0x04
		if parts > 1 {
			head, first = []byte{5, 0, 3, ref, byte(parts), byte(i + 1)}, 0x44
		}
		dcs, length, data := 0, 0, head
		if wide != nil {
			dcs = 8
			for _, u := range wide[i] {
				data = append(data, byte(u>>8), byte(u))
			}
			length = len(data)
		} else {
			skip := (len(head)*8 + 6) / 7
			data = pack(seven[i], skip)
			copy(data, head)
			length = skip + len(seven[i])
		}
		out = append(out, fmt.Sprintf("%02X%s00%02X%s%02X%X", first, address(from), dcs, stamp(at), length, data))
	}
	return out
}

// Report spells an SMS-STATUS-REPORT (23.040 section 9.2.2.3) without the service
// centre address; national leaves the country code out of the recipient.
func Report(ref byte, to string, national bool, sent, done time.Time, status byte) string {
	if national {
		to = strings.TrimPrefix(to, "+39")
	}
	return fmt.Sprintf("06%02X%s%s%s%02X", ref, address(to), stamp(sent), stamp(done), status)
}

// WithCentre puts the service centre address in front of a TPDU.
func WithCentre(tpdu string) string {
	a := address(Centre)
	return fmt.Sprintf("%02X%s%s", len(a[2:])/2, a[2:], tpdu)
}

// Bare puts an empty service centre address in front.
func Bare(tpdu string) string { return "00" + tpdu }

// address is length, type and digits of an address (23.040 section 9.1.2.5).
func address(a string) string {
	toa, digits := 0x91, strings.TrimPrefix(a, "+")
	switch {
	case strings.Trim(digits, "0123456789") != "":
		var sept []byte
		for _, r := range digits {
			sept = append(sept, codes(r)...)
		}
		data := pack(sept[:min(len(sept), 11)], 0)
		return fmt.Sprintf("%02XD0%s", len(data)*2, strings.ToUpper(hex.EncodeToString(data)))
	case digits == a:
		toa = 0x81
	}
	n := len(digits)
	if n%2 == 1 {
		digits += "F"
	}
	var swapped strings.Builder
	for i := 0; i < len(digits); i += 2 {
		swapped.WriteByte(digits[i+1])
		swapped.WriteByte(digits[i])
	}
	return fmt.Sprintf("%02X%02X%s", n, toa, swapped.String())
}

// stamp is a service centre time stamp, always in UTC.
func stamp(t time.Time) string {
	t = t.UTC()
	var out strings.Builder
	for _, v := range []int{t.Year() % 100, int(t.Month()), t.Day(), t.Hour(), t.Minute(), t.Second(), 0} {
		fmt.Fprintf(&out, "%d%d", v%10, v/10)
	}
	return out.String()
}
