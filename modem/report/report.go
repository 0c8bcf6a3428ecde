// Package report finds the message that a status report is about. A report carries
// the reference the modem gave (one octet, counted by the card) and the recipient's
// number in whatever form the network likes. It is pure: the clock is a parameter.
// Only modem/bay may import it.
package report

import (
	"hash/maphash"
	"math"
	"strings"
	"time"

	"custode/internal/id"
	"custode/modem/pdu"
)

// entry is a submitted part that may get a report.
type entry struct {
	id    id.MessageID
	to    uint64    // hash of the number's tail: a number need not lie in memory for a day
	until time.Time // validity of the message and a day
}

// Ring matches status reports to messages: one place per TP-MR, which is
// an octet that the card counts. A reused place forgets its message. Reports
// that come before their receipt wait in early.
type Ring struct {
	Card    string // IMSI; another card begins another ring
	place   [256]entry
	unnamed []entry // accepted without a reference
	early   []pdu.Report
	parts   map[id.MessageID]int // parts of a long message that are not delivered yet
}

const (
	earlyRoom   = 16
	unnamedRoom = 16
	grace       = 24 * time.Hour
)

// Put remembers that ref stands for a part of m.
func (r *Ring) Put(ref byte, m id.MessageID, to id.Phone, validity time.Duration, now time.Time) {
	r.place[ref] = entry{m, tailHash(to.String()), now.Add(validity + grace)}
}

// PutUnnamed remembers a part accepted without a reference.
func (r *Ring) PutUnnamed(m id.MessageID, to id.Phone, validity time.Duration, now time.Time) {
	if len(r.unnamed) >= unnamedRoom {
		r.unnamed = r.unnamed[:copy(r.unnamed, r.unnamed[1:])]
	}
	r.unnamed = append(r.unnamed, entry{m, tailHash(to.String()), now.Add(validity + grace)})
}

// Expect sets how many parts of m must be delivered.
func (r *Ring) Expect(m id.MessageID, parts int) {
	if parts < 2 {
		return
	}
	if r.parts == nil || len(r.parts) > 256 {
		r.parts = map[id.MessageID]int{}
	}
	r.parts[m] = parts
}

// Whole notes the delivery of a part and reports that it was the last.
func (r *Ring) Whole(m id.MessageID) bool {
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

// TakeEarly removes and returns a report that came before its receipt.
func (r *Ring) TakeEarly(ref byte) (pdu.Report, bool) {
	for i, e := range r.early {
		if e.Ref == ref && sameNumber(e.To.Digits, r.place[ref].to) {
			r.early = append(r.early[:i], r.early[i+1:]...)
			return e, true
		}
	}
	return pdu.Report{}, false
}

// Find returns the message a report is about; the zero identifier is none. final
// forgets the place. A report whose reference we do not know belongs to a message
// without one, if there is exactly one to that number.
func (r *Ring) Find(rep pdu.Report, now time.Time, final bool) id.MessageID {
	p := &r.place[rep.Ref]
	if !p.id.IsZero() && now.Before(p.until) && sameNumber(rep.To.Digits, p.to) {
		m := p.id
		if final {
			*p = entry{}
		}
		return m
	}
	found := -1
	for i, e := range r.unnamed {
		if now.Before(e.until) && sameNumber(rep.To.Digits, e.to) {
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

// Tail is the part of a number that survives every way of writing it.
func Tail(number string) string {
	digits := strings.TrimLeft(number, "+0")
	return digits[max(0, len(digits)-8):]
}

// seed makes the hashes of this process.
var seed = maphash.MakeSeed()

// tailHash is 0 for what is too short to be a number.
func tailHash(number string) uint64 {
	if t := Tail(number); len(t) >= 6 {
		return max(1, maphash.String(seed, t))
	}
	return 0
}

// sameNumber compares the last eight digits: reports often carry the number in
// national form.
func sameNumber(number string, hash uint64) bool { return hash != 0 && tailHash(number) == hash }

// Early keeps a report that came before its receipt; false when there is no room.
func (r *Ring) Early(rep pdu.Report) bool {
	if len(r.early) >= earlyRoom {
		return false
	}
	r.early = append(r.early, rep)
	return true
}

// DropEarly forgets the reports that no receipt followed.
func (r *Ring) DropEarly() { r.early = nil }

// Undelivered notes that a message will not arrive whole, whatever its other parts do.
func (r *Ring) Undelivered(m id.MessageID) {
	if _, long := r.parts[m]; long {
		r.parts[m] = math.MaxInt
	}
}
