package store

import (
	"context"
	"time"
	"unicode/utf8"

	"custode/authcore"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store/hide"
	"custode/internal/store/sqlite"
)

var _ authcore.Identities = (*DB)(nil)

// What an IdentityEvent records. Appended to, never renumbered: they are stored.
type What uint8

// The events.
const (
	IdentityAdded   What = 1
	StateChanged    What = 2
	PasswordChanged What = 3
)

// Change says who changes an identity, why and when. All three are required.
type Change struct {
	Actor  string // who: an operator's name, "subject", "system"
	Reason string
	At     time.Time
}

func (c Change) check(op string) error {
	if c.Actor == "" || c.Reason == "" || c.At.IsZero() {
		return fault.Newf(fault.Invalid, op, "a change needs an actor, a reason and a time")
	}
	return nil
}

// IdentityEvent is an entry of an identity's history, which is only ever added to.
type IdentityEvent struct {
	What     What
	From, To authcore.State // zero when the state did not change
	Change
}

// IdentityByUsername implements authcore.Identities.
func (db *DB) IdentityByUsername(ctx context.Context, u id.Username) (authcore.Identity, error) {
	// The name is not repeated in errors: people type passwords into its field.
	const op = "find identity by username"
	row, err := db.read().GetIdentityByUsername(ctx, db.blind(hide.IdentityUsername, u.String()))
	if err != nil {
		return authcore.Identity{}, mapError(op, err)
	}
	return db.decodeIdentity(op, sqlite.GetIdentityRow(row))
}

// Identity implements authcore.Identities.
func (db *DB) Identity(ctx context.Context, s id.Subject) (authcore.Identity, error) {
	op := "find identity " + s.String()
	row, err := db.read().GetIdentity(ctx, s.String())
	if err != nil {
		return authcore.Identity{}, mapError(op, err)
	}
	return db.decodeIdentity(op, row)
}

// AddIdentity stores a new identity; fault.Conflict when its subject, username
// or SPID code is taken.
func (db *DB) AddIdentity(ctx context.Context, i authcore.Identity, c Change) error {
	op := "add identity " + i.Subject.String()
	if err := c.check(op); err != nil {
		return err
	}
	if i.Subject.IsZero() || i.Username.IsZero() || i.SPIDCode.IsZero() || i.State < authcore.Active || i.State > authcore.Revoked || i.Password == "" ||
		i.Type < authcore.NaturalPerson || i.Type > authcore.ProfessionalForLegal {
		return fault.Newf(fault.Invalid, op, "subject, username, SPID code, type, state or password missing")
	}
	for name, value := range i.Attributes {
		if !utf8.ValidString(name) || !utf8.ValidString(value) { // JSON would mend it
			return fault.Newf(fault.Invalid, op, "an attribute is not UTF-8")
		}
	}
	document, err := encode(op, hide.IdentityDocument{V: hide.IdentityVersion, Username: i.Username, SPIDCode: i.SPIDCode, Phone: i.Phone, Attributes: i.Attributes})
	if err != nil {
		return err
	}
	subject := i.Subject.String()
	return db.write(ctx, op, func(q *sqlite.Queries) error {
		if err := q.InsertIdentity(ctx, sqlite.InsertIdentityParams{
			Subject: subject, Username: db.blind(hide.IdentityUsername, i.Username.String()), SpidCode: db.blind(hide.IdentitySPIDCode, i.SPIDCode.String()),
			IdentityType: int64(i.Type), State: int64(i.State), Reason: db.hideText(hide.IdentityReason, subject, i.Reason),
			Attributes: db.hideText(hide.IdentityAttributes, subject, document), Password: i.Password,
			Created: nanos(i.Created), LastLogin: nanos(i.LastLogin),
		}); err != nil {
			return err
		}
		return db.insertEvent(ctx, q, subject, IdentityEvent{What: IdentityAdded, To: i.State, Change: c})
	})
}

