package store

import (
	"time"

	"custode/internal/id"
)

type (
	modemClass   uint8
	modemState   uint8
	modemMessage struct {
		ID       id.MessageID
		To       id.Phone
		Sealed   []byte
		Class    modemClass
		Created  time.Time
		Expires  time.Time
		Attempts int
	}
	modemEvent struct {
		ID     id.MessageID
		State  modemState
		Bay    string
		Detail string
		At     time.Time
	}
)

const (
	modemOTP modemClass = 1

	modemQueued    modemState = 1
	modemSending   modemState = 2
	modemSent      modemState = 3
	modemDelivered modemState = 4
	modemFailed    modemState = 5
	modemExpired   modemState = 6
	modemMaybeSent modemState = 7
)
