package web

import (
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"custode/authcore"
	"custode/authcore/register"
	"custode/authcore/saml"
	"custode/authcore/saml/logout"
	"custode/authcore/saml/query"
	"custode/authcore/session"
	"custode/internal/fault"
	"custode/internal/id"
)

const (
	sessionCookie = "__Host-session"
	logoutCookie  = "__Host-logout"
)

// sessionRoute finds the handler of a session's or logout's address.
func (s *Server) sessionRoute(ctx context.Context, r request) (string, answer, bool) {
	ctx = session.WithVisitor(ctx, r.peer, r.agent)
	if text, ok := strings.CutPrefix(r.path, "/logout/"); ok {
		return "logout", s.logout(ctx, r, text), true
	}
	switch r.path {
	case "/slo/redirect":
		return "slo-redirect", s.sloRedirect(ctx, r), true
	case "/slo/post":
		return "slo-post", s.sloPost(ctx, r), true
	case "/slo/soap":
		return "slo-soap", s.sloSOAP(ctx, r), true
	case "/session":
		return "session", s.session(ctx, r), true
	}
	return "", answer{}, false
}

// sessionOf is the hash of the browser's session cookie, zero for none.
func sessionOf(r request) [32]byte {
	k, ok := parseSecret(cookieValue(r.cookies, sessionCookie))
	if !ok {
		return [32]byte{}
	}
	return k.browser()
}

// newSession is the secret of the session that a flow may begin. It is derived
// from the flow's, so that a second click on the last button sets the same one.
func (k secret) newSession(flow id.FlowID) (s secret) {
	copy(s[:], k.mac("session", flow, ""))
	return s
}

func visitor(r request, k secret, flow id.FlowID) authcore.Visitor {
	return authcore.Visitor{Browser: k.browser(), Address: r.peer, Agent: r.agent, Session: sessionOf(r), NewSession: k.newSession(flow).browser()}
}

// newLogout is the secret of the logout that ends the session with secret k.
func (k secret) newLogout() (s secret) {
	copy(s[:], k.mac("logout", noID{}, ""))
	return s
}

// withSession gives the browser the cookie of the session that began. It outlives
// the session, so that a logout begun at its last moment knows the browser.
func (s *Server) withSession(a answer, out authcore.Outcome, k secret, flow id.FlowID) answer {
	if out.SessionBegan && s.cfg.Sessions != nil {
		began := k.newSession(flow)
		a.cookies = append(a.cookies, setCookie(sessionCookie, base64.RawURLEncoding.EncodeToString(began[:]), s.cfg.SessionLife+session.LogoutLife))
	}
	return a
}

// noID stands in for the identifier that the session page does not have.
type noID struct{}

func (noID) String() string { return "session" }

// session is the page of the browser's session and its one button.
func (s *Server) session(ctx context.Context, r request) answer {
	if !r.isGet() && r.method != http.MethodPost {
		return s.wrongMethod(r, "GET, HEAD, POST")
	}
	k, _ := parseSecret(cookieValue(r.cookies, sessionCookie))
	if r.method == http.MethodPost {
		return s.leave(ctx, r, k)
	}
	if a, ok := s.switchLanguage(r, "/session"); ok {
		return a
	}
	p := s.newPage(r, "session")
	p.Path = "/session"
	v, err := s.cfg.Sessions.View(ctx, sessionOf(r))
	switch {
	case fault.Is(err, fault.NotFound):
		if which, _, ok := logoutOf(r); ok {
			p.Pending = "/logout/" + which.String()
		}
	case err != nil:
		return s.failure(ctx, r, err)
	default:
		p.Person, p.Since, p.Expires = v.Name, p.moment(v.Since.In(s.pages.rome)), v.Until.In(s.pages.rome).Format("15:04")
		p.Token = k.formToken(noID{})
		for _, sp := range v.SPs {
			p.Services = append(p.Services, p.serviceItem(spNames{sp.Names, sp.SP.String()}, ""))
		}
	}
	return s.render(p, http.StatusOK)
}

func (p *page) moment(t time.Time) string {
	return p.text("session.moment", p.book.Date(t), t.Format("15:04"))
}

