package bay

import (
	"context"
	"time"

	"custode/internal/id"
	"custode/modem/pdu"
)

// NewsKind says what a bay has to tell.
type NewsKind uint8

// The kinds of news.
const (
	LateReceipt NewsKind = iota // a Doubtful message was accepted after all
	Reported                    // a status report: ID and Fate
	Received                    // a message for our card: Incoming
	Alarmed                     // Alarm
)

// News is what a bay learns outside of a Send. Detail holds neither text nor number.
type News struct {
	Kind     NewsKind
	ID       id.MessageID
	Fate     pdu.Fate
	Detail   string
	Took     time.Duration // Reported: service centre's acceptance to delivery, by its clock; 0 when unknown
	Incoming *Incoming
	Alarm    Alarm
}

// Incoming is a short message that arrived. From is a number as the network wrote
// it, or text; Text may be personal: neither is for logs. Part and Total are 1
// unless the message is a part of a longer one (then Ref ties its parts together).
type Incoming struct {
	Mark  string // the same whenever the same message is read from the same card
	From  string
	At    time.Time // the service centre's stamp; zero when it was nonsense
	Text  string
	Ref   uint16
	Part  int
	Total int
	// Stop says that the text is an opt-out keyword and nothing else (STOP, ARRESTA,
	// BASTA, CANCELLA, UNSUBSCRIBE, with any case and punctuation).
	Stop bool
}

// Alarm is a condition an operator should know of.
type Alarm string

// The alarms. Each is told when it begins, at most once an hour.
const (
	StorageFull  Alarm = "storage-full"  // card or modem cannot store messages
	UnderVoltage Alarm = "under-voltage" // the modem's supply dropped
	NotServed    Alarm = "no-network"    // not registered for long
	CardBarred   Alarm = "card"          // the card is refused, locked, missing or out of credit
	OutOfOrder   Alarm = "out-of-order"  // the recovery ladder has no further rung
	Impostor     Alarm = "impostor"      // another modem answers where this one was
	OurMistake   Alarm = "our-mistake"   // a modem or network finds fault with our PDU or configuration
)

// Owner is who gives a bay work. Its methods are called in the bay's goroutine:
// while they run, the modem waits.
type Owner interface {
	// Serving tells that the bay came into service or left it. A bay that leaves
	// says so before the Send in progress returns.
	Serving(bay string, on bool)
	// Heard takes news. An error means that they are not durable: a received
	// message then stays in the modem and is offered again.
	Heard(ctx context.Context, bay string, n News) error
	// Alone reports that no other bay is in service.
	Alone(bay string) bool
}

// Power switches a modem's supply or its keys. Implementations (GPIO, hub port)
// know which bay they belong to. Calls obey ctx and may take seconds.
type Power interface {
	Off(ctx context.Context) error
	On(ctx context.Context) error
	// Pulse presses the modem's reset or power key.
	Pulse(ctx context.Context) error
}
