package web

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"custode/authcore"
	"custode/authcore/register"
	"custode/authcore/saml"
	"custode/internal/id"
)

var testNow = time.Date(2026, 3, 9, 10, 20, 30, 0, time.UTC)

const (
	testFlowText = "f_0123456789abcdef0123456789abcdef"
	spName       = `Comune di Sant'Agata "Bolognese" & <Figli>`
)

func mustFlow(t testing.TB, s string) id.FlowID {
	t.Helper()
	f, err := id.ParseFlowID(s)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func mustEntity(t testing.TB, s string) id.EntityID {
	t.Helper()
	e, err := id.ParseEntityID(s)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// counter is a reader of predictable, ever different octets.
type counter struct {
	mu sync.Mutex
	n  uint64
}

func (c *counter) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b [8]byte
	for i := range p {
		if i%8 == 0 {
			c.n++
			binary.BigEndian.PutUint64(b[:], c.n*0x9e3779b97f4a7c15)
		}
		p[i] = b[i%8]
	}
	return len(p), nil
}

// fakeLogins answers with its functions; a nil one fails the test.
type fakeLogins struct {
	t      testing.TB
	begin  func(authcore.Visitor) (id.FlowID, error)
	view   func(context.Context, id.FlowID, authcore.Visitor) (authcore.Outcome, error)
	answer func(id.FlowID, authcore.Visitor, authcore.Answer) (authcore.Outcome, error)
	refuse func(*saml.Refusal) (saml.Signed, error) // the Response; recorded
}

func (f *fakeLogins) Begin(_ context.Context, _ saml.VerifiedRequest, v authcore.Visitor) (id.FlowID, error) {
	if f.begin == nil {
		f.t.Error("Begin was called")
		return id.FlowID{}, io.ErrUnexpectedEOF
	}
	return f.begin(v)
}

func (f *fakeLogins) View(ctx context.Context, flow id.FlowID, v authcore.Visitor) (authcore.Outcome, error) {
	if f.view == nil {
		f.t.Error("View was called")
		return authcore.Outcome{}, io.ErrUnexpectedEOF
	}
	return f.view(ctx, flow, v)
}

func (f *fakeLogins) Answer(_ context.Context, flow id.FlowID, v authcore.Visitor, a authcore.Answer) (authcore.Outcome, error) {
	if f.answer == nil {
		f.t.Error("Answer was called")
		return authcore.Outcome{}, io.ErrUnexpectedEOF
	}
	return f.answer(flow, v, a)
}

func (f *fakeLogins) Refuse(_ context.Context, r *saml.Refusal) (authcore.Outcome, error) {
	if f.refuse == nil {
		f.t.Error("Refuse was called")
		return authcore.Outcome{}, io.ErrUnexpectedEOF
	}
	signed, err := f.refuse(r)
	return authcore.Outcome{Response: &signed, Proof: recorded{}}, err
}

// recorded is a proof.
type recorded struct{}

func (recorded) IsZero() bool   { return false }
func (recorded) String() string { return "recorded" }

// witness notes incidents.
type witness struct {
	mu    sync.Mutex
	noted []register.Incident
}

func (w *witness) Note(_ context.Context, i register.Incident) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noted = append(w.noted, i)
}

func (w *witness) all() []register.Incident {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.noted)
}

// fakeRequests keeps what it was given and returns err.
type fakeRequests struct {
	mu            sync.Mutex
	query         []byte
	samlRequest   []byte
	relayState    []byte
	hasRelayState bool
	err           error
}

func (f *fakeRequests) Redirect(q []byte, _ time.Time) (saml.VerifiedRequest, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.query = q
	return saml.VerifiedRequest{}, f.err
}

func (f *fakeRequests) Post(req, rs []byte, has bool, _ time.Time) (saml.VerifiedRequest, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.samlRequest, f.relayState, f.hasRelayState = req, rs, has
	return saml.VerifiedRequest{}, f.err
}

// lockedBuffer is a log that tests can read while handlers write.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

type testRoom struct {
	witness *witness
	*Server
	logins   *fakeLogins
	requests *fakeRequests
	log      *lockedBuffer
	url      string
	stop     context.CancelFunc
	done     chan error
}

