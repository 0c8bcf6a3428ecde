package pdu

import (
	"encoding/hex"
	"time"
)

// DecodeIncoming decodes what +CMT, +CDS or +CMGR carry: the service centre
// address and a TPDU from the network, in hexadecimal. It fails with
// fault.Invalid; it never panics.
func DecodeIncoming(text string) (Incoming, error) {
	r, first, err := open(text)
	if err != nil {
		return Incoming{}, err
	}
	switch first & 0x03 {
	case mtiDeliver:
		d, err := r.deliver(first)
		if err != nil {
			return Incoming{}, err
		}
		return Incoming{Deliver: &d}, nil
	case mtiReport:
		rep, err := r.report()
		if err != nil {
			return Incoming{}, err
		}
		return Incoming{Report: &rep}, nil
	}
	return Incoming{}, malformed("message type")
}

// DecodeSubmit decodes a frame made by Encode, or another sender's. It fails
// with fault.Invalid.
func DecodeSubmit(text string) (Sent, error) {
	r, first, err := open(text)
	if err != nil {
		return Sent{}, err
	}
	if first&0x03 != mtiSubmit {
		return Sent{}, malformed("message type")
	}
	s := Sent{Report: first&bitReport != 0}
	if s.Ref, err = r.octet("reference"); err != nil {
		return Sent{}, err
	}
	if s.To, err = r.address(); err != nil {
		return Sent{}, err
	}
	if s.PID, s.DCS, err = r.coding(); err != nil {
		return Sent{}, err
	}
	switch first & 0x18 {
	case 0x10:
		v, err := r.octet("validity period")
		if err != nil {
			return Sent{}, err
		}
		s.Validity = fromRelativeVP(v)
	case 0x08, 0x18: // enhanced, absolute: seven octets we have no use for
		if _, err := r.take(7, "validity period"); err != nil {
			return Sent{}, err
		}
	}
	s.Body, err = r.body(s.Body, first&bitHeader != 0)
	return s, err
}

// reader consumes a TPDU from the front.
type reader struct{ b []byte }

func open(text string) (reader, byte, error) {
	if len(text) > 2*maxPDU {
		return reader{}, 0, malformed("PDU length")
	}
	b, err := hex.DecodeString(text)
	if err != nil {
		return reader{}, 0, malformed("hexadecimal")
	}
	r := reader{b}
	n, err := r.octet("service centre address")
	if err != nil {
		return reader{}, 0, err
	}
	if _, err := r.take(int(n), "service centre address"); err != nil {
		return reader{}, 0, err
	}
	first, err := r.octet("first octet")
	return r, first, err
}

