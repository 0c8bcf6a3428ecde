package session

import (
	"context"
	"crypto/subtle"
	"slices"
	"sync"
	"time"

	"custode/authcore/saml"
	"custode/authcore/saml/logout"
	"custode/internal/fault"
	"custode/internal/id"
)

// LogoutLife is how long a logout can be continued by the browser.
const LogoutLife = 15 * time.Minute

const (
	// maxAtOnce bounds the SOAP exchanges of one logout under way.
	maxAtOnce = 8
	// Whoever saw a LogoutRequest can send it again while it is fresh, and each
	// answer costs a signature that logins need too.
	waitToAnswer = 32
)

// Next is where the browser goes after something arrived: to the page of a
// Logout, or to the SP with a message. With neither, there is nothing left to do.
type Next struct {
	Logout  id.LogoutID
	Message *logout.Message
}

// Move is what the person does on the page of a logout.
type Move uint8

// The moves.
const (
	Look Move = iota // only look
	Go               // tell the next SP, or answer the SP that asked when all are told
	Skip             // the same, without the SP that has not answered
)

// Page is a step of a logout as the person sees it.
type Page struct {
	Parts []Part // empty for a browser that is not the session's
	// Message is to be taken to an SP, after Go and Skip: a LogoutRequest, or the
	// final answer. Nil when there is nothing to take.
	Message *logout.Message
	// Again: the browser was sent to an SP and came back without an answer.
	Again     bool
	Over      bool        // nobody is left to be told
	Partial   bool        // not every SP confirmed
	Initiator id.EntityID // waits for an answer; zero: nobody does
}

// Leave ends the session of the browser with that cookie because the person
// asked. browser is the SHA-256 of the cookie secret that will open the logout's
// pages. A session that has ended already and whose end is still being told goes
// on with that: the answer to a first click, or to the SP's request, was lost.
// fault.NotFound when there is no session.
func (s *Sessions) Leave(ctx context.Context, cookie, browser [32]byte) (id.LogoutID, error) {
	r, err := s.byCookie(ctx, cookie)
	if err == nil {
		l, err := s.end(ctx, r, Initiator{}, browser)
		if !fault.Is(err, fault.Conflict) {
			return l.ID, err
		}
	} else if !fault.Is(err, fault.NotFound) || cookie == [32]byte{} {
		return id.LogoutID{}, err
	}
	return s.leaveAgain(ctx, cookie, browser)
}

// leaveAgain gives the session's browser the logout that is under way.
func (s *Sessions) leaveAgain(ctx context.Context, cookie, browser [32]byte) (id.LogoutID, error) {
	r, err := s.Records.SessionByCookie(ctx, cookie)
	if err != nil {
		return id.LogoutID{}, err
	}
	l, err := s.Logouts.LogoutOfSession(ctx, r.Index)
	if err != nil {
		return id.LogoutID{}, err
	}
	if l.Over() || !s.Now().Before(l.Deadline) || l.Initiator.Binding == saml.SOAP {
		return id.LogoutID{}, fault.Newf(fault.NotFound, "leave session", "it has ended")
	}
	if l.Browser != browser {
		l.Browser = browser
		if err := s.Logouts.SaveLogout(ctx, l); err != nil {
			return id.LogoutID{}, err
		}
	}
	return l.ID, nil
}

// Arrive takes a verified message that came through a browser. A request ends
// the session it names and leads to the logout's pages; one that names no open
// session of that SP is answered at once with partial logout. A response is
// noted. browser is what Leave's is.
func (s *Sessions) Arrive(ctx context.Context, v logout.Verified, browser [32]byte) (Next, error) {
	if p, ok := v.Response(); ok {
		return s.noted(ctx, p)
	}
	q, ok := v.Request()
	if !ok {
		return Next{}, fault.Newf(fault.Invalid, "take logout message", "no verified message")
	}
	l, err := s.asked(ctx, q, browser)
	switch {
	case err != nil:
		return Next{}, err
	case !l.ID.IsZero():
		return Next{Logout: l.ID}, nil
	}
	m, err := s.answerNothing(ctx, initiatorOf(q))
	return Next{Message: m}, err
}

