package pdu

import (
	"unicode/utf16"
	"unicode/utf8"
)

// basic is the GSM 7-bit default alphabet (23.038 section 6.2.1) in the order of
// its codes; 0x1b, the escape, stands as U+FFFF.
var basic = [128]rune{
	'@', '£', '$', '¥', 'è', 'é', 'ù', 'ì', 'ò', 'Ç', '\n', 'Ø', 'ø', '\r', 'Å', 'å',
	'Δ', '_', 'Φ', 'Γ', 'Λ', 'Ω', 'Π', 'Ψ', 'Σ', 'Θ', 'Ξ', 0xFFFF, 'Æ', 'æ', 'ß', 'É',
	' ', '!', '"', '#', '¤', '%', '&', '\'', '(', ')', '*', '+', ',', '-', '.', '/',
	'0', '1', '2', '3', '4', '5', '6', '7', '8', '9', ':', ';', '<', '=', '>', '?',
	'¡', 'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J', 'K', 'L', 'M', 'N', 'O',
	'P', 'Q', 'R', 'S', 'T', 'U', 'V', 'W', 'X', 'Y', 'Z', 'Ä', 'Ö', 'Ñ', 'Ü', '§',
	'¿', 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o',
	'p', 'q', 'r', 's', 't', 'u', 'v', 'w', 'x', 'y', 'z', 'ä', 'ö', 'ñ', 'ü', 'à',
}

// extension is the extension table (23.038 section 6.2.1.1): code after escape.
var extension = map[rune]byte{
	'\f': 0x0a, '^': 0x14, '{': 0x28, '}': 0x29, '\\': 0x2f,
	'[': 0x3c, '~': 0x3d, ']': 0x3e, '|': 0x40, '€': 0x65,
}

const esc = 0x1b

var (
	basicCode     = invertBasic()
	extensionRune = invertExtension()
)

func invertBasic() map[rune]byte {
	m := make(map[rune]byte, len(basic))
	for code, r := range basic {
		if code != esc {
			m[r] = byte(code)
		}
	}
	return m
}

func invertExtension() map[byte]rune {
	m := make(map[byte]rune, len(extension))
	for r, code := range extension {
		m[code] = r
	}
	return m
}

// septets appends the 7-bit codes of text to dst; false when a character is not
// in the alphabet.
func septets(dst, text []byte) ([]byte, bool) {
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		text = text[size:]
		if c, ok := basicCode[r]; ok {
			dst = append(dst, c)
		} else if c, ok := extension[r]; ok {
			dst = append(dst, esc, c)
		} else {
			return dst, false
		}
	}
	return dst, true
}

// fromSeptets is the inverse. An escape before an unknown code is dropped and
// the code read in the basic table, as 23.038 asks of receivers.
func fromSeptets(codes []byte) string {
	out := make([]rune, 0, len(codes))
	for i := 0; i < len(codes); i++ {
		c := codes[i] & 0x7f
		if c != esc {
			out = append(out, basic[c])
			continue
		}
		if i+1 == len(codes) {
			break
		}
		i++
		next := codes[i] & 0x7f
		switch r, ok := extensionRune[next]; {
		case ok:
			out = append(out, r)
		case next == esc:
			out = append(out, ' ')
		default:
			out = append(out, basic[next])
		}
	}
	return string(out)
}

// pack writes 7-bit codes after fill zero bits (23.038 section 6.1.2.1).
func pack(dst, codes []byte, fill int) []byte {
	acc, bits := uint(0), fill
	for _, c := range codes {
		acc |= uint(c&0x7f) << bits
		bits += 7
		for bits >= 8 {
			dst = append(dst, byte(acc))
			acc >>= 8
			bits -= 8
		}
	}
	if bits > 0 {
		dst = append(dst, byte(acc))
	}
	return dst
}

// unpack reads n codes that begin after fill bits of b; b must be long enough.
func unpack(b []byte, n, fill int) []byte {
	out := make([]byte, n)
	for i := range out {
		at := fill + 7*i
		v := uint(b[at/8]) >> (at % 8)
		if at%8 > 1 {
			v |= uint(b[at/8+1]) << (8 - at%8)
		}
		out[i] = byte(v & 0x7f)
	}
	return out
}

// ucs2 appends text as UTF-16 big endian; characters outside the basic plane
// become surrogate pairs, which every phone of this century shows.
func ucs2(dst, text []byte) []byte {
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		text = text[size:]
		if hi, lo := utf16.EncodeRune(r); hi != utf8.RuneError {
			dst = append(dst, byte(hi>>8), byte(hi), byte(lo>>8), byte(lo))
			continue
		}
		dst = append(dst, byte(r>>8), byte(r))
	}
	return dst
}

func fromUCS2(b []byte) string {
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = uint16(b[2*i])<<8 | uint16(b[2*i+1])
	}
	return string(utf16.Decode(units))
}

// alphabetOf sorts data coding schemes (23.038 section 4).
func alphabetOf(dcs byte) alphabet {
	switch {
	case dcs&0x80 == 0: // general and automatic deletion groups
		if dcs&0x20 != 0 {
			return octets // compressed
		}
		switch dcs & 0x0c {
		case 0x04:
			return octets
		case 0x08:
			return utf16be
		}
		return gsm7
	case dcs&0xf0 == 0xe0:
		return utf16be
	case dcs&0xf4 == 0xf4:
		return octets
	default:
		return gsm7
	}
}

type alphabet uint8

const (
	gsm7 alphabet = iota
	octets
	utf16be
)
