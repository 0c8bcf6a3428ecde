package web

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"custode/authcore"
	"custode/authcore/passhash"
	"custode/authcore/register"
	"custode/authcore/saml"
	"custode/internal/fault"
	"custode/internal/id"
)

// lastPage is the real login with flows that begin at the consent page, and a
// fake store and signer for one flow.
type lastPage struct {
	*authcore.Login
	authcore.Tallies
	authcore.Codes
	authcore.Deliveries
	mu       sync.Mutex
	request  saml.Request
	who      authcore.Identity
	flow     authcore.Flow
	finished int
	signing  func()
	recorded func()
	clicks   chan struct{} // one value per answer that arrives
}

func newLastPage(t *testing.T, acs string) *lastPage {
	t.Helper()
	l := &lastPage{clicks: make(chan struct{}, 8), signing: func() {}, recorded: func() {}}
	passwords, err := passhash.New(passhash.Config{Pepper: l, Random: rand.Reader, Cost: passhash.Cost{Memory: 8, Time: 1, Threads: 1}})
	if err != nil {
		t.Fatal(err)
	}
	l.who, err = authcore.NewIdentity(authcore.NewIdentityInput{Username: "mario", SPIDCode: "ABCD1234567890", Random: rand.Reader, Now: time.Now(),
		Attributes: map[string]string{"name": "Mario"}})
	if err != nil {
		t.Fatal(err)
	}
	l.request = saml.Request{ID: "_q1", SP: mustEntity(t, "https://sp.example.it"), Level: saml.L1, Comparison: saml.Exact, ACS: acs}
	l.Login, err = authcore.New(authcore.Config{Register: l, Watch: &witness{}, Flows: l, Identities: l, Tallies: l, Codes: l, Deliveries: l, Responses: l,
		Passwords: passwords, Random: rand.Reader, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Begin stands for everything up to the consent page.
func (l *lastPage) Begin(_ context.Context, _ saml.VerifiedRequest, v authcore.Visitor) (id.FlowID, error) {
	flow, err := id.NewFlowID(rand.Reader)
	now := time.Now()
	l.flow = authcore.Flow{ID: flow, Browser: v.Browser, Request: l.request, Step: authcore.StepConsent, Started: now,
		Deadline: now.Add(5 * time.Minute), Subject: l.who.Subject, Performed: saml.L1, Authenticated: now, Version: 1}
	return flow, err
}

func (l *lastPage) Answer(ctx context.Context, flow id.FlowID, v authcore.Visitor, a authcore.Answer) (authcore.Outcome, error) {
	l.clicks <- struct{}{}
	return l.Login.Answer(ctx, flow, v, a)
}

func (l *lastPage) Ready() (uint64, error) { return 0, nil }

func (l *lastPage) Record(context.Context, register.Transaction) (register.Proof, error) {
	return recorded{}, nil
}

func (l *lastPage) MAC(_ context.Context, data []byte) ([]byte, error) { return make([]byte, 32), nil }

func (l *lastPage) CreateFlow(context.Context, authcore.Flow) error { panic("not here") }

func (l *lastPage) SaveFlow(context.Context, authcore.Flow) error { panic("not here") }

func (l *lastPage) Flow(context.Context, id.FlowID) (authcore.Flow, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.flow, nil
}

func (l *lastPage) FinishFlow(_ context.Context, f authcore.Flow, _ authcore.Answered) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.Version != l.flow.Version {
		return fault.New(fault.Conflict, "finish flow", nil)
	}
	l.finished++
	l.flow = f
	l.flow.Version++
	l.recorded()
	return nil
}

func (l *lastPage) IdentityByUsername(context.Context, id.Username) (authcore.Identity, error) {
	panic("not here")
}

func (l *lastPage) Identity(context.Context, id.Subject) (authcore.Identity, error) {
	return l.who, nil
}

func (l *lastPage) Success(st saml.Statement, _ time.Time) (saml.Signed, error) {
	l.signing()
	s := testSigned(saml.Success)
	s.ACS = st.Request.ACS
	return *s, nil
}

func (l *lastPage) Anomaly(saml.Code, saml.Reply, time.Time) (saml.Signed, error) { panic("not here") }

// slowAnswers holds the next answer back, once armed: it is on its way.
type slowAnswers struct {
	net.Listener
	armed  atomic.Bool
	onWay  chan struct{}
	arrive chan struct{}
}

type slowConn struct {
	net.Conn
	l *slowAnswers
}

func (l *slowAnswers) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return slowConn{c, l}, err
}

func (c slowConn) Write(b []byte) (int, error) {
	if c.l.armed.CompareAndSwap(true, false) {
		close(c.l.onWay)
		<-c.l.arrive
	}
	return c.Conn.Write(b)
}

// TestDoubleClickInChromium clicks twice on the last button against the real
// login. Chromium drops the first answer and posts again; the login must not be
// lost, whether the second click comes while the Response is being signed or
// while the answer is on its way.
func TestDoubleClickInChromium(t *testing.T) {
	for _, onWay := range []bool{false, true} {
		t.Run(fmt.Sprintf("answer on its way=%v", onWay), func(t *testing.T) { doubleClick(t, onWay) })
	}
}

func doubleClick(t *testing.T, onWay bool) {
	ctx := chromium(t, 30*time.Second)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	origin := "http://localhost:" + port
	acs := make(chan received, 4)
	sp := startSP(t, false, origin, acs)
	login := newLastPage(t, sp.URL+"/acs")
	second := make(chan struct{})
	slow := &slowAnswers{Listener: ln, onWay: make(chan struct{}), arrive: second}
	first := slow.onWay // closed when the second click is to come
	if onWay {
		login.recorded = func() { slow.armed.Store(true) }
	} else {
		signing := make(chan struct{})
		first = signing
		login.signing = func() { close(signing); <-second }
	}
	room := newRoom(t, func(c *Config) {
		c.PublicURL, c.DevelopmentHTTP, c.Logins = origin, true, login
		c.Limits.Shutdown = time.Second
	})
	serving, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- room.Serve(serving, slow) }()
	defer func() {
		stop()
		<-done
		if t.Failed() {
			t.Log(room.log.String())
		}
	}()

	act(t, ctx, chromedp.Navigate(sp.URL))
	follow(t, ctx, chromedp.Click("#go"))
	act(t, ctx, chromedp.WaitVisible("button[value=consent]"))
	at := eval[[]float64](t, ctx, `(() => { const e = document.querySelector("button[value=consent]"); e.scrollIntoView({block: "center"});
		const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2] })()`)
	act(t, ctx, chromedp.MouseClickXY(at[0], at[1]))
	wait(t, ctx, login.clicks, "first click")
	wait(t, ctx, first, "first answer")
	act(t, ctx, chromedp.MouseClickXY(at[0], at[1]))
	wait(t, ctx, login.clicks, "second click")
	close(second)
	select {
	case <-acs:
	case <-time.After(10 * time.Second):
		page := eval[string](t, ctx, `document.body.innerText`)
		t.Fatalf("the login is lost; the page says %q", page)
	}
	act(t, ctx, chromedp.WaitVisible("#in"))
	if len(acs) != 0 || login.finished != 1 {
		t.Errorf("%d more Responses arrived, %d logins were finished", len(acs), login.finished)
	}
}

func wait(t *testing.T, ctx context.Context, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-ctx.Done():
		t.Fatalf("waiting for the %s: %v", what, ctx.Err())
	}
}
