package store

import (
	"context"
	"encoding/json"
	"time"

	"custode/authcore"
	"custode/authcore/saml"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store/hide"
	"custode/internal/store/sqlite"
)

var _ authcore.Flows = (*DB)(nil)

// documentVersion is in all JSON documents. A program refuses documents of a
// version it does not know; a field that is added needs a new number and a
// reader for the old one, unless all flows may be dropped (they live minutes).
const documentVersion = 3

// progressDocument is the part of a flow that steps change, beyond the columns.
type progressDocument struct {
	V             int
	WrongPassword int
	WrongCode     int
	Subject       id.Subject
	Method        authcore.Method
	Challenge     id.ChallengeID
	CodesIssued   int
	Performed     saml.Level
	Authenticated int64
	Outcome       saml.Code
	Session       string
	Resumed       bool
}

// requestDocument is the part that never changes after CreateFlow, beyond the
// columns sp and request_id and the raw document.
type requestDocument struct {
	V             int
	Started       int64
	SPName        map[string]string
	IssueInstant  int64
	Binding       saml.Binding
	Level         saml.Level
	Comparison    saml.Comparison
	ForceAuthn    bool
	ACS           string
	HasAttributes bool
	Attributes    []string
	RelayState    []byte // octets as received: a JSON string would mend them
	HasRelayState bool
	Purpose       string
}

// flowsPerRequest is how many flows one AuthnRequest may begin: a reload or two.
// Whoever holds a signed request can send it as often as they like while it is
// fresh, and each flow is kept for an hour.
const flowsPerRequest = 8

// CreateFlow implements authcore.Flows. fault.Conflict when the flow exists.
func (db *DB) CreateFlow(ctx context.Context, f authcore.Flow) error {
	op := "create flow " + f.ID.String()
	if f.ID.IsZero() || f.Request.SP.IsZero() || f.Request.ID == "" {
		return fault.Newf(fault.Invalid, op, "flow, SP or request identifier missing")
	}
	progress, err := encodeProgress(f)
	if err != nil {
		return err
	}
	request, err := encodeRequest(f)
	if err != nil {
		return err
	}
	return db.write(ctx, op, func(q *sqlite.Queries) error {
		seen, err := q.CountRequest(ctx, sqlite.CountRequestParams{Sp: f.Request.SP.String(), RequestID: f.Request.ID})
		switch {
		case err != nil:
			return err
		case seen.Answers > 0:
			return fault.Newf(fault.Conflict, op, "the request was answered before")
		case seen.Flows >= flowsPerRequest:
			return fault.Newf(fault.Exhausted, op, "%d flows of the request", seen.Flows)
		}
		if err := q.InsertFlow(ctx, sqlite.InsertFlowParams{
			ID: f.ID.String(), Step: int64(f.Step), Deadline: nanos(f.Deadline), Browser: f.Browser[:],
			Sp: f.Request.SP.String(), RequestID: f.Request.ID, Progress: progress,
		}); err != nil {
			return err
		}
		return q.InsertFlowRequest(ctx, sqlite.InsertFlowRequestParams{FlowID: f.ID.String(),
			Document: db.hideText(hide.FlowDocument, f.ID.String(), request), Raw: db.ring.Hide(hide.FlowRaw, f.ID.String(), f.Request.Raw),
		})
	})
}

// Flow implements authcore.Flows.
func (db *DB) Flow(ctx context.Context, flow id.FlowID) (authcore.Flow, error) {
	op := "read flow " + flow.String()
	row, err := db.read().GetFlow(ctx, flow.String())
	if err != nil {
		return authcore.Flow{}, mapError(op, err)
	}
	f, err := db.showFlow(flow, row)
	if err != nil {
		return authcore.Flow{}, fault.New(fault.Internal, op, err)
	}
	return f, nil
}

