package pdu

import (
	"encoding/hex"
	"strings"
)

// Silent reports a message that is not for people: class 0 and type 0 (23.040
// section 9.2.3.9), which networks and snoopers use.
func (b Body) Silent() bool {
	classed := b.DCS&0xc0 == 0 && b.DCS&0x10 != 0 || b.DCS&0xf0 == 0xf0
	return b.PID == 0x40 || classed && b.DCS&0x03 == 0
}

var stopWords = map[string]bool{"STOP": true, "STOPALL": true, "ARRESTA": true, "BASTA": true, "CANCELLA": true, "CANCELLAMI": true, "UNSUBSCRIBE": true, "QUIT": true, "FERMA": true}

// IsStop reports that text is an opt-out keyword and nothing else.
func IsStop(text string) bool {
	if len(text) > 40 {
		return false
	}
	return stopWords[strings.Trim(strings.ToUpper(text), " \t\r\n.!?\"'«»;:,-")]
}

// USSD decodes the text of +CUSD by its coding scheme (23.038 section 5): UCS-2 comes
// in hexadecimal. Control characters are dropped: it goes to a terminal.
func USSD(text string, dcs int) string {
	raw, err := hex.DecodeString(text)
	if err == nil && len(raw)%2 == 0 && (dcs&0xcc == 0x48 || dcs == 0x11) {
		text = fromUCS2(raw)
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return -1
		}
		return r
	}, text)
}
