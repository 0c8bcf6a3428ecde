package session

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"custode/authcore"
	"custode/authcore/register"
	"custode/authcore/saml"
	"custode/authcore/saml/logout"
	"custode/internal/fault"
	"custode/internal/id"
)

// memory keeps the contracts of Records, Logouts and Identities.
type memory struct {
	mu       sync.Mutex
	sessions map[string]Record
	cookies  map[[32]byte]string
	parts    map[string][]Participant
	logouts  map[id.LogoutID]Logout
	state    authcore.State
	saves    int
	fail     error // of every write
	unnoted  map[string]bool
	notes    []register.Incident
}

func newMemory() *memory {
	return &memory{sessions: map[string]Record{}, cookies: map[[32]byte]string{}, parts: map[string][]Participant{}, logouts: map[id.LogoutID]Logout{}, unnoted: map[string]bool{}}
}

func (m *memory) SessionByCookie(_ context.Context, cookie [32]byte) (Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.sessions[m.cookies[cookie]]
	if !ok {
		return Record{}, fault.Newf(fault.NotFound, "read session", "none")
	}
	return r, nil
}

func (m *memory) SessionByName(_ context.Context, sp id.EntityID, nameID string) (Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for index, all := range m.parts {
		for _, p := range all {
			if p.SP == sp && p.NameID == nameID {
				return m.sessions[index], nil
			}
		}
	}
	return Record{}, fault.Newf(fault.NotFound, "read session", "none")
}

func (m *memory) Participants(_ context.Context, index string) ([]Participant, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.parts[index]), nil
}

func (m *memory) EndSession(_ context.Context, index string, at time.Time, l Logout) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.sessions[index]
	switch {
	case m.fail != nil:
		return m.fail
	case !ok || !r.Ended.IsZero():
		return fault.Newf(fault.Conflict, "end session", "it had ended")
	}
	r.Ended = at
	m.sessions[index] = r
	m.unnoted[index] = true
	if !l.ID.IsZero() {
		m.logouts[l.ID] = l
	}
	return nil
}

func (m *memory) find(what func(Logout) bool) (Logout, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.logouts {
		if what(l) {
			l.Parts = slices.Clone(l.Parts)
			return l, nil
		}
	}
	return Logout{}, fault.Newf(fault.NotFound, "read logout", "none")
}

func (m *memory) Logout(_ context.Context, which id.LogoutID) (Logout, error) {
	return m.find(func(l Logout) bool { return l.ID == which })
}

func (m *memory) LogoutOfSession(_ context.Context, index string) (Logout, error) {
	return m.find(func(l Logout) bool { return l.Session == index })
}

func (m *memory) LogoutOfRequest(_ context.Context, request string) (Logout, error) {
	return m.find(func(l Logout) bool {
		return slices.ContainsFunc(l.Parts, func(p Part) bool { return p.Request == request })
	})
}

func (m *memory) SaveLogout(_ context.Context, l Logout) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	if m.logouts[l.ID].Version != l.Version {
		return fault.Newf(fault.Conflict, "save logout", "moved")
	}
	l.Version++
	m.saves++
	m.logouts[l.ID] = l
	return nil
}

func (m *memory) OverdueSessions(_ context.Context, usedBefore, createdBefore time.Time, most int) (out []Record, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.sessions {
		if r.Ended.IsZero() && (r.Used.Before(usedBefore) || r.Created.Before(createdBefore)) && len(out) < most {
			out = append(out, r)
		}
	}
	return out, nil
}

func (m *memory) UnnotedSessions(_ context.Context, before time.Time, most int) (out []Record, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for index := range m.unnoted {
		if m.sessions[index].Ended.Before(before) && len(out) < most {
			out = append(out, m.sessions[index])
		}
	}
	return out, nil
}

func (m *memory) NoteSession(_ context.Context, index string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.unnoted, index)
	return nil
}

func (m *memory) OverdueLogouts(_ context.Context, before time.Time, most int) (out []Logout, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.logouts {
		if !l.Over() && l.Deadline.Before(before) && len(out) < most {
			out = append(out, l)
		}
	}
	return out, nil
}

// Note implements register.Watch.
func (m *memory) Note(_ context.Context, i register.Incident) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.notes = append(m.notes, i)
}

// noted returns what was noted since the last call, one line each.
func (m *memory) noted() (out []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, i := range m.notes {
		out = append(out, string(i.What)+" "+i.SP.String()+" "+i.Detail)
	}
	m.notes = nil
	return out
}

