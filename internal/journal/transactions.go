// Package journal is where the login meets the certified log: it keeps what
// authcore says in the two logs that internal/certlog keeps safe.
//
//	transactions  one record for each Response, as attest.Access writes it
//	security      failures and administrative acts, as Event
//
// It is the seam only: what is a transaction is authcore's word, how a record is
// kept is certlog's. Neither knows the other. Only cmd may import it.
package journal

import (
	"context"
	"time"

	"custode/authcore/register"
	"custode/internal/certlog"
	"custode/internal/certlog/attest"
	"custode/internal/fault"
	"custode/internal/id"
)

// Log is a certified log; *certlog.Log is one.
type Log interface {
	Append(ctx context.Context, r certlog.Record) (certlog.Appended, error)
	Status() certlog.Status
}

// Transactions is the register of transactions; an register.Register.
type Transactions struct {
	log    Log
	entity id.EntityID
	build  string

	// Waits is what the register cost logins: the time from a finished Response to
	// its durable record, failures included.
	Waits Waits
}

var _ register.Register = (*Transactions)(nil)

// NewTransactions keeps transactions of the identity provider in log. build names
// the program in each record.
func NewTransactions(log Log, entity id.EntityID, build string) *Transactions {
	return &Transactions{log: log, entity: entity, build: build}
}

// Ready implements register.Register.
func (t *Transactions) Ready() (uint64, error) {
	s := t.log.Status()
	if s.Broken {
		return 0, fault.Newf(fault.Unavailable, "use the register of transactions", "it cannot be written")
	}
	return s.Records, nil
}

// Record implements register.Register.
func (t *Transactions) Record(ctx context.Context, x register.Transaction) (register.Proof, error) {
	a := attest.Access{
		At: x.At.UTC(), Code: int(x.Response.Code), SPIDCode: x.SPIDCode.String(), Level: int(x.Level), Credentials: x.Credentials,
		SPName: x.SPName, Requested: x.Requested, Build: t.build,
		Request:  attest.Message{ID: x.RequestID, IssueInstant: utc(x.RequestIssued), Issuer: x.SP.String(), XML: x.Request},
		Response: attest.Message{ID: x.Response.ID, IssueInstant: utc(x.Response.IssueInstant), Issuer: t.entity.String(), XML: x.Response.XML},
	}
	if x.Response.AssertionID != "" {
		a.Assertion = attest.Assertion{ID: x.Response.AssertionID, Subject: x.Response.NameID, NameQualifier: t.entity.String()}
	}
	data, err := a.Encode()
	if err != nil {
		return nil, err
	}
	begin := time.Now() // a span, not a moment: the wall clock has no say
	defer func() { t.Waits.add(time.Since(begin)) }()
	return t.log.Append(ctx, certlog.Record{Tag: a.SPIDCode, Data: data})
}

// utc keeps the zero time zero.
func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}
