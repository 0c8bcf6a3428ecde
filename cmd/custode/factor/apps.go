package factor

import (
	"context"
	"log/slog"

	"custode/authcore/register"
	"custode/authcore/web"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/journal"
	"custode/otpvault/issuing"
)

// Security keeps what apps did in the security log (journal.Security).
type Security interface {
	Act(ctx context.Context, e journal.Event) error
}

// Apps serves our app. What it achieved is kept in the security log before it is told; what was
// refused is noted there, counted when it is too much: anybody can ask.
type Apps struct {
	Office   *issuing.Office
	Security Security
	Watch    register.Watch
	Log      *slog.Logger
}

var _ web.Apps = Apps{}

// Redeem implements web.Apps.
func (a Apps) Redeem(ctx context.Context, serial, code string, key []byte) ([]byte, error) {
	s, err := id.ParseSerial(serial)
	if err != nil {
		return nil, err
	}
	subject, parcel, err := a.Office.Redeem(ctx, s, code, key)
	if err := a.keep(ctx, "app-activate", s, subject, err); err != nil {
		return nil, err
	}
	return parcel, nil
}

// Confirm implements web.Apps. An emergency code that cannot be made does not undo the
// activation: an operator can issue one.
func (a Apps) Confirm(ctx context.Context, serial, code string) (string, error) {
	s, err := id.ParseSerial(serial)
	if err != nil {
		return "", err
	}
	subject, err := a.Office.Confirm(ctx, s, code)
	if err := a.keep(ctx, "app-confirm", s, subject, err); err != nil {
		return "", err
	}
	emergency, err := a.Office.IssueEmergency(ctx, subject, true)
	if err != nil {
		if !fault.Is(err, fault.Conflict) {
			a.Log.ErrorContext(ctx, "no emergency code was made", "serial", s.String(), "error", err)
		}
		return "", nil
	}
	return emergency, nil
}

// keep has the outcome kept, under whose device it is when it was a success; the error is the outcome's, or why it could
// not be kept.
func (a Apps) keep(ctx context.Context, what string, s id.Serial, whose id.Subject, outcome error) error {
	if outcome != nil {
		a.Watch.Note(ctx, register.Incident{What: register.AppRefused, Detail: what + " " + s.String() + ": " + fault.KindOf(outcome).String()})
		return outcome
	}
	return a.Security.Act(context.WithoutCancel(ctx), journal.Event{What: what, Actor: "app", Subject: whose.String(), Detail: "serial " + s.String()})
}
