package storetest

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"custode/authcore"
	"custode/authcore/saml"
	"custode/authcore/session"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store"
)

// login finishes a level 1 flow of the person at the SP, joining j.
func login(t *testing.T, b *Bench, i authcore.Identity, sp, nameID string, at time.Time, j authcore.Joining) error {
	t.Helper()
	f := NewFlow(t, b.Now)
	f.Request.SP, f.Request.Level, f.Subject = parse(t, id.ParseEntityID, sp), saml.L1, i.Subject
	must(t, b.DB.CreateFlow(b.ctx, f))
	f.Step, f.Outcome = authcore.StepDone, saml.Success
	a := NewAnswered(f, i.SPIDCode, at)
	a.Response.NameID = nameID
	j.Session.Subject, j.SPName = i.Subject, map[string]string{"it": "Comune"}
	a.Joining = &j
	err := b.DB.FinishFlow(b.ctx, f, a)
	if err != nil {
		wantKind(t, "no answer of a refused login", discard(b.DB.Answer(b.ctx, f.Request.SP, f.Request.ID)), fault.NotFound)
	}
	return err
}

func begin(index string, cookie byte) authcore.Joining {
	return authcore.Joining{Session: authcore.Session{Index: index, Authenticated: time.Unix(77, 5)}, Begin: true, Cookie: [32]byte{cookie}}
}

func join(index string) authcore.Joining {
	return authcore.Joining{Session: authcore.Session{Index: index}}
}

func person(t *testing.T, b *Bench, n int) authcore.Identity {
	t.Helper()
	i := NewIdentity(t, n, b.Now)
	must(t, b.DB.AddIdentity(b.ctx, i, change(b)))
	return i
}

func testSessionLife(t *testing.T, b *Bench) {
	i := person(t, b, 1)
	spA, spB := "https://a.example.it", "https://b.example.it"
	must(t, login(t, b, i, spA, "_n1", b.Now, begin("_s1", 1)))
	must(t, login(t, b, i, spB, "_n2", b.Now.Add(time.Minute), join("_s1")))
	must(t, login(t, b, i, spA, "_n3", b.Now.Add(-time.Hour), join("_s1"))) // the clock was set back
	want := session.Record{Index: "_s1", Subject: i.Subject, Authenticated: time.Unix(77, 5).UTC(), Created: b.Now, Used: b.Now.Add(time.Minute)}
	b.reopen(t)
	for what, got := range map[string]session.Record{
		"by cookie": get(b.DB.SessionByCookie(b.ctx, [32]byte{1}))(t),
		"by name":   get(b.DB.SessionByName(b.ctx, parse(t, id.ParseEntityID, spB), "_n2"))(t),
	} {
		if diff := cmp.Diff(want, got, identifiers); diff != "" {
			t.Errorf("%s:\n%s", what, diff)
		}
	}
	var names []string
	for _, p := range get(b.DB.Participants(b.ctx, "_s1"))(t) {
		names = append(names, p.SP.String()+p.NameID+p.Names["it"])
	}
	if diff := cmp.Diff([]string{spA + "_n3Comune", spA + "_n1Comune", spB + "_n2Comune"}, names); diff != "" {
		t.Error(diff)
	}
	wantKind(t, "another SP's name", discard(b.DB.SessionByName(b.ctx, parse(t, id.ParseEntityID, spB), "_n1")), fault.NotFound)
	wantKind(t, "no such cookie", discard(b.DB.SessionByCookie(b.ctx, [32]byte{2})), fault.NotFound)

	must(t, b.DB.EndSession(b.ctx, "_s1", b.Now.Add(time.Hour), session.Logout{}))
	if got := get(b.DB.SessionByCookie(b.ctx, [32]byte{1}))(t); !got.Ended.Equal(b.Now.Add(time.Hour)) {
		t.Errorf("ended at %v", got.Ended)
	}
	wantKind(t, "end again", b.DB.EndSession(b.ctx, "_s1", b.Now, session.Logout{}), fault.Conflict)
	unnoted := func(before time.Time) int { return len(get(b.DB.UnnotedSessions(b.ctx, before, 10))(t)) }
	if unnoted(b.Now.Add(time.Hour)) != 0 || unnoted(b.Now.Add(2*time.Hour)) != 1 {
		t.Error("an end that nobody noted is not found")
	}
	must(t, b.DB.NoteSession(b.ctx, "_s1"))
	if unnoted(b.Now.Add(2*time.Hour)) != 0 {
		t.Error("an end is noted twice")
	}
	must(t, login(t, b, i, spA, "_n8", b.Now, begin("_s8", 9)))
	overdue := func(used, created time.Time) int { return len(get(b.DB.OverdueSessions(b.ctx, used, created, 10))(t)) }
	if overdue(b.Now, b.Now) != 0 || overdue(b.Now.Add(1), b.Now) != 1 || overdue(b.Now, b.Now.Add(1)) != 1 {
		t.Error("sessions whose time is over")
	}
	wantKind(t, "end of none", b.DB.EndSession(b.ctx, "_s9", b.Now, session.Logout{}), fault.Conflict)
	wantKind(t, "join after the end", login(t, b, i, spB, "_n4", b.Now, join("_s1")), fault.Expired)
}