// serviceItem is one SP in a list.
type serviceItem struct{ Name, Lang, State string }

func (p *page) serviceItem(who spNames, state string) serviceItem {
	name, lang := who.name(p.Lang)
	if lang == p.Lang {
		lang = ""
	}
	return serviceItem{Name: name, Lang: lang, State: state}
}

// ownForm reads a form of our own pages that carries the token.
func (s *Server) ownForm(r request) (map[string][]byte, answer, bool) {
	switch {
	case !s.fromOurPages(r):
		return nil, s.message(r, http.StatusForbidden, "forged"), false
	case !isForm(r.contentType):
		return nil, s.message(r, http.StatusUnsupportedMediaType, "bad"), false
	case len(r.body) > maxFlowForm:
		return nil, s.message(r, http.StatusRequestEntityTooLarge, "bad"), false
	}
	f, err := parseForm(r.body)
	if err != nil {
		return nil, s.message(r, http.StatusBadRequest, "bad"), false
	}
	return f, answer{}, true
}

// leave ends the session on the person's word.
func (s *Server) leave(ctx context.Context, r request, k secret) answer {
	f, a, ok := s.ownForm(r)
	if !ok {
		return a
	}
	if k == (secret{}) {
		return answer{status: http.StatusSeeOther, location: "/session"}
	}
	if !k.checkFormToken(noID{}, f["token"]) {
		return s.message(r, http.StatusForbidden, "forged")
	}
	// The same for each click: whichever answer the browser takes, it has the key.
	opens := k.newLogout()
	which, err := s.cfg.Sessions.Leave(ctx, k.browser(), opens.browser())
	switch {
	case fault.Is(err, fault.NotFound):
		return answer{status: http.StatusSeeOther, location: "/session"}
	case err != nil:
		return s.failure(ctx, r, err)
	}
	a = toLogout(which, opens)
	a.cookies = append(a.cookies, setCookie(sessionCookie, "", -1))
	return a
}

// toLogout leads the browser to the pages of a logout, with the cookie that opens
// them.
func toLogout(which id.LogoutID, k secret) answer {
	value := which.String() + "." + base64.RawURLEncoding.EncodeToString(k[:])
	return answer{status: http.StatusSeeOther, location: "/logout/" + which.String(), cookies: []string{setCookie(logoutCookie, value, session.LogoutLife)}}
}

// logoutOf reads the cookie that toLogout set.
func logoutOf(r request) (id.LogoutID, secret, bool) {
	text, value, _ := strings.Cut(cookieValue(r.cookies, logoutCookie), ".")
	which, err := id.ParseLogoutID(text)
	k, ok := parseSecret(value)
	return which, k, err == nil && ok
}

func (s *Server) sloRedirect(ctx context.Context, r request) answer {
	if r.method != http.MethodGet {
		return s.wrongMethod(r, "GET")
	}
	v, err := s.cfg.LogoutMessages.Redirect(r.query, s.cfg.Now())
	return s.arrive(ctx, r, v, err)
}

// sloPost receives a message by HTTP-POST. It comes from the service provider's
// site, so there is no check of the origin: the signature says who speaks.
func (s *Server) sloPost(ctx context.Context, r request) answer {
	if r.method != http.MethodPost {
		return s.wrongMethod(r, "POST")
	}
	f, err := parseForm(r.body)
	if err != nil || !isForm(r.contentType) {
		return s.refuseLogout(ctx, r, fault.Newf(fault.Invalid, "read logout form", "no readable form"))
	}
	parameter := query.Request
	_, isRequest := f[query.Request]
	if _, isResponse := f[query.Response]; isResponse {
		if parameter = query.Response; isRequest {
			return s.refuseLogout(ctx, r, fault.Newf(fault.Invalid, "read logout form", "both a request and a response"))
		}
	}
	relayState, has := f["RelayState"]
	v, err := s.cfg.LogoutMessages.Post(parameter, f[parameter], relayState, has, s.cfg.Now())
	return s.arrive(ctx, r, v, err)
}

func (s *Server) noteLogout(ctx context.Context, r request, err error) {
	s.cfg.Log.Warn("logout message refused", "error", err, "peer", r.peer.String())
	s.note(ctx, r, register.Incident{What: register.LogoutRefused, Detail: err.Error()})
}

