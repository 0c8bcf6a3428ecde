package web

import (
	"context"
	"net/http"

	"custode/authcore"
	"custode/authcore/saml"
)

// ssoRedirect receives an AuthnRequest by HTTP-Redirect. The query goes on as
// received: its signature covers the percent-encoded octets.
func (s *Server) ssoRedirect(ctx context.Context, r request) answer {
	if r.method != http.MethodGet {
		return s.unreceivable(ctx, r, saml.WrongMethod, "method "+r.methodForLog())
	}
	v, err := s.cfg.Requests.Redirect(r.query, s.cfg.Now())
	return s.begin(ctx, r, v, err)
}

// ssoPost receives an AuthnRequest by HTTP-POST. It comes from the service
// provider's site, so there is no check of the origin: the signature says who
// speaks.
func (s *Server) ssoPost(ctx context.Context, r request) answer {
	if r.method != http.MethodPost {
		return s.unreceivable(ctx, r, saml.WrongMethod, "method "+r.methodForLog())
	}
	if !isForm(r.contentType) {
		return s.unreceivable(ctx, r, saml.BadBinding, "not a form")
	}
	f, err := parseForm(r.body)
	if err != nil {
		s.cfg.Log.Warn("request refused", "error", err, "peer", r.peer.String())
		return s.unreceivable(ctx, r, saml.BadBinding, err.Error())
	}
	relayState, hasRelayState := f["RelayState"]
	v, err := s.cfg.Requests.Post(f["SAMLRequest"], relayState, hasRelayState, s.cfg.Now())
	return s.begin(ctx, r, v, err)
}

// begin starts the flow, gives the browser its secret and leads it to the first
// page with a 303, so that reloading a page never sends the AuthnRequest again.
func (s *Server) begin(ctx context.Context, r request, v saml.VerifiedRequest, err error) answer {
	if err != nil {
		return s.failure(ctx, r, err)
	}
	k, err := newSecret(s.cfg.Random)
	if err != nil {
		return s.failure(ctx, r, err)
	}
	flow, err := s.cfg.Logins.Begin(ctx, v, authcore.Visitor{Browser: k.browser(), Address: r.peer, Agent: r.agent})
	if err != nil {
		return s.failure(ctx, r, err)
	}
	return answer{
		status:   http.StatusSeeOther,
		location: "/flow/" + flow.String(),
		cookies:  append(surplusCookies(r.cookies), k.cookie(flow, s.cfg.FlowLife)),
	}
}
