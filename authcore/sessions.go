package authcore

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"strings"
	"time"

	"custode/authcore/saml"
	"custode/internal/fault"
	"custode/internal/id"
)

// Session is a browser single-sign-on session as far as a login cares: who
// authenticated, once, at level 1 (implementing regulation, art. 28; Avviso 3).
type Session struct {
	Index         string // SessionIndex of all its assertions
	Subject       id.Subject
	Authenticated time.Time // the original event
}

// Sessions finds the session of a browser. Without one every login is fresh.
type Sessions interface {
	// Current returns the session whose cookie has that SHA-256 and that may be
	// used at this moment; fault.NotFound when there is none.
	Current(ctx context.Context, cookie [32]byte) (Session, error)
}

// Joining says which session the SP of an answered level 1 request joins. The
// store writes it in the transaction that records the answer, and refuses
// (fault.Expired) to let anybody join a session that has ended.
type Joining struct {
	Session  Session
	Begin    bool     // the session begins with this answer
	Cookie   [32]byte // Begin: SHA-256 of the cookie's secret
	Replaces string   // Begin: index of another subject's session, which ends; "": none
	SPName   map[string]string
}

// fromSession reports whether a session may answer the request at all: one of
// level 1, that is satisfied by level 1 and does not ask for a fresh
// authentication.
func fromSession(r *saml.Request) bool {
	level, ok := levelFor(r.Level, r.Comparison, strongest)
	return r.Level == saml.L1 && ok && level == saml.L1 && !r.ForceAuthn
}

// session is Sessions.Current, with ok false for none.
func (l *Login) session(ctx context.Context, v Visitor) (s Session, ok bool, err error) {
	if l.sessions == nil || v.Session == [32]byte{} {
		return Session{}, false, nil
	}
	s, err = l.sessions.Current(ctx, v.Session)
	if fault.Is(err, fault.NotFound) {
		return Session{}, false, nil
	}
	return s, err == nil, err
}

// resumeOrShow is the first look at the credentials page: where the browser's
// session may answer, its subject goes to the consent page at once, with every
// check that an admission makes made again. It is not done in Begin, where a
// request by HTTP-POST comes without the cookie (SameSite=Lax), nor in Answer:
// who types a password means that one.
func (l *Login) resumeOrShow(ctx context.Context, f Flow, who Identity, v Visitor) (Outcome, error) {
	if f.Step != StepCredentials || !fromSession(&f.Request) {
		return l.show(ctx, f, who, note{}), nil
	}
	s, ok, err := l.session(ctx, v)
	if err != nil {
		return Outcome{}, err
	}
	if !ok {
		return l.show(ctx, f, who, note{}), nil
	}
	holder, err := l.identities.Identity(ctx, s.Subject)
	if err != nil {
		return Outcome{}, fault.New(fault.Internal, "read subject of a session for flow "+f.ID.String(), err)
	}
	// A session that does not fit the Purpose is not used. Anomaly 30 would leave
	// at once, without a page: a service provider would learn that a session is open
	// and, by asking with one Purpose after the other, of what type.
	if holder.State == Active && !holder.Type.Accepts(f.Request.Purpose) {
		return l.show(ctx, f, who, note{}), nil
	}
	return l.apply(ctx, f, holder, act{event: sessionHeld, at: l.now(), who: holder, session: s}, note{})
}

// sessionEnded reports whether the flow stands on a session that has ended, or is
// not this browser's.
func (l *Login) sessionEnded(ctx context.Context, f Flow, v Visitor) (bool, error) {
	if !f.Resumed || f.Step != StepConsent {
		return false, nil
	}
	s, ok, err := l.session(ctx, v)
	return err == nil && !(ok && s.Index == f.Session && s.Subject == f.Subject), err
}

// inSession reports whether what View shows may depend on a session.
func (f Flow) inSession(v Visitor) bool {
	return f.Resumed || f.Step == StepCredentials && v.Session != [32]byte{} && fromSession(&f.Request)
}

// resume admits the session's subject without a password, and with every check
// that follows one. What needs more than level 1 is left to the credentials.
func resume(f Flow, a act) (Flow, error) {
	if a.session.Index == "" || a.session.Subject != a.who.Subject || !fromSession(&f.Request) {
		return f, fmt.Errorf("a session does not answer this request")
	}
	n, err := admit(f, a)
	if err != nil || n.Step != StepConsent {
		return n, err
	}
	n.Resumed, n.Session, n.Authenticated = true, a.session.Index, a.session.Authenticated
	return n, nil
}

// forgetSession begins anew, as if there had been no session.
func forgetSession(f Flow, _ act) (Flow, error) {
	if f.Resumed {
		f.Step, f.Subject, f.Performed, f.Authenticated = StepCredentials, id.Subject{}, 0, time.Time{}
		f.Session, f.Resumed = "", false
	}
	return f, nil
}

// join returns the SessionIndex of the answer to a level 1 request, and which
// session it belongs to: the one it was answered from; the browser's, when the
// same subject authenticated again; else a new one. Where there are no sessions
// the index is the assertion's own.
func (l *Login) join(ctx context.Context, done Flow, v Visitor) (string, *Joining, error) {
	op := "join session in flow " + done.ID.String()
	s, ok, err := l.session(ctx, v)
	if err != nil {
		return "", nil, err
	}
	if done.Resumed && (!ok || s.Index != done.Session || s.Subject != done.Subject) {
		return "", nil, fault.Newf(fault.Expired, op, "the session has ended")
	}
	if ok && s.Subject == done.Subject {
		return s.Index, &Joining{Session: s, SPName: maps.Clone(done.SPName)}, nil
	}
	var b [16]byte
	if _, err := io.ReadFull(l.random, b[:]); err != nil {
		return "", nil, fault.New(fault.Unavailable, op, err)
	}
	index := "_" + hex.EncodeToString(b[:])
	if l.sessions == nil || v.NewSession == [32]byte{} {
		return index, nil, nil
	}
	return index, &Joining{Begin: true, Cookie: v.NewSession, Replaces: s.Index, SPName: maps.Clone(done.SPName),
		Session: Session{Index: index, Subject: done.Subject, Authenticated: done.Authenticated}}, nil
}

// Name is what the person is called on pages: given and family name, or the
// company's.
func (i Identity) Name() string {
	if n := strings.TrimSpace(i.Attributes["name"] + " " + i.Attributes["familyName"]); n != "" {
		return n
	}
	return i.Attributes["companyName"]
}