// showFlow opens the boxes of a row and decodes it.
func (db *DB) showFlow(flow id.FlowID, row sqlite.GetFlowRow) (f authcore.Flow, err error) {
	if row.Document, err = db.ring.Show(hide.FlowDocument, flow.String(), row.Document); err != nil {
		return authcore.Flow{}, err
	}
	if row.Raw, err = db.ring.Show(hide.FlowRaw, flow.String(), row.Raw); err != nil {
		return authcore.Flow{}, err
	}
	return decodeFlow(flow, row)
}

// SaveFlow implements authcore.Flows. The request is what CreateFlow stored: of
// f.Request only SP and ID are looked at, and must be the stored ones.
func (db *DB) SaveFlow(ctx context.Context, f authcore.Flow) error {
	return db.write(ctx, "save flow "+f.ID.String(), func(q *sqlite.Queries) error { return saveFlow(ctx, q, f) })
}

func saveFlow(ctx context.Context, q *sqlite.Queries, f authcore.Flow) error {
	progress, err := encodeProgress(f)
	if err != nil {
		return err
	}
	n, err := q.UpdateFlow(ctx, sqlite.UpdateFlowParams{
		Step: int64(f.Step), Deadline: nanos(f.Deadline), Browser: f.Browser[:], Progress: progress,
		ID: f.ID.String(), Version: f.Version, Sp: f.Request.SP.String(), RequestID: f.Request.ID,
	})
	if err != nil {
		return err
	}
	if n != 1 {
		return fault.Newf(fault.Conflict, "save flow "+f.ID.String(), "the stored row is not version %d of this request", f.Version)
	}
	return nil
}

// FinishFlow implements authcore.Flows. Beyond the contract it fails with
// fault.Denied when a success is to be recorded for an identity that is not (or
// no longer) active, and then nothing may leave either.
func (db *DB) FinishFlow(ctx context.Context, f authcore.Flow, a authcore.Answered) error {
	op := "finish flow " + f.ID.String()
	if db.issuer.IsZero() {
		return fault.Newf(fault.Fatal, op, "the store was opened without the issuer's entityID")
	}
	success := a.Response.Code == saml.Success
	if a.Response.ID == "" || len(a.Response.XML) == 0 || success && (f.Subject.IsZero() || a.SPIDCode.IsZero()) {
		return fault.Newf(fault.Invalid, op, "response or subject missing")
	}
	return db.write(ctx, op, func(q *sqlite.Queries) error {
		if err := saveFlow(ctx, q, f); err != nil {
			return err
		}
		if err := q.InsertAnswer(ctx, sqlite.InsertAnswerParams{
			FlowID: f.ID.String(), RequestIssued: nanos(f.Request.IssueInstant), Code: int64(a.Response.Code),
			ResponseID: a.Response.ID, ResponseIssued: nanos(a.Response.IssueInstant), ResponseIssuer: db.issuer.String(),
			AssertionID: a.Response.AssertionID, Answered: nanos(a.At),
		}); err != nil {
			return err
		}
		if a.Floor > 0 {
			if err := q.RaiseFloor(ctx, sqlite.RaiseFloorParams{Log: transactionLog, Records: int64(a.Floor)}); err != nil {
				return err
			}
		}
		if !success {
			return nil
		}
		if err := joinSession(ctx, q, f, a); err != nil {
			return err
		}
		n, err := q.UpdateIdentityLastLogin(ctx, sqlite.UpdateIdentityLastLoginParams{
			LastLogin: nanos(a.At), Subject: f.Subject.String(), RequiredState: int64(authcore.Active),
		})
		if err != nil {
			return err
		}
		if n != 1 {
			return fault.Newf(fault.Denied, op, "subject %s is not an active identity", f.Subject)
		}
		return nil
	})
}

// Answer is the claim of a request: that it was answered, when and by which Response. Who was logged in,
// and both documents, are in the certified log only.
type Answer struct {
	Flow           id.FlowID
	SP             id.EntityID // issuer of the request
	RequestID      string
	RequestIssued  time.Time
	Code           saml.Code
	ResponseID     string
	ResponseIssued time.Time
	ResponseIssuer id.EntityID
	AssertionID    string // "" in an error Response
	Answered       time.Time
}

