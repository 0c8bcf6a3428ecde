// Package modem is a stand-in for the types of custode/modem until they are merged.
package modem

import (
	"context"
	"time"

	"custode/internal/id"
)

type (
	Class   uint8
	State   uint8
	Message struct {
		ID       id.MessageID
		To       id.Phone
		Sealed   []byte
		Class    Class
		Created  time.Time
		Expires  time.Time
		Attempts int
	}
	Event struct {
		ID     id.MessageID
		State  State
		Bay    string
		Detail string
		At     time.Time
	}
)

const (
	OTP Class = iota
	Alert
	Bulk
)

const (
	Queued State = iota
	Sending
	Sent
	Delivered
	Failed
	Expired
	MaybeSent
)

type Journal interface {
	Queued(ctx context.Context, limit int) ([]Message, error)
	Record(ctx context.Context, e Event) error
	Recover(ctx context.Context, now time.Time) ([]Event, error)
}
