// Package fault is the one error law of the house: a small, append-only set of
// kinds that tells a caller what to do next, with the sentence a person may
// read kept apart from the private cause.
//
// A border (HTTP, SAML, exit status) decides what to answer by Kind in exactly
// one table; nobody parses error texts. Every package may import this one; it
// imports the standard library only.
package fault

import (
	"errors"
	"fmt"
)

// Kind says what a caller can do about an error. The list is append-only.
type Kind uint8

// The kinds. Retry, Reopen and Fatal classify device and store trouble; the
// others classify what was asked of us.
const (
	Internal    Kind = iota // a defect of ours or an unclassified cause
	Invalid                 // the input is malformed or breaks a rule; do not repeat it
	NotFound                // the named thing does not exist
	Conflict                // it exists already, or somebody changed it meanwhile
	Denied                  // the caller may not
	Exhausted               // a limit of attempts or of time is reached
	Busy                    // no capacity now: answer at once, the caller may come back
	Retry                   // passing trouble: the same call may succeed
	Reopen                  // the device handle is dead: reopen, then repeat
	Fatal                   // an operator must act (wrong PIN, key missing, policy broken)
	Unavailable             // a part we need is down for now
	Expired                 // its time is over
)

var kindNames = [...]string{
	"internal", "invalid", "not found", "conflict", "denied", "exhausted",
	"busy", "retry", "reopen", "fatal", "unavailable", "expired",
}

// String returns the kind's lower-case name, for logs.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Error is an error with a Kind. Op says what was attempted, with which name;
// Public, when not empty, is a sentence that may be shown to the person who
// asked; Err is the private cause and never leaves the process except in logs.
// None of the three may hold a secret.
type Error struct {
	Kind   Kind
	Op     string
	Public string
	Err    error
}

// Error renders "op: kind: cause" for logs.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Op + ": " + e.Kind.String()
	}
	return e.Op + ": " + e.Kind.String() + ": " + e.Err.Error()
}

// Unwrap returns the private cause.
func (e *Error) Unwrap() error { return e.Err }

// New builds an Error without a public sentence. cause may be nil.
func New(kind Kind, op string, cause error) *Error {
	return &Error{Kind: kind, Op: op, Err: cause}
}

// Newf builds an Error whose cause is formatted like fmt.Errorf (so %w works).
func Newf(kind Kind, op, format string, args ...any) *Error {
	return &Error{Kind: kind, Op: op, Err: fmt.Errorf(format, args...)}
}

// KindOf returns the Kind of the first *Error in err's chain, Internal when
// there is none. It must not be asked about a nil error.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}

// Is reports whether err is, or wraps, an *Error whose first kind is kind.
func Is(err error, kind Kind) bool { return err != nil && KindOf(err) == kind }

// Public returns the outermost public sentence in err's chain, or "".
func Public(err error) string {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.Public != "" {
			return e.Public
		}
		err = e.Err
	}
	return ""
}
