package site

import (
	"crypto/rand"
	"net/http"

	"custode/simulators/spsim/slo"
)

// serveLeave ends the login everywhere: it sends the browser to the identity
// provider with a LogoutRequest. A login of level 2 or 3 has no session there.
func (s *site) serveLeave(w http.ResponseWriter, r *http.Request) {
	v, _ := s.browsers.get(cookieOf(r), s.cfg.Now())
	s.browsers.forget(cookieOf(r))
	if v.login == nil || v.login.SessionIndex == "" {
		s.goTo(w, r, "/")
		return
	}
	location, _, err := s.party.Redirect(slo.Session{NameID: v.login.NameID, Index: v.login.SessionIndex}, slo.Options{RelayState: rand.Text()})
	if err != nil {
		s.showProblem(w, noRequest)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, location, http.StatusFound)
}

// serveLeft tells the person how the logout ended.
func (s *site) serveLeft(w http.ResponseWriter, _ *http.Request, result slo.Result) {
	text := "Sei uscito da questo servizio e da tutti gli altri a cui avevi avuto accesso con la stessa sessione."
	outcome := "uscita"
	if !result.Success() {
		outcome = "uscita-parziale"
		text = "Sei uscito da questo servizio. Qualche altro servizio potrebbe non aver chiuso la propria sessione: chiudi il browser."
	}
	s.show(w, http.StatusOK, "uscita", "form-action 'none'", struct {
		frame
		Text string
	}{s.frame("Uscita", outcome), text})
}