// answerNothing answers a request that ended no session: nothing bounds how often
// one can be sent.
func (s *Sessions) answerNothing(ctx context.Context, to Initiator) (*logout.Message, error) {
	leave, err := s.nothings.Enter(ctx, "")
	if err != nil {
		return nil, err
	}
	defer leave()
	return s.answer(to, true)
}

// SOAP takes a verified request that came over SOAP and returns the answer. Only
// SPs that can be told over SOAP are told: there is no browser.
func (s *Sessions) SOAP(ctx context.Context, v logout.Verified) (*logout.Message, error) {
	q, ok := v.Request()
	if !ok || q.Binding != saml.SOAP {
		return nil, fault.Newf(fault.Invalid, "take logout request", "no verified request over SOAP")
	}
	l, err := s.asked(ctx, q, [32]byte{})
	if err != nil {
		return nil, err
	}
	initiator := initiatorOf(q)
	initiator.Silent = false // whoever asks on a connection gets an answer on it
	if l.ID.IsZero() {
		return s.answerNothing(ctx, initiator)
	}
	leave, err := s.turns.Enter(ctx, l.ID.String())
	if err != nil {
		return nil, err
	}
	defer leave()
	before := l
	l = s.tell(ctx, l)
	for i := range l.Parts {
		if l.Parts[i].State != Done {
			l.Parts[i].State = Failed
		}
	}
	if err := s.Logouts.SaveLogout(ctx, l); err != nil {
		return nil, err
	}
	s.noteTold(ctx, before, l)
	return s.answer(initiator, l.partial())
}

// Step makes a move in the logout for the browser it belongs to; cookie is the
// SHA-256 of its session cookie's secret, zero for none. SPs that can be told
// directly are told before the browser is sent anywhere. fault.NotFound,
// fault.Denied for another browser, fault.Conflict when another node was faster.
//
// A logout belongs to the browser that brought the LogoutRequest, which need not
// be the one the session was in: an SP can bring it itself. That one is shown no
// other SP and sent to none; those that need a browser are not told.
func (s *Sessions) Step(ctx context.Context, which id.LogoutID, cookie, browser [32]byte, m Move) (Page, error) {
	leave, err := s.turns.Enter(ctx, which.String())
	if err != nil {
		return Page{}, err
	}
	defer leave()
	l, err := s.Logouts.Logout(ctx, which)
	if err != nil {
		return Page{}, err
	}
	var none [32]byte
	if browser == none || subtle.ConstantTimeCompare(l.Browser[:], browser[:]) != 1 {
		return Page{}, fault.Newf(fault.Denied, "continue logout "+which.String(), "another browser's")
	}
	known, err := s.knows(ctx, l, cookie)
	if err != nil {
		return Page{}, err
	}
	before := l
	if !s.Now().Before(l.Deadline) {
		l.giveUp(func(p Part) bool { return true })
	} else if !known {
		l.giveUp(func(p Part) bool { return p.Binding != saml.SOAP })
	}
	var message *logout.Message
	if m != Look {
		if m == Skip {
			l.giveUp(func(p Part) bool { return p.State == Sent })
		}
		l = s.tell(ctx, l)
		if message, err = s.next(ctx, &l); err != nil {
			return Page{}, err
		}
		if !slices.EqualFunc(before.Parts, l.Parts, func(a, b Part) bool { return a.State == b.State }) {
			if err := s.Logouts.SaveLogout(ctx, l); err != nil {
				return Page{}, err
			}
			s.noteTold(ctx, before, l)
		}
	}
	page := Page{Parts: slices.Clone(l.Parts), Message: message, Over: l.Over(), Partial: l.partial(),
		Again: slices.ContainsFunc(l.Parts, func(p Part) bool { return p.State == Sent })}
	if !l.Initiator.Silent {
		page.Initiator = l.Initiator.SP
	}
	if !known {
		page.Parts = nil
	}
	return page, nil
}

// knows reports whether the browser is the one the session was in. Where the
// person asked us it showed that before.
func (s *Sessions) knows(ctx context.Context, l Logout, cookie [32]byte) (bool, error) {
	if l.Initiator.SP.IsZero() {
		return true, nil
	}
	if cookie == [32]byte{} {
		return false, nil
	}
	r, err := s.Records.SessionByCookie(ctx, cookie)
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	return err == nil && r.Index == l.Session, err
}