// refuseLogout is the page for a message that nothing may follow from. No row of
// the table of anomalies speaks of logout (docs/divergences.md).
func (s *Server) refuseLogout(ctx context.Context, r request, err error) answer {
	s.noteLogout(ctx, r, err)
	return s.plainPage(r, http.StatusForbidden, "plain.refused", "")
}

func (s *Server) plainPage(r request, status int, sentence, advice string) answer {
	return s.renderAll(r, "plain", status, func(p *page) {
		p.Title, p.Sentence = "logout.title", p.text(sentence)
		if advice != "" {
			p.Advice = p.text(advice)
		}
	})
}

func (s *Server) arrive(ctx context.Context, r request, v logout.Verified, err error) answer {
	if err != nil {
		return s.refuseLogout(ctx, r, err)
	}
	fresh, err := newSecret(s.cfg.Random)
	if err != nil {
		return s.failure(ctx, r, err)
	}
	next, err := s.cfg.Sessions.Arrive(ctx, v, fresh.browser())
	_, isRequest := v.Request()
	switch {
	case err != nil:
		return s.logoutFailure(ctx, r, err)
	case !next.Logout.IsZero() && isRequest:
		return toLogout(next.Logout, fresh)
	case !next.Logout.IsZero():
		return answer{status: http.StatusSeeOther, location: "/logout/" + next.Logout.String()}
	case next.Message != nil:
		return s.carry(ctx, r, next.Message)
	}
	// The request ended no session, and its sender wants no answer or has no place for
	// one. Another session may be open: this is not the page that says it is closed.
	return s.plainPage(r, http.StatusNotFound, "plain.lost", "")
}

// logoutFailure is failure with the words of logouts.
func (s *Server) logoutFailure(ctx context.Context, r request, err error) answer {
	switch kind := fault.KindOf(err); kind {
	case fault.NotFound, fault.Denied:
		s.noteLogout(ctx, r, err)
		status := http.StatusNotFound
		if kind == fault.Denied {
			status = http.StatusForbidden
		}
		return s.plainPage(r, status, "plain.lost", "")
	}
	return s.failure(ctx, r, err)
}

// sloSOAP answers a program: with a signed LogoutResponse, or without a word.
func (s *Server) sloSOAP(ctx context.Context, r request) answer {
	kind, _, _ := strings.Cut(r.contentType, ";")
	if kind = strings.ToLower(strings.TrimSpace(kind)); r.method != http.MethodPost {
		return answer{status: http.StatusMethodNotAllowed, allow: "POST"}
	} else if kind != "text/xml" {
		return answer{status: http.StatusUnsupportedMediaType}
	}
	v, err := s.cfg.LogoutMessages.SOAP(r.body, s.cfg.Now())
	if err != nil {
		s.noteLogout(ctx, r, err)
		return answer{status: http.StatusForbidden}
	}
	m, err := s.cfg.Sessions.SOAP(ctx, v)
	if err != nil || m == nil {
		s.cfg.Log.Error("logout not answered", "error", err, "peer", r.peer.String())
		return answer{status: http.StatusServiceUnavailable, retryAfter: 5}
	}
	return answer{status: http.StatusOK, contentType: "text/xml; charset=utf-8", body: m.XML}
}

// logout is the page of a logout and its steps.
func (s *Server) logout(ctx context.Context, r request, text string) answer {
	if !r.isGet() && r.method != http.MethodPost {
		return s.wrongMethod(r, "GET, HEAD, POST")
	}
	which, err := id.ParseLogoutID(text)
	of, k, ok := logoutOf(r)
	if err != nil || !ok || of != which {
		return s.plainPage(r, http.StatusForbidden, "plain.lost", "")
	}
	path := "/logout/" + which.String()
	move := session.Look
	if r.method == http.MethodPost {
		f, a, ok := s.ownForm(r)
		if !ok {
			return a
		}
		if !k.checkFormToken(which, f["token"]) {
			return s.message(r, http.StatusForbidden, "forged")
		}
		if move = session.Go; string(f["action"]) == "skip" {
			move = session.Skip
		}
	} else if a, ok := s.switchLanguage(r, path); ok {
		return a
	}
	step, err := s.cfg.Sessions.Step(ctx, which, sessionOf(r), k.browser(), move)
	switch {
	case move != session.Look && fault.Is(err, fault.Conflict):
		return answer{status: http.StatusSeeOther, location: path}
	case err != nil:
		return s.logoutFailure(ctx, r, err)
	case move == session.Look:
		return s.logoutPage(ctx, r, which, k, step)
	case step.Message != nil:
		return s.carry(ctx, r, step.Message)
	}
	return answer{status: http.StatusSeeOther, location: path}
}

