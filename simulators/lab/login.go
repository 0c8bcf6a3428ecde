package lab

import (
	"context"
	"fmt"
	"strings"

	"custode/simulators/browsersim"
	"custode/simulators/modemsim"
	"custode/simulators/spsim"
)

// Login logs the person in with the browser, by HTTP-POST or HTTP-Redirect, and
// returns what the service provider verified. It reads the code on the
// person's simulated phone. Each person may be in one login at a time.
func (l *Lab) Login(ctx context.Context, b *browsersim.Browser, r spsim.Request, byPost bool, p Person) (*spsim.Login, error) {
	page, _, err := l.Send(ctx, b, r, byPost)
	if err != nil {
		return nil, err
	}
	seen := len(l.Bank.Inbox(p.Phone))
	if page, err = b.Submit(page, "password", map[string]string{"username": p.Username, "password": p.Password}); err != nil {
		return nil, err
	}
	if r.Level != 1 {
		if page, err = b.Submit(page, "method", map[string]string{"method": "sms"}); err != nil {
			return nil, err
		}
		inbox, err := l.Bank.Wait(ctx, p.Phone, seen+1)
		if err != nil {
			return nil, err
		}
		code, err := Code(inbox[seen])
		if err != nil {
			return nil, err
		}
		if page, err = b.Submit(page, "code", map[string]string{"code": code}); err != nil {
			return nil, err
		}
	}
	if page, err = b.Submit(page, "consent", nil); err != nil {
		return nil, err
	}
	if !page.Has("SAMLResponse") {
		return nil, fmt.Errorf("no Response on the page (HTTP %d): %.600s", page.Status, page.Text)
	}
	return l.SP.ConsumeFor(r.Browser, page.Field("SAMLResponse"), page.Field("RelayState"))
}

// Send carries the request to the appliance and returns the page reached and the
// request's ID.
func (l *Lab) Send(ctx context.Context, b *browsersim.Browser, r spsim.Request, byPost bool) (page *browsersim.Page, request string, err error) {
	if err := l.SP.Open(ctx); err != nil {
		return nil, "", err
	}
	if byPost {
		action, fields, request, err := l.SP.PostForm(r)
		if err != nil {
			return nil, "", err
		}
		page, err := b.Post(action, fields, l.SPURL)
		return page, request, err
	}
	to, request, err := l.SP.RedirectURL(r)
	if err != nil {
		return nil, "", err
	}
	page, err = b.Get(to)
	return page, request, err
}

// Code finds the six digits in a message.
func Code(m modemsim.SMS) (string, error) {
	for word := range strings.FieldsSeq(m.Text) {
		if w := strings.Trim(word, ".,:"); len(w) == 6 && strings.Trim(w, "0123456789") == "" {
			return w, nil
		}
	}
	return "", fmt.Errorf("no code in the message %q", m.Text)
}
