package store

import (
	"context"
	"encoding/json"
	"time"

	"custode/authcore"
	"custode/authcore/saml"
	"custode/authcore/session"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store/hide"
	"custode/internal/store/sqlite"
)

var (
	_ session.Records = (*DB)(nil)
	_ session.Logouts = (*DB)(nil)
	_ session.Ends    = (*DB)(nil)
)

// maxParticipants bounds what is read of one session: the latest logins of a
// person who logs in many times a minute are what is lost.
const maxParticipants = 512

// logoutDocument is a logout beyond its columns.
type logoutDocument struct {
	V         int
	Initiator initiatorDocument
	Parts     []session.Part
}

// initiatorDocument keeps RelayState as octets: a JSON string would mend them.
type initiatorDocument struct {
	SP            id.EntityID
	Request       string
	Binding       saml.Binding
	Silent        bool
	RelayState    []byte
	HasRelayState bool
}

// joinSession writes what the answer says about the browser's session, in the
// answer's transaction: who was sent an assertion of a session is told of its
// end, whatever crashes.
func joinSession(ctx context.Context, q *sqlite.Queries, f authcore.Flow, a authcore.Answered) error {
	j := a.Joining
	if j == nil {
		return nil
	}
	op := "join session " + j.Session.Index
	if j.Session.Index == "" || a.Response.NameID == "" || j.Session.Subject != f.Subject || f.Request.Level != saml.L1 {
		return fault.Newf(fault.Internal, op, "the answer is of no level 1 session of this subject")
	}
	if j.Begin {
		if j.Replaces != "" {
			if _, err := q.EndSession(ctx, sqlite.EndSessionParams{Ended: nanos(a.At), Idx: j.Replaces}); err != nil {
				return err
			}
		}
		if err := q.InsertSession(ctx, sqlite.InsertSessionParams{
			Idx: j.Session.Index, Cookie: j.Cookie[:], Subject: j.Session.Subject.String(),
			Authenticated: nanos(j.Session.Authenticated), Created: nanos(a.At), Used: nanos(a.At),
		}); err != nil {
			return err
		}
	} else {
		n, err := q.TouchSession(ctx, sqlite.TouchSessionParams{Used: nanos(a.At), Idx: j.Session.Index, Subject: j.Session.Subject.String()})
		if err != nil {
			return err
		}
		if n != 1 {
			return fault.Newf(fault.Expired, op, "it has ended")
		}
	}
	names, err := json.Marshal(j.SPName)
	if err != nil {
		return fault.New(fault.Internal, op, err)
	}
	return q.InsertParticipant(ctx, sqlite.InsertParticipantParams{
		Sp: f.Request.SP.String(), NameID: a.Response.NameID, Session: j.Session.Index, Names: string(names), Joined: nanos(a.At),
	})
}

// SessionByCookie implements session.Records.
func (db *DB) SessionByCookie(ctx context.Context, cookie [32]byte) (session.Record, error) {
	row, err := db.read().GetSessionByCookie(ctx, cookie[:])
	if err != nil {
		return session.Record{}, mapError("read session", err)
	}
	return sessionRecord(row)
}

// SessionByName implements session.Records.
func (db *DB) SessionByName(ctx context.Context, sp id.EntityID, nameID string) (session.Record, error) {
	row, err := db.read().GetSessionByName(ctx, sqlite.GetSessionByNameParams{Sp: sp.String(), NameID: nameID})
	if err != nil {
		return session.Record{}, mapError("read session of "+sp.String(), err)
	}
	return sessionRecord(row)
}

func sessionRecord(row sqlite.Session) (session.Record, error) {
	r := session.Record{Index: row.Idx, Authenticated: instant(row.Authenticated), Created: instant(row.Created), Used: instant(row.Used), Ended: instant(row.Ended)}
	if err := parseAll(field{&r.Subject, row.Subject}); err != nil {
		return session.Record{}, fault.New(fault.Internal, "read session "+row.Idx, err)
	}
	return r, nil
}

// Participants implements session.Records.
func (db *DB) Participants(ctx context.Context, index string) ([]session.Participant, error) {
	op := "read participants of session " + index
	rows, err := db.read().ListParticipants(ctx, sqlite.ListParticipantsParams{Session: index, Most: maxParticipants})
	if err != nil {
		return nil, mapError(op, err)
	}
	var all []session.Participant
	for _, row := range rows {
		p := session.Participant{NameID: row.NameID, Joined: instant(row.Joined)}
		if err := parseAll(field{&p.SP, row.Sp}); err != nil {
			return nil, fault.New(fault.Internal, op, err)
		}
		if err := json.Unmarshal([]byte(row.Names), &p.Names); err != nil {
			return nil, fault.New(fault.Internal, op, err)
		}
		all = append(all, p)
	}
	return all, nil
}

// EndSession implements session.Logouts.
func (db *DB) EndSession(ctx context.Context, index string, at time.Time, l session.Logout) error {
	op := "end session " + index
	document, err := encodeLogout(l)
	if err != nil {
		return err
	}
	return db.write(ctx, op, func(q *sqlite.Queries) error {
		n, err := q.EndSession(ctx, sqlite.EndSessionParams{Ended: nanos(at), Idx: index})
		if err != nil {
			return err
		}
		if n != 1 {
			return fault.Newf(fault.Conflict, op, "it had ended, or there is none")
		}
		if l.ID.IsZero() {
			return nil
		}
		if err := q.InsertLogout(ctx, sqlite.InsertLogoutParams{
			ID: l.ID.String(), Session: index, Browser: l.Browser[:], Deadline: nanos(l.Deadline), Document: db.hideText(hide.LogoutDocument, l.ID.String(), document), Over: bit(l.Over()),
		}); err != nil {
			return err
		}
		for _, p := range l.Parts {
			if err := q.InsertLogoutRequest(ctx, sqlite.InsertLogoutRequestParams{RequestID: p.Request, LogoutID: l.ID.String()}); err != nil {
				return err
			}
		}
		return nil
	})
}

