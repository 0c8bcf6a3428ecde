package session

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"custode/authcore/saml"
	"custode/authcore/saml/logout"
	"custode/internal/fault"
	"custode/internal/id"
)

const idpSLO = "https://idp.example.it/slo"

// speaker is an SP that signs: our own Issuer under its name.
type speaker struct {
	cert  *x509.Certificate
	words *logout.Issuer
}

var spKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func (b *bench) speaker(sp string) speaker {
	b.t.Helper()
	key := spKey()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: b.now.AddDate(-1, 0, 0), NotAfter: b.now.AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		b.t.Fatal(err)
	}
	s := speaker{}
	if s.cert, err = x509.ParseCertificate(der); err != nil {
		b.t.Fatal(err)
	}
	if s.words, err = logout.NewIssuer(saml.IssuerConfig{EntityID: entity(sp), Signer: key, Certificate: s.cert, Random: rand.Reader}); err != nil {
		b.t.Fatal(err)
	}
	b.sps[sp].Certificates = []*x509.Certificate{s.cert}
	return s
}

// request is what our reader makes of the SP's LogoutRequest by that binding.
func (b *bench) request(s speaker, by saml.Binding, e logout.Ended) logout.Verified {
	b.t.Helper()
	reader, err := logout.NewReader(logout.ReaderConfig{EntityID: entity("https://idp.example.it"), Locations: []string{idpSLO}, SPs: b.sps})
	if err != nil {
		b.t.Fatal(err)
	}
	m, err := s.words.Request(saml.Endpoint{Binding: by, Location: idpSLO}, e, b.now)
	if err != nil {
		b.t.Fatal(err)
	}
	var v logout.Verified
	if by == saml.SOAP {
		v, err = reader.SOAP(m.XML, b.now)
	} else {
		_, query, _ := strings.Cut(m.Location, "?")
		v, err = reader.Redirect([]byte(query), b.now)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

// arrive brings a LogoutRequest of spRedir about session index and returns the
// logout it leads to.
func (b *bench) arrive(s speaker, index, request string) id.LogoutID {
	b.t.Helper()
	next, err := b.Arrive(b.t.Context(), b.request(s, saml.Redirect, logout.Ended{ID: request, NameID: index + spRedir, SessionIndex: index}), cookie("browser"))
	if err != nil || next.Logout.IsZero() {
		b.t.Fatalf("%+v, %v", next, err)
	}
	return next.Logout
}

// TestForeignBrowser: an SP can bring its own LogoutRequest in a browser of its
// own. The session ends, and it learns of no other SP: no name, no NameID.
func TestForeignBrowser(t *testing.T) {
	for name, c := range map[string]string{"no session": "", "another session": "_s2", "unknown session": "x"} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, Policy{})
			b.session("_s1", spRedir, spPost, spSOAP)
			b.session("_s2", spRedir)
			l := b.arrive(b.speaker(spRedir), "_s1", "_q1")
			var held [32]byte
			if c != "" {
				held = cookie(c)
			}
			for _, m := range []Move{Look, Go, Go, Look, Skip} {
				p, err := b.Step(t.Context(), l, held, cookie("browser"), m)
				if err != nil {
					t.Fatal(err)
				}
				if len(p.Parts) != 0 || p.Again {
					t.Errorf("move %d shows %s", m, states(p.Parts))
				}
				if m != Look && (p.Message == nil || p.Message.Parameter != "SAMLResponse" || string(p.Message.XML) != "_q1 partial=true") {
					t.Errorf("move %d sends %+v", m, p.Message)
				}
			}
			if len(b.wire.sent) != 1 || b.store.sessions["_s1"].Ended.IsZero() || !b.store.sessions["_s2"].Ended.IsZero() {
				t.Errorf("told %q", b.wire.sent)
			}
		})
	}
	// The session's own browser goes through the chain.
	b := newBench(t, Policy{})
	b.session("_s1", spRedir, spPost)
	l := b.arrive(b.speaker(spRedir), "_s1", "_q1")
	if p, err := b.Step(t.Context(), l, cookie("_s1"), cookie("browser"), Look); err != nil || states(p.Parts) != "post:waiting" {
		t.Errorf("%s, %v", states(p.Parts), err)
	}
	if p, err := b.Step(t.Context(), l, cookie("_s1"), cookie("browser"), Go); err != nil || p.Message == nil || p.Message.Location != spPost+"/slo" {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestLeaveTwice: the answer to the first click is lost (a second click, a kill),
// and with it the cookie that opens the logout. The second click goes on.
func TestLeaveTwice(t *testing.T) {
	b := newBench(t, Policy{})
	b.session("_s1", spRedir, spPost)
	first := b.leave("_s1")
	again, err := b.Leave(t.Context(), cookie("_s1"), cookie("second"))
	if err != nil || again != first {
		t.Fatalf("%v, %v", again, err)
	}
	p, err := b.Step(t.Context(), again, cookie("_s1"), cookie("second"), Go)
	if err != nil || p.Message == nil || states(p.Parts) != "redir:sent post:waiting" {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := b.Step(t.Context(), again, cookie("_s1"), cookie("browser"), Look); !fault.Is(err, fault.Denied) {
		t.Errorf("the first cookie still opens it: %v", err)
	}
	// The same about one that an SP began; its answer is not forgotten.
	b.session("_s2", spRedir, spPost)
	b.arrive(b.speaker(spRedir), "_s2", "_q1")
	if again, err = b.Leave(t.Context(), cookie("_s2"), cookie("third")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		p, err = b.Step(t.Context(), again, cookie("_s2"), cookie("third"), Skip)
	}
	if err != nil || p.Message == nil || string(p.Message.XML) != "_q1 partial=true" {
		t.Errorf("%+v, %v", p, err)
	}
	// What is over, or too old, is not opened again.
	if _, err := b.Leave(t.Context(), cookie("_s2"), cookie("fourth")); !fault.Is(err, fault.NotFound) {
		t.Errorf("over: %v", err)
	}
	b.now = b.now.Add(LogoutLife)
	if _, err := b.Leave(t.Context(), cookie("_s1"), cookie("fourth")); !fault.Is(err, fault.NotFound) {
		t.Errorf("too late: %v", err)
	}
}

// TestLeaveDuringSOAP: a logout that runs on an SP's connection is not the
// browser's to take over.
func TestLeaveDuringSOAP(t *testing.T) {
	b := newBench(t, Policy{})
	b.session("_s1", spRedir, spSOAP)
	l := Logout{ID: mustLogoutID(t), Version: 1, Session: "_s1", Deadline: b.now.Add(time.Minute), Initiator: Initiator{SP: entity(spRedir), Request: "_q", Binding: saml.SOAP},
		Parts: []Part{{SP: entity(spSOAP), Binding: saml.SOAP, Request: "_r", State: Waiting}}}
	if err := b.store.EndSession(t.Context(), "_s1", b.now, l); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Leave(t.Context(), cookie("_s1"), cookie("browser")); !fault.Is(err, fault.NotFound) {
		t.Errorf("%v", err)
	}
}

func mustLogoutID(t *testing.T) id.LogoutID {
	t.Helper()
	l, err := id.NewLogoutID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// pausing signs when it is let.
type pausing struct {
	messages
	begun, let chan struct{}
}

func (p *pausing) Response(to saml.Endpoint, r logout.Reply, now time.Time) (logout.Message, error) {
	p.begun <- struct{}{}
	<-p.let
	return p.messages.Response(to, r, now)
}

// TestReplayFlood: a LogoutRequest about no session is answered with a signature
// each time it is sent. Such answers are signed one at a time, few may wait, and
// the rest is turned away: logins need the HSM too.
func TestReplayFlood(t *testing.T) {
	b := newBench(t, Policy{})
	p := &pausing{begun: make(chan struct{}), let: make(chan struct{})}
	b.Sessions.Messages = p
	s := b.speaker(spRedir)
	browsers := b.request(s, saml.Redirect, logout.Ended{ID: "_q1", NameID: "_gone", SessionIndex: "_s"})
	overSOAP := b.request(s, saml.SOAP, logout.Ended{ID: "_q2", NameID: "_gone", SessionIndex: "_s"})
	const flood = 2 * waitToAnswer
	errs := make(chan error, 2*flood)
	for range flood {
		go func() { _, err := b.Arrive(t.Context(), browsers, cookie("browser")); errs <- err }()
		go func() { _, err := b.SOAP(t.Context(), overSOAP); errs <- err }()
	}
	<-p.begun
	for range 2*flood - 1 - waitToAnswer { // all but the one that signs and those that wait
		if err := <-errs; !fault.Is(err, fault.Busy) {
			t.Fatalf("%v", err)
		}
	}
	close(p.let)
	for range waitToAnswer {
		<-p.begun
	}
	for range waitToAnswer + 1 {
		if err := <-errs; err != nil {
			t.Errorf("%v", err)
		}
	}
}
