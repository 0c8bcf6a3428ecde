// Package hide says which columns of the database are hidden, opens the data keys that hide them, and hides what a
// schema before 9 kept readable. The boxes themselves are package veil's; rows are written by internal/store,
// the only one that may import this.
package hide

import (
	"context"
	"errors"
	"fmt"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store/sqlite"
	"custode/internal/store/veil"
)

// Wrapper protects the data keys: in the appliance, a wrap key of the token (policy keys.records).
type Wrapper interface {
	// Wrap encrypts plaintext and binds it to aad.
	Wrap(ctx context.Context, plaintext, aad []byte) ([]byte, error)
	// Unwrap reverses Wrap; fault.Invalid for a blob of another key or with other aad.
	Unwrap(ctx context.Context, blob, aad []byte) ([]byte, error)
}

// The hidden columns: blind names, or boxes, each with the row it belongs to: the primary key but for numbers, whose row is the
// message, so that the audit trail copies them.
const (
	IdentityUsername   veil.Column = "identity.username"   // blind
	IdentitySPIDCode   veil.Column = "identity.spid_code"  // blind
	IdentityReason     veil.Column = "identity.reason"     // subject
	IdentityAttributes veil.Column = "identity.attributes" // subject
	EventActor         veil.Column = "identity_event.actor"
	EventReason        veil.Column = "identity_event.reason" // subject; the number is given by the INSERT
	DeviceActor        veil.Column = "otp_device_event.actor"
	DeviceReason       veil.Column = "otp_device_event.reason" // serial number, likewise
	FlowDocument       veil.Column = "flow_request.document"   // flow
	FlowRaw            veil.Column = "flow_request.raw"        // flow
	AnswerSPIDCode     veil.Column = "answer.spid_code"        // response, as all of answer
	AnswerNameID       veil.Column = "answer.name_id"
	AnswerRequest      veil.Column = "answer.request_xml"
	AnswerResponse     veil.Column = "answer.response_xml"
	TallyKey           veil.Column = "tally.tally_key"   // blind
	OutboxRecipient    veil.Column = "outbox.recipient"  // blind; in outbox_event too
	OutboxNumber       veil.Column = "outbox.number"     // message; in outbox_event too
	OptOutRecipient    veil.Column = "opt_out.recipient" // blind
	OptOutNumber       veil.Column = "opt_out.number"    // the blind recipient
	IncomingSender     veil.Column = "incoming.sender"   // mark
	IncomingText       veil.Column = "incoming.text"     // mark
	LogoutDocument     veil.Column = "logout.document"   // logout
)

// KeyBinding is the additional data of a wrapped data key.
func KeyBinding(n int64) []byte { return fmt.Appendf(nil, "custode store data key %d", n) }

// Open unwraps the data keys. fault.Fatal when there is none or one cannot be unwrapped: an operator gave
// the wrong token or label, or restored half a backup. It writes nothing.
func Open(ctx context.Context, q *sqlite.Queries, keys Wrapper) (*veil.Ring, error) {
	const op = "open the data keys"
	if keys == nil {
		return nil, fault.Newf(fault.Fatal, op, "no records key was given")
	}
	rows, err := q.ListDataKeys(ctx)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, fault.Newf(fault.Fatal, op, "there is none: migrate first")
	}
	for _, r := range rows {
		if r.Clean == 0 {
			return nil, fault.Newf(fault.Fatal, op, "what was readable is not erased yet: migrate again")
		}
	}
	return unwrapAll(ctx, rows, keys)
}

func unwrapAll(ctx context.Context, rows []sqlite.ListDataKeysRow, keys Wrapper) (*veil.Ring, error) {
	const op = "open the data keys"
	all := map[uint8][]byte{}
	defer func() {
		for _, key := range all {
			clear(key)
		}
	}()
	for _, r := range rows {
		key, err := keys.Unwrap(ctx, r.Wrapped, KeyBinding(r.ID))
		if err != nil {
			kind := fault.Fatal
			if fault.Is(err, fault.Unavailable) || fault.Is(err, fault.Retry) || fault.Is(err, fault.Reopen) || errors.Is(err, context.Canceled) {
				kind = fault.KindOf(err) // of the token, not of the key
			}
			return nil, fault.Newf(kind, op, "data key %d is not of this records key: %w", r.ID, err)
		}
		all[uint8(r.ID)] = key
	}
	return veil.NewRing(all)
}

// IdentityVersion is in identity documents.
const IdentityVersion = 1

// IdentityDocument is what is in the box of an identity.
type IdentityDocument struct {
	V          int
	Username   id.Username
	SPIDCode   id.SPIDCode
	Phone      id.Phone
	Attributes map[string]string
}
