package session

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"custode/authcore/register"
	"custode/internal/fault"
)

// Ends finds what ended without anybody at hand to say so.
type Ends interface {
	// OverdueSessions lists open sessions that were used last, or began, before those moments.
	OverdueSessions(ctx context.Context, usedBefore, createdBefore time.Time, most int) ([]Record, error)
	// UnnotedSessions lists those that ended before the moment, until NoteSession.
	UnnotedSessions(ctx context.Context, endedBefore time.Time, most int) ([]Record, error)
	NoteSession(ctx context.Context, index string) error
	// OverdueLogouts lists logouts past their deadline that are not Over.
	OverdueLogouts(ctx context.Context, before time.Time, most int) ([]Logout, error)
}

// visitorKey carries address and agent of a call to where its end is noted.
type visitorKey struct{}

type visitor struct {
	address netip.Addr
	agent   string
}

// WithVisitor returns a context that says who asks, for the security log.
func WithVisitor(ctx context.Context, address netip.Addr, agent string) context.Context {
	return context.WithValue(ctx, visitorKey{}, visitor{address, agent})
}

func (s *Sessions) note(ctx context.Context, i register.Incident) {
	v, _ := ctx.Value(visitorKey{}).(visitor)
	i.Address, i.Agent = v.address, v.agent
	s.Watch.Note(ctx, i)
}

// noteEnd says who ended the session and who is told.
func (s *Sessions) noteEnd(ctx context.Context, r Record, l Logout) {
	by := "the subject"
	if !l.Initiator.SP.IsZero() {
		by = "a service provider"
	}
	var told []string
	for _, p := range l.Parts {
		told = append(told, p.SP.String())
	}
	s.note(ctx, register.Incident{What: register.SessionEnded, Subject: r.Subject, SP: l.Initiator.SP, Request: l.Initiator.Request,
		Detail: fmt.Sprintf("session %s: by %s; %d others to be told: %s", r.Index, by, len(told), strings.Join(told, " "))})
	s.forget(ctx, r)
	if len(l.Parts) > 0 && l.Over() { // none of them can be told
		s.noteOutcome(ctx, l)
	}
}

// noteOver says that a session ended without a logout: nobody is told.
func (s *Sessions) noteOver(ctx context.Context, r Record, why string) {
	s.note(ctx, register.Incident{What: register.SessionEnded, Subject: r.Subject, Detail: fmt.Sprintf("session %s: %s; nobody is told", r.Index, why)})
	s.forget(ctx, r)
}

// forget marks the end as noted; else Sweep notes it again.
func (s *Sessions) forget(ctx context.Context, r Record) {
	if err := s.Ends.NoteSession(ctx, r.Index); err != nil {
		s.Log.WarnContext(ctx, "the end of a session will be noted again", "session", r.Index, "error", err)
	}
}

// noteTold says what came of a logout once nobody is left to be told, and again
// when a late answer changes it.
func (s *Sessions) noteTold(ctx context.Context, before, after Logout) {
	same := slices.EqualFunc(before.Parts, after.Parts, func(a, b Part) bool { return a.State == b.State })
	if after.Over() && !same {
		s.noteOutcome(ctx, after)
	}
}

func (s *Sessions) noteOutcome(ctx context.Context, l Logout) {
	named := func(state State) string {
		var all []string
		for _, p := range l.Parts {
			if p.State == state {
				all = append(all, p.SP.String())
			}
		}
		if len(all) == 0 {
			return "none"
		}
		return strings.Join(all, " ")
	}
	i := register.Incident{What: register.LogoutTold, SP: l.Initiator.SP, Request: l.Initiator.Request,
		Detail: fmt.Sprintf("session %s; not confirmed: %s; confirmed: %s", l.Session, named(Failed), named(Done))}
	s.note(ctx, i)
}

const (
	endsAtOnce = 500 // bounds what one Sweep takes of each kind
	// unnoted is above the time between the end of a session and its note.
	unnoted = 30 * time.Second
)

// Sweep ends sessions whose time is over and logouts that nobody went on with, and
// has them, sessions that another login replaced, and ends that a crash kept from
// it, in the security log: soon after their end, once, or twice after a crash.
func (s *Sessions) Sweep(ctx context.Context) error {
	now := s.Now()
	over, err := s.Ends.OverdueSessions(ctx, now.Add(-s.Policy.Idle), now.Add(-s.Policy.Absolute), endsAtOnce)
	if err != nil {
		return err
	}
	for _, r := range over {
		err := s.Logouts.EndSession(ctx, r.Index, now, Logout{})
		if fault.Is(err, fault.Conflict) {
			continue // somebody ended it, and notes that
		}
		if err != nil {
			return err
		}
		s.noteOver(ctx, r, "its time was over")
	}
	left, err := s.Ends.UnnotedSessions(ctx, now.Add(-unnoted), endsAtOnce)
	if err != nil {
		return err
	}
	for _, r := range left {
		l, err := s.Logouts.LogoutOfSession(ctx, r.Index)
		switch {
		case err == nil:
			s.noteEnd(ctx, r, l)
		case fault.Is(err, fault.NotFound):
			s.noteOver(ctx, r, "another person logged in in the same browser, or its time was over")
		default:
			return err
		}
	}
	logouts, err := s.Ends.OverdueLogouts(ctx, now, endsAtOnce)
	if err != nil {
		return err
	}
	for _, l := range logouts {
		before := l
		l.giveUp(func(Part) bool { return true })
		if err := s.Logouts.SaveLogout(ctx, l); fault.Is(err, fault.Conflict) {
			continue
		} else if err != nil {
			return err
		}
		s.noteTold(ctx, before, l)
	}
	return nil
}
