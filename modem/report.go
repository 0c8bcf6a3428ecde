package modem

import (
	"context"
	"strings"
	"time"

	"custode/modem/at"
	"custode/modem/pdu"
)

// reportRing matches status reports to messages: one place per TP-MR, which is
// an octet that the card counts. A reused place forgets its message. Reports
// that come before their receipt wait in early.
type reportRing struct {
	card  string // IMSI
	place [256]struct {
		job  *job
		when time.Time
	}
	early []pdu.Report
}

// reportWindow is how long after the submission a report is believed.
const reportWindow = 25 * time.Hour

// put remembers j under ref and returns an early report that fits.
func (r *reportRing) put(ref byte, j *job, now time.Time) (*job, pdu.Report, bool) {
	r.place[ref].job, r.place[ref].when = j, now
	for i, e := range r.early {
		if e.Ref == ref && sameNumber(e.To.Digits, j.msg.To.String()) {
			r.early = append(r.early[:i], r.early[i+1:]...)
			return j, e, true
		}
	}
	return nil, pdu.Report{}, false
}

// find returns the message a report is about, or nil.
func (r *reportRing) find(rep pdu.Report, now time.Time) *job {
	p := r.place[rep.Ref]
	if p.job == nil || now.Sub(p.when) > reportWindow || !sameNumber(rep.To.Digits, p.job.msg.To.String()) {
		return nil
	}
	return p.job
}

// tail is the part of a number that survives every way of writing it.
func tail(number string) string {
	digits := strings.TrimLeft(number, "+0")
	return digits[max(0, len(digits)-8):]
}

// sameNumber compares the last eight digits: reports often carry the number in
// national form.
func sameNumber(a, b string) bool { return tail(a) == tail(b) && tail(a) != "" }

// incoming handles a PDU the modem hands over.
func (b *bay) incoming(i at.Indication) {
	in, err := pdu.DecodeIncoming(i.PDU)
	if err != nil || in.Report == nil {
		b.update(func(st *BayStatus) { st.Unmatched++ })
		return // incoming messages are not for us yet
	}
	now := b.pool.cfg.Now()
	if j := b.reports.find(*in.Report, now); j != nil {
		b.matched(j, *in.Report, true)
		return
	}
	if len(b.reports.early) < 16 && b.snapshot().State != Ready {
		b.reports.early = append(b.reports.early, *in.Report)
		return
	}
	b.reports.early = nil
	b.update(func(st *BayStatus) { st.Unmatched++ })
}

// matched records what a report says of its message.
func (b *bay) matched(j *job, r pdu.Report, ok bool) {
	if !ok {
		return
	}
	b.update(func(st *BayStatus) { st.Reports++ })
	ctx := context.Background() // a report in hand is recorded, shutdown or not
	switch r.Fate() {
	case pdu.Delivered:
		_ = b.pool.record(ctx, j, Delivered, b.cfg.Name, "")
	case pdu.Undone:
		_ = b.pool.record(ctx, j, Failed, b.cfg.Name, "not delivered, report status "+hexOctet(r.Status))
	}
}

func hexOctet(v byte) string {
	const digits = "0123456789abcdef"
	return "0x" + string(digits[v>>4]) + string(digits[v&15])
}
