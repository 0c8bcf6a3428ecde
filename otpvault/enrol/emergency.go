package enrol

import (
	"context"
	"crypto/subtle"
	"encoding/base32"
	"io"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
)

const (
	// EmergencyTries wrong codes make an emergency code void.
	EmergencyTries   = 5
	emergencyLength  = 20 // characters, 100 bits
	emergencyPurpose = "custode otp emergency 1"
)

// Emergency is a subject's emergency code as the store keeps it: the way to have one's
// identity suspended, a device replaced or a revocation begun without a code of a
// device (life cycle, I13). It is used once. A rule returns the record that must
// replace it, durably and only if Version is still the same, before anything is told.
type Emergency struct {
	Version uint64
	Subject id.Subject
	MAC     []byte // over purpose, subject and code
	Left    int    // tries
	Used    bool
	Created time.Time
}

// IssueEmergency draws an emergency code, 20 letters and digits in groups of four, that
// takes the place of before (zero: there was none).
func IssueEmergency(ctx context.Context, by MAC, random io.Reader, subject id.Subject, before Emergency, now time.Time) (Emergency, string, error) {
	const op = "issue emergency code"
	if subject.IsZero() || now.IsZero() || !before.Subject.IsZero() && before.Subject != subject {
		return Emergency{}, "", fault.Newf(fault.Invalid, op, "no subject or time, or another subject's")
	}
	var b [(emergencyLength*5 + 7) / 8]byte
	defer clear(b[:])
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return Emergency{}, "", fault.New(trouble(err), op, err)
	}
	code := base32.StdEncoding.EncodeToString(b[:])[:emergencyLength]
	e := Emergency{Version: before.Version + 1, Subject: subject, Left: EmergencyTries, Created: now}
	var err error
	if e.MAC, err = codeMAC(ctx, by, emergencyPurpose, subject.String(), code); err != nil {
		return Emergency{}, "", err
	}
	return e, grouped(code), nil
}

// Redeem judges a typed emergency code; the errors are those of Activation.Redeem,
// but it does not expire.
func (e Emergency) Redeem(ctx context.Context, by MAC, typed string) (Emergency, error) {
	op := "redeem emergency code of " + e.Subject.String()
	switch {
	case e.Used:
		return e, fault.Newf(fault.Conflict, op, "the code was used")
	case e.Left <= 0:
		return e, fault.Newf(fault.Exhausted, op, "no try is left")
	}
	code, err := canonical(typed, emergencyLength, "emergency code")
	if err != nil {
		return e, err
	}
	mac, err := codeMAC(ctx, by, emergencyPurpose, e.Subject.String(), code)
	if err != nil {
		return e, err
	}
	right := subtle.ConstantTimeCompare(mac, e.MAC) == 1
	e.Version, e.Left = e.Version+1, e.Left-1
	if !right {
		return e, fault.Newf(fault.Denied, op, "wrong code, %d tries left", e.Left)
	}
	e.Used = true
	return e, nil
}
