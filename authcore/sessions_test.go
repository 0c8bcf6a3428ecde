package authcore

import (
	"context"
	"testing"
	"time"

	"custode/authcore/saml"
	"custode/internal/fault"
	"custode/internal/id"
)

// shelf keeps sessions as the store does: written with answers, found by cookie.
type shelf struct {
	*memory
	byCookie map[[32]byte]Session
	ended    map[string]bool
	asked    int
}

func (s *shelf) Current(_ context.Context, cookie [32]byte) (Session, error) {
	s.asked++
	v, ok := s.byCookie[cookie]
	if !ok || s.ended[v.Index] {
		return Session{}, fault.Newf(fault.NotFound, "find session", "none")
	}
	return v, nil
}

func (s *shelf) FinishFlow(ctx context.Context, f Flow, a Answered) error {
	if j := a.Joining; j != nil && f.Outcome == saml.Success {
		if j.Begin {
			s.ended[j.Replaces] = true
			s.byCookie[j.Cookie] = j.Session
		} else if s.ended[j.Session.Index] {
			return fault.Newf(fault.Expired, "join", "it has ended")
		}
	}
	return s.memory.FinishFlow(ctx, f, a)
}

// seat is a bench whose login has sessions, and one browser.
type seat struct {
	*bench
	shelf  *shelf
	cookie [32]byte // of the browser; zero before a session
	next   byte
}

func newSeat(t *testing.T) *seat {
	b := newBench(t)
	s := &seat{bench: b, shelf: &shelf{memory: b.store, byCookie: map[[32]byte]Session{}, ended: map[string]bool{}}}
	b.Login.sessions, b.Login.flows = s.shelf, s.shelf
	return s
}

// begin starts a flow of this browser.
func (s *seat) begin(level saml.Level, c saml.Comparison, change ...func(*saml.Request)) (id.FlowID, Visitor) {
	s.t.Helper()
	r := s.request(level, c)
	for _, f := range change {
		f(&r)
	}
	s.next++
	v := Visitor{Browser: [32]byte{9, s.next}, NewSession: [32]byte{7, s.next}}
	flow, err := s.Login.begin(s.t.Context(), r, nil, v)
	if err != nil {
		s.t.Fatal(err)
	}
	v.Session = s.cookie // only now: a request by POST comes without it
	return flow, v
}