// next finds the next SP for the browser and builds its message, or the answer
// to the SP that asked.
func (s *Sessions) next(ctx context.Context, l *Logout) (*logout.Message, error) {
	for i := range l.Parts {
		p := &l.Parts[i]
		if p.State != Waiting && p.State != Sent {
			continue
		}
		m, err := s.request(*l, *p)
		if err != nil {
			if k := fault.KindOf(err); k != fault.NotFound && k != fault.Invalid {
				return nil, err
			}
			s.Log.WarnContext(ctx, "logout not sent", "logout", l.ID.String(), "sp", p.SP.String(), "error", err)
			p.State = Failed
			continue
		}
		p.State = Sent
		return &m, nil
	}
	return s.answer(l.Initiator, l.partial())
}

// asked ends the session a request names. The zero Logout means that there is
// nothing to end: an SP can end no session but one it took part in, under the
// NameID it was given there.
func (s *Sessions) asked(ctx context.Context, q logout.Request, browser [32]byte) (Logout, error) {
	r, err := s.Records.SessionByName(ctx, q.SP, q.NameID)
	if fault.Is(err, fault.NotFound) {
		s.Log.WarnContext(ctx, "logout of no session", "sp", q.SP.String(), "request", q.ID)
		return Logout{}, nil
	}
	if err != nil {
		return Logout{}, err
	}
	if len(q.SessionIndexes) > 0 && !slices.Contains(q.SessionIndexes, r.Index) {
		s.Log.WarnContext(ctx, "logout of another session", "sp", q.SP.String(), "request", q.ID)
		return Logout{}, nil
	}
	if !r.Ended.IsZero() {
		return s.askedAgain(ctx, r, q, browser)
	}
	if !s.Policy.open(r, s.Now()) {
		err := s.Logouts.EndSession(ctx, r.Index, s.Now(), Logout{})
		if err == nil || fault.Is(err, fault.Conflict) {
			s.Log.InfoContext(ctx, "session was over", "session", r.Index, "sp", q.SP.String(), "request", q.ID)
			if err == nil {
				s.noteOver(ctx, r, "its time was over")
			}
			return Logout{}, nil
		}
		return Logout{}, err
	}
	l, err := s.end(ctx, r, initiatorOf(q), browser)
	if fault.Is(err, fault.Conflict) { // another request was faster
		return s.askedAgain(ctx, r, q, browser)
	}
	return l, err
}

// askedAgain goes on with a logout that the same SP began: people click twice, and
// the first click's answer is lost; a connection breaks and the SP repeats
// itself. The very same request through a browser is a replay and opens nothing.
func (s *Sessions) askedAgain(ctx context.Context, r Record, q logout.Request, browser [32]byte) (Logout, error) {
	l, err := s.Logouts.LogoutOfSession(ctx, r.Index)
	if fault.Is(err, fault.NotFound) {
		return Logout{}, nil
	}
	if err != nil {
		return Logout{}, err
	}
	overSOAP := q.Binding == saml.SOAP
	if l.Over() || l.Initiator.SP != q.SP || overSOAP != (l.Initiator.Binding == saml.SOAP) || !s.Now().Before(l.Deadline) ||
		!overSOAP && l.Initiator.Request == q.ID {
		return Logout{}, nil
	}
	l.Initiator, l.Browser = initiatorOf(q), browser
	if err := s.Logouts.SaveLogout(ctx, l); fault.Is(err, fault.Conflict) {
		return Logout{}, nil
	} else if err != nil {
		return Logout{}, err
	}
	l.Version++
	return l, nil
}

