package pdu

import "unicode/utf8"

// plainly maps what word processors put into texts, and letters of the neighbours'
// alphabets, to what the GSM alphabet has. È and the other capitals are written as
// Italians without that key write them.
var plainly = map[rune]string{
	'‘': "'", '’': "'", '‚': "'", '‛': "'", 'ʼ': "'", '´': "'", '`': "'", '′': "'",
	'“': "\"", '”': "\"", '„': "\"", '‟': "\"", '«': "\"", '»': "\"", '″': "\"",
	'‐': "-", '‑': "-", '‒': "-", '–': "-", '—': "-", '―': "-", '−': "-", '\u00ad': "",
	'…': "...", '•': "*", '·': ".", '×': "x", '™': "TM", '®': "(R)", '©': "(C)", '№': "N.", 'º': "o", 'ª': "a", '°': "o",
	'\u00a0': " ", '\u2007': " ", '\u2009': " ", '\u200a': " ", '\u202f': " ", '\u3000': " ", '\t': " ",
	'\u200b': "", '\u200c': "", '\u200d': "", '\u2060': "", '\ufeff': "",
	'À': "A'", 'È': "E'", 'Ì': "I'", 'Ò': "O'", 'Ù': "U'", 'ç': "c", 'á': "a'", 'í': "i'", 'ó': "o'", 'ú': "u'",
	'Á': "A'", 'Í': "I'", 'Ó': "O'", 'Ú': "U'", 'â': "a", 'ê': "e", 'î': "i", 'ô': "o", 'û': "u", 'ë': "e", 'ï': "i",
	'ã': "a", 'õ': "o", 'š': "s", 'Š': "S", 'ž': "z", 'Ž': "Z", 'č': "c", 'Č': "C", 'ć': "c", 'Ć': "C", 'đ': "d", 'Đ': "D",
}

// Transliterate returns text with typographic marks replaced, if that brings all of
// it into the GSM alphabet (160 characters instead of 70); else text as it was. The
// result is a copy and as secret as text is.
func Transliterate(text []byte) []byte {
	out := make([]byte, 0, len(text)+16)
	for rest := text; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		switch to, ok := plainly[r]; {
		case inAlphabet(r):
			out = append(out, rest[:size]...)
		case ok:
			out = append(out, to...)
		default:
			clear(out)
			return append(out[:0], text...)
		}
		rest = rest[size:]
	}
	if len(out) == 0 && len(text) > 0 {
		return append(out, text...) // nothing but invisible marks
	}
	return out
}

func inAlphabet(r rune) bool {
	_, basic := basicCode[r]
	_, extended := extension[r]
	return (basic || extended) && r != utf8.RuneError
}

// Fit says how a text goes into short messages, for those who write templates.
type Fit struct {
	Parts int
	Wide  bool // needs UCS-2: 70 characters instead of 160
	Units int  // septets (a sign of the extension table counts two) or UTF-16 units
	Room  int  // units that still go into the last part
	// Cause is the first character that is not in the GSM alphabet, 0 for none.
	Cause rune
}

// Fits measures text as Submit with Plain would send it. It fails as Encode does on
// text that is not UTF-8 or could not fit at all.
func Fits(text []byte) (Fit, error) {
	plain := Transliterate(text)
	defer clear(plain)
	units, a, err := encodeText(plain)
	if err != nil {
		return Fit{}, err
	}
	defer clear(units)
	parts := cut(units, a, false)
	f := Fit{Parts: len(parts), Wide: a == utf16be, Units: len(units)}
	size := room[a][0]
	if f.Parts > 1 {
		size = room[a][1]
	}
	f.Room = size
	if f.Parts > 0 {
		f.Room = size - len(parts[f.Parts-1])
	}
	if f.Wide {
		f.Units, f.Room = f.Units/2, f.Room/2
		for _, r := range string(plain) {
			if !inAlphabet(r) {
				f.Cause = r
				break
			}
		}
	}
	return f, nil
}
