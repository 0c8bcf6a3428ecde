package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"custode/internal/fault"
)

const (
	maxPages     = 20_000
	maxRedirects = 3
)

// HTTPConfig configures an HTTP source. AggregateURL is required.
type HTTPConfig struct {
	AggregateURL string
	PageSize     int    // entities a page (parameters page and numMetadata); 0: the URL is one document
	ListingURL   string // "" for none
	// A body that brings fewer than LeastRate octets a second, after Grace, is given up. 0: 16 KiB/s, 30 s.
	LeastRate int64
	Grace     time.Duration
	Now       func() time.Time
}

// HTTP gets the documents from the registry's web service (docs: /apidoc of
// registry.spid.gov.it). It follows redirects to the same host only, and takes only the
// content types it asked for.
type HTTP struct {
	c      HTTPConfig
	client *http.Client
}

// NewHTTP builds the source; fault.Invalid for a URL that is not one.
func NewHTTP(c HTTPConfig) (*HTTP, error) {
	const op = "build registry source"
	for _, s := range []string{c.AggregateURL, c.ListingURL} {
		if u, err := url.Parse(s); err != nil || s != "" && (u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
			return nil, fault.Newf(fault.Invalid, op, "malformed URL")
		}
	}
	if c.AggregateURL == "" || c.Now == nil || c.PageSize < 0 {
		return nil, fault.Newf(fault.Invalid, op, "URL and clock are required, the page size is positive")
	}
	if c.LeastRate == 0 {
		c.LeastRate = 16 << 10
	}
	if c.Grace == 0 {
		c.Grace = 30 * time.Second
	}
	transport := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:    15 * time.Second,
		ResponseHeaderTimeout:  max(c.Grace, 30*time.Second),
		MaxResponseHeaderBytes: 64 << 10,
		MaxIdleConns:           2,
		IdleConnTimeout:        30 * time.Second,
		ForceAttemptHTTP2:      true,
	}
	return &HTTP{c: c, client: &http.Client{Transport: transport, CheckRedirect: sameHost}}, nil
}

// sameHost keeps a redirect from sending us elsewhere.
func sameHost(next *http.Request, via []*http.Request) error {
	first := via[0].URL
	if next.URL.Scheme != first.Scheme || next.URL.Host != first.Host {
		return errors.New("redirect to another host refused")
	}
	if len(via) > maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	return nil
}

// String returns the aggregate's URL.
func (h *HTTP) String() string { return h.c.AggregateURL }

var (
	xmlTypes  = []string{"application/samlmetadata+xml", "application/xml", "text/xml"}
	jsonTypes = []string{"application/json"}
)

// Aggregate gets the document, or page after page.
func (h *HTTP) Aggregate(ctx context.Context, known func(string) Mark, take func(Arrival) error) (int, error) {
	if h.c.PageSize == 0 {
		return -1, h.get(ctx, h.c.AggregateURL, xmlTypes, known, func(a Arrival, _ http.Header) error { return take(a) })
	}
	pages, total := 1, -1
	for page := 1; page <= pages; page++ {
		err := h.get(ctx, h.page(page), xmlTypes, known, func(a Arrival, header http.Header) error {
			if err := a.Mark.count(header, page, a.Body == nil); err != nil {
				return fault.New(fault.Invalid, "get "+a.Name, err)
			}
			if page > 1 && (a.Mark.Pages != pages || a.Mark.Total != total) {
				return fault.Newf(fault.Retry, "get "+a.Name, "the registry changed between two pages")
			}
			pages, total = a.Mark.Pages, a.Mark.Total
			return take(a)
		})
		if err != nil {
			return -1, err
		}
	}
	return total, nil
}

func (h *HTTP) page(n int) string {
	u, _ := url.Parse(h.c.AggregateURL) // NewHTTP did
	q := u.Query()
	q.Set("page", strconv.Itoa(n))
	q.Set("numMetadata", strconv.Itoa(h.c.PageSize))
	u.RawQuery = q.Encode()
	return u.String()
}

// count reads the page headers into the mark. An answer "not modified" may
// leave them out: the mark has them.
func (m *Mark) count(header http.Header, page int, unmodified bool) error {
	for name, v := range map[string]*int{"tot-pages": &m.Pages, "tot-metadata": &m.Total} {
		text := header.Get(name)
		if text == "" && unmodified {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return fmt.Errorf("page without a usable header %s", name)
		}
		*v = n
	}
	if current := header.Get("current-page"); current != "" && current != strconv.Itoa(page) {
		return fmt.Errorf("another page came instead of page %d", page)
	}
	if m.Pages < 1 || m.Pages > maxPages || m.Total > maxEntities {
		return fmt.Errorf("%d entities on %d pages", m.Total, m.Pages)
	}
	return nil
}

// Listing gets the listing, if there is one.
func (h *HTTP) Listing(ctx context.Context, known func(string) Mark, take func(Arrival) error) error {
	if h.c.ListingURL == "" {
		return nil
	}
	return h.get(ctx, h.c.ListingURL, jsonTypes, known, func(a Arrival, _ http.Header) error { return take(a) })
}

func (h *HTTP) get(ctx context.Context, location string, types []string, known func(string) Mark, take func(Arrival, http.Header) error) error {
	op := "get " + location
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, location, nil)
	if err != nil {
		return fault.New(fault.Invalid, op, err)
	}
	// Accept-Encoding is left to the transport, which then undoes gzip; what
	// comes out of it is bounded like everything else.
	req.Header.Set("Accept", types[0])
	req.Header.Set("User-Agent", "custode-registry")
	mark := known(location)
	if mark.ETag != "" {
		req.Header.Set("If-None-Match", mark.ETag)
	}
	if mark.LastModified != "" {
		req.Header.Set("If-Modified-Since", mark.LastModified)
	}
	resp, err := h.client.Do(req)
	if err != nil {
		return fault.New(fault.Unavailable, op, err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotModified && mark != (Mark{}):
		return take(Arrival{Name: location, Mark: mark}, resp.Header)
	case resp.StatusCode != http.StatusOK:
		return fault.Newf(fault.Unavailable, op, "HTTP status %d", resp.StatusCode)
	}
	if t, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || !slices.Contains(types, t) {
		return fault.Newf(fault.Invalid, op, "content type is not %s", types[0])
	}
	a := Arrival{
		Name: location,
		Mark: Mark{ETag: bounded(resp.Header.Get("ETag")), LastModified: bounded(resp.Header.Get("Last-Modified"))},
		Body: &pacedReader{r: resp.Body, now: h.c.Now, start: h.c.Now(), rate: h.c.LeastRate, grace: h.c.Grace},
	}
	return take(a, resp.Header)
}

func bounded(header string) string {
	if len(header) > 256 {
		return ""
	}
	return header
}

// pacedReader gives up a body that only drips.
type pacedReader struct {
	r     io.Reader
	now   func() time.Time
	start time.Time
	rate  int64
	grace time.Duration
	got   int64
}

func (p *pacedReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.got += int64(n)
	if took := p.now().Sub(p.start); err == nil && took > p.grace && float64(p.got) < float64(p.rate)*took.Seconds() {
		return n, fmt.Errorf("slower than %d octets a second", p.rate)
	}
	return n, err
}
