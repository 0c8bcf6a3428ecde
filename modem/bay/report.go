package bay

import (
	"fmt"
	"time"

	"custode/internal/id"
	"custode/modem/pdu"
)

// report takes a status report.
func (b *Bay) report(r pdu.Report) {
	final := r.Fate() != pdu.Trying
	if m := b.reports.Find(r, b.cfg.Now(), final); !m.IsZero() {
		b.matched(m, r)
		return
	}
	if b.submitting && b.reports.Early(r) {
		return
	}
	b.update(func(st *Status) { st.Unmatched++ })
}

// matched tells what a report says of its message.
func (b *Bay) matched(m id.MessageID, r pdu.Report) {
	b.update(func(st *Status) { st.Reports++ })
	switch r.Fate() {
	case pdu.Delivered:
		if !b.reports.Whole(m) {
			return
		}
		var took time.Duration
		if !r.Submitted.IsZero() && r.Done.After(r.Submitted) {
			took = r.Done.Sub(r.Submitted)
		}
		b.tell(News{Kind: Reported, ID: m, Fate: pdu.Delivered, Took: took})
	case pdu.Undone:
		b.reports.Undelivered(m)
		b.tell(News{Kind: Reported, ID: m, Fate: pdu.Undone, Detail: fmt.Sprintf("not delivered, report status %#02x", r.Status)})
	}
}