// SetIdentityState moves an identity from one state to another. fault.NotFound,
// fault.Conflict when its state is not from, fault.Denied when from is Revoked,
// which is final.
func (db *DB) SetIdentityState(ctx context.Context, u id.Username, from, to authcore.State, c Change) error {
	const op = "set identity state"
	if err := c.check(op); err != nil {
		return err
	}
	if from < authcore.Active || from > authcore.Revoked || to < authcore.Active || to > authcore.Revoked || from == to {
		return fault.Newf(fault.Invalid, op, "from %d to %d is no change of state", from, to)
	}
	if from == authcore.Revoked {
		return fault.Newf(fault.Denied, op, "a revoked identity stays revoked")
	}
	// authcore.Identity.Reason says why an identity is not active.
	reason := c.Reason
	if to == authcore.Active {
		reason = ""
	}
	return db.write(ctx, op, func(q *sqlite.Queries) error {
		row, err := q.GetIdentityByUsername(ctx, db.blind(hide.IdentityUsername, u.String()))
		if err != nil {
			return err
		}
		n, err := q.UpdateIdentityState(ctx, sqlite.UpdateIdentityStateParams{
			ToState: int64(to), Reason: db.hideText(hide.IdentityReason, row.Subject, reason), Subject: row.Subject, FromState: int64(from),
		})
		if err != nil {
			return err
		}
		if n != 1 {
			return fault.Newf(fault.Conflict, op, "identity %s is in state %d, not %d", row.Subject, row.State, from)
		}
		return db.insertEvent(ctx, q, row.Subject, IdentityEvent{What: StateChanged, From: from, To: to, Change: c})
	})
}

// SetPassword replaces the password's encoding; fault.NotFound.
func (db *DB) SetPassword(ctx context.Context, u id.Username, encoded string, c Change) error {
	const op = "set password"
	if err := c.check(op); err != nil {
		return err
	}
	if encoded == "" {
		return fault.Newf(fault.Invalid, op, "empty encoding")
	}
	return db.write(ctx, op, func(q *sqlite.Queries) error {
		row, err := q.GetIdentityByUsername(ctx, db.blind(hide.IdentityUsername, u.String()))
		if err != nil {
			return err
		}
		if _, err := q.UpdateIdentityPassword(ctx, sqlite.UpdateIdentityPasswordParams{Password: encoded, Subject: row.Subject}); err != nil {
			return err
		}
		return db.insertEvent(ctx, q, row.Subject, IdentityEvent{What: PasswordChanged, Change: c})
	})
}

// IdentityEvents returns the history of an identity, oldest first; empty when
// the identity is unknown.
func (db *DB) IdentityEvents(ctx context.Context, s id.Subject) ([]IdentityEvent, error) {
	rows, err := db.read().ListIdentityEvents(ctx, s.String())
	if err != nil {
		return nil, mapError("read history of identity "+s.String(), err)
	}
	events := make([]IdentityEvent, 0, len(rows))
	for _, r := range rows {
		e := IdentityEvent{What: What(r.What), From: authcore.State(r.FromState), To: authcore.State(r.ToState), Change: Change{At: instant(r.At)}}
		if err := db.showAll(s.String(), shown{&e.Actor, hide.EventActor, r.Actor}, shown{&e.Reason, hide.EventReason, r.Reason}); err != nil {
			return nil, err
		}
		events = append(events, e)
	}
	return events, nil
}

func (db *DB) insertEvent(ctx context.Context, q *sqlite.Queries, subject string, e IdentityEvent) error {
	return q.InsertIdentityEvent(ctx, sqlite.InsertIdentityEventParams{
		Subject: subject, What: int64(e.What), FromState: int64(e.From), ToState: int64(e.To), Actor: db.hideText(hide.EventActor, subject, e.Actor), Reason: db.hideText(hide.EventReason, subject, e.Reason), At: nanos(e.At),
	})
}

func (db *DB) decodeIdentity(op string, row sqlite.GetIdentityRow) (authcore.Identity, error) {
	i := authcore.Identity{
		Type: authcore.IdentityType(row.IdentityType), State: authcore.State(row.State), Password: row.Password, Created: instant(row.Created), LastLogin: instant(row.LastLogin),
	}
	var document string
	err := parseAll(field{&i.Subject, row.Subject})
	if err == nil {
		err = db.showAll(row.Subject, shown{&i.Reason, hide.IdentityReason, row.Reason}, shown{&document, hide.IdentityAttributes, row.Attributes})
	}
	var d hide.IdentityDocument
	if err == nil {
		err = decode(document, &d, &d.V, hide.IdentityVersion)
	}
	if err != nil {
		return authcore.Identity{}, fault.New(fault.Internal, op, err)
	}
	i.Username, i.SPIDCode, i.Phone, i.Attributes = d.Username, d.SPIDCode, d.Phone, d.Attributes
	return i, nil
}
