// Package pdu is a pure codec of the short message transfer layer: it encodes
// SMS-SUBMIT and decodes SMS-DELIVER, SMS-STATUS-REPORT and SMS-SUBMIT
// (3GPP TS 23.040 section 9.2.2), in the form modems use in PDU mode (3GPP TS
// 27.005): the service centre address, then the TPDU, as upper-case hexadecimal.
//
// It knows the GSM 7-bit default alphabet with its extension table and UCS-2
// (23.038), concatenation with both lengths of reference (23.040 section 9.2.3.24), relative validity
// periods, and class 0. It does not know national shift tables, compression,
// SMS-COMMAND, ports, or pictures: such a body is returned as octets.
//
// Texts are secrets (they carry codes): encoding works on byte slices that the
// caller can wipe, and no error repeats any part of a text or a number. Every
// length is checked before use. Only package modem may import this package.
package pdu

import (
	"time"

	"custode/internal/fault"
	"custode/internal/id"
)

// Submit is an SMS to send.
type Submit struct {
	To   id.Phone
	Text []byte // UTF-8
	// Validity is how long the service centre keeps trying, rounded up to what
	// the relative form can say (5 minutes to 63 weeks). 0 leaves it to the network.
	Validity time.Duration
	Report   bool // ask for a status report (TP-SRR)
	Flash    bool // class 0: shown at once, not stored
	// MaxParts is the most parts a long text may be cut into, at most 255; 0
	// means 1. Ref is the concatenation reference of the parts.
	MaxParts int
	Ref      uint16 // the low octet counts, unless LongRef
	LongRef  bool   // two octets of reference: one character less per part
	Plain    bool   // send Transliterate's text
}

// Frame is one encoded SMS-SUBMIT. Hex starts with "00", the empty service
// centre address (the modem uses its own); Length counts the octets after that
// address, for AT+CMGS.
type Frame struct {
	Hex    []byte
	Length int
}

// Wipe overwrites the frame, which holds the text.
func (f Frame) Wipe() { clear(f.Hex) }

// Wipe overwrites frames.
func Wipe(frames []Frame) {
	for _, f := range frames {
		f.Wipe()
	}
}

// Address is a number as the network wrote it. Digits begins with "+" for
// international numbers; for an alphanumeric sender it is text.
type Address struct {
	Digits string
	Type   byte // type-of-address octet, 23.040 section 9.1.2.5
}

// Concat places a part in a long message.
type Concat struct {
	Ref         uint16
	Total, Part byte // Part counts from 1
}

// Body is the user data of a message. Text holds it when the alphabet is text,
// else Octets do.
type Body struct {
	PID, DCS byte
	Text     string
	Octets   []byte
	Concat   *Concat
}

// Deliver is a message that arrived. At is the service centre's time stamp, zero
// when the modem gave nonsense.
type Deliver struct {
	From Address
	At   time.Time
	Body
}

// Report is a status report: what became of a message sent with Submit.Report.
type Report struct {
	Ref       byte // TP-MR, as in +CMGS
	To        Address
	Submitted time.Time // service centre received it
	Done      time.Time // delivered, or last attempt
	Status    byte      // TP-ST
}

// Fate sorts TP-ST values (23.040 section 9.2.3.15).
type Fate uint8

// The fates.
const (
	Trying    Fate = iota // the service centre still tries, or the value is reserved
	Delivered             // with the phone (or replaced there)
	Undone                // it gave up for good
)

// Fate says what the status means.
func (r Report) Fate() Fate {
	switch {
	case r.Status <= 0x02:
		return Delivered
	case r.Status >= 0x40 && r.Status <= 0x7f:
		return Undone
	default:
		return Trying
	}
}

// Sent is a decoded SMS-SUBMIT.
type Sent struct {
	Ref      byte
	To       Address
	Validity time.Duration // 0 when absent or not relative
	Report   bool
	Body
}

// Incoming is what a modem may hand over: exactly one of the two is set.
type Incoming struct {
	Deliver *Deliver
	Report  *Report
}

const (
	mtiDeliver = 0x00
	mtiSubmit  = 0x01
	mtiReport  = 0x02

	bitRelativeVP = 0x10
	bitReport     = 0x20
	bitHeader     = 0x40

	dcsUCS2   = 0x08
	dcsClass0 = 0x10

	// maxPDU bounds the octets of a TPDU with its service centre address:
	// 12 + 164 (23.040), and room for sloppy firmware.
	maxPDU = 200
)

func malformed(what string) error {
	return fault.Newf(fault.Invalid, "decode PDU", "malformed %s", what)
}

// relativeVP encodes d as 23.040 section 9.2.3.12.1 does, rounding up.
func relativeVP(d time.Duration) byte {
	const day = 24 * time.Hour
	up := func(step time.Duration) int { return int((d + step - 1) / step) }
	switch {
	case d <= 5*time.Minute:
		return 0
	case d <= 12*time.Hour:
		return byte(up(5*time.Minute) - 1)
	case d <= day:
		return byte(143 + int((d-12*time.Hour+30*time.Minute-1)/(30*time.Minute)))
	case d <= 30*day:
		return byte(166 + up(day))
	case d <= 63*7*day:
		return byte(192 + up(7*day))
	default:
		return 255
	}
}

func fromRelativeVP(v byte) time.Duration {
	n := time.Duration(v)
	switch {
	case v <= 143:
		return (n + 1) * 5 * time.Minute
	case v <= 167:
		return 12*time.Hour + (n-143)*30*time.Minute
	case v <= 196:
		return (n - 166) * 24 * time.Hour
	default:
		return (n - 192) * 7 * 24 * time.Hour
	}
}