func (m *memory) Identity(context.Context, id.Subject) (authcore.Identity, error) {
	return authcore.Identity{State: m.state, Attributes: map[string]string{"name": "Ada", "familyName": "Lovati"}}, nil
}

// bench is Sessions with real messages between real keys, and an SP for each way
// to be told.
type bench struct {
	*Sessions
	t     *testing.T
	store *memory
	now   time.Time
	log   bytes.Buffer
	sps   spMap
	wire  *wire
	who   id.Subject
}

type spMap map[string]*saml.SP

func (m spMap) Lookup(entityID string) (*saml.SP, bool) { sp, ok := m[entityID]; return sp, ok }

// messages notes what is built instead of signing: saml/logout's tests do that.
type messages struct{ n int }

func (m *messages) NewID() (string, error) { m.n++; return fmt.Sprintf("_id%d", m.n), nil }

func (m *messages) Request(to saml.Endpoint, e logout.Ended, _ time.Time) (logout.Message, error) {
	return logout.Message{ID: e.ID, Binding: to.Binding, Location: to.Location, Parameter: "SAMLRequest", XML: []byte(e.ID + " " + e.NameID + " " + e.SessionIndex)}, nil
}

func (m *messages) Response(to saml.Endpoint, r logout.Reply, _ time.Time) (logout.Message, error) {
	return logout.Message{ID: "_answer", Binding: to.Binding, Location: to.Location, Parameter: "SAMLResponse",
		XML: fmt.Appendf(nil, "%s partial=%v", r.InResponseTo, r.Partial), RelayState: r.RelayState, HasRelayState: r.HasRelayState}, nil
}

// wire is the Channel and the Answers: what an SP says over SOAP.
type wire struct {
	mu   sync.Mutex
	sent []string
	send func(ctx context.Context, location, body string) ([]byte, error)
}

func (w *wire) Send(ctx context.Context, location string, envelope []byte) ([]byte, error) {
	w.mu.Lock()
	w.sent = append(w.sent, location+" "+string(envelope))
	f := w.send
	w.mu.Unlock()
	if f == nil {
		return nil, fault.New(fault.Unavailable, "send", errors.New("nobody answers"))
	}
	return f(ctx, location, string(envelope))
}

func (w *wire) SOAPAnswer([]byte, time.Time) (logout.Verified, error) {
	return logout.Verified{}, fault.Newf(fault.Denied, "read", "no good answer")
}

func entity(s string) id.EntityID {
	e, err := id.ParseEntityID(s)
	if err != nil {
		panic(err)
	}
	return e
}

const (
	spSOAP  = "https://soap.example.it"
	spRedir = "https://redir.example.it"
	spPost  = "https://post.example.it"
	spNone  = "https://none.example.it"
)

func newBench(t *testing.T, p Policy) *bench {
	t.Helper()
	b := &bench{t: t, store: newMemory(), now: time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC), wire: &wire{}, sps: spMap{}}
	for name, binding := range map[string]saml.Binding{spSOAP: saml.SOAP, spRedir: saml.Redirect, spPost: saml.Post, spNone: 0} {
		sp := &saml.SP{EntityID: entity(name)}
		if binding != 0 {
			sp.SLO = []saml.Endpoint{{Binding: binding, Location: name + "/slo"}}
		}
		b.sps[name] = sp
	}
	var err error
	if b.who, err = id.NewSubject(rand.Reader); err != nil {
		t.Fatal(err)
	}
	b.Sessions, err = New(Config{Records: b.store, Logouts: b.store, Ends: b.store, Watch: b.store, Identities: b.store, SPs: b.sps, Messages: &messages{}, Answers: b.wire,
		Channel: b.wire, Random: rand.Reader, Now: func() time.Time { return b.now }, Log: slog.New(slog.NewTextHandler(&b.log, nil)), Policy: p})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// cookie is the hash of a browser's cookie by name.
func cookie(name string) [32]byte { return sha256.Sum256([]byte(name)) }

// session makes a session with participants; the NameID of each is its host.
func (b *bench) session(index string, sps ...string) {
	b.store.sessions[index] = Record{Index: index, Subject: b.who, Authenticated: b.now.Add(-time.Second), Created: b.now, Used: b.now}
	b.store.cookies[cookie(index)] = index
	for _, sp := range sps {
		b.store.parts[index] = append(b.store.parts[index], Participant{SP: entity(sp), NameID: index + sp, Joined: b.now})
	}
}
