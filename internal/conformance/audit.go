package conformance

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"custode/internal/fault"
)

// Config says what to audit and with what. URL and SP are required.
type Config struct {
	URL string // of the instance: https://host[:port]; its metadata is at /metadata
	SP  SP
	// Subject can log in with username and password; Suspended is an identity
	// that is suspended. Rules that need them are skipped without.
	Subject, Suspended *Subject
	// Code returns the one-time code that was just sent to Subject's
	// telephone; nil skips the rules that need one.
	Code func(context.Context) (string, error)
	// OtherEntity is the entityID of another SP of the instance's registry.
	OtherEntity string
	// FlowLife, when not 0, is the instance's life of a login; then the rule
	// about it waits as long.
	FlowLife time.Duration
	Pace     time.Duration // between two requests; 0: none
	Bound    time.Duration // for one answer; 0: 3 s, what the manual promises
	Now      func() time.Time
	Random   io.Reader         // nil: crypto/rand
	Client   http.RoundTripper // nil: a transport of its own
}

// Subject is somebody's login. It is a secret: it stands in no report.
type Subject struct{ Username, Password string }

// Verdict is the end of one rule.
type Verdict string

// The verdicts.
const (
	Pass Verdict = "PASS"
	Fail Verdict = "FAIL"
	Skip Verdict = "SKIP"
)

// Result is one rule by one binding.
type Result struct {
	ID      string        `json:"id"`
	Source  string        `json:"source"`
	Title   string        `json:"title"`
	Binding Binding       `json:"binding"`
	Verdict Verdict       `json:"verdict"`
	Want    string        `json:"want"`
	Seen    string        `json:"seen"`             // what the instance did, or why the rule was skipped
	Faults  []string      `json:"faults,omitempty"` // what was not as it should be
	Elapsed time.Duration `json:"nanoseconds"`      // of the answer to the request
}

// Auditor runs rules, one at a time; it is not safe for concurrent use.
type Auditor struct {
	cfg      Config
	client   *http.Client
	idp      *idp
	known    map[string]bool // Response and Assertion identifiers seen
	messages map[string]int  // StatusMessages seen
	last     time.Time       // of the last request, for the pace
	stranger stranger
}

