package saml

import (
	"errors"
	"regexp"
	"time"
)

// instantLayout has exactly three fractional digits: SPs exist that parse only
// 0, 3 or 6 of them, and Go's RFC3339Nano drops trailing zeros.
const instantLayout = "2006-01-02T15:04:05.000Z"

var instantForm = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?Z$`)

// ParseInstant reads an xs:dateTime in UTC with 0 to 9 fractional digits. An
// offset or a missing zone is refused.
func ParseInstant(s string) (time.Time, error) {
	if !instantForm.MatchString(s) {
		return time.Time{}, errors.New("malformed instant")
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}, errors.New("impossible instant")
	}
	return t.UTC(), nil
}

// FormatInstant truncates to the millisecond: rounding up could name a moment
// after the receiver's clock.
func FormatInstant(t time.Time) string { return t.UTC().Format(instantLayout) }

// issueInstant returns the moment to issue at: now in whole milliseconds, but
// never before the request. SPs compare the two with their milliseconds, and
// their clock may be ahead of ours.
func issueInstant(now, requested time.Time) time.Time {
	t := now.UTC().Truncate(time.Millisecond)
	if requested.After(t) {
		t = requested.UTC().Truncate(time.Millisecond)
		if t.Before(requested) {
			t = t.Add(time.Millisecond)
		}
	}
	return t
}
