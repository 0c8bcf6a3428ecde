package tpdu

import (
	"fmt"
	"strings"
	"unicode/utf16"
)

const basic = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"

// beyond is the extension table: pairs of code and character.
const beyond = "\x0a\f\x14^\x28{\x29}\x2f\\\x3c[\x3d~\x3e]\x40|\x65€"

func escaped(v int) (rune, bool) {
	pairs := []rune(beyond)
	for i := 0; i < len(pairs); i += 2 {
		if int(pairs[i]) == v {
			return pairs[i+1], true
		}
	}
	return 0, false
}

// septets reads septets first..n-1, bit by bit.
func septets(data []byte, first, n int) string {
	table := []rune(basic)
	var out strings.Builder
	escape := false
	for s := first; s < n; s++ {
		v := 0
		for bit := range 7 {
			pos := s*7 + bit
			v |= int(data[pos/8]>>(pos%8)&1) << bit
		}
		switch {
		case escape:
			escape = false
			if r, ok := escaped(v); ok {
				out.WriteRune(r)
			} else {
				out.WriteRune(table[v])
			}
		case v == 27:
			escape = true
		default:
			out.WriteRune(table[v])
		}
	}
	return out.String()
}

// codes spells r in septets; none when the alphabet lacks it.
func codes(r rune) []byte {
	for i, c := range []rune(basic) {
		if c == r && i != 27 {
			return []byte{byte(i)}
		}
	}
	pairs := []rune(beyond)
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == r {
			return []byte{27, byte(pairs[i])}
		}
	}
	return nil
}

// pack lays septets out, bit by bit, after skip septets kept free for a header.
func pack(sept []byte, skip int) []byte {
	out := make([]byte, ((skip+len(sept))*7+7)/8)
	for i, v := range sept {
		for bit := range 7 {
			if v>>bit&1 == 1 {
				pos := (skip+i)*7 + bit
				out[pos/8] |= 1 << (pos % 8)
			}
		}
	}
	return out
}

// pieces cuts text for one message each: septets when the alphabet suffices,
// UTF-16 units otherwise. A long text is cut shorter, for the header.
func pieces(text string) (seven [][]byte, wide [][]uint16) {
	var chars [][]byte
	total := 0
	for _, r := range text {
		c := codes(r)
		if c == nil {
			return nil, cutWide(text)
		}
		chars, total = append(chars, c), total+len(c)
	}
	room := 160
	if total > room {
		room = 153
	}
	seven = [][]byte{nil}
	for _, c := range chars {
		if len(seven[len(seven)-1])+len(c) > room {
			seven = append(seven, nil)
		}
		seven[len(seven)-1] = append(seven[len(seven)-1], c...)
	}
	return seven, nil
}

func cutWide(text string) [][]uint16 {
	room := 70
	if len(utf16.Encode([]rune(text))) > room {
		room = 67
	}
	wide := [][]uint16{nil}
	for _, r := range text {
		u := utf16.Encode([]rune{r})
		if len(wide[len(wide)-1])+len(u) > room {
			wide = append(wide, nil)
		}
		wide[len(wide)-1] = append(wide[len(wide)-1], u...)
	}
	return wide
}

// Encode writes text in a character set of +CSCS, for the strings of a dialogue:
// HEX and UCS2 are hexadecimal, the others plain.
func Encode(charset, text string) string {
	switch charset {
	case "HEX":
		return fmt.Sprintf("%X", text)
	case "UCS2":
		var out strings.Builder
		for _, u := range utf16.Encode([]rune(text)) {
			fmt.Fprintf(&out, "%04X", u)
		}
		return out.String()
	}
	return text
}
