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
	"sync"
	"time"

	"custode/internal/fault"

	"custode/internal/conformance/catalogue"
	"custode/internal/conformance/request"
)

// Config says what to audit and with what. URL and SP are required.
type Config struct {
	URL string // of the instance: https://host[:port]; its metadata is at /metadata
	SP  request.SP
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
	ID      string          `json:"id"`
	Source  string          `json:"source"`
	Title   string          `json:"title"`
	Binding request.Binding `json:"binding"`
	Verdict Verdict         `json:"verdict"`
	Want    string          `json:"want"`
	Seen    string          `json:"seen"`             // what the instance did, or why the rule was skipped
	Faults  []string        `json:"faults,omitempty"` // what was not as it should be
	Elapsed time.Duration   `json:"nanoseconds"`      // of the answer to the request
}

// Auditor runs rules, one at a time; it is not safe for concurrent use.
type Auditor struct {
	cfg      Config
	client   *http.Client
	idp      *request.IDP
	known    map[string]bool // Response and Assertion identifiers seen
	messages map[string]int  // StatusMessages seen
	last     time.Time       // of the last request, for the pace
	stranger func() (request.KeyPair, error)
}

// New checks the configuration; fault.Invalid. It sends nothing.
func New(cfg Config) (*Auditor, error) {
	const op = "configure the auditor"
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fault.Newf(fault.Invalid, op, "%q is not an http(s) URL", cfg.URL)
	}
	if err := cfg.SP.Check(); err != nil {
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
	return &Auditor{cfg: cfg, stranger: sync.OnceValues(func() (request.KeyPair, error) { return newStranger(cfg.Random, cfg.SP.EntityID) }), known: map[string]bool{}, messages: map[string]int{}, client: &http.Client{
		Transport: cfg.Client, Timeout: 60 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Open reads the instance's metadata and checks its signature. fault.Unavailable
// when the instance cannot be reached, fault.Invalid when its metadata is not
// what the rules want.
func (a *Auditor) Open(ctx context.Context) error {
	const op = "read the instance's metadata"
	found, err := request.FetchIDP(ctx, a.client, a.cfg.URL)
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
func (a *Auditor) Run(ctx context.Context, rule catalogue.Rule, by request.Binding) Result {
	res := Result{ID: rule.ID, Source: rule.Source, Title: rule.Title, Binding: by, Verdict: Skip}
	want := rule.Want.On(by)
	res.Want = want.String()
	if a.idp == nil {
		res.Seen = "the instance was not opened"
		return res
	}
	if !slices.Contains(rule.Bindings, by) {
		res.Seen = "does not concern this binding"
		return res
	}
	if why := a.missing(rule.Needs); why != "" {
		res.Seen = why
		return res
	}
	m, err := a.message(by)
	if err != nil {
		return res.broken(err)
	}
	if rule.Change != nil {
		rule.Change(m)
	}
	w := &walker{a, a.browser(m.Language), m}
	o, err := a.deliver(ctx, w.b, m)
	if err != nil {
		return res.broken(err)
	}
	res.Elapsed = o.elapsed
	for _, s := range rule.Walk {
		if o, err = w.step(ctx, s, o); err != nil {
			res.Seen = seen(o)
			return res.broken(err)
		}
	}
	m = w.m // a step may have sent another one
	f := a.judge(m, o, want)
	if want.Code == 1 && len(f) == 0 {
		a.judgeAssertion(&f, m, o, rule.Login)
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
		for _, row := range catalogue.Table {
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
func (a *Auditor) message(by request.Binding) (*request.Message, error) {
	m, err := request.NewMessage(by, &a.cfg.SP, a.idp, a.cfg.Now(), a.cfg.Random)
	if err != nil {
		return nil, err
	}
	m.Other, m.Stranger = a.cfg.OtherEntity, a.stranger
	return m, nil
}

func (a *Auditor) browser(lang string) *browser {
	return &browser{client: a.client, pace: a.rest, wait: pause, now: time.Now, cookies: map[string]string{}, lang: lang}
}

func (a *Auditor) deliver(ctx context.Context, b *browser, m *request.Message) (*observation, error) {
	r, err := m.HTTP()
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
		if n := o.page.number(); catalogue.Table[n].PageIT != "" && o.page.says(catalogue.Table[n].PageIT) {
			return fmt.Sprintf("%s, page of anomaly %d «%s»", s, n, catalogue.Table[n].PageIT)
		}
		return s + ", a page without a sentence of the catalogue.Table"
	}
	root, err := request.Parse(decodeResponse(o))
	if err != nil {
		return s + ", unreadable Response"
	}
	status := root.Child(request.NSProtocol, "Status")
	var codes []string
	for c := status.Child(request.NSProtocol, "StatusCode"); c != nil; c = c.Child(request.NSProtocol, "StatusCode") {
		codes = append(codes, strings.TrimPrefix(c.Get("Value"), catalogue.StatusPrefix))
	}
	return fmt.Sprintf("%s, Response %s %s to %s", s, strings.Join(codes, "/"), status.Child(request.NSProtocol, "StatusMessage").Text(), root.Get("Destination"))
}

// missing tells why a rule is skipped, "" when it is not.
func (a *Auditor) missing(n catalogue.Need) string {
	for _, c := range []struct {
		need catalogue.Need
		has  bool
		why  string
	}{
		{catalogue.NeedSubject, a.cfg.Subject != nil, "needs a subject's login (--subject-file)"},
		{catalogue.NeedSuspended, a.cfg.Suspended != nil, "needs a suspended subject's login (--suspended-file)"},
		{catalogue.NeedCode, a.cfg.Code != nil, "needs the one-time code sent to the subject (--ask-code)"},
		{catalogue.NeedExpired, a.cfg.SP.Expired != nil, "needs a key whose certificate is over (--expired-key, --expired-cert)"},
		{catalogue.NeedOther, a.cfg.OtherEntity != "", "needs the entityID of another registered service provider (--other-entity)"},
		{catalogue.NeedTime, a.cfg.FlowLife > 0, "needs the time a login may take (--flow-life)"},
		{catalogue.NeedLogout, a.idp.SLO[request.Redirect] != "" && a.idp.SLO[request.Post] != "", "the instance publishes no single logout for both bindings"},
	} {
		if n&c.need != 0 && !c.has {
			return c.why
		}
	}
	return ""
}

// origin is scheme and host of the instance.
func (a *Auditor) origin() string {
	u, err := url.Parse(a.cfg.URL)
	if err != nil {
		return a.cfg.URL // New parsed it
	}
	return u.Scheme + "://" + u.Host + "/"
}