func testSessionRefusals(t *testing.T, b *Bench) {
	i, other := person(t, b, 1), person(t, b, 2)
	must(t, login(t, b, i, "https://a.example.it", "_n1", b.Now, begin("_s1", 1)))
	wantKind(t, "join of none", login(t, b, i, "https://b.example.it", "_n2", b.Now, join("_s2")), fault.Expired)
	wantKind(t, "another subject's", login(t, b, other, "https://b.example.it", "_n2", b.Now, join("_s1")), fault.Expired)
	wantKind(t, "cookie in use", login(t, b, i, "https://b.example.it", "_n2", b.Now, begin("_s3", 1)), fault.Conflict)
	wantKind(t, "index in use", login(t, b, i, "https://b.example.it", "_n2", b.Now, begin("_s1", 3)), fault.Conflict)

	f := NewFlow(t, b.Now) // of level 2
	f.Subject = i.Subject
	must(t, b.DB.CreateFlow(b.ctx, f))
	f.Step, f.Outcome = authcore.StepDone, saml.Success
	a := NewAnswered(f, i.SPIDCode, b.Now)
	j := join("_s1")
	j.Session.Subject = i.Subject
	a.Joining = &j
	wantKind(t, "level 2 joins", b.DB.FinishFlow(b.ctx, f, a), fault.Internal)
	a.Joining = nil
	must(t, b.DB.FinishFlow(b.ctx, f, a))
	if n := len(get(b.DB.Participants(b.ctx, "_s1"))(t)); n != 1 {
		t.Errorf("%d participants", n)
	}
}

// testSessionReplaced: a browser has one session.
func testSessionReplaced(t *testing.T, b *Bench) {
	i, other := person(t, b, 1), person(t, b, 2)
	must(t, login(t, b, i, "https://a.example.it", "_n1", b.Now, begin("_s1", 1)))
	second := begin("_s2", 2)
	second.Replaces = "_s1"
	must(t, login(t, b, other, "https://a.example.it", "_n2", b.Now, second))
	if got := get(b.DB.SessionByCookie(b.ctx, [32]byte{1}))(t); got.Ended.IsZero() {
		t.Error("the replaced session is open")
	}
	if got := get(b.DB.SessionByCookie(b.ctx, [32]byte{2}))(t); !got.Ended.IsZero() || got.Subject != other.Subject {
		t.Errorf("%+v", got)
	}
}

// NewLogout returns a logout in which no field is zero.
func NewLogout(t testing.TB, index string, now time.Time) session.Logout {
	t.Helper()
	sp := parse(t, id.ParseEntityID, "https://b.example.it")
	l := newID(t, id.NewLogoutID)
	return session.Logout{ID: l, Version: 1, Session: index, Browser: [32]byte{7}, Deadline: now.Add(time.Minute),
		Initiator: session.Initiator{SP: sp, Request: "_q", Binding: saml.Post, Silent: true, RelayState: "r\xff\x00", HasRelayState: true},
		Parts: []session.Part{{SP: sp, Names: map[string]string{"it": "Forlì"}, NameID: "_n", Binding: saml.SOAP, Request: "_p1" + l.String(), State: session.Waiting},
			{SP: sp, NameID: "_n2", Binding: saml.Redirect, Request: "_p2" + l.String(), State: session.Sent}}}
}