// end closes the session and stores who is to be told, in one transaction: from
// here on the session is void whatever happens.
func (s *Sessions) end(ctx context.Context, r Record, by Initiator, browser [32]byte) (Logout, error) {
	which, err := id.NewLogoutID(s.Random)
	if err != nil {
		return Logout{}, err
	}
	now := s.Now()
	l := Logout{ID: which, Version: 1, Session: r.Index, Browser: browser, Deadline: now.Add(LogoutLife), Initiator: by}
	others, err := s.participants(ctx, r.Index)
	if err != nil {
		return Logout{}, err
	}
	for _, p := range others {
		if p.SP == by.SP {
			continue
		}
		part := Part{SP: p.SP, Names: p.Names, NameID: p.NameID, State: Waiting}
		if part.Request, err = s.Messages.NewID(); err != nil {
			return Logout{}, err
		}
		part.Binding = s.binding(p.SP)
		if part.Binding == 0 || browser == [32]byte{} && part.Binding != saml.SOAP {
			part.State = Failed
		}
		l.Parts = append(l.Parts, part)
	}
	// Those that need no browser come first.
	l.Parts = slices.Concat(partsBy(l.Parts, true), partsBy(l.Parts, false))
	if err := s.Logouts.EndSession(ctx, r.Index, now, l); err != nil {
		return Logout{}, err
	}
	s.Log.InfoContext(ctx, "session ended", "session", r.Index, "subject", r.Subject.String(), "logout", which.String(),
		"by", by.SP.String(), "request", by.Request, "others", len(l.Parts))
	s.noteEnd(ctx, r, l)
	return l, nil
}

// partsBy selects those that are told over SOAP, or the others.
func partsBy(all []Part, soap bool) (some []Part) {
	for _, p := range all {
		if (p.Binding == saml.SOAP) == soap {
			some = append(some, p)
		}
	}
	return some
}

// binding is how an SP is told: SOAP if it can be, else through the browser.
func (s *Sessions) binding(sp id.EntityID) saml.Binding {
	if known, ok := s.SPs.Lookup(sp.String()); ok && known.Live(s.Now()) {
		for _, b := range []saml.Binding{saml.SOAP, saml.Redirect, saml.Post} {
			if _, ok := known.LogoutEndpoint(b); ok {
				return b
			}
		}
	}
	return 0
}

func initiatorOf(q logout.Request) Initiator {
	return Initiator{SP: q.SP, Request: q.ID, Binding: q.Binding, Silent: q.Asynchronous, RelayState: q.RelayState, HasRelayState: q.HasRelayState}
}

// giveUp makes the parts failed that are not told yet and that are meant.
func (l *Logout) giveUp(meant func(Part) bool) {
	l.Parts = slices.Clone(l.Parts)
	for i := range l.Parts {
		if p := &l.Parts[i]; (p.State == Waiting || p.State == Sent) && meant(*p) {
			p.State = Failed
		}
	}
}

// Over reports whether nobody is left to be told.
func (l Logout) Over() bool {
	return !slices.ContainsFunc(l.Parts, func(p Part) bool { return p.State == Waiting || p.State == Sent })
}

// partial reports whether somebody did not confirm.
func (l Logout) partial() bool {
	return slices.ContainsFunc(l.Parts, func(p Part) bool { return p.State != Done })
}

// request builds the LogoutRequest for a part. fault.NotFound when the SP or its
// endpoint is gone from the registry.
func (s *Sessions) request(l Logout, p Part) (logout.Message, error) {
	op := "tell " + p.SP.String() + " of logout " + l.ID.String()
	sp, ok := s.SPs.Lookup(p.SP.String())
	if !ok || !sp.Live(s.Now()) {
		return logout.Message{}, fault.Newf(fault.NotFound, op, "not registered any more")
	}
	to, ok := sp.LogoutEndpoint(p.Binding)
	if !ok {
		return logout.Message{}, fault.Newf(fault.NotFound, op, "no endpoint any more")
	}
	return s.Messages.Request(to, logout.Ended{ID: p.Request, NameID: p.NameID, SessionIndex: l.Session}, s.Now())
}

// answer builds the LogoutResponse to the SP that asked; nil when nobody asked,
// when no answer is wanted, or when the SP has no place to send one to.
func (s *Sessions) answer(to Initiator, partial bool) (*logout.Message, error) {
	if to.SP.IsZero() || to.Silent {
		return nil, nil
	}
	endpoint := saml.Endpoint{Binding: saml.SOAP}
	if to.Binding != saml.SOAP {
		sp, ok := s.SPs.Lookup(to.SP.String())
		if !ok {
			return nil, nil
		}
		// By the binding it asked with, else by the other that browsers speak.
		if endpoint, ok = sp.LogoutEndpoint(to.Binding); !ok {
			other := saml.Post
			if to.Binding == saml.Post {
				other = saml.Redirect
			}
			if endpoint, ok = sp.LogoutEndpoint(other); !ok {
				return nil, nil
			}
		}
	}
	m, err := s.Messages.Response(endpoint, logout.Reply{InResponseTo: to.Request, Partial: partial, RelayState: to.RelayState, HasRelayState: to.HasRelayState}, s.Now())
	if err != nil {
		return nil, err
	}
	return &m, nil
}

