package conformance

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	maxPage = 4 << 20 // octets of a page
	// maxBackOff bounds how long one "come back later" is obeyed.
	maxBackOff = 60 * time.Second
	attempts   = 4
)

// browser keeps the cookies of one login. Redirects are followed one by one and
// stay on the instance.
type browser struct {
	client  *http.Client
	pace    func(context.Context) error
	wait    func(context.Context, time.Duration) error
	now     func() time.Time
	cookies map[string]string
	lang    string
}

// observation is what came back.
type observation struct {
	status   int
	at       *url.URL
	header   http.Header
	page     *page
	elapsed  time.Duration // to the last octet of the first answer
	location string        // of the first answer, when it was a redirect
}

// do sends the request and follows up to three redirects within the instance.
func (b *browser) do(ctx context.Context, r *http.Request) (*observation, error) {
	first, err := b.once(ctx, r)
	if err != nil {
		return nil, err
	}
	o := first
	for range 3 {
		to := o.header.Get("Location")
		if o.status != http.StatusSeeOther && o.status != http.StatusFound || to == "" {
			break
		}
		u, err := o.at.Parse(to)
		if err != nil || u.Host != r.URL.Host || u.Scheme != r.URL.Scheme {
			break
		}
		next, err := http.NewRequest(http.MethodGet, u.String(), nil)
		if err != nil {
			return nil, err
		}
		next.Header.Set("Accept-Language", b.lang)
		if o, err = b.once(ctx, next); err != nil {
			return nil, err
		}
		o.elapsed, o.location = first.elapsed, to
	}
	return o, nil
}

// once sends one request, again when the instance asks to come back later.
func (b *browser) once(ctx context.Context, r *http.Request) (*observation, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	for try := 1; ; try++ {
		if err := b.pace(ctx); err != nil {
			return nil, err
		}
		again := r.Clone(ctx)
		if body != nil {
			again.Body, again.ContentLength = io.NopCloser(strings.NewReader(string(body))), int64(len(body))
		}
		o, err := b.send(again)
		if err != nil || o.status != http.StatusTooManyRequests || try == attempts {
			return o, err
		}
		seconds, err := strconv.Atoi(o.header.Get("Retry-After"))
		if err != nil || seconds < 1 {
			seconds = 1
		}
		if err := b.wait(ctx, min(time.Duration(seconds)*time.Second, maxBackOff)); err != nil {
			return nil, err
		}
	}
}

func (b *browser) send(r *http.Request) (*observation, error) {
	if len(b.cookies) > 0 {
		var all []string
		for k, v := range b.cookies {
			all = append(all, k+"="+v)
		}
		r.Header.Set("Cookie", strings.Join(all, "; "))
	}
	began := b.now()
	resp, err := b.client.Do(r)
	if err != nil {
		// The URL holds the message; the cause is enough.
		if u, ok := err.(*url.Error); ok {
			err = u.Err
		}
		return nil, fmt.Errorf("%s %s: %w", r.Method, r.URL.Path, err)
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxPage))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", r.URL.Path, err)
	}
	o := &observation{status: resp.StatusCode, at: r.URL, header: resp.Header, elapsed: b.now().Sub(began), page: &page{}}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
		o.page = readPage(string(text), r.URL)
	}
	for _, c := range resp.Cookies() {
		if c.MaxAge < 0 || c.Value == "" {
			delete(b.cookies, c.Name)
			continue
		}
		b.cookies[c.Name] = c.Value
	}
	return o, nil
}

// submit sends the form of o's page that has the button "action" of that value.
func (b *browser) submit(ctx context.Context, o *observation, action string, set values) (*observation, error) {
	f := o.page.with("action", action)
	if f == nil {
		return nil, fmt.Errorf("the page %s (HTTP %d) has no button for %q", o.at.Path, o.status, action)
	}
	return b.press(ctx, o, f, append(set.list(), input{"action", action}))
}

// values are what is typed into a form.
type values map[string]string

func (v values) list() []input {
	var out []input
	for k, x := range v {
		out = append(out, input{k, x})
	}
	return out
}

// press sends a form of o's page with these values.
func (b *browser) press(ctx context.Context, o *observation, f *form, set []input) (*observation, error) {
	fields := url.Values{}
	for _, p := range append(append([]input{}, f.fields...), set...) {
		fields.Set(p.name, p.value)
	}
	r, err := http.NewRequest(http.MethodPost, f.action, strings.NewReader(fields.Encode()))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Origin", o.at.Scheme+"://"+o.at.Host)
	r.Header.Set("Accept-Language", b.lang)
	return b.do(ctx, r)
}
