package network

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"custode/simulators/modemsim/tpdu"
)

// SMS is a message in a phone's inbox; the parts of a long one are put together.
type SMS struct {
	From string    `json:"from"` // number of the sending card
	Text string    `json:"text"`
	At   time.Time `json:"at"`
}

// Phone is the state of a telephone; the zero value is one that is on.
type Phone struct {
	Off        bool          // messages wait until SetPhone says otherwise, or their validity ends
	Gone       bool          // the number exists no more: reported as not obtainable (43)
	Delay      time.Duration // added to the transit time
	Status     byte          // TP-ST of its reports, instead of 00 delivered
	NoReport   bool          // reports about it never come
	NationalRA bool          // reports name it without the country code
}

type handset struct {
	state Phone
	inbox []SMS
	held  []*Delivery
	parts map[string][]string
}

// Delivery is a message on its way from the service centre to a phone.
type Delivery struct {
	From    string
	M       tpdu.Submit
	expires time.Time // zero: never
	// Report sends a status report with TP-ST st back; nil when none was asked for.
	Report func(st byte, national bool)
}

// phone returns the handset with this number; n.mu is held.
func (n *Network) phone(number string) *handset {
	h := n.phones[number]
	if h == nil {
		h = &handset{parts: map[string][]string{}}
		n.phones[number] = h
	}
	return h
}

// SetPhone gives a telephone another state; one that is switched on gets what
// waited for it.
func (n *Network) SetPhone(number string, p Phone) {
	n.mu.Lock()
	h := n.phone(number)
	h.state = p
	var held []*Delivery
	if !p.Off {
		held, h.held = h.held, nil
	}
	n.mu.Unlock()
	for _, d := range held {
		n.arrive(d)
	}
}

// Inbox returns what the phone received, oldest first.
func (n *Network) Inbox(phone string) []SMS {
	n.mu.Lock()
	defer n.mu.Unlock()
	if h := n.phones[phone]; h != nil {
		return append([]SMS(nil), h.inbox...)
	}
	return nil
}

// Phones returns every number that received something.
func (n *Network) Phones() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]string, 0, len(n.phones))
	for number, h := range n.phones {
		if len(h.inbox) > 0 {
			out = append(out, number)
		}
	}
	return out
}

// Wait returns the phone's inbox once it holds n messages, or ctx's error.
func (n *Network) Wait(ctx context.Context, phone string, count int) ([]SMS, error) {
	err := n.until(ctx, func() bool { return count == 0 || n.phones[phone] != nil && len(n.phones[phone].inbox) >= count })
	in := n.Inbox(phone)
	if err != nil {
		return in, fmt.Errorf("modemsim: %d of %d messages: %w", len(in), count, err)
	}
	return in, nil
}

// Deliver carries a message to its phone, in the transit time; one that is lost
// never arrives, and nobody is told.
func (a *Air) Deliver(d *Delivery) {
	n := a.n
	if n.chance(n.cfg.Loss) {
		return
	}
	if d.M.Valid > 0 {
		d.expires = time.Now().Add(d.M.Valid)
	}
	n.mu.Lock()
	extra := n.phone(d.M.To).state.Delay
	n.mu.Unlock()
	a.After(n.draw(n.cfg.Transit)+extra, func() { n.arrive(d) })
}

const (
	delivered     = 0x00
	notObtainable = 0x43
	expired       = 0x46
)

// arrive ends a delivery, unless the phone is off: then it waits there.
func (n *Network) arrive(d *Delivery) {
	n.mu.Lock()
	h := n.phone(d.M.To)
	p := h.state
	status := p.Status
	switch {
	case p.Gone:
		status = notObtainable
	case !d.expires.IsZero() && time.Now().After(d.expires):
		status = expired
	case p.Off:
		h.held = append(h.held, d)
		n.mu.Unlock()
		if !d.expires.IsZero() {
			n.air.After(time.Until(d.expires)+time.Millisecond, func() { n.expire(h, d) })
		}
		return
	case status&0x60 == 0: // delivered, in one of its shades
		h.take(d)
		n.grew()
	}
	n.mu.Unlock()
	if d.Report == nil || p.NoReport {
		return
	}
	// With instant transit the modem that asked is still locked: step out.
	n.air.After(time.Microsecond, func() { d.Report(status, p.NationalRA || n.cfg.NationalRA) })
}

// take puts a message into the inbox, a long one when its last part is there.
func (h *handset) take(d *Delivery) {
	text := d.M.Text
	if d.M.Parts > 1 && d.M.Part >= 1 && d.M.Part <= d.M.Parts {
		key := fmt.Sprint(d.From, "/", d.M.Ref, "/", d.M.Parts)
		if h.parts[key] == nil {
			h.parts[key] = make([]string, d.M.Parts)
		}
		h.parts[key][d.M.Part-1] = text
		for _, p := range h.parts[key] {
			if p == "" {
				return
			}
		}
		text = strings.Join(h.parts[key], "")
		delete(h.parts, key)
	}
	h.inbox = append(h.inbox, SMS{From: d.From, Text: text, At: time.Now()})
}

// expire takes a message that waited too long from the service centre's shelf.
func (n *Network) expire(h *handset, d *Delivery) {
	n.mu.Lock()
	i := slices.Index(h.held, d)
	if i >= 0 {
		h.held = slices.Delete(h.held, i, i+1)
	}
	n.mu.Unlock()
	if i >= 0 {
		n.arrive(d)
	}
}
