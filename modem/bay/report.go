package bay

import (
	"context"
	"strings"
	"time"

	"custode/internal/id"
	"custode/modem/at"
	"custode/modem/pdu"
)

// reportRing matches status reports to messages: one place per TP-MR, which is
// an octet that the card counts. A reused place forgets its message. Reports
// that come before their receipt wait in early.
type reportRing struct {
	card  string // IMSI
	place [256]struct {
		id   id.MessageID
		to   id.Phone
		when time.Time
	}
	early []pdu.Report
}

// reportWindow is how long after the submission a report is believed.
const reportWindow = 25 * time.Hour

// put remembers that ref stands for a message.
func (r *reportRing) put(ref byte, m id.MessageID, to id.Phone, now time.Time) {
	p := &r.place[ref]
	p.id, p.to, p.when = m, to, now
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

// find returns the message a report is about; the zero identifier is none.
func (r *reportRing) find(rep pdu.Report, now time.Time) id.MessageID {
	p := r.place[rep.Ref]
	if p.id.IsZero() || now.Sub(p.when) > reportWindow || !sameNumber(rep.To.Digits, p.to.String()) {
		return id.MessageID{}
	}
	return p.id
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
func (b *Bay) incoming(i at.Indication) {
	in, err := pdu.DecodeIncoming(i.PDU)
	if err != nil || in.Report == nil {
		b.update(func(st *Status) { st.Unmatched++ })
		return // incoming messages are not for us yet
	}
	if m := b.reports.find(*in.Report, b.cfg.Now()); !m.IsZero() {
		b.matched(m, *in.Report)
		return
	}
	if len(b.reports.early) < 16 && b.Status().State != Ready {
		b.reports.early = append(b.reports.early, *in.Report)
		return
	}
	b.reports.early = nil
	b.update(func(st *Status) { st.Unmatched++ })
}

// matched tells what a report says of its message.
func (b *Bay) matched(m id.MessageID, r pdu.Report) {
	b.update(func(st *Status) { st.Reports++ })
	switch r.Fate() {
	case pdu.Delivered:
		b.tell(News{Kind: Reported, ID: m, Fate: pdu.Delivered})
	case pdu.Undone:
		b.tell(News{Kind: Reported, ID: m, Fate: pdu.Undone, Detail: "not delivered, report status " + hexOctet(r.Status)})
	}
}

// tell gives news to the owner: what is in hand is recorded, shutdown or not.
func (b *Bay) tell(n News) bool {
	if err := b.cfg.Owner.Heard(context.Background(), b.cfg.Place.Name, n); err != nil {
		b.cfg.Log.Error("news of a modem not kept", "bay", b.cfg.Place.Name, "err", err)
		return false
	}
	return true
}

func hexOctet(v byte) string {
	const digits = "0123456789abcdef"
	return "0x" + string(digits[v>>4]) + string(digits[v&15])
}
