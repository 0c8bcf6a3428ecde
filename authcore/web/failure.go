package web

import (
	"context"
	"errors"
	"net/http"

	"custode/authcore/saml"
	"custode/internal/fault"
)

// anomaly is the page of an anomaly that ends with the person.
func (s *Server) anomaly(r request, code saml.Code) answer {
	row, ok := saml.Anomaly(code)
	if !ok || row.Response {
		row, _ = saml.Anomaly(saml.SystemError)
	}
	a := s.renderAll(r, "anomaly", row.HTTP, func(p *page) { p.setAnomaly(row) })
	if row.HTTP == http.StatusServiceUnavailable {
		a.retryAfter = 60
	}
	return a
}

// failure is the one place that decides what a person sees of an error. The
// cause goes to the log only.
func (s *Server) failure(ctx context.Context, r request, err error) answer {
	var refused *saml.Refusal
	if errors.As(err, &refused) {
		return s.refusal(ctx, r, refused)
	}
	kind := fault.KindOf(err)
	s.cfg.Log.Warn("login refused", "kind", kind.String(), "error", err, "peer", r.peer.String())
	switch kind {
	case fault.NotFound:
		return s.message(r, http.StatusNotFound, "unknown")
	case fault.Denied:
		return s.message(r, http.StatusForbidden, "browser")
	case fault.Conflict:
		return s.message(r, http.StatusConflict, "finished")
	case fault.Expired:
		return s.message(r, http.StatusGone, "expired")
	case fault.Invalid:
		return s.message(r, http.StatusBadRequest, "bad")
	case fault.Exhausted:
		a := s.message(r, http.StatusTooManyRequests, "wait")
		a.retryAfter = 60
		return a
	case fault.Busy:
		a := s.message(r, http.StatusServiceUnavailable, "busy")
		a.retryAfter = 5
		return a
	case fault.Retry, fault.Reopen, fault.Unavailable:
		return s.anomaly(r, saml.SystemUnavailable)
	}
	return s.anomaly(r, saml.SystemError)
}

// refusal answers an AuthnRequest that broke a rule: a page when nothing may be
// said to the SP, else the signed error Response.
func (s *Server) refusal(ctx context.Context, r request, refused *saml.Refusal) answer {
	s.cfg.Log.Warn("request refused", "anomaly", int(refused.Code), "error", refused, "peer", r.peer.String())
	if refused.Reply == nil {
		return s.anomaly(r, refused.Code)
	}
	resp, err := s.cfg.Logins.Refuse(ctx, refused)
	if err != nil {
		if again := (*saml.Refusal)(nil); errors.As(err, &again) {
			err = fault.Newf(fault.Internal, "refuse request", "refused again")
		}
		return s.failure(ctx, r, err)
	}
	// No level: the request may have asked for none.
	return s.handOver(ctx, r, &resp, spNames{refused.SPName, refused.Reply.SP.String()}, 0)
}