func (r *reader) take(n int, what string) ([]byte, error) {
	if n > len(r.b) {
		return nil, malformed(what)
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out, nil
}

func (r *reader) octet(what string) (byte, error) {
	b, err := r.take(1, what)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

func (r *reader) coding() (pid, dcs byte, err error) {
	b, err := r.take(2, "coding scheme")
	if err != nil {
		return 0, 0, err
	}
	return b[0], b[1], nil
}

func (r *reader) deliver(first byte) (Deliver, error) {
	var d Deliver
	var err error
	if d.From, err = r.address(); err != nil {
		return Deliver{}, err
	}
	if d.PID, d.DCS, err = r.coding(); err != nil {
		return Deliver{}, err
	}
	if d.At, err = r.timestamp(); err != nil {
		return Deliver{}, err
	}
	d.Body, err = r.body(d.Body, first&bitHeader != 0)
	return d, err
}

// report ignores what may follow the status (23.040 section 9.2.2.3).
func (r *reader) report() (Report, error) {
	var out Report
	var err error
	if out.Ref, err = r.octet("reference"); err != nil {
		return Report{}, err
	}
	if out.To, err = r.address(); err != nil {
		return Report{}, err
	}
	if out.Submitted, err = r.timestamp(); err != nil {
		return Report{}, err
	}
	if out.Done, err = r.timestamp(); err != nil {
		return Report{}, err
	}
	out.Status, err = r.octet("status")
	return out, err
}

// address decodes an address field (23.040 section 9.1.2.5): at most 20 digits.
func (r *reader) address() (Address, error) {
	head, err := r.take(2, "address")
	if err != nil {
		return Address{}, err
	}
	n, kind := int(head[0]), head[1]
	if n > 22 { // 20, and the two semi-octets alphanumeric senders may add
		return Address{}, malformed("address length")
	}
	b, err := r.take((n+1)/2, "address")
	if err != nil {
		return Address{}, err
	}
	if kind&0x70 == 0x50 {
		return Address{Digits: fromSeptets(unpack(b, n*4/7, 0)), Type: kind}, nil
	}
	const digit = "0123456789*#abc"
	out := make([]byte, 0, n+1)
	if kind&0x70 == 0x10 {
		out = append(out, '+')
	}
	for i := range n {
		v := b[i/2] >> (4 * (i % 2)) & 0x0f
		if v == 0x0f {
			return Address{}, malformed("address digit")
		}
		out = append(out, digit[v])
	}
	return Address{Digits: string(out), Type: kind}, nil
}

// timestamp decodes a time stamp (23.040 section 9.2.3.11). Nonsense digits give
// the zero time: some firmware fills the field with zeros.
func (r *reader) timestamp() (time.Time, error) {
	b, err := r.take(7, "time stamp")
	if err != nil {
		return time.Time{}, err
	}
	var f [7]int
	for i, v := range b {
		low := v & 0x0f
		if i == 6 {
			low &= 0x07
		}
		if low > 9 || v>>4 > 9 {
			return time.Time{}, nil
		}
		f[i] = int(low)*10 + int(v>>4)
	}
	offset := f[6] * 15 * 60
	if b[6]&0x08 != 0 {
		offset = -offset
	}
	year := 2000 + f[0]
	if f[0] >= 90 {
		year -= 100
	}
	if f[1] < 1 || f[1] > 12 || f[2] < 1 || f[2] > 31 || f[3] > 23 || f[4] > 59 || f[5] > 59 || f[6] > 79 {
		return time.Time{}, nil
	}
	return time.Date(year, time.Month(f[1]), f[2], f[3], f[4], f[5], 0, time.FixedZone("", offset)), nil
}

// body decodes the user data into in, which holds PID and DCS.
func (r *reader) body(in Body, header bool) (Body, error) {
	n, err := r.octet("user data length")
	if err != nil {
		return Body{}, err
	}
	a := alphabetOf(in.DCS)
	size := int(n)
	if a == gsm7 {
		size = (int(n)*7 + 7) / 8
	}
	if size > 140 {
		return Body{}, malformed("user data length")
	}
	b, err := r.take(size, "user data")
	if err != nil {
		return Body{}, err
	}
	head := 0
	if header {
		if len(b) == 0 || int(b[0])+1 > len(b) {
			return Body{}, malformed("user data header")
		}
		head = int(b[0]) + 1
		in.Concat = concatOf(b[1:head])
	}
	switch a {
	case gsm7:
		skip := (head*8 + 6) / 7
		if skip > int(n) {
			return Body{}, malformed("user data header")
		}
		in.Text = fromSeptets(unpack(b, int(n), 0)[skip:])
	case utf16be:
		if (len(b)-head)%2 != 0 {
			return Body{}, malformed("user data")
		}
		in.Text = fromUCS2(b[head:])
	default:
		in.Octets = append([]byte(nil), b[head:]...)
	}
	return in, nil
}

// concatOf finds a concatenation element with an 8 or 16 bit reference; others
// are skipped, a malformed header means none.
func concatOf(h []byte) *Concat {
	for len(h) >= 2 && len(h) >= 2+int(h[1]) {
		v := h[2 : 2+int(h[1])]
		var c *Concat
		switch {
		case h[0] == 0x00 && len(v) == 3:
			c = &Concat{Ref: uint16(v[0]), Total: v[1], Part: v[2]}
		case h[0] == 0x08 && len(v) == 4:
			c = &Concat{Ref: uint16(v[0])<<8 | uint16(v[1]), Total: v[2], Part: v[3]}
		}
		if c != nil && c.Part > 0 && c.Part <= c.Total {
			return c
		}
		h = h[2+len(v):]
	}
	return nil
}