// logoutPage shows how far a logout has come. Its form submits itself, but for
// the end and for an SP that was sent the browser and did not send it back.
func (s *Server) logoutPage(ctx context.Context, r request, which id.LogoutID, k secret, step session.Page) answer {
	p := s.newPage(r, "logout")
	p.Path, p.Token = "/logout/"+which.String(), k.formToken(which)
	states := map[session.State]string{session.Waiting: p.text("logout.waiting"), session.Sent: p.text("logout.sent"),
		session.Done: p.text("logout.ended"), session.Failed: p.text("logout.failed")}
	for _, part := range step.Parts {
		p.Services = append(p.Services, p.serviceItem(spNames{part.Names, part.SP.String()}, states[part.State]))
	}
	switch {
	case step.Over && step.Initiator.IsZero():
		p.Sentence = p.text("logout.done")
		if step.Partial {
			p.Advice = p.text("logout.partial")
		}
		return s.render(p, http.StatusOK)
	case step.Again:
		p.Sentence, p.Again, p.Parameter = p.text("logout.stuck"), true, "skip"
	default:
		p.Sentence, p.Auto, p.Parameter = p.text("logout.going"), true, "go"
	}
	if err := s.drawNonce(p); err != nil {
		return s.failure(ctx, r, err)
	}
	a := s.render(p, http.StatusOK)
	if a.status == http.StatusOK {
		a.csp = logoutPolicy(p.Nonce, s.https)
	}
	return a
}

func (s *Server) drawNonce(p *page) error {
	var b [16]byte
	if _, err := io.ReadFull(s.cfg.Random, b[:]); err != nil {
		return fault.New(fault.Unavailable, "draw nonce", err)
	}
	p.Nonce = base64.RawURLEncoding.EncodeToString(b[:])
	return nil
}

// carry sends a message to an SP through the browser.
func (s *Server) carry(ctx context.Context, r request, m *logout.Message) answer {
	if m.Binding == saml.Redirect {
		return answer{status: http.StatusSeeOther, location: m.Location, referrer: "strict-origin"}
	}
	u, err := url.Parse(m.Location)
	if err != nil || u.Host == "" || m.Binding != saml.Post {
		return s.failure(ctx, r, fault.Newf(fault.Internal, "carry logout message "+m.ID, "no address for a browser"))
	}
	var nonce page
	if err := s.drawNonce(&nonce); err != nil {
		return s.failure(ctx, r, err)
	}
	a := s.renderAll(r, "carry", http.StatusOK, func(p *page) {
		p.Title, p.Nonce = "logout.title", nonce.Nonce
		p.ACS, p.ACSHost, p.Parameter = m.Location, u.Hostname(), m.Parameter
		p.SAMLResponse = base64.StdEncoding.EncodeToString(m.XML)
		p.RelayState, p.HasRelayState = m.RelayState, m.HasRelayState
	})
	if a.status == http.StatusOK {
		a.csp, a.referrer = logoutPolicy(nonce.Nonce, s.https), "strict-origin"
	}
	return a
}

// logoutPolicy is handOverPolicy for pages whose form leads to ourselves and on,
// by redirects, to service providers and back.
func logoutPolicy(nonce string, https bool) string {
	plain := ""
	if !https {
		plain = " http:"
	}
	return "default-src 'none'; style-src 'self'; img-src 'self'; font-src 'self'; script-src 'nonce-" + nonce + "'; form-action 'self' https:" + plain +
		"; frame-ancestors 'none'; base-uri 'none'"
}