// tell tells, all at once, those that can be told over SOAP, within the limits
// of time. It does not fail: who did not confirm has failed. A crash leaves them
// Waiting, and they are told again, with the same request.
func (s *Sessions) tell(ctx context.Context, l Logout) Logout {
	l.Parts = slices.Clone(l.Parts)
	ctx, cancel := context.WithTimeout(ctx, s.Policy.Total)
	defer cancel()
	var wg sync.WaitGroup
	places := make(chan struct{}, maxAtOnce)
	for i := range l.Parts {
		if p := &l.Parts[i]; p.Binding == saml.SOAP && p.State == Waiting {
			wg.Go(func() {
				places <- struct{}{}
				defer func() { <-places }()
				if err := s.tellOne(ctx, l, *p); err != nil {
					s.Log.WarnContext(ctx, "logout not confirmed", "logout", l.ID.String(), "sp", p.SP.String(), "error", err)
					p.State = Failed
					return
				}
				p.State = Done
			})
		}
	}
	wg.Wait()
	return l
}

func (s *Sessions) tellOne(ctx context.Context, l Logout, p Part) error {
	op := "tell " + p.SP.String() + " of logout " + l.ID.String()
	if ctx.Err() != nil {
		return fault.New(fault.Unavailable, op, ctx.Err())
	}
	m, err := s.request(l, p)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.Policy.PerSP)
	defer cancel()
	body, err := s.Channel.Send(ctx, m.Location, m.XML)
	if err != nil {
		return err
	}
	v, err := s.Answers.SOAPAnswer(body, s.Now())
	if err != nil {
		return err
	}
	return confirmed(op, v, p)
}

// confirmed checks that the answer is the SP's own, to this request, and yes.
func confirmed(op string, v logout.Verified, p Part) error {
	r, ok := v.Response()
	if !ok || r.SP != p.SP || r.InResponseTo != p.Request {
		return fault.Newf(fault.Denied, op, "the answer is to something else")
	}
	if !r.Success() {
		return fault.Newf(fault.Unavailable, op, "status %q %q", r.Status, r.SubStatus)
	}
	return nil
}

// noted records what an SP answered through the browser. An answer to nothing, or
// one that comes a second time, changes nothing.
func (s *Sessions) noted(ctx context.Context, r logout.Response) (Next, error) {
	const op = "take logout response"
	l, err := s.Logouts.LogoutOfRequest(ctx, r.InResponseTo)
	if err != nil {
		return Next{}, err
	}
	leave, err := s.turns.Enter(ctx, l.ID.String())
	if err != nil {
		return Next{}, err
	}
	defer leave()
	if l, err = s.Logouts.Logout(ctx, l.ID); err != nil {
		return Next{}, err
	}
	at := slices.IndexFunc(l.Parts, func(p Part) bool { return p.Request == r.InResponseTo && p.SP == r.SP })
	if at < 0 {
		return Next{}, fault.Newf(fault.Denied, op, "%s answers what another was asked", r.SP)
	}
	before := l
	before.Parts = slices.Clone(l.Parts)
	p := &l.Parts[at]
	if p.State == Sent || p.State == Failed {
		if p.State = Done; !r.Success() {
			p.State = Failed
			s.Log.WarnContext(ctx, "logout not confirmed", "logout", l.ID.String(), "sp", r.SP.String(), "status", clip(r.Status), "substatus", clip(r.SubStatus))
		}
		if err := s.Logouts.SaveLogout(ctx, l); err != nil {
			return Next{}, err
		}
		s.noteTold(ctx, before, l)
	}
	return Next{Logout: l.ID}, nil
}

// clip bounds what an SP writes into our log.
func clip(s string) string { return s[:min(len(s), 120)] }
