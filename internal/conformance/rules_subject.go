package conformance

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// press sends the form of the page that has the button.
func press(action string, set func(*walker) map[string]string) step {
	return func(ctx context.Context, w *walker, o *observation) (*observation, error) {
		var fields map[string]string
		if set != nil {
			fields = set(w)
		}
		return w.b.submit(ctx, o, action, fields)
	}
}

func credentials(s *Subject) map[string]string {
	return map[string]string{"username": s.Username, "password": s.Password}
}

var (
	asSubject   = press("password", func(w *walker) map[string]string { return credentials(w.a.cfg.Subject) })
	asSuspended = press("password", func(w *walker) map[string]string { return credentials(w.a.cfg.Suspended) })
	consent     = press("consent", nil)
	refuse      = press("refuse", nil)
	cancel      = press("cancel", nil)
	bySMS       = press("method", func(*walker) map[string]string { return map[string]string{"method": "sms"} })
)

// asNobody types three wrong passwords for a username that nobody has, which
// the instance must not tell from a known one.
func asNobody(ctx context.Context, w *walker, o *observation) (*observation, error) {
	name := "nessuno." + w.m.id[1:13]
	for range 10 {
		if o.page.with("password", "") == nil {
			break
		}
		var err error
		if o, err = w.b.submit(ctx, o, "password", map[string]string{"username": name, "password": "Sbagliata-" + w.m.id[1:9]}); err != nil {
			return o, err
		}
	}
	return o, nil
}

// typed asks for the one-time code and types it.
func typed(ctx context.Context, w *walker, o *observation) (*observation, error) {
	code, err := w.a.cfg.Code(ctx)
	if err != nil {
		return o, fmt.Errorf("no one-time code: %w", err)
	}
	return w.b.submit(ctx, o, "code", map[string]string{"code": code})
}

// wrongCodes types codes until the login ends.
func wrongCodes(ctx context.Context, w *walker, o *observation) (*observation, error) {
	code, err := w.a.cfg.Code(ctx)
	if err != nil {
		return o, fmt.Errorf("no one-time code: %w", err)
	}
	last := byte('0')
	if code[len(code)-1] == last {
		last = '1'
	}
	wrong := code[:len(code)-1] + string(last)
	for range 10 {
		if o.page.with("code", "") == nil {
			break
		}
		if o, err = w.b.submit(ctx, o, "code", map[string]string{"code": wrong}); err != nil {
			return o, err
		}
	}
	return o, nil
}

// overtime waits until the login's life is over and asks for its page.
func overtime(ctx context.Context, w *walker, o *observation) (*observation, error) {
	if err := pause(ctx, w.a.cfg.FlowLife+2*time.Second); err != nil {
		return o, err
	}
	return again(ctx, w, o)
}

// again loads the page.
func again(ctx context.Context, w *walker, o *observation) (*observation, error) {
	r, err := http.NewRequest(http.MethodGet, o.at.String(), nil)
	if err != nil {
		return o, err
	}
	r.Header.Set("Accept-Language", w.b.lang)
	return w.b.do(ctx, r)
}

// resent sends the same octets again from another browser.
func resent(ctx context.Context, w *walker, _ *observation) (*observation, error) {
	r, err := w.m.request()
	if err != nil {
		return nil, err
	}
	return w.a.browser(w.b.lang).do(ctx, r)
}

// answered wants the first answer to be a success.
func answered(_ context.Context, w *walker, o *observation) (*observation, error) {
	if doc := decodeResponse(o); !strings.Contains(doc, statusPrefix+"Success") {
		return o, fmt.Errorf("the first answer is no success: %s", seen(o))
	}
	return o, nil
}

func level(n int) func(*message) {
	return edits(edit{"SpidL2", "SpidL" + itoa(n)}, edit{`"minimum"`, `"exact"`})
}