// SaveLogout implements session.Logouts.
func (db *DB) SaveLogout(ctx context.Context, l session.Logout) error {
	op := "save logout " + l.ID.String()
	document, err := encodeLogout(l)
	if err != nil {
		return err
	}
	return db.write(ctx, op, func(q *sqlite.Queries) error {
		n, err := q.UpdateLogout(ctx, sqlite.UpdateLogoutParams{
			Browser: l.Browser[:], Deadline: nanos(l.Deadline), Document: db.hideText(hide.LogoutDocument, l.ID.String(), document), Over: bit(l.Over()), ID: l.ID.String(), Version: l.Version,
		})
		if err == nil && n != 1 {
			err = fault.Newf(fault.Conflict, op, "the stored row is not version %d", l.Version)
		}
		return err
	})
}

// Logout implements session.Logouts.
func (db *DB) Logout(ctx context.Context, l id.LogoutID) (session.Logout, error) {
	return db.decodeLogout(db.read().GetLogout(ctx, l.String()))
}

// LogoutOfSession implements session.Logouts.
func (db *DB) LogoutOfSession(ctx context.Context, index string) (session.Logout, error) {
	return db.decodeLogout(db.read().GetLogoutOfSession(ctx, index))
}

// LogoutOfRequest implements session.Logouts.
func (db *DB) LogoutOfRequest(ctx context.Context, request string) (session.Logout, error) {
	return db.decodeLogout(db.read().GetLogoutOfRequest(ctx, request))
}

func encodeLogout(l session.Logout) (string, error) {
	by := l.Initiator
	return encode("encode logout "+l.ID.String(), logoutDocument{V: documentVersion, Parts: l.Parts, Initiator: initiatorDocument{
		SP: by.SP, Request: by.Request, Binding: by.Binding, Silent: by.Silent, RelayState: []byte(by.RelayState), HasRelayState: by.HasRelayState}})
}

func (db *DB) decodeLogout(row sqlite.Logout, err error) (session.Logout, error) {
	const op = "read logout"
	if err != nil {
		return session.Logout{}, mapError(op, err)
	}
	var document string
	if err := db.showAll(row.ID, shown{&document, hide.LogoutDocument, row.Document}); err != nil {
		return session.Logout{}, err
	}
	var d logoutDocument
	if err := decode(document, &d, &d.V, documentVersion); err != nil {
		return session.Logout{}, err
	}
	by := d.Initiator
	l := session.Logout{Version: row.Version, Session: row.Session, Deadline: instant(row.Deadline), Parts: d.Parts, Initiator: session.Initiator{
		SP: by.SP, Request: by.Request, Binding: by.Binding, Silent: by.Silent, RelayState: string(by.RelayState), HasRelayState: by.HasRelayState}}
	if len(row.Browser) != len(l.Browser) {
		return session.Logout{}, fault.Newf(fault.Internal, op, "browser hash has %d octets", len(row.Browser))
	}
	copy(l.Browser[:], row.Browser)
	if err := parseAll(field{&l.ID, row.ID}); err != nil {
		return session.Logout{}, fault.New(fault.Internal, op, err)
	}
	return l, nil
}

// OverdueSessions implements session.Ends.
func (db *DB) OverdueSessions(ctx context.Context, usedBefore, createdBefore time.Time, most int) ([]session.Record, error) {
	return sessionRecords(db.read().ListOverdueSessions(ctx, sqlite.ListOverdueSessionsParams{
		UsedBefore: nanos(usedBefore), CreatedBefore: nanos(createdBefore), Most: int64(most)}))
}

// UnnotedSessions implements session.Ends.
func (db *DB) UnnotedSessions(ctx context.Context, endedBefore time.Time, most int) ([]session.Record, error) {
	return sessionRecords(db.read().ListUnnotedSessions(ctx, sqlite.ListUnnotedSessionsParams{EndedBefore: nanos(endedBefore), Most: int64(most)}))
}

func sessionRecords(rows []sqlite.Session, err error) ([]session.Record, error) {
	if err != nil {
		return nil, mapError("list ended sessions", err)
	}
	var out []session.Record
	for _, row := range rows {
		r, err := sessionRecord(row)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// NoteSession implements session.Ends.
func (db *DB) NoteSession(ctx context.Context, index string) error {
	return db.write(ctx, "note the end of session "+index, func(q *sqlite.Queries) error {
		_, err := q.NoteSession(ctx, index)
		return err
	})
}

// OverdueLogouts implements session.Ends.
func (db *DB) OverdueLogouts(ctx context.Context, before time.Time, most int) ([]session.Logout, error) {
	rows, err := db.read().ListOverdueLogouts(ctx, sqlite.ListOverdueLogoutsParams{Before: nanos(before), Most: int64(most)})
	if err != nil {
		return nil, mapError("list overdue logouts", err)
	}
	var out []session.Logout
	for _, row := range rows {
		l, err := db.decodeLogout(row, nil)
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	return out, nil
}