// New checks the configuration; fault.Invalid. It sends nothing.
func New(cfg Config) (*Auditor, error) {
	const op = "configure the auditor"
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fault.Newf(fault.Invalid, op, "%q is not an http(s) URL", cfg.URL)
	}
	if err := cfg.SP.check(); err != nil {
		return nil, err
	}
	if cfg.Pace < 0 || cfg.Bound < 0 {
		return nil, fault.Newf(fault.Invalid, op, "negative duration")
	}
	cfg.Bound = cmp.Or(cfg.Bound, 3*time.Second)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Random == nil {
		cfg.Random = rand.Reader
	}
	if cfg.Client == nil {
		cfg.Client = &http.Transport{DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext, MaxIdleConnsPerHost: 4, IdleConnTimeout: 20 * time.Second}
	}
	return &Auditor{cfg: cfg, known: map[string]bool{}, messages: map[string]int{}, client: &http.Client{
		Transport: cfg.Client, Timeout: 60 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Open reads the instance's metadata and checks its signature. fault.Unavailable
// when the instance cannot be reached, fault.Invalid when its metadata is not
// what the rules want.
func (a *Auditor) Open(ctx context.Context) error {
	const op = "read the instance's metadata"
	found, err := fetchIDP(ctx, a.client, a.cfg.URL)
	var u *url.Error
	switch {
	case err == nil:
		a.idp = found
		return nil
	case asURLError(err, &u):
		return fault.New(fault.Unavailable, op, err)
	}
	return fault.New(fault.Invalid, op, err)
}

func asURLError(err error, u **url.Error) bool {
	e, ok := err.(*url.Error)
	*u = e
	return ok
}

// Run runs one rule by one binding. Open comes first.
func (a *Auditor) Run(ctx context.Context, rule Rule, by Binding) Result {
	res := Result{ID: rule.ID, Source: rule.Source, Title: rule.Title, Binding: by, Verdict: Skip}
	want := rule.want.on(by)
	res.Want = want.String()
	if a.idp == nil {
		res.Seen = "the instance was not opened"
		return res
	}
	if !slices.Contains(rule.Bindings, by) {
		res.Seen = "does not concern this binding"
		return res
	}
	if why := a.missing(rule.needs); why != "" {
		res.Seen = why
		return res
	}
	m, err := a.message(by)
	if err != nil {
		return res.broken(err)
	}
	if rule.change != nil {
		rule.change(m)
	}
	b := a.browser(m.language)
	o, err := a.deliver(ctx, b, m)
	if err != nil {
		return res.broken(err)
	}
	res.Elapsed = o.elapsed
	for _, step := range rule.walk {
		if o, err = step(ctx, &walker{a, b, m}, o); err != nil {
			res.Seen = seen(o)
			return res.broken(err)
		}
	}
	f := a.judge(m, o, want)
	if want.code == 1 && len(f) == 0 {
		a.judgeAssertion(&f, m, o, rule.login)
	}
	res.Seen, res.Faults, res.Verdict = seen(o), f, Pass
	if len(f) > 0 {
		res.Verdict = Fail
	}
	return res
}

func (r Result) broken(err error) Result {
	r.Verdict = Fail
	r.Faults = append(r.Faults, err.Error())
	return r
}

// Reserved judges what no rule sees alone: codes that no authentication may end
// with. It is asked when all rules have run.
func (a *Auditor) Reserved() Result {
	res := Result{ID: "reserved-codes", Source: "table of anomalies, rows 24 and 26 to 29", Title: "reserved codes are never emitted",
		Verdict: Pass, Want: "none of them", Seen: fmt.Sprintf("%d different messages", len(a.messages))}
	for message := range a.messages {
		known := false
		for _, row := range table {
			known = known || row.Message() == message
		}
		if !known {
			res.Verdict = Fail
			res.Faults = append(res.Faults, fmt.Sprintf("StatusMessage %q", message))
		}
	}
	return res
}

// message returns the usual request for the binding.
func (a *Auditor) message(by Binding) (*message, error) {
	id, err := newID(a.cfg.Random)
	if err != nil {
		return nil, err
	}
	return &message{binding: by, entity: a.cfg.SP.EntityID, other: a.cfg.OtherEntity, idp: a.idp, sp: &a.cfg.SP, stranger: &a.stranger,
		acs: [2]string{a.cfg.SP.ACS(0), a.cfg.SP.ACS(1)}, id: id, issued: a.cfg.Now(), text: plainRequest,
		relay: `stato "<&>' è %2F+~ ` + string(by), hasRelay: true, sign: a.cfg.SP.signing(a.cfg.Random), language: "it"}, nil
}

func (a *Auditor) browser(lang string) *browser {
	return &browser{client: a.client, pace: a.rest, wait: pause, now: time.Now, cookies: map[string]string{}, lang: lang}
}

func (a *Auditor) deliver(ctx context.Context, b *browser, m *message) (*observation, error) {
	r, err := m.request()
	if err != nil {
		return nil, err
	}
	return b.do(ctx, r)
}

// rest keeps the pace.
func (a *Auditor) rest(ctx context.Context) error {
	now := time.Now() // real time: it paces the network
	wait := a.last.Add(a.cfg.Pace).Sub(now)
	a.last = now.Add(max(wait, 0))
	return pause(ctx, wait)
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// seen describes an answer without anything personal.
func seen(o *observation) string {
	if o == nil {
		return "nothing"
	}
	s := fmt.Sprintf("HTTP %d", o.status)
	if _, ok := o.page.field("SAMLResponse"); !ok {
		if o.page.with("password", "") != nil {
			return s + ", credentials page"
		}
		if n := o.page.number(); table[n].PageIT != "" && o.page.says(table[n].PageIT) {
			return fmt.Sprintf("%s, page of anomaly %d «%s»", s, n, table[n].PageIT)
		}
		return s + ", a page without a sentence of the table"
	}
	root, err := parseXML(decodeResponse(o))
	if err != nil {
		return s + ", unreadable Response"
	}
	status := root.child(nsProtocol, "Status")
	var codes []string
	for c := status.child(nsProtocol, "StatusCode"); c != nil; c = c.child(nsProtocol, "StatusCode") {
		codes = append(codes, strings.TrimPrefix(c.get("Value"), statusPrefix))
	}
	return fmt.Sprintf("%s, Response %s %s to %s", s, strings.Join(codes, "/"), status.child(nsProtocol, "StatusMessage").text(), root.get("Destination"))
}