// Answer returns how a request was answered; fault.NotFound when it was not.
func (db *DB) Answer(ctx context.Context, sp id.EntityID, requestID string) (Answer, error) {
	op := "read answer to a request of " + sp.String()
	row, err := db.read().GetAnswer(ctx, sqlite.GetAnswerParams{Sp: sp.String(), RequestID: requestID})
	if err != nil {
		return Answer{}, mapError(op, err)
	}
	a := Answer{
		SP: sp, RequestID: requestID, RequestIssued: instant(row.RequestIssued), Code: saml.Code(row.Code),
		ResponseID: row.ResponseID, ResponseIssued: instant(row.ResponseIssued), AssertionID: row.AssertionID,
		Answered: instant(row.Answered),
	}
	if err := parseAll(field{&a.Flow, row.FlowID}, field{&a.ResponseIssuer, row.ResponseIssuer}); err != nil {
		return Answer{}, fault.New(fault.Internal, op, err)
	}
	return a, nil
}

func encodeProgress(f authcore.Flow) (string, error) {
	return encode("encode flow "+f.ID.String(), progressDocument{
		V: documentVersion, WrongPassword: f.WrongPassword, WrongCode: f.WrongCode, Subject: f.Subject, Method: f.Method,
		Challenge: f.Challenge, CodesIssued: f.CodesIssued, Performed: f.Performed, Authenticated: nanos(f.Authenticated), Outcome: f.Outcome,
		Session: f.Session, Resumed: f.Resumed,
	})
}

func encodeRequest(f authcore.Flow) (string, error) {
	r := f.Request
	return encode("encode request of flow "+f.ID.String(), requestDocument{
		V: documentVersion, Started: nanos(f.Started), SPName: f.SPName, IssueInstant: nanos(r.IssueInstant), Binding: r.Binding,
		Level: r.Level, Comparison: r.Comparison, ForceAuthn: r.ForceAuthn, ACS: r.ACS, HasAttributes: r.HasAttributes,
		Attributes: r.Attributes, RelayState: []byte(r.RelayState), HasRelayState: r.HasRelayState, Purpose: r.Purpose,
	})
}

func decodeFlow(flow id.FlowID, row sqlite.GetFlowRow) (authcore.Flow, error) {
	var p progressDocument
	var r requestDocument
	if err := decode(row.Progress, &p, &p.V, documentVersion); err != nil {
		return authcore.Flow{}, err
	}
	if err := decode(string(row.Document), &r, &r.V, documentVersion); err != nil {
		return authcore.Flow{}, err
	}
	f := authcore.Flow{
		ID: flow, SPName: r.SPName, Step: authcore.Step(row.Step), Started: instant(r.Started), Deadline: instant(row.Deadline),
		WrongPassword: p.WrongPassword, WrongCode: p.WrongCode, Subject: p.Subject, Method: p.Method, Challenge: p.Challenge,
		CodesIssued: p.CodesIssued, Performed: p.Performed, Authenticated: instant(p.Authenticated), Outcome: p.Outcome, Version: row.Version,
		Session: p.Session, Resumed: p.Resumed,
		Request: saml.Request{
			ID: row.RequestID, IssueInstant: instant(r.IssueInstant), Binding: r.Binding, Level: r.Level, Comparison: r.Comparison,
			ForceAuthn: r.ForceAuthn, ACS: r.ACS, HasAttributes: r.HasAttributes, Attributes: r.Attributes,
			RelayState: string(r.RelayState), HasRelayState: r.HasRelayState, Purpose: r.Purpose, Raw: row.Raw,
		},
	}
	if len(row.Browser) != len(f.Browser) {
		return authcore.Flow{}, fault.Newf(fault.Internal, "decode flow", "browser hash has %d octets", len(row.Browser))
	}
	copy(f.Browser[:], row.Browser)
	return f, parseAll(field{&f.Request.SP, row.Sp})
}

func encode(op string, v any) (string, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return "", fault.New(fault.Internal, op, err)
	}
	return string(b), nil
}
