package authcore

import (
	"context"
	"time"

	"custode/authcore/register"
	"custode/authcore/saml"
	"custode/internal/fault"
)

// visitorKey carries the Visitor of a call to where an incident is noted.
type visitorKey struct{}

func withVisitor(ctx context.Context, v Visitor) context.Context {
	return context.WithValue(ctx, visitorKey{}, v)
}

func (l *Login) note(ctx context.Context, i register.Incident) {
	v, _ := ctx.Value(visitorKey{}).(Visitor)
	i.Address, i.Agent = v.Address, v.Agent
	l.watch.Note(ctx, i)
}

// ready is nil when the register takes records. The error ends with anomaly 3.
func (l *Login) ready(op string) (uint64, error) {
	records, err := l.register.Ready()
	if err != nil {
		return 0, fault.New(fault.Internal, op, err)
	}
	return records, nil
}

// record has the transaction kept, whoever hung up meanwhile. The error ends
// with anomaly 3.
func (l *Login) record(ctx context.Context, op string, t register.Transaction) (register.Proof, error) {
	ctx, cancel := settle(ctx)
	defer cancel()
	p, err := l.register.Record(ctx, t)
	if err == nil && !register.Proved(p) {
		err = fault.Newf(fault.Internal, op, "the register gave no proof")
	}
	if err != nil {
		l.log.ErrorContext(ctx, "response not recorded: it does not leave", "request", t.RequestID, "sp", t.SP.String(), "response", t.Response.ID, "error", err)
		l.note(ctx, register.Incident{What: register.NotRecorded, SP: t.SP, Request: t.RequestID, Code: t.Response.Code})
		return nil, fault.New(fault.Internal, op, err)
	}
	return p, nil
}

// transaction is what the register keeps of a finished flow.
func (f Flow) transaction(who Identity, signed saml.Signed, at time.Time) register.Transaction {
	t := register.Transaction{At: at, SPIDCode: who.SPIDCode, Level: f.Performed, SP: f.Request.SP, SPName: f.spName(), Requested: f.Request.Attributes,
		RequestID: f.Request.ID, RequestIssued: f.Request.IssueInstant, Request: f.Request.Raw, Response: signed}
	t.Credentials = []string{"password", f.Method.String()}[:min(f.Performed, strongest)]
	if f.Resumed {
		t.Credentials = []string{"session"}
	}
	return t
}