// subjectRules: what happens when somebody logs in, cancels, fails. Those
// without needs concern no particular subject.
func subjectRules() []Rule {
	const phase = "table of anomalies, row "
	purpose := func(p string) func(*message) {
		return func(m *message) {
			level(1)(m)
			m.replace("<samlp:NameIDPolicy", `<samlp:Extensions xmlns:spid="`+nsSPID+`"><spid:Purpose>`+p+`</spid:Purpose></samlp:Extensions><samlp:NameIDPolicy`)
		}
	}
	service := func(index string) func(*message) {
		return func(m *message) {
			level(1)(m)
			m.replace(` AttributeConsumingServiceIndex="0"`, index)
		}
	}
	all := []Rule{
		{ID: "cancelled", Source: phase + "25", Title: "the subject cancels before logging in", walk: []step{cancel}, want: expect{code: 25}},
		{ID: "failed", Source: phase + "19", Title: "wrong passwords up to the limit, for a username nobody has", walk: []step{asNobody}, want: expect{code: 19}},
		{ID: "timed-out", Source: phase + "21", Title: "the login is not finished in time", walk: []step{overtime}, want: expect{code: 21}, needs: needTime},
		{ID: "suspended", Source: phase + "23", Title: "a suspended identity, after its right password", walk: []step{asSuspended}, want: expect{code: 23}, needs: needSuspended},
		{ID: "suspended-english", Source: "pages in two languages; " + phase + "23", Title: "the page of anomaly 23 in English", walk: []step{asSuspended}, want: expect{code: 23}, needs: needSuspended,
			change: func(m *message) { m.language = "en" }},
	}
	subject := []Rule{
		{ID: "level-1", Source: phase + "1; SPID technical rules, Response and Assertion", Title: "a login at level 1", change: level(1), walk: []step{asSubject, consent}, want: expect{code: 1}, login: login{1, 0}},
		{ID: "attributes-six", Source: "SPID technical rules, AttributeStatement", Title: "exactly the six attributes asked for", change: service(` AttributeConsumingServiceIndex="1"`), walk: []step{asSubject, consent}, want: expect{code: 1}, login: login{1, 1}},
		{ID: "attributes-empty", Source: "SPID technical rules, AttributeStatement; " + divergences, Title: "an attribute without a value is sent empty", change: service(` AttributeConsumingServiceIndex="2"`), walk: []step{asSubject, consent}, want: expect{code: 1}, login: login{1, 2}},
		{ID: "attributes-none", Source: "SPID technical rules, AttributeConsumingServiceIndex", Title: "no attributes when none are asked for", change: service(""), walk: []step{asSubject, consent}, want: expect{code: 1}, login: login{1, -1}},
		{ID: "no-level", Source: phase + "20", Title: "the subject has no credentials of level 3", change: level(3), walk: []step{asSubject}, want: expect{code: 20}},
		{ID: "consent-refused", Source: phase + "22", Title: "the subject refuses consent", change: level(1), walk: []step{asSubject, refuse}, want: expect{code: 22}},
		{ID: "cancelled-consent", Source: phase + "25", Title: "the subject cancels on the consent page", change: level(1), walk: []step{asSubject, cancel}, want: expect{code: 25}},
		{ID: "cancelled-method", Source: phase + "25", Title: "the subject cancels before the code", walk: []step{asSubject, cancel}, want: expect{code: 25}},
		{ID: "replayed", Source: "SPID technical rules, ID is unique; " + divergences, Title: "a request that was answered begins nothing", change: level(1), walk: []step{asSubject, consent, answered, resent}, want: expect{code: refused}},
	}
	for _, p := range []string{"P", "LP", "PG", "PF", "PX"} {
		subject = append(subject, Rule{ID: "identity-type-" + p, Source: "SPID Avviso 18 v2; " + phase + "30", Title: "a citizen's identity where Purpose " + p + " is asked for",
			change: purpose(p), walk: []step{asSubject}, want: expect{code: 30}})
	}
	for i := range subject {
		subject[i].needs |= needSubject
	}
	coded := []Rule{
		{ID: "level-2", Source: phase + "1; SPID technical rules, Response and Assertion", Title: "a login at level 2", walk: []step{asSubject, bySMS, typed, consent}, want: expect{code: 1}, login: login{2, 0}},
		{ID: "cancelled-code", Source: phase + "25", Title: "the subject cancels on the code's page", walk: []step{asSubject, bySMS, cancel}, want: expect{code: 25}},
		{ID: "failed-code", Source: phase + "19", Title: "wrong codes up to the limit", walk: []step{asSubject, bySMS, wrongCodes}, want: expect{code: 19}},
	}
	for i := range coded {
		coded[i].needs |= needSubject | needCode
	}
	return append(append(all, subject...), coded...)
}
