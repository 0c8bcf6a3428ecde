package authcore

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"custode/authcore/attribute"
	"custode/internal/fault"
	"custode/internal/id"
)

// NewIdentityInput is the plain input an identity is made of, as an operator or
// a file gives it. Random and Now are required.
type NewIdentityInput struct {
	Username string // see id.ParseUsername
	SPIDCode string // see id.ParseSPIDCode
	Type     string // see ParseIdentityType
	Phone    string // verified mobile number, or "" for no SMS credential
	// Attributes by SPID name. Empty values are left out. fiscalNumber may
	// come without "TINIT-". spidCode may be absent; if given it must be the
	// SPIDCode.
	Attributes map[string]string
	Random     io.Reader // for the subject key
	Now        time.Time
}

// NewIdentity parses the input to an active identity with a new subject key and
// without a password: hash one for its Subject and set it. fault.Invalid names
// the field and never repeats its value.
func NewIdentity(in NewIdentityInput) (Identity, error) {
	const op = "make identity"
	if in.Random == nil || in.Now.IsZero() {
		return Identity{}, fault.Newf(fault.Invalid, op, "no randomness or no time")
	}
	u, err := id.ParseUsername(in.Username)
	if err != nil {
		return Identity{}, err
	}
	code, err := id.ParseSPIDCode(in.SPIDCode)
	if err != nil {
		return Identity{}, err
	}
	var phone id.Phone
	if in.Phone != "" {
		if phone, err = id.ParsePhone(in.Phone); err != nil {
			return Identity{}, err
		}
	}
	kind, err := ParseIdentityType(in.Type)
	if err != nil {
		return Identity{}, err
	}
	if len(in.Attributes) > len(attribute.Names()) {
		return Identity{}, fault.Newf(fault.Invalid, op, "%d attributes", len(in.Attributes))
	}
	attributes := make(map[string]string, len(in.Attributes))
	for name, value := range in.Attributes {
		value, err := attribute.Parse(name, value, in.Now)
		if err != nil {
			return Identity{}, err
		}
		if name == "spidCode" && value != "" && value != code.String() {
			return Identity{}, fault.Newf(fault.Invalid, op, "attribute spidCode is not the SPID code")
		}
		if value != "" && name != "spidCode" {
			attributes[name] = value
		}
	}
	if err := kind.checkAttributes(attributes); err != nil {
		return Identity{}, err
	}
	subject, err := id.NewSubject(in.Random)
	if err != nil {
		return Identity{}, err
	}
	return Identity{Subject: subject, Username: u, SPIDCode: code, Type: kind, State: Active, Phone: phone,
		Attributes: attributes, Created: in.Now.UTC()}, nil
}

// Suspend returns the identity suspended for reason (manual 9.2.2).
// fault.Conflict unless it is active.
func (i Identity) Suspend(reason string) (Identity, error) {
	return i.become(Suspended, reason, Active)
}

// Restore returns the identity active again. fault.Conflict unless it is
// suspended: revocation is final.
func (i Identity) Restore() (Identity, error) { return i.become(Active, "", Suspended) }

// Revoke returns the identity revoked for reason, for ever. fault.Conflict when
// it was revoked before.
func (i Identity) Revoke(reason string) (Identity, error) {
	return i.become(Revoked, reason, Active, Suspended)
}

// mostReason bounds an operator's words, in bytes.
const mostReason = 200

func (i Identity) become(to State, reason string, from ...State) (Identity, error) {
	op := fmt.Sprintf("set state of identity %s to %s", i.Subject, to)
	reason = strings.TrimSpace(reason)
	if (reason == "") != (to == Active) || len(reason) > mostReason || strings.ContainsFunc(reason, unicode.IsControl) {
		return i, fault.Newf(fault.Invalid, op, "a reason of 1 to %d printable bytes is needed", mostReason)
	}
	for _, s := range from {
		if i.State == s {
			i.State, i.Reason = to, reason
			return i, nil
		}
	}
	return i, fault.Newf(fault.Conflict, op, "it is %s", i.State)
}

// String returns the state's lower-case name.
func (s State) String() string {
	switch s {
	case Active:
		return "active"
	case Suspended:
		return "suspended"
	case Revoked:
		return "revoked"
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}