// walk looks at the first page and gives the answers; the cookie of a session that
// begins is kept.
func (s *seat) walk(flow id.FlowID, v Visitor, answers ...Answer) Outcome {
	s.t.Helper()
	out, err := s.View(s.t.Context(), flow, v)
	for _, a := range answers {
		if err != nil {
			break
		}
		out, err = s.Answer(s.t.Context(), flow, v, a)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	if out.SessionBegan {
		s.cookie = v.NewSession
	}
	return out
}

func (s *seat) last() saml.Statement { return s.signer.statements[len(s.signer.statements)-1] }

func (s *seat) open() Session {
	s.t.Helper()
	flow, v := s.begin(saml.L1, saml.Exact)
	if out := s.walk(flow, v, right, ConsentAnswer{}); out.Response == nil || !out.SessionBegan {
		s.t.Fatalf("no session began: %+v", out)
	}
	return s.shelf.byCookie[s.cookie]
}

// TestSessionBegins: rule a, a level 1 request answered with success, and nothing
// else; rule b, levels 2 and 3 never.
func TestSessionBegins(t *testing.T) {
	for name, c := range map[string]struct {
		level   saml.Level
		c       saml.Comparison
		answers []Answer
		began   bool
	}{
		"level 1":                  {saml.L1, saml.Exact, []Answer{right, ConsentAnswer{}}, true},
		"level 1 minimum":          {saml.L1, saml.Minimum, []Answer{right, ConsentAnswer{}}, true},
		"level 1, better: by code": {saml.L1, saml.Better, []Answer{right, sms, code, ConsentAnswer{}}, true}, // the level asked for decides
		"no consent":               {saml.L1, saml.Exact, []Answer{right, RefuseAnswer{}}, false},
		"cancelled":                {saml.L1, saml.Exact, []Answer{right, CancelAnswer{}}, false},
		"level 2":                  {saml.L2, saml.Exact, []Answer{right, sms, code, ConsentAnswer{}}, false},
		"maximum level 2":          {saml.L2, saml.Maximum, []Answer{right, sms, code, ConsentAnswer{}}, false},
	} {
		s := newSeat(t)
		flow, v := s.begin(c.level, c.c)
		out := s.walk(flow, v, c.answers...)
		if out.Response == nil || out.SessionBegan != c.began || len(s.shelf.byCookie) == 1 != c.began {
			t.Errorf("%s: began %v, %d sessions", name, out.SessionBegan, len(s.shelf.byCookie))
		}
		if c.level != saml.L1 && (s.shelf.asked != 0 || s.last().SessionIndex != "") {
			t.Errorf("%s: %d questions, index %q", name, s.shelf.asked, s.last().SessionIndex)
		}
	}
}

// TestSessionAnswers: rule c, without a password but with consent; the original
// event and the same index.
func TestSessionAnswers(t *testing.T) {
	s := newSeat(t)
	first := s.open()
	event := s.last().AuthnInstant
	s.advance(10 * time.Minute)
	flow, v := s.begin(saml.L1, saml.Minimum)
	out := s.walk(flow, v)
	if out.View == nil || out.View.Step != StepConsent || !out.View.Resumed || s.hashes.Load() != 2 {
		t.Fatalf("no consent page, or the password was looked at: %+v", out)
	}
	if out = s.walk(flow, v, ConsentAnswer{}); out.Response == nil || out.SessionBegan {
		t.Fatalf("%+v", out)
	}
	if got := s.last(); !got.AuthnInstant.Equal(event) || got.SessionIndex != first.Index || got.Level != saml.L1 {
		t.Errorf("%+v, want the event of %v", got, event)
	}
	// Whatever becomes of a later request, the session goes on.
	for name, a := range map[string]Answer{"refused": RefuseAnswer{}, "cancelled": CancelAnswer{}} {
		flow, v := s.begin(saml.L1, saml.Exact)
		joined := len(s.store.register)
		if out := s.walk(flow, v, a); out.Response == nil || s.store.register[joined].Joining != nil || s.shelf.ended[first.Index] {
			t.Errorf("%s: %+v", name, out)
		}
	}
	if j := s.store.register[1].Joining; j == nil || j.Begin || j.Session != first {
		t.Errorf("joined %+v", j)
	}
}

// TestSessionDoesNotAnswer: who is asked for the password although a session is
// open, and that it is not touched.
func TestSessionDoesNotAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		level  saml.Level
		c      saml.Comparison
		change func(*seat, *saml.Request)
	}{
		"level 2":          {saml.L2, saml.Exact, nil},
		"level 2 maximum":  {saml.L2, saml.Maximum, nil},
		"better than 1":    {saml.L1, saml.Better, nil},
		"ForceAuthn":       {saml.L1, saml.Exact, func(_ *seat, r *saml.Request) { r.ForceAuthn = true }},
		"another browser":  {saml.L1, saml.Exact, func(s *seat, _ *saml.Request) { s.cookie = [32]byte{66} }},
		"no cookie":        {saml.L1, saml.Exact, func(s *seat, _ *saml.Request) { s.cookie = [32]byte{} }},
		"ended":            {saml.L1, saml.Exact, func(s *seat, _ *saml.Request) { s.shelf.ended[s.shelf.byCookie[s.cookie].Index] = true }},
		"sessions are off": {saml.L1, saml.Exact, func(s *seat, _ *saml.Request) { s.Login.sessions = nil }},
	} {
		s := newSeat(t)
		s.open()
		flow, v := s.begin(c.level, c.c, func(r *saml.Request) {
			if c.change != nil {
				c.change(s, r)
			}
		})
		if out := s.walk(flow, v); out.View == nil || out.View.Step != StepCredentials {
			t.Errorf("%s: %+v", name, out)
		}
	}
}

// TestSessionReauthenticates: ForceAuthn gives a new event in the same session;
// another subject in the same browser ends it.
func TestSessionReauthenticates(t *testing.T) {
	s := newSeat(t)
	first := s.open()
	s.advance(time.Minute)
	flow, v := s.begin(saml.L1, saml.Exact, func(r *saml.Request) { r.ForceAuthn = true })
	if out := s.walk(flow, v, right, ConsentAnswer{}); out.SessionBegan || s.last().SessionIndex != first.Index || !s.last().AuthnInstant.After(first.Authenticated) {
		t.Errorf("%+v", s.last())
	}
	s.person("luigi.verdi", "ABCD0000000002", "")
	flow, v = s.begin(saml.L1, saml.Exact, func(r *saml.Request) { r.ForceAuthn = true })
	out := s.walk(flow, v, PasswordAnswer{Username: "luigi.verdi", Password: rightPassword}, ConsentAnswer{})
	if !out.SessionBegan || s.last().SessionIndex == first.Index || !s.shelf.ended[first.Index] {
		t.Errorf("another subject joined: %+v", s.last())
	}
}

