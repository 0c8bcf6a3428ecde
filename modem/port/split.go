package port

// MaxLine is the longest line that becomes a token, in octets. The longest
// legal line is a PDU of 176 octets in hexadecimal.
const MaxLine = 1024

// splitter cuts the octet stream into tokens. Any run of CR and LF ends a line
// (modems send CR LF, CR CR LF, LF CR and LF alone); empty lines vanish. Its
// memory is one line.
type splitter struct {
	line      []byte
	long      bool // the current line is over MaxLine: skip to its end
	longLines uint64
	noise     uint64
}

// feed consumes b and calls emit for each token; it stops early and returns
// false when emit does.
func (s *splitter) feed(b []byte, emit func(Token) bool) bool {
	for _, c := range b {
		switch {
		case c == '\r' || c == '\n':
			if !s.end(emit) {
				return false
			}
		case c == '>' && len(s.line) == 0 && !s.long:
			// The prompt has no line end. It is reported at once: what follows
			// it (a blank, or the echoed PDU) is a line of its own.
			if !emit(Token{Kind: Prompt}) {
				return false
			}
		case c == ' ' && len(s.line) == 0:
		case c < ' ' || c > '~':
			s.noise++
		case len(s.line) >= MaxLine:
			s.long = true
		default:
			s.line = append(s.line, c)
		}
	}
	return true
}

func (s *splitter) end(emit func(Token) bool) bool {
	text, long := s.line, s.long
	s.line, s.long = s.line[:0], false
	defer clear(text) // numbers are in it
	if long {
		s.longLines++
		return true
	}
	for len(text) > 0 && text[len(text)-1] == ' ' {
		text = text[:len(text)-1]
	}
	if len(text) == 0 {
		return true
	}
	return emit(Token{Kind: Line, Text: string(text)})
}
