package bay

import (
	"bytes"
	"context"
	"time"

	"custode/internal/id"
	"custode/modem/pdu"
	"custode/modem/verdict"
)

// Message is a text to send. Text is UTF-8; NewParcel copies it, so the caller
// may wipe its own.
type Message struct {
	ID       id.MessageID
	To       id.Phone
	Text     []byte
	Validity time.Duration // what the service centre may still try; rounded up
	Flash    bool          // class 0: shown at once, not stored
	MaxParts int           // 0 means 1
	Ref      byte          // concatenation reference of the parts

	// SlowAfter is the wait for the receipt after which Slow is called, once; 0
	// means never. Written is called when the last octet of the first part is
	// with the modem. Both run in the bay's goroutine and may be nil.
	SlowAfter time.Duration
	Slow      func()
	Written   func()
}

// Parcel is an encoded message. It holds the text: Wipe it.
type Parcel struct {
	msg    Message
	frames []pdu.Frame
}

// NewParcel encodes m; it fails with fault.Invalid when the text is not UTF-8, is
// empty, or needs more than MaxParts.
func NewParcel(m Message) (*Parcel, error) {
	m.Text = bytes.Clone(m.Text)
	p := &Parcel{msg: m}
	var err error
	p.frames, err = p.submit().Encode()
	if err != nil {
		p.Wipe()
		return nil, err
	}
	return p, nil
}

func (p *Parcel) submit() pdu.Submit {
	m := p.msg
	return pdu.Submit{To: m.To, Text: m.Text, Validity: m.Validity, Report: true, Flash: m.Flash, MaxParts: m.MaxParts, Ref: uint16(m.Ref), Plain: true}
}

// Wipe overwrites text and frames. The parcel cannot be sent any more.
func (p *Parcel) Wipe() {
	clear(p.msg.Text)
	pdu.Wipe(p.frames)
	p.frames = nil
}

// Parts is the number of short messages the parcel makes.
func (p *Parcel) Parts() int { return len(p.frames) }

// Blame says who is at fault when a submission is refused; see package verdict.
type Blame = verdict.Blame

// The blames of an Outcome.
const (
	OnNumber  = verdict.OnNumber
	OnRoute   = verdict.OnRoute
	OnNetwork = verdict.OnNetwork
	OnModem   = verdict.OnModem
	OnCard    = verdict.OnCard
	OnBusy    = verdict.OnBusy
	OnUs      = verdict.OnUs
)

// Result is how a Send ended.
type Result uint8

// The results.
const (
	Untouched Result = iota // the bay left service first: nothing was tried, nobody is to blame
	Accepted                // the network has it
	Refused                 // somebody said no: see Blame
	NotSent                 // the modem never got the PDU: safe to try elsewhere at once
	Doubtful                // the PDU left and no answer came (a late one is told by News)
)

// Outcome is the end of one Send. Detail holds neither text nor number; Refused
// is NotSent or Doubtful when Blame says so already.
type Outcome struct {
	Result Result
	Blame  Blame // for Refused
	Detail string
	// Rest is how long the bay should get no message after this end; 0 leaves it to
	// the owner. It grows while a network keeps on refusing (anti-spam).
	Rest time.Duration
	// Submit is Ctrl-Z to the answer, of all parts; 0 when the PDU never left.
	Submit time.Duration
}

// request is a Send on its way to the actor.
type request struct {
	ctx    context.Context
	parcel *Parcel
	done   chan Outcome // room for one
}

// Send lets the bay's modem send p and waits for the end: a receipt, a refusal, or
// doubt. ctx bounds the transaction (a cut leaves doubt), not the wait of a caller
// who lost interest. One Send at a time makes sense; others wait. A bay out of
// service answers Untouched at once.
func (b *Bay) Send(ctx context.Context, p *Parcel) Outcome {
	b.gate.Lock()
	out := b.out
	b.gate.Unlock()
	r := request{ctx, p, make(chan Outcome, 1)}
	select {
	case <-out:
		return Outcome{Detail: "bay out of service"}
	default:
	}
	select {
	case b.requests <- r:
		return <-r.done
	case <-out:
		return Outcome{Detail: "bay out of service"}
	case <-ctx.Done():
		return Outcome{Detail: "interrupted"}
	}
}