// TestSessionIsCheckedAgain: identity and Purpose at each use, the session until
// the last moment.
func TestSessionIsCheckedAgain(t *testing.T) {
	t.Run("suspended", func(t *testing.T) {
		s := newSeat(t)
		s.open()
		who := s.store.people[s.mario.Subject]
		who.State = Suspended
		s.store.put(who)
		flow, v := s.begin(saml.L1, saml.Exact)
		if out := s.walk(flow, v); out.Response == nil || out.Response.Code != saml.NotActive {
			t.Errorf("%+v", out)
		}
	})
	t.Run("suspended on the consent page", func(t *testing.T) {
		s := newSeat(t)
		s.open()
		flow, v := s.begin(saml.L1, saml.Exact)
		s.walk(flow, v)
		who := s.store.people[s.mario.Subject]
		who.State = Suspended
		s.store.put(who)
		if out := s.walk(flow, v); out.Response == nil || out.Response.Code != saml.NotActive {
			t.Errorf("%+v", out)
		}
	})
	t.Run("purpose", func(t *testing.T) {
		s := newSeat(t)
		first := s.open()
		flow, v := s.begin(saml.L1, saml.Exact, func(r *saml.Request) { r.Purpose = "LP" })
		// Nothing leaves before the person did something: an SP would learn, without
		// a word to anybody, that a session is open and of what type of identity.
		if out := s.walk(flow, v); out.View == nil || out.View.Step != StepCredentials || len(out.View.Attributes) != 0 {
			t.Fatalf("%+v", out)
		}
		if out := s.walk(flow, v, right); out.Response == nil || out.Response.Code != saml.WrongIdentityType || s.shelf.ended[first.Index] {
			t.Errorf("%+v", out)
		}
	})
	t.Run("ended on the consent page", func(t *testing.T) {
		s := newSeat(t)
		first := s.open()
		flow, v := s.begin(saml.L1, saml.Exact)
		s.walk(flow, v)
		s.shelf.ended[first.Index] = true
		signed := len(s.signer.statements)
		out, err := s.Answer(t.Context(), flow, v, ConsentAnswer{})
		if err != nil || out.View == nil || out.View.Step != StepCredentials || len(out.View.Attributes) != 0 || len(s.signer.statements) != signed {
			t.Fatalf("%+v, %v", out, err)
		}
		// The login goes on with the password, in a session of its own.
		if out := s.walk(flow, v, right, ConsentAnswer{}); !out.SessionBegan || s.last().SessionIndex == first.Index {
			t.Errorf("%+v", out)
		}
	})
	t.Run("ended within the last transaction", func(t *testing.T) {
		s := newSeat(t)
		first := s.open()
		flow, v := s.begin(saml.L1, saml.Exact)
		s.walk(flow, v)
		s.Login.sessions = blind{first} // still sees it; the store does not
		s.shelf.ended[first.Index] = true
		if out, err := s.Answer(t.Context(), flow, v, ConsentAnswer{}); err != nil || out.Response != nil || out.View.Step != StepCredentials {
			t.Errorf("%+v, %v", out, err)
		}
	})
	t.Run("another browser on the consent page", func(t *testing.T) {
		s := newSeat(t)
		s.open()
		flow, v := s.begin(saml.L1, saml.Exact)
		s.walk(flow, v)
		v.Session = [32]byte{}
		if out, err := s.Answer(t.Context(), flow, v, ConsentAnswer{}); err != nil || out.Response != nil || out.View.Step != StepCredentials {
			t.Errorf("%+v, %v", out, err)
		}
	})
}

// blind is a session that never ends.
type blind struct{ s Session }

func (b blind) Current(context.Context, [32]byte) (Session, error) { return b.s, nil }

// TestSessionRowThatLies: a flow whose row says that a session answered what no
// session may answer is refused at the end.
func TestSessionRowThatLies(t *testing.T) {
	for name, change := range map[string]func(*Flow){
		"level 2":    func(f *Flow) { f.Request.Level, f.Performed = saml.L2, saml.L2 },
		"ForceAuthn": func(f *Flow) { f.Request.ForceAuthn = true },
		"no session": func(f *Flow) { f.Session = "" },
		"no event":   func(f *Flow) { f.Authenticated = time.Time{} },
	} {
		s := newSeat(t)
		s.open()
		flow, v := s.begin(saml.L1, saml.Exact)
		s.walk(flow, v)
		f := s.store.flows[flow]
		change(&f)
		if _, p, err := f.authorise(s.time(), s.policy); err == nil || p != (Passed{}) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
