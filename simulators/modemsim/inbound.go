package modemsim

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"custode/simulators/modemsim/memory"
	"custode/simulators/modemsim/tpdu"
)

// inbound is what the network has for a card: a message or a status report.
type inbound struct {
	tpdu   string
	report bool
}

// SendTo sends a message to the card of modem i; a long text becomes parts. It
// waits in the network while the modem is away or the card full.
func (b *Bank) SendTo(i int, from, text string) error {
	if from == "" || i < 0 || i >= len(b.devices) {
		return errors.New("modemsim: no sender or no such modem")
	}
	b.mu.Lock()
	ref := byte(b.rnd.IntN(256))
	b.mu.Unlock()
	b.with(i, func(d *device) {
		for _, part := range tpdu.Deliver(from, text, ref, time.Now()) {
			d.card.inbound = append(d.card.inbound, inbound{tpdu: part})
		}
		d.pump()
	})
	return nil
}

// pump hands over what the network has, as far as it can; d.mu is held.
func (d *device) pump() {
	for len(d.card.inbound) > 0 && d.ackDue == nil {
		if d.master == nil || d.faults.hung || !d.onNet() || d.messageRefusal() != 0 {
			return
		}
		next := d.card.inbound[0]
		if !d.route(next) {
			return
		}
		d.card.inbound = d.card.inbound[1:]
	}
}

// route does with a message what +CNMI says; false means no room.
func (d *device) route(in inbound) bool {
	switch {
	case in.report && (d.p.NoReports || d.set.ds == 0):
		return true // acknowledged and dropped
	case in.report && d.set.ds == 1:
		d.direct(in, fmt.Sprintf(d.p.ReportFmt, len(in.tpdu)/2), tpdu.Bare(in.tpdu))
	case in.report:
		return d.storeReport(in)
	case d.set.mt == 2:
		d.direct(in, fmt.Sprintf("+CMT: ,%d", len(in.tpdu)/2), tpdu.WithCentre(in.tpdu))
	default:
		a := d.mem(3)
		at := a.Store.Put(&memory.Message{TPDU: in.tpdu})
		if at < 0 {
			if d.p.FullLine != "" && !d.full {
				d.say(d.p.FullLine)
			}
			d.full = true
			return false
		}
		d.full = false
		if d.set.mt != 0 {
			d.indicate(fmt.Sprintf(`+CMTI: "%s",%d`, a.Name, at+d.p.FirstIndex))
		}
	}
	return true
}

func (d *device) storeReport(in inbound) bool {
	name, s := "SR", d.store("SR")
	if s == nil {
		name, s = d.mem(3).Name, d.mem(3).Store
	}
	at := s.Put(&memory.Message{TPDU: in.tpdu, Unreadable: d.p.StoredUnread})
	if at < 0 {
		return false
	}
	if d.p.StoredSays != "" {
		name = d.p.StoredSays
	}
	d.indicate(fmt.Sprintf(d.p.StoredFmt, name, at+d.p.FirstIndex))
	return true
}

// direct says a message, and with +CSMS=1 wants it acknowledged (27.005 section
// 3.4.4): if it is not, the network keeps it and nothing is routed any more.
func (d *device) direct(in inbound, head, pdu string) {
	d.indicate(head + "\r\n" + pdu)
	within := max(d.pace(d.p.AckWithin), 200*time.Millisecond)
	switch {
	case in.report && d.p.AckOrHang:
		d.later(within, func() { d.faults.hung = true })
	case d.set.service == 1 && !d.p.AckRefused:
		due := &in
		d.ackDue = due
		d.later(within, func() {
			if d.ackDue == due {
				d.ackDue = nil
				d.set.mt, d.set.ds = 0, 0
				d.card.inbound = append([]inbound{in}, d.card.inbound...)
			}
		})
	}
}

func (d *device) cnma(arg string) ([]string, string) {
	switch {
	case arg == "=?":
		return []string{"+CNMA: (0-2)"}, ""
	case d.p.AckRefused:
		return nil, "ERROR"
	case d.ackDue == nil:
		return nil, "+CMS ERROR: 340"
	case strings.HasPrefix(arg, "=2"):
		d.card.inbound = append(d.card.inbound, *d.ackDue)
	}
	d.ackDue = nil
	d.later(time.Microsecond, d.pump)
	return nil, ""
}

// indicate says an indication, or keeps it while +CNMI's mode is 0.
func (d *device) indicate(line string) {
	if d.set.mode == 0 {
		if len(d.shelf) < 100 {
			d.shelf = append(d.shelf, line)
		}
		return
	}
	d.say(line)
}

func (d *device) cnmi(arg string) ([]string, string) {
	s := &d.set
	switch arg {
	case "?":
		return []string{fmt.Sprintf("+CNMI: %d,%d,0,%d,%d", s.mode, s.mt, s.ds, s.bfr)}, ""
	case "=?":
		return []string{d.p.CNMITest}, ""
	}
	v, ok := numbers(arg, s.mode, s.mt, 0, s.ds, s.bfr)
	if !ok {
		return nil, "ERROR"
	}
	known := func(digits string, n int) bool { return n >= 0 && n < 10 && strings.ContainsRune(digits, rune('0'+n)) }
	if !known(d.p.Modes, v[0]) || !known(d.p.MTs, v[1]) || !known(d.p.DSs, v[3]) || !known("01", v[4]) {
		return nil, d.p.CNMIRefusal
	}
	s.mode, s.mt, s.ds, s.bfr = v[0], v[1], v[3], v[4]
	if s.mode != 0 {
		shelf := d.shelf
		d.shelf = nil
		if s.bfr == 0 && len(shelf) > 0 {
			d.later(time.Microsecond, func() { d.say(shelf...) })
		}
		d.later(time.Microsecond, d.pump)
	}
	return nil, ""
}
