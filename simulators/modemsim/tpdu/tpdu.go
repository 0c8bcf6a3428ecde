// Package tpdu is the simulator's own reading and writing of short message
// transfer PDUs (3GPP TS 23.040, alphabet of 23.038).
//
// It reads what a modem is given (SMS-SUBMIT) and writes what a modem says
// (SMS-DELIVER, SMS-STATUS-REPORT). It is slow and plain on purpose, goes bit by
// bit, and shares nothing with the product's codec, whose mirror and judge it is:
// strict where the product is lenient (the announced length must match, nothing
// may follow the user data). Text is UTF-8; PDUs are upper-case hexadecimal.
// Only the simulated modem imports it.
package tpdu

import (
	"encoding/hex"
	"errors"
	"time"
	"unicode/utf16"
)

// ErrPDU is what every refused PDU gets: a modem says no more than code 304.
var ErrPDU = errors.New("malformed PDU")

// Submit is what the network needs of an SMS-SUBMIT.
type Submit struct {
	To       string // "+" and digits for TOA 0x91, bare digits otherwise
	Text     string
	Report   bool // TP-SRR
	PID, DCS byte
	Class    int           // 0 to 3; -1 when the coding scheme names none
	Validity string        // TP-VP octets in hexadecimal; "" when absent
	Valid    time.Duration // relative TP-VP; 0 when absent or of another format
	// Part and Parts place it in a long message with reference Ref; 0 when it is not one.
	Part, Parts, Ref int
	Hex              string // the TPDU without the service centre address
}

// ParseSubmit reads an SMS-SUBMIT (23.040 section 9.2.2.2) with its service
// centre address in front; announced is the length AT+CMGS told.
func ParseSubmit(text string, announced int) (Submit, error) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) < 1 {
		return Submit{}, ErrPDU
	}
	sc := int(raw[0]) + 1
	if sc > len(raw) || len(raw)-sc != announced {
		return Submit{}, ErrPDU
	}
	b := raw[sc:]
	if len(b) < 4 || b[0]&3 != 1 {
		return Submit{}, ErrPDU
	}
	first, digits := b[0], int(b[2])
	at := 4 + (digits+1)/2
	if digits < 3 || digits > 20 || len(b) < at+3 {
		return Submit{}, ErrPDU
	}
	m := Submit{Report: first&0x20 != 0, Hex: hex.EncodeToString(b)}
	if b[3] == 0x91 {
		m.To = "+"
	}
	for i := range digits {
		v := b[4+i/2]
		if i%2 == 1 {
			v >>= 4
		}
		if v&15 > 9 {
			return Submit{}, ErrPDU
		}
		m.To += string('0' + rune(v&15))
	}
	m.PID, m.DCS = b[at], b[at+1]
	m.Class = class(m.DCS)
	at += 2
	vp := 0
	switch first >> 3 & 3 {
	case 2:
		vp = 1
		m.Valid = relative(b[at])
	case 1, 3:
		vp = 7
	}
	if len(b) <= at+vp {
		return Submit{}, ErrPDU
	}
	m.Validity = hex.EncodeToString(b[at : at+vp])
	at += vp
	return m, m.userData(int(b[at]), b[at+1:], first&0x40 != 0)
}

// class is the message class of a data coding scheme (23.038 section 4).
func class(dcs byte) int {
	if dcs&0xf0 == 0xf0 || dcs&0xd0 == 0x10 {
		return int(dcs & 3)
	}
	return -1
}

// relative is TP-VP in its relative format (23.040 section 9.2.3.12.1).
func relative(v byte) time.Duration {
	n := time.Duration(v)
	switch {
	case v < 144:
		return (n + 1) * 5 * time.Minute
	case v < 168:
		return 12*time.Hour + (n-143)*30*time.Minute
	case v < 197:
		return (n - 166) * 24 * time.Hour
	}
	return (n - 192) * 7 * 24 * time.Hour
}

// userData reads the text; n is TP-UDL.
func (m *Submit) userData(n int, data []byte, header bool) error {
	kind := m.DCS & 0x0c
	if m.DCS&0xf0 == 0xf0 {
		kind = m.DCS & 4 // group 1111: one bit says 7 or 8
	}
	want := n
	if kind == 0 {
		want = (n*7 + 7) / 8
	}
	if len(data) != want || want > 140 {
		return ErrPDU
	}
	head := 0
	if header {
		if len(data) == 0 || len(data) < int(data[0])+1 {
			return ErrPDU
		}
		head = int(data[0]) + 1
		m.concatenation(data[1:head])
	}
	switch kind {
	case 8:
		if (len(data)-head)%2 != 0 {
			return ErrPDU
		}
		var units []uint16
		for i := head; i < len(data); i += 2 {
			units = append(units, uint16(data[i])*256+uint16(data[i+1]))
		}
		m.Text = string(utf16.Decode(units))
	case 4:
		for _, c := range data[head:] {
			m.Text += string(rune(c)) // octets shown as Latin-1
		}
	default:
		m.Text = septets(data, (head*8+6)/7, n)
	}
	return nil
}

// concatenation looks for information elements 00 and 08 (23.040 section
// 9.2.3.24.1 and .8).
func (m *Submit) concatenation(elements []byte) {
	for len(elements) >= 2 {
		id, n := elements[0], int(elements[1])
		if len(elements) < 2+n {
			return
		}
		v := elements[2 : 2+n]
		switch {
		case id == 0 && n == 3:
			m.Ref, m.Parts, m.Part = int(v[0]), int(v[1]), int(v[2])
		case id == 8 && n == 4:
			m.Ref, m.Parts, m.Part = int(v[0])*256+int(v[1]), int(v[2]), int(v[3])
		}
		elements = elements[2+n:]
	}
}
