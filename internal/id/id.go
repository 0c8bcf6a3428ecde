// Package id holds the parsed identifier types that cross package borders.
//
// A value of these types exists only if its Parse function (or New, for the
// random ones) accepted it, so a string from outside can reach an AT command,
// SQL, XML, a path or a log only in a shape that is harmless there. The zero
// value of each type means "none" and is refused by the code that needs one.
// The package imports internal/fault and the standard library only.
package id

import (
	"encoding/hex"
	"io"
	"regexp"
	"strings"

	"custode/internal/fault"
)

// text is the shared body of the identifier types.
type text struct{ s string }

// String returns the canonical text, "" for the zero value.
func (t text) String() string { return t.s }

// IsZero reports whether the identifier was never set.
func (t text) IsZero() bool { return t.s == "" }

// MarshalText returns the canonical text.
func (t text) MarshalText() ([]byte, error) { return []byte(t.s), nil }

func refuse(what string) error {
	// The refused text is not repeated: it may be long, hostile or a secret
	// typed into the wrong field.
	return fault.Newf(fault.Invalid, "parse "+what, "malformed %s", what)
}

// Subject is the internal, never published, key of the person logging in:
// "s_" and 32 lower-case hexadecimal digits.
type Subject struct{ text }

// FlowID names one login in progress: "f_" and 32 hexadecimal digits. It may
// stand in a URL: without the browser's cookie it opens nothing.
type FlowID struct{ text }

// ChallengeID names an issued code: "c_" and 32 hexadecimal digits.
type ChallengeID struct{ text }

// MessageID names an SMS in the outbox: "m_" and 32 hexadecimal digits.
type MessageID struct{ text }

// LogoutID names the end of one browser session being told to its service
// providers: "l_" and 32 hexadecimal digits. It may stand in a URL: without the
// browser's cookie it opens nothing.
type LogoutID struct{ text }

var hex32 = regexp.MustCompile(`^[0-9a-f]{32}$`)

func parseRandom(prefix, what, s string) (text, error) {
	rest, ok := strings.CutPrefix(s, prefix)
	if !ok || !hex32.MatchString(rest) {
		return text{}, refuse(what)
	}
	return text{s}, nil
}

func newRandom(prefix string, random io.Reader) (text, error) {
	var b [16]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return text{}, fault.New(fault.Unavailable, "draw identifier", err)
	}
	return text{prefix + hex.EncodeToString(b[:])}, nil
}

// NewSubject draws 128 bits from random. It fails only when random does.
func NewSubject(random io.Reader) (Subject, error) {
	t, err := newRandom("s_", random)
	return Subject{t}, err
}

// ParseSubject accepts the form NewSubject makes; else fault.Invalid.
func ParseSubject(s string) (Subject, error) {
	t, err := parseRandom("s_", "subject", s)
	return Subject{t}, err
}

// UnmarshalText parses b as ParseSubject does; empty text gives the zero value.
func (x *Subject) UnmarshalText(b []byte) error { return unmarshal(x, b, ParseSubject) }

// NewFlowID draws 128 bits from random. It fails only when random does.
func NewFlowID(random io.Reader) (FlowID, error) {
	t, err := newRandom("f_", random)
	return FlowID{t}, err
}

// ParseFlowID accepts the form NewFlowID makes; else fault.Invalid.
func ParseFlowID(s string) (FlowID, error) {
	t, err := parseRandom("f_", "flow identifier", s)
	return FlowID{t}, err
}

// UnmarshalText parses b as ParseFlowID does; empty text gives the zero value.
func (x *FlowID) UnmarshalText(b []byte) error { return unmarshal(x, b, ParseFlowID) }

// NewChallengeID draws 128 bits from random. It fails only when random does.
func NewChallengeID(random io.Reader) (ChallengeID, error) {
	t, err := newRandom("c_", random)
	return ChallengeID{t}, err
}

// ParseChallengeID accepts the form NewChallengeID makes; else fault.Invalid.
func ParseChallengeID(s string) (ChallengeID, error) {
	t, err := parseRandom("c_", "challenge identifier", s)
	return ChallengeID{t}, err
}

// UnmarshalText parses b as ParseChallengeID does; empty text gives the zero value.
func (x *ChallengeID) UnmarshalText(b []byte) error { return unmarshal(x, b, ParseChallengeID) }

// NewMessageID draws 128 bits from random. It fails only when random does.
func NewMessageID(random io.Reader) (MessageID, error) {
	t, err := newRandom("m_", random)
	return MessageID{t}, err
}

// ParseMessageID accepts the form NewMessageID makes; else fault.Invalid.
func ParseMessageID(s string) (MessageID, error) {
	t, err := parseRandom("m_", "message identifier", s)
	return MessageID{t}, err
}

// UnmarshalText parses b as ParseMessageID does; empty text gives the zero value.
func (x *MessageID) UnmarshalText(b []byte) error { return unmarshal(x, b, ParseMessageID) }

// unmarshal lets the empty text stand for the zero value, as MarshalText writes it.
func unmarshal[T any](x *T, b []byte, parse func(string) (T, error)) error {
	if len(b) == 0 {
		var zero T
		*x = zero
		return nil
	}
	v, err := parse(string(b))
	if err != nil {
		return err
	}
	*x = v
	return nil
}

// NewLogoutID draws 128 bits from random. It fails only when random does.
func NewLogoutID(random io.Reader) (LogoutID, error) {
	t, err := newRandom("l_", random)
	return LogoutID{t}, err
}

// ParseLogoutID accepts the form NewLogoutID makes; else fault.Invalid.
func ParseLogoutID(s string) (LogoutID, error) {
	t, err := parseRandom("l_", "logout identifier", s)
	return LogoutID{t}, err
}

// UnmarshalText parses b as ParseLogoutID does; empty text gives the zero value.
func (x *LogoutID) UnmarshalText(b []byte) error { return unmarshal(x, b, ParseLogoutID) }
