package pdu

import (
	"encoding/hex"
	"unicode/utf8"

	"custode/internal/fault"
)

// room is what one part holds, in septets or octets: alone, and after a
// concatenation header with an octet of reference, or with two.
var room = map[alphabet][3]int{gsm7: {160, 153, 152}, utf16be: {140, 134, 132}}

const maxText = 255 * 153 * 4 // octets of UTF-8 that could possibly fit

// Parts returns how many parts Encode would make of text and whether it needs
// UCS-2. It fails as Encode does on text that is not UTF-8 or cannot fit.
func Parts(text []byte) (parts int, wide bool, err error) {
	units, a, err := encodeText(text)
	if err != nil {
		return 0, false, err
	}
	defer clear(units)
	return len(cut(units, a, false)), a == utf16be, nil
}

// Encode makes the frames of the message, one per part. It fails with
// fault.Invalid when the text is not UTF-8, is empty, or needs more than
// MaxParts; the frames hold the text, so wipe them after use.
func (s Submit) Encode() ([]Frame, error) {
	const op = "encode SMS-SUBMIT"
	if s.To.IsZero() || len(s.Text) == 0 {
		return nil, fault.Newf(fault.Invalid, op, "number or text missing")
	}
	text := s.Text
	if s.Plain {
		text = Transliterate(text)
		defer clear(text)
	}
	units, a, err := encodeText(text)
	if err != nil {
		return nil, err
	}
	defer clear(units)
	parts := cut(units, a, s.LongRef)
	if limit := max(s.MaxParts, 1); len(parts) > min(limit, 255) {
		return nil, fault.Newf(fault.Invalid, op, "text needs %d parts, %d allowed", len(parts), limit)
	}
	frames := make([]Frame, len(parts))
	for i, body := range parts {
		var header []byte
		switch {
		case len(parts) > 1 && s.LongRef:
			header = []byte{6, 0x08, 4, byte(s.Ref >> 8), byte(s.Ref), byte(len(parts)), byte(i + 1)}
		case len(parts) > 1:
			header = []byte{5, 0x00, 3, byte(s.Ref), byte(len(parts)), byte(i + 1)}
		}
		frames[i] = s.frame(header, body, a)
	}
	return frames, nil
}

// frame lays out one TPDU (23.040 section 9.2.2.2).
func (s Submit) frame(header, body []byte, a alphabet) Frame {
	first, dcs := byte(mtiSubmit), byte(0)
	if s.Validity > 0 {
		first |= bitRelativeVP
	}
	if s.Report {
		first |= bitReport
	}
	if len(header) > 0 {
		first |= bitHeader
	}
	if a == utf16be {
		dcs |= dcsUCS2
	}
	if s.Flash {
		dcs |= dcsClass0
	}
	b := make([]byte, 0, maxPDU)
	b = append(b, 0, first, 0) // the modem's own service centre; it numbers the message too
	b = appendNumber(b, s.To.String()[1:])
	b = append(b, 0, dcs)
	if s.Validity > 0 {
		b = append(b, relativeVP(s.Validity))
	}
	if a == gsm7 {
		headSeptets := (len(header)*8 + 6) / 7
		b = append(b, byte(headSeptets+len(body)))
		b = append(b, header...)
		b = pack(b, body, headSeptets*7-len(header)*8)
	} else {
		b = append(b, byte(len(header)+len(body)))
		b = append(b, header...)
		b = append(b, body...)
	}
	defer clear(b)
	text := make([]byte, hex.EncodedLen(len(b)))
	hex.Encode(text, b)
	for i, c := range text {
		if c >= 'a' {
			text[i] = c - 'a' + 'A'
		}
	}
	return Frame{Hex: text, Length: len(b) - 1}
}

// appendNumber writes an international number (type of address 0x91).
func appendNumber(b []byte, digits string) []byte {
	b = append(b, byte(len(digits)), 0x91)
	for i := 0; i < len(digits); i += 2 {
		high := byte(0x0f)
		if i+1 < len(digits) {
			high = digits[i+1] - '0'
		}
		b = append(b, high<<4|(digits[i]-'0'))
	}
	return b
}

// encodeText returns septets, or octets of UTF-16 when the text needs them.
func encodeText(text []byte) ([]byte, alphabet, error) {
	if len(text) > maxText || !utf8.Valid(text) {
		return nil, 0, fault.Newf(fault.Invalid, "encode SMS-SUBMIT", "text is not UTF-8 or too long")
	}
	units, ok := septets(make([]byte, 0, 2*len(text)), text)
	if ok {
		return units, gsm7, nil
	}
	clear(units)
	return ucs2(make([]byte, 0, 2*len(text)), text), utf16be, nil
}

// cut divides units into parts without splitting an escape or a surrogate pair.
func cut(units []byte, a alphabet, longRef bool) [][]byte {
	if len(units) <= room[a][0] {
		return [][]byte{units}
	}
	size := room[a][1]
	if longRef {
		size = room[a][2]
	}
	var parts [][]byte
	for len(units) > 0 {
		n := min(len(units), size)
		if n < len(units) {
			switch {
			case a == gsm7 && units[n-1] == esc:
				n--
			case a == utf16be && units[n-2]&0xfc == 0xd8:
				n -= 2
			}
		}
		parts = append(parts, units[:n])
		units = units[n:]
	}
	return parts
}
