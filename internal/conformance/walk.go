package conformance

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"custode/internal/conformance/catalogue"
	"custode/internal/conformance/request"
)

// walker is a subject in front of the pages.
type walker struct {
	a *Auditor
	b *browser
	m *request.Message
}

// most is how often something wrong is typed before the instance is given up.
const most = 10

// step does one thing on the page o and returns the page reached.
func (w *walker) step(ctx context.Context, s catalogue.Step, o *observation) (*observation, error) {
	switch s {
	case catalogue.AsSubject:
		return w.logIn(ctx, o, w.a.cfg.Subject)
	case catalogue.AsSuspended:
		return w.logIn(ctx, o, w.a.cfg.Suspended)
	case catalogue.AsNobody:
		return w.asNobody(ctx, o)
	case catalogue.ByCode:
		return w.b.submit(ctx, o, "method", map[string]string{"method": "sms"})
	case catalogue.TypeCode:
		code, err := w.code(ctx)
		if err != nil {
			return o, err
		}
		return w.b.submit(ctx, o, "code", map[string]string{"code": code})
	case catalogue.WrongCodes:
		return w.wrongCodes(ctx, o)
	case catalogue.Consent:
		return w.b.submit(ctx, o, "consent", nil)
	case catalogue.Refuse:
		return w.b.submit(ctx, o, "refuse", nil)
	case catalogue.Cancel:
		return w.b.submit(ctx, o, "cancel", nil)
	case catalogue.Overtime:
		if err := pause(ctx, w.a.cfg.FlowLife+2*time.Second); err != nil {
			return o, err
		}
		return w.reload(ctx, o)
	case catalogue.Answered:
		if doc := decodeResponse(o); !strings.Contains(doc, catalogue.StatusPrefix+"Success") {
			return o, fmt.Errorf("the first answer is no success: %s", seen(o))
		}
		return o, nil
	case catalogue.LogOut:
		return w.logOut(ctx, o)
	case catalogue.NextLevel1:
		return w.next(ctx, "SpidL1", "")
	case catalogue.NextForced:
		return w.next(ctx, "SpidL1", ` ForceAuthn="true"`)
	case catalogue.NextLevel2:
		return w.next(ctx, "SpidL2", ` ForceAuthn="true"`)
	case catalogue.Resend:
		r, err := w.m.HTTP()
		if err != nil {
			return o, err
		}
		return w.a.browser(w.b.lang).do(ctx, r)
	}
	return o, fmt.Errorf("unknown step %d", s)
}

func (w *walker) logIn(ctx context.Context, o *observation, s *Subject) (*observation, error) {
	return w.b.submit(ctx, o, "password", map[string]string{"username": s.Username, "password": s.Password})
}

// asNobody: the instance must not tell that username from a known one.
func (w *walker) asNobody(ctx context.Context, o *observation) (*observation, error) {
	nobody := &Subject{Username: "nessuno." + w.m.ID[1:13], Password: "Sbagliata-" + w.m.ID[1:9]}
	var err error
	for range most {
		if o.page.with("password", "") == nil {
			break
		}
		if o, err = w.logIn(ctx, o, nobody); err != nil {
			return o, err
		}
	}
	return o, nil
}

func (w *walker) code(ctx context.Context) (string, error) {
	code, err := w.a.cfg.Code(ctx)
	if err == nil && code == "" {
		err = fmt.Errorf("it is empty")
	}
	if err != nil {
		return "", fmt.Errorf("no one-time code: %w", err)
	}
	return code, nil
}

func (w *walker) wrongCodes(ctx context.Context, o *observation) (*observation, error) {
	code, err := w.code(ctx)
	if err != nil {
		return o, err
	}
	last := "0"
	if strings.HasSuffix(code, last) {
		last = "1"
	}
	for range most {
		if o.page.with("code", "") == nil {
			break
		}
		if o, err = w.b.submit(ctx, o, "code", map[string]string{"code": code[:len(code)-1] + last}); err != nil {
			return o, err
		}
	}
	return o, nil
}

func (w *walker) reload(ctx context.Context, o *observation) (*observation, error) {
	r, err := http.NewRequest(http.MethodGet, o.at.String(), nil)
	if err != nil {
		return o, err
	}
	r.Header.Set("Accept-Language", w.b.lang)
	return w.b.do(ctx, r)
}

// logOut sends a LogoutRequest about the session of the Response on the page,
// from the same browser, and goes on as far as the instance's own pages lead.
// The message of the walk is then the LogoutRequest.
func (w *walker) logOut(ctx context.Context, o *observation) (*observation, error) {
	root, err := request.Parse(decodeResponse(o))
	if err != nil {
		return o, err
	}
	assertion := root.Child(request.NSAssertion, "Assertion")
	name := assertion.Child(request.NSAssertion, "Subject").Child(request.NSAssertion, "NameID").Text()
	statement := assertion.Child(request.NSAssertion, "AuthnStatement")
	if name == "" || statement == nil {
		return o, fmt.Errorf("the Response has no NameID or no AuthnStatement")
	}
	if w.m, err = w.a.message(w.m.Binding); err != nil {
		return o, err
	}
	w.m.Text, w.m.To = request.Logout, w.a.idp.SLO[w.m.Binding]
	w.m.Replace("_nessuno", name)
	w.m.Replace("_sessione", statement.Get("SessionIndex"))
	if o, err = w.a.deliver(ctx, w.b, w.m); err != nil {
		return o, err
	}
	for range 4 {
		f := o.page.with("token", "")
		if f == nil || !strings.HasPrefix(f.action, w.a.origin()) {
			break
		}
		if o, err = w.b.press(ctx, o, f, nil); err != nil {
			return o, err
		}
	}
	return o, nil
}

// next sends another request from the same browser. The message of the walk is
// then that one.
func (w *walker) next(ctx context.Context, level, force string) (*observation, error) {
	m, err := w.a.message(w.m.Binding)
	if err != nil {
		return nil, err
	}
	m.Replace(` ForceAuthn="true"`, force)
	m.Replace("SpidL2", level)
	w.m = m
	return w.a.deliver(ctx, w.b, m)
}