func testLogoutRoundTrip(t *testing.T, b *Bench) {
	i := person(t, b, 1)
	must(t, login(t, b, i, "https://a.example.it", "_n1", b.Now, begin("_s1", 1)))
	l := NewLogout(t, "_s1", b.Now)
	must(t, b.DB.EndSession(b.ctx, "_s1", b.Now, l))
	b.reopen(t)
	check := func() {
		t.Helper()
		for what, got := range map[string]session.Logout{
			"by itself": get(b.DB.Logout(b.ctx, l.ID))(t), "by session": get(b.DB.LogoutOfSession(b.ctx, "_s1"))(t),
			"by request": get(b.DB.LogoutOfRequest(b.ctx, l.Parts[1].Request))(t),
		} {
			if diff := cmp.Diff(l, got, identifiers); diff != "" {
				t.Errorf("%s:\n%s", what, diff)
			}
		}
	}
	check()
	l.Parts[0].State, l.Parts[1].State, l.Browser, l.Initiator.Request = session.Done, session.Failed, [32]byte{8}, "_q2"
	must(t, b.DB.SaveLogout(b.ctx, l))
	wantKind(t, "stale", b.DB.SaveLogout(b.ctx, l), fault.Conflict)
	l.Version = 2
	check()
	wantKind(t, "unknown", discard(b.DB.Logout(b.ctx, newID(t, id.NewLogoutID))), fault.NotFound)
	wantKind(t, "unknown request", discard(b.DB.LogoutOfRequest(b.ctx, "_x")), fault.NotFound)
	wantKind(t, "unknown session", discard(b.DB.LogoutOfSession(b.ctx, "_x")), fault.NotFound)
}

// testSessionEndRace: a session ends once, and its logout is the winner's.
func testSessionEndRace(t *testing.T, b *Bench) {
	i := person(t, b, 1)
	must(t, login(t, b, i, "https://a.example.it", "_n1", b.Now, begin("_s1", 1)))
	other := b.another(t)
	all := make([]session.Logout, 8)
	for n := range all {
		all[n] = NewLogout(t, "_s1", b.Now)
	}
	errs := race(len(all), func(n int) error { return []*store.DB{b.DB, other}[n%2].EndSession(b.ctx, "_s1", b.Now, all[n]) })
	oneWinner(t, errs, fault.Conflict)
	won := get(b.DB.LogoutOfSession(b.ctx, "_s1"))(t)
	for n, err := range errs {
		if (err == nil) != (won.ID == all[n].ID) {
			t.Errorf("the stored logout is %s; %d returned %v", won.ID, n, err)
		}
	}
}

// testJoinEndRace: whoever joins is either told of the end or refused.
func testJoinEndRace(t *testing.T, b *Bench) {
	i := person(t, b, 1)
	must(t, login(t, b, i, "https://a.example.it", "_n1", b.Now, begin("_s1", 1)))
	var joined, ended error
	var seen int
	_ = race(2, func(n int) error {
		if n == 0 {
			joined = login(t, b, i, "https://b.example.it", "_n2", b.Now, join("_s1"))
			return nil
		}
		ended = b.DB.EndSession(b.ctx, "_s1", b.Now, session.Logout{})
		return nil
	})
	seen = len(get(b.DB.Participants(b.ctx, "_s1"))(t))
	if ended != nil || joined == nil && seen != 2 || joined != nil && (seen != 1 || !fault.Is(joined, fault.Expired)) {
		t.Errorf("joined %v, ended %v, %d participants", joined, ended, seen)
	}
}

func testSessionSweep(t *testing.T, b *Bench) {
	i := person(t, b, 1)
	must(t, login(t, b, i, "https://a.example.it", "_n1", b.Now, begin("_s1", 1)))
	must(t, login(t, b, i, "https://a.example.it", "_n2", b.Now.Add(20*time.Hour), begin("_s2", 2)))
	l := NewLogout(t, "_s1", b.Now)
	must(t, b.DB.EndSession(b.ctx, "_s1", b.Now, l))
	if s := get(b.DB.Sweep(b.ctx, b.Now.Add(24*time.Hour)))(t); s.Sessions != 0 || s.Logouts != 1 {
		t.Errorf("after a day %+v", s)
	}
	wantKind(t, "logout", discard(b.DB.LogoutOfRequest(b.ctx, l.Parts[0].Request)), fault.NotFound)
	if s := get(b.DB.Sweep(b.ctx, b.Now.Add(26*time.Hour)))(t); s.Sessions != 1 {
		t.Errorf("later %+v", s)
	}
	wantKind(t, "session", discard(b.DB.SessionByCookie(b.ctx, [32]byte{1})), fault.NotFound)
	must(t, discard(b.DB.SessionByCookie(b.ctx, [32]byte{2})))
	if n := len(get(b.DB.Participants(b.ctx, "_s1"))(t)); n != 0 {
		t.Errorf("%d participants of no session", n)
	}
}