// newRoom builds a Server with fakes and does not serve.
func newRoom(t testing.TB, change func(*Config)) *testRoom {
	t.Helper()
	room := &testRoom{witness: &witness{}, logins: &fakeLogins{t: t}, requests: &fakeRequests{}, log: &lockedBuffer{}}
	cfg := Config{
		PublicURL: "https://login.example.it", EntityID: mustEntity(t, "https://login.example.it"), Listen: "127.0.0.1:0",
		Watch: room.witness, Logins: room.logins, Requests: room.requests,
		Metadata: func() []byte { return []byte("<md/>") }, Health: func() error { return nil },
		Random: &counter{}, Now: func() time.Time { return testNow },
		Log:      slog.New(slog.NewTextHandler(room.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		FlowLife: 9 * time.Minute,
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if room.Server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	return room
}

// serve builds a Server and serves it on a loopback port until the test ends.
func serve(t testing.TB, change func(*Config)) *testRoom {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + ln.Addr().String()
	room := newRoom(t, func(c *Config) {
		c.PublicURL, c.DevelopmentHTTP = url, true
		if change != nil {
			change(c)
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	room.url, room.stop, room.done = url, cancel, make(chan error, 1)
	go func() { room.done <- room.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-room.done:
		case <-time.After(30 * time.Second):
			t.Error("Serve did not return")
		}
	})
	return room
}

// browser is a client that follows no redirect.
func browser() *http.Client {
	return &http.Client{
		Timeout:       20 * time.Second,
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func do(t testing.TB, req *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := browser().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

func newReq(t testing.TB, method, url, body string, headers ...string) *http.Request {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" || method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return req
}

// testSecret is a browser's secret and its cookie header.
func testSecret(t testing.TB, flow id.FlowID) (secret, string) {
	t.Helper()
	k, err := newSecret(&counter{n: 77})
	if err != nil {
		t.Fatal(err)
	}
	c, _, _ := strings.Cut(k.cookie(flow, time.Minute), ";")
	return k, c
}

func testView(t testing.TB, step authcore.Step) *authcore.View {
	v := &authcore.View{
		Flow: mustFlow(t, testFlowText), Step: step, SP: mustEntity(t, "https://sp.example.it"),
		SPName: map[string]string{"it": spName, "en": "Sant'Agata <City>"}, Level: saml.L2,
		Deadline: testNow.Add(9 * time.Minute),
	}
	switch step {
	case authcore.StepMethod:
		v.Ways = []authcore.Way{testSMS}
	case authcore.StepCode:
		v.Way, v.Delivery, v.CanResend = testSMS, authcore.DeliverySent, true
	case authcore.StepConsent:
		v.Attributes = []saml.Attribute{
			{Name: "name", Value: "Mario <script>alert(1)</script>"}, {Name: "familyName", Value: "D'Amico & Figli"},
			{Name: "fiscalNumber", Value: "TINIT-RSSMRA80A01H501U"}, {Name: "dateOfBirth", Value: "1980-01-01"},
			{Name: "email", Value: "mario.rossi.con.un.nome.molto.lungo@posta.esempio.example.it"}, {Name: "digitalAddress"},
			{Name: `odd"><b>`, Value: "javascript:alert(1)"},
		}
		v.LastLogin = time.Date(2026, 2, 28, 23, 30, 0, 0, time.UTC)
	}
	return v
}

var testSMS = authcore.Way{Method: authcore.MethodSMS, Name: "••• ••• 567", Digits: 6}

// testWays is a person with everything.
func testWays() []authcore.Way {
	return []authcore.Way{testSMS,
		{Method: authcore.MethodToken, Key: "0011223344556677", Name: "•••4321", Digits: 8, Last: true},
		{Method: authcore.MethodToken, Key: "8811223344556677", Name: "•••4322", Digits: 6, Blocked: true},
		{Method: authcore.MethodPush, Key: "9911223344556677", Name: "•••AB12", Digits: 6},
		{Method: authcore.MethodApp, Key: "9911223344556677", Name: "•••AB12", Digits: 6}}
}

const relayStateSample = `a"b'c<d>&amp;e+f%20g=h ìè€🙂\ /?#;` + "\u00a0`"

func testSigned(code saml.Code) *saml.Signed {
	return &saml.Signed{XML: []byte("<samlp:Response>è</samlp:Response>"), Code: code, ID: "_r1",
		ACS: "https://sp.example.it/acs?x=1&y=2", RelayState: relayStateSample, HasRelayState: true}
}

var testPeer = netip.MustParseAddr("192.0.2.7")
