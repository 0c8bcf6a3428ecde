package web

import (
	"context"
	"errors"
	"net/http"

	"custode/authcore/saml"
	"custode/internal/fault"
)

// anomalyRow is what a person is shown for an anomaly (manual, Appendix A;
// table of messages of anomaly). The Italian sentences are prescribed and are
// shown in every language; the English ones are ours.
type anomalyRow struct {
	status    int    // of the page
	temporary bool   // shown before the Response is sent
	sentence  string // prescribed, Italian
	advice    string
	english   string
	adviceEN  string
}

const (
	unavailable   = "Sistema di autenticazione non disponibile - Riprovare più tardi"
	unavailableEN = "The authentication system is not available. Try again later."
	later         = "Ripetere l'accesso al servizio più tardi"
	laterEN       = "Repeat the access to the service later."
	notCorrect    = "Formato richiesta non corretto - Contattare il gestore del servizio"
	notCorrectEN  = "The format of the request is not correct."
	contact       = "Contattare il gestore del servizio"
	contactEN     = "Contact the operator of the service."
)

// anomalies has the rows with a sentence for the person; the others are
// reported to the SP only.
var anomalies = map[saml.Code]anomalyRow{
	saml.SystemUnavailable: {status: 503, sentence: unavailable, advice: later, english: unavailableEN, adviceEN: laterEN},
	saml.SystemError:       {status: 500, sentence: unavailable, advice: later, english: unavailableEN, adviceEN: laterEN},
	saml.BadBinding:        {status: 403, sentence: notCorrect, advice: contact, english: notCorrectEN, adviceEN: contactEN},
	saml.BadRedirectSig: {status: 403,
		sentence: "Impossibile stabilire l'autenticità della richiesta di autenticazione - Contattare il gestore del servizio", advice: contact,
		english: "The authenticity of the authentication request cannot be established.", adviceEN: contactEN},
	saml.WrongMethod: {status: 403, sentence: "Formato richiesta non ricevibile - Contattare il gestore del servizio", advice: contact,
		english: "The request cannot be received in this format.", adviceEN: contactEN},
	saml.BadPostSig: {status: 403, sentence: notCorrect, advice: contact, english: notCorrectEN, adviceEN: contactEN},
	saml.BadIssuer:  {status: 403, sentence: notCorrect, advice: contact, english: notCorrectEN, adviceEN: contactEN},
	saml.BadAuthnContext: {status: 200, temporary: true, sentence: "Autenticazione SPID non conforme o non specificata",
		english: "The SPID authentication asked for is not conformant or not specified."},
	saml.NotActive: {status: 200, temporary: true, sentence: "Credenziali sospese o revocate",
		english: "Your credentials are suspended or revoked."},
}

// anomaly is the page of an anomaly that ends with the person.
func (s *Server) anomaly(r request, code saml.Code) answer {
	row, ok := anomalies[code]
	if !ok || row.temporary {
		code, row = saml.SystemError, anomalies[saml.SystemError]
	}
	p := s.newPage(r, "anomaly")
	p.setAnomaly(code, row, r.lang)
	a := s.render(p, row.status)
	if row.status == http.StatusServiceUnavailable {
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
	return s.handOver(ctx, r, &resp)
}
