package modemsim

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf16"
)

type pendingSubmit struct {
	length int // announced by AT+CMGS
	hex    []byte
}

// send puts a message on the air; d.mu is held.
func (d *device) send(p *pendingSubmit) {
	m, err := parseSubmit(string(p.hex), p.length)
	f := &d.faults
	switch {
	case err != nil:
		d.say("+CMS ERROR: 304")
		return
	case f.failNext > 0:
		f.failNext--
		d.say(fmt.Sprintf("+CMS ERROR: %d", f.failCode))
		return
	case f.hangOnSend:
		f.hung = true
		return
	}
	if st := d.stat(); st != 1 && st != 5 && st != 6 && st != 7 {
		d.say("+CMS ERROR: 331")
		return
	}
	delay := d.bank.draw(d.bank.cfg.Latency)
	if f.lateNext > 0 {
		// The network has it; the modem is free but tells late.
		late := f.lateNext
		f.lateNext = 0
		ref := d.accept(m)
		d.transmit(m, ref)
		d.later(late, func() { d.say(fmt.Sprintf("+CMGS: %d", ref), "OK") })
		return
	}
	d.busy = true
	d.later(delay, func() { d.answer(m) })
}

// answer ends a submission on the air; d.mu is held.
func (d *device) answer(m submitted) {
	d.busy = false
	if code := d.bank.judge(m.to); code != 0 {
		d.say(fmt.Sprintf("+CMS ERROR: %d", code))
		return
	}
	ref := d.accept(m)
	// The receipt leaves before the report can: delivery starts after it.
	if d.faults.okOnly > 0 {
		d.faults.okOnly--
		d.say("OK")
	} else {
		d.say(fmt.Sprintf("+CMGS: %d", ref), "OK")
	}
	d.transmit(m, ref)
}

// accept numbers a message and enters it into the ledger.
func (d *device) accept(m submitted) byte {
	d.card.ref++
	d.bank.note(Submission{Modem: d.index, Ref: d.card.ref, To: m.to, Text: m.text, Report: m.report, At: time.Now(), Part: m.part, Parts: m.parts})
	return d.card.ref
}

// transmit sends an accepted message to its phone, and the report back.
func (d *device) transmit(m submitted, ref byte) {
	now, gen := time.Now(), d.gen
	d.bank.deliver(m.to, SMS{From: d.number(), Text: m.text}, func() {
		if !m.report {
			return
		}
		// With instant transit we are still under the modem's lock: step out.
		d.bank.after(time.Microsecond, func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.gen != gen || d.set.ds != 1 {
				return
			}
			pdu := reportPDU(ref, m.to, now, time.Now())
			d.say(fmt.Sprintf("+CDS: %d\r\n%s", len(pdu)/2-1, pdu))
		})
	})
}

// submitted is what the radio needs of an SMS-SUBMIT.
type submitted struct {
	to, text    string
	report      bool
	part, parts int
}

var errPDU = errors.New("malformed PDU")

// parseSubmit reads an SMS-SUBMIT (23.040 section 9.2.2.2) strictly: the length
// must be the announced one and nothing may follow the user data.
func parseSubmit(text string, announced int) (submitted, error) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) < 1 {
		return submitted{}, errPDU
	}
	sc := int(raw[0]) + 1
	if sc > len(raw) || len(raw)-sc != announced {
		return submitted{}, errPDU
	}
	b := raw[sc:]
	if len(b) < 4 || b[0]&3 != 1 {
		return submitted{}, errPDU
	}
	first, digits := b[0], int(b[2])
	at := 4 + (digits+1)/2
	if digits < 3 || digits > 20 || len(b) < at+3 {
		return submitted{}, errPDU
	}
	m := submitted{report: first&0x20 != 0}
	if b[3] == 0x91 {
		m.to = "+"
	}
	for i := range digits {
		v := b[4+i/2]
		if i%2 == 1 {
			v >>= 4
		}
		if v&15 > 9 {
			return submitted{}, errPDU
		}
		m.to += string('0' + rune(v&15))
	}
	coding := b[at+1]
	at += 2
	switch first >> 3 & 3 {
	case 2:
		at++
	case 1, 3:
		at += 7
	}
	if len(b) <= at {
		return submitted{}, errPDU
	}
	return m, m.userData(int(b[at]), b[at+1:], coding&0x0c == 8, first&0x40 != 0)
}

// userData reads the text; n is TP-UDL.
func (m *submitted) userData(n int, data []byte, wide, header bool) error {
	want := n
	if !wide {
		want = (n*7 + 7) / 8
	}
	if len(data) != want || want > 140 {
		return errPDU
	}
	head := 0
	if header {
		if len(data) == 0 || len(data) < int(data[0])+1 {
			return errPDU
		}
		head = int(data[0]) + 1
		if data[0] == 5 && data[1] == 0 && data[2] == 3 {
			m.parts, m.part = int(data[4]), int(data[5])
		}
	}
	if wide {
		if (len(data)-head)%2 != 0 {
			return errPDU
		}
		var units []uint16
		for i := head; i < len(data); i += 2 {
			units = append(units, uint16(data[i])*256+uint16(data[i+1]))
		}
		m.text = string(utf16.Decode(units))
		return nil
	}
	m.text = gsmText(data, (head*8+6)/7, n)
	return nil
}

const gsmBasic = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"

// gsmText reads septets first..n-1, bit by bit: slow, plain, and unlike the
// driver's way.
func gsmText(data []byte, first, n int) string {
	table := []rune(gsmBasic)
	escaped := map[int]rune{10: '\f', 20: '^', 40: '{', 41: '}', 47: '\\', 60: '[', 61: '~', 62: ']', 64: '|', 101: '€'}
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
			if r, ok := escaped[v]; ok {
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

// reportPDU builds an SMS-STATUS-REPORT with status 0 (23.040 section 9.2.2.3).
func reportPDU(ref byte, to string, sent, done time.Time) string {
	digits := strings.TrimPrefix(to, "+")
	if len(digits)%2 == 1 {
		digits += "F"
	}
	var swapped strings.Builder
	for i := 0; i < len(digits); i += 2 {
		swapped.WriteByte(digits[i+1])
		swapped.WriteByte(digits[i])
	}
	n := len(strings.TrimPrefix(to, "+"))
	return fmt.Sprintf("0006%02X%02X91%s%s%s00", ref, n, swapped.String(), stamp(sent), stamp(done))
}

func stamp(t time.Time) string {
	t = t.UTC()
	var out strings.Builder
	for _, v := range []int{t.Year() % 100, int(t.Month()), t.Day(), t.Hour(), t.Minute(), t.Second(), 0} {
		fmt.Fprintf(&out, "%d%d", v%10, v/10)
	}
	return out.String()
}
