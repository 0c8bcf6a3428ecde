package modem

import (
	"context"
	"time"

	"custode/internal/id"
)

// Accounts is what the pool must remember over a restart besides the outbox: what
// was accepted for whom, what each card spent, who wants no bulk, what came in.
type Accounts interface {
	// Spent counts the SMS that left through a card since then, as the steps to
	// Sending recorded them, and those of class Bulk among them.
	Spent(ctx context.Context, card string, since time.Time) (all, bulk int, err error)
	// Accepted counts the messages accepted for a number since then; with prefix,
	// for all numbers that begin with it.
	Accepted(ctx context.Context, number string, prefix bool, since time.Time) (int, error)
	// OptedOut reports whether the number wants no bulk messages.
	OptedOut(ctx context.Context, to id.Phone) (bool, error)
	// Receive keeps a message that came in, once, however often it is offered.
	// fresh is false when it was kept before.
	Receive(ctx context.Context, m Received) (fresh bool, err error)
	// OptOut notes that a number wants no bulk messages, or does again.
	OptOut(ctx context.Context, number string, out bool, at time.Time) error
}

// Received is a message from outside. Mark is the same whenever the same message
// is read from the same card. From is a number or a name, as the network gave it.
type Received struct {
	Mark, From, Text, Bay, Card string
	At                          time.Time
}
