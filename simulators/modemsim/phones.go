package modemsim

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
	held  []*delivery
	parts map[string][]string
}

// delivery is a message on its way from the service centre to a phone.
type delivery struct {
	from, to string
	m        tpdu.Submit
	expires  time.Time // zero: never
	// report sends a status report with TP-ST st back; nil when none was asked for.
	report func(st byte, national bool)
}

// phone returns the handset with this number; b.mu is held.
func (b *Bank) phone(number string) *handset {
	h := b.phones[number]
	if h == nil {
		h = &handset{parts: map[string][]string{}}
		b.phones[number] = h
	}
	return h
}

// SetPhone gives a telephone another state; one that is switched on gets what
// waited for it.
func (b *Bank) SetPhone(number string, p Phone) {
	b.mu.Lock()
	h := b.phone(number)
	h.state = p
	var held []*delivery
	if !p.Off {
		held, h.held = h.held, nil
	}
	b.mu.Unlock()
	for _, d := range held {
		b.arrive(d)
	}
}

// Inbox returns what the phone received, oldest first.
func (b *Bank) Inbox(phone string) []SMS {
	b.mu.Lock()
	defer b.mu.Unlock()
	if h := b.phones[phone]; h != nil {
		return append([]SMS(nil), h.inbox...)
	}
	return nil
}

// Phones returns every number that received something.
func (b *Bank) Phones() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]string, 0, len(b.phones))
	for n, h := range b.phones {
		if len(h.inbox) > 0 {
			out = append(out, n)
		}
	}
	return out
}

// Wait returns the phone's inbox once it holds n messages, or ctx's error.
func (b *Bank) Wait(ctx context.Context, phone string, n int) ([]SMS, error) {
	err := b.wait(ctx, func() bool { return n == 0 || b.phones[phone] != nil && len(b.phones[phone].inbox) >= n })
	in := b.Inbox(phone)
	if err != nil {
		return in, fmt.Errorf("modemsim: %d of %d messages: %w", len(in), n, err)
	}
	return in, nil
}

// deliver carries a message to its phone, in the transit time; one that is lost
// never arrives, and nobody is told.
func (b *Bank) deliver(d *delivery) {
	if b.chance(b.cfg.Loss) {
		return
	}
	if d.m.Valid > 0 {
		d.expires = time.Now().Add(d.m.Valid)
	}
	b.mu.Lock()
	extra := b.phone(d.to).state.Delay
	b.mu.Unlock()
	b.after(b.draw(b.cfg.Transit)+extra, func() { b.arrive(d) })
}

const (
	delivered     = 0x00
	notObtainable = 0x43
	expired       = 0x46
)

// arrive ends a delivery, unless the phone is off: then it waits there.
func (b *Bank) arrive(d *delivery) {
	b.mu.Lock()
	h := b.phone(d.to)
	p := h.state
	status := p.Status
	switch {
	case p.Gone:
		status = notObtainable
	case !d.expires.IsZero() && time.Now().After(d.expires):
		status = expired
	case p.Off:
		h.held = append(h.held, d)
		b.mu.Unlock()
		if !d.expires.IsZero() {
			b.after(time.Until(d.expires)+time.Millisecond, func() { b.expire(h, d) })
		}
		return
	case status&0x60 == 0: // delivered, in one of its shades
		h.take(d)
		b.grew()
	}
	b.mu.Unlock()
	if d.report == nil || p.NoReport {
		return
	}
	// With instant transit the modem that asked is still locked: step out.
	b.after(time.Microsecond, func() { d.report(status, p.NationalRA || b.cfg.NationalRA) })
}

// take puts a message into the inbox, a long one when its last part is there.
func (h *handset) take(d *delivery) {
	text := d.m.Text
	if d.m.Parts > 1 && d.m.Part >= 1 && d.m.Part <= d.m.Parts {
		key := fmt.Sprint(d.from, "/", d.m.Ref, "/", d.m.Parts)
		if h.parts[key] == nil {
			h.parts[key] = make([]string, d.m.Parts)
		}
		h.parts[key][d.m.Part-1] = text
		for _, p := range h.parts[key] {
			if p == "" {
				return
			}
		}
		text = strings.Join(h.parts[key], "")
		delete(h.parts, key)
	}
	h.inbox = append(h.inbox, SMS{From: d.from, Text: text, At: time.Now()})
}

// expire takes a message that waited too long from the service centre's shelf.
func (b *Bank) expire(h *handset, d *delivery) {
	b.mu.Lock()
	i := slices.Index(h.held, d)
	if i >= 0 {
		h.held = slices.Delete(h.held, i, i+1)
	}
	b.mu.Unlock()
	if i >= 0 {
		b.arrive(d)
	}
}
