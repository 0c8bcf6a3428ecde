package bay

import (
	"strings"
	"time"

	"custode/internal/id"
	"custode/modem/pdu"
)

// entry is a submitted part that may get a report.
type entry struct {
	id    id.MessageID
	to    id.Phone
	when  time.Time
	until time.Time // validity of the message and a day
}

// reportRing matches status reports to messages: one place per TP-MR, which is
// an octet that the card counts. A reused place forgets its message. Reports
// that come before their receipt wait in early.
type reportRing struct {
	card    string // IMSI
	place   [256]entry
	unnamed []entry // accepted without a reference
	early   []pdu.Report
	parts   map[id.MessageID]int // parts of a long message that are not delivered yet
}

const (
	earlyRoom   = 16
	unnamedRoom = 16
	reportGrace = 24 * time.Hour
)

// put remembers that ref stands for a part of m.
func (r *reportRing) put(ref byte, m Message, now time.Time) {
	r.place[ref] = entry{m.ID, m.To, now, now.Add(m.Validity + reportGrace)}
}

// putUnnamed remembers a part accepted without a reference.
func (r *reportRing) putUnnamed(m Message, now time.Time) {
	if len(r.unnamed) >= unnamedRoom {
		r.unnamed = r.unnamed[:copy(r.unnamed, r.unnamed[1:])]
	}
	r.unnamed = append(r.unnamed, entry{m.ID, m.To, now, now.Add(m.Validity + reportGrace)})
}

// expect sets how many parts of m must be delivered.
func (r *reportRing) expect(m id.MessageID, parts int) {
	if parts < 2 {
		return
	}
	if r.parts == nil || len(r.parts) > 256 {
		r.parts = map[id.MessageID]int{}
	}
	r.parts[m] = parts
}

// whole notes the delivery of a part and reports that it was the last.
func (r *reportRing) whole(m id.MessageID) bool {
	left, long := r.parts[m]
	if !long {
		return true
	}
	if left--; left > 0 {
		r.parts[m] = left
		return false
	}
	delete(r.parts, m)
	return true
}

// takeEarly removes and returns a report that came before its receipt.
func (r *reportRing) takeEarly(ref byte) (pdu.Report, bool) {
	for i, e := range r.early {
		if e.Ref == ref && sameNumber(e.To.Digits, r.place[ref].to.String()) {
			r.early = append(r.early[:i], r.early[i+1:]...)
			return e, true
		}
	}
	return pdu.Report{}, false
}

// find returns the message a report is about; the zero identifier is none. final
// forgets the place. A report whose reference we do not know belongs to a message
// without one, if there is exactly one to that number.
func (r *reportRing) find(rep pdu.Report, now time.Time, final bool) id.MessageID {
	p := &r.place[rep.Ref]
	if !p.id.IsZero() && now.Before(p.until) && sameNumber(rep.To.Digits, p.to.String()) {
		m := p.id
		if final {
			*p = entry{}
		}
		return m
	}
	found := -1
	for i, e := range r.unnamed {
		if now.Before(e.until) && sameNumber(rep.To.Digits, e.to.String()) {
			if found >= 0 {
				return id.MessageID{}
			}
			found = i
		}
	}
	if found < 0 {
		return id.MessageID{}
	}
	m := r.unnamed[found].id
	if final {
		r.unnamed = append(r.unnamed[:found], r.unnamed[found+1:]...)
	}
	return m
}

// tail is the part of a number that survives every way of writing it.
func tail(number string) string {
	digits := strings.TrimLeft(number, "+0")
	return digits[max(0, len(digits)-8):]
}

// sameNumber compares the last eight digits: reports often carry the number in
// national form.
func sameNumber(a, b string) bool { return tail(a) == tail(b) && len(tail(a)) >= 6 }

// report takes a status report.
func (b *Bay) report(r pdu.Report) {
	final := r.Fate() != pdu.Trying
	if m := b.reports.find(r, b.cfg.Now(), final); !m.IsZero() {
		b.matched(m, r)
		return
	}
	if b.submitting && len(b.reports.early) < earlyRoom {
		b.reports.early = append(b.reports.early, r)
		return
	}
	b.update(func(st *Status) { st.Unmatched++ })
}

// matched tells what a report says of its message.
func (b *Bay) matched(m id.MessageID, r pdu.Report) {
	b.update(func(st *Status) { st.Reports++ })
	switch r.Fate() {
	case pdu.Delivered:
		if !b.reports.whole(m) {
			return
		}
		var took time.Duration
		if !r.Submitted.IsZero() && r.Done.After(r.Submitted) {
			took = r.Done.Sub(r.Submitted)
		}
		b.tell(News{Kind: Reported, ID: m, Fate: pdu.Delivered, Took: took})
	case pdu.Undone:
		delete(b.reports.parts, m)
		b.tell(News{Kind: Reported, ID: m, Fate: pdu.Undone, Detail: "not delivered, report status " + hexOctet(r.Status)})
	}
}

func hexOctet(v byte) string {
	const digits = "0123456789abcdef"
	return "0x" + string(digits[v>>4]) + string(digits[v&15])
}
