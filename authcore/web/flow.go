package web

import (
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"strings"

	"custode/authcore"
	"custode/authcore/register"
	"custode/authcore/saml"
	"custode/internal/fault"
	"custode/internal/id"
)

// maxFlowForm bounds the body of our own forms, well under Limits.Body.
const maxFlowForm = 16 << 10

// flowPage shows the page of the step where the flow stands.
func (s *Server) flowPage(ctx context.Context, r request, flow id.FlowID) answer {
	path := "/flow/" + flow.String()
	if a, ok := s.switchLanguage(r, path); ok {
		return a
	}
	k, ok := secretOf(r.cookies, flow)
	if !ok {
		return s.message(r, http.StatusForbidden, "browser")
	}
	out, err := s.cfg.Logins.View(ctx, flow, visitor(r, k, flow))
	if err != nil {
		return s.failure(ctx, r, err)
	}
	if out.Response != nil {
		return s.withSession(s.handOver(ctx, r, out, spNames{out.SPName, acsHost(out.Response)}, out.Level), out, k, flow)
	}
	if out.View == nil {
		return s.failure(ctx, r, fault.Newf(fault.Internal, "show flow "+flow.String(), "neither a page nor a response"))
	}
	out.View.Flow = flow // paths, tokens and marks are made of it
	mark := ""
	if f, err := parseForm(r.query); err == nil && k.applyMark(string(f["n"]), out.View, s.cfg.Now()) {
		mark = string(f["n"])
	}
	return s.stepPage(r, k, out.View, mark)
}

// flowAnswer takes what the person did on a page. The answer is a redirect to
// the page of the step reached, or the Response on its way to the SP.
func (s *Server) flowAnswer(ctx context.Context, r request, flow id.FlowID) answer {
	if !s.fromOurPages(r) {
		return s.message(r, http.StatusForbidden, "forged")
	}
	if !isForm(r.contentType) {
		return s.message(r, http.StatusUnsupportedMediaType, "bad")
	}
	if len(r.body) > maxFlowForm {
		return s.message(r, http.StatusRequestEntityTooLarge, "bad")
	}
	f, err := parseForm(r.body)
	if err != nil {
		return s.message(r, http.StatusBadRequest, "bad")
	}
	k, ok := secretOf(r.cookies, flow)
	if !ok {
		return s.message(r, http.StatusForbidden, "browser")
	}
	if !k.checkFormToken(flow, f["token"]) {
		return s.message(r, http.StatusForbidden, "forged")
	}
	a, ok := parseAnswer(f)
	if !ok {
		return s.message(r, http.StatusBadRequest, "bad")
	}
	path := "/flow/" + flow.String()
	out, err := s.cfg.Logins.Answer(ctx, flow, visitor(r, k, flow), a)
	switch {
	case fault.Is(err, fault.Conflict), fault.Is(err, fault.Invalid):
		// An answer to a page that is past, or a double click: show where the
		// flow stands now.
		s.cfg.Log.Info("answer out of turn", "flow", flow.String(), "error", err)
		return answer{status: http.StatusSeeOther, location: path}
	case err != nil:
		return s.failure(ctx, r, err)
	case out.Response != nil:
		return s.withSession(s.handOver(ctx, r, out, spNames{out.SPName, acsHost(out.Response)}, out.Level), out, k, flow)
	case out.View == nil:
		return s.failure(ctx, r, fault.Newf(fault.Internal, "answer in flow "+flow.String(), "neither a page nor a response"))
	}
	out.View.Flow = flow
	if m := k.mark(out.View, s.cfg.Now()); m != "" {
		path += "?n=" + m
	}
	return answer{status: http.StatusSeeOther, location: path}
}

// fromOurPages is the first of the two guards against forged posts (the other
// is the form's token): what the browser says of the page that sends. A request
// that says neither is refused; browsers say one of them since 2020.
func (s *Server) fromOurPages(r request) bool {
	if r.site != "" && r.site != "same-origin" {
		return false
	}
	if r.origin != "" && r.origin != s.origin {
		return false
	}
	return r.site != "" || r.origin != ""
}

// parseAnswer reads the form of a page. Codes lose the blanks that people type
// or paste; passwords lose nothing.
func parseAnswer(f map[string][]byte) (authcore.Answer, bool) {
	switch string(f["action"]) {
	case "password":
		return authcore.PasswordAnswer{Username: string(f["username"]), Password: string(f["password"])}, true
	case "method":
		kind, key, _ := strings.Cut(string(f["method"]), "-")
		for m, value := range methodValues {
			if value == kind {
				return authcore.MethodAnswer{Method: m, Key: key}, true
			}
		}
		return nil, false
	case "other":
		return authcore.OtherAnswer{}, true
	case "resend":
		return authcore.ResendAnswer{}, true
	case "code":
		return authcore.CodeAnswer{Code: string(bytes.Join(bytes.Fields(f["code"]), nil))}, true
	case "consent":
		return authcore.ConsentAnswer{}, true
	case "refuse":
		return authcore.RefuseAnswer{}, true
	case "cancel":
		return authcore.CancelAnswer{}, true
	}
	return nil, false
}

// acsHost names a service provider that has no other name.
func acsHost(resp *saml.Signed) string {
	u, err := url.Parse(resp.ACS)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// handOver sends the Response to the SP through the browser: a form that
// submits itself, or after a button when the table prescribes a page first.
// The flow's cookie is left to expire: a flow that is over accepts nothing, and
// a second click within the same moment still needs it.
// who and level are shown as on the pages before; level 0 is not. What the
// register does not prove to hold stays here.
func (s *Server) handOver(ctx context.Context, r request, out authcore.Outcome, who spNames, level saml.Level) answer {
	resp := out.Response
	if !register.Proved(out.Proof) {
		s.cfg.Log.Error("response without a proof that it was recorded: it does not leave", "response", resp.ID)
		return s.anomaly(r, saml.SystemError)
	}
	u, err := url.Parse(resp.ACS)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		s.cfg.Log.Error("response without a usable address", "response", resp.ID)
		return s.anomaly(r, saml.SystemError)
	}
	acsOrigin := ""
	if u.Scheme == "http" {
		acsOrigin = "http://" + u.Host
	}
	// A code without a row has no sentence either.
	row, _ := saml.Anomaly(resp.Code)
	temporary := row.Response && row.PageIT != ""
	name := "handover"
	if temporary {
		name = "temporary"
	}
	nonce := ""
	if !temporary {
		var b [16]byte
		if _, err := io.ReadFull(s.cfg.Random, b[:]); err != nil {
			return s.failure(ctx, r, fault.New(fault.Unavailable, "draw nonce", err))
		}
		nonce = base64.RawURLEncoding.EncodeToString(b[:])
	}
	document := base64.StdEncoding.EncodeToString(resp.XML)
	a := s.renderAll(r, name, http.StatusOK, func(p *page) {
		p.setService(who, level)
		p.ACS, p.ACSHost = resp.ACS, u.Hostname()
		p.SAMLResponse = document
		p.RelayState, p.HasRelayState = resp.RelayState, resp.HasRelayState
		p.Nonce = nonce
		if temporary {
			p.setAnomaly(row)
		}
	})
	if a.status != http.StatusOK {
		return a
	}
	a.csp = handOverPolicy(nonce, acsOrigin)
	// Some service providers refuse "Origin: null", which no-referrer and
	// same-origin cause across sites; the path stays private.
	a.referrer = "strict-origin"
	return a
}
